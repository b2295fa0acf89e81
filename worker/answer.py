"""Answering one chat turn: the prompt, the stream of pieces, and the record of the whole."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from registry import chats, checkpoints, db, events, tickets
from registry.models import Turn
from registry.models.base import CANCELLED, FAILED, FINISHED
from registry.tickets import Claim
from worker.engine.protocol import Delta, Engine, EngineError, Sampling
from worker.engine.shape import read_shape
from worker.engine.tokenizer import load_tokenizer

FLUSH_SECONDS = 0.04
DEFAULT_MAX_TOKENS = 128
DEFAULT_TEMPERATURE = 0.8
DEFAULT_TOP_P = 0.95
REPLACEMENT = "\ufffd"
"""Stands for the first bytes of a character whose rest has not come yet."""


@dataclass(frozen=True)
class Question:
    """What a turn asks, read from the database once."""

    folder: Path
    is_chat: bool
    messages: list[dict[str, str]]
    """The conversation up to and with this turn's prompt, which is the last."""
    sampling: Sampling


@dataclass
class Answer:
    """What has been written so far."""

    text: str = ""
    finish_reason: str = "length"
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    stopped: bool = False


def answer_turn(claim: Claim, engine: Engine, check: Callable[[], None]) -> None:
    """Stream the answer to a claimed turn and record it. `check` raises when the work must end at once.

    Raises:
        Conflict: the ticket is somebody else's by now; nothing was recorded.
        EngineDown: the engine died; the ticket can go back to the line.
    """
    turn_id = _turn_id(claim)
    with db.transaction() as session:
        turn = chats.get_turn(session, turn_id)
        question = read_question(turn)
        chats.start_turn(session, turn_id)
    engine.use(question.folder)
    token_ids = prompt_tokens(question)
    # From the second attempt on, watchers throw away what they have: the answer starts over.
    events.append_turn(turn_id, "start", {"attempt": claim.fence})
    answer = Answer()
    with closing(engine.stream(token_ids, question.sampling)) as deltas:
        _relay(turn_id, deltas, answer, check)
    _record(claim, turn_id, answer)


def fail_turn(claim: Claim, error: str) -> None:
    """Record that a turn cannot be answered; `error` is a sentence for the visitor.

    Raises:
        Conflict: the ticket is somebody else's by now.
    """
    turn_id = _turn_id(claim)
    with db.transaction() as session:
        tickets.finish(session, claim.ticket_id, claim.fence, FAILED, error)
        chats.close_turn(session, turn_id, status=FAILED, finish_reason="error", error=error)
    events.append_turn(turn_id, "done", {"status": FAILED, "finish_reason": "error", "error": error})


def read_question(turn: Turn) -> Question:
    """The question of a turn loaded by `chats.get_turn`."""
    checkpoint = turn.chat.checkpoint
    messages = []
    for earlier in turn.chat.turns:
        if earlier.position < turn.position and earlier.answer and earlier.status in (FINISHED, CANCELLED):
            messages.append({"role": "user", "content": earlier.prompt})
            messages.append({"role": "assistant", "content": earlier.answer})
    messages.append({"role": "user", "content": turn.prompt})
    return Question(
        folder=checkpoints.path(checkpoint),
        is_chat=checkpoint.kind == "chat",
        messages=messages,
        sampling=read_sampling(turn.params),
    )


def read_sampling(params: Mapping[str, Any]) -> Sampling:
    """Sampling from a turn's parameters, whose names are OpenAI's."""
    seed = params.get("seed")
    return Sampling(
        max_tokens=max(1, int(params.get("max_tokens", DEFAULT_MAX_TOKENS))),
        temperature=float(params.get("temperature", DEFAULT_TEMPERATURE)),
        top_p=float(params.get("top_p", DEFAULT_TOP_P)),
        seed=None if seed is None else int(seed),
        repetition_penalty=float(params.get("repetition_penalty", 1.0)),
    )


def prompt_tokens(question: Question) -> list[int]:
    """A chat model gets its template over the history that fits; a base model just goes on from the prompt."""
    tokenizer = load_tokenizer(question.folder)
    if not (question.is_chat and tokenizer.chat_template):
        start = [] if tokenizer.bos_token_id is None else [int(tokenizer.bos_token_id)]
        return start + list(tokenizer.encode(question.messages[-1]["content"], add_special_tokens=False))
    context_length = read_shape(question.folder).context_length
    room = max(context_length - question.sampling.max_tokens, context_length // 2)
    token_ids: list[int] = []
    for first in range(0, len(question.messages), 2):  # whole exchanges leave, the oldest first
        text = tokenizer.apply_chat_template(question.messages[first:], tokenize=False, add_generation_prompt=True)
        token_ids = list(tokenizer.encode(text, add_special_tokens=False))
        if len(token_ids) <= room:
            break
    return token_ids


def _relay(turn_id: int, deltas: Iterator[Delta], answer: Answer, check: Callable[[], None]) -> None:
    """Pass pieces on, several at a time. No database work in here."""
    sent, last_flush = 0, 0.0
    for delta in deltas:
        answer.text += delta.text
        answer.finish_reason = delta.finish_reason or answer.finish_reason
        answer.prompt_tokens = delta.prompt_tokens or answer.prompt_tokens
        answer.completion_tokens = delta.completion_tokens or answer.completion_tokens
        now = time.monotonic()
        if now - last_flush < FLUSH_SECONDS:
            continue
        last_flush = now
        check()
        ready = len(answer.text.rstrip(REPLACEMENT))
        if ready > sent:
            events.append_turn(turn_id, "delta", {"text": answer.text[sent:ready]})
            sent = ready
        if delta.finish_reason is None and events.stop_requested(turn_id):
            answer.stopped = True
            break
    # A limit in the middle of a character leaves bytes that never become one.
    answer.text = answer.text.rstrip(REPLACEMENT)
    if len(answer.text) > sent:
        events.append_turn(turn_id, "delta", {"text": answer.text[sent:]})


def _record(claim: Claim, turn_id: int, answer: Answer) -> None:
    status = CANCELLED if answer.stopped else FINISHED
    reason = "cancelled" if answer.stopped else answer.finish_reason
    with db.transaction() as session:
        tickets.finish(session, claim.ticket_id, claim.fence, status)
        chats.close_turn(
            session,
            turn_id,
            status=status,
            answer=answer.text,
            finish_reason=reason,
            prompt_tokens=answer.prompt_tokens,
            completion_tokens=answer.completion_tokens,
        )
    events.append_turn(turn_id, "done", {"status": status, "finish_reason": reason, "error": ""})


def _turn_id(claim: Claim) -> int:
    if claim.turn_id is None:
        raise EngineError(f"Ticket {claim.ticket_id} is not a chat turn's.")
    return claim.turn_id
