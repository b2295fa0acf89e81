"""The order of samples."""

from collections import Counter

from training.order import BLOCK, SampleOrder


def order(seed: int = 1) -> SampleOrder:
    windows = {"zh": 40, "en": 10, "code": 20, "unused": 5}
    return SampleOrder(seed=seed, num_windows=windows, mixture={"zh": 0.5, "en": 0.25, "code": 0.25})


def test_every_block_holds_the_mixture_exactly() -> None:
    places = [order().place(sample) for sample in range(3 * BLOCK)]
    for start in range(0, len(places), BLOCK):
        counts = Counter(place.language for place in places[start : start + BLOCK])
        assert counts == {"zh": 32, "en": 16, "code": 16}


def test_a_sample_does_not_depend_on_what_was_asked_before() -> None:
    forward = [order().place(sample) for sample in range(200)]
    asked_backward = order()
    assert [asked_backward.place(sample) for sample in reversed(range(200))] == forward[::-1]


def test_each_window_is_read_once_an_epoch_in_another_order() -> None:
    zh = [place.window for place in map(order().place, range(400)) if place.language == "zh"]
    first, second = zh[:40], zh[40:80]
    assert sorted(first) == sorted(second) == list(range(40))
    assert first != second


def test_another_seed_is_another_order() -> None:
    assert [order(1).place(sample) for sample in range(50)] != [order(2).place(sample) for sample in range(50)]


def test_a_tally_counts_what_the_places_say() -> None:
    found = order()
    for samples in (range(0), range(0, 5), range(60, 70), range(BLOCK, 3 * BLOCK), range(30, 5 * BLOCK + 7)):
        counted = Counter(found.place(sample).language for sample in samples)
        assert found.tally(samples) == {name: counted[name] for name in ("code", "en", "zh")}
