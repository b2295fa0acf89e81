"""Checkpoints with real files, as they are after a worker has verified them."""

import tempfile
from pathlib import Path

from registry import checkpoints, db, runs, store
from registry.models import Checkpoint
from registry.models.base import READY, REJECTED, VERIFYING
from registry.settings import get_settings
from tests.browser.tiny import write_folder


def put(run: str, step: int, *, kind: str = "pretrained", state: str = READY, **files: str) -> Checkpoint:
    """A tiny checkpoint; `files` are more of them, by name with `__` for a dot and `___` for a slash."""
    relative = f"{run}/step-{step}" + ("-chat" if kind == "chat" else "")
    folder = get_settings().checkpoints_dir / relative
    with tempfile.TemporaryDirectory(dir=get_settings().home) as temporary:
        content = write_folder(Path(temporary) / "new", seed=2 * step + (kind == "chat"))
        for name, text in files.items():
            path = content / name.replace("___", "/").replace("__", ".")
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        manifest = store.seal(content, folder, {"tokens_seen": step * 4096})
    with db.transaction() as session:
        owner = runs.create_run(session, name=run)
        made = checkpoints.register(session, owner, step=step, folder=relative, manifest=manifest, kind=kind)
        if state == READY:
            checkpoints.mark_ready(session, made, 1_000)
        else:
            made.state = state
        session.info.pop("deferred_jobs", None)  # no broker listens
    return made


def fill() -> None:
    """A run with three checkpoints that are ready, and two that are not."""
    put("garden", 1)
    put("garden", 2, additional_chat_templates___tool__jinja="{{ tools }}", README__md="# Garden")
    put("garden", 2, kind="chat")
    put("garden", 3, state=VERIFYING)
    put("garden", 4, state=REJECTED)


def checkpoint(step: int, kind: str = "pretrained") -> Checkpoint:
    """One of them."""
    with db.read_session() as session:
        return checkpoints.get_checkpoint(session, runs.get_run(session, "garden"), step, kind)
