"""The line played forward: who begins when, by rules that can be checked by hand."""

import pytest

from registry.schedule import Engine, Waiting, starts

CHAT, PROBE = 0, 2


def engine(checkpoint_id: int | None = 1, **fields: object) -> Engine:
    return Engine(**{"checkpoint_id": checkpoint_id, "max_answers": 2, "patience": 20.0, "load_seconds": 1.0, **fields})  # type: ignore[arg-type]


def wait(
    ticket_id: int, checkpoint_id: int = 1, *, lane: int = CHAT, waited: float = 0.0, seconds: float = 4.0
) -> Waiting:
    return Waiting(ticket_id, lane, checkpoint_id, waited, seconds)


def test_nobody_can_say_anything_without_an_engine() -> None:
    assert starts([], [wait(1)]) == {}


def test_answers_begin_at_once_while_there_is_room() -> None:
    assert starts([engine()], [wait(1), wait(2)]) == {1: 0.0, 2: 0.0}


def test_the_third_waits_for_the_first_to_end() -> None:
    assert starts([engine()], [wait(1, seconds=3.0), wait(2), wait(3)])[3] == pytest.approx(3.0)


def test_another_checkpoint_waits_for_all_and_for_the_swap() -> None:
    found = starts([engine()], [wait(1, seconds=3.0), wait(2, seconds=5.0), wait(3, checkpoint_id=2)])
    assert found[3] == pytest.approx(6.0)


def test_a_slice_of_an_evaluation_is_waited_for_by_another_checkpoint_only() -> None:
    found = starts([engine(slice_until=2.0)], [wait(1), wait(2, checkpoint_id=2)])
    assert found == {1: 0.0, 2: pytest.approx(5.0)}


def test_who_has_waited_long_enough_stops_new_answers_of_the_resident_checkpoint() -> None:
    busy = engine(busy=[2.0])
    found = starts([busy], [wait(1), wait(2, checkpoint_id=2, waited=19.0)])
    assert found[2] == pytest.approx(3.0)
    assert found[1] > found[2]


def test_one_swap_serves_all_who_wait_for_a_checkpoint() -> None:
    line = [wait(number, checkpoint_id=1 + number % 2, seconds=1.0) for number in range(4)]
    found = starts([engine(1)], line)
    assert sorted(found, key=lambda ticket_id: found[ticket_id]) == [0, 2, 1, 3]


def test_two_engines_share_the_line() -> None:
    found = starts([engine(1), engine(2)], [wait(1), wait(2, checkpoint_id=2)])
    assert found == {1: 0.0, 2: 0.0}


def test_a_better_lane_goes_first_when_the_engine_is_free() -> None:
    found = starts([engine(None, max_answers=1)], [wait(1, lane=PROBE), wait(2, lane=CHAT)])
    assert found[2] < found[1]


def test_a_long_line_is_played_in_a_moment() -> None:
    line = [wait(number, checkpoint_id=number % 7, seconds=2.0) for number in range(2_000)]
    found = starts([engine(1, max_answers=64)], line)
    assert len(found) == 2_000
