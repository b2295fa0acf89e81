"""Curves as what the chart element draws: plain numbers and ready-made words; `server.curves` makes those of growth.

The browser draws; what is said about the numbers, in two languages, is decided here.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from markupsafe import Markup

from server import i18n
from server.figures import VERDICT_MARKS
from server.i18n import gettext
from server.render import label, script_json

TABLE_ROWS = 60

ABILITIES = ("chinese", "english", "code", "maths", "reasoning", "knowledge")


@dataclass(frozen=True)
class Dot:
    """One point of a curve; the words are what the table and the tooltip show."""

    x: float
    y: float | None
    """None where the evaluation failed: a gap, and `failed` says why."""
    low: float | None
    high: float | None
    x_text: str
    y_text: str
    range_text: str
    n: int | None = None
    step: int | None = None
    href: str = ""
    tokens_text: str = ""
    evaluation_href: str = ""
    line: int = 0
    """Which of `Chart.lines` it is on."""
    after_gap: bool = False
    """A failure lies between it and the point before, so the two are not joined."""
    verdict: str = ""
    """`gain`, `loss`, `within noise`; empty for the first of a line."""
    imported: bool = False
    failed: str = ""
    warned: bool = False
    """Its checkpoint carries a warning."""

    @property
    def verdict_mark(self) -> str:
        """The shape of its verdict."""
        return VERDICT_MARKS.get(self.verdict, "")


@dataclass(frozen=True)
class Line:
    """The points under one protocol."""

    num_points: int
    summary: str = ""
    """The protocol in a few words."""
    differs: str = ""
    """In what an earlier protocol differs from the latest; empty for the latest itself."""
    is_loose: bool = False
    """Too few points to be joined."""


@dataclass(frozen=True)
class Chart:
    """A curve with everything that is written around it."""

    key: str
    """The task's name or the scalar's key; stands in the element's id and address."""
    title: str
    colour: str
    """Name of a colour of css/tokens.css."""
    metric_name: str
    x_name: str
    src: str
    """Address of this chart's own fragment."""
    live: str
    """Board events after which the fragment is asked for again."""
    dots: Sequence[Dot] = ()
    """By x, of every line."""
    lines: Sequence[Line] = (Line(0),)
    """The one of the latest protocol at the end."""
    percent: bool = False
    is_whole: bool = False
    """Its axis says all digits: 1020, not 1.02K."""
    chance: float | None = None
    chance_text: str = ""
    higher_is_better: bool | None = None
    """None where neither is: a learning rate."""
    change_text: str = ""
    improved: bool | None = None
    band: str = ""
    """What the band around the line is; empty where there is none."""
    x_axis: str = "tokens"
    words: dict[str, str] = field(default_factory=dict)

    @property
    def element_id(self) -> str:
        """Safe in HTML and CSS."""
        return element_id(self.key)

    @property
    def current(self) -> Sequence[Dot]:
        """The scores under the latest protocol."""
        return [dot for dot in self.dots if dot.line == len(self.lines) - 1 and dot.y is not None]

    @property
    def table(self) -> Sequence[Dot]:
        """The points for the table under the chart, the newest first; a long training curve is thinned."""
        stride = -(-len(self.dots) // TABLE_ROWS) or 1
        return self.dots[::-1][::stride]

    @property
    def latest(self) -> Dot | None:
        """The newest score of the latest line."""
        return self.current[-1] if self.current else None

    @property
    def has_verdicts(self) -> bool:
        """Whether any step was judged."""
        return any(dot.verdict for dot in self.dots)

    @property
    def data(self) -> Markup:
        """JSON for the chart element."""
        content = asdict(self) | {"dots": [_lean(asdict(dot)) for dot in self.dots], "lang": i18n.current()}
        return script_json(content)


def element_id(key: str) -> str:
    """Of the chart of a task or scalar, safe in HTML and CSS."""
    return "chart-" + "".join(c if c.isalnum() or c in "-_" else "-" for c in key)


def change_of(dots: Sequence[Dot]) -> float | None:
    """From the first score of a line to its last."""
    if len(dots) < 2 or dots[0].y is None or dots[-1].y is None:
        return None
    return dots[-1].y - dots[0].y


def _lean(dot: dict[str, Any]) -> dict[str, Any]:
    """Without what is empty: a page has thousands of points."""
    return {name: value for name, value in dot.items() if value is not None and value is not False and value != ""}


def words() -> dict[str, str]:
    """What the chart element says itself."""
    return {
        "items": gettext("items"),
        "open": gettext("Click to open this checkpoint"),
        "checkpoint": gettext("The checkpoint"),
        "answers": gettext("Its answers"),
        "earlier": gettext("earlier protocol"),
        "imported": gettext("imported"),
        "failed": gettext("failed"),
        "warned": gettext("its checkpoint has a warning"),
        **{verdict: label(verdict) for verdict in VERDICT_MARKS},
    }
