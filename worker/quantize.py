"""The job that makes a checkpoint's 8- or 4-bit form, in a process of its own; see `worker.quantizing`."""

import contextlib
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from registry import checkpoints, db, events, quantizations, quantized, store
from registry.errors import Conflict, Invalid
from registry.models import Job
from registry.models.base import READY, VERIFYING
from registry.settings import get_settings
from worker import calibration
from worker.engine.process import EngineProcess
from worker.runner import Report

POLL_SECONDS = 0.3
NICE = "10"
"""Quantizing goes beside chats and evaluations on the same processor: they go first."""
METHODS = {8: "W8A8, rounded to the nearest", 4: "GPTQ"}
NEEDS = {8: "compressed_tensors", 4: "gptqmodel"}


def quantize(job: Job, report: Report) -> None:
    """Make the form that a job of the kind `quantize` asks for, and register it.

    Raises:
        Invalid: this model cannot be had in these bits, or came out broken; nothing is left behind.
        Conflict: the checkpoint is gone, or its form is there already.
        Cancelled: nobody wants it any more.
    """
    bits = int(job.args["bits"])
    if find_spec(NEEDS[bits]) is None:
        raise Invalid("%(package)s is not installed on this worker.", package=NEEDS[bits])
    with db.read_session() as session:
        if job.checkpoint_id is None:
            raise Conflict("The checkpoint is gone.")
        parent = checkpoints.get_by_id(session, job.checkpoint_id)
        if parent.state != READY:
            raise Conflict("%(checkpoint)s is not ready, so it cannot be quantized.", checkpoint=parent.label)
        if bits in quantizations.made(session, parent):
            raise Conflict("%(checkpoint)s is there already.", checkpoint=f"{parent.label}-{bits}bit")
        relative, config = quantizations.folder_of(parent, bits), parent.run.config
        source, facts = checkpoints.path(parent), dict(parent.manifest["facts"])
    checkpoints.ensure_local(source)
    group_size = quantized.choose_group_size(_config(source)) if bits == 4 else quantized.WHOLE_ROW
    shares, is_own = calibration.shares(config)
    with _scratch(job.id) as folder:
        request = {"source": str(source.absolute()), "target": str(folder / "made"), "bits": bits}
        request |= {"group_size": group_size, "shares": shares, "max_loss": quantizations.MAX_LOSS[bits]}
        began = time.monotonic()
        result = _run(request, folder, report)
        _check_form(folder / "made", bits)
        destination = get_settings().checkpoints_dir / relative
        shutil.rmtree(destination, ignore_errors=True)  # no row knows it: of a worker that went down just then
        manifest = store.seal(folder / "made", destination, facts | {"precision": bits, "of": parent.label})
    derivation = {"method": METHODS[bits], "bits": bits, "seconds": round(time.monotonic() - began, 1), **result}
    if bits == 4:
        derivation |= {"group_size": group_size, "symmetric": True}
        derivation["calibration"] = {**(result["calibration"] or {}), "of_run": is_own}
    try:
        with db.transaction() as session:
            parent = checkpoints.get_by_id(session, parent.id)
            child = quantizations.keep(
                session,
                parent,
                bits,
                folder=relative,
                manifest=manifest,
                derivation=derivation,
                user_id=job.user_id,
            )
    except BaseException:
        shutil.rmtree(destination, ignore_errors=True)
        raise
    report(f"Registered {child.label}; it is verified and evaluated like any other.", 1.0)
    place = {"run": parent.run.name, "step": parent.step, "checkpoint_id": child.id}
    events.publish_board("checkpoint", {**place, "state": VERIFYING})


@contextlib.contextmanager
def _scratch(job_id: int) -> Iterator[Path]:
    """An empty folder on the disk of the checkpoints; gone afterwards, whatever was left in it."""
    folder = get_settings().home / "quantizing" / str(job_id)
    shutil.rmtree(folder, ignore_errors=True)  # of a worker that went down at it
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _run(request: dict[str, Any], folder: Path, report: Report) -> dict[str, Any]:
    """Run the other process to its end; returns its result.

    Raises:
        Invalid: it failed, with its own sentence, or the last words of its log.
        Cancelled: the process and all that it started are gone.
    """
    settings = get_settings()
    threads = settings.quantize_threads or max(1, (os.cpu_count() or 2) // 2)
    told = folder / "events"
    told.touch()
    request |= {"events": str(told), "threads": threads, "device": settings.quantize_device}
    request |= {"scoring_dtype": settings.scoring_dtype}
    (folder / "request.json").write_text(json.dumps(request))
    command = ["nice", "-n", NICE, sys.executable, "-m", "worker.quantizing", str(folder / "request.json")]
    root = str(Path(__file__).resolve().parents[1])
    environment = dict(os.environ)
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [root, environment.get("PYTHONPATH", "")]))
    process = EngineProcess(command, environment, settings.home / "logs" / "quantizing.log")
    allowed = settings.quantize_timeout_seconds
    deadline = time.monotonic() + allowed
    lines = _Lines(told)
    try:
        while process.is_alive:
            time.sleep(POLL_SECONDS)
            report.check()
            if time.monotonic() > deadline:
                raise Invalid("It took longer than %(seconds)s seconds, so it was stopped.", seconds=f"{allowed:.0f}")
            for content in lines.new():
                if "line" in content:
                    report(content["line"], content["progress"])
    finally:
        process.kill()
    lines.new()
    if "result" in lines.last:
        found: dict[str, Any] = lines.last["result"]
        return found
    raise Invalid(lines.last.get("error") or f"Quantizing failed: {process.last_words()}")


class _Lines:
    """What the other process has written since the last look."""

    def __init__(self, file: Path) -> None:
        self._file, self._read = file, 0
        self.last: dict[str, Any] = {}

    def new(self) -> list[dict[str, Any]]:
        """Whole lines only; the last of them stays in `last`."""
        with self._file.open("rb") as file:
            file.seek(self._read)
            content = file.read()
        whole = content[: content.rfind(b"\n") + 1]
        self._read += len(whole)
        found = [json.loads(line) for line in whole.splitlines()]
        if found:
            self.last = found[-1]
        return found


def _check_form(folder: Path, bits: int) -> None:
    """What was written must say of itself what it is.

    Raises:
        Invalid: it does not.
    """
    store.check_folder(folder)
    if (found := quantized.precision_of(folder)) != bits:
        raise Invalid("What was made has %(found)s bits, not %(bits)s.", found=found, bits=bits)


def _config(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "config.json").read_text())
    return content
