"""What became of each item of a task through a training run: never learned, learned, forgotten, relearned, flickering.

All functions take [items × checkpoints], the checkpoints in order of training and NaN where an item was not
answered; what is missing is passed over. Guessing and slips are allowed for as in knowledge tracing (Corbett &
Anderson 1995, User Modeling and User-Adapted Interaction 4): a single lucky answer is no knowledge, a single
wrong one no forgetting.
"""

from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from analysis.clusters import Floats

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]
Counts = npt.NDArray[np.signedinteger[Any]]
Numbers = npt.NDArray[np.floating[Any]]

STATES = ("learned", "relearned", "forgotten", "flickering", "never")
LEARNED, RELEARNED, FORGOTTEN, FLICKERING, NEVER = range(len(STATES))

RISK = 0.05
"""Chance, over a whole run, that guessing passes for knowledge, and that slips pass for forgetting."""
SLIP = 0.1
"""Share of wrong answers that an item may have and still count as known."""
MAX_TURNS = 3
"""Turns between not known and known: learned, forgotten, learned again. More is flickering."""
STEADY = 0.2
"""A learned item with a larger share of wrong answers since then flickers."""
SMOOTHED = 20
"""`halfway` smooths over one in so many checkpoints."""
MANY = 16_000
"""Checkpoints whose numbers, times two, no longer fit into 16 bits."""
BLOCK = 512
"""Items at a time, so that what is worked out on the way stays in the processor's cache."""


class Patience(NamedTuple):
    """How many answers in a row make an item known, and how many make it forgotten."""

    right: int
    wrong: int


class Histories(NamedTuple):
    """One entry an item in each array."""

    state: npt.NDArray[np.int8]
    """Number in `STATES`."""
    acquired: Ints
    """Column of its age of acquisition, where the run of right answers began that first made it known; -1 if never."""
    from_start: Bools
    """It was known at its first answer, so its true age of acquisition may be lower."""
    forgettability: Floats
    """Share of wrong answers after its age of acquisition, 0 to 1; NaN if it was never learned."""
    forgetting_events: Ints
    """How often a right answer was followed by a wrong one."""
    share_right: Floats
    """Of all its answers; NaN without any."""


def patience(num_checkpoints: int, chance: float | None) -> Patience:
    """Run lengths that guesses at rate `chance`, and slips at rate `SLIP`, hardly ever reach in a whole run.

    Hardly ever is `RISK`: n trials of probability p have a run of r with at most p^r (1 + (n - r)(1 - p)), the
    expected number of runs (Feller 1968, An Introduction to Probability Theory, chapter XIII). Free answers cannot be
    guessed (`chance` 0 or None): one right answer is knowledge.
    """
    guess = min(max(chance or 0.0, 0.0), 0.95)
    return Patience(_longest_run(num_checkpoints, guess), _longest_run(num_checkpoints, SLIP))


def histories(values: Numbers, chance: float | None = None, threshold: float = 0.5) -> Histories:
    """The state, the age of acquisition and the forgettability of each item; right is what reaches `threshold`.

    An item becomes known with the first of `patience(...).right` right answers in a row, and unknown again with
    `patience(...).wrong` wrong ones in a row. By the number of these turns it is *never learned* (0), *learned*
    (1), *forgotten* (2), *relearned* (3) or *flickering* (more than `MAX_TURNS`). A learned item that is wrong in
    more than `STEADY` of its answers since then flickers too.

    Forgetting events, a right answer followed by a wrong one, are those of Toneva et al. (2019), "An Empirical
    Study of Example Forgetting", arXiv:1812.05159. Age of acquisition and forgettability of an example follow
    Chang, Tu & Bergen (2024), "Characterizing Learning Curves During Language Model Pre-Training", TACL 12,
    who take them from fitted surprisal curves; here they are taken from right and wrong answers.
    """
    given = np.asarray(values)
    return histories_of(given >= threshold, given < threshold, chance)


def histories_of(is_right: Bools, is_wrong: Bools, chance: float | None = None) -> Histories:
    """As `histories`, of answers that are told apart already; what is neither is missing."""
    needed = patience(is_right.shape[1], chance)
    starts = range(0, len(is_right), BLOCK) or [0]
    blocks = [_histories(is_right[at : at + BLOCK], is_wrong[at : at + BLOCK], needed) for at in starts]
    return Histories(*(np.concatenate(column) for column in zip(*blocks, strict=True)))


def halfway(values: Numbers) -> Ints:
    """Column at which each smoothed curve first comes half of the way from where it begins to its best; -1 if flat.

    The age of acquisition of what is neither right nor wrong, such as the likelihood of a text: Chang & Bergen
    (2022), "Word Acquisition in Neural Language Models", TACL 10, there between chance and the best surprisal.
    """
    given = np.asarray(values, dtype=np.float64)
    if 0 in given.shape:
        return np.full(len(given), -1, dtype=np.int64)
    curve = _smoothed(given, max(1, given.shape[1] // SMOOTHED))
    begin = np.take_along_axis(curve, np.maximum(_first(~np.isnan(curve.T)), 0)[:, None], axis=1)[:, 0]
    best = np.fmax.reduce(curve, axis=1)
    with np.errstate(invalid="ignore"):
        is_past = (curve >= ((begin + best) / 2)[:, None]) & (best > begin)[:, None]
    return _first(is_past.T)


def by_age(acquired: Ints, share_right: Floats) -> Ints:
    """Numbers of the items by age of acquisition; at equal ages the one that is right more often first, never last."""
    ages = np.where(acquired < 0, np.iinfo(np.int64).max, acquired)
    return np.asarray(np.lexsort((-np.nan_to_num(share_right), ages)), dtype=np.int64)


def _longest_run(trials: int, p: float) -> int:
    length = 1
    while p**length * (1 + max(0, trials - length) * (1 - p)) > RISK:
        length += 1
    return length


def _histories(rights: Bools, wrongs: Bools, needed: Patience) -> Histories:
    # [checkpoint, item]: what runs along training runs over whole rows.
    is_right, is_wrong = np.ascontiguousarray(rights.T), np.ascontiguousarray(wrongs.T)
    if not len(is_right):
        is_right, is_wrong = np.zeros((2, 1, len(rights)), dtype=bool)  # as if nobody had answered yet
    kind: type[np.signedinteger[Any]] = np.int16 if len(is_right) < MANY else np.int32
    right = _running(np.add, is_right.astype(kind))
    wrong = _running(np.add, is_wrong.astype(kind))
    place = np.arange(2, 2 * len(is_right) + 2, 2, dtype=kind)[:, None]
    is_known = _known(is_right, is_wrong, right, wrong, place, needed)
    turns = np.count_nonzero(is_known[1:] != is_known[:-1], axis=0) + is_known[0]
    acquired = _acquired(is_known, right, needed.right)
    forgettability = _forgettability(right, wrong, acquired)
    answered = (right[-1] + wrong[-1]).astype(np.float64)
    share = np.divide(right[-1], answered, out=np.full(len(rights), np.nan), where=answered > 0)
    return Histories(
        state=_states(turns, forgettability),
        acquired=acquired,
        from_start=(acquired >= 0) & (acquired == _first(is_right | is_wrong)),
        forgettability=forgettability,
        forgetting_events=_forgetting_events(is_right, is_wrong, place),
        share_right=share,
    )


def _known(is_right: Bools, is_wrong: Bools, right: Counts, wrong: Counts, place: Counts, needed: Patience) -> Bools:
    """[checkpoint, item], whether it counts as known after that answer."""
    rights = right - _running(np.maximum, right * is_wrong)
    wrongs = wrong - _running(np.maximum, wrong * is_right)
    # The place of the last answer that settled it, odd where it settled that the item is known.
    settled = (place + 1) * (rights >= needed.right) + place * (wrongs >= needed.wrong)
    return (_running(np.maximum, settled) & 1).astype(bool)


def _acquired(is_known: Bools, right: Counts, needed: int) -> Ints:
    """Where the run of right answers began that first made an item known."""
    settled = _first(is_known)
    begun = right[np.maximum(settled, 0), np.arange(len(settled))] - needed + 1
    return np.where(settled < 0, -1, np.argmax(right >= begun, axis=0))


def _forgettability(right: Counts, wrong: Counts, acquired: Ints) -> Floats:
    who = np.flatnonzero(acquired >= 0)
    later_right, later_wrong = (
        (counts[-1, who] - counts[acquired[who], who]).astype(np.float64) for counts in (right, wrong)
    )
    found = np.full(len(acquired), np.nan)
    found[who] = later_wrong / np.maximum(1, later_right + later_wrong)
    return found


def _states(turns: Ints, forgettability: Floats) -> npt.NDArray[np.int8]:
    of_turns = np.array([NEVER, LEARNED, FORGOTTEN, RELEARNED, FLICKERING], dtype=np.int8)
    state: npt.NDArray[np.int8] = of_turns[np.minimum(turns, MAX_TURNS + 1)]
    with np.errstate(invalid="ignore"):
        state[(state == LEARNED) & (forgettability > STEADY)] = FLICKERING
    return state


def _forgetting_events(is_right: Bools, is_wrong: Bools, place: Counts) -> Ints:
    last = _running(np.maximum, (place + 1) * is_right + place * is_wrong)
    return np.asarray(np.count_nonzero(is_wrong[1:] & ((last[:-1] & 1) == 1), axis=0), dtype=np.int64)


def _running(combine: np.ufunc, rows: Counts) -> Counts:
    """Each row combined with all before it, in place; row by row, which is five times faster than `accumulate`."""
    for before, row in pairwise(rows):
        combine(before, row, out=row)
    return rows


def _first(is_there: Bools) -> Ints:
    """[checkpoint, item]: the first checkpoint for which it is true, -1 where none is."""
    return np.where(is_there.any(axis=0), np.argmax(is_there, axis=0), -1)


def _smoothed(values: Floats, window: int) -> Floats:
    """The mean of the last `window` answers' columns, without what is missing."""
    sums = np.cumsum(np.nan_to_num(values), axis=1)
    numbers = np.cumsum(~np.isnan(values), axis=1).astype(np.float64)
    for running in (sums, numbers):
        running[:, window:] -= running[:, :-window].copy()
    found: Floats = np.divide(sums, numbers, out=np.full(values.shape, np.nan), where=numbers > 0)
    return found
