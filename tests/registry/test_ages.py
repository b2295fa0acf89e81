"""Several ages of a model asked the same: columns, films, their limits, and which checkpoints a film shows."""

import itertools

import pytest
from sqlalchemy.orm import Session

from registry import ages, chats, tickets
from registry.errors import Conflict, Invalid, NotFound
from registry.models import ChatGroup, Checkpoint, User
from registry.models.base import CANCELLED
from registry.settings import get_settings
from tests.factories import make_checkpoint, make_run, make_user


@pytest.fixture
def user(session: Session) -> User:
    """Who asks."""
    return make_user(session)


@pytest.fixture
def asked(session: Session) -> list[Checkpoint]:
    """Three ages of a run."""
    run = make_run(session)
    return [make_checkpoint(session, run, step) for step in (0, 100, 200)]


def loaded(session: Session, user: User, group: ChatGroup) -> ChatGroup:
    """The group as its owner finds it."""
    session.flush()
    session.expire_all()
    return chats.get_group(session, user, group.public_id)


def test_all_columns_are_asked_the_same_with_one_seed(session: Session, user: User, asked: list[Checkpoint]) -> None:
    group = loaded(session, user, ages.open_side(session, user, asked, "Who are you?", {"max_tokens": 8}))
    turns = [chat.turns[0] for chat in group.chats]
    assert [chat.checkpoint.step for chat in group.chats] == [0, 100, 200]
    assert {turn.prompt for turn in turns} == {"Who are you?"}
    assert len({turn.params["seed"] for turn in turns}) == 1
    assert group.title == "Who are you?"


@pytest.mark.parametrize("number", [0, 1, 5])
def test_side_by_side_takes_two_to_four(session: Session, user: User, asked: list[Checkpoint], number: int) -> None:
    with pytest.raises(Invalid):
        ages.open_side(session, user, (asked * 2)[:number], "x", {})


def test_no_column_is_asked_while_one_is_answered(session: Session, user: User, asked: list[Checkpoint]) -> None:
    group = loaded(session, user, ages.open_side(session, user, asked, "one", {}))
    with pytest.raises(Conflict, match="still being written"):
        ages.ask_all(session, group, "two", {})


def test_stopping_all_frees_every_place_and_the_next_question_goes_to_all(
    session: Session, user: User, asked: list[Checkpoint]
) -> None:
    group = loaded(session, user, ages.open_side(session, user, asked, "one", {}))
    assert ages.progress(group) == ages.Progress(3, 0)
    ages.stop_all(session, group)
    assert {chat.turns[0].status for chat in group.chats} == {CANCELLED}
    assert not ages.progress(group).is_running
    assert tickets.num_queued(session) == 0
    assert [turn.position for turn in ages.ask_all(session, group, "two", {})] == [1, 1, 1]


def test_a_film_waits_in_the_lane_of_probes_and_there_is_one_at_a_time(
    session: Session, user: User, asked: list[Checkpoint]
) -> None:
    group = loaded(session, user, ages.open_film(session, user, asked, "Once", {"seed": 3}))
    lanes = [tickets.for_turn(session, chat.turns[0].id) for chat in group.chats]
    assert [ticket.lane for ticket in lanes if ticket is not None] == [tickets.PROBE] * 3
    with pytest.raises(Conflict, match="film"):
        ages.open_film(session, user, asked, "Twice", {})
    first = {chat.turns[0].id for chat in group.chats}
    ages.stop_all(session, group)
    again = loaded(session, user, ages.open_film(session, user, asked, "Once", {"seed": 3}))
    assert first.isdisjoint(chat.turns[0].id for chat in again.chats)


def test_films_of_several_people_share_every_swap(session: Session, user: User, asked: list[Checkpoint]) -> None:
    for person in (user, make_user(session), make_user(session)):
        ages.open_film(session, person, asked, "Once", {"max_tokens": 8})
    session.flush()
    together: list[tuple[int, int]] = []
    resident = None
    while taken := tickets.claim_some(session, "worker", 64, resident_id=resident, lanes=[tickets.PROBE]):
        [resident] = {claim.checkpoint_id for claim in taken}
        together.append((resident, len(taken)))
        for claim in taken:
            tickets.finish(session, claim.ticket_id, claim.fence)
    assert together == [(one.id, 3) for one in asked]


def test_a_film_has_an_end(session: Session, user: User, asked: list[Checkpoint]) -> None:
    with pytest.raises(Invalid, match="frames"):
        ages.open_film(session, user, asked * get_settings().film_frames, "x", {})


def test_a_column_goes_on_with_another_checkpoint_and_what_was_said(
    session: Session, user: User, asked: list[Checkpoint]
) -> None:
    group = loaded(session, user, ages.open_side(session, user, asked[:2], "one", {}))
    old = group.chats[0]
    with pytest.raises(Conflict):
        ages.swap(session, user, group, old, asked[2])
    ages.stop_all(session, group)
    copy = ages.swap(session, user, group, old, asked[2])
    found = loaded(session, user, group)
    assert [chat.checkpoint.step for chat in found.chats] == [200, 100]
    assert [turn.prompt for turn in found.chats[0].turns] == ["one"]
    assert found.chats[0].id == copy.id
    assert chats.get_chat(session, user, old.public_id).group_id is None


def test_log_spacing_keeps_both_ends_and_shows_the_early_ages_closer() -> None:
    steps = list(range(0, 10_001, 100))
    chosen = ages.log_spaced(steps, 6)
    gaps = [later - earlier for earlier, later in itertools.pairwise(chosen)]
    assert (chosen[0], chosen[-1], len(chosen)) == (0, 100, 6)
    assert gaps == sorted(gaps)


@pytest.mark.parametrize(("steps", "count", "chosen"), [([], 5, []), ([0, 10], 5, [0, 1]), ([0, 10, 20], 1, [2])])
def test_log_spacing_of_few(steps: list[int], count: int, chosen: list[int]) -> None:
    assert ages.log_spaced(steps, count) == chosen


class TestChoice:
    @pytest.fixture
    def able(self, session: Session) -> list[Checkpoint]:
        """Twelve ages, two of them milestones."""
        run = make_run(session, "choice")
        made = [make_checkpoint(session, run, step) for step in range(0, 1200, 100)]
        made[0].is_milestone = made[10].is_milestone = True
        return made

    @pytest.mark.parametrize(
        ("how", "count", "steps", "chosen"),
        [
            (ages.LAST, 3, (), [900, 1000, 1100]),
            (ages.LAST, 0, (), [1000, 1100]),
            (ages.MILESTONES, 3, (), [0, 1000]),
            (ages.HAND, 3, (700, 200, 5), [200, 700]),
            (ages.SPREAD, 3, (), [0, 100, 1100]),
            (ages.SPREAD, 100, (), list(range(0, 1200, 100))),
        ],
    )
    def test_the_frames_of_a_film(
        self, able: list[Checkpoint], how: str, count: int, steps: tuple[int, ...], chosen: list[int]
    ) -> None:
        assert [one.step for one in ages.choose(able, how, count, steps)] == chosen


def test_another_answer_stands_beside_the_first_with_another_seed(
    session: Session, user: User, asked: list[Checkpoint]
) -> None:
    group = loaded(session, user, ages.open_side(session, user, asked, "one", {"seed": 3, "max_tokens": 8}))
    with pytest.raises(Conflict):
        ages.ask_again(session, group.chats)
    ages.stop_all(session, group)
    assert {turn.params["seed"] for turn in ages.ask_again(session, group.chats)} == {4}
    group = loaded(session, user, group)
    ages.stop(session, group.chats[1])
    [one] = ages.ask_again(session, group.chats[1:2], {"seed": 4, "max_tokens": 9})
    assert one.params == {"seed": 5, "max_tokens": 9}
    group = loaded(session, user, group)
    assert [len(chat.turns) for chat in group.chats] == [2, 3, 2]
    assert [len(chats.branch(chat)) for chat in group.chats] == [1, 1, 1]

    first = group.chats[1].turns[0]
    ages.show(group, first.id)
    assert chats.branch(group.chats[1]) == [first]
    with pytest.raises(NotFound):
        ages.show(group, 999_999)


def test_a_system_prompt_goes_to_chat_models_alone(session: Session, user: User, asked: list[Checkpoint]) -> None:
    talker = make_checkpoint(session, make_run(session, "talk"), 5, kind="chat")
    group = loaded(session, user, ages.open_side(session, user, [asked[0], talker], "x", {"system": "Be brief."}))
    assert ["system" in chat.turns[0].params for chat in group.chats] == [False, True]
