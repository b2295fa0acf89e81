"""Which checkpoints can be asked together, and which of them a film shows."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from sqlalchemy.orm import Session

from registry import ages, checkpoints
from registry.models import Checkpoint, Run
from server import knobs
from server.i18n import gettext
from server.render import label


@dataclass(frozen=True)
class Series:
    """Checkpoints that differ by age alone: of one run, kind and precision, the youngest first."""

    run: Run
    kind: str
    precision: int
    checkpoints: Sequence[Checkpoint]

    @property
    def key(self) -> str:
        """As it stands in a form."""
        return f"{self.run.name}:{self.kind}:{self.precision}"

    @property
    def text(self) -> str:
        """As people read it."""
        bits = gettext("%(bits)s bit", bits=self.precision) if self.precision != 16 else ""
        return " · ".join(part for part in (self.run.name, label(self.kind), bits) if part)

    @property
    def num_milestones(self) -> int:
        """How many got the full suites."""
        return sum(one.is_milestone for one in self.checkpoints)


@dataclass(frozen=True)
class Choice:
    """What the form of a film says about its frames."""

    series: Series | None
    how: str = ages.SPREAD
    count: int = 10
    steps: Sequence[int] = ()

    @property
    def checkpoints(self) -> list[Checkpoint]:
        """Those that are asked."""
        return ages.choose(self.series.checkpoints, self.how, self.count, self.steps) if self.series else []


def address_of(one: Checkpoint) -> str:
    """Where a checkpoint's own page is."""
    address = f"/runs/{one.run.name}/checkpoints/{one.step}"
    is_plain = one.kind == "pretrained" and one.precision == 16
    return address if is_plain else f"{address}?kind={one.kind}&precision={one.precision}"


def all_series(session: Session, run: Run | None = None) -> list[Series]:
    """Everything that can be asked, or that of one run; the newest run first, base models before chat models."""
    ready = sorted(
        checkpoints.list_checkpoints(session, run),
        key=lambda one: (-one.run_id, one.kind == knobs.CHAT, one.kind, -one.precision, one.step),
    )
    return [
        Series(found[0].run, found[0].kind, found[0].precision, found)
        for _, members in groupby(ready, key=lambda one: (one.run_id, one.kind, one.precision))
        if (found := list(members))
    ]


def find_series(known: Sequence[Series], key: str) -> Series | None:
    """That of a key; of a run's name, the one with most ages; the first one for an empty key."""
    for one in known:
        if key in ("", one.key):
            return one
    own = [one for one in known if one.run.name == key]
    return max(own, key=lambda one: len(one.checkpoints)) if own else None


def series_of(known: Sequence[Series], checkpoint: Checkpoint) -> Series | None:
    """That which a checkpoint is one of."""
    return next((one for one in known if checkpoint.id in {age.id for age in one.checkpoints}), None)


def ends(known: Sequence[Series], chosen: Checkpoint | None = None) -> list[str]:
    """Labels to begin with side by side: the chosen one, and the first, the middle and the newest of its series."""
    series = series_of(known, chosen) if chosen is not None else (known[0] if known else None)
    own = series.checkpoints if series is not None else []
    found = [own[place] for place in sorted({0, len(own) // 2, len(own) - 1})] if own else []
    first = [chosen] if chosen is not None else []
    labels = [one.label for one in [*first, *found]]
    return list(dict.fromkeys(labels))[: ages.MAX_COLUMNS]
