"""Pages of uploads: the form, what is under way, and what becomes of a checkpoint that was sent."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse
from markupsafe import Markup
from sqlalchemy.orm import Session

from registry import checkpoints, db, evaluations, intake, runs, store, suites, unpack
from registry import uploads as verbs
from registry.errors import Conflict, NoRoom, NotFound, RegistryError
from registry.models import Checkpoint, Evaluation, Run, Upload, User
from registry.models.base import FAILED, FINISHED, RUNNING
from registry.models.uploads import RECEIVING
from registry.settings import get_settings
from server import auth, csrf, render, uploads
from server.deps import ReadSession, WriteSession
from server.i18n import error_text, gettext

router = APIRouter(route_class=csrf.FormRoute, include_in_schema=False)
# The form reads its own body, so its token is checked by `_check_form` instead.
streamed = APIRouter(include_in_schema=False)


@dataclass(frozen=True)
class UploadPage:
    """Context of admin/upload.html."""

    runs: Sequence[Run]
    max_bytes: int
    suffixes: Sequence[str]
    open_uploads: Sequence[Upload]
    going_on: Upload | None
    """The upload that is continued, if one is."""
    words: Markup
    """What the script says, in the reader's language."""
    typed: Mapping[str, str] = field(default_factory=dict)
    error: str = ""


@dataclass(frozen=True)
class UploadsPage:
    """Context of admin/uploads.html and admin/_uploads.html."""

    uploads: Sequence[Upload]
    reasons: Mapping[int, str]
    """Why each of the failed ones did, in the reader's language."""
    is_moving: bool
    """Whether the page will change by itself."""


@dataclass(frozen=True)
class UploadedPage:
    """Context of admin/uploaded.html and admin/_uploaded.html."""

    checkpoint: Checkpoint
    evaluations: Sequence[Evaluation]

    @property
    def num_done(self) -> int:
        """How many of its evaluations have ended."""
        return sum(one.status == FINISHED for one in self.evaluations)


@router.get("/admin/upload")
def show_upload_form(
    request: Request, session: ReadSession, user: auth.Uploader, upload: int | None = None
) -> HTMLResponse:
    """The form for a checkpoint; with `upload`, the one that goes on with it."""
    going_on = verbs.get_upload(session, upload, user) if upload is not None else None
    if going_on is not None and going_on.status != RECEIVING:
        raise NotFound("There is no such upload.")
    return _upload_form(request, session, user, going_on=going_on)


@streamed.post("/admin/upload")
async def upload(request: Request, user: auth.Uploader) -> Response:
    """Take a checkpoint in that comes as one form, or say why not and keep nothing of it."""
    csrf.check_origin(request)
    typed: dict[str, str] = {}

    def check(fields: uploads.Fields) -> None:
        typed.update(fields)
        csrf.check_token(request, request.headers.get(csrf.HEADER) or fields.get(csrf.FIELD, ""))
        with db.read_session() as session:
            verbs.check_place(session, verbs.read_place(fields))

    try:
        async with uploads.incoming() as folder:
            fields = await uploads.receive(request, folder, check)
            checkpoint_id = await run_in_threadpool(accept, folder, verbs.read_place(fields), user)
    except RegistryError as error:
        return await run_in_threadpool(_refused, request, user, typed, error)
    address = f"/admin/uploads/{checkpoint_id}"
    return JSONResponse({"location": address}) if _is_script(request) else RedirectResponse(address, 303)


@router.get("/admin/uploads")
def show_uploads(request: Request, session: ReadSession, user: auth.Uploader) -> HTMLResponse:
    """What is under way, what was refused and why, and what became a checkpoint."""
    return render.page(request, "admin/uploads.html", _uploads(session, user))


@router.get("/admin/uploads/list")
def show_uploads_fragment(request: Request, session: ReadSession, user: auth.Uploader) -> HTMLResponse:
    """The part of that page which changes."""
    return render.page(request, "admin/_uploads.html", _uploads(session, user))


@router.post("/admin/uploads/{upload_id}/retry")
def retry_upload(session: WriteSession, user: auth.Uploader, upload_id: int) -> Response:
    """Unpack again what failed for a reason that was not its own."""
    verbs.retry(session, verbs.get_upload(session, upload_id, user))
    return RedirectResponse("/admin/uploads", 303)


@router.post("/admin/uploads/{upload_id}/cancel")
def cancel_upload(user: auth.Uploader, upload_id: int) -> Response:
    """End an upload and delete what came of it; a request that still writes finds its row gone."""
    with db.transaction() as session:
        folder = verbs.cancel(session, verbs.get_upload(session, upload_id, user), user)
    unpack.remove(folder)
    return RedirectResponse("/admin/uploads", 303)


@router.get("/admin/uploads/{checkpoint_id}")
def show_uploaded(request: Request, session: ReadSession, _user: auth.Uploader, checkpoint_id: int) -> HTMLResponse:
    """What becomes of a checkpoint."""
    return render.page(request, "admin/uploaded.html", _uploaded(session, checkpoint_id))


@router.get("/admin/uploads/{checkpoint_id}/state")
def show_uploaded_state(
    request: Request, session: ReadSession, _user: auth.Uploader, checkpoint_id: int
) -> HTMLResponse:
    """The part of that page which changes."""
    return render.page(request, "admin/_uploaded.html", _uploaded(session, checkpoint_id))


router.include_router(streamed)


def accept(folder: Path, place: verbs.Place, user: User) -> int:
    """Register what a form brought; returns the checkpoint's id.

    Raises:
        Invalid: it is no checkpoint that is safe to load.
        Conflict: the step is taken.
    """
    content, hashes = uploads.open_received(folder)
    return intake.admit(content, **place._asdict(), user=user, hashes=hashes).id


def _is_script(request: Request) -> bool:
    return "application/json" in request.headers.get("accept", "")


def _refused(request: Request, user: User, typed: Mapping[str, str], error: RegistryError) -> Response:
    kinds = {Conflict: 409, unpack.TooLarge: 413, NoRoom: 507}
    status = next((code for kind, code in kinds.items() if isinstance(error, kind)), 422)
    message = error_text(error)
    if _is_script(request):
        return JSONResponse({"error": message}, status)
    with db.read_session() as session:
        return _upload_form(request, session, user, typed=typed, error=message, status=status)


def _upload_form(
    request: Request,
    session: Session,
    user: User,
    *,
    going_on: Upload | None = None,
    typed: Mapping[str, str] | None = None,
    error: str = "",
    status: int = 200,
) -> HTMLResponse:
    context = UploadPage(
        runs=[run for run in runs.list_runs(session) if run.kind == "upload"],
        max_bytes=get_settings().max_upload_bytes,
        suffixes=store.ALLOWED_SUFFIXES,
        open_uploads=verbs.list_open(session, user),
        going_on=going_on,
        words=render.script_json(_words()),
        typed=typed or {},
        error=error,
    )
    return render.page(request, "admin/upload.html", context, status_code=status)


def _uploads(session: Session, user: User) -> UploadsPage:
    found = verbs.list_uploads(session, user)
    failed = (one for one in found if one.status == FAILED)
    return UploadsPage(
        uploads=found,
        reasons={one.id: error_text(RegistryError(one.error, **one.error_values)) for one in failed},
        is_moving=any(one.status in (RECEIVING, RUNNING) for one in found),
    )


def _uploaded(session: Session, checkpoint_id: int) -> UploadedPage:
    checkpoint = checkpoints.get_by_id(session, checkpoint_id)
    own = evaluations.for_checkpoint(session, checkpoint)
    return UploadedPage(checkpoint, [one for one in own if one.task.schedule != suites.IDLE])


def _words() -> dict[str, str]:
    return {
        "empty": gettext("Choose the files of a checkpoint, or a zip of them."),
        "too_large": gettext(
            "That is more than the %(size)s this site accepts.", size=render.size(get_settings().max_upload_bytes)
        ),
        "waiting": gettext("waiting"),
        "checking": gettext("Everything is here. Unpacking and sealing it…"),
        "checked": gettext("here"),
        "sending": gettext("Sending"),
        "paused": gettext("Paused"),
        "left": gettext("{time} left"),
        "again": gettext("The connection is gone. It goes on by itself as soon as it is back."),
        "stopped": gettext("It stopped: {reason}"),
        "expired": gettext(
            "You are no longer logged in. Log in and choose the files again: it goes on where it stopped."
        ),
        "unreadable": gettext("A file was changed or moved after it was chosen. Choose the files again."),
        "missing": gettext("Not among the chosen files, or of another size: {names}"),
        "chosen": gettext("Chosen: {count} ({size})"),
        "unchecked": gettext("Without HTTPS this browser cannot compute checksums, so the chunks go without."),
        "cancel": gettext("Cancel this upload? What has arrived of it is deleted."),
        "units": gettext("{hours} h {minutes} min|{minutes} min {seconds} s|{seconds} s"),
    }
