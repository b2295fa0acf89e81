"""Conversations as files: the whole tree as JSON, the branch that is shown as Markdown, and both read back in."""

import re
import secrets
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from sqlalchemy.orm import Session

from registry import chats, checkpoints
from registry.errors import Invalid
from registry.models import Chat, Turn, User
from registry.models.base import CANCELLED, FINISHED
from registry.settings import get_settings

FORMAT = "grow-conversation"
VERSION = 1
MAX_TURNS = 1_000
MAX_BYTES = 900_000
MAX_ANSWER_CHARS = 200_000
HEADER = re.compile(r"<!-- grow-conversation 1 checkpoint=(\S{1,200}) mark=([0-9a-f]{12}) -->")


class Params(BaseModel):
    """Sampling parameters within what the site itself accepts; others are dropped."""

    model_config = ConfigDict(extra="ignore", strict=True)

    max_tokens: Annotated[int, Field(ge=1, le=100_000)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    repetition_penalty: Annotated[float, Field(gt=0, le=10)] | None = None
    seed: Annotated[int, Field(ge=0, le=2**63 - 1)] | None = None
    system: Annotated[str, StringConstraints(max_length=20_000)] | None = None
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None


class TurnRecord(BaseModel):
    """One turn of a file; `parent` is the place of an earlier one in the list."""

    model_config = ConfigDict(extra="ignore", strict=True)

    parent: Annotated[int, Field(ge=0)] | None
    prompt: Annotated[str, StringConstraints(min_length=1)]
    answer: Annotated[str, StringConstraints(max_length=MAX_ANSWER_CHARS)]
    status: Literal["finished", "cancelled"] = "finished"
    finish_reason: Annotated[str, StringConstraints(max_length=16)] = ""
    params: Params = Params()
    prompt_tokens: Annotated[int, Field(ge=0, le=10**9)] | None = None
    completion_tokens: Annotated[int, Field(ge=0, le=10**9)] | None = None


class Conversation(BaseModel):
    """A whole file."""

    model_config = ConfigDict(extra="ignore", strict=True)

    format: Literal["grow-conversation"]
    version: Literal[1]
    title: str = ""
    checkpoint: Annotated[str, StringConstraints(max_length=200)]
    shown: Annotated[int, Field(ge=0)] | None = None
    """The place of the last turn of the branch that is shown."""
    turns: Annotated[list[TurnRecord], Field(max_length=MAX_TURNS)]


def to_json(chat: Chat) -> bytes:
    """The tree of a thread with its turns; what is still being written, or failed, is left out with what follows it."""
    places: dict[int, int] = {}
    records: list[dict[str, Any]] = []
    for turn in chat.turns:
        if turn.status not in (FINISHED, CANCELLED) or (turn.parent_id is not None and turn.parent_id not in places):
            continue
        places[turn.id] = len(records)
        records.append(_record(turn, None if turn.parent_id is None else places[turn.parent_id]))
    shown = [places[turn.id] for turn in chats.branch(chat) if turn.id in places]
    content = {
        "format": FORMAT,
        "version": VERSION,
        "title": chat.title,
        "checkpoint": chat.checkpoint.label,
        "created_at": chat.created_at.isoformat(),
        "shown": shown[-1] if shown else None,
        "turns": records,
    }
    return orjson.dumps(content, option=orjson.OPT_INDENT_2)


def to_markdown(chat: Chat) -> str:
    """The branch that is shown, to read in any editor; comments that no text can imitate mark where each text ends."""
    turns = [turn for turn in chats.branch(chat) if turn.status in (FINISHED, CANCELLED)]
    mark = _mark(turns)
    parts = [
        f"<!-- {FORMAT} {VERSION} checkpoint={chat.checkpoint.label} mark={mark} -->",
        f"<!-- {mark} title -->\n\n{chat.title}\n\n<!-- {mark} end -->",
    ]
    for turn in turns:
        for name, speaker, text in (("question", "?", turn.prompt), ("answer", chat.checkpoint.label, turn.answer)):
            parts.append(f"## {speaker}\n\n<!-- {mark} {name} -->\n\n{text}\n\n<!-- {mark} end -->")
    return "\n\n".join(parts) + "\n"


def read(content: bytes) -> Conversation:
    """The conversation in a file of either form.

    Raises:
        Invalid: it is too large, neither form, or something in it is not as it must be.
    """
    if len(content) > MAX_BYTES:
        raise Invalid(
            "The file has %(size)s bytes; at most %(limit)s are accepted.",
            size=f"{len(content):,}",
            limit=f"{MAX_BYTES:,}",
        )
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Invalid("This file is no conversation of this site: it is not text in UTF-8.") from error
    found = HEADER.match(text)
    fields = _read_markdown(text, found[1], found[2]) if found else _read_json(text)
    try:
        conversation = Conversation.model_validate(fields)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise _no_conversation(f"{where or 'the file'}: {first['msg']}") from error
    _check(conversation)
    return conversation


def bring_in(session: Session, user: User, conversation: Conversation) -> Chat:
    """Put a conversation of a file into a person's history.

    Raises:
        NotFound: its checkpoint does not exist here.
        Conflict: its checkpoint is not ready.
    """
    chat = chats.open_chat(session, user, checkpoints.by_label(session, conversation.checkpoint))
    made: list[Turn] = []
    for record in conversation.turns:
        fields = {
            **record.model_dump(exclude={"parent", "params"}),
            "params": record.params.model_dump(exclude_none=True),
        }
        after = None if record.parent is None else made[record.parent].id
        made.append(chats.add_written(session, chat, fields, after=after))
    if conversation.shown is not None:
        chat.leaf_id = made[conversation.shown].id
    first = conversation.turns[0].prompt
    chat.title = " ".join((conversation.title or first).split())[: chats.TITLE_CHARS]
    return chat


def _no_conversation(problem: str) -> Invalid:
    """For whoever makes such files by hand: which field is wrong, and how."""
    return Invalid("This file is no conversation of this site: %(problem)s.", problem=problem)


def _record(turn: Turn, parent: int | None) -> dict[str, Any]:
    names = ("prompt", "answer", "status", "finish_reason", "params", "prompt_tokens", "completion_tokens")
    fields = {name: getattr(turn, name) for name in names}
    return {"parent": parent, **fields, "rating": turn.rating, "created_at": turn.created_at.isoformat()}


def _mark(turns: Sequence[Turn]) -> str:
    while True:
        mark = secrets.token_hex(6)
        if not any(mark in turn.prompt or mark in turn.answer for turn in turns):
            return mark


def _read_json(text: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise Invalid("This file is no conversation of this site: it is neither its JSON nor its Markdown.") from error


def _read_markdown(text: str, checkpoint: str, mark: str) -> Mapping[str, Any]:
    part = re.compile(rf"<!-- {mark} (title|question|answer) -->\n\n(.*?)\n\n<!-- {mark} end -->", re.DOTALL)
    found = [(match[1], match[2]) for match in part.finditer(text.replace("\r\n", "\n"))]
    title = "".join(body for name, body in found if name == "title")
    said = [(name, body) for name, body in found if name != "title"]
    if [name for name, _ in said] != ["question", "answer"] * (len(said) // 2):
        raise Invalid("This file is no conversation of this site: its questions and answers do not alternate.")
    pairs = zip(said[::2], said[1::2], strict=True)
    turns = [
        {"parent": at - 1 if at else None, "prompt": question[1], "answer": answer[1]}
        for at, (question, answer) in enumerate(pairs)
    ]
    return {"format": FORMAT, "version": VERSION, "title": title, "checkpoint": checkpoint, "turns": turns}


def _check(conversation: Conversation) -> None:
    """What the fields alone do not show: parents come first, prompts are as short as typed ones, something is said."""
    limit = get_settings().max_prompt_chars
    if not conversation.turns:
        raise Invalid("This file is no conversation of this site: nothing is said in it.")
    for place, record in enumerate(conversation.turns):
        if record.parent is not None and record.parent >= place:
            raise _no_conversation(f"turns.{place}.parent: it comes later")
        if len(record.prompt) > limit:
            raise _no_conversation(f"turns.{place}.prompt: longer than {limit:,} characters")
        if "\x00" in record.prompt + record.answer + conversation.title:  # PostgreSQL stores none
            raise _no_conversation(f"turns.{place}: it holds a zero byte")
    if conversation.shown is not None and conversation.shown >= len(conversation.turns):
        raise _no_conversation("shown: there is no such turn")
