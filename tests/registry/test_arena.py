"""The arena: blind battles, one vote each, and nothing that tells before it who wrote what."""

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from registry import arena, chats, conversations, departures, events, reports, tickets
from registry.errors import Conflict, Invalid, NotFound
from registry.models import Chat, Run, Ticket, User
from registry.models.base import CANCELLED
from tests.factories import make_checkpoint, make_half, make_run, make_user
from tests.registry.arena_battles import answer, decide, open_battle

pytestmark = pytest.mark.usefixtures("no_broker")


@pytest.fixture
def user(session: Session) -> User:
    """Who votes."""
    return make_user(session)


@pytest.fixture
def run(session: Session) -> Run:
    """A run with three ages."""
    made = make_run(session)
    for step in (0, 100, 200):
        make_checkpoint(session, made, step)
    return made


class TestOpening:
    def test_two_checkpoints_are_asked_the_same_with_different_seeds(
        self, session: Session, user: User, run: Run
    ) -> None:
        battle = open_battle(session, user, run)
        left, right = battle.checkpoints
        assert left.id != right.id
        assert [turn.prompt for turn in battle.turns] == ["Who are you?"] * 2
        seeds = [turn.params.pop("seed") for turn in battle.turns]
        assert seeds[0] != seeds[1]
        assert battle.left.params == battle.right.params == {"max_tokens": 16}
        lanes = session.scalars(select(Ticket.lane).where(Ticket.turn_id.in_([turn.id for turn in battle.turns])))
        assert set(lanes) == {tickets.ARENA}

    def test_a_lone_checkpoint_has_nobody_to_meet(self, session: Session, user: User) -> None:
        lonely = make_run(session, "lonely")
        make_checkpoint(session, lonely, 0)
        with pytest.raises(Conflict, match="no two checkpoints"):
            arena.open_battle(session, user, lonely, "pretrained", "Who?", {})

    def test_a_chat_model_never_meets_a_pretrained_one(self, session: Session, user: User, run: Run) -> None:
        for step in (100, 200):
            make_checkpoint(session, run, step, kind="chat")
        assert arena.kinds(session, run) == ["pretrained", "chat"]
        assert {one.kind for one in arena.candidates(session, run, "chat")} == {"chat"}

    def test_precisions_of_one_step_meet(self, session: Session, user: User) -> None:
        run = make_run(session, "squeezed")
        whole = make_checkpoint(session, run, 100)
        half = make_half(session, run, 100)
        assert arena.candidates(session, run, "pretrained") == [whole, half]
        assert arena.kinds(session, run) == ["pretrained"]
        battle = open_battle(session, user, run)
        assert {one.precision for one in battle.checkpoints} == {8, 16}
        # Each has a rating of its own, not one of the step.
        vote = decide(session, user, run, "left", prompt="And now?")
        assert {vote.left_id, vote.right_id} == {whole.id, half.id}

    def test_a_long_run_is_thinned(self, session: Session) -> None:
        long_run = make_run(session, "long")
        for step in range(60):
            make_checkpoint(session, long_run, step)
        found = [one.step for one in arena.candidates(session, long_run, "pretrained")]
        assert len(found) == arena.POOL_STEPS
        assert (found[0], found[-1]) == (0, 59)


class TestExpectedWait:
    def test_it_reaches_from_whom_an_engine_holds_to_two_that_must_be_fetched(
        self, session: Session, run: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        held = arena.candidates(session, run, "pretrained")[1].id

        def facts(checkpoint_id: int | None) -> None:
            own = {"checkpoint_id": checkpoint_id, "max_answers": 1, "patience": 0.0, "load_seconds": 5.0}
            monkeypatch.setattr(events, "worker_facts", lambda: {"w": own})

        facts(None)
        cold = arena.expect(session, run, "pretrained", 100)
        facts(held)
        warm = arena.expect(session, run, "pretrained", 100)
        assert cold is not None
        assert warm is not None
        assert warm.low_seconds < cold.low_seconds
        assert warm.high_seconds == pytest.approx(cold.high_seconds)

    def test_without_a_worker_nothing_is_promised(self, session: Session, run: Run) -> None:
        assert arena.expect(session, run, "pretrained", 100) is None

    def test_nor_where_nobody_can_meet(self, session: Session) -> None:
        lonely = make_run(session, "lonely")
        with pytest.raises(Conflict, match="no two checkpoints"):
            arena.expect(session, lonely, "pretrained", 100)


class TestVoting:
    def test_the_vote_says_who_met_whom_and_nobody_who_voted(self, session: Session, user: User, run: Run) -> None:
        vote = decide(session, user, run, "left")
        assert vote.choice == "left"
        assert vote.flags == []
        assert (vote.left_tokens, vote.right_tokens) == (3, 4)
        assert len(vote.voter) == 16
        assert user.name not in vote.voter + vote.address_hash + vote.prompt_hash
        assert arena.count_votes(session, user) == 1

    def test_there_is_one_vote_a_battle(self, session: Session, user: User, run: Run) -> None:
        battle = answer(session, user, open_battle(session, user, run))
        arena.vote(session, user, battle, "tie", "10.0.0.1")
        # As seen by a second click that read the battle before the first one was recorded.
        with pytest.raises(Conflict, match="voted"):
            arena.vote(session, user, battle, "left", "10.0.0.1")
        session.expire_all()
        again = arena.get_battle(session, user, battle.group.public_id)
        assert again.vote is not None
        assert again.vote.choice == "tie"
        with pytest.raises(Conflict, match="voted"):
            arena.vote(session, user, again, "left", "10.0.0.1")

    def test_both_answers_must_be_whole(self, session: Session, user: User, run: Run) -> None:
        battle = open_battle(session, user, run)
        with pytest.raises(Conflict, match="whole"):
            arena.vote(session, user, battle, "left", "10.0.0.1")

    def test_there_are_four_choices(self, session: Session, user: User, run: Run) -> None:
        battle = answer(session, user, open_battle(session, user, run))
        with pytest.raises(Invalid):
            arena.vote(session, user, battle, "middle", "10.0.0.1")

    def test_only_the_owner_sees_it(self, session: Session, user: User, run: Run) -> None:
        battle = open_battle(session, user, run)
        with pytest.raises(NotFound):
            arena.get_battle(session, make_user(session), battle.group.public_id)


class TestLeaving:
    def test_an_undecided_battle_waits_to_be_gone_on_with(self, session: Session, user: User, run: Run) -> None:
        assert arena.unfinished(session, user) is None
        battle = answer(session, user, open_battle(session, user, run))
        found = arena.unfinished(session, user)
        assert found is not None
        assert found.id == battle.group.id
        arena.vote(session, user, battle, "bad", "10.0.0.1")
        assert arena.unfinished(session, user) is None

    def test_giving_up_frees_both_places(self, session: Session, user: User, run: Run) -> None:
        battle = open_battle(session, user, run)
        arena.give_up(session, battle)
        assert {turn.status for turn in battle.turns} == {CANCELLED}
        with pytest.raises(NotFound):
            arena.get_battle(session, user, battle.group.public_id)
        assert arena.unfinished(session, user) is None

    def test_a_stopped_answer_makes_it_void(self, session: Session, user: User, run: Run) -> None:
        battle = open_battle(session, user, run)
        chats.cancel_turn(session, battle.left)
        assert battle.is_void
        assert arena.unfinished(session, user) is None

    def test_a_decided_one_cannot_be_given_up(self, session: Session, user: User, run: Run) -> None:
        battle = answer(session, user, open_battle(session, user, run))
        arena.vote(session, user, battle, "left", "10.0.0.1")
        session.expire_all()
        with pytest.raises(Conflict):
            arena.give_up(session, arena.get_battle(session, user, battle.group.public_id))


class TestBlindness:
    def test_its_threads_are_no_conversations(self, session: Session, user: User, run: Run) -> None:
        battle = answer(session, user, open_battle(session, user, run))
        chat = session.get_one(Chat, battle.left.chat_id)
        with pytest.raises(NotFound):
            chats.get_chat(session, user, chat.public_id)
        with pytest.raises(NotFound):
            chats.own_turn(session, user, battle.left.id)
        for public_id in (chat.public_id, battle.group.public_id):
            with pytest.raises(NotFound):
                conversations.find(session, user, public_id)
        assert chats.list_chats(session, user) == []
        assert conversations.history(session, user).entries == []

    def test_nor_once_it_is_given_up(self, session: Session, user: User, run: Run) -> None:
        battle = open_battle(session, user, run)
        arena.give_up(session, battle)
        assert conversations.cleared(session, user, battle.group.public_id) is None

    def test_ones_own_data_do_not_tell_before_the_vote(self, session: Session, user: User, run: Run) -> None:
        battle = answer(session, user, open_battle(session, user, run))
        assert b"demo@" not in departures.export(session, user)
        arena.vote(session, user, battle, "left", "10.0.0.1")
        assert b"demo@" in departures.export(session, user)

    def test_its_answers_can_be_reported(self, session: Session, user: User, run: Run) -> None:
        battle = answer(session, user, open_battle(session, user, run))
        assert reports.readable_turn(session, user, battle.left.id).id == battle.left.id
