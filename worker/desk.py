"""Where all answers of a worker are written: one thread passes on what the engine makes of many questions at once.

A thread for each answer would spend more time on waking up than on tokens: at 64 streams the pieces come two
thousand times a second. Here they come in batches, and each batch is one exchange with the broker.
"""

import datetime as dt
import queue
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import structlog
from sqlalchemy.exc import DBAPIError

from registry import blocklist, checkpoints, db, events, tickets
from registry.blocklist import Scanner
from registry.errors import Conflict
from registry.events import Piece
from registry.models.base import utcnow
from registry.tickets import Claim
from worker import questions, records
from worker.engine.protocol import Asked, Delta, Engine, EngineError
from worker.lease import RENEW_SECONDS, LeaseLost, Stopping
from worker.line import Residency
from worker.outcomes import settle
from worker.questions import Question

FLUSH_SECONDS = 0.01
"""Pieces that come one by one are passed on together; an answer's first piece, and its last, do not wait."""
FLUSH_SECONDS_AN_ANSWER, MAX_FLUSH_SECONDS = 0.0006, 0.04
"""Where many are written, more pieces go together: one event costs worker, broker and web server 0.2 ms of processor
time (benchmarks/playground.py), so that telling takes a third of one processor up to 66 answers. Beyond, readers
would see text in jerks."""
LOOK_SECONDS = 0.1
"""How often stops are asked for."""
UNSURE_NUMBERS = 1_000
"""Left out after an outage of the broker: some of the events that failed may have arrived."""
REPLACEMENT = "\ufffd"
"""Stands for the first bytes of a character whose rest has not come yet."""

log = structlog.get_logger(__name__)


@dataclass(eq=False)
class Answer:
    """One that is being written."""

    claim: Claim
    subject: str
    abort: Callable[[], None] = lambda: None
    text: str = ""
    sent: int = 0
    """Characters that watchers have."""
    tokens: list[Any] = field(default_factory=list)
    tokens_sent: int = 0
    number: int = 0
    """Of the last event in its stream."""
    finish_reason: str = ""
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    first: dt.datetime | None = None
    """When the first piece came."""
    last: dt.datetime | None = None
    stopped: bool = False
    error: BaseException | None = None
    scanner: Scanner | None = None
    """Says how much of the text may be shown; None where nothing is blocked."""
    shown: int = 0
    """Characters that may be shown."""
    is_cut: bool = False
    """What came next was blocked, so the engine need not go on."""
    is_untold: bool = False
    """The broker was away: nobody knows what of this answer is in its stream."""

    @property
    def is_begun(self) -> bool:
        """Whether watchers have anything of it."""
        return self.sent > 0 or self.tokens_sent > 0

    @property
    def is_over(self) -> bool:
        """Whether nothing more is to come."""
        return bool(self.finish_reason) or self.stopped or self.error is not None

    def end(self) -> records.End:
        """What is recorded of it."""
        return records.End(
            text=self.text[: self.shown] if self.stopped else self.text,
            tokens=self.tokens or None,
            finish_reason="cancelled" if self.stopped else self.finish_reason,
            prompt_tokens=self.prompt_tokens,
            completion_tokens=self.completion_tokens,
            started_at=self.first,
        )

    def event(self, kind: str, data: dict[str, Any]) -> Piece:
        """The next event of its stream."""
        self.number += 1
        return Piece(self.subject, f"{self.claim.fence}-{self.number}", kind, data)


class Desk:
    """Answers under way. `begin` may be called by any thread."""

    def __init__(self, line: Residency, stopping: threading.Event, *, on_end: Callable[[], None]) -> None:
        """`on_end` is called after each outcome that was recorded, in a thread of the desk's."""
        self._line = line
        self._stopping = stopping
        self._on_end = on_end
        self._pieces: queue.SimpleQueue[tuple[Answer, Delta | EngineError]] = queue.SimpleQueue()
        self._hurry = threading.Event()
        """A piece is there that does not wait."""
        self._lock = threading.Lock()  # guards the two below: begin() runs beside the desk's own thread
        self._open: dict[int, Answer] = {}
        self._thread: threading.Thread | None = None
        # Commits wait for other writers; the streams do not wait with them.
        self._recorder = ThreadPoolExecutor(1, "record")
        self._last_flush = self._last_look = self._last_renewal = 0.0
        self._held: dict[Answer, None] = {}
        """Answers with something that their watchers do not have yet, in the order in which it came."""
        self._broker = 0
        """`events.broker_generation` when something was last told."""

    @property
    def num_open(self) -> int:
        """Answers under way, those that are being recorded included."""
        with self._lock:
            return len(self._open)

    def begin(self, claim: Claim, engine: Engine) -> None:
        """Start the answer to a ticket that was taken some time ago."""
        try:
            with db.transaction() as session:
                if not tickets.renew(session, claim.ticket_id, claim.fence):
                    raise LeaseLost(f"Ticket {claim.ticket_id} is no longer held under number {claim.fence}.")
                question = questions.read(session, claim)
        except Exception as error:  # the edge: whatever it is becomes the ticket's outcome
            self._refuse(self._open_answer(claim, None), error)
        else:
            self.begin_all([(claim, question)], engine)

    def begin_all(self, asked: Sequence[tuple[Claim, Question]], engine: Engine) -> None:
        """Start the answers to questions of one checkpoint; how each ends is recorded."""
        scanner = _scanner()
        begun = [(self._open_answer(claim, scanner), question) for claim, question in asked]
        try:
            self._use(engine, asked[0][1].folder)
        except Exception as error:
            for answer, _ in begun:
                self._refuse(answer, error)
            return
        written: list[tuple[Answer, Asked]] = []
        for answer, question in begun:
            try:
                if not answer.is_over:
                    questions.check_known(question)
                    token_ids = questions.prompt_tokens(question)
                    written.append((answer, Asked(token_ids, question.sampling, self._putter(answer))))
            except Exception as error:
                self._refuse(answer, error)
        self._ask(written, engine)

    def _putter(self, answer: Answer) -> Callable[[Delta | EngineError], None]:
        def put(piece: Delta | EngineError) -> None:
            self._pieces.put((answer, piece))
            if answer.first is None or isinstance(piece, EngineError) or piece.finish_reason is not None:
                self._hurry.set()

        return put

    def _ask(self, asked: Sequence[tuple[Answer, Asked]], engine: Engine) -> None:
        try:
            aborts = engine.begin([question for _, question in asked]) if asked else []
        except Exception as error:
            for answer, _ in asked:
                self._refuse(answer, error)
            return
        for (answer, _), abort in zip(asked, aborts, strict=True):
            answer.abort = abort
            if answer.is_over:  # it was stopped between these lines
                abort()

    def _open_answer(self, claim: Claim, scanner: Scanner | None) -> Answer:
        subject = events.subject_of(turn_id=claim.turn_id, call_id=claim.call_id)
        answer = Answer(claim, subject, scanner=scanner)
        with self._lock:
            self._open[claim.ticket_id] = answer
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="desk", daemon=True)
                self._thread.start()
        return answer

    def _refuse(self, answer: Answer, error: BaseException) -> None:
        answer.error = error
        self._recorder.submit(self._end, [answer])

    def _use(self, engine: Engine, folder: Path) -> None:
        before, started = engine.num_loads, time.monotonic()
        engine.use(checkpoints.ensure_local(folder))
        if engine.num_loads != before:
            self._line.note_load(time.monotonic() - started)

    def _run(self) -> None:
        while True:
            try:
                self._take_in(self._next_pieces())
                self._pass_on()
                self._look_around()
            except Exception:  # a broken answer must not end those beside it
                log.exception("The desk stumbled; it goes on.")

    def _next_pieces(self) -> list[tuple[Answer, Delta | EngineError]]:
        """What has come by the time at which it is told, or by the moment in which something comes that cannot wait."""
        try:
            pieces = [self._pieces.get(timeout=self._wait_seconds() if self._held else LOOK_SECONDS)]
        except queue.Empty:
            return []
        self._hurry.wait(self._wait_seconds())
        self._hurry.clear()
        self._drain(pieces)
        return pieces

    def _wait_seconds(self) -> float:
        return min(LOOK_SECONDS, max(0.0, self._flushes_at() - time.monotonic()))

    def _flushes_at(self) -> float:
        seconds = min(MAX_FLUSH_SECONDS, FLUSH_SECONDS_AN_ANSWER * len(self._open))
        return self._last_flush + max(FLUSH_SECONDS, seconds)

    def _drain(self, pieces: list[tuple[Answer, Delta | EngineError]]) -> None:
        try:
            while True:
                pieces.append(self._pieces.get_nowait())
        except queue.Empty:
            return

    def _take_in(self, pieces: list[tuple[Answer, Delta | EngineError]]) -> None:
        for answer, piece in pieces:
            if not answer.is_over:
                _take(answer, piece)
                self._held[answer] = None

    def _pass_on(self) -> None:
        """Tell everything once it is time, and before that only what does not wait."""
        now = time.monotonic()
        is_time = now >= self._flushes_at()
        told = [answer for answer in self._held if is_time or answer.is_over or not answer.is_begun]
        if not told:
            return
        if is_time:
            self._last_flush = now
        self._flush(told)
        self._finish([answer for answer in told if answer.is_over])

    def _flush(self, answers: Collection[Answer]) -> None:
        for answer in answers:  # before anything can fail: it would fail again with each piece of the others
            self._held.pop(answer, None)
        refused = events.publish([piece for answer in answers for piece in _ready(answer)])
        if self._meets_other_broker():
            refused = events.publish([piece for answer in answers for piece in _ready(answer)])
        for answer in answers:
            if refused is None:
                answer.is_untold = True
            elif answer.subject in refused:
                answer.error = LeaseLost(f"Somebody else answers {answer.subject}.")

    def _meets_other_broker(self) -> bool:
        """Whether the broker has been started anew; then nobody knows what is left of any stream."""
        with self._lock:
            before, self._broker = self._broker, events.broker_generation()
            if before in (0, self._broker):
                return False
            for answer in self._open.values():
                answer.is_untold = True
            return True

    def _finish(self, over: list[Answer]) -> None:
        for answer in over:
            self._held.pop(answer, None)
            if answer.stopped or answer.is_cut or answer.error is not None:
                answer.abort()
        if over:
            self._recorder.submit(self._end, over)

    def _end(self, over: list[Answer]) -> None:
        with self._lock:  # an engine that dies as it begins says so twice: to the answer, and to whoever began it
            over = [answer for answer in over if self._open.get(answer.claim.ticket_id) is answer]
        whole = [answer for answer in over if answer.error is None]
        try:
            self._record(whole)
        except Exception:  # their leases run out, and other attempts follow
            log.exception("The ends of answers could not be recorded.", number=len(whole))
        for answer in over:
            if answer.error is not None:
                try:
                    settle(answer.claim, answer.error)
                except Exception:
                    log.exception("The end of an answer could not be recorded.", ticket_id=answer.claim.ticket_id)
            with self._lock:
                self._open.pop(answer.claim.ticket_id, None)
            seconds = (answer.last - answer.first).total_seconds() if answer.first and answer.last else None
            self._line.release(answer.claim, tokens=answer.completion_tokens, seconds=seconds)
        self._on_end()

    def _record(self, whole: list[Answer]) -> None:
        """All in one transaction; an answer whose ticket is somebody else's by now is left out of it."""
        if not whole:
            return
        ends = {answer: answer.end() for answer in whole}
        with db.transaction() as session:
            for answer in whole:
                try:
                    with session.begin_nested():
                        records.close(session, answer.claim, ends[answer])
                except Conflict as error:
                    answer.error = error
        told = {answer: ends[answer].told() for answer in whole if answer.error is None}
        events.publish(_last_pieces(told))
        self._meets_other_broker()
        if any(answer.is_untold for answer in told):
            events.publish(_last_pieces(told))

    def _look_around(self) -> None:
        now = time.monotonic()
        if now - self._last_look < LOOK_SECONDS:
            return
        self._last_look = now
        with self._lock:
            under_way = {answer.subject: answer for answer in self._open.values() if not answer.is_over}
        if self._stopping.is_set():
            for answer in under_way.values():
                answer.error = Stopping("The worker is shutting down.")
            self._finish(list(under_way.values()))
            return
        for subject in events.stops(under_way):
            answer = under_way[subject]
            answer.stopped = True
            self._flush([answer])
            self._finish([answer])
        if now - self._last_renewal > RENEW_SECONDS:
            self._last_renewal = now
            self._recorder.submit(self._renew)

    def _renew(self) -> None:
        with self._lock:
            held = list(self._open.values())
        try:
            with db.transaction() as session:
                lost = [one for one in held if not tickets.renew(session, one.claim.ticket_id, one.claim.fence)]
        except DBAPIError as error:
            # The leases last for several of these attempts; the fences decide in the end.
            log.warning("Leases could not be renewed.", error=str(error))
            return
        for answer in lost:
            self._pieces.put((answer, _Lost(f"Ticket {answer.claim.ticket_id} is no longer held.")))


class _Lost(EngineError):
    """Stands in the queue for a lease that was lost."""


def _scanner() -> Scanner | None:
    with db.read_session() as session:
        return blocklist.outgoing(session) or None


def _take(answer: Answer, piece: Delta | EngineError) -> None:
    if isinstance(piece, EngineError):
        answer.error = LeaseLost(str(piece)) if isinstance(piece, _Lost) else piece
        return
    answer.last = utcnow()
    answer.first = answer.first or answer.last
    answer.text += piece.text
    answer.tokens += piece.tokens or []
    answer.prompt_tokens = piece.prompt_tokens or answer.prompt_tokens
    answer.completion_tokens = piece.completion_tokens or answer.completion_tokens
    if piece.finish_reason is not None:
        answer.finish_reason = piece.finish_reason
        # A limit in the middle of a character leaves bytes that never become one.
        answer.text = answer.text.rstrip(REPLACEMENT)
    _scan(answer)


def _scan(answer: Answer) -> None:
    if answer.scanner is None:
        answer.shown = len(answer.text.rstrip(REPLACEMENT))
        return
    is_whole = bool(answer.finish_reason)
    text = answer.text.rstrip(REPLACEMENT)
    answer.shown, is_blocked = answer.scanner.safe_prefix(text, shown=answer.shown, ended=is_whole)
    if is_blocked:
        answer.text, answer.finish_reason, answer.is_cut = text[: answer.shown], "content_filter", not is_whole
        answer.tokens = []  # they would tell what the text does not


def _last_pieces(told: Mapping[Answer, dict[str, Any]]) -> list[Piece]:
    pieces = []
    for answer, end in told.items():
        pieces += [*(_ready(answer) if answer.is_untold else ()), answer.event("done", end)]
    return pieces


def _ready(answer: Answer) -> list[Piece]:
    """The events with what watchers do not have yet; after an outage of the broker, all of it once more."""
    if answer.is_untold:
        answer.is_untold = False
        answer.sent = answer.tokens_sent = 0
        answer.number += UNSURE_NUMBERS
    is_first = not answer.is_begun
    data: dict[str, Any] = {}
    if answer.shown > answer.sent:
        data["text"] = answer.text[answer.sent : answer.shown]
        answer.sent = answer.shown
    # Where text is held back, the probabilities of its tokens are, too.
    if len(answer.tokens) > answer.tokens_sent and (answer.scanner is None or answer.finish_reason):
        data = {"text": "", **data, "tokens": answer.tokens[answer.tokens_sent :]}
        answer.tokens_sent = len(answer.tokens)
    if not data:
        return []
    # From the second attempt on, watchers throw away what they have: the answer starts over.
    start = [answer.event("start", {"attempt": answer.claim.fence})] if is_first else []
    return [*start, answer.event("delta", data)]
