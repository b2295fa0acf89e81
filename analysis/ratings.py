"""Ratings from votes between two answers: Bradley and Terry's model, with intervals, length control, and the next pair.

The model (Bradley & Terry 1952, Biometrika 39): the left one wins with probability
sigmoid(left's strength - right's strength). Strengths are shown in Elo points, 400 / ln 10 each (Elo 1978, "The Rating
of Chessplayers"), around 1000, the mean of all that are connected by votes.
"""

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import stats
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.special import expit

from analysis.clusters import Floats
from analysis.intervals import ALPHA

Ints = npt.NDArray[np.int64]

POINTS = 400 / math.log(10)
"""Elo points in one unit of the model's logarithm of odds."""
ANCHOR = 1000.0
"""What the mean of connected candidates is shown as."""
PRIOR_POINTS = 400.0
"""Strengths are taken to lie about so far around their mean before any vote."""
NUM_RESAMPLES = 300
MAX_STEPS = 100
TOLERANCE = 1e-9
LIKELY = 1.959964
"""Standard normal deviations on each side of a 95% interval."""
NEIGHBOURS = 0.5
"""How much less the pair farthest apart in the order counts than two neighbours."""


class Votes(NamedTuple):
    """One row a vote; candidates and voters are numbered from 0."""

    left: Ints
    right: Ints
    score: Floats
    """What the left one got: 1, 0, or a half for a tie."""
    voter: Ints
    length: Floats
    """`relative_length`: from -1 (all words are the right one's) to 1."""


class Fit(NamedTuple):
    """The most probable strengths, in the model's own units."""

    strength: Floats
    """Around zero, where the prior holds them."""
    covariance: Floats
    """Of the strengths."""
    length_effect: float
    """What a longer left answer adds to its logarithm of odds; 0 without length control."""


class Ratings(NamedTuple):
    """In Elo points, by candidate."""

    rating: Floats
    low: Floats
    high: Floats
    num_votes: Ints
    component: Ints
    """Candidates of different components were never compared, not even through others."""

    @property
    def is_connected(self) -> bool:
        """Whether any two that have votes can be compared."""
        return len(set(self.component[self.num_votes > 0].tolist())) <= 1


def relative_length(left_tokens: npt.ArrayLike, right_tokens: npt.ArrayLike) -> Floats:
    """The difference of two lengths over their sum, 0 where both are empty.

    As the style control of LMArena has it (Li, Angelopoulos & Chiang 2024, "Does style matter? Disentangling style and
    substance in Chatbot Arena"): ten tokens more are much beside ten, and nothing beside a thousand.
    """
    left, right = np.asarray(left_tokens, np.float64), np.asarray(right_tokens, np.float64)
    total = left + right
    return np.divide(left - right, total, out=np.zeros_like(total), where=total > 0)


def components(num_candidates: int, left: Ints, right: Ints) -> Ints:
    """The group that each candidate is connected with by votes, numbered from 0; one without votes is alone.

    Where there are several, strengths of different groups have no common scale (Ford 1957, American Mathematical
    Monthly 64: the likelihood has one maximum only where the graph of comparisons hangs together).
    """
    if not num_candidates:
        return np.empty(0, np.int64)
    graph = coo_array((np.ones(left.size), (left, right)), shape=(num_candidates, num_candidates))
    return np.asarray(connected_components(graph, directed=False)[1], np.int64)


def fit(
    votes: Votes,
    num_candidates: int,
    *,
    by_length: bool = False,
    weights: Floats | None = None,
    start: Floats | None = None,
) -> Fit:
    """The strengths that explain the votes best, by Newton's method on the penalized likelihood.

    A tie is half a win for each, as Chiang et al. (2024, "Chatbot Arena", ICML) count it: a tie parameter as in
    Davidson (1970, JASA 65) is one more number to estimate from few votes, and "both bad" says nothing about how alike
    two answers are. The penalty is a normal prior of `PRIOR_POINTS` on each strength (Caron & Doucet 2012, J. Comput.
    Graph. Stat. 21, use a gamma one to the same end): one that never lost stays finite, and one without votes in the
    middle, with an interval that says how little is known. The covariance is the inverse curvature
    (Laplace's approximation; Gelman et al. 2013, "Bayesian Data Analysis", 4.1).

    Args:
        votes: the rows.
        num_candidates: how many candidates there are, with or without votes.
        by_length: with the difference of lengths as a covariate, so that strengths are those at equal lengths.
        weights: how often each row counts, for the bootstrap.
        start: strengths, and the effect of length at the end, to begin from.
    """
    counts = np.ones(votes.left.size) if weights is None else weights
    size = num_candidates + by_length
    prior = np.full(size, (POINTS / PRIOR_POINTS) ** 2)
    found: Floats = np.zeros(size) if start is None else np.asarray(start, np.float64).copy()
    curvature = np.diag(prior)
    for _ in range(MAX_STEPS):
        gradient, curvature = _slopes(votes, counts, found, num_candidates, by_length)
        gradient -= prior * found
        curvature = curvature + np.diag(prior)
        step = np.linalg.solve(curvature, gradient)
        # The likelihood is concave, but a whole step from far away may overshoot.
        found += step / max(1.0, float(np.abs(step).max(initial=0.0)) / 2)
        if np.abs(step).max(initial=0.0) < TOLERANCE:
            break
    covariance = np.linalg.inv(curvature)[:num_candidates, :num_candidates]
    return Fit(found[:num_candidates], covariance, float(found[-1]) if by_length else 0.0)


def rate(
    votes: Votes, num_candidates: int, *, by_length: bool = False, num_resamples: int = NUM_RESAMPLES, seed: int = 0
) -> Ratings:
    """Ratings with 95% intervals.

    The interval spans two: the percentile bootstrap over voters (Efron & Tibshirani 1993, "An Introduction to the
    Bootstrap", 13.3; whole voters are drawn, since one voter's votes are not independent: Davison & Hinkley 1997,
    "Bootstrap Methods and their Application", 3.8; widened as for few clusters: Cameron & Miller 2015, Journal of Human
    Resources 50, VI), and the posterior's own. The bootstrap alone is blind where
    nothing varies: it would be certain of a candidate that won its only two votes, or of all of a single voter.
    """
    best = fit(votes, num_candidates, by_length=by_length)
    group = components(num_candidates, votes.left, votes.right)
    centring = _centring(group)
    strength = centring @ best.strength
    spread = LIKELY * np.sqrt(np.diag(centring @ best.covariance @ centring.T))
    low, high = strength - spread, strength + spread
    drawn = _resample(votes, num_candidates, best, by_length, num_resamples, seed)
    if drawn.size:
        edges = np.quantile(drawn @ centring.T, (ALPHA / 2, 1 - ALPHA / 2), axis=0)
        edges = strength + _few_voters(votes) * (edges - strength)
        low, high = np.minimum(low, edges[0]), np.maximum(high, edges[1])
    counts = np.bincount(np.concatenate((votes.left, votes.right)), minlength=num_candidates)
    points = [ANCHOR + POINTS * one for one in (strength, low, high)]
    return Ratings(points[0], points[1], points[2], np.asarray(counts, np.int64), group)


def pair_values(found: Fit, order: Ints) -> Floats:
    """How much one more vote between each two candidates would teach; symmetric, zero on the diagonal.

    The fall of the summed variance of all strengths, expected from one vote: with p the foretold chance and C the
    covariance, p(1-p) |C d|² / (1 + p(1-p) d'Cd) for the pair's difference d (Sherman & Morrison 1950, applied to
    A-optimal design: Pukelsheim 1993, "Optimal Design of Experiments", 6; Chiang et al. 2024 choose pairs by the same
    p(1-p) and uncertainty). It favours who has few votes and who is about as strong. Beyond that, neighbours in `order`
    count more: a growth curve is about the step from one to the next.

    Args:
        found: the ratings so far; with the prior alone, all pairs teach as much.
        order: the place of each candidate in the run.
    """
    cov = found.covariance
    squared = cov @ cov
    chance = expit(np.subtract.outer(found.strength, found.strength))
    information = chance * (1 - chance)
    gain = information * _of_differences(squared) / (1 + information * _of_differences(cov))
    apart = np.abs(np.subtract.outer(order, order)) / max(1, int(np.ptp(order)) if order.size else 1)
    values: Floats = np.maximum(gain, 0.0) * (1 - NEIGHBOURS * apart)
    np.fill_diagonal(values, 0.0)
    return values


def choose_pair(
    found: Fit, order: Ints, rng: np.random.Generator, *, exploration: float = 0.2, sharpness: float = 2.0
) -> tuple[int, int]:
    """Two candidates for the next vote, the left one and the right one at random.

    Drawn in proportion to what the pair would teach, raised to `sharpness`, and with probability `exploration` among
    all pairs alike (epsilon-greedy: Sutton & Barto 2018, "Reinforcement Learning", 2.2). The best pair itself would
    be known beforehand to whoever reads the public votes, and the battle would not be blind.

    Raises:
        ValueError: fewer than two candidates.
    """
    num = found.strength.size
    if num < 2:
        raise ValueError("A pair needs two candidates.")
    one, other = np.triu_indices(num, 1)
    values = pair_values(found, order)[one, other] ** sharpness
    if rng.random() < exploration or not values.sum() > 0:
        values = np.ones(one.size)
    at = int(rng.choice(one.size, p=values / values.sum()))
    pair = (int(one[at]), int(other[at]))
    return pair if rng.random() < 0.5 else pair[::-1]


def _slopes(votes: Votes, counts: Floats, found: Floats, num_candidates: int, by_length: bool) -> tuple[Floats, Floats]:
    """Gradient of the log-likelihood, and its curvature with the sign turned."""
    left, right, size = votes.left, votes.right, found.size
    odds = found[left] - found[right] + (found[-1] * votes.length if by_length else 0.0)
    chance = expit(odds)
    surplus, information = counts * (votes.score - chance), counts * chance * (1 - chance)
    gradient = np.zeros(size)
    gradient[:num_candidates] = np.bincount(left, surplus, num_candidates) - np.bincount(right, surplus, num_candidates)
    between = np.bincount(left * size + right, information, size * size).reshape(size, size).astype(np.float64)
    curvature: Floats = -(between + between.T)
    curvature[np.diag_indices(size)] = -curvature.sum(axis=0)
    if by_length:
        weighted = information * votes.length
        cross = np.bincount(left, weighted, num_candidates) - np.bincount(right, weighted, num_candidates)
        gradient[-1] = (surplus * votes.length).sum()
        curvature[-1, :-1] = curvature[:-1, -1] = cross
        curvature[-1, -1] = (weighted * votes.length).sum()
    return gradient, curvature


def _centring(group: Ints) -> Floats:
    """The matrix that takes each group's own mean away; one that is alone keeps its place, and its uncertainty."""
    same = np.equal.outer(group, group)
    num = same.sum(axis=1, keepdims=True)
    return np.asarray(np.eye(group.size) - np.where(num > 1, same / num, 0.0), np.float64)


def _resample(votes: Votes, num_candidates: int, best: Fit, by_length: bool, num_resamples: int, seed: int) -> Floats:
    """Strengths for as many draws of the voters; none where a single voter leaves nothing to draw."""
    num_voters = int(votes.voter.max()) + 1 if votes.voter.size else 0
    if num_voters < 2:
        return np.empty((0, num_candidates))
    rng = np.random.default_rng(seed)
    start = np.append(best.strength, best.length_effect) if by_length else best.strength
    found = np.empty((num_resamples, num_candidates))
    for row in range(num_resamples):
        drawn = np.bincount(rng.integers(num_voters, size=num_voters), minlength=num_voters).astype(np.float64)
        again = fit(votes, num_candidates, by_length=by_length, weights=drawn[votes.voter], start=start)
        found[row] = again.strength
    return found


def _few_voters(votes: Votes) -> float:
    """How much too narrow the bootstrap is for so few voters: Student's t over the normal, and G/(G-1)."""
    num = np.unique(votes.voter).size
    return float(stats.t.ppf(1 - ALPHA / 2, num - 1) / LIKELY * math.sqrt(num / (num - 1)))


def _of_differences(matrix: Floats) -> Floats:
    """d' M d for the difference d of each two candidates."""
    own = np.diag(matrix)
    return np.asarray(own[:, None] + own[None, :] - 2 * matrix, np.float64)
