"""What the pages of several ages show: how columns and frames stand, what they were asked with, and their files."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import orjson
from fastapi import Request, Response
from fastapi.responses import RedirectResponse
from sqlalchemy.orm import Session

from registry import ages, chats, grouplinks
from registry.errors import NotFound
from registry.models import Chat, ChatGroup, Checkpoint, Turn, User
from registry.models.chats import FILM, SIDE
from registry.settings import get_settings
from server import certainty, conversations, knobs, render, series
from server.charts import Chart
from server.conversations import Composer, Shown
from server.i18n import gettext
from server.knobs import Knobs

ALTERNATIVES = 5
"""Of each token that is kept with its probability."""
CSV_HEADER = ("checkpoint", "step", "tokens_seen", "prompt", "answer", "status", "mean_logprob", "seed")


@dataclass(frozen=True)
class Column:
    """One checkpoint of a group: a column side by side, or a frame of a film."""

    chat: Chat
    shown: Sequence[Shown]

    @property
    def last(self) -> Shown | None:
        """The newest turn that is shown."""
        return self.shown[-1] if self.shown else None

    @property
    def is_open(self) -> bool:
        """Whether more is to come."""
        return self.last is not None and self.last.turn.status in chats.OPEN

    @property
    def checkpoint(self) -> Checkpoint:
        """Who answers in it."""
        return self.chat.checkpoint

    @property
    def href(self) -> str:
        """Where the checkpoint's own page is."""
        return series.address_of(self.checkpoint)


@dataclass(frozen=True)
class ColumnFragment:
    """Context of ages/_column.html and ages/_frame.html."""

    group: ChatGroup
    column: Column


@dataclass(frozen=True)
class GroupPage:
    """Context of ages/side.html and ages/film.html."""

    group: ChatGroup
    columns: Sequence[Column]
    progress: ages.Progress
    groups: Sequence[conversations.OptionGroup]
    """Checkpoints that a column can go on with."""
    composer: Composer
    defaults: str
    is_chat: bool
    """Whether a chat model is among them, which can be told a system prompt."""
    max_chars: int
    chart: Chart | None
    keeps_probabilities: bool
    link: str | None
    """What stands in the link that shares it."""
    site_address: str
    settings: Sequence[tuple[str, str]]
    """What all were asked with, as name and value."""


def own_group(session: Session, user: User, kind: str, public_id: str) -> ChatGroup:
    """A person's own group of that kind, with its chats and turns.

    Raises:
        NotFound: there is none, or it is another person's.
    """
    group = chats.get_group(session, user, public_id)
    if group.kind != kind:
        raise NotFound("There is no such conversation, or it is another person's.")
    return group


def columns_of(group: ChatGroup) -> list[Column]:
    """All columns or frames; for a group with its chats and turns."""
    return [Column(chat, conversations.shown_turns(chat)) for chat in group.chats]


def shown_of(chat: Chat, turns: Sequence[Turn]) -> list[Shown]:
    """Turns without the other ways beside them, which are their owner's alone."""
    return [Shown(turn, [turn], chat.public_id) for turn in turns]


def kind_of(asked: Sequence[Checkpoint]) -> str:
    """Whose defaults and settings hold for all of these: a chat model's where there is one."""
    kinds = [one.kind for one in asked]
    return knobs.CHAT if knobs.CHAT in kinds else next(iter(kinds), "")


def params_of(fields: Mapping[str, Any], asked: Sequence[Checkpoint]) -> dict[str, Any]:
    """The settings of a form, checked, in the names of `Turn.params`.

    Raises:
        Invalid: one of them is out of range.
    """
    kind = kind_of(asked)
    params = knobs.check(knobs.typed(fields, kind), kind)
    return {**params, "logprobs": ALTERNATIVES} if fields.get("logprobs") else params


def defaults_text(kind: str) -> str:
    """The default settings as JSON for the script."""
    return orjson.dumps(asdict(knobs.defaults(kind))).decode()


def page_of(session: Session, group: ChatGroup, composer: Composer | None, *, site_address: str) -> GroupPage:
    """What the page of a group shows; without a `composer` it begins with the settings of the last question."""
    columns = columns_of(group)
    kind = kind_of([column.checkpoint for column in columns])
    turns = [column.last.turn for column in columns if column.last is not None]
    if composer is None:
        composer = Composer(_knobs_of(turns, kind), turns[0].prompt if turns and group.kind == FILM else "")
    return GroupPage(
        group=group,
        columns=columns,
        progress=ages.progress(group),
        groups=conversations.option_groups(session, None) if group.kind == SIDE else [],
        composer=composer,
        defaults=defaults_text(kind),
        is_chat=kind == knobs.CHAT,
        max_chars=get_settings().max_prompt_chars,
        chart=chart_of(columns, f"/chat/{group.kind}/{group.public_id}/certainty"),
        keeps_probabilities=any(turn.params.get("logprobs") for turn in turns),
        link=grouplinks.link(group),
        site_address=site_address,
        settings=settings_of(columns),
    )


def group_response(
    request: Request, session: Session, group: ChatGroup, composer: Composer | None = None, *, status: int = 200
) -> Response:
    """The page of a group, as its owner sees it."""
    context = page_of(session, group, composer, site_address=str(request.base_url).rstrip("/"))
    return render.page(request, f"ages/{group.kind}.html", context, status_code=status)


def column_response(request: Request, group: ChatGroup, chat: Chat) -> Response:
    """One column or frame as a fragment, or the page that it stands on."""
    if "hx-request" not in request.headers:
        return RedirectResponse(f"/chat/{group.kind}/{group.public_id}", 303)
    fragment = ColumnFragment(group, Column(chat, conversations.shown_turns(chat)))
    template = "ages/_column.html" if group.kind == SIDE else "ages/_frame.html"
    return render.page(request, template, fragment)


def chart_of(columns: Sequence[Column], address: str) -> Chart | None:
    """How sure each age was of its own words, where the probabilities were kept and only age tells them apart."""
    if len({(one.checkpoint.run_id, one.checkpoint.kind, one.checkpoint.precision) for one in columns}) != 1:
        return None
    answers = [(one.checkpoint, one.last.turn) for one in columns if one.last is not None and not one.is_open]
    return certainty.chart(sorted(answers, key=lambda answer: answer[0].step), address)


def settings_of(columns: Sequence[Column]) -> list[tuple[str, str]]:
    """What the last question was asked with, as name and value, the seed first."""
    told = [column.last.turn.params for column in columns if column.last is not None]
    if not told:
        return []
    names = ("seed", "temperature", "top_p", "repetition_penalty", "max_tokens")
    found = [(gettext(knobs.LIMITS[name][0]), str(told[0][name])) for name in names if told[0].get(name) is not None]
    system = next((str(params["system"]) for params in told if params.get("system")), "")
    return [*found, (gettext("System prompt"), system)] if system else found


def rows(columns: Sequence[Column]) -> list[dict[str, Any]]:
    """Every question with its answer, the first column first, for files."""
    return [_row(column.checkpoint, shown.turn) for column in columns for shown in column.shown]


def to_csv(found: Sequence[Mapping[str, Any]]) -> str:
    """The same as a table."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, CSV_HEADER, extrasaction="ignore")
    writer.writeheader()
    for row in found:
        writer.writerow({**row, "seed": row["params"].get("seed", "")})
    return buffer.getvalue()


def _row(checkpoint: Checkpoint, turn: Turn) -> dict[str, Any]:
    mean = certainty.mean_logprob(turn.tokens)
    return {
        "checkpoint": checkpoint.label,
        "step": checkpoint.step,
        "tokens_seen": checkpoint.tokens_seen,
        "prompt": turn.prompt,
        "answer": turn.answer,
        "status": turn.status,
        "mean_logprob": round(mean[0], 6) if mean is not None else None,
        "params": turn.params,
    }


def _knobs_of(turns: Sequence[Turn], kind: str) -> Knobs:
    merged: dict[str, Any] = {}
    for turn in turns:
        merged = {**turn.params, **merged}
    return knobs.of_params(merged, kind)
