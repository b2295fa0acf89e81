"""Where a curve will be: a saturating power law or a sigmoid in tokens, with 90% prediction intervals.

Both forms are linear but for their exponents. So the exponents are tried on a grid and the rest is
solved exactly (variable projection: Golub & Pereyra 1973, SIAM J. Numer. Anal. 10), which finds the
best fit without a starting point to be wrong about, and is fast enough to be done again for every
draw of the bootstrap.
"""

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import special

from analysis.clusters import Floats
from analysis.intervals import Array, as_floats

Ints = npt.NDArray[np.int64]

COVERAGE = 0.9
"""The share of forecasts that should find the number inside their interval."""
MIN_POINTS = 5
WARM_UP = 0.05
"""Points before this share of the tokens seen so far are left out: warm-up follows another law."""
MAX_POINTS = 160
"""A longer curve is thinned evenly: more points would tell little more."""
HELD_OUT = 0.2
"""Share of the points, from the end, on which the two forms are compared."""
NUM_DRAWS = 300
MAX_REACH = 32.0
"""A forecast looks no further than so many times the tokens seen."""
ANSWER_LUCK = 0.5
"""A share's scatter between checkpoints is taken to be at least this part of its standard error."""
RIVAL = 4.0
"""Where the other form's held-out error is below this many times the better one's, the interval covers both."""
SURPRISE = 2.0
"""Held-out points that lie this many times further off than they should widen the interval."""
HUBER = 1.345
"""Residuals beyond so many deviations count less (Huber 1964, Ann. Math. Stat. 35)."""

POWER_LAW, SIGMOID = "power law", "sigmoid"
TOO_FEW, TOO_FAR, TOO_VAGUE = "too few", "too far", "too vague"

_EXPONENTS: Floats = np.asarray(np.geomspace(0.03, 2.0, 40), np.float64)
_SLOPES: Floats = np.asarray(np.geomspace(0.4, 5.0, 10), np.float64)
_MIDDLES: Floats = np.asarray(np.linspace(-5.0, 4.0, 28), np.float64)
"""Of a sigmoid, in log tokens from the last point."""
_NUM_PARAMETERS = 3
_TINY = float(np.finfo(np.float64).tiny)


class Scale(NamedTuple):
    """What kind of number a curve is of."""

    higher_is_better: bool = False
    floor: float | None = 0.0
    """What guessing scores, for a share; 0 for what is never negative; None where nothing bounds it."""
    ceiling: float | None = None
    """The best there is, for a share."""


LOSS = Scale()
"""A loss, perplexity or bits per byte: it falls, and not below zero."""


class Band(NamedTuple):
    """The expected number at each asked position, and the interval that holds it in 90 of 100 cases."""

    tokens: Floats
    value: Floats
    low: Floats
    high: Floats


class Unforeseeable(ValueError):
    """No forecast is worth making; `reason` is `too few` points, `too far` ahead, or `too vague`."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"This curve cannot be forecast: {reason}.")
        self.reason = reason


class _Form(NamedTuple):
    """A family of curves, level + size * shape(tokens), with the shapes that are tried."""

    method: str
    scale: Scale
    last: float
    """Tokens that positions are told against."""
    first: Floats
    """Exponents of the power law, slopes of the sigmoid."""
    second: Floats
    """Middles of the sigmoid."""

    def shapes(self, tokens: Floats) -> Floats:
        """[shape, position]."""
        at = np.log(np.maximum(tokens, 1e-9 * self.last) / self.last)[None, :]
        if self.method == POWER_LAW:
            return np.asarray(np.exp(-self.first[:, None] * at))
        return np.asarray(special.expit(self.first[:, None] * (at - self.second[:, None])))

    def inward(self, values: Floats) -> Floats:
        """The numbers as the form has them: a distance that shrinks, or a height over guessing."""
        if self.method == SIGMOID:
            return values - (self.scale.floor or 0.0)
        return (self.scale.ceiling or 0.0) - values if self.scale.higher_is_better else values

    def outward(self, values: Floats) -> Floats:
        """The opposite of `inward`."""
        return values + (self.scale.floor or 0.0) if self.method == SIGMOID else self.inward(values)

    def narrowed(self, rows: Ints) -> "_Form":
        """As many shapes as before, but only around those that were the best for something."""
        firsts, seconds = np.unique(self.first), np.unique(self.second)
        return _make_form(
            self.method,
            self.scale,
            self.last,
            np.asarray(np.geomspace(*_around(firsts, self.first[rows]), firsts.size), np.float64),
            np.asarray(np.linspace(*_around(seconds, self.second[rows]), seconds.size), np.float64),
        )


class _Solved(NamedTuple):
    """The best curve for each column of targets."""

    level: Floats
    size: Floats
    row: Ints
    """Which shape."""


class _Part(NamedTuple):
    """One form, fitted."""

    form: _Form
    best: _Solved
    draws: _Solved
    scatter: Floats
    """For each draw, how far a single point lies off its curve."""

    def courses(self, tokens: Floats) -> tuple[Floats, Floats]:
        """The best curve, and where a point may lie by each draw: [draw, position]."""
        shapes = self.form.shapes(tokens)
        value = _course(shapes, self.best)[0]
        points = _course(shapes, self.draws) + np.outer(self.scatter, _unit(self.form.scale, value))
        return self.form.outward(value), self.form.outward(points)


class Fit(NamedTuple):
    """A fitted curve that can be asked for any position."""

    num_points: int
    """Those it was fitted to."""
    seen: float
    """Tokens at the last of them."""
    scale: Scale
    parts: tuple[_Part, ...]
    """The form that explains the last points better, then the other where it is hardly worse."""
    span: float
    """Range of the points it was fitted to."""
    stretch: float
    """How much wider the interval is because the last points surprised an earlier fit."""

    @property
    def method(self) -> str:
        """`power law` or `sigmoid`."""
        return self.parts[0].form.method

    def band(self, tokens: Array) -> Band:
        """The forecast at these positions, each as if one more point was measured there."""
        at = as_floats(tokens)
        courses = [part.courses(at) for part in self.parts]
        value, points = courses[0][0], np.concatenate([points for _, points in courses])
        ends = np.quantile(points - value, [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2], axis=0) * self.stretch
        # Guessing is no lower bound of a score: bad luck goes below it.
        floor = -math.inf if self.scale.floor is None else 0.0
        ceiling = math.inf if self.scale.ceiling is None else self.scale.ceiling
        return Band(at, *np.clip([value, value + ends[0], value + ends[1]], floor, ceiling))

    def at(self, tokens: float) -> tuple[float, float, float]:
        """Value, low and high at one position.

        Raises:
            Unforeseeable: it is too far ahead, or the interval says nothing.
        """
        if tokens > MAX_REACH * self.seen:
            raise Unforeseeable(TOO_FAR)
        band = self.band([tokens])
        value, low, high = float(band.value[0]), float(band.low[0]), float(band.high[0])
        if high - low > self.widest:
            raise Unforeseeable(TOO_VAGUE)
        return value, low, high

    @property
    def widest(self) -> float:
        """A wider interval is no news: half of all possible scores, or the range of all points so far."""
        return self.span if self.scale.ceiling is None else (self.scale.ceiling - (self.scale.floor or 0.0)) / 2


def fit(tokens: Array, values: Array, scale: Scale = LOSS, stderr: float = 0.0, *, seed: int = 0) -> Fit:
    """Fit a curve's course.

    A loss is E + A D^-a in tokens D (Kaplan et al. 2020, arXiv:2001.08361; Hoffmann et al. 2022,
    arXiv:2203.15556), fitted by relative residuals with Huber's weights. A share between guessing and
    1 is 1 minus such a law, or a sigmoid in log tokens from guessing upwards (the second step of
    Bhagia et al. 2024, "Establishing Task Scaling Laws via Compute-Efficient Model Ladders",
    arXiv:2412.04403): whichever, fitted to the earlier points, comes nearer to the last fifth.

    The interval comes from a bootstrap of the residuals in blocks (Künsch 1989, Ann. Stat. 17), each
    draw with a scatter of its own for the few degrees of freedom, plus the scatter of the one point
    that will be measured. `stderr` is the newest score's own standard error. Draws are seeded: the
    same points give the same forecast.

    Raises:
        Unforeseeable: fewer than five points are left after the warm-up.
    """
    places, numbers = _usable(tokens, values)
    if places.size < MIN_POINTS:
        raise Unforeseeable(TOO_FEW)
    held = max(1, round(HELD_OUT * places.size))
    methods = (POWER_LAW,) if scale.ceiling is None else (POWER_LAW, SIGMOID)
    forms = [_whole_form(method, scale, places[-1]) for method in methods]
    trials = [_fit_once(places[:-held], numbers[:-held], form, stderr, seed) for form in forms]
    errors = [float(((trial.courses(places[-held:])[0] - numbers[-held:]) ** 2).mean()) for trial in trials]
    order = [place for place in np.argsort(errors) if errors[place] <= RIVAL * min(errors)]
    earlier = _together(places[:-held], numbers[:-held], scale, [trials[place] for place in order])
    found = _together(places, numbers, scale, [_fit(places, numbers, forms[place], stderr, seed) for place in order])
    return found._replace(stretch=_surprise(earlier.band(places[-held:]), numbers[-held:]))


def _together(places: Floats, numbers: Floats, scale: Scale, parts: list[_Part]) -> Fit:
    return Fit(places.size, float(places[-1]), scale, tuple(parts), float(np.ptp(numbers)), 1.0)


def _usable(tokens: Array, values: Array) -> tuple[Floats, Floats]:
    """The points after the warm-up, evenly thinned."""
    if np.size(tokens) == 0:
        return np.empty(0), np.empty(0)
    places, numbers = as_floats(tokens), as_floats(values)
    if places.shape != numbers.shape or (np.diff(places) <= 0).any():
        raise ValueError("A curve needs one value a position, and the positions in rising order.")
    kept = (places > WARM_UP * places[-1]) & np.isfinite(numbers)
    places, numbers = places[kept], numbers[kept]
    if places.size > MAX_POINTS:
        chosen = np.linspace(0, places.size - 1, MAX_POINTS).round().astype(int)
        places, numbers = places[chosen], numbers[chosen]
    return places, numbers


def _surprise(band: Band, numbers: Floats) -> float:
    """How much wider the interval should have been for the held-out points; 1 where they were no surprise."""
    half = np.maximum((band.high - band.low) / 2, _TINY)
    off = np.abs(numbers - (band.low + band.high) / 2) / half
    ratio = float(np.sqrt((off**2).mean()) * special.ndtri((1 + COVERAGE) / 2))
    return ratio if ratio > SURPRISE else 1.0


def _whole_form(method: str, scale: Scale, last: float) -> _Form:
    if method == POWER_LAW:
        return _make_form(method, scale, last, _EXPONENTS, np.zeros(1))
    return _make_form(method, scale, last, _SLOPES, _MIDDLES)


def _make_form(method: str, scale: Scale, last: float, firsts: Floats, seconds: Floats) -> _Form:
    first, second = np.meshgrid(firsts, seconds)
    return _Form(method, scale, last, first.ravel(), second.ravel())


def _around(tried: Floats, best: Floats) -> tuple[float, float]:
    """From the neighbour below the least of the best to the neighbour above the greatest."""
    low, high = np.searchsorted(tried, [best.min(), best.max()])
    return float(tried[max(low - 1, 0)]), float(tried[min(high + 1, tried.size - 1)])


def _fit(places: Floats, numbers: Floats, form: _Form, stderr: float, seed: int) -> _Part:
    coarse = _fit_once(places, numbers, form, stderr, seed)
    rows = np.concatenate([coarse.best.row, coarse.draws.row])
    return _fit_once(places, numbers, form.narrowed(rows), stderr, seed)


def _fit_once(places: Floats, numbers: Floats, form: _Form, stderr: float, seed: int) -> _Part:
    targets, shapes = form.inward(numbers), form.shapes(places)
    unit = _unit(form.scale, targets)
    weights = plain = 1 / unit**2
    for _ in range(3):
        best = _solve(form, shapes, targets[:, None], weights)
        residuals = (targets - _course(shapes, best)[0]) / unit
        typical = 1.4826 * float(np.median(np.abs(residuals)))
        weights = plain * np.minimum(1.0, HUBER * max(typical, _TINY) / np.maximum(np.abs(residuals), _TINY))
    df = max(1, places.size - _NUM_PARAMETERS)
    noise = math.sqrt(float((residuals**2).sum()) / df)
    if form.scale.ceiling is not None:
        noise = max(noise, ANSWER_LUCK * stderr)
    rng = np.random.default_rng(seed)
    scales = noise * np.sqrt(df / rng.chisquare(df, NUM_DRAWS))
    drawn = _course(shapes, best)[0][:, None] + unit[:, None] * scales * _blocks(residuals, rng)
    draws = _solve(form, shapes, drawn, weights)
    return _Part(form, best, draws, scales * rng.standard_normal(NUM_DRAWS))


def _blocks(residuals: Floats, rng: np.random.Generator) -> Floats:
    """Standardised residuals drawn again in blocks of neighbours, [point, draw]."""
    n = residuals.size
    size = max(1, round(n ** (1 / 3)))
    starts = rng.integers(0, n, (-(-n // size), NUM_DRAWS))
    order = ((starts[:, None, :] + np.arange(size)[None, :, None]) % n).reshape(-1, NUM_DRAWS)[:n]
    deviation = math.sqrt(float((residuals**2).mean()))
    return np.asarray(residuals[order] / (deviation or 1.0))


def _unit(scale: Scale, values: Floats) -> Floats:
    """What scatter is told in: for a loss its own size, which is a fit in the logarithm."""
    if scale.floor is None or scale.ceiling is not None:
        return np.ones_like(values)
    return np.asarray(np.maximum(np.abs(values), _TINY))


def _course(shapes: Floats, solved: _Solved) -> Floats:
    """[curve, position], as the form has it."""
    return np.asarray(solved.level[:, None] + solved.size[:, None] * shapes[solved.row])


def _solve(form: _Form, shapes: Floats, targets: Floats, weights: Floats) -> _Solved:
    """The least weighted squares for each column of `targets`, over all shapes, within the form's bounds."""
    total, along, square = weights.sum(), (shapes @ weights)[:, None], (shapes**2 @ weights)[:, None]
    sums, products = weights @ targets, (shapes * weights) @ targets
    if form.method == POWER_LAW:
        size = np.maximum((total * products - along * sums) / (total * square - along**2), 0.0)
        level = (sums - along * size) / total
        if form.scale.floor is not None:
            size = np.where(level < 0, np.maximum(products / square, 0.0), size)
            level = np.maximum(level, 0.0)
    else:
        size = np.clip(products / square, 0.0, (form.scale.ceiling or 1.0) - (form.scale.floor or 0.0))
        level = np.zeros_like(size)
    misfit = level * (level * total + 2 * (size * along - sums)) + size * (size * square - 2 * products)
    row = misfit.argmin(axis=0)
    columns = np.arange(targets.shape[1])
    return _Solved(level[row, columns], size[row, columns], row)
