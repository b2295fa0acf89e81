"""Growth curves and training curves as what the chart element draws: plain numbers and ready-made words.

The browser draws; what is said about the numbers, in two languages, is decided here.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

from markupsafe import Markup

from registry.evaluations import Series
from registry.models import Run, Task
from registry.runs import MetricSpan
from server import i18n
from server.i18n import N_, gettext
from server.render import compact, duration, label, number

TABLE_ROWS = 60
SPARKLINE_POINTS = 60

METRICS = {
    "acc": N_("accuracy"),
    "acc_norm": N_("accuracy, length-normalized"),
    "exact_match": N_("exact matches"),
    "bits_per_byte": N_("bits per byte"),
    "word_perplexity": N_("perplexity per word"),
    "byte_perplexity": N_("perplexity per byte"),
    "brier": N_("Brier score"),
    "train/loss": N_("Training loss"),
    "train/learning_rate": N_("Learning rate"),
    "train/grad_norm": N_("Gradient norm"),
    "train/tokens_per_second": N_("Throughput, tokens/s"),
    "heldout/loss_zh": N_("Held-out loss, Chinese"),
    "heldout/loss_en": N_("Held-out loss, English"),
    "heldout/loss_code": N_("Held-out loss, code"),
}
SHARES = frozenset({"acc", "acc_norm", "exact_match", "prob", "f1"})
"""Metrics between 0 and 1 that read best in per cent."""
TRAINING_COLOURS = {
    "heldout/loss_zh": "chinese",
    "heldout/loss_en": "english",
    "heldout/loss_code": "code",
    "train/loss": "accent",
}
ABILITIES = ("chinese", "english", "code", "maths", "reasoning", "knowledge")


@dataclass(frozen=True)
class Dot:
    """One point of a curve; the words are what the table and the tooltip show."""

    x: float
    y: float
    low: float | None
    high: float | None
    x_text: str
    y_text: str
    range_text: str
    n: int | None = None
    step: int | None = None
    href: str = ""


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
    percent: bool = False
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
        return "chart-" + "".join(c if c.isalnum() or c in "-_" else "-" for c in self.key)

    @property
    def sparkline(self) -> str:
        """The curve as points of an SVG polyline in a box of 100 by 24, the newest at the right edge."""
        if len(self.dots) < 2:
            return ""
        stride = -(-len(self.dots) // SPARKLINE_POINTS)
        dots = [*self.dots[:-1:stride], self.dots[-1]]
        xs, ys = [dot.x for dot in dots], [dot.y for dot in dots]
        wide, high = max(xs) - min(xs) or 1.0, max(ys) - min(ys) or 1.0
        points = ((100 * (x - min(xs)) / wide, 22 - 20 * (y - min(ys)) / high) for x, y in zip(xs, ys, strict=True))
        return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)

    @property
    def clarity(self) -> float:
        """How many intervals wide the change since the first point is: the chart worth showing first has most."""
        if len(self.dots) < 2:
            return 0.0
        first, last = self.dots[0], self.dots[-1]
        widths = [dot.high - dot.low for dot in (first, last) if dot.high is not None and dot.low is not None]
        return abs(last.y - first.y) / (max(widths, default=0.0) or 1.0) if self.improved else 0.0

    @property
    def table(self) -> Sequence[Dot]:
        """The points for the table under the chart, the newest first; a long training curve is thinned."""
        stride = -(-len(self.dots) // TABLE_ROWS) or 1
        return self.dots[::-1][::stride]

    @property
    def latest(self) -> Dot | None:
        """The newest point."""
        return self.dots[-1] if self.dots else None

    @property
    def data(self) -> Markup:
        """JSON for the chart element; `<` is escaped, so no text of ours can end the script tag."""
        content = asdict(self) | {"dots": [asdict(dot) for dot in self.dots], "lang": i18n.current()}
        return Markup(json.dumps(content, ensure_ascii=False).replace("<", "\\u003c"))


def task_title(task: Task) -> str:
    """Its title in the visitor's language."""
    return (task.title_zh or task.title) if i18n.current() == "zh" else task.title


def metric_name(metric: str) -> str:
    """What a metric or scalar is called."""
    return gettext(METRICS[metric]) if metric in METRICS else metric


def value_text(metric: str, value: float | None) -> str:
    """`34.2%`, `1.573`, or what suits the size of the number."""
    if value is None:
        return "–"
    if metric in SHARES:
        return f"{number(100 * value, 1)}%"
    if metric.endswith("learning_rate"):
        return f"{value:.2e}"
    return number(value, 3) if abs(value) < 100 else number(value)


def x_text(x: str, value: float) -> str:
    """A position on the x-axis in words."""
    if x == "tokens":
        return gettext("%(count)s tokens", count=compact(value))
    if x == "step":
        return gettext("step %(step)s", step=number(value))
    if x == "flops":
        return f"{value:.2e} FLOPs"
    return gettext("after %(time)s", time=duration(value))


def growth_chart(series: Series) -> Chart:
    """The growth of one ability over the checkpoints of a run, with its 95% interval."""
    task, metric, run = series.task, series.metric, series.run
    dots = [
        Dot(
            x=point.x,
            y=point.value,
            low=point.low,
            high=point.high,
            x_text=x_text(series.x, point.x),
            y_text=value_text(metric, point.value),
            range_text=range_text(metric, point.low, point.high),
            n=point.n,
            step=point.step,
            href=f"/runs/{run}/checkpoints/{point.step}",
        )
        for point in series.points
    ]
    headline = metric == task.metric
    chance = task.chance if headline else None
    change = dots[-1].y - dots[0].y if len(dots) > 1 else None
    return Chart(
        key=task.name,
        title=task_title(task),
        colour=task.ability if task.ability in ABILITIES else "accent",
        metric_name=metric_name(metric),
        x_name=label(series.x),
        src=f"/runs/{run}/charts/{task.name}?x={series.x}" + ("" if headline else f"&metric={metric}"),
        live=f"evaluation:{run}:{task.name}",
        dots=dots,
        percent=metric in SHARES,
        chance=chance,
        chance_text=gettext("guessing: %(value)s", value=value_text(metric, chance)) if chance is not None else "",
        higher_is_better=task.higher_is_better if headline else None,
        change_text=change_text(metric, change),
        improved=None if change is None or change == 0 or not headline else (change > 0) == task.higher_is_better,
        band=gettext("95%% interval") if any(dot.low is not None for dot in dots) else "",
        x_axis=series.x,
        words=_words(),
    )


def training_chart(run: Run, key: str, spans: Sequence[MetricSpan], x: str) -> Chart:
    """A scalar of the training; the band goes from the least to the greatest value within each span of steps."""
    axis = x if x in ("step", "time") else "tokens"
    dots = [_training_dot(run, key, axis, span) for span in spans]
    return Chart(
        key=key,
        title=metric_name(key),
        colour=TRAINING_COLOURS.get(key, "knowledge"),
        metric_name="",
        x_name=label(axis),
        src=f"/runs/{run.name}/scalars/{key}?x={x}",
        live=f"metrics:{run.name}",
        dots=dots,
        change_text="",
        band=gettext("lowest to highest") if any(span.n > 1 for span in spans) else "",
        x_axis=axis,
        words=_words(),
    )


def _training_dot(run: Run, key: str, axis: str, span: MetricSpan) -> Dot:
    x = {
        "step": float(span.step),
        "tokens": float(span.tokens_seen),
        "time": (span.created_at - run.created_at).total_seconds(),
    }[axis]
    low, high = (span.low, span.high) if span.n > 1 else (None, None)
    return Dot(
        x=x,
        y=span.mean,
        low=low,
        high=high,
        x_text=x_text(axis, x),
        y_text=value_text(key, span.mean),
        range_text=range_text(key, low, high),
        step=span.step,
    )


def range_text(metric: str, low: float | None, high: float | None) -> str:
    """An interval as its two ends; empty where it is not known."""
    return "" if low is None or high is None else f"{value_text(metric, low)} – {value_text(metric, high)}"


def change_text(metric: str, change: float | None) -> str:
    """A change with its sign, `+2.3 points` for shares; empty where there is none to tell."""
    if change is None:
        return ""
    sign = "+" if change >= 0 else "−"
    return sign + (
        gettext("%(num)s points", num=number(abs(100 * change), 1)) if metric in SHARES else number(abs(change), 3)
    )


def _words() -> dict[str, str]:
    return {"items": gettext("items"), "open": gettext("Click to open this checkpoint")}
