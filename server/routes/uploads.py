"""The interface of uploads: announcing one, receiving its files by the tus protocol, watching and ending it.

The browser announces a checkpoint with all its files, sends each of them to its own tus address, and watches what
becomes of it. Other tus clients may also create an upload of one zip by the protocol alone, with an API key.
"""

from collections.abc import Callable, Coroutine
from email.utils import format_datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, HTTPException, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.routing import APIRoute
from pydantic import BaseModel, Field, ValidationError
from starlette.requests import ClientDisconnect

from registry import db, keys, unpack, uploads
from registry.errors import Conflict, Invalid, NoRoom, NotFound, Refused, RegistryError
from registry.models import Upload, UploadFile, User
from registry.models.base import FAILED, utcnow
from registry.models.uploads import RECEIVING
from registry.settings import get_settings
from registry.uploads import Listed, Place
from server import auth, csrf, tus
from server.deps import ReadSession, WriteSession
from server.i18n import error_text, gettext

API = "/api/uploads"
FILES = f"{API}/files"
STATUSES: dict[type[RegistryError], int] = {NotFound: 404, Conflict: 409, Invalid: 422, Refused: 403, NoRoom: 507}
DRAIN_BYTES = 64 * 2**20
"""A refused chunk is read on so far: a browser that is cut off while it sends never sees why."""
MAX_LIST_BYTES = 500_000
"""Of an announcement: five hundred names are far shorter."""

desk = tus.Desk()


class FileIn(BaseModel):
    """A file that is to come."""

    name: str = Field(max_length=1_000)
    size: int = Field(ge=0, le=2**50)
    modified: int | None = Field(None, ge=0, le=2**50)
    """When it was last changed, in milliseconds since 1970."""


class UploadIn(BaseModel):
    """An announcement; the fields are those of the form."""

    run: str = Field("", max_length=200)
    known_run: str = Field("", max_length=200)
    step: str = Field("", max_length=40)
    tokens_seen: str = Field("", max_length=40)
    kind: str = Field("pretrained", max_length=40)
    files: list[FileIn] = Field(max_length=10_000)


class FileOut(BaseModel):
    """A file of an upload."""

    url: str
    name: str
    size: int
    modified: int | None
    received: int


class UploadOut(BaseModel):
    """How far an upload is."""

    id: int
    status: str
    label: str
    size: int
    received: int
    progress: float | None
    """Of unpacking and sealing, from 0 to 1, once everything is here."""
    error: str
    can_retry: bool
    location: str
    """The page of the checkpoint that it became."""
    files: list[FileOut]


class CheckedRoute(APIRoute):
    """Checks who asks before the body is read, and puts errors into the form that uploading clients expect."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler between those two."""
        handle = super().get_route_handler()

        async def checked(request: Request) -> Response:
            try:
                if request.method not in csrf.SAFE_METHODS and "authorization" not in request.headers:
                    csrf.check_origin(request)
                    csrf.check_token(request, request.headers.get(csrf.HEADER, ""))
                return await handle(request)
            except ClientDisconnect:
                return Response(status_code=400)  # nobody reads it
            except RegistryError as error:
                await _drain(request)
                raise tus.refuse(_status(error), error_text(error)) from error
            except HTTPException as error:
                await _drain(request)
                raise HTTPException(
                    error.status_code, error.detail, {**tus.HEADERS, **(error.headers or {})}
                ) from error

        return checked


class TusRoute(CheckedRoute):
    """Of the protocol itself, whose requests name its version."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler behind the check of the version."""
        handle = super().get_route_handler()

        async def versioned(request: Request) -> Response:
            if request.method != "OPTIONS":
                try:
                    tus.check_version(request)
                except HTTPException:
                    await _drain(request)
                    raise
            return await handle(request)

        return versioned


def _status(error: RegistryError) -> int:
    if isinstance(error, unpack.TooLarge):
        return 413
    return next((status for kind, status in STATUSES.items() if isinstance(error, kind)), 500)


async def _drain(request: Request) -> None:
    drained = 0
    try:
        async for piece in request.stream():
            drained += len(piece)
            if drained > DRAIN_BYTES:
                return
    except (ClientDisconnect, RuntimeError):  # gone, or read already
        return


def uploader(request: Request) -> User:
    """Who uploads: by a login of the browser, or by an API key that may push.

    Raises:
        HTTPException: 401 without either, 403 where it may not.
    """
    kind, _, token = request.headers.get("authorization", "").partition(" ")
    if not kind:
        return auth.require_uploader(auth.require_login(request))
    with db.read_session() as session:
        key = keys.find_key(session, token.strip()) if kind.lower() == "bearer" else None
    if key is None:
        raise HTTPException(401, gettext("This API key is wrong, was revoked or has expired."))
    if not keys.may(key, keys.PUSH) or not uploads.may_upload(key.user):
        raise HTTPException(
            403, gettext("This API key was not made for this; it may be used for: %(scopes)s.", scopes=key.scopes)
        )
    return key.user


Uploader = Annotated[User, Depends(uploader)]

router = APIRouter(prefix=API, route_class=CheckedRoute, include_in_schema=False)
files = APIRouter(prefix=FILES, route_class=TusRoute, include_in_schema=False)


@router.post("")
async def announce(request: Request, user: Uploader) -> UploadOut:
    """Say what is to come; whatever can be refused is refused now. The same announcement again goes on with it."""
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > MAX_LIST_BYTES:
            raise HTTPException(413, gettext("That is more text than any form here takes."))
    try:
        sent = UploadIn.model_validate_json(body)
    except ValidationError as error:
        raise HTTPException(422, gettext("The announcement of an upload cannot be read.")) from error
    return await run_in_threadpool(_announce, user, sent)


def _announce(user: User, sent: UploadIn) -> UploadOut:
    place = uploads.read_place(sent.model_dump(include={"run", "known_run", "step", "tokens_seen", "kind"}))
    listed = [Listed(file.name, file.size, file.modified) for file in sent.files if not unpack.is_ignored(file.name)]
    with db.transaction() as session:
        owner = session.merge(user, load=False)
        return describe(uploads.announce(session, owner, place, listed))


@router.get("/{upload_id}")
def show(session: ReadSession, user: Uploader, upload_id: int) -> UploadOut:
    """How far it is."""
    return describe(uploads.get_upload(session, upload_id, user))


@router.post("/{upload_id}/retry")
def retry(session: WriteSession, user: Uploader, upload_id: int) -> UploadOut:
    """Unpack it again after the disk was full, say."""
    upload = uploads.get_upload(session, upload_id, user)
    uploads.retry(session, upload)
    return describe(upload)


@router.delete("/{upload_id}", status_code=204)
async def cancel(user: Uploader, upload_id: int) -> None:
    """End it and delete what came of it."""
    await _cancel(upload_id, user)


async def _cancel(upload_id: int, user: User) -> None:
    for file_id in await run_in_threadpool(_file_ids, upload_id, user):
        await desk.interrupt(file_id)
        desk.hashers.forget(file_id)
    await run_in_threadpool(_remove, upload_id, user)


def _file_ids(upload_id: int, user: User) -> list[str]:
    with db.read_session() as session:
        return [file.id for file in uploads.get_upload(session, upload_id, user).files]


def _remove(upload_id: int, user: User) -> None:
    with db.transaction() as session:
        folder = uploads.cancel(session, uploads.get_upload(session, upload_id, user), user)
    unpack.remove(folder)


@files.options("")
@files.options("/{file_id}")
def capabilities(file_id: str = "") -> Response:
    """What this server speaks."""
    headers = {
        "Tus-Version": tus.VERSION,
        "Tus-Extension": tus.EXTENSIONS,
        "Tus-Checksum-Algorithm": ",".join(tus.ALGORITHMS),
        "Tus-Max-Size": str(get_settings().max_upload_bytes),
    }
    return Response(status_code=204, headers={**tus.HEADERS, **headers})


@files.post("")
def create(request: Request, user: Uploader) -> Response:
    """Create an upload of one zip; its place is in the metadata, by the names of the form's fields."""
    size, metadata = tus.read_number(request, "upload-length"), tus.read_metadata(request)
    name = metadata.get("filename") or metadata.get("name", "")
    if not unpack.is_zip(name):
        raise Invalid(gettext("Send one zip this way; a folder is announced first, with all its files."))
    place: Place = uploads.read_place(metadata)
    with db.transaction() as session:
        upload = uploads.announce(session, session.merge(user, load=False), place, [Listed(name, size)])
        file = upload.files[0]
        headers = {"Location": f"{FILES}/{file.id}", "Upload-Expires": _http_date(upload)}
    return Response(status_code=201, headers={**tus.HEADERS, **headers})


@files.head("/{file_id}")
def offset_of(user: Uploader, file_id: str) -> Response:
    """How many bytes are here."""
    file = _find(file_id, user)
    headers = {
        "Upload-Offset": str(file.received),
        "Upload-Length": str(file.size),
        "Upload-Expires": _http_date(file.upload),
    }
    return Response(status_code=200, headers={**tus.HEADERS, **headers})


@files.patch("/{file_id}")
async def append(request: Request, user: Uploader, file_id: str) -> Response:
    """Take a chunk in."""
    if request.headers.get("content-type", "") != tus.CHUNK_TYPE:
        raise tus.refuse(415, gettext("A chunk must be sent as %(kind)s.", kind=tus.CHUNK_TYPE))
    offset, checksum = tus.read_number(request, "upload-offset"), tus.read_checksum(request)
    async with desk.hold(file_id):
        file = await run_in_threadpool(_find, file_id, user)
        _check_chunk(request, file, offset)

        def count(chunk: tus.Chunk) -> None:
            with db.transaction() as session:
                uploads.note_received(session, file_id, chunk.before, chunk.after, chunk.sha256)

        if offset < file.size:
            path = uploads.path_of(file)
            offset = await desk.receive(
                request, path, file_id, offset=offset, size=file.size, checksum=checksum, count=count
            )
    headers = {"Upload-Offset": str(offset), "Upload-Expires": _http_date(file.upload)}
    return Response(status_code=204, headers={**tus.HEADERS, **headers})


def _check_chunk(request: Request, file: UploadFile, offset: int) -> None:
    if offset != file.received:
        message = gettext(
            "The chunk begins at byte %(sent)s; the file goes on at byte %(here)s.", sent=offset, here=file.received
        )
        raise tus.refuse(409, message, Upload_Offset=str(file.received))
    length = request.headers.get("content-length", "0")
    if length.isdigit() and int(length) > file.size - offset:
        raise tus.refuse(413, gettext("More bytes came than the file was announced with."))
    if file.upload.status != RECEIVING and not file.is_whole:
        raise tus.refuse(409, gettext("This upload takes no more bytes."))


@files.delete("/{file_id}")
async def terminate(user: Uploader, file_id: str) -> Response:
    """End the whole upload: a checkpoint without one of its files is none."""
    file = await run_in_threadpool(_find, file_id, user)
    await _cancel(file.upload_id, user)
    return Response(status_code=204, headers=tus.HEADERS)


@files.post("/{file_id}")
async def override(request: Request, user: Uploader, file_id: str) -> Response:
    """For clients behind proxies that let only GET and POST through."""
    method = request.headers.get("x-http-method-override", "").upper()
    if method == "PATCH":
        return await append(request, user, file_id)
    if method == "DELETE":
        return await terminate(user, file_id)
    raise tus.refuse(405, gettext("That is not how to ask"), Allow="HEAD, PATCH, DELETE, OPTIONS")


def _find(file_id: str, user: User) -> UploadFile:
    with db.read_session() as session:
        file = uploads.get_file(session, file_id, user)
    if file.upload.status == RECEIVING:
        if file.upload.expires_at < utcnow():
            raise tus.refuse(410, gettext("Nobody continued this upload in time, so it was deleted. Begin it again."))
        _match_disk(file)
    return file


def _match_disk(file: UploadFile) -> None:
    """After a power cut the disk may know less than the row says."""
    path = uploads.path_of(file)
    here = path.stat().st_size if path.exists() else 0
    if here < file.received:
        with db.transaction() as session:
            uploads.note_received(session, file.id, file.received, here)
        file.received = here


def _http_date(upload: Upload) -> str:
    return format_datetime(upload.expires_at, usegmt=True)


def describe(upload: Upload) -> UploadOut:
    """What the browser is told of an upload."""
    place = f"{upload.run}@{upload.step}" + ("-chat" if upload.kind == "chat" else "")
    error = RegistryError(upload.error, **upload.error_values) if upload.error else None
    return UploadOut(
        id=upload.id,
        status=upload.status,
        label=place,
        size=upload.size_bytes,
        received=upload.received,
        progress=upload.job.progress if upload.job is not None else None,
        error=error_text(error) if error is not None else "",
        can_retry=upload.status == FAILED and upload.place is not None,
        location=f"/admin/uploads/{upload.checkpoint_id}" if upload.checkpoint_id is not None else "",
        files=[
            FileOut(
                url=f"{FILES}/{file.id}",
                name=file.name,
                size=file.size,
                modified=file.modified,
                received=file.received,
            )
            for file in upload.files
        ],
    )
