"""One prompt through the ages of a run, and the prompts that visitors propose for it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Form, Query, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from pydantic import BaseModel
from sqlalchemy.orm import Session

from analysis.wording import Piece
from registry import db, prompts, runs
from registry.errors import RegistryError
from registry.models import ProposedPrompt, Run, User
from registry.settings import get_settings
from server import auth, csrf, limits, render, timelapse
from server.deps import ReadSession, RunInPath
from server.i18n import error_text, gettext
from server.outputs import ErrorOut
from server.timelapse import Age, Prompt

router = APIRouter(route_class=csrf.FormRoute, include_in_schema=False)
api = APIRouter(prefix="/api/v1", tags=["v1"])

LIST_AGES = 100
"""Ages on one page of the list."""
MAX_STEP = 10**15


@dataclass(frozen=True)
class Row:
    """One age of the list with what differs from the answer before it."""

    age: Age
    pieces: Sequence[Piece]


@dataclass(frozen=True)
class Neighbours:
    """Where the links beside an age lead; empty at the ends."""

    first: str
    earlier: str
    later: str
    last: str


@dataclass(frozen=True)
class TimelapsePage:
    """Context of timelapse/page.html."""

    run: Run
    prompts: Sequence[Prompt]
    prompt: Prompt | None
    ages: Sequence[Age]
    index: int
    """Of the age that is shown."""
    age: Age | None
    before: Age | None
    pieces: Sequence[Piece]
    links: Neighbours
    is_list: bool
    rows: Sequence[Row]
    newer_href: str
    older_href: str
    single_href: str
    list_href: str
    words: dict[str, str]
    """What the script says, in the visitor's language."""
    proposals: Sequence[ProposedPrompt]
    """The visitor's own."""
    max_chars: int
    typed: str
    error: str
    proposed: bool


class PromptOut(BaseModel):
    """A beginning; `key` is what the address takes."""

    key: str
    text: str
    language: str
    """`zh`, `en` or `code`."""
    proposed_by_visitor: bool


class AgeOut(BaseModel):
    """What one checkpoint made of the prompt.

    `state` is `answered`, `coming`, `failed` or `missing`. `repetition` is the share of the pairs of
    neighbouring words that came before in the answer; a Chinese character counts as a word.
    """

    step: int
    tokens_seen: int | None
    checkpoint: str
    state: str
    text: str | None
    cut: bool
    """It would have gone on."""
    num_words: int | None
    num_distinct_words: int | None
    repetition: float | None
    name: str
    step_name: str
    note: str
    marks_text: str
    href: str
    chat_href: str


class TimelapseOut(BaseModel):
    """One prompt through the ages of a run; without `prompt` the first one. `prompts` lists what can be asked for."""

    run: str
    prompts: list[PromptOut]
    prompt: PromptOut | None
    ages: list[AgeOut]


@api.get("/runs/{run}/timelapse", responses={404: {"model": ErrorOut}})
def get_timelapse(session: ReadSession, run: RunInPath, prompt: str = "") -> TimelapseOut:
    """What every checkpoint of a run made of one beginning, by step."""
    known = timelapse.prompts_of(session, run)
    chosen = timelapse.choose(known, prompt)
    return TimelapseOut(
        run=run.name,
        prompts=[_prompt_out(one) for one in known],
        prompt=_prompt_out(chosen) if chosen else None,
        ages=[_age_out(age) for age in (timelapse.ages_of(session, run, chosen) if chosen else [])],
    )


@router.get("/runs/{run}/timelapse")
def show_timelapse(
    request: Request,
    session: ReadSession,
    run: RunInPath,
    prompt: str = "",
    step: Annotated[int | None, Query(ge=0, le=MAX_STEP)] = None,
    as_list: Annotated[bool, Query(alias="list")] = False,
    proposed: bool = False,
) -> HTMLResponse:
    """One prompt at one age, or with `list` at every age."""
    viewer = auth.current_user(request)
    context = _page(session, run, viewer, key=prompt, step=step, is_list=as_list, proposed=proposed)
    return render.page(request, "timelapse/page.html", context)


@router.post("/runs/{run}/timelapse/proposals")
def propose(request: Request, member: auth.Member, run: str, text: Annotated[str, Form()] = "") -> Response:
    """Take a proposal, or say why not and keep what was typed."""
    try:
        limits.check("proposal", get_settings().proposal_limit, str(member.id))
        with db.transaction() as session:
            runs.get_run(session, run)
            prompts.propose(session, member, text)
        limits.hit("proposal", get_settings().proposal_limit, str(member.id))
    except (RegistryError, limits.TooMany) as error:
        message, status = _refusal(error)
        with db.read_session() as session:
            context = _page(session, runs.get_run(session, run), member, typed=text, error=message)
            return render.page(request, "timelapse/page.html", context, status_code=status)
    return RedirectResponse(f"/runs/{run}/timelapse?proposed=true#proposals", 303)


def _refusal(error: RegistryError | limits.TooMany) -> tuple[str, int]:
    return (str(error.detail), 429) if isinstance(error, limits.TooMany) else (error_text(error), 422)


def _page(
    session: Session,
    run: Run,
    viewer: User | None,
    *,
    key: str = "",
    step: int | None = None,
    is_list: bool = False,
    proposed: bool = False,
    typed: str = "",
    error: str = "",
) -> TimelapsePage:
    known = timelapse.prompts_of(session, run)
    prompt = timelapse.choose(known, key)
    ages = timelapse.ages_of(session, run, prompt) if prompt else []
    index = _index(ages, step)
    before = timelapse.answered_before(ages, index)
    age = ages[index] if ages else None
    first = max(0, index - index % LIST_AGES)
    return TimelapsePage(
        run=run,
        prompts=known,
        prompt=prompt,
        ages=ages,
        index=index,
        age=age,
        before=before,
        pieces=timelapse.changes(before, age) if age else [],
        links=Neighbours(
            first=_href(run, prompt, ages[0]) if index > 0 else "",
            earlier=_href(run, prompt, ages[index - 1]) if index > 0 else "",
            later=_href(run, prompt, ages[index + 1]) if index + 1 < len(ages) else "",
            last=_href(run, prompt, ages[-1]) if index + 1 < len(ages) else "",
        ),
        is_list=is_list,
        rows=_rows(ages, first) if is_list else [],
        older_href=_href(run, prompt, ages[first - 1], list="true") if first else "",
        newer_href=_href(run, prompt, ages[first + LIST_AGES], list="true") if first + LIST_AGES < len(ages) else "",
        single_href=_href(run, prompt, age),
        list_href=_href(run, prompt, age, list="true"),
        words=_words(),
        proposals=prompts.of_user(session, viewer) if viewer else [],
        max_chars=prompts.MAX_CHARS,
        typed=typed,
        error=error,
        proposed=proposed,
    )


def _index(ages: Sequence[Age], step: int | None) -> int:
    """The age at a step or the one nearest to it; without a step the newest that has an answer."""
    if step is not None:
        return min(range(len(ages)), key=lambda at: abs(ages[at].checkpoint.step - step), default=0)
    answered = (at for at in reversed(range(len(ages))) if ages[at].answer is not None)
    return next(answered, max(0, len(ages) - 1))


def _rows(ages: Sequence[Age], first: int) -> list[Row]:
    return [
        Row(ages[at], timelapse.changes(timelapse.answered_before(ages, at), ages[at]))
        for at in range(first, min(first + LIST_AGES, len(ages)))
    ]


def _href(run: Run, prompt: Prompt | None, age: Age | None, **more: str) -> str:
    query = {
        **({"prompt": prompt.key} if prompt else {}),
        **({"step": str(age.checkpoint.step)} if age else {}),
        **more,
    }
    return f"/runs/{run.name}/timelapse" + (f"?{urlencode(query)}" if query else "")


def _words() -> dict[str, str]:
    return {
        "play": gettext("Play"),
        "pause": gettext("Pause"),
        "copied": gettext("The link is in the clipboard."),
        "copy_yourself": gettext("Copy this link:"),
        "broken": gettext("The answers could not be loaded. Load the page again, or use the list."),
        "new": gettext("A new checkpoint has answered."),
    }


def _prompt_out(prompt: Prompt) -> PromptOut:
    return PromptOut(
        key=prompt.key, text=prompt.text, language=prompt.language, proposed_by_visitor=prompt.is_community
    )


def _age_out(age: Age) -> AgeOut:
    marks = age.marks
    fields: dict[str, Any] = {
        name: getattr(age, name) for name in ("state", "name", "step_name", "note", "marks_text", "href", "chat_href")
    }
    return AgeOut(
        step=age.checkpoint.step,
        tokens_seen=age.checkpoint.tokens_seen,
        checkpoint=age.checkpoint.label,
        text=age.answer.text if age.answer else None,
        cut=age.answer.cut if age.answer else False,
        num_words=marks.num_words if marks else None,
        num_distinct_words=marks.num_distinct if marks else None,
        repetition=marks.repetition if marks else None,
        **fields,
    )
