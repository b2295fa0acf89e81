"""A history of forecasts: what the comparing job would have written down while the seeded run was training."""

from sqlalchemy import select
from sqlalchemy.orm import Session

from registry import changes, forecasts, growth, runs, suites
from registry.models import Checkpoint, Evaluation, Task
from registry.models.base import FINISHED


def replay(session: Session, name: str = "demo") -> None:
    """Foretell every task of a run from each of its points, and score what has come since."""
    run = runs.get_run(session, name)
    tasks = [task for task in suites.list_tasks(session) if task.metric]
    for found in growth.growth_curves(session, run, tasks):
        curve = forecasts.task_curve(run, found)
        for end in range(1, len(curve.steps) + 1 if curve else 1):
            assert curve is not None
            so_far = curve._replace(steps=curve.steps[:end], tokens=curve.tokens[:end], values=curve.values[:end])
            forecasts.keep(session, forecasts.foretell(so_far))
    for evaluation in _newest(session, run.id):
        forecasts.score(session, evaluation)


def _newest(session: Session, run_id: int) -> list[Evaluation]:
    query = (
        select(Evaluation)
        .join(Evaluation.checkpoint)
        .join(Evaluation.task)
        .where(Checkpoint.run_id == run_id, Task.metric != "")
    )
    query = query.where(Evaluation.status == FINISHED, Checkpoint.kind == "pretrained")
    by_task = {found.task_id: found for found in session.scalars(query.order_by(Evaluation.id)).all()}
    return [_loaded(session, found.id) for found in by_task.values()]


def _loaded(session: Session, evaluation_id: int) -> Evaluation:
    found = changes.load(session, evaluation_id)
    assert found is not None
    return found
