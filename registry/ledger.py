"""All answers of one task through the training of a run: which files hold them, and where their copy by item lies."""

from collections.abc import Collection, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session, contains_eager, selectinload

from registry import cells, evaluations, history
from registry.cells import Cells
from registry.history import Answered, Source
from registry.models import Checkpoint, Evaluation, Run, Slice, Task
from registry.models.base import FINISHED, SCORED
from registry.settings import get_settings

COMPACT_EVERY = history.MIN_BATCH
"""Finished evaluations after which the copy by item is brought up to date."""


class Member(NamedTuple):
    """A finished evaluation of a line, with where in training it stands."""

    evaluation_id: int
    checkpoint_id: int
    step: int
    tokens_seen: int | None
    protocol_key: str
    items_file: str


class Line(NamedTuple):
    """The evaluations of one task in a run that were answered under one protocol, so that item by item they compare."""

    run: Run
    task: Task
    members: Sequence[Member]
    """By step; those with answers to single items."""
    protocols: Sequence[str]
    """Keys of all protocols that the task was answered under, the one used last first."""

    @property
    def folder(self) -> Path:
        """Where the copy by item lies."""
        return _folder(self.run.id, self.task.id, self.members[0].protocol_key)

    @property
    def items_file(self) -> Path | None:
        """The items that the newest evaluation names."""
        named = max(self.members, key=lambda member: member.evaluation_id).items_file
        return get_settings().samples_dir / named if named else None


def line(
    session: Session, run: Run, task: Task, protocol: str = "", *, kind: str = "pretrained", precision: int = 16
) -> Line:
    """The answers of a task through a run under `protocol`, a key; empty means the one that was used last."""
    query = (
        select(
            Evaluation.id,
            Evaluation.checkpoint_id,
            Checkpoint.step,
            Checkpoint.tokens_seen,
            func.coalesce(Evaluation.protocol_key, ""),
            Evaluation.items_file,
        )
        .join(Evaluation.checkpoint)
        .where(
            Checkpoint.run_id == run.id,
            Checkpoint.kind == kind,
            Checkpoint.precision == precision,
            Checkpoint.state.in_(SCORED),
            Evaluation.task_id == task.id,
            Evaluation.status == FINISHED,
            Evaluation.slices.any(),
        )
        .order_by(Checkpoint.step, Evaluation.id)
    )
    found = [Member(*row) for row in session.execute(query)]
    newest = {one.protocol_key: one.evaluation_id for one in sorted(found, key=lambda one: one.evaluation_id)}
    keys = sorted(newest, key=lambda key: -newest[key])
    chosen = protocol or (keys[0] if keys else "")
    return Line(run, task, [one for one in found if one.protocol_key == chosen], keys)


def cells_of(session: Session, found: Line) -> Cells:
    """Whether each answer of a line was right, and how likely; the line has members.

    Raises:
        NotFound, Invalid: a file of answers is missing or broken.
    """
    kept = cells.known(found.folder, found.task.metric)
    covered = set(kept.evaluations.tolist()) if kept else set()
    fresh = [one.evaluation_id for one in found.members if one.evaluation_id not in covered]
    wanted = _sources(found, _paths(session, fresh))
    complete = cells.read(wanted, found.folder, cells.Task(found.task.metric, found.items_file), kept)
    if len(fresh) >= COMPACT_EVERY:
        # Answers from before there was such a file: the next reader should not wait for them again.
        with suppress(OSError):
            cells.keep(complete, found.folder, found.task.metric)
    return complete


def keep_cells(session: Session, evaluation_id: int) -> None:
    """Bring the file of cells of an evaluation's line up to date, if it has answers.

    Raises:
        NotFound, Invalid: a file of answers is missing or broken.
    """
    evaluation = evaluations.get_evaluation(session, evaluation_id)
    own, key = evaluation.checkpoint, evaluation.protocol_key or ""
    found = line(session, own.run, evaluation.task, key, kind=own.kind, precision=own.precision)
    if found.members:
        cells.keep(cells_of(session, found), found.folder, found.task.metric)


def answers_to(session: Session, found: Line, position: int) -> list[Answered]:
    """Every answer to one item, by step; the line has members.

    Raises:
        NotFound, Invalid: a file of answers is missing or broken.
    """
    paths = _paths(session, [one.evaluation_id for one in found.members])
    return history.by_item(_sources(found, paths), found.folder, position)


def _sources(found: Line, paths: dict[int, list[Path]]) -> list[Source]:
    return [
        Source(one.evaluation_id, one.checkpoint_id, one.step, paths.get(one.evaluation_id, ()))
        for one in found.members
    ]


def _paths(session: Session, wanted: Collection[int]) -> dict[int, list[Path]]:
    """The slices of these evaluations."""
    paths: dict[int, list[Path]] = {one: [] for one in wanted}
    if wanted:
        root = get_settings().samples_dir
        query = select(Slice.evaluation_id, Slice.file).where(Slice.evaluation_id.in_(wanted)).order_by(Slice.start)
        for evaluation_id, file in session.execute(query):
            paths[evaluation_id].append(root / file)
    return paths


def sources(session: Session, evaluation: Evaluation) -> list[Source]:
    """The finished evaluations that stand on one line with this one, it included, by step.

    Needs the evaluation's checkpoint loaded.
    """
    query = (
        _line(evaluation)
        .options(contains_eager(Evaluation.checkpoint), selectinload(Evaluation.slices))
        .order_by(Checkpoint.step)
    )
    return [
        Source(found.id, found.checkpoint_id, found.checkpoint.step, evaluations.sample_paths(found))
        for found in session.scalars(query)
        if found.slices
    ]


def folder(evaluation: Evaluation) -> Path:
    """Where the copy by item of its line lies: positions mean the same items only under one protocol."""
    return _folder(evaluation.checkpoint.run_id, evaluation.task_id, evaluation.protocol_key or "")


def _folder(run_id: int, task_id: int, protocol_key: str) -> Path:
    return get_settings().samples_dir / "by-item" / str(run_id) / str(task_id) / (protocol_key or "-")


def is_due(session: Session, evaluation: Evaluation) -> bool:
    """Whether enough evaluations have come to bring the copy up to date."""
    number = session.scalar(select(func.count()).select_from(_line(evaluation).subquery())) or 0
    return number % COMPACT_EVERY == 0


def _line(evaluation: Evaluation) -> Select[Evaluation]:
    own = evaluation.checkpoint
    return (
        select(Evaluation)
        .join(Evaluation.checkpoint)
        .where(
            Checkpoint.run_id == own.run_id,
            Checkpoint.kind == own.kind,
            Checkpoint.precision == own.precision,
            Checkpoint.state.in_(SCORED),
            Evaluation.task_id == evaluation.task_id,
            Evaluation.protocol_key == evaluation.protocol_key,
            Evaluation.status == FINISHED,
        )
    )
