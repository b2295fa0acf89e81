"""From a conversation to the tokens of a prompt."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from worker.confined import render_chat
from worker.engine.shape import read_shape
from worker.engine.tokenizer import load_tokenizer

Message = Mapping[str, str]
"""OpenAI's: `role` and `content`."""


def has_template(folder: Path) -> bool:
    """Whether a checkpoint says how a conversation is written."""
    return bool(load_tokenizer(folder).chat_template)


def text_tokens(folder: Path, text: str) -> list[int]:
    """A text to go on from, with the token that begins one."""
    tokenizer = load_tokenizer(folder)
    start = [] if tokenizer.bos_token_id is None else [int(tokenizer.bos_token_id)]
    return start + list(tokenizer.encode(text, add_special_tokens=False))


def chat_tokens(folder: Path, messages: Sequence[Message], max_tokens: int) -> list[int]:
    """A conversation in the checkpoint's template, with the newest exchanges that leave room for `max_tokens`.

    Raises:
        Invalid: the template cannot be rendered.
    """
    tokenizer = load_tokenizer(folder)
    context_length = read_shape(folder).context_length
    room = max(context_length - max_tokens, context_length // 2)
    system = [message for message in messages[:1] if message["role"] == "system"]
    said = list(messages[len(system) :])
    token_ids: list[int] = []
    for first in range(0, len(said), 2):  # whole exchanges leave, the oldest first
        text = render_chat(tokenizer, [*system, *said[first:]])
        token_ids = list(tokenizer.encode(text, add_special_tokens=False))
        if len(token_ids) <= room:
            break
    return token_ids
