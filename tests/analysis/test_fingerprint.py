"""Weights under the wrong step are noticed, and honest checkpoints are not suspected, late in a decay either."""

from collections.abc import Iterator

import numpy as np
import pytest

from analysis.fingerprint import distances, nearest, twin_warning

NUM_CHECKPOINTS = 60
NUM_DECAYING = 12
STEPS = np.arange(NUM_CHECKPOINTS) * 1000
SCORING_NOISE = 0.004
FLOOR = 0.05


def trajectory(seed: int, decay: str = "linear") -> np.ndarray:
    """[60, 64] log-probabilities of a run: a warm-up, fast learning, a long constant rate, a decay to zero."""
    rng = np.random.default_rng(seed)
    num_updates = NUM_CHECKPOINTS * 20
    at = np.arange(num_updates)
    rate = np.minimum(1.0, (at + 0.5) / 40)
    progress = np.linspace(0, 1, NUM_DECAYING * 20)
    rate[-progress.size :] = {
        "linear": 1 - progress,
        "square root": 1 - np.sqrt(progress),
        "cosine": (1 + np.cos(np.pi * progress)) / 2,
        "exponential": np.exp(-4 * progress),
    }[decay]
    learning = (0.05 + 5 * np.exp(-at / 150))[:, None] * rng.normal(0.05, 0.02, size=64)
    updates = rate[:, None] * (learning + 0.15 * rng.standard_normal((num_updates, 64)))
    rows = np.cumsum(updates, axis=0)[19::20] - 100
    return rows + SCORING_NOISE * rng.standard_normal(rows.shape)


def coarse_to_fine() -> Iterator[int]:
    """The order in which a backlog is worked: the ends, the middle, the quarters and so on."""
    yield from (0, NUM_CHECKPOINTS - 1)
    gaps = [(0, NUM_CHECKPOINTS - 1)]
    while gaps:
        low, high = gaps.pop(0)
        if high - low > 1:
            middle = (low + high) // 2
            yield middle
            gaps += [(low, middle), (middle, high)]


def is_suspected(rows: np.ndarray, seen: list[int], new: int) -> bool:
    others = np.array(sorted(seen), dtype=int)
    return twin_warning(rows[others], STEPS[others], rows[new], STEPS[new], noise_floor=FLOOR) is not None


def found_twin(rows: np.ndarray, place: int, copied: int, rng: np.random.Generator) -> int | None:
    """Which checkpoint is found where the weights of `copied`, scored a second time, stand at `place`."""
    others = np.delete(np.arange(NUM_CHECKPOINTS), place)
    row = rows[copied] + SCORING_NOISE * rng.standard_normal(64)
    twin = twin_warning(rows[others], STEPS[others], row, STEPS[place], noise_floor=FLOOR)
    return None if twin is None else int(others[twin.row])


class TestTwinWarning:
    @pytest.mark.parametrize("decay", ["linear", "square root", "cosine", "exponential"])
    def test_no_honest_checkpoint_is_suspected_as_a_run_goes_on(self, decay: str) -> None:
        for seed in range(10):
            rows = trajectory(seed, decay)
            # The decay does bring neighbours under the floor, so the floor alone would not do.
            assert decay == "linear" or nearest(rows[:-1], rows[-1]).distance < FLOOR
            assert not any(is_suspected(rows, list(range(new)), new) for new in range(1, NUM_CHECKPOINTS))

    @pytest.mark.parametrize("decay", ["linear", "square root", "cosine"])
    def test_no_honest_checkpoint_is_suspected_while_a_backlog_is_worked(self, decay: str) -> None:
        for seed in range(10):
            rows, order = trajectory(seed, decay), list(coarse_to_fine())
            assert not any(is_suspected(rows, order[:count], order[count]) for count in range(1, NUM_CHECKPOINTS))

    @pytest.mark.parametrize("copied", [3, 40, NUM_CHECKPOINTS - 1])
    def test_the_weights_of_another_step_are_found(self, rng: np.random.Generator, copied: int) -> None:
        rows = trajectory(1)
        places = [place for place in range(NUM_CHECKPOINTS - NUM_DECAYING) if place != copied]
        assert all(found_twin(rows, place, copied, rng) == copied for place in places)

    def test_the_weights_of_a_neighbour_are_found(self, rng: np.random.Generator) -> None:
        rows = trajectory(2)
        places = range(1, NUM_CHECKPOINTS - NUM_DECAYING)
        assert all(found_twin(rows, place, place - 1, rng) == place - 1 for place in places)
        assert all(found_twin(rows, place, place + 1, rng) == place + 1 for place in places)

    def test_the_next_checkpoint_of_a_live_run_is_found_to_be_the_last_one(self) -> None:
        rows = trajectory(3)
        twin = twin_warning(rows[:20], STEPS[:20], rows[19] + 0.001, STEPS[20], noise_floor=FLOOR)
        assert twin is not None
        assert (twin.row, round(twin.distance, 3)) == (19, 0.001)
        assert twin.typical is not None
        assert twin.typical > 20 * twin.distance

    def test_an_earlier_copy_does_not_hide_the_next_one(self, rng: np.random.Generator) -> None:
        rows = trajectory(4)
        rows[29] = rows[30] + SCORING_NOISE * rng.standard_normal(64)
        assert found_twin(rows, 31, 40, rng) == 40

    def test_equal_to_the_last_bit_is_always_a_warning(self) -> None:
        rows = np.full((1, 64), -3.0)
        twin = twin_warning(rows, [0], rows[0], 1, noise_floor=FLOOR)
        assert twin is not None
        assert (twin.row, twin.distance, twin.typical) == (0, 0.0, None)

    def test_with_one_other_checkpoint_nothing_but_equality_is_suspicious(self) -> None:
        rows = np.full((1, 64), -3.0)
        assert twin_warning(rows, [0], rows[0] + 0.001, 1, noise_floor=FLOOR) is None

    def test_checkpoints_that_lie_closer_than_usual_may_differ_less(self) -> None:
        rows = np.arange(4.0)[:, None] * np.ones(64)
        close = rows[2] + 0.01
        assert twin_warning(rows, STEPS[:4], close, 2010, noise_floor=FLOOR) is None
        assert twin_warning(rows, STEPS[:4], close, 2900, noise_floor=FLOOR) is not None

    def test_steps_out_of_order_are_refused(self) -> None:
        with pytest.raises(ValueError, match="rising order"):
            twin_warning(np.zeros((2, 64)), [2, 1], np.ones(64), 3, noise_floor=FLOOR)


class TestNearest:
    def test_it_is_the_root_mean_square_difference(self) -> None:
        rows = np.array([[0.0, 0.0], [3.0, 4.0]])
        assert distances(rows, np.zeros(2)).tolist() == pytest.approx([0.0, 12.5**0.5])
        assert nearest(rows, np.array([3.0, 5.0])) == (1, pytest.approx(0.5**0.5))

    def test_other_strings_are_refused(self) -> None:
        with pytest.raises(ValueError, match="same strings"):
            nearest(np.zeros((3, 64)), np.zeros(32))

    def test_what_is_not_a_number_is_refused(self) -> None:
        with pytest.raises(ValueError, match="not a finite number"):
            nearest(np.zeros((3, 2)), np.array([np.nan, 0.0]))
