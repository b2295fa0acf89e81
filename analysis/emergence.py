"""Whether an ability appeared at once, or only its score did: a jump sought in several metrics of the same answers."""

from typing import Literal, NamedTuple

import numpy as np

from analysis.intervals import Array, as_floats

MIN_POINTS = 5
MIN_SHARE = 0.5
"""Of a curve's whole rise that must happen in one step before it is called a jump."""
SMOOTH_SHARE = 0.25
"""Of the continuous curve's whole course that may fall on the same step if it is to count as smooth."""

Finding = Literal["too few points", "no rise", "gradual", "threshold only", "everywhere"]


class Jump(NamedTuple):
    """The largest step of a curve."""

    at: int
    """Index of the point after it."""
    share: float
    """Of the whole course from the first point to the last."""
    size: float


class Microscope(NamedTuple):
    """What a thresholded and a continuous metric of the same answers say about one step."""

    finding: Finding
    jump: Jump | None
    continuous_share: float | None
    """Of the continuous metric's course at the step of the jump."""


def largest_jump(values: Array, stderrs: Array) -> Jump | None:
    """The step with the largest rise, where that is more than noise; None where the curve does not rise.

    More than noise: it exceeds twice the standard error of the difference, as does the whole rise.
    """
    found, errors = as_floats(values), np.nan_to_num(np.asarray(stderrs, dtype=np.float64))
    steps = np.diff(found)
    whole = float(found[-1] - found[0])
    if steps.size == 0 or whole <= 2 * float(np.hypot(errors[0], errors[-1])):
        return None
    at = int(steps.argmax())
    if steps[at] <= 2 * float(np.hypot(errors[at], errors[at + 1])):
        return None
    return Jump(at + 1, float(steps[at] / whole), float(steps[at]))


def microscope(thresholded: Array, stderrs: Array, continuous: Array) -> Microscope:
    """Compare a thresholded metric with a continuous one, both rising with ability, over the same checkpoints.

    Schaeffer, Miranda & Koyejo (2023), arXiv:2304.15004: a jump that a nonlinear metric shows and a
    continuous one of the same answers does not was made by the metric. Du et al. (2024),
    arXiv:2403.15796, find abilities that leave chance late under continuous metrics too; then both
    jump, and the finding is `everywhere`.

    Raises:
        ValueError: the arrays differ in length.
    """
    one, other = as_floats(thresholded), as_floats(continuous)
    errors = np.nan_to_num(np.asarray(stderrs, dtype=np.float64))
    if one.shape != other.shape:
        raise ValueError("Both metrics need a value at every checkpoint.")
    if one.size < MIN_POINTS:
        return Microscope("too few points", None, None)
    jump = largest_jump(one, stderrs)
    if jump is None:
        is_flat = one[-1] - one[0] <= 2 * float(np.hypot(errors[0], errors[-1]))
        return Microscope("no rise" if is_flat else "gradual", None, None)
    course = float(np.abs(np.diff(other)).sum())
    share = float((other[jump.at] - other[jump.at - 1]) / course) if course else 0.0
    if jump.share < MIN_SHARE:
        return Microscope("gradual", jump, share)
    return Microscope("threshold only" if share <= SMOOTH_SHARE else "everywhere", jump, share)
