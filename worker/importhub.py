"""Importing a repository whose revisions are checkpoints: each is downloaded, then taken in like any other.

What was downloaded before the job was cancelled or its worker went down is not downloaded again, and what was imported
is not imported twice.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import select

from registry import db, hubfiles, hubimport, intake, quota
from registry.errors import Invalid, RegistryError
from registry.hubimport import Chosen, Wanted
from registry.models import Checkpoint, Job, Run, User
from registry.models.base import REJECTED
from registry.models.checkpoints import IMPORT_HUB
from registry.settings import get_settings
from worker.runner import Report

POLL_SECONDS = 1.0


def import_hub(job: Job, report: Report) -> None:
    """Import the revisions that a job names.

    Raises:
        NotFound: none of the repository's revisions names a step.
        Invalid: the repository cannot be read, or a revision could not be imported.
        Cancelled: nobody wants it any more.
    """
    wanted = Wanted(**job.args)
    answer = next(_ask(wanted, report))
    listed = hubimport.listed([(name, sha) for name, sha in answer["refs"]], wanted)
    total, failed = len(listed.chosen), 0
    report(f"{wanted.repo}: {total} revisions to import.")
    for number, one in enumerate(listed.chosen):
        said = "here already."
        if not _is_here(one):
            try:
                said = f"imported as {_import_one(one, wanted, job.user_id, report)}."
            except RegistryError as error:
                failed, said = failed + 1, str(error)
        report(f"{one.revision}: {said}", progress=(number + 1) / total)
    if failed:
        raise Invalid(f"{failed} of {total} revisions could not be imported; the log says why. Try again to go on.")


def _is_here(one: Chosen) -> bool:
    query = select(Checkpoint.id).join(Run, Run.id == Checkpoint.run_id)
    query = query.where(Run.name == one.run, Checkpoint.step == one.step, Checkpoint.kind == one.kind)
    with db.read_session() as session:
        return session.scalar(query.where(Checkpoint.precision == 16, Checkpoint.state != REJECTED)) is not None


def _import_one(one: Chosen, wanted: Wanted, user_id: int | None, report: Report) -> str:
    content = _place(one, wanted)
    with db.read_session() as session:
        user = session.get(User, user_id) if user_id is not None else None
        quota.check(session, user, 0)
    for answer in _ask(wanted, report, one.sha, content):
        if "bytes" in answer:
            with db.read_session() as session:
                quota.check(session, user, int(answer["bytes"]))
            report(f"{one.revision}: {quota.readable(int(answer['bytes']))} in {answer['files']} files.")
    shutil.rmtree(content / ".cache", ignore_errors=True)  # the client's own notes
    facts: dict[str, Any] = {"run": one.run, "step": one.step, "tokens_seen": one.tokens_seen, "kind": one.kind}
    try:
        return intake.admit(content, **facts, origin=IMPORT_HUB, user=user).label
    finally:
        shutil.rmtree(content, ignore_errors=True)


def _place(one: Chosen, wanted: Wanted) -> Path:
    """Where a revision is downloaded to; the same each time, so that a download goes on."""
    name = hashlib.sha256(f"{wanted.endpoint} {wanted.repo} {one.sha}".encode()).hexdigest()[:32]
    content = hubfiles.folder("import") / name
    content.mkdir(exist_ok=True)
    return content


def _ask(wanted: Wanted, report: Report, sha: str = "", folder: Path = Path()) -> Iterator[dict[str, Any]]:
    """The answers of a client process, which ends when nobody wants the job any more.

    Raises:
        Invalid: what it could not do.
        NoRoom: the disk is full.
        Cancelled: nobody wants it any more.
    """
    request = {"wanted": wanted.as_args(), "sha": sha, "folder": str(folder), "limit": get_settings().max_upload_bytes}
    # The worker itself is told to stay offline; transformers then never looks anything up.
    environment = {**os.environ, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    client = subprocess.Popen(
        [sys.executable, "-m", "worker.hubclient"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
        text=True,
    )
    over = threading.Event()
    watcher = threading.Thread(target=_end_when_lost, args=(client, report, over), daemon=True)
    watcher.start()
    try:
        assert client.stdin is not None
        assert client.stdout is not None
        client.stdin.write(json.dumps(request))
        client.stdin.close()
        for line in client.stdout:
            yield _checked(json.loads(line))
        client.wait()
        report.check()
        if client.returncode != 0:
            raise Invalid("cannot be downloaded: the client ended without saying why; the worker's log may.")
    finally:
        over.set()
        client.kill()
        client.wait()
        watcher.join()


def _end_when_lost(client: "subprocess.Popen[str]", report: Report, over: threading.Event) -> None:
    while not over.wait(POLL_SECONDS):
        if report.is_lost:
            client.kill()
            return


def _checked(answer: dict[str, Any]) -> dict[str, Any]:
    if "error" not in answer:
        return answer
    if answer.get("errno") and quota.is_full(OSError(answer["errno"], "")):
        raise quota.disk_full()
    raise Invalid(str(answer["error"]))
