"""What a ticket asks to be written: the prompt's tokens and how to draw the answer, read from its turn or its call."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from registry import calls, chats, checkpoints
from registry.models import ApiCall, Checkpoint, Turn
from registry.models.base import CANCELLED, FINISHED
from registry.tickets import Claim
from worker.engine.protocol import EngineError, Sampling
from worker.engine.tokenizer import load_tokenizer
from worker.prompts import chat_tokens, has_template, text_tokens

DEFAULT_TEMPERATURE = 0.8
DEFAULT_TOP_P = 0.95

Message = dict[str, str]
"""OpenAI's: `role` and `content`."""


@dataclass(frozen=True)
class Question:
    """Read from the database once; whoever writes the answer needs nothing more."""

    folder: Path
    is_chat: bool
    sampling: Sampling
    messages: Sequence[Message] = ()
    """The conversation up to and with the prompt, which is the last."""
    token_ids: Sequence[int] = ()
    """The prompt, where whoever asks has made the tokens already."""


def read(session: Session, claim: Claim) -> Question:
    """The question behind a claim of a turn, or of a call that is streamed; marks it as begun.

    Raises:
        EngineError: the ticket is an evaluation's.
    """
    if claim.turn_id is not None:
        turn = chats.get_turn(session, claim.turn_id)
        chats.start_turn(session, turn.id)
        return of_turn(turn)
    if claim.call_id is not None:
        call = calls.get(session, claim.call_id)
        calls.start(session, call.id)
        return of_call(call)
    raise EngineError(f"Ticket {claim.ticket_id} asks for no answer.")


def is_streamed(session: Session, claim: Claim) -> bool:
    """Whether the answer is told as it is written: all turns, and calls for one choice without echo."""
    if claim.call_id is None:
        return claim.turn_id is not None
    asked = calls.get(session, claim.call_id).request
    return not asked.get("echo") and asked["params"].get("n", 1) == 1 and len(asked.get("prompts") or [""]) == 1


def of_turn(turn: Turn) -> Question:
    """The question of a turn loaded by `chats.get_turn`: its whole branch up to its prompt."""
    messages = []
    if system := str(turn.params.get("system") or ""):
        messages.append({"role": "system", "content": system})
    for earlier in chats.path_to(turn.chat.turns, turn.parent_id):
        if earlier.answer and earlier.status in (FINISHED, CANCELLED):
            messages.append({"role": "user", "content": earlier.prompt})
            messages.append({"role": "assistant", "content": earlier.answer})
    messages.append({"role": "user", "content": turn.prompt})
    return _question(turn.chat.checkpoint, messages, turn.params)


def of_call(call: ApiCall) -> Question:
    """The question of a call with one prompt."""
    asked = call.request
    if asked["kind"] == "chat":
        return _question(call.checkpoint, asked["messages"], asked["params"])
    [prompt] = asked["prompts"]
    folder, sampling = checkpoints.path(call.checkpoint), read_sampling(asked["params"])
    if isinstance(prompt, str):
        return Question(folder, False, sampling, [{"role": "user", "content": prompt}])
    return Question(folder, False, sampling, token_ids=prompt)


def _question(checkpoint: Checkpoint, messages: Sequence[Message], params: Mapping[str, Any]) -> Question:
    return Question(checkpoints.path(checkpoint), checkpoint.kind == "chat", read_sampling(params), messages)


def read_sampling(params: Mapping[str, Any]) -> Sampling:
    """Sampling from parameters in OpenAI's names."""
    seed, logprobs, stop = params.get("seed"), params.get("logprobs"), params.get("stop") or ()
    return Sampling(
        max_tokens=max(1, int(params.get("max_tokens", chats.DEFAULT_MAX_TOKENS))),
        temperature=float(params.get("temperature", DEFAULT_TEMPERATURE)),
        top_p=float(params.get("top_p", DEFAULT_TOP_P)),
        seed=None if seed is None else int(seed),
        repetition_penalty=float(params.get("repetition_penalty", 1.0)),
        stop=(stop,) if isinstance(stop, str) else tuple(stop),
        logprobs=None if logprobs is None or logprobs is False else int(logprobs),
    )


def prompt_tokens(question: Question) -> list[int]:
    """A chat model gets its template over the history that fits; a base model just goes on from the prompt."""
    if question.token_ids:
        return list(question.token_ids)
    if question.is_chat and has_template(question.folder):
        return chat_tokens(question.folder, question.messages, question.sampling.max_tokens)
    return text_tokens(question.folder, question.messages[-1]["content"])


def check_known(question: Question) -> None:
    """That tokens which were given are of this model's vocabulary: others would take an engine down.

    Raises:
        EngineError: they are not.
    """
    size = len(load_tokenizer(question.folder))
    if question.token_ids and max(question.token_ids) >= size:
        raise EngineError(f"The prompt has the token {max(question.token_ids)}; this model knows those below {size:,}.")
