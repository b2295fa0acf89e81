"""Whether a checkpoint's evaluations may still cost engine time."""

from sqlalchemy.orm import Session

from registry import evaluations
from registry.settings import get_settings


def why_too_dear(session: Session, evaluation_id: int) -> str | None:
    """Why an evaluation is not begun, or not gone on with, in a sentence; None where the budget allows it.

    Before the first slice the cost is taken from the last time this task was run in the run.
    """
    limit = get_settings().evaluation_budget_seconds
    evaluation = evaluations.get_evaluation(session, evaluation_id)
    if not limit or evaluation.ignore_budget:
        return None
    spent = evaluations.seconds_spent(session, evaluation.checkpoint_id)
    expected = 0.0 if evaluation.num_done else evaluations.expected_seconds(session, evaluation)
    if spent + expected <= limit:
        return None
    return (
        f"Left out: the evaluations of this checkpoint have cost {spent:.0f} of their {limit:.0f} engine seconds, and "
        f"this one takes about {expected:.0f} more. It can be run by hand."
    )
