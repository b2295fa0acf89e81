"""The job that makes a checkpoint of an upload whose files are all here. It may be begun again after any death."""

import time
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session

from registry import db, intake, joblog, quota, unpack, uploads
from registry.errors import NoRoom, NotFound, RegistryError
from registry.models import Checkpoint, Job, Run, Upload
from registry.models.base import FAILED, FINISHED, REJECTED, RUNNING
from registry.models.checkpoints import UPLOAD
from worker.runner import Cancelled, Report

CONTENT = "content"
REPORT_SECONDS = 1.0


def receive(job: Job, report: Report) -> None:
    """Unpack an upload with suspicion, seal and register it; what is refused leaves no files behind.

    Raises:
        RegistryError: why it became no checkpoint; the upload's row says so too.
        Cancelled: nobody wants it any more.
    """
    upload_id = int(job.args["upload_id"])
    with db.transaction() as session:
        upload = _begin(session, upload_id)
    if upload is None:
        return
    folder = uploads.folder_of(upload)
    try:
        checkpoint_id = _admit(upload, folder, report)
    except RegistryError as error:
        _refuse(upload_id, error, keeps_files=isinstance(error, NoRoom))
        raise
    except OSError as error:
        full = quota.disk_full() if quota.is_full(error) else uploads.disk_failed(error)
        _refuse(upload_id, full, keeps_files=True)
        raise full from error
    except Cancelled:
        with db.read_session() as session:
            wanted = not joblog.get_job(session, job.id).is_cancel_asked
        if not wanted:  # else another worker has it, and the files with it
            _refuse(upload_id, uploads.job_cancelled(), keeps_files=True)
        raise
    with db.transaction() as session:
        uploads.finish(session, upload_id, checkpoint_id)
    unpack.remove(folder)


def _begin(session: Session, upload_id: int) -> Upload | None:
    upload = session.get(Upload, upload_id)
    if upload is None:
        raise NotFound("There is no such upload.")
    if upload.status == FINISHED:
        return None
    if upload.status == FAILED and upload.place is not None:  # the job was tried again from its own page
        upload.status = RUNNING
    if upload.status != RUNNING:
        raise NotFound("The files of this upload are gone.")
    return upload


def _admit(upload: Upload, folder: Path, report: Report) -> int:
    if (known := _admitted_before(upload)) is not None:
        return known
    content = folder / CONTENT
    unpack.remove(content)  # of a try that ended half-way
    report("unpack", progress=0.0)
    received = [(file.name, folder / file.id) for file in upload.files]
    if upload.is_zip:
        hashes = unpack.extract(received[0][1], content, _Steps(report, received[0][1].stat().st_size))
    else:
        unpack.gather(received, content)
        inner = unpack.inner_names([file.name for file in upload.files])
        hashes = {inner[file.name]: file.sha256 for file in upload.files if file.sha256}
    report("seal", progress=0.9)
    checkpoint = intake.admit(
        content,
        run=upload.run,
        step=upload.step,
        tokens_seen=upload.tokens_seen,
        kind=upload.kind,
        origin=UPLOAD,
        user=upload.user,
        hashes=hashes,
    )
    return checkpoint.id


def _admitted_before(upload: Upload) -> int | None:
    """The checkpoint that a try before this one made before its worker died."""
    with db.read_session() as session:
        query = (
            select(Checkpoint.id)
            .join(Run)
            .where(
                Run.name == upload.run,
                Checkpoint.step == upload.step,
                Checkpoint.kind == upload.kind,
                Checkpoint.precision == 16,
                Checkpoint.origin == UPLOAD,
                Checkpoint.user_id == upload.user_id,
                Checkpoint.created_at >= upload.created_at,
                Checkpoint.state != REJECTED,
            )
        )
        return session.scalar(query)


def _refuse(upload_id: int, error: RegistryError, *, keeps_files: bool) -> None:
    with db.transaction() as session:
        upload = session.get(Upload, upload_id)
        uploads.fail(session, upload_id, error, keeps_files=keeps_files)
    if upload is not None:
        unpack.remove(uploads.folder_of(upload) / CONTENT if keeps_files else uploads.folder_of(upload))


class _Steps:
    """Tells the job how far unpacking is, about once a second."""

    def __init__(self, report: Report, packed_bytes: int) -> None:
        self._report, self._expected = report, max(1, packed_bytes)
        self._done, self._told = 0, time.monotonic()

    def __call__(self, num_bytes: int) -> None:
        """So many bytes more were unpacked.

        Raises:
            Cancelled: stop now.
        """
        self._report.check()
        self._done += num_bytes
        if time.monotonic() - self._told > REPORT_SECONDS:
            self._told = time.monotonic()
            # Weights hardly compress, so the packed size tells how much there will be.
            self._report(progress=0.9 * min(1.0, self._done / self._expected))


def sweep_uploads() -> None:
    """Delete what nobody continued, and what has lost its row."""
    with db.transaction() as session:
        folders = uploads.sweep(session)
    with db.read_session() as session:
        folders += uploads.orphans(session)
    for folder in folders:
        unpack.remove(folder)
