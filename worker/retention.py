"""Deleting the files of checkpoints that the rule of their run lets go, one after another."""

import structlog

from registry import db, events, retention, runs
from registry.models import Checkpoint, Job
from registry.models.base import RETIRED
from worker.runner import Report

log = structlog.get_logger(__name__)


def apply_rule(job: Job, report: Report) -> None:
    """Apply the rule of the run `args["run"]`; with `args["only"]` to these checkpoints alone.

    Whether a checkpoint may go is asked again right before, in the transaction that retires it. Only then its files
    are deleted: whoever is killed in between leaves a retired checkpoint, and the job's next attempt goes on there.

    Raises:
        NotFound: there is no such run.
        Cancelled: nobody wants it any more; what is deleted stays deleted.
    """
    with db.read_session() as session:
        run = runs.get_run(session, job.args["run"])
        left = retention.half_deleted(session, job.id)
        going = retention.dry_run(session, run).going[::-1]
    if left is not None:
        _delete(left, job)
    only = job.args.get("only")
    chosen = [one for one in going if only is None or one.id in only]
    report(f"{len(chosen)} checkpoints of {run.name} may go.", 0.0)
    num_deleted = 0
    for number, checkpoint in enumerate(chosen, 1):
        with db.transaction() as session:
            retired = retention.retire(session, run, checkpoint.id, job.id)
        if retired is None:
            report(f"{checkpoint.label} stays: something needs it now.", number / len(chosen))
            continue
        _delete(retired, job)
        num_deleted += 1
        report(f"Deleted the files of {checkpoint.label}.", number / len(chosen))
    report(f"Deleted the files of {num_deleted} checkpoints.")


def _delete(checkpoint: Checkpoint, job: Job) -> None:
    retention.delete_files(checkpoint)
    with db.transaction() as session:
        retention.forget_folder(session, checkpoint, job.id)
    log.info("Deleted the files of a checkpoint.", checkpoint=checkpoint.label)
    place = {"run": checkpoint.run.name, "step": checkpoint.step, "checkpoint_id": checkpoint.id}
    events.publish_board("checkpoint", {**place, "state": RETIRED})
