"""Gain, loss or within noise: each evaluation against the one before, corrected over the tasks of the pair."""

import random
from pathlib import Path

from sqlalchemy.orm import Session

from registry import changes, evaluations, jobs, samples
from registry.models import Change, Checkpoint, Evaluation, Run, Task
from registry.samples import Sample
from registry.settings import get_settings
from tests.factories import finish_evaluation, make_checkpoint, make_run, make_task


def compare(session: Session, evaluation: Evaluation) -> None:
    """What the comparing job does."""
    session.flush()
    session.expire_all()
    loaded = changes.load(session, evaluation.id)
    assert loaded is not None
    for pair in changes.pairs(session, loaded):
        changes.record(session, pair, changes.difference(pair))
    changes.mark_compared(session, evaluation.id)
    session.flush()


def answered(session: Session, checkpoint: Checkpoint, task: Task, right: list[bool]) -> Evaluation:
    """A finished evaluation with a sample file: item number i is right where `right[i]` is."""
    rows = [
        Sample(f"{at:016x}", at, 0, [-1.0, -2.0] if hit else [-2.0, -1.0], [1, 1], [3, 3], [False, False])
        for at, hit in enumerate(right)
    ]
    root = get_settings().samples_dir
    path = samples.write_slice(root / str(checkpoint.id) / task.name, 0, rows)
    part = evaluations.NewSlice(0, len(rows), path.relative_to(root).as_posix())
    return finish_evaluation(session, checkpoint, task, sum(right) / len(right), part=part)


def verdicts(session: Session, run: Run) -> dict[tuple[str, int], str]:
    """Verdicts by task and step."""
    rows = session.query(Change, Task.name, Checkpoint.step).select_from(Change)
    rows = rows.join(Evaluation, Evaluation.id == Change.evaluation_id).join(Task).join(Evaluation.checkpoint)
    return {(name, step): change.verdict for change, name, step in rows}


def test_items_are_compared_one_by_one(session: Session) -> None:
    task, run = make_task(session), make_run(session)
    before = [True] * 50 + [False] * 50
    answered(session, make_checkpoint(session, run, 10), task, before)
    after = answered(session, make_checkpoint(session, run, 20), task, [True] * 65 + [False] * 35)
    compare(session, after)
    change = session.get_one(Change, after.id)
    assert (change.is_paired, change.n, round(change.value, 6)) == (True, 100, 0.15)
    assert verdicts(session, run) == {(task.name, 20): "gain"}


def test_a_loss_of_a_metric_that_should_fall_is_a_gain(session: Session) -> None:
    task = make_task(session, metric="bits_per_byte", higher_is_better=False)
    run = make_run(session)
    finish_evaluation(session, make_checkpoint(session, run, 10), task, 2.5)
    after = finish_evaluation(session, make_checkpoint(session, run, 20), task, 2.0)
    compare(session, after)
    assert verdicts(session, run) == {(task.name, 20): "gain"}
    assert not session.get_one(Change, after.id).is_paired


def test_a_checkpoint_that_comes_between_is_compared_on_both_sides(session: Session) -> None:
    task, run = make_task(session), make_run(session)
    first = finish_evaluation(session, make_checkpoint(session, run, 10), task, 0.3)
    last = finish_evaluation(session, make_checkpoint(session, run, 30), task, 0.6)
    compare(session, last)
    assert session.get_one(Change, last.id).against_id == first.id
    middle = finish_evaluation(session, make_checkpoint(session, run, 20), task, 0.6)
    compare(session, middle)
    session.expire_all()
    assert session.get_one(Change, middle.id).against_id == first.id
    assert session.get_one(Change, last.id).against_id == middle.id
    assert verdicts(session, run) == {(task.name, 20): "gain", (task.name, 30): "within noise"}


def test_another_protocol_is_not_compared(session: Session) -> None:
    task, run = make_task(session), make_run(session)
    finish_evaluation(session, make_checkpoint(session, run, 10), task, 0.3, protocol={"engine": "old"})
    after = finish_evaluation(session, make_checkpoint(session, run, 20), task, 0.6, protocol={"engine": "new"})
    compare(session, after)
    assert verdicts(session, run) == {}


def test_among_many_tasks_one_barely_better_is_within_noise(session: Session) -> None:
    run = make_run(session)
    tasks = [make_task(session, f"t{number:02}") for number in range(20)]
    draw = random.Random(1)
    before = {task.id: [draw.random() < 0.5 for _ in range(100)] for task in tasks}
    older, newer = make_checkpoint(session, run, 10), make_checkpoint(session, run, 20)
    for task in tasks:
        answered(session, older, task, before[task.id])
    found = []
    for number, task in enumerate(tasks):
        right = list(before[task.id])
        if number == 0:  # eight learned, one forgotten: p = 0.04 alone
            wrong = [at for at, hit in enumerate(right) if not hit][:8]
            right[right.index(True)] = False
            for at in wrong:
                right[at] = True
        found.append(answered(session, newer, task, right))
    for evaluation in found:
        compare(session, evaluation)
    change = session.get_one(Change, found[0].id)
    assert change.p_value is not None
    assert change.p_value < 0.05
    assert set(verdicts(session, run).values()) == {"within noise"}


def test_finishing_sends_for_the_comparison_and_a_lost_message_is_found(session: Session) -> None:
    task, run = make_task(session), make_run(session)
    done = finish_evaluation(session, make_checkpoint(session, run, 10), task, 0.3)
    assert (jobs.COMPARE, done.id) in session.info["deferred_jobs"]
    assert changes.forgotten(session) == [done.id]
    changes.mark_compared(session, done.id)
    session.flush()
    assert changes.forgotten(session) == []


def test_a_broken_sample_file_leaves_the_two_results_to_compare(session: Session, grow_home: Path) -> None:
    task, run = make_task(session), make_run(session)
    answered(session, make_checkpoint(session, run, 10), task, [True, False] * 50)
    after = answered(session, make_checkpoint(session, run, 20), task, [True, False] * 50)
    session.flush()
    for file in get_settings().samples_dir.rglob("*.parquet"):
        file.write_bytes(b"no parquet")
    compare(session, after)
    assert not session.get_one(Change, after.id).is_paired
