"""Verbs of requests to the OpenAI-compatible interface: opening, answering, cancelling, and what they have used."""

import datetime as dt
import secrets
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast

from sqlalchemy import ColumnElement, CursorResult, Text, func, null, select, update
from sqlalchemy import cast as sql_cast
from sqlalchemy.orm import Session

from registry import audit, blocklist, checkpoints, estimates, events, keys, tickets
from registry.errors import Invalid, NotFound
from registry.models import ApiCall, ApiKey, Checkpoint, Ticket, User
from registry.models.base import CANCELLED, QUEUED, RUNNING, utcnow

OPEN = (QUEUED, RUNNING)
CHAT, TEXT = "chat", "text"
ID_PREFIXES = {CHAT: "chatcmpl-", TEXT: "cmpl-"}
MAX_PROMPTS = 32
MAX_CHOICES = 64
"""Prompts times answers to each."""
MAX_PROMPT_CHARS = 64_000
"""Of one prompt, or of all messages together."""
MAX_PROMPT_TOKENS = 16_000
"""Of a prompt that comes as tokens."""
KEPT = dt.timedelta(hours=1)
"""Prompts and answers are kept so long after the end: only to be delivered."""
NOT_FITTING = "invalid"
"""The finish reason of a call that failed because its prompt does not fit the model."""


class Today(NamedTuple):
    """What a person's calls have used since midnight, UTC, in tokens."""

    used: int
    reserved: int
    """What calls under way may still write."""


class Usage(NamedTuple):
    """What was used on one day with one key."""

    day: dt.date
    key_id: int | None
    requests: int
    prompt_tokens: int
    completion_tokens: int

    @property
    def tokens(self) -> int:
        """Read and written together."""
        return self.prompt_tokens + self.completion_tokens


def open_call(
    session: Session, user: User, key: ApiKey | None, checkpoint: Checkpoint, request: Mapping[str, Any]
) -> ApiCall:
    """Accept a request: a call, queued, with a ticket.

    Args:
        session: the transaction.
        user: whose it is.
        key: what it was sent with.
        checkpoint: which is asked.
        request: `kind` (chat, text), `messages` or `prompts`, `params`, `echo`, `stream`; see `ApiCall.request`.

    Raises:
        Conflict: the checkpoint is not ready.
        Invalid: a prompt is empty or too long, there are too many, or one holds what is blocked.
        Refused: the person is banned.
    """
    keys.check_allowed(user)
    checkpoints.check_usable(checkpoint)
    number = _check_prompts(session, user, request)
    kind = str(request["kind"])
    call = ApiCall(public_id=ID_PREFIXES[kind] + secrets.token_hex(16), user_id=user.id, checkpoint=checkpoint)
    call.key_id, call.request = (key.id if key is not None else None), dict(request)
    session.add(call)
    session.flush()  # the ticket carries the id
    size = max(1, int(request["params"]["max_tokens"])) * number
    estimates.issue(
        session, lane=tickets.CHAT, checkpoint_id=checkpoint.id, call_id=call.id, user_id=user.id, size=size
    )
    return call


def num_choices(request: Mapping[str, Any]) -> int:
    """How many answers a request asks for."""
    prompts = 1 if request["kind"] == CHAT else len(request["prompts"])
    return prompts * int(request["params"].get("n", 1))


def _check_prompts(session: Session, user: User, request: Mapping[str, Any]) -> int:
    """The number of choices of a request whose prompts can be accepted."""
    is_chat = request["kind"] == CHAT
    if is_chat:
        prompts: Sequence[Any] = ["\n".join(str(message["content"]) for message in request["messages"])]
    else:
        prompts = request["prompts"]
    if len(prompts) > MAX_PROMPTS:
        raise Invalid("At most %(limit)s prompts are answered in one request.", limit=MAX_PROMPTS)
    number = num_choices(request)
    if number > MAX_CHOICES:
        raise Invalid("At most %(limit)s answers, prompts times n, are written in one request.", limit=MAX_CHOICES)
    for prompt in prompts:
        _check_length(prompt)
        if isinstance(prompt, str):
            blocklist.check_prompt(session, user, prompt)
    return number


def _check_length(prompt: str | Sequence[int]) -> None:
    if not prompt:
        raise Invalid("A prompt is empty: write something for the model to go on from.")
    limit = MAX_PROMPT_CHARS if isinstance(prompt, str) else MAX_PROMPT_TOKENS
    if len(prompt) <= limit:
        return
    length, most = f"{len(prompt):,}", f"{limit:,}"
    if isinstance(prompt, str):
        raise Invalid("A prompt has %(count)s characters; at most %(limit)s are accepted.", count=length, limit=most)
    raise Invalid("A prompt has %(count)s tokens; at most %(limit)s are accepted.", count=length, limit=most)


def get(session: Session, call_id: int) -> ApiCall:
    """A call with its checkpoint.

    Raises:
        NotFound: there is none of that id.
    """
    call = session.get(ApiCall, call_id)
    if call is None:
        raise NotFound("There is no call with the id %(call_id)s.", call_id=call_id)
    return call


def start(session: Session, call_id: int) -> None:
    """A worker has begun with it."""
    call = session.get_one(ApiCall, call_id)
    call.status, call.started_at = RUNNING, utcnow()


def requeue(session: Session, call_id: int) -> None:
    """The worker gave it back."""
    session.get_one(ApiCall, call_id).status = QUEUED


def close_call(
    session: Session,
    call_id: int,
    *,
    status: str,
    result: list[dict[str, Any]] | None,
    finish_reason: str = "",
    prompt_tokens: int | None = None,
    completion_tokens: int | None = None,
    error: str = "",
    started_at: dt.datetime | None = None,
) -> None:
    """Record the whole answer. The fence is the caller's: `tickets.finish` in the same transaction."""
    call = session.get_one(ApiCall, call_id)
    call.status, call.result, call.finish_reason, call.error = status, result, finish_reason, error
    call.prompt_tokens, call.completion_tokens, call.finished_at = prompt_tokens, completion_tokens, utcnow()
    call.started_at = started_at or call.started_at
    if finish_reason == "content_filter":
        audit.note(session, None, "answer_cut", f"call:{call_id}")


def cancel(session: Session, call_id: int) -> None:
    """Nobody waits for it any more: a queued call leaves the line at once, a running one is ended by its worker."""
    call = get(session, call_id)
    subject = events.subject_of(call_id=call.id)
    if call.status == QUEUED and tickets.cancel(session, call_id=call.id):
        call.status, call.finish_reason, call.finished_at = CANCELLED, "cancelled", utcnow()
        events.announce(session, subject, "done", {"status": CANCELLED, "finish_reason": "cancelled", "error": ""})
        # A worker that took the ticket a moment ago finds the stop.
        events.request_stop(subject)
    elif call.status in OPEN:
        events.request_stop(subject)


def under_way(session: Session, user: User) -> tuple[int, int]:
    """How many calls of a person wait or are being answered, and the tokens that these may still write.

    Others of theirs wait until this transaction ends.
    """
    if session.get_bind().dialect.name != "sqlite":  # there who writes is alone
        session.execute(select(User.id).where(User.id == user.id).with_for_update(key_share=True))
    query = select(func.count(ApiCall.id), func.sum(Ticket.size)).join(Ticket, Ticket.call_id == ApiCall.id)
    number, tokens = session.execute(query.where(ApiCall.user_id == user.id, ApiCall.status.in_(OPEN))).one()
    return number, int(tokens or 0)


def used_today(session: Session, user: User) -> int:
    """The tokens that a person's calls have read and written since midnight, UTC."""
    midnight = utcnow().replace(hour=0, minute=0, second=0, microsecond=0)
    query = select(func.sum(_tokens())).where(ApiCall.user_id == user.id, ApiCall.created_at >= midnight)
    return int(session.scalar(query) or 0)


def today(session: Session, user: User) -> Today:
    """What a person's calls have used since midnight, UTC."""
    return Today(used_today(session, user), under_way(session, user)[1])


def usage(session: Session, user: User, days: int = 30) -> list[Usage]:
    """What a person's calls have used in the last days, by day and key, the newest day first."""
    since = utcnow().replace(hour=0, minute=0, second=0, microsecond=0) - dt.timedelta(days=days - 1)
    day = _day(session).label("day")
    read, written = func.sum(ApiCall.prompt_tokens), func.sum(ApiCall.completion_tokens)
    query = select(day, ApiCall.key_id, func.count(ApiCall.id), read, written).where(
        ApiCall.user_id == user.id, ApiCall.created_at >= since
    )
    rows = session.execute(query.group_by(day, ApiCall.key_id).order_by(day.desc(), ApiCall.key_id)).all()
    return [
        Usage(dt.date.fromisoformat(str(when)), key_id, number, int(prompt or 0), int(completion or 0))
        for when, key_id, number, prompt, completion in rows
    ]


def empty_delivered(session: Session) -> int:
    """Forget prompts and answers of calls that ended some time ago; returns of how many."""
    # The text of a JSON column: comparing JSON itself is not for every database.
    is_full = sql_cast(ApiCall.request, Text) != "{}"
    emptied = session.execute(
        update(ApiCall)
        .where(ApiCall.status.not_in(OPEN), ApiCall.finished_at < utcnow() - KEPT, is_full)
        .values(result=null(), request={})
        .execution_options(synchronize_session=False)
    )
    return int(cast(CursorResult[Any], emptied).rowcount)


def _tokens() -> ColumnElement[int]:
    return func.coalesce(ApiCall.prompt_tokens, 0) + func.coalesce(ApiCall.completion_tokens, 0)


def _day(session: Session) -> ColumnElement[Any]:
    """The day in UTC, whatever the time zone of the database's session."""
    if session.get_bind().dialect.name == "postgresql":
        return func.date(func.timezone("UTC", ApiCall.created_at))
    return func.date(ApiCall.created_at)
