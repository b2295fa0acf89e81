"""The Xet protocol, writing: how `huggingface_hub` sends large files where hf_xet is installed, as it is by default."""

import json
import pathlib
import time
import uuid
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse, Response
from itsdangerous import BadSignature, URLSafeTimedSerializer

from registry import db, hubfiles, quota, xet, xetformat
from registry.errors import RegistryError
from registry.models import User
from registry.settings import get_settings
from server.hubapi import signed
from server.hubapi.errors import HubError, HubRoute
from server.hubapi.pushers import OwnRun, Pusher
from server.i18n import error_text, gettext

router = APIRouter(route_class=HubRoute, include_in_schema=False)

REPOS = ("/api/models/{namespace}/{run}", "/api/models/{run}")
PREFIX = "/xet"
VALID_SECONDS = 3_600
"""The client asks for another token before this one ends."""
Hash = Annotated[str, Path(pattern=r"^[0-9a-f]{64}$")]


def write_token(request: Request, run: OwnRun, user: Pusher) -> Response:
    """Where chunks are to be sent, and a token for it."""
    token, ends = _serializer().dumps(user.id), int(time.time()) + VALID_SECONDS
    address = f"{signed.base_url(request)}{PREFIX}"
    headers = {
        "X-Xet-Cas-Url": address,
        "X-Xet-Access-Token": token,
        "X-Xet-Token-Expiration": str(ends),
        "Cache-Control": "no-store",
    }
    return JSONResponse({"casUrl": address, "accessToken": token, "exp": ends}, headers=headers)


def sender(request: Request) -> User:
    """Whose token it is.

    Raises:
        HubError: 401, expired or never made here.
    """
    _, _, token = request.headers.get("authorization", "").partition(" ")
    try:
        user_id = _serializer().loads(token, max_age=VALID_SECONDS)
    except BadSignature as error:
        raise HubError(401, gettext("This upload token was not made here, or has expired.")) from error
    with db.read_session() as session:
        user = session.get(User, user_id)
    if user is None or user.disabled_at is not None or user.banned_at is not None:
        raise HubError(401, gettext("This upload token was not made here, or has expired."))
    return user


Sender = Annotated[User, Depends(sender)]


@router.get(f"{PREFIX}/v1/chunks/{{prefix}}/{{name}}")
def find_chunk(prefix: str, name: str, user: Sender) -> Response:
    """Whether a chunk is known from others: nobody is told what others have sent."""
    raise HubError(404, gettext("This chunk is not known."))


@router.post(f"{PREFIX}/v1/xorbs/default/{{name}}")
async def put_xorb(request: Request, name: Hash, user: Sender) -> dict[str, bool]:
    """Take a row of chunks."""
    await run_in_threadpool(quota.check_disk, xetformat.MAX_XORB_BYTES)
    received = await run_in_threadpool(hubfiles.folder, "incoming") / uuid.uuid4().hex
    try:
        await _write(request, received)
        is_new = await run_in_threadpool(xet.keep_xorb, user.id, name, received)
    finally:
        received.unlink(missing_ok=True)
    return {"was_inserted": is_new}


@router.post(f"{PREFIX}/v1/shards")
async def put_shard(request: Request, user: Sender) -> dict[str, int]:
    """Put together the files that are described."""
    await _register(request, user)
    return {"result": 1}


@router.post(f"{PREFIX}/v2/shards")
async def put_shard_with_events(request: Request, user: Sender) -> Response:
    """The same, answered as a stream of events of which there is one; only this way the client shows a refusal."""
    event: dict[str, Any] = {"type": "result"}
    try:
        await _register(request, user)
    except RegistryError as error:
        event = {"type": "error", "message": error_text(error), "retryable": False}
    return Response(json.dumps(event) + "\n", media_type="application/x-ndjson")


async def _register(request: Request, user: User) -> None:
    raw = bytearray()
    async for piece in request.stream():
        raw += piece
        if len(raw) > xetformat.MAX_SHARD_BYTES:
            raise HubError(400, gettext("This shard is too large."))
    await run_in_threadpool(_put_together, bytes(raw), user)


def _put_together(raw: bytes, user: User) -> None:
    files = xetformat.read_shard(raw)
    with db.read_session() as session:
        quota.check(session, user, sum(one.size for one in files))
    xet.register(user.id, files)


async def _write(request: Request, path: pathlib.Path) -> None:
    num = 0
    with path.open("wb") as file:
        async for piece in request.stream():
            num += len(piece)
            if num > xetformat.MAX_XORB_BYTES:
                raise HubError(400, gettext("This xorb is too large."))
            await run_in_threadpool(file.write, piece)


def _serializer() -> URLSafeTimedSerializer:
    return URLSafeTimedSerializer(get_settings().secret, salt="hub-xet")


for _repo in REPOS:
    router.add_api_route(f"{_repo}/xet-write-token/{{rest:path}}", write_token, methods=["GET"])
