"""Metrics, tasks and their numbers as pages write them, in two languages."""

from registry.models import Task
from registry.suites import SHARES
from server import i18n
from server.i18n import N_, gettext
from server.render import compact, duration, number

METRICS = {
    "acc": N_("accuracy"),
    "acc_norm": N_("accuracy, by characters"),
    "acc_bytes": N_("accuracy, by bytes"),
    "acc_per_token": N_("accuracy, by tokens"),
    "exact_match": N_("exact matches"),
    "f1": N_("F1"),
    "prob": N_("probability of the right answer"),
    "bits_per_byte": N_("bits per byte"),
    "perplexity": N_("perplexity"),
    "word_perplexity": N_("perplexity per word"),
    "byte_perplexity": N_("perplexity per byte"),
    "brier_score": N_("Brier score"),
    "pass_at_1": N_("programs that pass"),
    "pass@1": N_("programs that pass"),
    "train/loss": N_("Training loss"),
    "train/learning_rate": N_("Learning rate"),
    "train/grad_norm": N_("Gradient norm"),
    "train/tokens_per_second": N_("Throughput, tokens/s"),
    "heldout/loss_zh": N_("Held-out loss, Chinese"),
    "heldout/loss_en": N_("Held-out loss, English"),
    "heldout/loss_code": N_("Held-out loss, code"),
    "data/tokens_zh": N_("Tokens read, Chinese"),
    "data/tokens_en": N_("Tokens read, English"),
    "data/tokens_code": N_("Tokens read, code"),
}
VERDICT_MARKS = {"gain": "▲", "loss": "▼", "within noise": "●"}
"""A shape for each verdict, so that none is told by its colour alone."""


def is_share(metric: str) -> bool:
    """Whether it is written in per cent; lm-eval puts the name of a filter behind a comma."""
    return metric.partition(",")[0] in SHARES


def task_title(task: Task) -> str:
    """Its title in the visitor's language."""
    return (task.title_zh or task.title) if i18n.current() == "zh" else task.title


def metric_name(metric: str) -> str:
    """What a metric or scalar is called."""
    name, _, filtered_by = metric.partition(",")
    known = gettext(METRICS[name]) if name in METRICS else name
    return f"{known} ({filtered_by})" if filtered_by else known


def value_text(metric: str, value: float | None) -> str:
    """`34.2%`, `1.573`, or what suits the size of the number."""
    if value is None:
        return "–"
    if is_share(metric):
        return f"{number(100 * value, 1)}%"
    if metric.endswith("learning_rate"):
        return f"{value:.2e}"
    return number(value, 3) if abs(value) < 100 else number(value)


def range_text(metric: str, low: float | None, high: float | None) -> str:
    """An interval as its two ends; empty where it is not known."""
    return "" if low is None or high is None else f"{value_text(metric, low)} – {value_text(metric, high)}"


def change_text(metric: str, change: float | None) -> str:
    """A change with its sign, `+2.3 points` for shares; empty where there is none to tell."""
    if change is None:
        return ""
    signed = _signed(metric, change)
    return gettext("%(num)s points", num=signed) if is_share(metric) else signed


def change_range_text(metric: str, low: float | None, high: float | None) -> str:
    """The interval of a change as its two ends with their signs: `+0.4 … +4.2`; empty where it is not known."""
    if low is None or high is None:
        return ""
    return f"{_signed(metric, low)} … {_signed(metric, high)}"


def p_text(p_value: float | None) -> str:
    """A p-value as papers write it; empty where nothing was tested."""
    if p_value is None:
        return ""
    return "p < 0.001" if p_value < 0.001 else f"p = {p_value:.3f}" if p_value < 0.1 else f"p = {p_value:.2f}"


def x_text(x: str, value: float) -> str:
    """A position on the x-axis in words."""
    if x == "tokens":
        return gettext("%(count)s tokens", count=compact(value))
    if x == "step":
        return gettext("step %(step)s", step=number(value))
    if x == "flops":
        return f"{value:.2e} FLOPs"
    return gettext("after %(time)s", time=duration(value))


def _signed(metric: str, change: float) -> str:
    """A change in points or in the metric's own unit; what rounds to nothing has no sign."""
    size = number(abs(100 * change), 1) if is_share(metric) else number(abs(change), 3)
    return size if not float(size.replace(",", "")) else ("+" if change > 0 else "−") + size
