"""What pages say about a run."""

import datetime as dt

from sqlalchemy.orm import Session

from registry import runs
from registry.models.base import FINISHED, utcnow
from server import growth
from tests.factories import finish_evaluation, make_checkpoint, make_run, make_task


class TestAge:
    def test_a_run_that_has_not_begun(self, session: Session) -> None:
        age = growth.age_of(session, make_run(session))
        assert (age.exists, age.step, age.tokens_seen, age.newest) == (False, 0, 0, None)

    def test_the_newest_of_log_and_checkpoints_counts(self, session: Session) -> None:
        run = make_run(session)
        make_checkpoint(session, run, 100)
        runs.log_metrics(session, run, 250, 250 * 4096, {"train/loss": 3.0})
        age = growth.age_of(session, run)
        assert (age.step, age.tokens_seen, age.share) == (250, 250 * 4096, 0.25)

    def test_scores_done_and_to_come(self, session: Session) -> None:
        run, task = make_run(session), make_task(session)
        make_task(session, "other")
        finish_evaluation(session, make_checkpoint(session, run, 1), task, 0.3)
        age = growth.age_of(session, run)
        assert (age.num_done, age.num_open) == (1, 1)

    def test_a_run_is_live_while_it_is_heard_from(self, session: Session) -> None:
        run = make_run(session)
        assert growth.age_of(session, run).is_live
        run.heartbeat_at = utcnow() - dt.timedelta(minutes=10)
        assert not growth.age_of(session, run).is_live
        runs.set_status(session, run, FINISHED)
        assert not growth.age_of(session, run).is_live


def test_addresses_of_checkpoints_name_what_is_unusual(session: Session) -> None:
    run = make_run(session)
    assert growth.checkpoint_href(make_checkpoint(session, run, 5)) == "/runs/demo/checkpoints/5"
    chat = make_checkpoint(session, run, 5, kind="chat")
    assert growth.checkpoint_href(chat) == "/runs/demo/checkpoints/5?kind=chat"


def test_curves_come_in_the_order_of_abilities(session: Session) -> None:
    for name, ability in (("c", "code"), ("a", "astrology"), ("z", "chinese")):
        make_task(session, name, ability=ability)
    assert [group.ability for group in growth.growth_groups(session, make_run(session), "tokens")] == [
        "chinese",
        "code",
        "astrology",
    ]
