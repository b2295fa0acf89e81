"""Ratings from votes: what simulated votes were made from is found again, and nothing beyond it claimed."""

import numpy as np
import pytest
from scipy.special import expit

from analysis import ratings
from analysis.clusters import Floats
from analysis.ratings import ANCHOR, POINTS, Votes

TRUE = np.array([-1.5, -0.5, 0.0, 0.6, 1.4])
NUM = TRUE.size


def simulate(
    rng: np.random.Generator,
    num_votes: int,
    num_voters: int,
    *,
    true: Floats = TRUE,
    ties: float = 0.0,
    length_bias: float = 0.0,
    wordiness: Floats | None = None,
    taste: float = 0.0,
) -> Votes:
    """Votes of Bradley and Terry's model; `taste` is by how much each voter sees the candidates differently."""
    left = rng.integers(true.size, size=num_votes)
    right = (left + rng.integers(1, true.size, size=num_votes)) % true.size
    voter = rng.integers(num_voters, size=num_votes)
    tokens = rng.lognormal(4.0, 0.4, (2, num_votes))
    if wordiness is not None:
        tokens *= np.exp(np.stack((wordiness[left], wordiness[right])))
    length = ratings.relative_length(tokens[0], tokens[1])
    seen = true + taste * rng.normal(size=(num_voters, true.size))
    chance = expit(seen[voter, left] - seen[voter, right] + length_bias * length)
    score = np.where(rng.random(num_votes) < ties, 0.5, (rng.random(num_votes) < chance).astype(float))
    return Votes(left, right, score, voter, length)


def test_known_strengths_are_found_again() -> None:
    found = ratings.rate(simulate(np.random.default_rng(1), 20_000, 400), NUM, num_resamples=50)
    expected = ANCHOR + POINTS * (TRUE - TRUE.mean())
    assert np.abs(found.rating - expected).max() < 15
    assert found.rating.mean() == pytest.approx(ANCHOR)
    assert found.is_connected


def test_ties_are_half_a_win_each() -> None:
    one = np.zeros(10, np.int64)
    votes = Votes(one, one + 1, np.full(10, 0.5), np.arange(10), np.zeros(10))
    tied = ratings.fit(votes, 2)
    assert tied.strength == pytest.approx([0, 0])
    split = ratings.fit(votes._replace(score=np.tile([0.0, 1.0], 5)), 2)
    assert split.covariance == pytest.approx(tied.covariance)


@pytest.mark.parametrize("taste", [0.0, 0.7], ids=["independent votes", "voters with tastes"])
def test_intervals_hold_the_truth_in_about_95_of_100_cases(taste: float) -> None:
    expected = ANCHOR + POINTS * (TRUE - TRUE.mean())
    inside = []
    for seed in range(80):
        votes = simulate(np.random.default_rng(seed), 600, 60, taste=taste)
        # Voters of different tastes flatten the average preference a little; the strengths are fitted to a crowd's.
        target = expected if not taste else _crowd(taste)
        found = ratings.rate(votes, NUM, num_resamples=120, seed=seed)
        inside.extend(((found.low <= target) & (target <= found.high)).tolist())
    assert 0.92 <= np.mean(inside) <= 0.985


def _crowd(taste: float) -> Floats:
    """What a very large crowd of such voters would come to."""
    votes = simulate(np.random.default_rng(99), 300_000, 20_000, taste=taste)
    strength = ratings.fit(votes, NUM).strength
    centred: Floats = ANCHOR + POINTS * (strength - strength.mean())
    return centred


def test_a_liking_for_length_is_taken_out() -> None:
    wordiness = np.array([0.9, 0.0, 0.0, 0.0, -0.9])  # the weakest one talks most
    votes = simulate(np.random.default_rng(3), 30_000, 500, length_bias=2.5, wordiness=wordiness)
    expected = TRUE - TRUE.mean()
    plain = ratings.fit(votes, NUM).strength
    controlled = ratings.fit(votes, NUM, by_length=True)
    assert np.abs(plain - expected).max() > 0.5
    assert np.abs(controlled.strength - expected).max() < 0.12
    assert controlled.length_effect == pytest.approx(2.5, abs=0.2)


def test_relative_length_is_fair_to_both_and_to_silence() -> None:
    assert ratings.relative_length([30, 10, 0], [10, 30, 0]).tolist() == [0.5, -0.5, 0.0]


class TestFewVotes:
    def test_one_that_never_lost_stays_finite_and_says_how_little_is_known(self) -> None:
        votes = Votes(np.array([0, 0]), np.array([1, 1]), np.ones(2), np.array([0, 1]), np.zeros(2))
        found = ratings.rate(votes, 2)
        assert np.isfinite(found.rating).all()
        assert found.rating[0] > found.rating[1]
        assert found.high[0] - found.low[0] > 200

    def test_more_voters_say_more(self) -> None:
        few = ratings.rate(simulate(np.random.default_rng(4), 60, 10), NUM, num_resamples=60)
        many = ratings.rate(simulate(np.random.default_rng(4), 6000, 1000), NUM, num_resamples=60)
        assert (many.high - many.low).max() < (few.high - few.low).min() / 3

    def test_without_votes_everything_is_in_the_middle(self) -> None:
        nothing = np.empty(0, np.int64)
        found = ratings.rate(Votes(nothing, nothing, np.empty(0), nothing, np.empty(0)), 3)
        assert found.rating.tolist() == [ANCHOR] * 3
        assert found.num_votes.tolist() == [0, 0, 0]
        assert (found.high - found.low > 1000).all()

    def test_without_candidates_there_is_nothing(self) -> None:
        nothing = np.empty(0, np.int64)
        found = ratings.rate(Votes(nothing, nothing, np.empty(0), nothing, np.empty(0)), 0, by_length=True)
        assert found.rating.tolist() == []
        assert found.is_connected


class TestConnection:
    def test_groups_that_never_met_say_so(self) -> None:
        left, right = np.array([0, 2, 0]), np.array([1, 3, 1])
        votes = Votes(left, right, np.ones(3), np.arange(3), np.zeros(3))
        found = ratings.rate(votes, 5, num_resamples=20)
        assert not found.is_connected
        assert found.component[0] == found.component[1] != found.component[2] == found.component[3]
        # Each group has its own middle: nothing is said about which one is better.
        assert found.rating[:2].mean() == pytest.approx(ANCHOR)
        assert found.rating[2:4].mean() == pytest.approx(ANCHOR)

    def test_one_vote_joins_them(self) -> None:
        left, right = np.array([0, 2, 1]), np.array([1, 3, 2])
        votes = Votes(left, right, np.ones(3), np.arange(3), np.zeros(3))
        assert len(set(ratings.components(4, votes.left, votes.right))) == 1


class TestNextPair:
    def test_who_has_few_votes_is_asked_about(self) -> None:
        votes = simulate(np.random.default_rng(5), 3000, 100, true=np.zeros(4))
        seen = ratings.fit(votes, 5)  # the fifth has none
        values = ratings.pair_values(seen, np.arange(5))
        assert np.unravel_index(values.argmax(), values.shape)[0] == 4 or values.argmax() % 5 == 4

    def test_neighbours_are_asked_about_before_ends(self) -> None:
        nothing = np.empty(0, np.int64)
        prior = ratings.fit(Votes(nothing, nothing, np.empty(0), nothing, np.empty(0)), 6)
        even = prior._replace(covariance=np.eye(6))
        values = ratings.pair_values(even, np.arange(6))
        assert values[2, 3] > values[0, 5] > 0

    def test_certain_outcomes_teach_little(self) -> None:
        apart = ratings.Fit(np.array([-4.0, 4.0, 4.1]), np.eye(3), 0.0)
        values = ratings.pair_values(apart, np.zeros(3, np.int64))
        assert values[1, 2] > 10 * values[0, 1]

    def test_the_choice_cannot_be_foretold_and_sides_are_even(self) -> None:
        rng = np.random.default_rng(6)
        found = ratings.fit(simulate(rng, 400, 40), NUM)
        pairs = [ratings.choose_pair(found, np.arange(NUM), rng) for _ in range(800)]
        assert len({frozenset(pair) for pair in pairs}) == NUM * (NUM - 1) // 2
        assert 0.44 < np.mean([one < other for one, other in pairs]) < 0.56

    def test_chosen_pairs_teach_more_than_pairs_at_random(self) -> None:
        true = np.linspace(-3, 3, 10)
        order = np.arange(10)

        def variance(exploration: float) -> float:
            rng = np.random.default_rng(8)
            rows: list[tuple[int, int, float]] = []
            found = ratings.Fit(np.zeros(10), np.eye(10), 0.0)
            for number in range(240):
                one, other = ratings.choose_pair(found, order, rng, exploration=exploration)
                rows.append((one, other, float(rng.random() < expit(true[one] - true[other]))))
                if number % 10 == 9:
                    left, right, score = (np.array(column) for column in zip(*rows, strict=True))
                    found = ratings.fit(Votes(left, right, score, np.arange(len(rows)), np.zeros(len(rows))), 10)
            return float(np.trace(found.covariance))

        assert variance(0.2) < 0.9 * variance(1.0)

    def test_one_candidate_makes_no_pair(self) -> None:
        alone = ratings.Fit(np.zeros(1), np.eye(1), 0.0)
        with pytest.raises(ValueError, match="two candidates"):
            ratings.choose_pair(alone, np.zeros(1, np.int64), np.random.default_rng(0))
