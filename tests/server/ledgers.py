"""A run whose answers to a few questions went every way there is, for the ledger's pages and data."""

from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from registry import evaluations, runs, samples, tickets
from registry.evaluations import NewSlice, Score
from registry.models import Checkpoint, Evaluation, Run, Task
from registry.samples import Item, Sample
from registry.settings import get_settings
from tests.factories import make_checkpoint, make_run, make_task

PROTOCOL: dict[str, Any] = {"engine": "scripted", "num_fewshot": 0}
HISTORIES = {
    # item: its answers through training, by step; "." is not asked
    "steady": "✗✗✓✓✓✓✓✓✓✓✓✓",
    "early": "✓✓✓✓✓✓✓✓✓✓✓✓",
    "lucky": "✓✗✗✗✗✗✗✗✗✗✗✗",
    "lost": "✗✓✓✓✓✓✗✗✗✗✗✗",
    "back": "✓✓✓✓✗✗✗✗✓✓✓✓",
    "restless": "✓✓✓✓✗✓✗✓✗✗✓✗",
}
NUM_CHECKPOINTS = 12
TEXTS = {
    "steady": ("law", "Which law protects the citizens?"),
    "early": ("law", "国家保护公民的什么权益？"),
    "lucky": ("history", "Who wrote <b>Hamlet</b>?"),
    "lost": ("history", "秦始皇统一了哪些国家？"),
    "back": ("history", "Which river flows through Xi'an?"),
    "restless": ("law", "What does a statute begin with?"),
}
SLICE = 4


def key(name: str) -> str:
    """The hash of an item."""
    return f"{list(HISTORIES).index(name) + 1:016x}"


def make_ledger(session: Session, run: Run | None = None, name: str = "quiz", **fields: Any) -> Task:
    """A four-choice task answered at every checkpoint."""
    run = run or make_run(session, "grown")
    task = make_task(session, name, title="Quiz", title_zh="测验", ability="knowledge", **fields)
    items = _items()
    for column in range(NUM_CHECKPOINTS):
        answer(session, make_or_find(session, run, column), task, items, _choices(items, column))
    return task


def make_free(session: Session, run: Run, written: tuple[str, ...] = ("7", "12", "12", "12")) -> Task:
    """A task with one question, answered freely and scored by exact_match."""
    task = make_task(session, "sums", title="Sums", ability="maths", metric="exact_match", chance=None)
    task.output_type = "generate_until"
    items = [Item(f"{99:016x}", 0, "", "What is 5 plus 7?", [], None, "12")]
    for column, text in enumerate(written):
        rows = [Sample(items[0].item, 0, None, [], [2], [len(text)], [], float(text == "12"), text, "stop")]
        answer(session, make_or_find(session, run, column), task, items, rows)
    return task


def make_texts(session: Session, run: Run) -> Task:
    """Two texts whose likelihood rises, the second one later."""
    task = make_task(session, "bits", title="Bits", metric="bits_per_byte", higher_is_better=False, chance=None)
    task.output_type = "loglikelihood_rolling"
    items = [Item(f"{50 + at:016x}", at, "", "", [text], None) for at, text in enumerate(("To be", "or not"))]
    for column in range(6):
        rows = [
            Sample(item.item, at, None, [-20.0 if column < 2 + 2 * at else -5.0], [2], [5], [False])
            for at, item in enumerate(items)
        ]
        answer(session, make_or_find(session, run, column), task, items, rows)
    return task


def make_or_find(session: Session, run: Run, column: int) -> Checkpoint:
    """The checkpoint of a column: steps 0, 100, 200 …"""
    found = session.query(Checkpoint).filter_by(run_id=run.id, step=100 * column, kind="pretrained").one_or_none()
    return found or make_checkpoint(session, run, 100 * column)


def answer(
    session: Session,
    checkpoint: Checkpoint,
    task: Task,
    items: list[Item],
    rows: list[Sample],
    protocol: dict[str, Any] = PROTOCOL,
) -> Evaluation:
    """Record these answers as a worker does."""
    [evaluation] = evaluations.plan_tasks(session, checkpoint, [task], again=True) or [
        one for one in evaluations.for_checkpoint(session, checkpoint) if one.task_id == task.id
    ]
    tickets.cancel(session, evaluation_id=evaluation.id)
    root = get_settings().samples_dir
    items_path = samples.write_items(root / "items", task.name, items)
    evaluations.start(session, evaluation.id, len(items), protocol)
    for start in range(0, len(rows), SLICE):
        part = rows[start : start + SLICE]
        path = samples.write_slice(root / str(checkpoint.id) / str(evaluation.id), start, part)
        evaluations.add_slice(session, evaluation.id, NewSlice(start, start + len(part), _relative(path, root)))
    score = Score(task.metric, 0.5, 0.02, 0.46, 0.54, len(rows))
    evaluations.finish(
        session, evaluation.id, results=[score], protocol=protocol, items_file=_relative(items_path, root)
    )
    session.flush()
    return evaluation


def make_imported(session: Session) -> Task:
    """A task of which only results are here."""
    task = make_task(session, "elsewhere", title="Elsewhere")
    run = runs.create_run(session, name="foreign")
    score = Score("acc", 0.3, 0.01, 0.28, 0.32, 100)
    checkpoint = make_checkpoint(session, run, 5)
    evaluations.record_imported(session, checkpoint, task, protocol=PROTOCOL, results=[score], num_items=100)
    session.flush()
    return task


def rows_at(column: int) -> list[Sample]:
    """The answers of a checkpoint, for a test that adds one."""
    return _choices(_items(), column)


def items() -> list[Item]:
    """The items of the task."""
    return _items()


def _items() -> list[Item]:
    choices = ["the first", "the second", "the third", "the fourth"]
    return [Item(key(name), at, *TEXTS[name], choices, at % 4) for at, name in enumerate(HISTORIES)]


def _choices(items: list[Item], column: int) -> list[Sample]:
    found = []
    for at, (item, marks) in enumerate(zip(items, HISTORIES.values(), strict=True)):
        assert item.target is not None
        best = item.target if marks[column] == "✓" else (item.target + 1 + column % 3) % 4
        logprobs = [-2.0 if choice == best else -4.0 for choice in range(4)]
        found.append(Sample(item.item, at, item.target, logprobs, [2] * 4, [9] * 4, [False] * 4))
    return found


def _relative(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()
