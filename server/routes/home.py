"""The front page, its living parts, and the switch of languages."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal
from urllib.parse import urlsplit

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response, StreamingResponse
from sqlalchemy.orm import Session

from registry import checkpoints, events, news, runs
from registry.models import Checkpoint, Post, Run
from registry.settings import get_settings
from server import charts, growth, probes, render, sse
from server.deps import ReadSession

router = APIRouter(include_in_schema=False)
YEAR_SECONDS = 365 * 24 * 3600
NUM_POSTS = 3
NUM_MODELS = 4


@dataclass(frozen=True)
class Model:
    """A checkpoint that somebody may want to talk to."""

    checkpoint: Checkpoint
    href: str


@dataclass(frozen=True)
class HomePage:
    """Context of home/page.html."""

    age: growth.Age | None
    chart: charts.Chart | None
    curves: Sequence[charts.Chart]
    stories: Sequence[probes.Story]
    posts: Sequence[Post]
    pretrained: Sequence[Model]
    chat_models: Sequence[Model]
    is_update: bool = False


@dataclass(frozen=True)
class AgeFragment:
    """Context of home/_age.html."""

    age: growth.Age


@dataclass(frozen=True)
class CurvesFragment:
    """Context of home/_curves.html."""

    age: growth.Age
    curves: Sequence[charts.Chart]


@dataclass(frozen=True)
class WordsFragment:
    """Context of home/_words.html."""

    stories: Sequence[probes.Story]
    age: growth.Age


@dataclass(frozen=True)
class UpdatesFragment:
    """Context of home/_updates.html."""

    posts: Sequence[Post]
    pretrained: Sequence[Model]
    chat_models: Sequence[Model]


@router.get("/")
def show_home(request: Request, session: ReadSession) -> HTMLResponse:
    """What this is, how the model grows, what it says, and how to talk to it."""
    run = _live_run(session)
    curves = _curves(session, run) if run else []
    updates = _updates(session)
    context = HomePage(
        age=growth.age_of(session, run) if run else None,
        chart=max(curves, key=lambda chart: (chart.clarity, len(chart.dots)), default=None),
        curves=curves,
        stories=probes.stories(session, run) if run else [],
        posts=updates.posts,
        pretrained=updates.pretrained,
        chat_models=updates.chat_models,
    )
    return render.page(request, "home/page.html", context)


@router.get("/home/age")
def show_age(request: Request, session: ReadSession) -> Response:
    """The fragment with the live run's age."""
    run = _live_run(session)
    if run is None:
        return Response(status_code=204)
    return render.page(request, "home/_age.html", AgeFragment(growth.age_of(session, run)))


@router.get("/home/curves")
def show_curves(request: Request, session: ReadSession) -> Response:
    """The fragment with every curve of the live run in small."""
    run = _live_run(session)
    if run is None:
        return Response(status_code=204)
    context = CurvesFragment(growth.age_of(session, run), _curves(session, run))
    return render.page(request, "home/_curves.html", context)


@router.get("/home/words")
def show_words(request: Request, session: ReadSession) -> Response:
    """The fragment with what the live run wrote at three ages."""
    run = _live_run(session)
    if run is None:
        return Response(status_code=204)
    context = WordsFragment(probes.stories(session, run), growth.age_of(session, run))
    return render.page(request, "home/_words.html", context)


@router.get("/home/updates")
def show_updates(request: Request, session: ReadSession) -> HTMLResponse:
    """The fragment with news and the newest models."""
    return render.page(request, "home/_updates.html", _updates(session))


@router.get("/events/board")
async def follow_board(request: Request) -> StreamingResponse:
    """What happens on the whole site, as it happens."""
    return sse.respond(request, events.BOARD_KEY, name="board")


@router.get("/lang/{language}")
def choose_language(
    language: Literal["en", "zh"], next_path: Annotated[str, Query(alias="next")] = "/"
) -> RedirectResponse:
    """Remember the language and go back to the page."""
    response = RedirectResponse(_local(next_path), status_code=303)
    response.set_cookie(
        "lang", language, max_age=YEAR_SECONDS, samesite="lax", httponly=True, secure=get_settings().secure_cookies
    )
    return response


def _local(address: str) -> str:
    # "//host" and "/\host" are other sites to a browser.
    parts = urlsplit(address.replace("\\", "/"))
    is_local = address.startswith("/") and not parts.netloc and not parts.scheme
    return address if is_local and not address.startswith(("//", "/\\")) else "/"


def _live_run(session: Session) -> Run | None:
    return next((run for run in runs.list_runs(session) if run.kind == "training"), None)


def _curves(session: Session, run: Run) -> list[charts.Chart]:
    return [chart for group in growth.growth_groups(session, run, "tokens") for chart in group.charts]


def _updates(session: Session) -> UpdatesFragment:
    pretrained, chat = (
        [Model(c, growth.checkpoint_href(c)) for c in checkpoints.newest(session, kind, NUM_MODELS)]
        for kind in ("pretrained", "chat")
    )
    return UpdatesFragment(news.list_posts(session, NUM_POSTS), pretrained, chat)
