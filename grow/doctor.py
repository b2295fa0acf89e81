"""`grow doctor`: what works on this machine, in sentences."""

import json
import platform
import shutil
import socket
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.exc import SQLAlchemyError

from registry import events, remote
from registry.db import current_engine
from registry.errors import RegistryError
from registry.settings import Settings

ROOT = Path(__file__).resolve().parent.parent
ENOUGH_BYTES = 5 * 2**30


class Check(NamedTuple):
    """One finding: a sentence that names the remedy where it is bad."""

    good: bool
    sentence: str


def run_checks(settings: Settings) -> list[Check]:
    """All findings, in the order in which a service would need them."""
    return [
        Check(sys.version_info >= (3, 11), f"Python {platform.python_version()}"),
        Check(True, engine_sentence(settings)),
        *(Check(True, sentence) for sentence in speed_sentences(settings)),
        _training(),
        _assets(),
        _disk(settings),
        _database(settings),
        _broker(settings),
        *_blob_store(),
        _port(settings),
    ]


def engine_sentence(settings: Settings) -> str:
    """Which engine will answer, and why."""
    if settings.engine != "auto":
        return f"{settings.engine}, as GROW_ENGINE says"
    if find_spec("vllm") is not None:
        if settings.scoring_engine != "auto":
            return f"vLLM answers, and {settings.scoring_engine} scores, as GROW_SCORING_ENGINE says"
        return "vLLM answers; it or transformers scores, whichever the worker measures to be the faster one here"
    return "vLLM is not installed here (macOS or an old processor); the transformers engine answers and scores"


def speed_sentences(settings: Settings) -> list[str]:
    """What workers have measured of the engines (`worker/engine/speed.py`), a sentence for each architecture."""
    sentences = []
    for note in sorted((settings.home / "run" / "speed").glob("*.json")):
        found = json.loads(note.read_text(encoding="utf-8"))
        seconds = {name: value for name, value in found["seconds"].items() if value is not None}
        figures = ", ".join(f"{name} {value:.1f} s" for name, value in sorted(seconds.items(), key=lambda one: one[1]))
        sentences.append(f"Scores the same sample on {found['machine']}: {figures}")
    return sentences


def _blob_store() -> list[Check]:
    """Nothing where none is set."""
    if not remote.is_set():
        return []
    try:
        remote.check()
    except RegistryError as error:
        return [Check(False, f"{error} Checkpoints stay in verification until that is mended")]
    return [Check(True, "The blob store takes files and gives them back")]


def _training() -> Check:
    missing = [name for name in ("torch", "transformers", "deepspeed", "lm_eval") if find_spec(name) is None]
    if missing:
        return Check(False, f"Training and scoring lack {', '.join(missing)}: run make setup")
    return Check(True, "torch, transformers, DeepSpeed and lm-eval are installed")


def _assets() -> Check:
    if (ROOT / "static" / "vendor").is_dir():
        return Check(True, "The front-end assets are in place")
    return Check(False, "static/vendor is missing: run make setup")


def _disk(settings: Settings) -> Check:
    free = shutil.disk_usage(settings.home if settings.home.exists() else Path.cwd()).free
    enough = free >= ENOUGH_BYTES
    return Check(
        enough, f"{free / 2**30:.0f} GiB free for GROW_HOME" + ("" if enough else ": a run needs 5 GiB or more")
    )


def _database(settings: Settings) -> Check:
    if not settings.database_url and not (settings.home / "grow.db").exists():
        return Check(True, "No database yet: the first grow demo or grow migrate makes it")
    try:
        with current_engine().connect() as connection:
            now = MigrationContext.configure(connection).get_current_revision()
    except SQLAlchemyError as error:
        return Check(False, f"The database does not answer ({type(error).__name__}): look at GROW_DATABASE_URL")
    newest = ScriptDirectory(str(ROOT / "migrations")).get_current_head()
    if now != newest:
        return Check(False, f"The database is at {now}, the program at {newest}: run grow migrate")
    return Check(True, "The database answers and is up to date")


def _broker(settings: Settings) -> Check:
    if not settings.redis_url and not (settings.home / "run" / "redis_url").exists():
        return Check(True, "No broker set: grow demo and grow up start one of their own")
    if events.broker_alive():
        return Check(True, "The broker answers")
    return Check(not settings.redis_url, "The broker does not answer: start it, or run grow up, which brings its own")


def _port(settings: Settings) -> Check:
    taken = port_taken(settings.host, settings.port)
    return Check(True, f"Port {settings.port} is " + ("in use (by the site, if it runs)" if taken else "free"))


def port_taken(host: str, port: int) -> bool:
    """Whether somebody listens there."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1" if host in ("0.0.0.0", "::") else host, port)) == 0
