"""What requests have in common is computed once, and nobody sees anything else for it."""

import random

from worker.engine.prefixes import Row, batches, pack
from worker.engine.protocol import ScoreRequest


def seen_by(row: Row, place: int) -> list[int]:
    """The tokens that a place of a row attends to, as the mask of `worker.engine.likelihood` has it."""
    return [row.token_ids[other] for other in range(place + 1) if place < row.ends[other]]


def make_items(num_items: int, *, shared: int = 0) -> list[ScoreRequest]:
    """Items of four choices; all contexts begin with the same `shared` tokens."""
    draw = random.Random(3)
    examples = [draw.randrange(100) for _ in range(shared)]
    requests = []
    for _ in range(num_items):
        context = [*examples, *(draw.randrange(100) for _ in range(draw.randrange(20, 40)))]
        choices = [[draw.randrange(100) for _ in range(draw.randrange(1, 9))] for _ in range(4)]
        requests += [ScoreRequest(context, choice) for choice in choices]
    return requests


def test_every_continuation_token_is_predicted_from_exactly_what_stands_before_it():
    requests = make_items(12, shared=30)
    random.Random(1).shuffle(requests)
    answered = []
    for row in pack(requests, width=64, max_tokens=400):
        for read in row.reads:
            request = requests[read.index]
            for number, (place, target) in enumerate(zip(read.places, read.targets, strict=True)):
                assert seen_by(row, place) == request.context + request.continuation[:number]
                assert row.positions[place] == len(request.context) + number - 1
                assert target == request.continuation[number]
            answered.append(read.index)
    assert sorted(answered) == list(range(len(requests)))


def test_the_context_of_an_items_choices_stands_once_wherever_the_choices_stand_in_the_call():
    one, two = [1, 2, 3, 4, 5, 6, 7, 8], [1, 9, 9, 9, 9, 9, 9, 9]
    requests = [ScoreRequest(context, choice) for choice in ([11, 12], [13, 14, 15], [16]) for context in (one, two)]
    rows = pack(requests, width=64, max_tokens=100)
    assert [sorted(read.index for read in row.reads) for row in rows] == [[0, 2, 4], [1, 3, 5]]
    assert sorted(rows[0].token_ids) == [1, 2, 3, 4, 5, 6, 7, 8, 11, 13, 14]


def test_items_that_share_long_examples_share_a_row_and_others_do_not():
    few_shot = pack(make_items(8, shared=300), width=256, max_tokens=4_096)
    assert len(few_shot) == 1
    assert len(few_shot[0]) < 300 + 8 * 80
    assert len(pack(make_items(8, shared=1), width=256, max_tokens=4_096)) == 8


def test_the_same_request_twice_is_computed_once():
    request = ScoreRequest([1, 2, 3], [4, 5])
    [row] = pack([request, request], width=64, max_tokens=100)
    assert row.token_ids == [1, 2, 3, 4]
    assert [read.places for read in row.reads] == [[2, 3], [2, 3]]


def test_a_row_grows_no_further_than_it_may_except_by_a_single_long_request():
    rows = pack(make_items(20, shared=100), width=4_096, max_tokens=250)
    assert len(rows) > 1
    assert max(map(len, rows)) <= 250
    [long] = pack([ScoreRequest([1] * 300, [2])], width=64, max_tokens=250)
    assert len(long) == 300


def test_batches_hold_rows_of_one_length_within_their_size():
    rows = pack(make_items(40), width=64, max_tokens=400)
    found = list(batches(rows, 300))
    assert [row for batch in found for row in batch] == rows
    assert all(len(batch) == 1 or len(batch) * len(batch[0]) <= 300 for batch in found)
    assert list(batches([], 300)) == []


def test_the_last_batches_are_smaller_so_that_lanes_end_together():
    rows = pack(make_items(200), width=64, max_tokens=400)
    sizes = [sum(map(len, batch)) for batch in batches(rows, 1_000)]
    assert sum(sizes) == sum(map(len, rows))
    assert sizes[0] > 800
    assert sizes[-2] <= 500, "no lane works long while the other one has nothing left"
