"""When each waiting ticket will begin, if nothing new comes: the line's rules played forward. Pure; seconds from now.

The rules are those by which tickets are claimed: `registry.tickets` orders a lane, `worker.line` decides between the
checkpoint that an engine holds and the others. Evaluations play no part but by the slice that runs: it is short, and
the next one goes after whoever waits for an answer.
"""

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

FIRST_LOAD_SECONDS = 1.0
"""Putting a checkpoint into an engine, before any was measured."""
MIN_SHARE_OF_PATIENCE = 0.25
"""However long the answers in flight will take, the resident checkpoint keeps the engine for this part of the bound."""


@dataclass(frozen=True)
class Waiting:
    """A ticket for an answer; given in the order in which people have their turns (`tickets.in_turns`)."""

    ticket_id: int
    lane: int
    checkpoint_id: int
    waited: float
    seconds: float
    """How long its answer will take."""


@dataclass
class Engine:
    """What one worker is at."""

    checkpoint_id: int | None
    max_answers: int
    patience: float
    load_seconds: float = FIRST_LOAD_SECONDS
    busy: list[float] = field(default_factory=list)
    """When each answer that is being written will be done."""
    slice_until: float = 0.0
    """When the slice of an evaluation that runs will be done."""
    now: float = 0.0
    left: dict[int, float] = field(default_factory=dict)
    """When other checkpoints were last resident."""

    @property
    def is_idle(self) -> bool:
        """Whether nothing is in flight."""
        return not self.busy and self.slice_until <= self.now

    @property
    def free_at(self) -> float:
        """When everything in flight is done."""
        return max([self.now, self.slice_until, *self.busy])


Groups = dict[tuple[int, int], deque[Waiting]]
"""Who waits, by lane and checkpoint."""


def starts(engines: Sequence[Engine], waiting: Sequence[Waiting]) -> dict[int, float]:
    """Seconds until each ticket begins, by its id; empty where there is no engine."""
    groups: Groups = {}
    for one in waiting:
        groups.setdefault((one.lane, one.checkpoint_id), deque()).append(one)
    found: dict[int, float] = {}
    while engines and groups:
        engine = min(engines, key=lambda one: one.now)
        key = _next(engine, groups)
        if key is None:
            continue  # its clock went on to when it can look again
        chosen = groups[key].popleft()
        if not groups[key]:
            del groups[key]
        _begin(engine, chosen)
        found[chosen.ticket_id] = engine.now
    return found


def _next(engine: Engine, groups: Groups) -> tuple[int, int] | None:
    """Which lane and checkpoint an engine serves now; None after its clock was set to when it can look again."""
    engine.busy = [end for end in engine.busy if end > engine.now]
    impatient = _impatient(engine, groups)
    if engine.is_idle:
        ours = [key for key in groups if impatient in (None, key[1])]
        return min(ours, key=lambda key: (key[0], key[1] != engine.checkpoint_id, -groups[key][0].waited))
    if impatient is None and len(engine.busy) < engine.max_answers:
        beside = [key for key in groups if key[1] == engine.checkpoint_id]
        if beside:
            return min(beside)
    is_full = impatient is None and len(engine.busy) >= engine.max_answers
    engine.now = min(engine.busy) if is_full else engine.free_at
    return None


def _impatient(engine: Engine, groups: Groups) -> int | None:
    """The other checkpoint that has been waited for longest, where that is as long as anybody should."""
    worst, longest = None, 0.0
    for (_, checkpoint_id), people in groups.items():
        if checkpoint_id == engine.checkpoint_id:
            continue
        waited = engine.now - max(-people[0].waited, engine.left.get(checkpoint_id, -math.inf))
        if waited > longest:
            worst, longest = checkpoint_id, waited
    drain = engine.free_at - engine.now
    return worst if longest >= max(engine.patience - drain, MIN_SHARE_OF_PATIENCE * engine.patience) else None


def _begin(engine: Engine, one: Waiting) -> None:
    if one.checkpoint_id != engine.checkpoint_id:
        if engine.checkpoint_id is not None:
            engine.left[engine.checkpoint_id] = engine.now
        engine.checkpoint_id = one.checkpoint_id
        engine.now += engine.load_seconds
    engine.busy.append(engine.now + one.seconds)
