"""Votes as evidence: rows that were changed are found, and administrators decide about what is odd."""

import pytest
from sqlalchemy import insert, select
from sqlalchemy.orm import Session

from registry import departures, standings, votes
from registry.errors import Conflict, NotFound
from registry.models import AuditEntry, Run, User, Vote
from registry.settings import get_settings
from tests.factories import make_checkpoint, make_run, make_user
from tests.registry.arena_battles import change_by_hand, decide

pytestmark = pytest.mark.usefixtures("no_broker")


@pytest.fixture
def user(session: Session) -> User:
    """Who votes."""
    return make_user(session)


@pytest.fixture
def run(session: Session) -> Run:
    """A run with two ages."""
    made = make_run(session)
    for step in (0, 100):
        make_checkpoint(session, made, step)
    return made


class TestSignatures:
    def test_an_honest_row_is_genuine(self, session: Session, user: User, run: Run) -> None:
        vote = decide(session, user, run)
        session.flush()
        session.expire_all()
        assert votes.is_genuine(vote)
        assert votes.verify(session) == []

    @pytest.mark.parametrize(
        "change",
        [{"choice": "bad"}, {"left_tokens": 99}, {"voter": "f" * 16}, {"flags": ["fast"]}, {"prompt_hash": "0" * 64}],
        ids=lambda change: next(iter(change)),
    )
    def test_a_changed_row_is_found(self, session: Session, user: User, run: Run, change: dict[str, object]) -> None:
        vote = decide(session, user, run)
        change_by_hand(session, vote, **change)
        assert votes.verify(session, run) == [vote.id]

    def test_so_is_a_copied_one(self, session: Session, user: User, run: Run) -> None:
        vote = decide(session, user, run)
        session.flush()
        columns = [column.name for column in Vote.__table__.columns if column.name not in ("id", "group_id")]
        session.execute(insert(Vote).values({name: getattr(vote, name) for name in columns}))
        copies = session.scalars(select(Vote.id).where(Vote.id != vote.id)).all()
        assert votes.verify(session) == list(copies)

    def test_another_secret_signs_otherwise(
        self, session: Session, user: User, run: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        vote = decide(session, user, run)
        session.flush()
        monkeypatch.setenv("GROW_SECRET_KEY", "another")
        get_settings.cache_clear()
        assert votes.verify(session) == [vote.id]

    def test_a_replaced_secret_is_noticed_at_the_next_visit(
        self, session: Session, user: User, run: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        votes.forget()
        first_secret = get_settings().secret
        old = [decide(session, user, run, prompt=f"prompt {number}").id for number in range(2)]
        assert votes.unsigned(session) == ()
        monkeypatch.setenv("GROW_SECRET_KEY", "another")
        get_settings.cache_clear()
        assert list(votes.unsigned(session)) == old
        decide(session, user, run, prompt="signed with the new one")
        assert list(votes.unsigned(session)) == old
        assert standings.load(session, run, "pretrained").num_left_out == 2
        monkeypatch.setenv("GROW_SECRET_KEY", first_secret)
        get_settings.cache_clear()
        assert len(votes.unsigned(session)) == 1, "the old secret brings them back"

    def test_what_was_looked_at_is_looked_at_again_when_asked_for(self, session: Session, user: User, run: Run) -> None:
        votes.forget()
        vote = decide(session, user, run)
        assert votes.unsigned(session) == ()
        change_by_hand(session, vote, choice="right")
        assert votes.unsigned(session) == ()
        assert list(votes.unsigned(session, afresh=True)) == [vote.id]
        assert list(votes.unsigned(session)) == [vote.id]

    def test_a_vote_outlives_its_voter_and_stays_genuine(self, session: Session, user: User, run: Run) -> None:
        vote = decide(session, user, run)
        departures.delete(session, user)
        session.expire_all()
        assert vote.user_id is None
        assert vote.group_id is None
        assert votes.verify(session) == []


class TestSettling:
    def flagged(self, session: Session, user: User, run: Run) -> Vote:
        vote = decide(session, user, run)
        vote.flags = ["fast"]
        votes.sign(session, vote)
        return vote

    @pytest.mark.parametrize(("does_count", "word"), [(True, "cleared"), (False, "confirmed")])
    def test_a_decision_is_signed_and_written_down(
        self, session: Session, user: User, run: Run, does_count: bool, word: str
    ) -> None:
        vote, admin = self.flagged(session, user, run), make_user(session, role="admin")
        assert [one.id for one in votes.flagged(session).votes] == [vote.id]
        assert not votes.counts(vote.flags)
        votes.settle(session, admin, vote.id, does_count=does_count)
        session.flush()
        assert vote.flags == ["fast", word]
        assert votes.counts(vote.flags) is does_count
        assert votes.verify(session) == []
        assert votes.count_waiting(session) == 0
        entry = session.scalars(select(AuditEntry).where(AuditEntry.action == f"vote_{word}")).one()
        assert (entry.subject, entry.actor_id) == (f"vote:{vote.id}", admin.id)
        with pytest.raises(Conflict):
            votes.settle(session, admin, vote.id, does_count=True)

    def test_what_was_changed_by_hand_is_never_made_to_count(self, session: Session, user: User, run: Run) -> None:
        vote = self.flagged(session, user, run)
        change_by_hand(session, vote, choice="bad")
        with pytest.raises(Conflict, match="by hand"):
            votes.settle(session, user, vote.id, does_count=True)

    def test_an_unknown_vote_is_not_found(self, session: Session, user: User) -> None:
        with pytest.raises(NotFound):
            votes.settle(session, user, 12345, does_count=True)


def test_raw_votes_come_in_order_from_where_one_was(session: Session, user: User, run: Run) -> None:
    made = [decide(session, user, run, prompt=f"question {number}").id for number in range(3)]
    assert [vote.id for vote in votes.of_run(session, run)] == made
    assert [vote.id for vote in votes.of_run(session, run, after=made[0])] == made[1:]
