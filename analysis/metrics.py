"""Metrics of stored answers, worked out again without an engine: per item, and as estimates with their errors."""

import math
from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from analysis.answers import Answers, Places, best_choices, check, lengths, probabilities, refuse, right_choices
from analysis.clusters import Floats, Groups
from analysis.compare import Difference, paired_difference, paired_ratio_difference
from analysis.intervals import Estimate, mean_interval, proportion_interval, ratio_interval

__all__ = ["ACCURACIES", "METRICS", "Answers", "Bits", "Kind", "bits", "difference", "estimate", "item_values"]

Kind = Literal["choice", "continuation", "text"]

METRICS: Mapping[Kind, tuple[str, ...]] = {
    "choice": ("acc", "acc_norm", "acc_bytes", "acc_per_token", "prob", "brier_score", "bits_per_byte"),
    "continuation": ("acc", "bits_per_byte"),
    "text": ("bits_per_byte",),
}
"""What can be derived from items with several choices, from a single continuation of a prompt, and from a text."""


class Bits(NamedTuple):
    """[n_items] each: the information of the right answers, or of the texts, and their lengths."""

    bits: Floats
    num_bytes: Floats


def item_values(metric: str, answers: Answers) -> Floats:
    """[n_items], the value of a metric that is the mean of its items.

    Raises:
        ValueError: no such metric, or an item that it cannot be worked out for.
    """
    if metric not in _OF_ITEMS:
        raise ValueError(f"There is no metric '{metric}' of single items; there are {', '.join(_OF_ITEMS)}.")
    check(answers)
    return _OF_ITEMS[metric](answers)


def bits(answers: Answers) -> Bits:
    """Bits and bytes of each item's right answer, or of the text: -log2 of its probability.

    Their ratio of sums is bits per byte: Gao et al. (2020), "The Pile", arXiv:2101.00027; of
    right answers as in Heineman et al. (2025), arXiv:2508.13144.
    """
    check(answers)
    places = right_choices(answers)
    found, sizes = -answers.sum_logprob[places] / math.log(2), answers.num_bytes[places].astype(np.float64)
    refuse(np.isinf(found), "has an answer that the model takes to be impossible")
    refuse(sizes < 1, "has an answer without bytes")
    return Bits(found, sizes)


def estimate(metric: str, answers: Answers, groups: Groups | None = None) -> Estimate:
    """The value of a metric with its 95% interval, clustered where items have groups.

    Wilson's for shares of right answers, Student's t for other means, the linearised one for bits per byte.
    """
    if metric == "bits_per_byte":
        return ratio_interval(*bits(answers), groups)
    values = item_values(metric, answers)
    return proportion_interval(values, groups) if metric in ACCURACIES else mean_interval(values, groups)


def difference(metric: str, before: Answers, after: Answers, groups: Groups | None = None) -> Difference:
    """After minus before over the same items in the same order, with the paired test that fits the metric.

    Raises:
        ValueError: the two did not answer the same items.
    """
    if metric != "bits_per_byte":
        return paired_difference(item_values(metric, before), item_values(metric, after), groups)
    first, second = bits(before), bits(after)
    if not np.array_equal(first.num_bytes, second.num_bytes):
        raise ValueError("A paired comparison needs the same items on both sides, and at least one.")
    return paired_ratio_difference(first.bits, second.bits, second.num_bytes, groups)


def _accuracy(answers: Answers) -> Floats:
    """The right choice has the highest log-probability; a lone continuation is what greedy decoding gives (lm-eval)."""
    if (np.diff(answers.offsets) == 1).all() and (answers.target < 0).all():
        return answers.is_greedy.astype(np.float64)
    return _is_right(answers, answers.sum_logprob)


def _accuracy_by_chars(answers: Answers) -> Floats:
    """lm-eval's acc_norm: log-probability over the characters of the choice (Brown et al. 2020, arXiv:2005.14165)."""
    return _is_right(answers, answers.sum_logprob / lengths(answers, answers.num_chars, "characters"))


def _accuracy_by_bytes(answers: Answers) -> Floats:
    """lm-eval's acc_bytes: log-probability over the bytes of the choice in UTF-8."""
    return _is_right(answers, answers.sum_logprob / lengths(answers, answers.num_bytes, "bytes"))


def _accuracy_by_tokens(answers: Answers) -> Floats:
    """Log-probability over the tokens of the choice: Gu et al. (2024), "OLMES", arXiv:2406.08446."""
    return _is_right(answers, answers.sum_logprob / lengths(answers, answers.num_tokens, "tokens"))


def _probability(answers: Answers) -> Floats:
    """Probability of the right choice among the choices: Schaeffer et al. (2024), arXiv:2406.04391."""
    return probabilities(answers)[_targets(answers)]


def _brier_score(answers: Answers) -> Floats:
    """Brier (1950), Monthly Weather Review 78, over all choices, from 0 to 2, as in lm-eval 0.4.13."""
    given = probabilities(answers)
    given[_targets(answers)] -= 1
    return np.asarray(np.add.reduceat(given**2, answers.offsets[:-1]), dtype=np.float64)


def _is_right(answers: Answers, scores: Floats) -> Floats:
    is_right: npt.NDArray[np.bool_] = best_choices(answers, scores) == _targets(answers)
    return is_right.astype(np.float64)


def _targets(answers: Answers) -> Places:
    refuse(answers.target < 0, "has no right choice")
    return right_choices(answers)


ACCURACIES = ("acc", "acc_norm", "acc_bytes", "acc_per_token")
"""Metrics that are shares of right answers."""

_OF_ITEMS: Mapping[str, Callable[[Answers], Floats]] = {
    "acc": _accuracy,
    "acc_norm": _accuracy_by_chars,
    "acc_bytes": _accuracy_by_bytes,
    "acc_per_token": _accuracy_by_tokens,
    "prob": _probability,
    "brier_score": _brier_score,
}
