"""The lineage graph as a drawing: runs and checkpoints in columns from left to right, by what came from what."""

from collections.abc import Sequence
from dataclasses import dataclass

from registry.lineage import (
    AVERAGE,
    BRANCH,
    FINE_TUNE,
    QUANTIZATION,
    REWIND,
    TRAINING,
    Edge,
    Graph,
    Node,
)
from registry.models.base import EXTERNAL, RETIRED
from server import growth
from server.i18n import gettext
from server.render import label, number

WIDTH, HEIGHT = 178, 44
"""Of a box, in the drawing's units: pixels at full size."""
GAP_X, GAP_Y, MARGIN = 58, 16, 10
MAX_CHARS = 22


@dataclass(frozen=True)
class Box:
    """A run or a checkpoint, where it is drawn."""

    key: str
    x: int
    y: int
    title: str
    """As the box shows it; long names are cut."""
    name: str
    """Whole, for who points at it."""
    note: str
    kind: str
    """`run`, `plain`, `chat`, `average`, `quantized`: how it looks."""
    href: str
    is_here: bool
    is_gone: bool
    """Its files were deleted, or never were here."""


@dataclass(frozen=True)
class Link:
    """A line from one box to another."""

    path: str
    """In SVG's notation."""
    role: str


@dataclass(frozen=True)
class Line:
    """One sentence of the graph, for the list beneath it: what the source became."""

    source: Box
    target: Box
    text: str


@dataclass(frozen=True)
class Pedigree:
    """Context of charts/_pedigree.html."""

    boxes: Sequence[Box]
    links: Sequence[Link]
    lines: Sequence[Line]
    width: int
    height: int
    num_left_out: int
    roles: Sequence[tuple[str, str]]
    """Those that occur, with their names, for the key."""

    @property
    def is_alone(self) -> bool:
        """Whether there is nothing to draw."""
        return len(self.boxes) < 2


def draw(graph: Graph, here: str) -> Pedigree:
    """Lay a graph out; `here` is the key of the node whose page it is on."""
    column = _columns(graph)
    rows = _rows(graph, column)
    boxes = {node.key: _box(node, column[node.key], rows[node.key], here) for node in graph.nodes}
    shown = [edge for edge in graph.edges if edge.source in boxes and edge.target in boxes]
    present = dict.fromkeys(edge.role for edge in shown)
    names = role_names()
    return Pedigree(
        boxes=list(boxes.values()),
        links=[Link(_path(boxes[edge.source], boxes[edge.target]), edge.role) for edge in shown],
        lines=[Line(boxes[edge.source], boxes[edge.target], _text(edge)) for edge in shown],
        width=2 * MARGIN + (max(column.values(), default=0) + 1) * (WIDTH + GAP_X) - GAP_X,
        height=2 * MARGIN + (max(rows.values(), default=0) + 1) * (HEIGHT + GAP_Y) - GAP_Y,
        num_left_out=graph.num_left_out,
        roles=[(role, names[role]) for role in names if role in present],
    )


def role_names() -> dict[str, str]:
    """How each way of coming from another is called."""
    return {
        TRAINING: gettext("training"),
        BRANCH: gettext("went on as a new run"),
        REWIND: gettext("rewound"),
        FINE_TUNE: gettext("fine-tuned"),
        AVERAGE: gettext("averaged"),
        QUANTIZATION: gettext("quantized"),
    }


def _columns(graph: Graph) -> dict[str, int]:
    """How far right each node stands: one further than the furthest of what it came from."""
    before: dict[str, list[str]] = {node.key: [] for node in graph.nodes}
    for edge in graph.edges:
        before[edge.target].append(edge.source)
    found: dict[str, int] = {}

    def place(key: str) -> int:
        if key not in found:
            found[key] = 0  # lineages have no circles; one that had would end here
            found[key] = max((place(source) + 1 for source in before[key]), default=0)
        return found[key]

    for node in graph.nodes:
        place(node.key)
    return found


def _rows(graph: Graph, column: dict[str, int]) -> dict[str, int]:
    """How far down each node stands: beside the first thing that it came from, where there is room."""
    order = {node.key: place for place, node in enumerate(sorted(graph.nodes, key=_order))}
    first: dict[str, str] = {}
    for edge in graph.edges:
        known = first.get(edge.target)
        if known is None or order[edge.source] < order[known]:
            first[edge.target] = edge.source
    rows: dict[str, int] = {}
    for at in range(max(column.values(), default=0) + 1):
        free = 0
        own = [key for key in order if column[key] == at]
        for key in sorted(own, key=lambda one: (rows.get(first.get(one, ""), 0), order[one])):
            rows[key] = max(rows.get(first.get(key, ""), 0), free)
            free = rows[key] + 1
    return rows


def _order(node: Node) -> tuple[int, int, int]:
    return (node.run.id, node.checkpoint.step if node.checkpoint else -1, node.checkpoint.id if node.checkpoint else 0)


def _box(node: Node, column: int, row: int, here: str) -> Box:
    checkpoint = node.checkpoint
    if checkpoint is None:
        kind, note, href = "run", label(node.run.kind), f"/runs/{node.run.name}"
    else:
        kind = _kind(checkpoint.kind, checkpoint.precision)
        note, href = _note(node), growth.checkpoint_href(checkpoint)
    return Box(
        key=node.key,
        x=MARGIN + column * (WIDTH + GAP_X),
        y=MARGIN + row * (HEIGHT + GAP_Y),
        title=node.label if len(node.label) <= MAX_CHARS else node.label[: MAX_CHARS - 1] + "…",
        name=node.label,
        note=note,
        kind=kind,
        href=href,
        is_here=node.key == here,
        is_gone=checkpoint is not None and checkpoint.state in (RETIRED, EXTERNAL),
    )


def _kind(kind: str, precision: int) -> str:
    if precision != 16:
        return "quantized"
    return kind if kind == "chat" else "plain" if kind == "pretrained" else "average"


def _note(node: Node) -> str:
    assert node.checkpoint is not None
    words = [label(node.checkpoint.kind)]
    words += [gettext("%(bits)s bit", bits=node.checkpoint.precision)] if node.checkpoint.precision != 16 else []
    words += [gettext("files deleted")] if node.checkpoint.state == RETIRED else []
    return " · ".join(words)


def _text(edge: Edge) -> str:
    if edge.role in (BRANCH, REWIND) and edge.step is not None:
        if edge.role == BRANCH:
            return gettext("went on from step %(step)s as", step=number(edge.step))
        return gettext("was rewound to step %(step)s as", step=number(edge.step))
    return {
        TRAINING: gettext("made"),
        FINE_TUNE: gettext("was fine-tuned into"),
        AVERAGE: gettext("was averaged into"),
        QUANTIZATION: gettext("was quantized into"),
    }.get(edge.role, edge.role)


def _path(source: Box, target: Box) -> str:
    """A curve from the right side of one box to the left side of another."""
    x1, y1 = source.x + WIDTH, source.y + HEIGHT // 2
    x2, y2 = target.x, target.y + HEIGHT // 2
    bend = max(GAP_X // 2, (x2 - x1) // 2)
    return f"M{x1} {y1}C{x1 + bend} {y1} {x2 - bend} {y2} {x2} {y2}"
