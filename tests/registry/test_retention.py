"""Retention: what a rule keeps and why, what a dry run says, and when the files go."""

import datetime as dt
from collections.abc import Callable

import pytest
from sqlalchemy.orm import Session

from registry import aliases, averages, chats, checkpoints, evaluations, joblog, retention, runs
from registry.errors import Conflict, Invalid
from registry.models import Checkpoint, Run, Task, Vote
from registry.models.base import FINISHED, READY, RETIRED, utcnow
from registry.settings import get_settings
from registry.store import MANIFEST, Manifest
from tests.factories import finish_evaluation, make_checkpoint, make_half, make_run, make_task, make_user

Kept = dict[int, list[str]]


@pytest.fixture
def task(session: Session) -> Task:
    return make_task(session)


@pytest.fixture
def run(session: Session, task: Task) -> Run:
    """Six checkpoints with falling scores, so that the first is the best; only the newest and the best are kept."""
    run = make_run(session)
    for step in range(6):
        finish_evaluation(session, make_checkpoint(session, run, step), task, 0.9 - step / 10)
    set_rule(session, run)
    return run


def set_rule(session: Session, run: Run, **changes: int) -> None:
    rule = {"keep_newest": 1, "keep_best": 1, "keep_milestones": False, "is_scheduled": False} | changes
    retention.set_rule(session, run, **rule, user=None)  # type: ignore[arg-type]


def kept(session: Session, run: Run) -> Kept:
    judged = retention.judge(session, run, retention.get_rule(session, run))
    return {one.checkpoint.step: [reason.kind for reason in one.reasons] for one in judged if one.reasons}


def at(session: Session, run: Run, step: int) -> Checkpoint:
    return checkpoints.get_checkpoint(session, run, step)


def test_a_rule_keeps_the_newest_the_best_of_each_task_and_milestones(session: Session, run: Run) -> None:
    latest, best = ["newest", "alias"], ["best", "alias"]
    assert kept(session, run) == {5: latest, 0: best}
    set_rule(session, run, keep_newest=2, keep_best=0)
    assert kept(session, run) == {5: latest, 4: ["newest"], 0: ["alias"]}
    at(session, run, 3).is_milestone = True
    set_rule(session, run, keep_best=2, keep_milestones=1)
    assert kept(session, run) == {5: latest, 3: ["milestone"], 1: ["best"], 0: best}


def test_the_best_is_the_lowest_where_lower_is_better(session: Session, run: Run) -> None:
    bits = make_task(session, "bits", metric="bits_per_byte", higher_is_better=False)
    for step in range(6):
        finish_evaluation(session, at(session, run, step), bits, 2.0 - (step == 3))
    assert kept(session, run)[3] == ["best"]
    reasons = next(one.reasons for one in retention.dry_run(session, run).judgements if one.checkpoint.step == 3)
    assert reasons[0].names == ("bits",)


def _chat(session: Session, run: Run) -> None:
    chats.open_chat(session, make_user(session), at(session, run, 2))


def _vote(session: Session, run: Run) -> None:
    vote = Vote(run_id=run.id, left_id=at(session, run, 2).id, right_id=at(session, run, 5).id, choice="left")
    vote.left_tokens = vote.right_tokens = 0
    vote.prompt_hash = vote.voter = vote.address_hash = vote.signature = ""
    session.add(vote)


def _alias(session: Session, run: Run) -> None:
    aliases.set_alias(session, run, "stable", at(session, run, 2), None)


def _release(session: Session, run: Run) -> None:
    checkpoints.release(session, at(session, run, 2))


def _branch(session: Session, run: Run) -> None:
    make_run(session, "branch", origin=runs.Origin(run, 2))


def _evaluate(session: Session, run: Run) -> None:
    evaluations.plan_tasks(session, at(session, run, 2), [make_task(session, "more", schedule="asked")])


def _job(session: Session, run: Run) -> None:
    joblog.plan(session, joblog.QUANTIZE, checkpoint=at(session, run, 2))


def _average(session: Session, run: Run) -> None:
    averages.plan(session, run, last=2, until=3)


def _unfinished(session: Session, run: Run) -> None:
    task = make_task(session, "other")
    for step in range(6):
        finish_evaluation(session, at(session, run, step), task, 0.5 - step / 100)
    found = next(one for one in evaluations.for_checkpoint(session, at(session, run, 2)) if one.task_id == task.id)
    evaluations.fail(session, found.id, "It broke.")


@pytest.mark.parametrize(
    ("refer", "reason"),
    [
        (_chat, "chats"),
        (_vote, "votes"),
        (_alias, "alias"),
        (_release, "released"),
        (_branch, "branch"),
        (_evaluate, "open"),
        (_job, "open"),
        (_average, "open"),
        (_unfinished, "unevaluated"),
    ],
)
def test_what_somebody_relies_on_stays(
    session: Session, run: Run, refer: Callable[[Session, Run], None], reason: str
) -> None:
    refer(session, run)
    session.flush()
    assert kept(session, run)[2] == [reason]


def test_a_conversation_that_its_owner_deleted_keeps_nothing(session: Session, run: Run) -> None:
    chat = chats.open_chat(session, make_user(session), at(session, run, 2))
    chat.cleared_at = utcnow()
    session.flush()
    assert 2 not in kept(session, run)


def test_parents_stay_as_long_as_what_was_made_of_them(session: Session, run: Run, task: Task) -> None:
    half = make_half(session, run, 2)
    average = make_checkpoint(session, run, 4, kind="avg2")
    checkpoints.add_parents(session, half, [at(session, run, 2)], "quantization")
    checkpoints.add_parents(session, average, [at(session, run, 3), at(session, run, 4)], "average")
    for one in (half, average):
        finish_evaluation(session, one, task, 0.1)
    session.flush()
    found = kept(session, run)
    assert (found[2], found[3]) == (["parent"], ["parent"])  # each is the newest of its form
    newer = make_checkpoint(session, run, 5, kind="avg2")
    finish_evaluation(session, newer, task, 0.2)  # newer and better: the average goes, and with it its parents
    assert 3 not in kept(session, run)


def test_a_run_without_a_rule_keeps_everything(session: Session, run: Run) -> None:
    retention.remove_rule(session, run, None)
    assert retention.dry_run(session, run).going == []
    with pytest.raises(Conflict, match="has no rule"):
        retention.plan(session, run)


def test_a_dry_run_counts_what_nobody_else_holds_and_changes_nothing(session: Session, run: Run) -> None:
    shared = at(session, run, 5).manifest["files"]["model.safetensors"]
    one = at(session, run, 1)
    own = {"size": 70, "sha256": "f" * 64}
    one.manifest = {**one.manifest, "files": {"model.safetensors": own, "tokenizer.json": shared}}
    session.flush()
    found = retention.dry_run(session, run)
    assert [one.step for one in found.going] == [4, 3, 2, 1]
    assert found.num_bytes == 3 * 1000 + 70
    assert all(one.checkpoint.state == READY for one in found.judgements)


@pytest.mark.parametrize("changes", [{"keep_newest": 0}, {"keep_newest": -1}, {"keep_best": -1}, {"keep_best": 10**6}])
def test_a_rule_out_of_range_is_refused(session: Session, run: Run, changes: dict[str, int]) -> None:
    with pytest.raises(Invalid, match="Keep"):
        set_rule(session, run, **changes)


def test_retiring_asks_once_more_whether_anything_keeps_it(session: Session, run: Run) -> None:
    job = retention.plan(session, run)
    wanted, free = at(session, run, 2), at(session, run, 3)
    chats.open_chat(session, make_user(session), wanted)
    assert retention.retire(session, run, wanted.id, job.id) is None
    assert retention.retire(session, run, free.id, job.id) is free
    assert retention.retire(session, run, free.id, job.id) is None
    assert (wanted.state, free.state) == (READY, RETIRED)
    assert retention.half_deleted(session, job.id) is free
    assert 3 not in {one.checkpoint.step for one in retention.judge(session, run, retention.get_rule(session, run))}
    with pytest.raises(Conflict, match="its files stay"):
        retention.delete_files(wanted)


def test_what_is_scheduled_is_due_once_a_day(session: Session, run: Run) -> None:
    assert retention.plan_due(session) == []
    set_rule(session, run, is_scheduled=1)
    [job] = retention.plan_due(session)
    assert (job.kind, job.args) == (joblog.RETENTION, {"run": "demo"})
    assert retention.plan_due(session) == []
    job.status = FINISHED
    rule = retention.get_rule(session, run)
    assert rule is not None
    rule.applied_at = utcnow() - dt.timedelta(days=1, seconds=1)
    session.flush()
    assert len(retention.plan_due(session)) == 1


def test_pushing_the_same_files_again_brings_a_retired_checkpoint_back(session: Session, run: Run) -> None:
    job = retention.plan(session, run)
    gone = retention.retire(session, run, at(session, run, 3).id, job.id)
    assert gone is not None
    retention.forget_folder(session, gone, job.id)
    assert gone.folder == ""
    manifest = Manifest(files=gone.manifest["files"], facts=gone.manifest["facts"])
    with pytest.raises(Conflict, match="exists already with other files"):
        checkpoints.register(session, run, step=3, folder="x", manifest=Manifest(files={}, facts={}))
    assert checkpoints.register(session, run, step=3, folder="demo/again", manifest=manifest) is gone
    assert (gone.state, gone.folder) == ("verifying", "demo/again")
    assert len(evaluations.for_checkpoint(session, gone)) == 1


def test_files_go_with_the_manifest_first_and_only_inside_of_the_checkpoints(session: Session, run: Run) -> None:
    gone = at(session, run, 3)
    gone.state, gone.folder = RETIRED, "demo/step-3"
    folder = get_settings().checkpoints_dir / gone.folder
    (folder / "sub").mkdir(parents=True)
    for name in (MANIFEST, "model.safetensors", "sub/more.json"):
        (folder / name).write_bytes(b"x" * 10)
    with (folder / "model.safetensors").open("rb") as reader:
        retention.delete_files(gone)
        assert not folder.exists()
        assert reader.read() == b"x" * 10  # whoever reads is not cut off
    retention.delete_files(gone)  # again is nothing
    gone.folder = "../checkpoints/../secret"
    with pytest.raises(Invalid, match="outside"):
        retention.delete_files(gone)
