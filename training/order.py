"""Which window each sample of a run reads: a pure function of the seed and the sample's number.

There is no loader state: whoever knows how many samples were read knows what comes next, with
any number of processes.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

BLOCK = 64
"""Samples over which the mixture is kept exactly; the places within a block are shuffled."""


class Place(NamedTuple):
    """One window of the corpus."""

    language: str
    window: int


class SampleOrder:
    """Order of the samples of one corpus under one seed."""

    def __init__(self, *, seed: int, num_windows: Mapping[str, int], mixture: Mapping[str, float]) -> None:
        self.seed = seed
        self.num_windows = {language: num_windows[language] for language in sorted(mixture) if mixture[language] > 0}
        self.counts = _share_out({language: mixture[language] for language in self.num_windows}, BLOCK)
        self._pattern = np.repeat(np.arange(len(self.counts)), list(self.counts.values()))
        # Instances share nothing; a cache on the method would keep them alive.
        self._shuffled = lru_cache(maxsize=8)(self._shuffle_block)
        self._permutation = lru_cache(maxsize=8)(self._permute)

    def place(self, sample: int) -> Place:
        """The window that sample number `sample` of the run reads."""
        block, position = divmod(sample, BLOCK)
        pattern = self._shuffled(block)
        code = int(pattern[position])
        language = list(self.counts)[code]
        earlier = block * self.counts[language] + int(np.count_nonzero(pattern[:position] == code))
        epoch, index = divmod(earlier, self.num_windows[language])
        return Place(language, int(self._permutation(language, epoch)[index]))

    def tally(self, samples: range) -> dict[str, int]:
        """How many of these samples are of each language; whole blocks are not looked at one by one."""
        counts = np.zeros(len(self.counts), dtype=np.int64)
        whole = np.array(list(self.counts.values()))
        for block in range(samples.start // BLOCK, -(-samples.stop // BLOCK)):
            first, stop = max(samples.start - block * BLOCK, 0), min(samples.stop - block * BLOCK, BLOCK)
            is_whole = stop - first == BLOCK
            counts += whole if is_whole else np.bincount(self._shuffled(block)[first:stop], minlength=len(whole))
        return {language: int(count) for language, count in zip(self.counts, counts, strict=True)}

    def _shuffle_block(self, block: int) -> npt.NDArray[np.int64]:
        return np.random.default_rng([self.seed, 0, block]).permutation(self._pattern)

    def _permute(self, language: str, epoch: int) -> npt.NDArray[np.int64]:
        code = list(self.counts).index(language)
        return np.random.default_rng([self.seed, 1 + code, epoch]).permutation(self.num_windows[language])


def _share_out(shares: Mapping[str, float], total: int) -> dict[str, int]:
    """Whole numbers in proportion to `shares` that add up to `total` (largest remainders)."""
    whole = sum(shares.values())
    exact = {name: total * share / whole for name, share in shares.items()}
    counts = {name: int(value) for name, value in exact.items()}
    by_remainder = sorted(exact, key=lambda name: (counts[name] - exact[name], name))
    for name in by_remainder[: total - sum(counts.values())]:
        counts[name] += 1
    return counts
