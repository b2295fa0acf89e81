"""The curves of the front page in small: read as columns, so a thousand checkpoints cost no more to show than ten."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sqlalchemy.orm import Session

from registry import growth, suites
from registry.growth import Curve, Line
from registry.models import Run
from server import gallery
from server.charts import ABILITIES, element_id
from server.figures import change_text, metric_name, task_title, value_text

NUM_POINTS = 60
"""More would not be seen at this size."""


@dataclass(frozen=True)
class Sparkline:
    """A task's curve under the protocol used last."""

    run: str
    key: str
    """Name of the task."""
    title: str
    colour: str
    """Name of a colour of css/tokens.css."""
    metric: str
    chance: float | None
    higher_is_better: bool
    line: Line | None
    """None before the first score."""

    @property
    def element_id(self) -> str:
        """Of the large chart, here and on the run's page."""
        return element_id(self.key)

    @property
    def src(self) -> str:
        """Address of the large chart."""
        return f"/runs/{self.run}/charts/{self.key}?x=tokens"

    @property
    def metric_name(self) -> str:
        """What the metric is called."""
        return metric_name(self.metric)

    @property
    def change(self) -> float | None:
        """From the first score to the last; None where there are not two."""
        if self.line is None or self.line.value.size < 2:
            return None
        return float(self.line.value[-1] - self.line.value[0])

    @property
    def change_text(self) -> str:
        """The change with its sign."""
        return change_text(self.metric, self.change)

    @property
    def latest_text(self) -> str:
        """The newest score."""
        return value_text(self.metric, float(self.line.value[-1]) if self.line is not None else None)

    @property
    def improved(self) -> bool | None:
        """Whether the change is for the better; None where there is none."""
        return (self.change > 0) == self.higher_is_better if self.change else None

    @property
    def points(self) -> str:
        """An SVG polyline in a box of 100 by 24, the newest score at the right edge."""
        if self.line is None or self.line.value.size < 2:
            return ""
        last = self.line.value.size - 1
        chosen = np.append(np.arange(0, last, -(-(last + 1) // NUM_POINTS)), last)
        x, y = self.line.x[chosen], self.line.value[chosen]
        right = 100 * (x - x.min()) / (np.ptp(x) or 1.0)
        down = 22 - 20 * (y - y.min()) / (np.ptp(y) or 1.0)
        return " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(right.tolist(), down.tolist(), strict=True))

    @property
    def clarity(self) -> float:
        """How many intervals wide the change for the better is: the curve worth showing first has most."""
        if not self.improved or self.line is None or self.change is None:
            return 0.0
        widths = (self.line.high - self.line.low)[[0, -1]]
        return abs(self.change) / (float(np.nan_to_num(widths).max()) or 1.0)


def of_panel(session: Session, run: Run) -> list[Sparkline]:
    """The curves of what every checkpoint is asked, in the order of the growth page.

    A milestone's suites would bury them.
    """
    shelves = [shelf for ability in gallery.abilities(session, run) for shelf in ability.shelves if shelf.is_panel]
    names = [card.task for shelf in shelves for card in shelf.cards]
    found = growth.growth_curves(session, run, suites.get_tasks(session, names))
    return [_sparkline(run, curve) for curve in found]


def has_scores(found: Sequence[Sparkline]) -> bool:
    """Whether any curve has begun."""
    return any(one.line is not None for one in found)


def _sparkline(run: Run, curve: Curve) -> Sparkline:
    task = curve.task
    return Sparkline(
        run=run.name,
        key=task.name,
        title=task_title(task),
        colour=task.ability if task.ability in ABILITIES else "accent",
        metric=curve.metric,
        chance=task.chance,
        higher_is_better=task.higher_is_better,
        line=curve.lines[-1] if curve.lines else None,
    )
