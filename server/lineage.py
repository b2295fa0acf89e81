"""Where a checkpoint comes from and what came of it: its run and the runs before, its neighbours, its offspring."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy.orm import Session

from registry import runs
from registry.models import Checkpoint, Run
from registry.models.base import EXTERNAL
from registry.runs import Branch
from server.growth import CheckpointRow
from server.i18n import gettext


@dataclass(frozen=True)
class Relative:
    """A run of the family, and the step at which it and the other run part."""

    run: str
    step: int
    is_rewind: bool
    """The younger run took the older one's place from there on."""


@dataclass(frozen=True)
class Lineage:
    """The family of a checkpoint."""

    ancestors: Sequence[Relative]
    """The runs that this one goes on with, the oldest first, and the step of each at which the next branched off."""
    origin: str
    """Who or what made it, in a sentence."""
    before: CheckpointRow | None
    after: CheckpointRow | None
    forms: Sequence[CheckpointRow]
    """Everything at this step, itself included: the pretrained 16-bit weights first, what was made of them after."""
    branches: Sequence[Relative]
    """Runs that branched off here, or between here and the next checkpoint."""


def lineage_of(session: Session, checkpoint: Checkpoint, rows: Sequence[CheckpointRow]) -> Lineage:
    """The family of a checkpoint; `rows` are all checkpoints of its run, the newest first."""
    line = [row for row in rows if _is_alike(row.checkpoint, checkpoint)]
    place = next(index for index, row in enumerate(line) if row.checkpoint.id == checkpoint.id)
    after, family = line[place - 1] if place else None, runs.family(session, checkpoint.run)
    forms = [row for row in rows if row.checkpoint.step == checkpoint.step]
    return Lineage(
        ancestors=_ancestors(family, checkpoint.run),
        origin=_origin(checkpoint),
        before=line[place + 1] if place + 1 < len(line) else None,
        after=after,
        forms=sorted(
            forms, key=lambda row: (row.checkpoint.kind != "pretrained", row.checkpoint.kind, -row.checkpoint.precision)
        ),
        branches=_branches(family, checkpoint, after.checkpoint.step if after else None),
    )


def _ancestors(family: Sequence[Branch], run: Run) -> list[Relative]:
    by_run = {branch.run.id: branch for branch in family}
    found: list[Relative] = []
    own = by_run[run.id]
    while own.parent is not None:
        found.insert(0, Relative(own.parent.name, own.from_step or 0, own.run.is_rewind))
        own = by_run[own.parent.id]
    return found


def _branches(family: Sequence[Branch], checkpoint: Checkpoint, until: int | None) -> list[Relative]:
    own = [branch for branch in family if branch.parent is not None and branch.parent.id == checkpoint.run_id]
    steps = [(branch, branch.from_step or 0) for branch in own]
    return [
        Relative(branch.run.name, step, branch.run.is_rewind)
        for branch, step in steps
        if checkpoint.step <= step and (until is None or step < until)
    ]


def _origin(checkpoint: Checkpoint) -> str:
    run = checkpoint.run
    if checkpoint.state == EXTERNAL:
        return gettext("Measured elsewhere and imported: only its results are here.")
    if run.kind == "upload":
        return gettext("Uploaded by an administrator or pushed from the command line.")
    if run.git_revision:
        return gettext(
            "Made by the training of this run with the code of revision %(code)s.", code=run.git_revision[:12]
        )
    return gettext("Made by the training of this run.")


def _is_alike(one: Checkpoint, other: Checkpoint) -> bool:
    return one.kind == other.kind and one.precision == other.precision
