"""The front page, its living parts, and the switch of languages."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal
from urllib.parse import urlsplit

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response, StreamingResponse
from sqlalchemy import select
from sqlalchemy.orm import Session

from registry import checkpoints, curves, events, news, runs, suites
from registry.models import Checkpoint, Post, Run
from registry.models.base import SCORED
from registry.settings import get_settings
from server import abilities, charts, growth, i18n, probes, render, sparklines, sse
from server.deps import ReadSession
from server.sparklines import Sparkline

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
    curves: Sequence[Sparkline]
    abilities: Sequence[abilities.Ability]
    has_scores: bool
    story: probes.Story | None
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
    curves: Sequence[Sparkline]


@dataclass(frozen=True)
class GlanceFragment:
    """Context of home/_glance.html."""

    age: growth.Age
    abilities: Sequence[abilities.Ability]
    has_scores: bool
    story: probes.Story | None


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
    """What this is, how old the model is, what it can do and says, and how to talk to it."""
    run = _shown_run(session)
    found = sparklines.of_panel(session, run) if run else []
    stories = probes.stories(session, run) if run else []
    updates = _updates(session)
    context = HomePage(
        age=growth.age_of(session, run) if run else None,
        chart=_hero(session, run, found) if run else None,
        curves=found,
        abilities=abilities.newest(found),
        has_scores=sparklines.has_scores(found),
        story=_story(stories),
        stories=stories,
        posts=updates.posts,
        pretrained=updates.pretrained,
        chat_models=updates.chat_models,
    )
    return render.page(request, "home/page.html", context)


@router.get("/home/age")
def show_age(request: Request, session: ReadSession) -> Response:
    """The fragment with the live run's age."""
    run = _shown_run(session)
    if run is None:
        return Response(status_code=204)
    return render.page(request, "home/_age.html", AgeFragment(growth.age_of(session, run)))


@router.get("/home/curves")
def show_curves(request: Request, session: ReadSession) -> Response:
    """The fragment with every curve of the live run in small."""
    run = _shown_run(session)
    if run is None:
        return Response(status_code=204)
    context = CurvesFragment(growth.age_of(session, run), sparklines.of_panel(session, run))
    return render.page(request, "home/_curves.html", context)


@router.get("/home/glance")
def show_glance(request: Request, session: ReadSession) -> Response:
    """The fragment with the newest abilities and one sentence at three ages."""
    run = _shown_run(session)
    if run is None:
        return Response(status_code=204)
    found = sparklines.of_panel(session, run)
    context = GlanceFragment(
        age=growth.age_of(session, run),
        abilities=abilities.newest(found),
        has_scores=sparklines.has_scores(found),
        story=_story(probes.stories(session, run)),
    )
    return render.page(request, "home/_glance.html", context)


@router.get("/home/words")
def show_words(request: Request, session: ReadSession) -> Response:
    """The fragment with what the live run wrote at three ages."""
    run = _shown_run(session)
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


def _shown_run(session: Session) -> Run | None:
    """The training run heard from last that has a checkpoint; else one that will have, else an uploaded model."""
    found = runs.list_runs(session)
    trained = [run for run in found if run.kind == "training"]
    if len(trained) == 1:
        return trained[0]
    known = set(session.scalars(select(Checkpoint.run_id).where(Checkpoint.state.in_(SCORED)).distinct()))
    candidates = (
        *(run for run in trained if run.id in known),
        *trained,
        *(run for run in found if run.id in known),
    )
    return next(iter(candidates), None)


def _story(stories: Sequence[probes.Story]) -> probes.Story | None:
    """The one to begin with: in the visitor's language, and told by more than one age where there is such."""
    return max(stories, key=lambda story: (len(story.ages) > 1, story.language == i18n.current()), default=None)


def _hero(session: Session, run: Run, found: Sequence[Sparkline]) -> charts.Chart | None:
    """The large chart: the curve that grew most clearly."""
    clearest = max(found, key=lambda one: (one.clarity, 0 if one.line is None else one.line.x.size), default=None)
    if clearest is None:
        return None
    series = curves.growth_series(session, run, suites.get_task(session, clearest.key))
    [chart] = growth.growth_charts(session, run, [series])
    return chart


def _updates(session: Session) -> UpdatesFragment:
    pretrained, chat = (
        [Model(c, growth.checkpoint_href(c)) for c in checkpoints.newest(session, kind, NUM_MODELS)]
        for kind in ("pretrained", "chat")
    )
    return UpdatesFragment(news.list_posts(session, NUM_POSTS), pretrained, chat)
