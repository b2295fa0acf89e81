"""What came from what, as one graph: runs, the runs that went on from them, and what was made of their checkpoints.

Runs and checkpoints are its nodes. A run leads to those of its checkpoints from which something was made; a checkpoint
leads to the runs that went on from its step and to what was made of it. Checkpoints that nothing was made of are left
out: a run may have thousands.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from sqlalchemy import or_, select
from sqlalchemy.orm import Session, aliased, defer

from registry import audit, checkpoints, runs
from registry.errors import Conflict, NotFound
from registry.models import Checkpoint, CheckpointParent, Run, User
from registry.models.base import REJECTED

TRAINING, BRANCH, REWIND = "training", "branch", "rewind"
FINE_TUNE, QUANTIZATION, AVERAGE = "fine-tune", "quantization", "average"
DERIVED = (FINE_TUNE, QUANTIZATION, AVERAGE)
ROLES = (TRAINING, BRANCH, REWIND, *DERIVED)
MAX_DERIVED = 48
"""Derived checkpoints that one graph shows, the newest; the others are counted."""
MAX_BASE_CHARS = 200


class Node(NamedTuple):
    """A run, or a checkpoint of one."""

    key: str
    """`run:demo` or `checkpoint:12`."""
    run: Run
    checkpoint: Checkpoint | None

    @property
    def label(self) -> str:
        """The run's name, or the checkpoint's label."""
        return self.run.name if self.checkpoint is None else self.checkpoint.label


class Edge(NamedTuple):
    """The target came from the source."""

    source: str
    target: str
    role: str
    """One of `ROLES`."""
    step: int | None = None
    """For a run that went on from another: the step."""


class Graph(NamedTuple):
    """A lineage; every edge joins two of the nodes, and none leads back to where it came from."""

    nodes: Sequence[Node]
    edges: Sequence[Edge]
    num_left_out: int = 0
    """Derived checkpoints beyond `MAX_DERIVED`."""


def parents(session: Session, checkpoint: Checkpoint) -> list[tuple[Checkpoint, str]]:
    """What a checkpoint was made from and how, by step; without what only its run says."""
    query = (
        select(Checkpoint, CheckpointParent.role)
        .join(CheckpointParent, CheckpointParent.parent_id == Checkpoint.id)
        .where(CheckpointParent.child_id == checkpoint.id)
        .order_by(Checkpoint.step, Checkpoint.id)
    )
    return [(parent, role) for parent, role in session.execute(query)]


def children(session: Session, checkpoint: Checkpoint) -> list[tuple[Checkpoint, str]]:
    """What was made of a checkpoint and how, in the order in which it came."""
    query = (
        select(Checkpoint, CheckpointParent.role)
        .join(CheckpointParent, CheckpointParent.child_id == Checkpoint.id)
        .where(CheckpointParent.parent_id == checkpoint.id)
        .order_by(Checkpoint.id)
    )
    return [(child, role) for child, role in session.execute(query)]


def set_base(session: Session, checkpoint: Checkpoint, name: str, user: User | None = None) -> Checkpoint:
    """Note that a checkpoint was fine-tuned from another one, named `run@step`, `run@alias` or as a hub names it.

    Raises:
        NotFound: the name is no checkpoint here.
        Conflict: the other one was itself made from this one.
    """
    base = find_base(session, name)
    if base.id == checkpoint.id or checkpoint.id in _ancestors(session, base.id):
        raise Conflict("%(one)s was made from %(other)s.", one=base.label, other=checkpoint.label)
    checkpoints.add_parents(session, checkpoint, [base], FINE_TUNE)
    session.flush()
    audit.note(session, user, "lineage", f"checkpoint:{checkpoint.id}", {"base": base.label})
    return base


def find_base(session: Session, name: str) -> Checkpoint:
    """The checkpoint that a card's `base_model` means: `run`, `owner/run`, each with `@step` or `@alias`.

    Without a step it is the newest one.

    Raises:
        NotFound: it is none of ours.
    """
    local = name.strip().rpartition("/")[2]
    if not local or len(name) > MAX_BASE_CHARS:
        raise NotFound("'%(name)s' names no checkpoint: write run@step.", name=name[:80])
    return checkpoints.by_label(session, local if "@" in local else f"{local}@latest")


def note_base_of_card(session: Session, checkpoint: Checkpoint, names: Iterable[str]) -> list[Checkpoint]:
    """Note what a card says of its base, as far as that is here; what is elsewhere, or odd, is passed over."""
    found = []
    for name in names:
        try:
            found.append(set_base(session, checkpoint, name))
        except (NotFound, Conflict):
            continue
    return found


def of_run(session: Session, run: Run) -> Graph:
    """The lineage of a run: of everything that is connected with it."""
    whole = _connected(session, run)
    shown = _newest_derived(whole.edges)
    dropped = {edge.target for edge in whole.edges if edge.role in DERIVED} - shown
    return _pruned(session, whole, whole.edges, keep={f"run:{run.name}"}, dropped=dropped)


def of_checkpoint(session: Session, checkpoint: Checkpoint) -> Graph:
    """The lineage of one checkpoint: what it came from, all the way back, and what came of it."""
    whole = _connected(session, checkpoint.run, checkpoint)
    key = f"checkpoint:{checkpoint.id}"
    before = _reached(key, [(edge.target, edge.source) for edge in whole.edges])
    after = _reached(key, [(edge.source, edge.target) for edge in whole.edges])
    own = [edge for edge in whole.edges if {edge.source, edge.target} <= before or {edge.source, edge.target} <= after]
    shown = before | _newest_derived(own)
    dropped = {edge.target for edge in own if edge.role in DERIVED} - shown
    return _pruned(session, whole, own, keep={key}, dropped=dropped)


class _Whole(NamedTuple):
    """All edges that hang together; of checkpoints the ids alone, for there may be thousands."""

    runs: Mapping[str, Run]
    edges: list[Edge]


class _Link(NamedTuple):
    """A checkpoint that was made from another one."""

    child: int
    child_run: int
    parent: int
    parent_run: int
    role: str


def _newest_derived(edges: Iterable[Edge]) -> set[str]:
    derived = {edge.target for edge in edges if edge.role in DERIVED}
    return set(sorted(derived, key=_number)[-MAX_DERIVED:])


def _number(key: str) -> int:
    return int(key.rpartition(":")[2])


def _connected(session: Session, run: Run, checkpoint: Checkpoint | None = None) -> _Whole:
    """Every edge that hangs together with a run, and with one checkpoint of it even if alone."""
    branches = {branch.run.id: branch for tree in runs.families(runs.list_runs(session)) for branch in tree}
    trees = _trees(branches)
    wanted = trees[run.id]
    while True:
        links = _links(session, wanted)
        touched = {one for link in links for one in (link.child_run, link.parent_run)}
        more = wanted.union(*(trees[one] for one in touched))
        if more == wanted:
            break
        wanted = more
    links += _forms(session, wanted, {link.child for link in links})
    own = [branches[one] for one in wanted]
    starts = _starts(session, own)
    edges = [Edge(f"checkpoint:{link.parent}", f"checkpoint:{link.child}", link.role) for link in links]
    # What was made of a checkpoint of its own run hangs on that one, not on the run.
    made = {link.child for link in links if link.child_run == link.parent_run}
    at = {link.child: link.child_run for link in links} | {link.parent: link.parent_run for link in links}
    at |= {start: branch.parent.id for branch in own if branch.parent and (start := starts.get(branch.run.id))}
    if checkpoint is not None:
        at[checkpoint.id] = checkpoint.run_id
    names = {one: branches[one].run.name for one in wanted}
    edges += [Edge(f"run:{names[of]}", f"checkpoint:{one}", TRAINING) for one, of in at.items() if one not in made]
    for branch in own:
        if branch.parent is not None:
            start = starts.get(branch.run.id)
            source = f"checkpoint:{start}" if start is not None else f"run:{branch.parent.name}"
            role = REWIND if branch.run.is_rewind else BRANCH
            edges.append(Edge(source, f"run:{branch.run.name}", role, branch.from_step))
    return _Whole({f"run:{names[one]}": branches[one].run for one in wanted}, edges)


def _trees(branches: Mapping[int, runs.Branch]) -> dict[int, set[int]]:
    """For each run the ids of all runs of its tree."""
    root: dict[int, int] = {}
    for one, branch in branches.items():  # a parent comes before its branches
        root[one] = root[branch.parent.id] if branch.parent is not None else one
    trees: dict[int, set[int]] = {}
    for one, first in root.items():
        trees.setdefault(first, set()).add(one)
    return {one: trees[first] for one, first in root.items()}


def _links(session: Session, run_ids: set[int]) -> list[_Link]:
    """Where either is of one of these runs and the child was not rejected."""
    child, parent = aliased(Checkpoint), aliased(Checkpoint)
    query = (
        select(child.id, child.run_id, parent.id, parent.run_id, CheckpointParent.role)
        .select_from(CheckpointParent)
        .join(child, child.id == CheckpointParent.child_id)
        .join(parent, parent.id == CheckpointParent.parent_id)
        .where(or_(child.run_id.in_(run_ids), parent.run_id.in_(run_ids)), child.state != REJECTED)
        .order_by(child.id, parent.step)
    )
    return [_Link(*row) for row in session.execute(query)]


def _forms(session: Session, run_ids: set[int], known: set[int]) -> list[_Link]:
    """Chat models and lower precisions that do not say what they were made from: of the plain one at their step."""
    form, plain = aliased(Checkpoint), aliased(Checkpoint)
    query = (
        select(form.id, form.run_id, plain.id, plain.run_id, form.kind)
        .join(plain, (plain.run_id == form.run_id) & (plain.step == form.step))
        .where(
            form.run_id.in_(run_ids),
            form.state != REJECTED,
            or_((form.kind == "chat") & (form.precision == 16), (form.kind == "pretrained") & (form.precision != 16)),
            plain.kind == "pretrained",
            plain.precision == 16,
        )
        .order_by(form.id)
    )
    found = [_Link(*row) for row in session.execute(query)]
    return [
        one._replace(role=FINE_TUNE if one.role == "chat" else QUANTIZATION) for one in found if one.child not in known
    ]


def _starts(session: Session, branches: Sequence[runs.Branch]) -> dict[int, int]:
    """By the id of a run that went on from another: the checkpoint of the other at that step, where there is one."""
    own = [(branch.run.id, branch.parent.id, branch.from_step) for branch in branches if branch.parent is not None]
    if not own:
        return {}
    query = select(Checkpoint.run_id, Checkpoint.step, Checkpoint.id).where(
        Checkpoint.run_id.in_({parent for _, parent, _ in own}),
        Checkpoint.step.in_({step for _, _, step in own}),
        Checkpoint.kind == "pretrained",
        Checkpoint.precision == 16,
    )
    at = {(run_id, step): number for run_id, step, number in session.execute(query)}
    pairs = {run_id: at.get((parent, step or 0)) for run_id, parent, step in own}
    return {run_id: start for run_id, start in pairs.items() if start is not None}


def _ancestors(session: Session, checkpoint_id: int) -> set[int]:
    """Ids of all that a checkpoint was made from."""
    seen, front = set[int](), {checkpoint_id}
    while front:
        query = select(CheckpointParent.parent_id).where(CheckpointParent.child_id.in_(front))
        front = set(session.scalars(query)) - seen
        seen |= front
    return seen


def _reached(start: str, pairs: Iterable[tuple[str, str]]) -> set[str]:
    steps: dict[str, list[str]] = {}
    for one, other in pairs:
        steps.setdefault(one, []).append(other)
    seen, front = {start}, [start]
    while front:
        for other in steps.get(front.pop(), ()):
            if other not in seen:
                seen.add(other)
                front.append(other)
    return seen


def _pruned(session: Session, whole: _Whole, edges: Sequence[Edge], *, keep: set[str], dropped: set[str]) -> Graph:
    """Without what is dropped, and without plain checkpoints from which nothing comes any more."""
    left = [edge for edge in edges if not {edge.source, edge.target} & dropped]
    joined = keep | {edge.source for edge in left} | {edge.target for edge in left if edge.role != TRAINING}
    left = [edge for edge in left if edge.role != TRAINING or edge.target in joined]
    shown = keep | {key for edge in left for key in (edge.source, edge.target)}
    ids = [_number(key) for key in shown if key.startswith("checkpoint:")]
    long = (Checkpoint.manifest, Checkpoint.fingerprint, Checkpoint.warnings, Checkpoint.derivation)
    query = select(Checkpoint).where(Checkpoint.id.in_(ids)).options(*(defer(column) for column in long))
    found = session.scalars(query.order_by(Checkpoint.run_id, Checkpoint.step, Checkpoint.id)).all()
    nodes = [Node(key, run, None) for key, run in whole.runs.items() if key in shown]
    nodes += [Node(f"checkpoint:{one.id}", one.run, one) for one in found]
    return Graph(nodes, left, len(dropped))
