"""The text of each token of a sequence, so that all of them together are the text of the whole."""

from collections.abc import Sequence
from typing import Any

REPLACEMENT = "\ufffd"
"""What decoding gives for the first bytes of a character whose rest has not come yet."""
CONTEXT = 6
"""Tokens before that the text of a token may depend on: spaces at the beginning, and the bytes of one character."""


def token_texts(tokenizer: Any, token_ids: Sequence[int]) -> list[str]:
    """A character of several tokens stands with the last of them; the others have no text."""
    texts: list[str] = []
    start = shown = 0
    for end in range(1, len(token_ids) + 1):
        before = str(tokenizer.decode(list(token_ids[start:shown])))
        now = str(tokenizer.decode(list(token_ids[start:end])))
        if now.endswith(REPLACEMENT) and end < len(token_ids) and end - shown < CONTEXT:
            texts.append("")
            continue
        texts.append(now[len(before) :])
        start, shown = max(shown, end - CONTEXT), end
    return texts
