"""How answers look: whole ones and the chunks of streams, of both kinds of requests."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from registry import calls
from registry.models import ApiCall, Checkpoint

LEAST_LOGPROB = -9_999.0
"""OpenAI's word for "never": JSON has no infinity."""

Token = Sequence[Any]
"""[text, logprob, [[text, logprob] of the likeliest …]], as `Turn.tokens` keeps them."""


class Head(NamedTuple):
    """What every part of an answer begins with."""

    id: str
    kind: str
    created: int
    model: str
    logprobs: int | None
    """So many likeliest tokens were asked for."""

    @classmethod
    def of(cls, call: ApiCall) -> "Head":
        """Of a call that was just opened; whoever answers later needs no row for it."""
        request = call.request
        created = int(call.created_at.timestamp())
        return cls(call.public_id, request["kind"], created, call.checkpoint.label, request["params"]["logprobs"])


class Usage(NamedTuple):
    """Tokens read and written."""

    prompt_tokens: int
    completion_tokens: int

    def content(self) -> dict[str, int]:
        """OpenAI's form."""
        return {**self._asdict(), "total_tokens": self.prompt_tokens + self.completion_tokens}


def whole(head: Head, choices: Sequence[Mapping[str, Any]], usage: Usage) -> dict[str, Any]:
    """A whole answer from the result of a call."""
    form = _whole_chat if head.kind == calls.CHAT else _whole_text
    written = [
        {"index": choice["index"], **form(head, choice), "finish_reason": choice["finish_reason"]} for choice in choices
    ]
    return {**_frame(head, is_chunk=False), "choices": written, "usage": usage.content()}


def _whole_chat(head: Head, choice: Mapping[str, Any]) -> dict[str, Any]:
    message = {"role": "assistant", "content": choice["text"], "refusal": None}
    return {"message": message, "logprobs": _chat_logprobs(head, choice["tokens"])}


def _whole_text(head: Head, choice: Mapping[str, Any]) -> dict[str, Any]:
    return {"text": choice["text"], "logprobs": text_logprobs(head.logprobs, choice["tokens"])}


def opening(head: Head, index: int, *, has_usage: bool) -> dict[str, Any] | None:
    """The first chunk of a choice; completions have none."""
    if head.kind != calls.CHAT:
        return None
    delta = {"role": "assistant", "content": "", "refusal": None}
    return _chunk(head, {"index": index, "delta": delta, "logprobs": None, "finish_reason": None}, has_usage)


def piece(
    head: Head, index: int, text: str, tokens: Sequence[Token] | None, *, offset: int, has_usage: bool
) -> dict[str, Any]:
    """A chunk with text; `offset` is how many characters came before."""
    if head.kind == calls.CHAT:
        choice = {"index": index, "delta": {"content": text}, "logprobs": _chat_logprobs(head, tokens)}
    else:
        choice = {"index": index, "text": text, "logprobs": text_logprobs(head.logprobs, tokens, offset)}
    return _chunk(head, {**choice, "finish_reason": None}, has_usage)


def closing(head: Head, index: int, finish_reason: str, *, has_usage: bool) -> dict[str, Any]:
    """The last chunk of a choice."""
    content: dict[str, Any] = {"delta": {}} if head.kind == calls.CHAT else {"text": ""}
    return _chunk(head, {"index": index, **content, "logprobs": None, "finish_reason": finish_reason}, has_usage)


def used(head: Head, usage: Usage) -> dict[str, Any]:
    """The chunk after the last, where it was asked for."""
    return {**_frame(head, is_chunk=True), "choices": [], "usage": usage.content()}


def model(checkpoint: Checkpoint, owner: str) -> dict[str, Any]:
    """A checkpoint as a model."""
    created = int(checkpoint.created_at.timestamp())
    return {"id": checkpoint.label, "object": "model", "created": created, "owned_by": owner}


def text_logprobs(asked: int | None, tokens: Sequence[Token] | None, offset: int = 0) -> dict[str, Any] | None:
    """The form of completions: parallel lists, and for each place a dictionary of the likeliest."""
    if asked is None or tokens is None:
        return None
    offsets = []
    for text, *_ in tokens:
        offsets.append(offset)
        offset += len(text)
    return {
        "tokens": [text for text, *_ in tokens],
        "token_logprobs": [_finite(logprob) for _, logprob, _ in tokens],
        "top_logprobs": [_by_text(likeliest) if asked else None for _, _, likeliest in tokens],
        "text_offset": offsets,
    }


def _by_text(likeliest: Sequence[Sequence[Any]] | None) -> dict[str, float | None] | None:
    """Several tokens can have one text, such as halves of a character: the likeliest of them counts."""
    if not likeliest:
        return None
    found: dict[str, float | None] = {}
    for text, logprob in sorted(likeliest, key=lambda one: -one[1]):
        found.setdefault(text, _finite(logprob))
    return found


def _chat_logprobs(head: Head, tokens: Sequence[Token] | None) -> dict[str, Any] | None:
    if head.logprobs is None or tokens is None:
        return None
    content = [
        {**_token(text, logprob), "top_logprobs": [_token(*one) for one in (likeliest or [])[: head.logprobs]]}
        for text, logprob, likeliest in tokens
    ]
    return {"content": content, "refusal": None}


def _token(text: str, logprob: float | None) -> dict[str, Any]:
    return {"token": text, "logprob": _finite(logprob), "bytes": list(text.encode())}


def _finite(logprob: float | None) -> float | None:
    if logprob is None:
        return None
    # NaN is neither less nor greater: it is told as "never", too.
    return logprob if logprob > LEAST_LOGPROB else LEAST_LOGPROB


def _frame(head: Head, *, is_chunk: bool) -> dict[str, Any]:
    kinds = {calls.CHAT: "chat.completion.chunk" if is_chunk else "chat.completion"}
    kind = kinds.get(head.kind, "text_completion")
    return {"id": head.id, "object": kind, "created": head.created, "model": head.model, "system_fingerprint": None}


def _chunk(head: Head, choice: dict[str, Any], has_usage: bool) -> dict[str, Any]:
    usage: dict[str, Any] = {"usage": None} if has_usage else {}
    return {**_frame(head, is_chunk=True), "choices": [choice], **usage}
