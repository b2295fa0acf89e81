"""What quantization costs, as pages tell it: the forms of a checkpoint, and curves with a sentence on their trend."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy.orm import Session

from analysis.quantization import Trend
from registry import quantizations, quantloss
from registry.models import Checkpoint, Job, Run
from registry.models.base import READY
from registry.quantized import PLAIN_BITS
from registry.quantloss import BITS, SHARE, Line, Loss
from server.charts import Chart, Dot, words
from server.charts import Line as ChartLine
from server.figures import change_range_text, change_text, is_share, metric_name, p_text, task_title, x_text
from server.growth import checkpoint_href
from server.i18n import N_, gettext
from server.render import number

METRIC_OF_FAMILY = {SHARE: "acc", BITS: "bits_per_byte"}
"""How an average is written: in points, or in bits per byte."""
SENTENCES = {
    "grows": N_("Quantization costs more the more the model has learned: %(slope)s with every tenfold of tokens"),
    "shrinks": N_("Quantization costs less the more the model has learned: %(slope)s with every tenfold of tokens"),
    "unclear": N_(
        "Whether the cost changes with training cannot be told from noise: %(slope)s with every tenfold of tokens"
    ),
}
COLOURS = {8: "maths", 4: "reasoning"}


@dataclass(frozen=True)
class Told:
    """A difference in words."""

    name: str
    text: str
    range: str


@dataclass(frozen=True)
class Precision:
    """One form of a checkpoint on its page."""

    bits: int
    checkpoint: Checkpoint | None
    href: str
    is_here: bool
    job: Job | None
    """What makes it, or failed to; None once it is there."""
    losses: Sequence[Told]
    """On average over the panel, against 16 bit."""


@dataclass(frozen=True)
class Figure:
    """A curve and what can be said of its trend."""

    chart: Chart
    sentence: str


@dataclass(frozen=True)
class Choice:
    """A task whose curve can be shown; empty for the average."""

    value: str
    text: str


def precisions_of(session: Session, checkpoint: Checkpoint) -> list[Precision]:
    """Every form of a checkpoint, itself included, 16 bits first; empty where there is and was no other."""
    plain = checkpoint if checkpoint.precision == PLAIN_BITS else quantizations.parent_of(session, checkpoint)
    if plain is None:
        return []
    forms = quantizations.forms(session, plain)
    if not forms:
        return []
    own = Precision(PLAIN_BITS, plain, checkpoint_href(plain), plain is checkpoint, None, [])
    return [own, *(_precision(session, form, checkpoint) for form in forms)]


def _precision(session: Session, form: quantizations.Form, shown: Checkpoint) -> Precision:
    made = form.checkpoint
    is_there = made is not None and made.state == READY
    loss = quantloss.of_checkpoint(session, made) if made is not None and is_there else None
    return Precision(
        bits=form.bits,
        checkpoint=made,
        href=checkpoint_href(made) if made else "",
        is_here=made is shown,
        job=None if is_there else form.job,
        losses=_told(loss) if loss else [],
    )


def _told(loss: Loss) -> list[Told]:
    return [
        Told(_family_name(family), cost_text(metric, one.value), change_range_text(metric, one.low, one.high))
        for family, one in loss.averages.items()
        for metric in [METRIC_OF_FAMILY[family]]
    ]


def choices(losses: Sequence[Loss]) -> list[Choice]:
    """What the curves can be of."""
    return [
        Choice("", gettext("Average of the panel")),
        *(Choice(task.name, task_title(task)) for task in quantloss.tasks_of(losses)),
    ]


def figures_of(run: Run, losses: Sequence[Loss], task: str) -> list[Figure]:
    """A chart a precision and metric, of one task or, with an empty name, of the panel's averages."""
    lines = quantloss.task_lines(losses, task) if task else quantloss.average_lines(losses)
    return [Figure(_chart(run, line, task), trend_sentence(line)) for line in lines]


def _chart(run: Run, line: Line, task: str) -> Chart:
    metric = METRIC_OF_FAMILY.get(line.metric, line.metric)
    dots = [_dot(line, metric, at) for at, point in enumerate(line.points) if point.checkpoint.tokens_seen is not None]
    return Chart(
        key=f"quantization-{line.bits}-{line.metric}",
        title=gettext("%(bits)s bit", bits=line.bits),
        colour=COLOURS.get(line.bits, "accent"),
        metric_name=gettext("%(metric)s lost against 16 bit", metric=_lost_name(line, metric, task)),
        x_name=gettext("tokens"),
        src=f"/runs/{run.name}/quantization",
        live="",
        dots=dots,
        lines=[ChartLine(len(dots))],
        percent=is_share(metric),
        chance=0.0,
        chance_text=gettext("as good as 16 bit"),
        higher_is_better=False,
        band=gettext("95%% interval"),
        words=words() | {"items": gettext("items") if task else gettext("tasks")},
    )


def _dot(line: Line, metric: str, at: int) -> Dot:
    point = line.points[at]
    checkpoint = point.checkpoint
    return Dot(
        x=float(checkpoint.tokens_seen or 0),
        y=round(point.value, 6),
        low=None if point.low is None else round(point.low, 6),
        high=None if point.high is None else round(point.high, 6),
        x_text=x_text("tokens", float(checkpoint.tokens_seen or 0)),
        y_text=cost_text(metric, point.value),
        range_text=change_range_text(metric, point.low, point.high),
        n=point.n,
        step=checkpoint.step,
        href=checkpoint_href(checkpoint),
        evaluation_href=f"/evaluations/{point.evaluation_id}" if point.evaluation_id else "",
    )


def trend_sentence(line: Line) -> str:
    """Whether the cost grows with training, with the interval of its slope; honest where nobody can tell."""
    metric = METRIC_OF_FAMILY.get(line.metric, line.metric)
    if line.trend is None:
        return gettext("Too few checkpoints to say whether the cost changes with training: it takes three.")
    slope = cost_text(metric, line.trend.slope)
    return gettext(SENTENCES[line.trend.direction], slope=slope) + " " + _interval(metric, line.trend)


def _interval(metric: str, trend: Trend) -> str:
    return gettext(
        "(95%% interval %(interval)s, %(p)s, %(num)s checkpoints).",
        interval=change_range_text(metric, trend.low, trend.high),
        p=p_text(trend.p_value),
        num=number(trend.num_points),
    )


def cost_text(metric: str, value: float) -> str:
    """A cost with its sign: positive is worse."""
    return change_text(metric, value)


def _family_name(family: str) -> str:
    return gettext("accuracy") if family == SHARE else gettext("bits per byte")


def _lost_name(line: Line, metric: str, task: str) -> str:
    return metric_name(metric) if task else _family_name(line.metric)
