"""Who is compared with whom: two checkpoints, or two runs at the age at which they come nearest."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Literal, NamedTuple
from urllib.parse import urlencode

from markupsafe import Markup
from sqlalchemy import select
from sqlalchemy.orm import Session

from registry import checkpoints, comparisons, runs
from registry.comparisons import Place
from registry.errors import Invalid
from registry.models import Checkpoint, Run
from registry.models.base import SCORED
from registry.models.checkpoints import label_of
from server.figures import x_text
from server.i18n import gettext
from server.render import compact, label, number, script_json

MAX_OPTIONS, MIN_OPTIONS = 480, 24
"""Checkpoints to choose from, over all runs, and of each run where there are many; others have links of their own."""
FAR = 0.1
"""Share of the larger amount by which two runs at the same age may be apart before a warning."""

At = Literal["tokens", "flops"]


@dataclass(frozen=True)
class Option:
    """A checkpoint to choose."""

    value: str
    text: str


@dataclass(frozen=True)
class OptionGroup:
    """The checkpoints of one run, the newest first; the run itself before them."""

    run: str
    options: Sequence[Option]


@dataclass(frozen=True)
class Stop:
    """An amount of tokens or FLOPs at which two runs can be compared."""

    x: float
    text: str


@dataclass(frozen=True)
class Meeting:
    """Where along their training two runs are compared."""

    at: At
    stops: Sequence[Stop]
    place: int
    """Number of the chosen stop."""
    distance: str
    """How far apart the two really are, in a sentence."""
    is_far: bool
    """So far that a difference may come from age alone."""

    @property
    def chosen(self) -> Stop:
        """The stop of this comparison."""
        return self.stops[self.place]

    @property
    def earlier(self) -> Stop | None:
        """The stop before."""
        return self.stops[self.place - 1] if self.place else None

    @property
    def later(self) -> Stop | None:
        """The stop after."""
        return self.stops[self.place + 1] if self.place + 1 < len(self.stops) else None

    @property
    def data(self) -> Markup:
        """The stops for the slider."""
        return script_json([asdict(stop) for stop in self.stops])


@dataclass(frozen=True)
class View:
    """What the address of the page asks for."""

    a: str
    b: str
    at: At = "tokens"
    x: float | None = None
    mixed: bool = False

    @property
    def is_of_runs(self) -> bool:
        """Whether a run stands where a checkpoint could."""
        return any(name and "@" not in name for name in (self.a, self.b))

    @property
    def x_text(self) -> str:
        """The amount as it stands in the address."""
        return "" if self.x is None else f"{self.x:.12g}"

    @property
    def swapped(self) -> "View":
        """With the sides exchanged."""
        return replace(self, a=self.b, b=self.a)

    def with_at(self, at: At) -> "View":
        """By the other measure of age."""
        return replace(self, at=at, x=None)

    def with_x(self, x: float) -> "View":
        """At another age."""
        return replace(self, x=x)

    @property
    def all_the_same(self) -> "View":
        """With the tasks that were measured in different ways."""
        return replace(self, mixed=True)

    @property
    def href(self) -> str:
        """Its address, without what need not be said."""
        asked = {"a": self.a, "b": self.b}
        if self.is_of_runs:
            asked |= {"at": self.at} | ({"x": self.x_text} if self.x is not None else {})
        return f"/compare?{urlencode(asked | ({'mixed': 'true'} if self.mixed else {}), safe='@')}"


class Sides(NamedTuple):
    """The two checkpoints, and how they were found where runs were named."""

    before: Checkpoint
    after: Checkpoint
    meeting: Meeting | None

    @property
    def is_growth(self) -> bool:
        """Whether the second is an older self of the first, so that it learned and forgot."""
        return self.before.run_id == self.after.run_id and self.before.step < self.after.step


def option_groups(session: Session) -> list[OptionGroup]:
    """Every run with its checkpoints; of a long run, evenly spaced ones."""
    query = (
        select(Run.name, Checkpoint.step, Checkpoint.kind, Checkpoint.precision, Checkpoint.tokens_seen)
        .join(Run, Run.id == Checkpoint.run_id)
        .where(Checkpoint.state.in_(SCORED))
        .order_by(Run.id.desc(), Checkpoint.step.desc(), Checkpoint.kind, Checkpoint.precision.desc())
    )
    by_run: dict[str, list[Option]] = {}
    for run, step, kind, precision, tokens in session.execute(query):
        words = [gettext("step %(step)s", step=number(step))]
        words += [label(kind)] if kind != "pretrained" else []
        words += [gettext("%(bits)s bit", bits=precision)] if precision != 16 else []
        words += [gettext("%(count)s tokens", count=compact(tokens))] if tokens else []
        by_run.setdefault(run, []).append(Option(label_of(run, step, kind, precision), " · ".join(words)))
    limit = max(MIN_OPTIONS, MAX_OPTIONS // max(1, len(by_run)))
    return [OptionGroup(run, _thinned(options, limit)) for run, options in by_run.items()]


def _thinned(options: Sequence[Option], limit: int) -> Sequence[Option]:
    stride = -(-len(options) // limit)
    return [*options[:-1:stride], options[-1]] if stride > 1 else options


def find(session: Session, view: View) -> Sides:
    """The checkpoints that the two sides name; of a run the one that is as old as the other side.

    Raises:
        NotFound: a run or step does not exist; with those that do.
        Invalid: a run has no checkpoint at any known amount, or both labels come to the same checkpoint.
    """
    first, second = _named(session, view.a), _named(session, view.b)
    meeting = None
    if isinstance(first, Run) or isinstance(second, Run):
        stops = comparisons.meetings(_places(session, first, view.at), _places(session, second, view.at))
        if not stops:
            raise Invalid(
                "%(a)s and %(b)s cannot be brought to the same age: one of them has no checkpoint that says how much "
                "it has seen. Choose two checkpoints.",
                a=view.a,
                b=view.b,
            )
        place = _stop_at(stops, view.x)
        one, other = stops[place]
        first, second = (checkpoints.get_by_id(session, found.checkpoint_id) for found in (one, other))
        told = [Stop(pair[0].amount, _stop_text(view.at, pair)) for pair in stops]
        meeting = Meeting(view.at, told, place, _distance(view.at, one, other), _gap(one, other) > FAR)
    if first is second:
        raise Invalid(
            "Both sides are %(checkpoint)s: choose another checkpoint for one of them.", checkpoint=first.label
        )
    return Sides(first, second, meeting)


def _named(session: Session, name: str) -> Run | Checkpoint:
    return checkpoints.by_label(session, name) if "@" in name else runs.get_run(session, name)


def _places(session: Session, named: Run | Checkpoint, at: At) -> list[Place]:
    if isinstance(named, Run):
        return comparisons.places(session, named, at)
    amount = named.flops if at == "flops" else named.tokens_seen
    return [] if amount is None else [Place(named.id, named.step, float(amount))]


def _stop_at(stops: Sequence[tuple[Place, Place]], x: float | None) -> int:
    """The stop nearest to `x`, or the last one."""
    if x is None:
        return len(stops) - 1
    return min(range(len(stops)), key=lambda place: abs(stops[place][0].amount - x))


def _stop_text(at: At, pair: tuple[Place, Place]) -> str:
    return gettext(
        "%(amount)s: step %(one)s and step %(other)s",
        amount=x_text(at, pair[0].amount),
        one=number(pair[0].step),
        other=number(pair[1].step),
    )


def _distance(at: At, one: Place, other: Place) -> str:
    gap = abs(one.amount - other.amount)
    if not gap:
        return gettext("Both have seen exactly as much.")
    return gettext(
        "A is at %(a)s, B at %(b)s: no nearer two checkpoints exist. They are %(gap)s apart (%(percent)s%%).",
        a=x_text(at, one.amount),
        b=x_text(at, other.amount),
        gap=x_text(at, gap),
        percent=number(100 * _gap(one, other), 1),
    )


def _gap(one: Place, other: Place) -> float:
    """How far apart two amounts are, as a share of the larger."""
    return abs(one.amount - other.amount) / (max(one.amount, other.amount) or 1.0)
