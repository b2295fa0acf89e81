"""Large files of the Hub protocol, as git LFS sends them: what is asked for, then the bytes, in parts if many."""

from typing import Annotated, Any

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, Field

from registry import blobs, db, hubfiles, quota
from server.hubapi import signed
from server.hubapi.errors import HubError, HubRoute
from server.hubapi.pushers import OwnRun, Pusher
from server.hubapi.signed import Grant
from server.i18n import gettext

router = APIRouter(route_class=HubRoute, include_in_schema=False)

REPOS = ("/{namespace}/{run}.git/info/lfs/objects", "/{run}.git/info/lfs/objects")
MEDIA_TYPE = "application/vnd.git-lfs+json"
PART_BYTES = 512 * 2**20
"""Above this a content comes in parts of that size: what breaks off is sent again from the last part."""
MAX_PARTS = 10_000
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class ObjectAsked(BaseModel):
    """One content."""

    oid: Sha256
    size: Annotated[int, Field(ge=0)]


class BatchAsked(BaseModel):
    """The body of a batch request."""

    operation: str
    objects: Annotated[list[ObjectAsked], Field(max_length=1_000)]
    transfers: list[str] = ["basic"]
    hash_algo: str = "sha256"


class PartDone(BaseModel):
    """A part, as it was acknowledged."""

    partNumber: Annotated[int, Field(ge=1, le=MAX_PARTS)]
    etag: str


class PartsDone(BaseModel):
    """The body that ends an upload in parts."""

    oid: Sha256
    parts: Annotated[list[PartDone], Field(max_length=MAX_PARTS)]


def batch(request: Request, asked: BatchAsked, run: OwnRun, user: Pusher) -> Response:
    """Where the bytes of each content are to be sent; nowhere for one that is here already."""
    if asked.operation != "upload" or asked.hash_algo != "sha256":
        raise HubError(400, gettext("Only uploads by sha256 are answered here; downloads go to resolve/."))
    hubfiles.drop_stale()
    missing = [one for one in asked.objects if not _is_here(one)]
    with db.read_session() as session:
        quota.check(session, user, sum(one.size for one in missing))
    in_parts = "multipart" in asked.transfers
    objects = [
        _actions(request, one, user.id, in_parts=in_parts) if one in missing else _known(one) for one in asked.objects
    ]
    return JSONResponse({"transfer": "multipart" if in_parts else "basic", "objects": objects}, media_type=MEDIA_TYPE)


@router.put("/api/hub/uploads/{token}")
async def put(request: Request, token: str) -> Response:
    """Take the bytes of a content, or of one part of it."""
    grant = signed.read(token)
    size = part_size(grant)
    announced = request.headers.get("content-length", "")
    if announced and announced != str(size):
        message = gettext("The upload has %(found)s bytes; %(size)s were announced.", found=announced[:20], size=size)
        raise HubError(400, message)
    if grant.part == 0:
        with hubfiles.Receiver(size, grant.sha256) as receiver:
            await _feed(request, receiver)
            found = await run_in_threadpool(receiver.finish)
    else:
        found = await _put_part(request, grant, size)
    return Response(headers={"ETag": f'"{found}"'})


@router.post("/api/hub/uploads/{token}")
def complete(token: str, asked: PartsDone) -> dict[str, bool]:
    """Put the parts of a content together."""
    grant = signed.read(token)
    num_parts = -(-grant.size // PART_BYTES)
    if asked.oid != grant.sha256 or [part.partNumber for part in asked.parts] != list(range(1, num_parts + 1)):
        raise HubError(400, gettext("These are not the parts of this upload."))
    if not blobs.has(grant.sha256):
        hubfiles.join(grant.sha256, grant.size, grant.user_id, num_parts)
    return {"success": True}


def verify(asked: ObjectAsked, run: OwnRun) -> dict[str, bool]:
    """Whether a content has come as it was announced."""
    if not _is_here(asked):
        raise HubError(404, gettext("This content has not come, or has another size."))
    return {"success": True}


def part_size(grant: Grant) -> int:
    """Bytes of what a grant permits to send at once."""
    return grant.size if grant.part == 0 else min(PART_BYTES, grant.size - (grant.part - 1) * PART_BYTES)


async def _put_part(request: Request, grant: Grant, size: int) -> str:
    place = await run_in_threadpool(hubfiles.part_path, grant.sha256, grant.user_id, grant.part)
    with hubfiles.PartReceiver(size, place) as receiver:
        await _feed(request, receiver)
        return await run_in_threadpool(receiver.finish)


async def _feed(request: Request, receiver: hubfiles.Receiver) -> None:
    waiting = bytearray()
    async for piece in request.stream():
        waiting += piece
        if len(waiting) >= hubfiles.CHUNK_BYTES:
            await run_in_threadpool(receiver.feed, bytes(waiting))
            waiting.clear()
    if waiting:
        await run_in_threadpool(receiver.feed, bytes(waiting))


def _is_here(one: ObjectAsked) -> bool:
    return blobs.has(one.oid) and blobs.path(one.oid).stat().st_size == one.size


def _known(one: ObjectAsked) -> dict[str, Any]:
    return {"oid": one.oid, "size": one.size}


def _actions(request: Request, one: ObjectAsked, user_id: int, *, in_parts: bool) -> dict[str, Any]:
    base = signed.base_url(request)

    def address(part: int) -> str:
        return f"{base}/api/hub/uploads/{signed.sign(Grant(user_id, one.oid, one.size, part))}"

    header: dict[str, str] = {}
    if in_parts and one.size > PART_BYTES:
        num_parts = -(-one.size // PART_BYTES)
        if num_parts > MAX_PARTS:
            raise HubError(413, gettext("A file of %(size)s bytes is too large.", size=f"{one.size:,}"))
        header = {"chunk_size": str(PART_BYTES)} | {str(part): address(part) for part in range(1, num_parts + 1)}
    verified_at = f"{base}{request.url.path.removesuffix('/batch')}/verify"
    actions = {"upload": {"href": address(0), "header": header}, "verify": {"href": verified_at, "header": {}}}
    return {**_known(one), "authenticated": True, "actions": actions}


for _repo in REPOS:
    router.add_api_route(f"{_repo}/batch", batch, methods=["POST"])
    router.add_api_route(f"{_repo}/verify", verify, methods=["POST"])
