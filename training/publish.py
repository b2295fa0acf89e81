"""Telling the registry what training does. The only module of training that knows it.

Everything is on disk first: metrics in `<run>/metrics.jsonl`, checkpoints as sealed folders. While
the database cannot be reached the rest waits in `Publisher` and is delivered at a later step,
at the end, or by the next process of the run; training goes on meanwhile.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import structlog
from sqlalchemy import inspect
from sqlalchemy.exc import DBAPIError, OperationalError, TimeoutError
from sqlalchemy.orm import Session
from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_delay, wait_random_exponential

from corpora.sources import SOURCES
from registry import checkpoints, db, evaluations, events, runs, store
from registry.errors import Invalid
from registry.models import Run
from registry.models.base import FAILED, FINISHED, QUEUED, READY, REJECTED, RETIRED, VERIFYING
from registry.settings import Settings, get_settings
from training.config import Config
from training.loop import Facts

PATIENCE_SECONDS = 300.0
"""How long the beginning and the end of a run wait for the database."""
STEP_PATIENCE_SECONDS = 20.0
"""How long a step does, once; while the database stays away each later step asks but once."""

log = structlog.get_logger(__name__)


class Metrics(NamedTuple):
    """Scalars that wait to be recorded, or a mark that training goes on from an earlier step."""

    step: int
    tokens_seen: int
    values: Mapping[str, float]
    rewind: int = 0
    """Number of the rewind that this marks; 0 for scalars."""


class Origin(NamedTuple):
    """The step of another run that a run goes on from."""

    run: str
    step: int
    is_rewind: bool
    """It takes that run's place; else both go on."""


class Publisher:
    """The observer of `training.loop` that writes into the registry; process 0 has it."""

    def __init__(
        self,
        *,
        run: str,
        config: Config,
        num_parameters: int,
        origin: Origin | None = None,
        patience: float = PATIENCE_SECONDS,
    ) -> None:
        self.run = run
        self.origin = origin
        self.config = config
        self.num_parameters = num_parameters
        self.patience = patience
        self._metrics: list[Metrics] = []
        self._sealed: list[int] = []
        self._last_step = -1
        self._num_rewinds = 0
        self._reachable = True

    def begin(self) -> None:
        """Make the run known, or go on with it, and collect what an earlier process could not deliver.

        Raises:
            Invalid: the database has no tables, or the name cannot be a run's.
            NotFound: the run that it should go on from is unknown.
            Conflict: the name belongs to another kind of run, or to one that began elsewhere.
            OperationalError: the database could not be reached for minutes.
        """
        get_settings().home.mkdir(parents=True, exist_ok=True)
        self._retrying(self.patience)(self._begin)
        self._deliver(self.patience)

    def on_start(self, after: int) -> None:
        """Mark what was recorded of steps after `after` as superseded: they are done again."""
        if self._last_step <= after:
            return
        log.info("Steps are done again; their earlier curve is kept as superseded.", after=after, until=self._last_step)
        self._num_rewinds += 1
        self._keep(Metrics(after, 0, {}, self._num_rewinds))

    def on_metrics(self, step: int, tokens_seen: int, values: Mapping[str, float]) -> None:
        """Record scalars of a step."""
        self._keep(Metrics(step, tokens_seen, dict(values)))

    def _keep(self, metrics: Metrics) -> None:
        line = {name: value for name, value in metrics._asdict().items() if name != "rewind" or value}
        with metrics_file(run_folder(self.run)).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        self._last_step = metrics.step
        self._metrics.append(metrics)
        self._deliver(STEP_PATIENCE_SECONDS)

    def on_checkpoint(self, folder: Path, facts: Facts) -> None:
        """Seal a checkpoint, register it and queue its evaluations.

        Raises:
            Conflict: other files were published at this step before.
        """
        if self.origin is not None and facts.step <= self.origin.step:
            shutil.rmtree(folder)  # the run it goes on from has published it
            return
        destination = checkpoint_folder(self.run, facts.step)
        sealed = store.seal(
            folder,
            destination,
            {
                "run": self.run,
                "step": facts.step,
                "tokens_seen": facts.tokens_seen,
                "flops": facts.flops,
                "num_parameters": facts.num_parameters,
                "kind": "pretrained",
                "precision": 16,
            },
        )
        log.info("Published a checkpoint.", step=facts.step, digest=sealed.digest[:12], megabytes=_megabytes(sealed))
        self._sealed.append(facts.step)
        self._deliver(STEP_PATIENCE_SECONDS)

    def finish(self) -> None:
        """The last step is done."""
        self._end(FINISHED)

    def pause(self) -> None:
        """Stopped by somebody; the next start goes on."""
        self._end(QUEUED)

    def fail(self) -> None:
        """Training cannot go on."""
        self._end(FAILED)

    def _begin(self) -> None:
        if not inspect(db.current_engine()).has_table("runs"):
            raise Invalid(
                "The database has no tables yet: start the site with `grow up`, or run `alembic upgrade head`."
            )
        with db.transaction() as session:
            origin = self.origin
            run = runs.create_run(
                session,
                origin=origin and runs.Origin(runs.get_run(session, origin.run), origin.step, origin.is_rewind),
                name=self.run,
                config=self.config.as_dict() | {"licences": _licences(self.config)},
                git_revision=git_revision(),
                num_parameters=self.num_parameters,
                tokens_per_step=self.config.tokens_per_step,
                max_steps=self.config.max_steps,
            )
            last = runs.last_step(session, run)
            num_rewinds = runs.num_rewinds(session, run)
            states = (VERIFYING, READY, REJECTED, RETIRED)
            known = {checkpoint.step for checkpoint in checkpoints.list_checkpoints(session, run, states)}
        on_disk = read_metrics(self.run)
        self._metrics = _undelivered(on_disk, num_rewinds, last.step if last else -1)
        self._num_rewinds = max([num_rewinds, *(metrics.rewind for metrics in on_disk)])
        self._last_step = max(on_disk[-1].step if on_disk else -1, last.step if last else -1)
        self._sealed = [step for step in _sealed_steps(self.run) if step not in known]

    def _deliver(self, patience: float) -> None:
        """Record what waits; when the database stays away, say so and leave it for later."""
        if not self._metrics and not self._sealed:
            return
        try:
            self._retrying(patience if self._reachable else 0.0)(self._record)
        except (DBAPIError, TimeoutError) as error:
            if not _is_passing(error):
                raise
            log.warning(
                "The database cannot be reached; training goes on, and what it has to tell is kept on disk.",
                waiting_checkpoints=len(self._sealed),
                error=_first_line(error),
            )
            self._reachable = False
            return
        if not self._reachable:
            log.info("The database is back; everything was delivered.")
        self._reachable = True

    def _record(self) -> None:
        registered = []
        with db.transaction() as session:
            run = runs.get_run(session, self.run)
            for metrics in self._metrics:
                if metrics.rewind:
                    runs.rewind(session, run, metrics.step)
                else:
                    runs.log_metrics(session, run, metrics.step, metrics.tokens_seen, metrics.values)
            registered = [self._register(session, run, step) for step in self._sealed]
        if self._metrics:
            events.publish_board("metrics", {"run": self.run, "step": self._metrics[-1].step})
        for checkpoint in registered:
            events.publish_board("checkpoint", checkpoint)
        self._metrics, self._sealed = [], []

    def _register(self, session: Session, run: Run, step: int) -> dict[str, Any]:
        folder = checkpoint_folder(self.run, step)
        checkpoint = checkpoints.register(
            session,
            run,
            step=step,
            folder=folder.relative_to(get_settings().checkpoints_dir).as_posix(),
            manifest=store.read_manifest(folder),
            num_parameters=self.num_parameters,
        )
        evaluations.plan(session, checkpoint)
        return {"run": self.run, "step": step, "checkpoint_id": checkpoint.id, "state": checkpoint.state}

    def _end(self, status: str) -> None:
        def record() -> None:
            with db.transaction() as session:
                runs.set_status(session, runs.get_run(session, self.run), status)

        self._reachable = True
        self._deliver(self.patience)
        self._retrying(self.patience if self._reachable else 0.0)(record)

    def _retrying(self, patience: float) -> Retrying:
        return Retrying(
            retry=retry_if_exception(_is_passing),
            stop=stop_after_delay(patience),
            wait=wait_random_exponential(multiplier=0.2, max=10),
            before_sleep=_say_retry,
            reraise=True,
        )


def _licences(config: Config) -> dict[str, str]:
    """Under which licence each source of the corpus stands, for the model's card."""
    return {share.name: SOURCES[share.name].licence for share in config.corpus.sources if share.name in SOURCES}


def _undelivered(on_disk: list[Metrics], num_rewinds: int, last_step: int) -> list[Metrics]:
    """What the registry has not heard yet; it knows of so many rewinds, and of the steps after the last of them."""
    attempt, waiting = 0, []
    for metrics in on_disk:
        attempt = metrics.rewind or attempt
        is_later = not metrics.rewind and metrics.step > last_step
        if attempt > num_rewinds or (attempt == num_rewinds and is_later):
            waiting.append(metrics)
    return waiting


def _is_passing(error: BaseException) -> bool:
    """Whether waiting may help: locked, full, restarting or unreachable, but not a mistake in what we asked."""
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return True
    return isinstance(error, (OperationalError, TimeoutError)) and "no such table" not in str(error)


def _say_retry(call: RetryCallState) -> None:
    error = call.outcome.exception() if call.outcome else None
    log.warning("The database did not answer; asking again.", attempt=call.attempt_number, error=_first_line(error))


def _first_line(error: BaseException | None) -> str:
    return str(error).partition("\n")[0]


def _megabytes(manifest: store.Manifest) -> float:
    return round(manifest.size_bytes / 1e6, 1)


def settings() -> Settings:
    """The settings of this process."""
    return get_settings()


def run_folder(run: str) -> Path:
    """Where a run keeps its states and its metrics."""
    return get_settings().home / "runs" / run


def checkpoint_folder(run: str, step: int) -> Path:
    """Where the published checkpoint of a step is, or will be."""
    return get_settings().checkpoints_dir / run / f"step-{step}"


def is_published(run: str, step: int) -> bool:
    """Whether the checkpoint of a step is sealed on disk."""
    return (checkpoint_folder(run, step) / store.MANIFEST).is_file()


def _sealed_steps(run: str) -> Iterator[int]:
    folder = checkpoint_folder(run, 0).parent
    steps = [path.name.removeprefix("step-") for path in folder.glob("step-*")] if folder.is_dir() else []
    # Chats and quantized copies of a step have a suffix and other owners.
    yield from (step for step in sorted(int(step) for step in steps if step.isdecimal()) if is_published(run, step))


def metrics_file(folder: Path) -> Path:
    """The record of all scalars of a run, one step a line."""
    folder.mkdir(parents=True, exist_ok=True)
    return folder / "metrics.jsonl"


def read_metrics(run: str) -> list[Metrics]:
    """The scalars on disk, and the marks where training went on from an earlier step, as they came."""
    found: list[Metrics] = []
    with metrics_file(run_folder(run)).open("a+", encoding="utf-8") as file:
        file.seek(0)
        for line in file:
            if not line.endswith("\n"):
                log.warning("The last line of the metrics is torn: the process was killed while writing it.", run=run)
                file.write("\n")
                break
            if line.strip().endswith("}"):
                found.append(Metrics(**json.loads(line)))
    return found


def git_revision() -> str:
    """The commit this code is at: from GROW_GIT_REVISION (images have no git), or from git; empty where unknown."""
    if revision := os.environ.get("GROW_GIT_REVISION"):
        return revision
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return answer.stdout.strip() if answer.returncode == 0 else ""
