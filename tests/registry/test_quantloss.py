"""What quantization costs, from the answers to the curve; on both databases."""

from pathlib import Path

import pytest
from sqlalchemy.orm import Session

from registry import changes, evaluations, quantloss, tickets
from registry.changes import Found
from registry.models import Checkpoint, Evaluation, Run, Task
from registry.models.checkpoints import QUANTIZATION
from tests.factories import finish_evaluation, make_checkpoint, make_run, make_task


@pytest.fixture
def run(session: Session, grow_home: Path) -> Run:
    return make_run(session)


def make_form(session: Session, run: Run, step: int, bits: int = 4) -> Checkpoint:
    form = make_checkpoint(session, run, step, kind=f"form{bits}")
    form.kind, form.precision, form.origin = "pretrained", bits, QUANTIZATION
    session.flush()
    return form


def compare(session: Session, evaluation: Evaluation, found: Found | None = None) -> int:
    """As the comparing job does; `found` stands for what the sample files would say."""
    session.expire_all()  # the job has a session of its own
    loaded = changes.load(session, evaluation.id)
    assert loaded is not None
    pairs = quantloss.pairs(session, loaded)
    for pair in pairs:
        quantloss.record(session, pair, found or changes.difference(pair))
    session.flush()
    return len(pairs)


def paired(value: float, stderr: float = 0.01) -> Found:
    return Found(value, stderr, value - 2 * stderr, value + 2 * stderr, 0.2, 200, is_paired=True)


def test_a_form_is_held_against_its_step_whichever_is_finished_last(session: Session, run: Run) -> None:
    task = make_task(session)
    parent, form = make_checkpoint(session, run, 10), make_form(session, run, 10)
    make_checkpoint(session, run, 20)
    before = finish_evaluation(session, parent, task, 0.5)
    assert compare(session, before) == 0
    after = finish_evaluation(session, form, task, 0.47)

    assert compare(session, after) == 1
    assert compare(session, before) == 1, "a 16-bit evaluation that comes later finds the form"

    loss = quantloss.of_checkpoint(session, form)
    assert loss is not None
    [one] = loss.tasks
    assert (one.evaluation_id, one.against_id, one.is_paired) == (after.id, before.id, False)
    assert one.cost.value == pytest.approx(0.03)
    assert quantloss.of_checkpoint(session, parent) is None


def test_what_another_engine_measured_is_not_held_against_it(session: Session, run: Run) -> None:
    task = make_task(session)
    parent, form = make_checkpoint(session, run, 10), make_form(session, run, 10)
    finish_evaluation(session, parent, task, 0.5, protocol={"engine": "transformers"})
    after = finish_evaluation(session, form, task, 0.47, protocol={"engine": "vllm"})
    assert compare(session, after) == 0


def test_cost_is_positive_where_it_is_worse_whichever_way_the_metric_goes(session: Session, run: Run) -> None:
    right = make_task(session, "right", schedule="panel")
    bits = make_task(session, "bits", metric="bits_per_byte", higher_is_better=False, schedule="panel")
    late = make_task(session, "late", schedule="milestone")
    parent, form = make_checkpoint(session, run, 10), make_form(session, run, 10)
    parent.is_milestone = True
    for task, value in ((right, -0.04), (bits, 0.04), (late, -0.5)):
        finish_evaluation(session, parent, task, 0.5)
        evaluations.plan_tasks(session, form, [task])
        compare(session, finish_evaluation(session, form, task, 0.5), paired(value))

    loss = quantloss.of_checkpoint(session, form)

    assert loss is not None
    assert {one.task.name: (one.cost.value, one.low, one.high) for one in loss.tasks} == {
        "right": (0.04, pytest.approx(0.02), pytest.approx(0.06)),
        "bits": (0.04, pytest.approx(0.02), pytest.approx(0.06)),
        "late": (0.5, pytest.approx(0.48), pytest.approx(0.52)),
    }
    assert {name: found.value for name, found in loss.averages.items()} == {"share": 0.04, "bits_per_byte": 0.04}


def add_curve(session: Session, run: Run, task: Task, costs: list[float], bits: int = 4) -> None:
    for number, cost in enumerate(costs):
        step = 10 ** (number + 1)
        parent = session.query(Checkpoint).filter_by(run_id=run.id, step=step, precision=16).one_or_none()
        parent = parent or make_checkpoint(session, run, step)
        if not parent.is_milestone:
            parent.is_milestone = bool(finish_evaluation(session, parent, task, 0.5))
        form = make_form(session, run, step, bits)
        compare(session, finish_evaluation(session, form, task, 0.5), paired(-cost, 0.001))


def test_the_curve_has_a_line_a_precision_with_its_trend(session: Session, run: Run) -> None:
    task = make_task(session, schedule="panel")
    add_curve(session, run, task, [0.00, 0.01, 0.02, 0.03])
    add_curve(session, run, task, [0.001, 0.001], bits=8)

    losses = quantloss.of_run(session, run)
    eight, four = quantloss.average_lines(losses)

    assert (eight.bits, eight.metric, len(eight.points), eight.trend) == (8, "share", 2, None)
    assert [point.checkpoint.step for point in four.points] == [10, 100, 1000, 10_000]
    assert [one.name for one in quantloss.tasks_of(losses)] == [task.name]
    of_task = quantloss.task_lines(losses, task.name)[1]
    assert [point.value for point in of_task.points] == [point.value for point in four.points]
    assert of_task.points[0].n == 200
    assert four.trend is not None
    assert four.trend.slope == pytest.approx(0.01)
    assert four.trend.direction == "grows"


def test_a_run_without_forms_has_no_curve(session: Session, run: Run) -> None:
    make_checkpoint(session, run, 10)
    assert quantloss.average_lines(quantloss.of_run(session, run)) == []
    assert tickets.LANES[tickets.QUANTIZATION] == "quantization"
