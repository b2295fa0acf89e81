"""Routes of the arena: blind battles between two checkpoints of a run, votes, and the ratings that come of them."""

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import orjson
from fastapi import APIRouter, Form, Query, Request, Response
from fastapi.responses import RedirectResponse, StreamingResponse
from sqlalchemy.orm import Session

from registry import arena as verbs
from registry import standings
from registry.arena import Battle
from registry.errors import NotFound, RegistryError
from registry.models import ChatGroup, User
from registry.settings import get_settings
from server import arena, auth, charts, conversations, csrf, knobs, limits, render
from server.arena import Leaderboard, Pool, Side
from server.deps import ReadSession, RunInPath, WriteSession

router = APIRouter(prefix="/arena", route_class=csrf.FormRoute, include_in_schema=False)
sections = APIRouter(include_in_schema=False)
api = APIRouter(prefix="/api/v1", tags=["arena"])


@dataclass(frozen=True)
class ArenaPage:
    """Context of arena/page.html."""

    pools: Sequence[Pool]
    pool: Pool | None
    """None where no run has two checkpoints yet."""
    starters: Sequence[str]
    leaderboard: Leaderboard | None
    unfinished: ChatGroup | None
    """A battle that this person has not decided."""
    max_chars: int
    prompt: str = ""
    error: str = ""


@dataclass(frozen=True)
class BattlePage:
    """Context of arena/battle.html and arena/_battle.html."""

    battle: Battle
    sides: Sequence[Side]
    pool: Pool
    error: str = ""


@dataclass(frozen=True)
class ChartFragment:
    """Context of charts/_chart.html."""

    chart: charts.Chart
    is_update: bool = False


@dataclass(frozen=True)
class Section:
    """Context of arena/_section.html."""

    pools: Sequence[Pool]
    boards: Sequence[Leaderboard]
    """Those with votes."""
    is_update: bool = False


@router.get("")
def show_arena(request: Request, session: ReadSession, viewer: auth.Viewer, pool: str = "") -> Response:
    """Ask something, and see who leads."""
    return _arena(request, session, viewer, pool)


@router.post("")
def open_battle(
    request: Request,
    session: WriteSession,
    user: auth.Member,
    pool: Annotated[str, Form()] = "",
    prompt: Annotated[str, Form()] = "",
) -> Response:
    """Ask two checkpoints; a battle counts as one message."""
    try:
        chosen = arena.get_pool(session, pool)
        conversations.limit_messages(request, user)
        params = knobs.check(knobs.defaults(chosen.kind), chosen.kind)
        group = verbs.open_battle(session, user, chosen.run, chosen.kind, prompt, params)
    except (RegistryError, limits.TooMany) as error:
        session.rollback()
        message, status = conversations.told(error)
        return _arena(request, session, user, pool, prompt, message, status)
    return RedirectResponse(f"/arena/{group.public_id}", 303)


@router.get("/chart")
def show_chart(request: Request, session: ReadSession, pool: str) -> Response:
    """The chart of ratings alone."""
    chosen = arena.get_pool(session, pool)
    drawn = arena.chart(chosen, standings.board(session, chosen.run, chosen.kind))
    if drawn is None:
        raise NotFound("Nobody has voted on this run yet.")
    return render.page(request, "charts/_chart.html", ChartFragment(drawn))


@router.get("/{public_id}")
def show_battle(request: Request, session: ReadSession, user: auth.Member, public_id: str) -> Response:
    """Two answers side by side; who wrote them once there is a vote."""
    return _battle(request, session, verbs.get_battle(session, user, public_id))


@router.get("/{public_id}/{side}/events")
def stream_answer(
    request: Request, session: ReadSession, user: auth.Member, public_id: str, side: Literal["left", "right"]
) -> Response:
    """The place in line, then the answer as it is written."""
    return arena.respond(request, verbs.get_battle(session, user, public_id), side)


@router.post("/{public_id}/vote")
def vote(
    request: Request, session: WriteSession, user: auth.Member, public_id: str, choice: Annotated[str, Form()] = ""
) -> Response:
    """Say which answer is better, once."""
    battle = verbs.get_battle(session, user, public_id)
    address = auth.client_address(request)
    try:
        _limit_votes(user, address)
        verbs.vote(session, user, battle, choice, address)
    except (RegistryError, limits.TooMany) as error:
        session.rollback()
        message, status = (error.detail, 429) if isinstance(error, limits.TooMany) else conversations.told(error)
        return _battle(request, session, verbs.get_battle(session, user, public_id), message, status)
    session.expire_all()
    if "hx-request" in request.headers:
        return _battle(request, session, verbs.get_battle(session, user, public_id))
    return RedirectResponse(f"/arena/{public_id}", 303)


@router.post("/{public_id}/give-up")
def give_up(request: Request, session: WriteSession, user: auth.Member, public_id: str) -> Response:
    """Leave it without a vote, for another question."""
    battle = verbs.get_battle(session, user, public_id)
    pool = Pool(battle.checkpoints[0].run, battle.checkpoints[0].kind)
    verbs.give_up(session, battle)
    return conversations.go(request, f"/arena?pool={pool.key}")


@sections.get("/runs/{run}/arena")
def show_section(request: Request, session: ReadSession, run: RunInPath) -> Response:
    """The arena's part of the growth page."""
    own = [Pool(run, kind) for kind in verbs.kinds(session, run)]
    boards = [arena.leaderboard(session, pool) for pool in own]
    voted = [one for one in boards if one.chart is not None]
    return render.page(request, "arena/_section.html", Section(own, voted))


@api.get("/runs/{run}/arena")
def get_ratings(
    session: ReadSession, run: RunInPath, kind: Literal["pretrained", "chat"] = "pretrained"
) -> dict[str, Any]:
    """Ratings in Elo points with 95% intervals, plain and at equal lengths. Only checkpoints of the same `group` are on
    one scale."""
    return arena.as_json(Pool(run, kind), standings.board(session, run, kind))


@api.get("/runs/{run}/votes.csv", response_class=Response)
def get_votes_csv(
    run: RunInPath, after: Annotated[int, Query(ge=0)] = 0, limit: Annotated[int | None, Query(ge=1)] = None
) -> StreamingResponse:
    """Every vote of a run as a table, those that do not count too; `after` an id, at most `limit` rows.

    `voter` is a pseudonym, `prompt_hash` tells equal prompts apart from others, `flags` are parted by spaces.
    """
    headers = {"Content-Disposition": f'attachment; filename="{run.name}-votes.csv"'}
    return StreamingResponse(_csv(run.id, after, limit), media_type="text/csv; charset=utf-8", headers=headers)


@api.get("/runs/{run}/votes.jsonl", response_class=Response)
def get_votes_jsonl(
    run: RunInPath, after: Annotated[int, Query(ge=0)] = 0, limit: Annotated[int | None, Query(ge=1)] = None
) -> StreamingResponse:
    """The same, one JSON object a line."""
    lines = (orjson.dumps(row) + b"\n" for row in arena.raw_votes(run.id, after, limit))
    headers = {"Content-Disposition": f'attachment; filename="{run.name}-votes.jsonl"'}
    return StreamingResponse(lines, media_type="application/x-ndjson", headers=headers)


def _csv(run_id: int, after: int, limit: int | None) -> Iterator[str]:
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, arena.CSV_HEADER)
    writer.writeheader()
    for row in arena.raw_votes(run_id, after, limit):
        writer.writerow({**row, "flags": " ".join(row["flags"])})
        yield buffer.getvalue()
        buffer.seek(0)
        buffer.truncate()
    yield buffer.getvalue()


def _limit_votes(user: User, address: str) -> None:
    limit = get_settings().vote_limit
    amount, _, span = limit.partition("/")
    limits.hit("vote", limit, str(user.id))
    limits.hit("vote-address", f"{5 * int(amount)}/{span}", address)


def _arena(
    request: Request,
    session: Session,
    viewer: User | None,
    key: str,
    prompt: str = "",
    error: str = "",
    status: int = 200,
) -> Response:
    known = arena.pools(session)
    pool = arena.find_pool(known, key) or (known[0] if known else None)
    context = ArenaPage(
        pools=known,
        pool=pool,
        starters=arena.starters(session, pool) if pool is not None else [],
        leaderboard=arena.leaderboard(session, pool) if pool is not None else None,
        unfinished=verbs.unfinished(session, viewer) if viewer is not None else None,
        max_chars=get_settings().max_prompt_chars,
        prompt=prompt,
        error=error,
    )
    return render.page(request, "arena/page.html", context, status_code=status)


def _battle(request: Request, session: Session, battle: Battle, error: str = "", status: int = 200) -> Response:
    one = battle.checkpoints[0]
    context = BattlePage(battle, arena.sides(session, battle), Pool(one.run, one.kind), error)
    is_script = "hx-request" in request.headers
    # htmx puts nothing but good answers into the page, and the battle with its sentence belongs there.
    template = "arena/_battle.html" if is_script else "arena/battle.html"
    return render.page(request, template, context, status_code=200 if is_script else status)
