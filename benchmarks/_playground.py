"""A site with a real worker for the benchmarks of the line: checkpoints of the demo's shape, people, questions."""

import os
import signal
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import select

from benchmarks import _site, swap
from registry import accounts, chats, checkpoints, db, events, runs, store
from registry.models import Ticket, User
from registry.settings import get_settings

ROOT = Path(__file__).parent.parent
WORDS = "token100 token200 token300 token400 token500 token600"
SHAPE = Namespace(layers=4, width=192)
READY_SECONDS = 180.0


def migrate() -> None:
    """The tables of the site in use."""
    config = Config(str(ROOT / "alembic.ini"))
    config.set_main_option("script_location", str(ROOT / "migrations"))
    with db.migration_connection(db.current_engine()) as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def publish(number: int) -> list[int]:
    """So many checkpoints of one run, with random weights, ready to answer; their ids."""
    settings, ids = get_settings(), []
    for step in range(number):
        folder = swap._make_checkpoint(settings.home / "made" / f"step-{step}", SHAPE, step)
        place = f"bench/step-{step}"
        manifest = store.seal(folder, settings.checkpoints_dir / place, {"tokens_seen": step * 4096})
        with db.transaction() as session:
            run = runs.create_run(session, name="bench", config={})
            checkpoint = checkpoints.register(session, run, step=step, folder=place, manifest=manifest)
            checkpoints.mark_ready(session, checkpoint, 1)
            ids.append(checkpoint.id)
    return ids


def make_people(number: int) -> list[int]:
    """Registered people; their ids."""
    with db.transaction() as session:
        password_hash = accounts.register(session, "person0", "correct horse battery").password_hash
        # One hash for all: argon2 is made to be slow.
        session.add_all(
            User(name=f"person{at}", name_key=f"person{at}", password_hash=password_hash) for at in range(1, number)
        )
    with db.read_session() as session:
        return list(session.scalars(select(User.id).order_by(User.id)))


def ask(user_id: int, checkpoint_id: int, max_tokens: int, prompt: str = WORDS) -> int:
    """One question in a conversation of its own; the turn's id."""
    with db.transaction() as session:
        chat = chats.open_chat(session, session.get_one(User, user_id), checkpoints.get_by_id(session, checkpoint_id))
        return chats.open_turn(session, chat, prompt, {"max_tokens": max_tokens, "temperature": 1.0, "top_p": 1.0}).id


def tickets_of(turn_ids: Sequence[int]) -> list[Ticket]:
    """Their tickets, as they stand now."""
    with db.read_session() as session:
        return list(session.scalars(select(Ticket).where(Ticket.turn_id.in_(turn_ids)).order_by(Ticket.issued_at)))


def wait_for(turn_ids: Sequence[int], seconds: float) -> list[Ticket]:
    """Their tickets, once all have ended.

    Raises:
        SystemExit: they did not end in time.
    """
    deadline = time.monotonic() + seconds
    while True:
        found = tickets_of(turn_ids)
        if all(ticket.status in ("finished", "failed", "cancelled") for ticket in found):
            return found
        if time.monotonic() > deadline:
            raise SystemExit(f"Not all answers ended within {seconds:.0f} s.")
        time.sleep(0.05)


@contextmanager
def working(name: str = "worker", threads: int = 1, **settings: str) -> Iterator["subprocess.Popen[bytes]"]:
    """A worker process with its engine, until the end of the block."""
    home = get_settings().home
    environment = {**os.environ, "GROW_ENGINE_THREADS": str(threads), "OMP_NUM_THREADS": "1", **settings}
    with (home / f"{name}.log").open("ab") as log:
        worker = subprocess.Popen(
            [sys.executable, "-m", "worker", "--queues", "gpu,cpu", "--beat"],
            env=environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        _await(worker)
        yield worker
    finally:
        if worker.poll() is None:
            worker.terminate()
            try:
                worker.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(worker.pid, signal.SIGKILL)


def _await(worker: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + READY_SECONDS
    while not events.live_workers():
        if worker.poll() is not None or time.monotonic() > deadline:
            raise SystemExit("The worker did not start; see worker.log.")
        time.sleep(0.1)


@contextmanager
def site(home: Path, **settings: str) -> Iterator[_site.Site]:
    """An empty site: broker, tables and a web server."""
    _site.use(home)
    os.environ |= {"HF_HUB_OFFLINE": "1", **settings}
    get_settings.cache_clear()
    migrate()
    with _site.serving() as found:
        yield found
