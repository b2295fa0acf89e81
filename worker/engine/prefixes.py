"""Packs score requests into rows in which a common beginning stands only once.

The choices of an item share their context, and few-shot items share their examples. A row holds
such requests as a tree of tokens written depth first: what a token sees are the tokens before it
whose subtree has not ended, its ancestors. So a model that is given these positions and this mask
computes every distinct beginning once and the same numbers as for each request alone.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from worker.engine.protocol import ScoreRequest

TOKEN_COST = 2
"""A token costs as much as this many times `width` pairs of attention.

By operations it would be 6 (24 * width**2 in a LLaMA's matrices, 4 * width a pair); attention over
short rows runs at about a third of the speed of the matrices (AMD EPYC, torch 2.13).
"""


@dataclass(frozen=True)
class Read:
    """Where a row answers a request: what stands at `places[n]` predicts the continuation's n-th token."""

    index: int
    places: list[int]
    targets: list[int]


@dataclass
class Row:
    """One tree of tokens; the lists are of equal length, an entry a token."""

    token_ids: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    """Depth in the tree, which is the position in the request's own text."""
    ends: list[int] = field(default_factory=list)
    """The token's subtree reaches from its own place to before this one."""
    reads: list[Read] = field(default_factory=list)
    _path: list[int] = field(default_factory=list, repr=False)
    _last: list[int] = field(default_factory=list, repr=False)

    def __len__(self) -> int:
        return len(self.token_ids)

    @property
    def has_branches(self) -> bool:
        """Whether a token does not see all tokens before it."""
        return len(self._path) < len(self.token_ids)

    def count_shared(self, token_ids: list[int]) -> int:
        """Tokens at the beginning that the request added last has too."""
        number = 0
        for one, other in zip(self._last, token_ids, strict=False):
            if one != other:
                break
            number += 1
        return number

    def add(self, index: int, request: ScoreRequest) -> None:
        """Hang a request into the tree, below what it shares with the request added last."""
        token_ids = _inputs(request)
        del self._path[self.count_shared(token_ids) :]
        for token_id in token_ids[len(self._path) :]:
            self.positions.append(len(self._path))
            self._path.append(len(self.token_ids))
            self.token_ids.append(token_id)
            self.ends.append(0)
        for place in self._path:
            self.ends[place] = len(self.token_ids)
        self._last = token_ids
        start = len(request.context) - 1
        places = self._path[start : start + len(request.continuation)]
        self.reads.append(Read(index, places, request.continuation))


def pack(requests: Sequence[ScoreRequest], *, width: int, max_tokens: int) -> list[Row]:
    """Rows that answer all requests, the longest first.

    `width` is the model's hidden size. A row grows up to `max_tokens`; only a request that is longer
    by itself makes a longer one.
    """
    rows: list[Row] = []
    for index in sorted(range(len(requests)), key=lambda index: _inputs(requests[index])):
        if not rows or not _belongs(rows[-1], requests[index], width, max_tokens):
            rows.append(Row())
        rows[-1].add(index, requests[index])
    return sorted(rows, key=len, reverse=True)


def batches(rows: Sequence[Row], max_tokens: int) -> Iterator[Sequence[Row]]:
    """Rows of about one length together, at most `max_tokens` with their padding, or one row.

    The last ones are smaller, so that lanes that take them in turns end at about the same time. How many lanes there
    are has no say in it: sums in batches of another shape differ in the last bits.
    """
    start, left = 0, sum(map(len, rows))
    while start < len(rows):
        tokens = min(max_tokens, max(left // 4, max_tokens // 4))
        batch = rows[start : start + max(1, tokens // len(rows[start]))]
        yield batch
        start += len(batch)
        left -= sum(map(len, batch))


def _inputs(request: ScoreRequest) -> list[int]:
    """What the model reads; the last token is only looked up."""
    return request.context + request.continuation[:-1]


def _belongs(row: Row, request: ScoreRequest, width: int, max_tokens: int) -> bool:
    """Whether the tokens that a place in this row saves outweigh the attention that the longer row costs."""
    token_ids = _inputs(request)
    shared = row.count_shared(token_ids)
    grown = len(row) + len(token_ids) - shared
    more_pairs = grown**2 - len(row) ** 2 - len(token_ids) ** 2
    return grown <= max_tokens and more_pairs <= TOKEN_COST * width * shared
