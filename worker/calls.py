"""Answering calls whose answer is told only when it is whole: of several prompts or choices, or with echo."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from registry import blocklist, calls, checkpoints, db, events, tickets
from registry.blocklist import Scanner
from registry.models import ApiCall
from registry.models.base import CANCELLED, FAILED, FINISHED, utcnow
from registry.tickets import Claim
from worker import questions
from worker.engine.complete import Completion, Unwanted, complete
from worker.engine.pieces import token_texts
from worker.engine.protocol import Engine, Row, Sampling
from worker.engine.shape import read_shape
from worker.engine.tokenizer import load_tokenizer
from worker.questions import Question

READ_AT_ONCE = 8
"""Prompts that are read for their own likelihood at a time; between them a stop is seen."""


@dataclass(frozen=True)
class Work:
    """A call, read from the database once."""

    questions: Sequence[Question]
    sampling: Sampling
    n: int
    echo: bool
    scanner: Scanner
    """Finds what an answer may not say."""


class DoesNotFit(Exception):
    """A prompt is longer than the model reads; the message is a sentence for whoever asked."""


def answer_call(claim: Claim, engine: Engine, check: Callable[[], None]) -> None:
    """Answer a call and record it.

    Args:
        claim: of its ticket.
        engine: writes it.
        check: raises when the ticket is lost or the worker shuts down.

    Raises:
        EngineError: the engine cannot.
        Conflict: the ticket is somebody else's by now.
    """
    assert claim.call_id is not None
    subject = events.subject_of(call_id=claim.call_id)
    began_at = utcnow()
    with db.transaction() as session:
        call = calls.get(session, claim.call_id)
        calls.start(session, call.id)
        work = _read(call, blocklist.outgoing(session))
    events.append(subject, "start", {"attempt": claim.fence}, fence=claim.fence, number=1)

    def should_stop() -> bool:
        check()
        return subject in events.stops([subject])

    end: dict[str, Any] = {"status": FINISHED, "finish_reason": "stop", "error": ""}
    result: list[dict[str, Any]] | None = None
    prompt_tokens = 0
    try:
        engine.use(checkpoints.ensure_local(work.questions[0].folder))
        prompts = [_prompt_tokens(work, question) for question in work.questions]
        prompt_tokens = sum(map(len, prompts))
        result = _write(engine, work, prompts, should_stop)
    except Unwanted:
        end = {"status": CANCELLED, "finish_reason": "cancelled", "error": ""}
    except DoesNotFit as error:
        end = {"status": FAILED, "finish_reason": calls.NOT_FITTING, "error": str(error)}
    written = sum(choice["completion_tokens"] for choice in result or ())
    with db.transaction() as session:
        tickets.finish(session, claim.ticket_id, claim.fence, end["status"], end["error"], started_at=began_at)
        calls.close_call(
            session,
            claim.call_id,
            result=result,
            prompt_tokens=prompt_tokens if result else None,
            completion_tokens=written if result else None,
            **end,
        )
    events.append(subject, "done", end, fence=claim.fence, number=2)


def _read(call: ApiCall, scanner: Scanner) -> Work:
    asked, folder = call.request, checkpoints.path(call.checkpoint)
    params = asked["params"]
    sampling = questions.read_sampling(params)
    if asked["kind"] == calls.CHAT:
        found = [questions.of_call(call)]
    else:
        found = [
            Question(folder, False, sampling, [{"role": "user", "content": prompt}])
            if isinstance(prompt, str)
            else Question(folder, False, sampling, token_ids=prompt)
            for prompt in asked["prompts"]
        ]
    if params["max_tokens"] == 0:  # only with echo
        sampling = replace(sampling, max_tokens=0)
    return Work(found, sampling, int(params.get("n", 1)), bool(asked.get("echo")), scanner)


def _prompt_tokens(work: Work, question: Question) -> list[int]:
    token_ids = questions.prompt_tokens(question)
    size = len(load_tokenizer(question.folder))
    if question.token_ids and max(token_ids) >= size:
        raise DoesNotFit(f"A prompt has the token {max(token_ids)}; this model knows those from 0 to {size - 1}.")
    limit = read_shape(question.folder).context_length
    if work.echo and len(token_ids) + max(1, work.sampling.max_tokens) > limit:
        raise DoesNotFit(
            f"This model reads {limit:,} tokens at once; a prompt has {len(token_ids):,}, and "
            f"{work.sampling.max_tokens:,} more were asked for. With echo nothing is cut off."
        )
    return token_ids


def _write(
    engine: Engine, work: Work, prompts: Sequence[list[int]], should_stop: Callable[[], bool]
) -> list[dict[str, Any]]:
    echoes = _echoes(engine, work, prompts, should_stop) if work.echo else [None] * len(prompts)
    written = complete(engine, prompts, work.sampling, n=work.n, should_stop=should_stop)
    return [
        _choice(work, index * work.n + number, one, echo)
        for index, (choices, echo) in enumerate(zip(written, echoes, strict=True))
        for number, one in enumerate(choices)
    ]


def _echoes(
    engine: Engine, work: Work, prompts: Sequence[list[int]], should_stop: Callable[[], bool]
) -> list[list[Row] | None]:
    """The prompts' own tokens; without logprobs only their texts."""
    tokenizer = load_tokenizer(work.questions[0].folder)
    rows: list[list[Row]] = []
    if work.sampling.logprobs is None:
        rows = [[[text, None, None] for text in token_texts(tokenizer, prompt)] for prompt in prompts]
        return _without_begin(work, rows, tokenizer.bos_token_id)
    for start in range(0, len(prompts), READ_AT_ONCE):
        if should_stop():
            raise Unwanted
        rows += engine.read(prompts[start : start + READ_AT_ONCE], work.sampling.logprobs)
    return _without_begin(work, rows, tokenizer.bos_token_id)


def _without_begin(work: Work, rows: Sequence[list[Row]], bos: int | None) -> list[list[Row] | None]:
    """Without the token that we put before a text: what comes back is the text that was sent, token by token."""
    found: list[list[Row] | None] = []
    for question, own in zip(work.questions, rows, strict=True):
        if bos is None or question.token_ids:
            found.append(own)
        else:
            found.append([[text, None, None] for text, *_ in own[1:2]] + own[2:])
    return found


def _choice(work: Work, index: int, one: Completion, echo: Sequence[Row] | None) -> dict[str, Any]:
    text, reason, rows = one.text, one.finish_reason, one.tokens
    shown, is_blocked = work.scanner.safe_prefix(text, ended=True)
    if is_blocked:
        text, reason, rows = text[:shown], "content_filter", _within(rows, shown)
    before = "".join(row[0] for row in echo or ())
    return {
        "index": index,
        "text": before + text,
        "finish_reason": reason,
        "tokens": [*(echo or ()), *rows] if work.sampling.logprobs is not None else None,
        "prompt_tokens": one.prompt_tokens,
        "completion_tokens": one.completion_tokens,
    }


def _within(rows: Sequence[Row], chars: int) -> list[Row]:
    """The tokens that lie whole within so many characters."""
    kept = []
    for row in rows:
        chars -= len(row[0])
        if chars < 0:
            break
        kept.append(row)
    return kept
