"""Is a checkpoint what its step says? Distances between fingerprints, the log-probabilities of fixed strings."""

from typing import NamedTuple

import numpy as np

from analysis.clusters import Floats
from analysis.intervals import Array

FAR_BELOW = 20.0
"""How many times nearer than the run's neighbours a copy must be. A learning rate that falls to zero
along a line, over however many checkpoints, brings its last one 5 times nearer."""

NUM_INTERVALS = 3
"""Intervals around the new step that say how far apart neighbours lie; one odd one among them does no harm."""


class Nearest(NamedTuple):
    """The checkpoint that answers most alike."""

    row: int
    """Which one of the others it is."""
    distance: float
    """Root mean square difference of the log-probabilities, in nats."""


class Twin(NamedTuple):
    """A checkpoint so alike that one of the two is probably not what its step says."""

    row: int
    distance: float
    typical: float | None
    """How far apart neighbours lie around the new step, in nats; None while there is but one other checkpoint."""


def distances(rows: Floats, row: Floats) -> Floats:
    """[k], root mean square differences in nats between a fingerprint [m] and others [k, m].

    Raises:
        ValueError: they are not of the same strings, or hold something that is not a number.
    """
    if rows.ndim != 2 or rows.shape[1:] != row.shape or not rows.size:
        raise ValueError("Fingerprints can be compared only where they are of the same strings.")
    if not (np.isfinite(rows).all() and np.isfinite(row).all()):
        raise ValueError("A fingerprint holds a log-probability that is not a finite number.")
    return np.asarray(np.sqrt(((rows - row) ** 2).mean(axis=1)), dtype=np.float64)


def nearest(rows: Floats, row: Floats) -> Nearest:
    """Which of the fingerprints [k, m] is nearest to a new one [m]; of equally near ones the first."""
    found = distances(rows, row)
    at = int(found.argmin())
    return Nearest(at, float(found[at]))


def twin_warning(rows: Floats, steps: Array, row: Floats, step: float, *, noise_floor: float) -> Twin | None:
    """Whether a new checkpoint is a copy of another of its run; None where nothing is suspicious.

    `rows` [k, m] are the other fingerprints by rising `steps` [k]; `noise_floor` is the distance in
    nats that two scorings of the same weights may show. A copy is nearer than that floor, and far
    nearer than neighbours around its step lie from each other: late in a learning-rate decay honest
    checkpoints come under any floor, but all of them do. Fingerprints equal to the last bit are
    always a warning. While only a coarse grid of steps is there, a steep decay inside one of its
    gaps can look like a copy, so ask anew as checkpoints come in. Our own rule, made to catch other
    weights under a step's name, as at Pythia's step 32000 (EleutherAI/pythia, issues 108 and 205).
    """
    places = np.asarray(steps, dtype=np.float64)
    if places.shape != rows.shape[:1] or (np.diff(places) <= 0).any():
        raise ValueError("The other fingerprints need one step each, in rising order.")
    at, distance = nearest(rows, row)
    typical, gap = _typical(rows, places, step) if places.size > 1 else (None, 0.0)
    if distance == 0:
        return Twin(at, distance, typical)
    if typical is None or distance >= noise_floor:
        return None
    # Steps that lie closer than usual may differ less, by the square while the learning rate itself rises or falls.
    closeness = min(1.0, abs(step - float(places[at])) / gap) ** 2
    return Twin(at, distance, typical) if distance * FAR_BELOW < typical * closeness else None


def _typical(rows: Floats, places: Floats, step: float) -> tuple[float, float]:
    """Median distance, and median gap in steps, of the intervals around a step."""
    between = int(np.searchsorted(places, step)) - 1
    first = min(max(between - NUM_INTERVALS // 2, 0), max(places.size - 1 - NUM_INTERVALS, 0))
    window = slice(first, first + NUM_INTERVALS + 1)
    apart = np.sqrt((np.diff(rows[window], axis=0) ** 2).mean(axis=1))
    return float(np.median(apart)), float(np.median(np.diff(places[window])))
