"""The stored answers of one evaluation as flat columns, and what can be read off them choice by choice."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from analysis.clusters import Floats

Ints = npt.NDArray[np.int32]
Places = npt.NDArray[np.intp]


class Answers(NamedTuple):
    """Every choice of every item in one row of arrays; item i has the choices offsets[i] up to offsets[i + 1].

    A text, or a single continuation, is an item with one choice and no target.
    """

    offsets: npt.NDArray[np.int64]
    """[n_items + 1], from 0, rising."""
    sum_logprob: Floats
    """[n_choices], in nats."""
    num_tokens: Ints
    num_bytes: Ints
    num_chars: Ints
    is_greedy: npt.NDArray[np.bool_]
    target: Ints
    """[n_items], the number of the right choice within its item; -1 where there is none."""


def check(answers: Answers) -> None:
    """Refuse answers that no metric can be made of.

    Raises:
        ValueError: with a sentence that names the first item at fault by its number, from 0.
    """
    counts = np.diff(answers.offsets)
    sizes = {column.size for column in answers[1:6]}
    if counts.size == 0:
        raise ValueError("There are no items.")
    if answers.offsets[0] != 0 or sizes != {int(answers.offsets[-1])} or answers.target.size != counts.size:
        raise ValueError("The columns of the answers differ in length.")
    refuse(counts < 1, "has no choices")
    refuse((answers.target < -1) | (answers.target >= counts), "has a right choice that is not among its choices")
    broken = np.isnan(answers.sum_logprob) | (answers.sum_logprob == np.inf)
    refuse(np.logical_or.reduceat(broken, answers.offsets[:-1]), "has a log-probability that is not a number")


def right_choices(answers: Answers) -> Places:
    """[n_items], where in the flat columns each item's right choice is; of a text, its only entry.

    Raises:
        ValueError: an item with several choices has no right one.
    """
    has_none = (answers.target < 0) & (np.diff(answers.offsets) > 1)
    refuse(has_none, "has several choices and none of them is the right one")
    places: Places = answers.offsets[:-1] + np.maximum(answers.target, 0)
    return places


def best_choices(answers: Answers, scores: Floats) -> Places:
    """[n_items], where in the flat columns each item's highest score is; of equal ones the first, as np.argmax."""
    highest = np.maximum.reduceat(scores, answers.offsets[:-1])
    at_top: Places = np.flatnonzero(scores == np.repeat(highest, np.diff(answers.offsets)))
    first: Places = at_top[np.searchsorted(at_top, answers.offsets[:-1])]
    return first


def probabilities(answers: Answers) -> Floats:
    """[n_choices], the softmax of the summed log-probabilities over the choices of each item.

    Raises:
        ValueError: an item has no choice with a finite log-probability.
    """
    counts, starts = np.diff(answers.offsets), answers.offsets[:-1]
    highest = np.maximum.reduceat(answers.sum_logprob, starts)
    refuse(~np.isfinite(highest), "has no choice with a finite log-probability")
    weights = np.exp(answers.sum_logprob - np.repeat(highest, counts))
    return np.asarray(weights / np.repeat(np.add.reduceat(weights, starts), counts), dtype=np.float64)


def lengths(answers: Answers, column: Ints, unit: str) -> Floats:
    """[n_choices], one of the length columns, to divide by.

    Raises:
        ValueError: a choice has none of the unit.
    """
    refuse(np.logical_or.reduceat(column < 1, answers.offsets[:-1]), f"has a choice without {unit}")
    return column.astype(np.float64)


def refuse(is_wrong: npt.NDArray[np.bool_], complaint: str) -> None:
    """Raise a ValueError that names the first item for which something is wrong."""
    if is_wrong.any():
        raise ValueError(f"Item {int(is_wrong.argmax())} {complaint}.")
