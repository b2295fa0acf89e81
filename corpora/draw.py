"""Chance that depends on content alone: what looks random is a hash, the same on every machine and in every order.

A text that is added to a corpus or taken from it moves no other item of a benchmark.
"""

import hashlib


def rank(*parts: str) -> str:
    """A place in a fixed shuffle: 64 hex digits to sort by."""
    return hashlib.sha256("\0".join(parts).encode(errors="surrogatepass")).hexdigest()


def pick(below: int, *parts: str) -> int:
    """A whole number from 0 to `below` - 1."""
    return int(rank(*parts)[:15], 16) % below
