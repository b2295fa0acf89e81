"""Verbs of uploads: announced whole, received in chunks over days if need be, then unpacked and admitted by a job.

Everything that can be refused is refused when an upload is announced, before the first byte. The rows are the truth of
what is here; the files lie below `Settings.uploads_dir`, each under its random id, never under a name that was sent.
"""

import datetime as dt
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from sqlalchemy import select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, joinedload

from registry import audit, checkpoints, joblog, quota, runs, unpack
from registry.errors import Conflict, Invalid, NotFound, Refused, RegistryError
from registry.models import Job, Run, Upload, UploadFile, User
from registry.models.base import FAILED, FINISHED, READY, RETIRED, RUNNING, VERIFYING, utcnow
from registry.models.uploads import RECEIVING
from registry.settings import get_settings

KINDS = ("pretrained", "chat")
ROLES = ("admin", "publisher")
"""Who may bring checkpoints in."""
MAX_OPEN = 20
"""Uploads that one person may have under way."""
ORPHAN_SECONDS = 86_400
ERROR_DAYS = 7
"""How long the row of an upload that was refused stays, with the reason."""


class Place(NamedTuple):
    """Where a checkpoint is to go."""

    run: str
    step: int
    tokens_seen: int | None
    kind: str

    @property
    def key(self) -> str:
        """Names the place; two uploads may not share it."""
        return f"{self.run}@{self.step}-{self.kind}"


class Listed(NamedTuple):
    """A file that is to come."""

    name: str
    size: int
    modified: int | None = None
    """Milliseconds since 1970; None: unknown."""


def may_upload(user: User) -> bool:
    """Whether this person may bring checkpoints in."""
    return user.role in ROLES


def read_place(fields: Mapping[str, str]) -> Place:
    """Where a form's fields say that a checkpoint goes.

    Raises:
        Invalid: naming the field and what it takes.
    """
    name = fields.get("run", "").strip() or fields.get("known_run", "").strip()
    if not name:
        raise Invalid("Choose a run or give a new one a name.")
    if not runs.NAME.fullmatch(name):
        raise Invalid(
            "'%(name)s' cannot be a run's name: use a-z, 0-9, dot, dash and underscore, 63 at most.", name=name[:80]
        )
    kind = fields.get("kind") or "pretrained"
    if kind not in KINDS:
        raise Invalid("There is no kind '%(kind)s'.", kind=kind[:40])
    step = whole_number(fields.get("step", ""))
    if step is None:
        raise Invalid("Step must be a whole number, 0 or more.")
    tokens = fields.get("tokens_seen", "")
    tokens_seen = whole_number(tokens)
    if tokens.strip() and tokens_seen is None:
        raise Invalid("Tokens seen must be a whole number, 0 or more.")
    return Place(run=name, step=step, tokens_seen=tokens_seen, kind=kind)


def whole_number(text: str) -> int | None:
    """The number that somebody typed, with or without separators; None where it is none."""
    digits = text.strip().replace(",", "").replace("_", "")
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) <= 15 else None


def check_place(session: Session, place: Place) -> None:
    """Whether a checkpoint may come to this place.

    Raises:
        Conflict: the run is a training's, or the step is taken.
    """
    run = session.scalar(select(Run).where(Run.name == place.run))
    if run is None:
        return
    if run.kind != "upload":
        raise Conflict("The name '%(name)s' belongs to a training run. Choose another name.", name=place.run)
    states = (READY, VERIFYING, RETIRED)  # a rejected one makes room
    taken = checkpoints.list_checkpoints(session, run, states, place.kind)
    if any(one.step == place.step and one.precision == 16 for one in taken):
        raise Conflict(
            "%(run)s has a checkpoint at step %(step)s already. Choose another step or another run.",
            run=run.name,
            step=place.step,
        )


def announce(session: Session, user: User, place: Place, files: Sequence[Listed]) -> Upload:
    """Begin an upload, or go on with the same one that this person has begun.

    Raises:
        Invalid: these files can be no checkpoint.
        NoRoom: they are too large.
        Conflict: the place is taken, or another upload is on its way to it.
        Refused: this person may not upload, or has too many under way.
    """
    if not may_upload(user):
        raise Refused("Only administrators and publishers may upload checkpoints.")
    _check_files(files)
    check_place(session, place)
    same = session.scalar(select(Upload).where(Upload.place == place.key))
    if same is not None:
        return _go_on(same, user, files)
    size = sum(file.size for file in files)
    under_way = list_open(session)
    own = [one for one in under_way if one.user_id == user.id]
    # What was announced counts as if it were here, so that several uploads at once do not overrun a quota or the disk.
    promised = quota.Promised(sum(one.size_bytes for one in own), sum(one.size_bytes for one in under_way))
    quota.check(session, user, size, promised)
    outstanding = sum(one.size_bytes - one.received for one in under_way)
    quota.check_disk(outstanding + (2 * size if unpack.is_zip(files[0].name) else size))
    if len(own) >= MAX_OPEN:
        raise Refused("You have %(count)s uploads under way. Finish or cancel one of them first.", count=MAX_OPEN)
    return _begin(session, user, place, files)


def _check_files(files: Sequence[Listed]) -> None:
    if not files or not any(file.size for file in files):
        raise Invalid("Choose the files of a checkpoint, or a zip of them.")
    if any(file.size < 0 for file in files):
        raise Invalid("The size of '%(name)s' is no size.", name=next(f.name for f in files if f.size < 0)[:120])
    zips = [file for file in files if unpack.is_zip(file.name)]
    if zips and len(files) > 1:
        raise Invalid("Send either one zip or the files themselves, not both.")
    if zips:
        unpack.check_name(zips[0].name.removesuffix(zips[0].name[-4:]) + ".json")  # its kind aside, a name like others
        return
    unpack.check_names([file.name for file in files])
    unpack.check_listing(file.name for file in files)


def _go_on(same: Upload, user: User, files: Sequence[Listed]) -> Upload:
    given = {file.name: file for file in files}
    are_same = {(file.name, file.size) for file in same.files} == {(file.name, file.size) for file in files}
    if same.user_id == user.id and same.status == RECEIVING and are_same:
        if changed := [file.name for file in same.files if not _may_go_on(file, given[file.name])]:
            raise Conflict(
                "'%(name)s' was changed since its upload began. Cancel the upload and begin anew.",
                name=changed[0][:120],
            )
        for file in same.files:
            file.modified = file.modified if file.received else given[file.name].modified
        return same
    raise Conflict(
        "Another upload is on its way to %(run)s@%(step)s, by %(name)s. Continue it or cancel it first.",
        run=same.run,
        step=same.step,
        name=same.user.name,
    )


def _may_go_on(begun: UploadFile, given: Listed) -> bool:
    """Whether the end of a file fits to the beginning that is here: what was written anew has another time."""
    return not begun.received or None in (begun.modified, given.modified) or begun.modified == given.modified


def _begin(session: Session, user: User, place: Place, files: Sequence[Listed]) -> Upload:
    upload = Upload(
        folder=uuid.uuid4().hex,
        user=user,
        place=place.key,
        size_bytes=sum(file.size for file in files),
        expires_at=_expiry(),
        **place._asdict(),
    )
    upload.files = [
        UploadFile(id=uuid.uuid4().hex, position=position, received=0, **file._asdict())
        for position, file in enumerate(files)
    ]
    session.add(upload)
    try:
        session.flush()
    except IntegrityError as error:  # two announced the place in the same moment
        raise Conflict("Another upload is on its way to that step. Try again in a moment.") from error
    folder_of(upload).mkdir(parents=True)
    return upload


def _expiry() -> dt.datetime:
    return utcnow() + dt.timedelta(days=get_settings().upload_days)


def folder_of(upload: Upload) -> Path:
    """Where the files of an upload lie."""
    return get_settings().uploads_dir / upload.folder


def path_of(file: UploadFile) -> Path:
    """Where the bytes of a file lie, once the first of them came."""
    return folder_of(file.upload) / file.id


def get_upload(session: Session, upload_id: int, user: User) -> Upload:
    """An upload that this person may see: an administrator all, a publisher their own.

    Raises:
        NotFound: there is none.
    """
    upload = session.get(Upload, upload_id)
    if upload is None or not _is_open_to(upload, user):
        raise NotFound("There is no such upload.")
    return upload


def get_file(session: Session, file_id: str, user: User) -> UploadFile:
    """A file of an upload that this person may see.

    Raises:
        NotFound: there is none.
    """
    # without the other files: there may be hundreds
    file = session.get(UploadFile, file_id, options=(joinedload(UploadFile.upload).lazyload(Upload.files),))
    if file is None or not _is_open_to(file.upload, user):
        raise NotFound("There is no such upload.")
    return file


def _is_open_to(upload: Upload, user: User) -> bool:
    return may_upload(user) and (user.is_admin or upload.user_id == user.id)


def list_uploads(session: Session, user: User, limit: int = 100) -> Sequence[Upload]:
    """Uploads that this person may see, the newest first."""
    query = select(Upload).order_by(Upload.id.desc()).limit(limit)
    if not user.is_admin:
        query = query.where(Upload.user_id == user.id)
    return session.scalars(query).all()


def list_open(session: Session, user: User | None = None) -> Sequence[Upload]:
    """Uploads whose files are still coming, of one person or of all."""
    query = select(Upload).where(Upload.status == RECEIVING).order_by(Upload.id)
    if user is not None:
        query = query.where(Upload.user_id == user.id)
    return session.scalars(query).all()


def note_received(session: Session, file_id: str, before: int, after: int, sha256: str = "") -> None:
    """Count bytes of a file that are on disk; the last ones of the last file have the upload unpacked, once.

    Args:
        session: the transaction.
        file_id: of the file.
        before: the offset at which they were written.
        after: the offset now.
        sha256: of the whole file, where it is whole and was hashed on its way.

    Raises:
        Conflict: another request has counted bytes meanwhile, or the upload takes no more.
        NotFound: it was cancelled.
    """
    upload_id = session.scalar(select(UploadFile.upload_id).where(UploadFile.id == file_id))
    # The upload's row first: of two last files only one can then find that it was the last.
    open_row = update(Upload).where(Upload.id == upload_id, Upload.status == RECEIVING)
    if not session.execute(open_row.values(expires_at=_expiry()).returning(Upload.id)).all():
        raise _closed(upload_id)
    counted = update(UploadFile).where(UploadFile.id == file_id, UploadFile.received == before)
    if not session.execute(counted.values(received=after, sha256=sha256).returning(UploadFile.id)).all():
        raise Conflict("Another request has written to this file meanwhile.")
    lacking = select(UploadFile.id).where(UploadFile.upload_id == upload_id, UploadFile.received < UploadFile.size)
    if session.scalar(lacking.limit(1)) is None:
        _hand_over(session, session.get_one(Upload, upload_id, populate_existing=True))


def _closed(upload_id: int | None) -> RegistryError:
    if upload_id is None:
        return NotFound("There is no such upload.")
    return Conflict("This upload takes no more bytes.")


def _hand_over(session: Session, upload: Upload) -> None:
    upload.status, upload.error, upload.error_values = RUNNING, "", {}
    job = joblog.plan(session, joblog.UNPACK, args={"upload_id": upload.id}, user=upload.user)
    upload.job_id = job.id


def retry(session: Session, upload: Upload) -> None:
    """Unpack again what failed for a reason that was not its own.

    Raises:
        Conflict: it did not fail, or its files are gone.
    """
    if upload.status != FAILED or upload.place is None:
        raise Conflict("Only an upload that failed and still has its files can be tried again.")
    _hand_over(session, upload)


def finish(session: Session, upload_id: int, checkpoint_id: int) -> None:
    """It has become a checkpoint; its own files are no longer needed."""
    upload = session.get(Upload, upload_id)
    if upload is not None:
        upload.status, upload.checkpoint_id, upload.place = FINISHED, checkpoint_id, None
        upload.finished_at = utcnow()


def fail(session: Session, upload_id: int, error: RegistryError, *, keeps_files: bool) -> None:
    """It could not become one; where that was not its own fault the files stay and it can be tried again."""
    upload = session.get(Upload, upload_id)
    if upload is None:
        return
    upload.status, upload.error, upload.finished_at = FAILED, error.message, utcnow()
    upload.error_values = {name: str(value) for name, value in error.values.items()}
    upload.expires_at = utcnow() + dt.timedelta(days=ERROR_DAYS)
    if not keeps_files:
        upload.place = None
    detail = {"place": f"{upload.run}@{upload.step}", "bytes": upload.size_bytes, "reason": str(error)[:300]}
    audit.note(session, upload.user, "upload-refused", f"upload:{upload.id}", detail)


def cancel(session: Session, upload: Upload, by: User) -> Path:
    """Nobody wants it any more; returns the folder, which the caller removes once the transaction has ended.

    Raises:
        Conflict: it is being unpacked.
    """
    if upload.status == RUNNING:
        raise Conflict("All of it has arrived and it is being unpacked; it can no longer be cancelled.")
    folder = folder_of(upload)
    detail = {"place": f"{upload.run}@{upload.step}", "bytes": upload.received}
    audit.note(session, by, "upload-cancelled", f"upload:{upload.id}", detail)
    session.delete(upload)
    return folder


def sweep(session: Session) -> list[Path]:
    """Drop what nobody continued, and settle what a job left open; returns folders to remove after the commit."""
    folders = []
    for upload in session.scalars(select(Upload).where(Upload.status != RUNNING, Upload.expires_at < utcnow())):
        folders.append(folder_of(upload))
        if upload.status != FINISHED:
            audit.note(session, None, "upload-expired", f"upload:{upload.id}", {"place": f"{upload.run}@{upload.step}"})
        session.delete(upload)
    for upload in session.scalars(select(Upload).where(Upload.status == RUNNING)):
        _settle(session, upload)
    return folders


def _settle(session: Session, upload: Upload) -> None:
    """A job that was cancelled, or given up for lost, cannot say so in the row of its upload itself."""
    job = session.get(Job, upload.job_id) if upload.job_id is not None else None
    if job is None or job.status in joblog.OPEN or job.status == FINISHED:
        return
    error = RegistryError("%(reason)s", reason=job.error) if job.error else job_cancelled()
    fail(session, upload.id, error, keeps_files=True)


def job_cancelled() -> RegistryError:
    """What an upload says whose job somebody cancelled."""
    return Refused("The job was cancelled.")


def disk_failed(error: OSError) -> RegistryError:
    """What an upload says that the disk could not be read or written for."""
    return Refused("The disk failed: %(error)s", error=error.strerror or type(error).__name__)


def orphans(session: Session) -> list[Path]:
    """Folders of uploads without a row, older than a day: of people who left, or of a crash between two steps."""
    parent = get_settings().uploads_dir
    if not parent.exists():
        return []
    old = time.time() - ORPHAN_SECONDS
    found = {path.name: path for path in parent.iterdir() if path.is_dir() and path.stat().st_mtime < old}
    known = set(session.scalars(select(Upload.folder).where(Upload.folder.in_(found))))
    return [path for name, path in found.items() if name not in known]
