"""The training of a run as charts: its own curve, what was superseded, branches beside it, and incidents.

A run that goes on from a step of another is drawn with what it comes from: the parent's curve up to that
step is part of its own. What a rewind gave up is kept, in grey; other runs of the family are branches.
"""

import datetime as dt
import math
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from sqlalchemy.orm import Session

from registry import news, runs
from registry.models import Post, Run
from registry.runs import EVERYTHING, Branch, MetricSpan, Spans, Window
from server.figures import metric_name, value_text, x_text
from server.i18n import N_, gettext
from server.render import label

MAX_SPANS = 400
"""Points of a curve; between them the lowest and highest value are kept."""
TABLE_ROWS = 60
FAMILIES_KEPT = 32
"""Views of a training page that are kept ready."""
LANGUAGES = {"zh": "chinese", "en": "english", "code": "code"}
READ = "data/tokens_"
"""Tokens of a language since the last point."""
COLOURS = {
    "heldout/loss_zh": "chinese",
    "heldout/loss_en": "english",
    "heldout/loss_code": "code",
    "train/loss": "ink",
}
BRANCH_COLOURS = ("reasoning", "maths", "warm")
OTHER_COLOURS = ("english", "reasoning", "maths", "chinese", "code", "knowledge")

Role = Literal["own", "superseded", "branch"]
Axis = Literal["tokens", "step", "time"]


@dataclass(frozen=True)
class Trace:
    """One line of a chart, as columns."""

    key: str
    name: str
    role: Role
    colour: str
    """Name of a colour of css/tokens.css."""
    run: str
    step: Sequence[int]
    tokens: Sequence[int]
    time: Sequence[float]
    """Seconds since the first run of the family began."""
    y: Sequence[float]
    low: Sequence[float] = ()
    """Lowest value that each point stands for; empty where every point is one value."""
    high: Sequence[float] = ()

    @property
    def id(self) -> str:
        """What it is hidden by; all that is superseded is hidden together."""
        return "superseded" if self.role == "superseded" else f"{self.role} {self.key} {self.run}"


@dataclass(frozen=True)
class TableRow:
    """What was measured at one step, by the table's columns."""

    x_text: str
    values: Sequence[str]


@dataclass(frozen=True)
class Panel:
    """One chart."""

    key: str
    title: str
    sentence: str
    """What it shows, for somebody who sees such a chart for the first time."""
    form: Literal["number", "rate", "share"]
    """How its values are written."""
    is_stacked: bool
    traces: Sequence[Trace]

    @property
    def element_id(self) -> str:
        """Safe in HTML and CSS."""
        return "panel-" + "".join(c if c.isalnum() or c in "-_" else "-" for c in self.key)

    @property
    def own(self) -> list[Trace]:
        """The curves of the run itself."""
        return [trace for trace in self.traces if trace.role == "own"]

    @property
    def keys(self) -> list[str]:
        """The scalars that it is drawn from."""
        return sorted({trace.key for trace in self.own})

    @property
    def newest(self) -> str:
        """The newest value of the run's first curve."""
        return value_text(self.own[0].key, self.own[0].y[-1]) if self.own and not self.is_stacked else ""

    @property
    def num_superseded(self) -> int:
        """How many stretches were done again."""
        return sum(trace.role == "superseded" for trace in self.traces)

    def table(self, x: Axis) -> list[TableRow]:
        """The run's own points, the newest first; a long curve is thinned, rare points are kept."""
        columns = [dict(zip(trace.step, trace.y, strict=True)) for trace in self.own]
        places = {step: at for trace in self.own for step, at in zip(trace.step, getattr(trace, x), strict=True)}
        steps = sorted(places, reverse=True)
        rare = {step for column in columns if len(column) <= TABLE_ROWS // 2 for step in column}
        stride = -(-len(steps) // TABLE_ROWS) or 1
        kept = [step for number, step in enumerate(steps) if number % stride == 0 or step in rare]
        return [
            TableRow(x_text(x, places[step]), [self._text(column.get(step)) for column in columns]) for step in kept
        ]

    def _text(self, value: float | None) -> str:
        if value is None:
            return ""
        return f"{100 * value:.1f}%" if self.form == "share" else value_text(self.own[0].key, value)


@dataclass(frozen=True)
class Incident:
    """Something that happened, at its place on the axes."""

    id: int
    number: int
    """As it stands on the charts and in the list."""
    title: str
    run: str
    day: dt.datetime
    step: int | None
    """None: of the whole run."""
    tokens: float | None
    time: float | None


@dataclass(frozen=True)
class Relative:
    """Another run of the family, in words."""

    run: str
    depth: int
    origin: str
    """Where it began."""
    fate: str
    """Where a rewind took its place; empty where none did."""
    is_shown: bool
    """It is the run whose page this is."""


@dataclass(frozen=True)
class Training:
    """Everything on the training page of a run."""

    run: str
    panels: Sequence[Panel]
    incidents: Sequence[Incident]
    planned: Mapping[str, float]
    """Share of each language that the config asks for."""
    relatives: Sequence[Relative]
    """The family of the run, parents first; empty where it is alone."""


TITLES: Mapping[str, tuple[str, str]] = {
    "loss": (
        N_("Loss"),
        N_("How surprised the model is by the text it reads: lower is better. Held-out text is never trained on."),
    ),
    "train/learning_rate": (
        N_("Learning rate"),
        N_("How far each step moves the weights: it warms up, stays, and comes down at the end."),
    ),
    "train/grad_norm": (
        N_("Gradient norm"),
        N_("How hard each batch pulls at the weights. A sudden peak often comes before trouble."),
    ),
    "train/tokens_per_second": (N_("Throughput"), N_("Tokens read in a second of training.")),
    "mixture": (
        N_("Data mixture"),
        N_("What it reads: the share of each language among the tokens between two points."),
    ),
}


_Thinned = tuple[Mapping[int, Spans], Mapping[tuple[int, int], Spans]]
_kept: dict[tuple[object, ...], _Thinned] = {}
_keeping = threading.Lock()


def _thinned(session: Session, members: Sequence[Run], within: Window) -> _Thinned:
    """The points of a family, thinned; kept while no member has logged anything more.

    Thinning 400,000 points takes a second, and every reader of an open page asks for the same.
    """
    key = (tuple((run.id, run.heartbeat_at) for run in members), within)
    found = _kept.get(key)
    if found is None:
        found = (
            runs.thinned_family(session, members, limit=MAX_SPANS, within=within),
            runs.superseded_metrics(session, members, limit=MAX_SPANS, within=within),
        )
        with _keeping:
            while len(_kept) >= FAMILIES_KEPT:
                del _kept[next(iter(_kept))]
            _kept[key] = found
    return found


class _Family:
    """The runs of a tree as one of them sees it."""

    def __init__(self, session: Session, run: Run, within: Window) -> None:
        self.run = run
        self.tree = runs.family(session, run)
        self.began = self.tree[0].run.created_at
        members = [branch.run for branch in self.tree]
        self.spans, self.superseded = _thinned(session, members, within)
        self.cuts = self._cuts()

    def _cuts(self) -> dict[int, float]:
        """Up to which step each ancestor, and the run itself, is part of the run's own curve."""
        by_id = {branch.run.id: branch for branch in self.tree}
        branch: Branch | None = by_id[self.run.id]
        cuts: dict[int, float] = {}
        until = math.inf
        while branch is not None:
            after = math.inf if branch.superseded_after is None else branch.superseded_after
            cuts[branch.run.id] = min(until, after)
            until = math.inf if branch.from_step is None else branch.from_step
            branch = by_id.get(branch.parent.id) if branch.parent else None
        return cuts

    def logged(self) -> list[str]:
        """The scalars logged by the run or by those it comes from."""
        return sorted({key for run_id in self.cuts for key in self.spans.get(run_id, {})})

    def own(self, key: str) -> list[MetricSpan]:
        """The curve of the run, from the first of its ancestors on."""
        return [
            span
            for branch in self.tree
            if branch.run.id in self.cuts
            for span in self.spans.get(branch.run.id, {}).get(key, ())
            if span.step <= self.cuts[branch.run.id]
        ]

    def beside(self, key: str) -> Iterable[tuple[Role, Run, list[MetricSpan]]]:
        """Stretches that are not part of the run's own curve."""
        for branch in self.tree:
            cut = self.cuts.get(branch.run.id, -math.inf)
            after = math.inf if branch.superseded_after is None else branch.superseded_after
            found = self.spans.get(branch.run.id, {}).get(key, [])
            other = [span for span in found if cut < span.step <= after]
            yield "branch", branch.run, self._joined(branch, key, other)
            given_up = [span for span in found if span.step > after]
            yield "superseded", branch.run, self._joined(branch, key, given_up)
            for (run_id, _), spans in self.superseded.items():
                if run_id == branch.run.id:
                    yield "superseded", branch.run, self._joined(branch, key, spans.get(key, []))

    def _joined(self, branch: Branch, key: str, spans: list[MetricSpan]) -> list[MetricSpan]:
        """With the point before, so that the line leaves the curve where it parted from it."""
        if not spans:
            return []
        before = [span for span in self.spans.get(branch.run.id, {}).get(key, ()) if span.step < spans[0].step]
        if not before and branch.parent is not None:
            parents = self.spans.get(branch.parent.id, {}).get(key, ())
            before = [span for span in parents if span.step <= (branch.from_step or 0)]
        return [*before[-1:], *spans]


def training_of(session: Session, run: Run, within: Window = EVERYTHING) -> Training:
    """The training of a run, or a stretch of it in more detail; as few queries however much it logged."""
    found = _Family(session, run, within)
    mixture = planned_mixture(run)
    panels = [*_panels(found), *_mixture_panels(found, mixture)]
    return Training(run.name, panels, _incidents(session, found), mixture, relatives_of(found.tree, run))


def relatives_of(tree: Sequence[Branch], shown: Run | None = None) -> list[Relative]:
    """The family in words, for the page and for those who do not see the charts; empty where the run is alone."""
    if len(tree) < 2:
        return []
    return [
        Relative(
            run=branch.run.name,
            depth=branch.depth,
            origin=_origin_text(branch),
            fate=""
            if branch.superseded_after is None
            else gettext("superseded after step %(step)s", step=f"{branch.superseded_after:,}"),
            is_shown=shown is not None and branch.run.id == shown.id,
        )
        for branch in tree
    ]


def _origin_text(branch: Branch) -> str:
    if branch.parent is None:
        return gettext("from nothing")
    step = f"{branch.from_step or 0:,}"
    if branch.run.is_rewind:
        return gettext("rewind of %(run)s to step %(step)s", run=branch.parent.name, step=step)
    return gettext("branch of %(run)s at step %(step)s", run=branch.parent.name, step=step)


def planned_mixture(run: Run) -> dict[str, float]:
    """Share of each language that a run's config asks for; empty where it names none."""
    corpus = run.config.get("corpus") if isinstance(run.config, Mapping) else None
    mixture = corpus.get("mixture") if isinstance(corpus, Mapping) else None
    if not isinstance(mixture, Mapping):
        return {}
    weights = {
        str(name): float(share) for name, share in mixture.items() if isinstance(share, int | float) and share > 0
    }
    total = sum(weights.values())
    return {name: share / total for name, share in weights.items()}


def language_name(name: str) -> str:
    """A language of the mixture in the visitor's words."""
    return label(LANGUAGES[name]) if name in LANGUAGES else name


def _panels(found: _Family) -> list[Panel]:
    keys = [key for key in found.logged() if not key.startswith(READ)]
    order = list(COLOURS)
    held_out = sorted(
        (key for key in keys if key.startswith(runs.HELD_OUT)),
        key=lambda key: order.index(key) if key in order else len(order),
    )
    losses = [key for key in ("train/loss", *held_out) if key in keys]
    named = [key for key in TITLES if key in keys]
    others = [key for key in keys if key not in losses and key not in named]
    panels = [_panel(found, "loss", losses)] if losses else []
    return panels + [_panel(found, key, [key]) for key in (*named, *others)]


def _panel(found: _Family, key: str, keys: Sequence[str]) -> Panel:
    title, sentence = TITLES.get(key, ("", ""))
    own = [
        _trace(found, name, "own", found.run, _colour(name, number), found.own(name))
        for number, name in enumerate(keys)
    ]
    beside = [
        _trace(found, name, role, run, "ink-faint" if role == "superseded" else _branch_colour(found, run), spans)
        for number, name in enumerate(keys)
        for role, run, spans in found.beside(name)
        # One line a branch: its held-out curves would bury those of the run itself.
        if spans and (role == "superseded" or number == 0)
    ]
    form: Literal["number", "rate"] = "rate" if key.endswith("learning_rate") else "number"
    shown = gettext(title) if title else metric_name(key)
    return Panel(key, shown, gettext(sentence) if sentence else "", form, False, [*beside, *own])


def _colour(key: str, number: int) -> str:
    return COLOURS.get(key, "accent" if number == 0 else OTHER_COLOURS[number % len(OTHER_COLOURS)])


def _branch_colour(found: _Family, run: Run) -> str:
    others = [branch.run.id for branch in found.tree if branch.run.id not in found.cuts]
    return BRANCH_COLOURS[others.index(run.id) % len(BRANCH_COLOURS)] if run.id in others else BRANCH_COLOURS[-1]


def _trace(
    found: _Family, key: str, role: Role, run: Run, colour: str, spans: Sequence[MetricSpan], name: str = ""
) -> Trace:
    name = name or (metric_name(key) if role == "own" else run.name)
    is_thinned = any(span.n > 1 for span in spans)
    return Trace(
        key=key,
        name=name,
        role=role,
        colour=colour,
        run=run.name,
        step=[span.step for span in spans],
        tokens=[span.tokens_seen for span in spans],
        time=[_seconds(found, span) for span in spans],
        y=[_short(span.mean) for span in spans],
        low=[_short(span.low) for span in spans] if is_thinned else (),
        high=[_short(span.high) for span in spans] if is_thinned else (),
    )


def _seconds(found: _Family, span: MetricSpan) -> float:
    return round(max(0.0, (span.created_at - found.began).total_seconds()), 1)


def _short(value: float) -> float:
    """Six digits: what a chart can show, in half the bytes."""
    return float(f"{value:.6g}")


def _mixture_panels(found: _Family, planned: Mapping[str, float]) -> list[Panel]:
    """What was read as a stack of shares; the plan as a flat one where a run did not log it."""
    logged = [key.removeprefix(READ) for key in found.logged() if key.startswith(READ)]
    order = {name: place for place, name in enumerate(LANGUAGES)}
    names = sorted({*logged, *planned}, key=lambda name: (order.get(name, len(order)), name))
    if not names:
        return []
    columns = {name: {span.step: span for span in found.own(READ + name)} for name in names}
    steps = sorted({step for column in columns.values() for step in column})
    some = {step: column[step] for column in columns.values() for step in column}
    if not steps:
        ends = next((spans for key in ("train/loss",) if (spans := found.own(key))), [])
        some = {span.step: span for span in (ends[:1] + ends[-1:])}
        steps = sorted(some)
    traces = []
    for number, name in enumerate(names):
        spans = [some[step]._replace(mean=_share(columns, planned, name, step), n=1) for step in steps]
        colour = LANGUAGES.get(name, OTHER_COLOURS[number % len(OTHER_COLOURS)])
        traces.append(_trace(found, READ + name, "own", found.run, colour, spans, language_name(name)))
    title, sentence = TITLES["mixture"]
    note = gettext("What it reads, as planned: this run did not log what it read.")
    if logged:
        note = " ".join([gettext(sentence), *([gettext("Dashed lines: the plan.")] if planned else [])])
    return [Panel("mixture", gettext(title), note, "share", True, traces)] if steps else []


def _share(
    columns: Mapping[str, Mapping[int, MetricSpan]], planned: Mapping[str, float], name: str, step: int
) -> float:
    read = {other: column[step].mean for other, column in columns.items() if step in column}
    total = sum(read.values())
    return read.get(name, 0.0) / total if total else planned.get(name, 0.0)


def _incidents(session: Session, found: _Family) -> list[Incident]:
    members = {branch.run.id: branch.run for branch in found.tree}
    posts = news.list_incidents(session, list(members))
    return [_incident(found, members[post.run_id or 0], number, post) for number, post in enumerate(posts, 1)]


def _incident(found: _Family, run: Run, number: int, post: Post) -> Incident:
    spans = _curve_of(found.spans.get(run.id, {}))
    tokens = time = None
    if post.step is not None:
        steps = [span.step for span in spans]
        # A step that the curve does not reach yet lies on its straight continuation in tokens, at its end in time.
        tokens = (
            float(post.step * run.tokens_per_step)
            if run.tokens_per_step
            else float(np.interp(post.step, steps, [span.tokens_seen for span in spans]) if spans else 0.0)
        )
        time = float(np.interp(post.step, steps, [_seconds(found, span) for span in spans])) if spans else 0.0
    return Incident(post.id, number, post.title, run.name, post.published_at, post.step, tokens, time)


def _curve_of(spans: Spans) -> list[MetricSpan]:
    return max(spans.values(), key=len, default=[])
