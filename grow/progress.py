"""What `grow demo` prints while it runs: read from the rows, as any other watcher would."""

import time
import urllib.error
import urllib.request

from rich.console import Console
from sqlalchemy import select
from sqlalchemy.exc import OperationalError, ProgrammingError
from sqlalchemy.orm import Session, joinedload, selectinload

from registry import runs
from registry.db import read_session
from registry.models import Checkpoint, Evaluation, Run
from registry.models.base import CANCELLED, FAILED, FINISHED, REJECTED, VERIFYING

POLL_SECONDS = 2.0
STATUS_SECONDS = 20.0
HEADLINES = 6
"""Scores named in one line; the rest is on the site."""


class Progress:
    """Prints new checkpoints and scores as they land, and now and then where training stands."""

    def __init__(self, console: Console, address: str) -> None:
        self._console = console
        self._address = address
        self._since = time.monotonic()
        self._next_poll = 0.0
        self._next_status = 0.0
        self._answered = False
        self._states: dict[int, str] = {}
        self._scored: set[int] = set()
        self._last_step = -1
        self._first = True

    def say(self, name: str, sentence: str) -> None:
        """One line about a service."""
        seconds = int(time.monotonic() - self._since)
        self._console.print(f"[dim]{seconds // 60:3d}:{seconds % 60:02d}[/dim]  {name:<11} {sentence}", highlight=False)

    def poll(self) -> None:
        """Look for news; cheap to call often."""
        now = time.monotonic()
        if now < self._next_poll:
            return
        self._next_poll = now + POLL_SECONDS
        if not self._answered:
            self._look_at_pages()
        try:
            self._look_at_rows(now)
        except (OperationalError, ProgrammingError) as error:
            self.say("database", f"does not answer: {error.orig}")

    def _look_at_pages(self) -> None:
        try:
            with urllib.request.urlopen(f"{self._address}/healthz", timeout=1):
                self._answered = True
                self.say("server", f"answers at {self._address}")
        except (urllib.error.URLError, TimeoutError, ConnectionError):
            return  # it is still starting

    def _look_at_rows(self, now: float) -> None:
        with read_session() as session:
            for checkpoint in session.scalars(select(Checkpoint).order_by(Checkpoint.id)):
                self._tell_state(checkpoint)
            for evaluations in self._newly_scored(session):
                if not self._first:
                    self._tell_scores(evaluations)
            if now >= self._next_status:
                self._next_status = now + STATUS_SECONDS
                run = session.scalar(
                    select(Run).where(Run.kind == "training").order_by(Run.heartbeat_at.desc()).limit(1)
                )
                last = runs.last_step(session, run) if run else None
                if run is not None and last is not None and last.step != self._last_step:
                    self._last_step = last.step
                    of = f" of {run.max_steps:,}" if run.max_steps else ""
                    tokens = f"{last.tokens_seen / 1e6:.2f}M tokens"
                    self.say("training", f"step {last.step:,}{of}, {tokens}, loss {last.value:.3f}")
        self._first = False

    def _newly_scored(self, session: Session) -> list[list[Evaluation]]:
        """The evaluations of each checkpoint all of which have ended since the last look."""
        options = (joinedload(Evaluation.checkpoint), joinedload(Evaluation.task), selectinload(Evaluation.results))
        of: dict[int, list[Evaluation]] = {}
        query = select(Evaluation).where(Evaluation.checkpoint_id.not_in(self._scored)).order_by(Evaluation.id)
        for evaluation in session.scalars(query.options(*options)):
            of.setdefault(evaluation.checkpoint_id, []).append(evaluation)
        ended = {
            number: all(e.status in (FINISHED, FAILED, CANCELLED) for e in listed) for number, listed in of.items()
        }
        self._scored |= {number for number, whole in ended.items() if whole}
        return [of[number] for number, whole in ended.items() if whole]

    def _tell_state(self, checkpoint: Checkpoint) -> None:
        before = self._states.get(checkpoint.id)
        self._states[checkpoint.id] = checkpoint.state
        if self._first or before == checkpoint.state or checkpoint.state == VERIFYING:
            return
        reason = f": {checkpoint.reason}" if checkpoint.state == REJECTED else ""
        self.say("checkpoint", f"[bold]{checkpoint.label}[/bold] {checkpoint.state}{reason}")

    def _tell_scores(self, evaluations: list[Evaluation]) -> None:
        numbers = [
            f"{evaluation.task.title} {result.value:.3f}"
            for evaluation in evaluations
            for result in evaluation.results
            if result.metric == evaluation.task.metric
        ]
        more = f" and {len(numbers) - HEADLINES} more" if len(numbers) > HEADLINES else ""
        failed = sum(evaluation.status == FAILED for evaluation in evaluations)
        lost = f"; {failed} failed, see its page" if failed else ""
        label = evaluations[0].checkpoint.label
        self.say("scores", f"[bold]{label}[/bold]  {', '.join(numbers[:HEADLINES])}{more}{lost}")
