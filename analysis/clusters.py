"""How far a mean or a ratio of sums may be off, where items that belong together go wrong together."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Groups = Sequence[str] | Sequence[int] | npt.NDArray[Any]
"""One label an item: its passage or subject. An item with an empty label stands alone; and a task that
is all one group is about that group, so that there, too, each item stands alone."""


class Spread(NamedTuple):
    """A standard error, the degrees of freedom it has, and the number of independent units behind it."""

    stderr: float
    df: float
    num_groups: int


def spread(values: Floats, sizes: Floats, groups: Groups | None = None) -> Spread:
    """The error of `sum(values) / sum(sizes)` with whole groups as the units that were drawn.

    With residuals d_i = value_i - ratio * size_i, their sums S_g over each group, and the groups'
    shares h_g of all sizes, the variance is sum(S_g^2 / (1 - h_g)) / sum(sizes)^2. That is
    Liang & Zeger (1986), Biometrika 73, equation 4 of Miller (2024), arXiv:2411.00640, with the
    small-sample correction CR2 of Bell & McCaffrey (2002), Survey Methodology 28, whose degrees of
    freedom go with it. Groups of equal size have G / (G - 1) as correction and G - 1 degrees of
    freedom; items alone and of equal size give s / sqrt(n) and n - 1. Sizes of one make it a mean.

    A single item says nothing about the error, which is then infinite.
    """
    residuals = values - values.sum() / sizes.sum() * sizes
    if groups is not None:
        codes = group_codes(groups, values.size)
        residuals = np.bincount(codes, residuals).astype(np.float64)
        sizes = np.bincount(codes, sizes).astype(np.float64)
    shares = sizes / sizes.sum()
    if shares.size < 2 or shares.max() >= 1:
        return Spread(math.inf, math.nan, shares.size)
    stderr = math.sqrt(float((residuals**2 / (1 - shares)).sum())) / float(sizes.sum())
    return Spread(stderr, _degrees_of_freedom(shares), shares.size)


def group_codes(groups: Groups, n: int) -> npt.NDArray[np.intp]:
    """Labels as whole numbers from 0; every item that stands alone gets a number of its own.

    Raises:
        ValueError: there is not one label for each of the `n` items.
    """
    labels = np.asarray(groups)
    if labels.shape != (n,):
        raise ValueError(f"{n} items need {n} group labels; there are {labels.size}.")
    names, inverse = np.unique(labels, return_inverse=True)
    codes: npt.NDArray[np.intp] = inverse
    if names.size == 1:
        return np.arange(n)
    if names.dtype.kind not in "UO" or names[0] != "":
        return codes
    # Sorted, the empty label is number 0: its first item keeps that number, the others get new ones.
    alone = np.flatnonzero(codes == 0)[1:]
    codes[alone] = names.size + np.arange(alone.size)
    return codes


def _degrees_of_freedom(shares: Floats) -> float:
    # Bell & McCaffrey's (tr B)^2 / tr(B^2), which for a single mean or ratio has this closed form.
    weights = shares**2 / (1 - shares)
    return float(1 / ((shares**2).sum() + weights.sum() ** 2 - (weights**2).sum()))
