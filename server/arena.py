"""What the arena's pages show: a blind battle's answers, what the vote revealed, ratings as a chart, and raw votes."""

import json
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import Request
from fastapi.responses import StreamingResponse
from sqlalchemy import select
from sqlalchemy.orm import Session

from analysis.ratings import ANCHOR
from registry import arena, db, evaluations, runs, standings, suites, votes
from registry.arena import Battle
from registry.errors import NotFound
from registry.estimates import Place
from registry.models import Checkpoint, Run, Turn, Vote
from registry.standings import Board, Standing
from server import charts, places, probes, turns
from server.figures import x_text
from server.i18n import gettext
from server.render import number

SIDES = ("left", "right")
LETTERS = ("A", "B")
NOTHING_NEW = ": nothing new\n\n"
MAX_STARTERS = 6
MAX_TABLE = 12
"""Checkpoints in the table of who met whom."""
STARTERS = ("第一条　为了", "To be, or not to be", "def read_lines(path):\n", "春天来了，", "Once upon a time")
"""What is offered where no probe has been answered yet."""
CSV_HEADER = (
    "id", "created_at", "left", "right", "left_step", "right_step", "left_tokens", "right_tokens", "choice", "voter",
    "prompt_hash", "flags", "counts",
)  # fmt: skip


@dataclass(frozen=True)
class Pool:
    """Checkpoints that can meet: of one run and kind."""

    run: Run
    kind: str

    @property
    def key(self) -> str:
        """As it stands in an address."""
        return f"{self.run.name}:{self.kind}"


@dataclass(frozen=True)
class Revealed:
    """Who wrote an answer, and what the vote did to the rating; None where it does not count."""

    checkpoint: Checkpoint
    before: float | None = None
    after: float | None = None


@dataclass(frozen=True)
class Side:
    """One column of a battle."""

    turn: Turn
    name: str
    """`left` or `right`."""
    letter: str
    is_chat: bool
    revealed: Revealed | None
    """Nothing before the vote."""

    @property
    def is_open(self) -> bool:
        """Whether more is to come."""
        return self.turn.status in ("queued", "running")


@dataclass(frozen=True)
class Cell:
    """A row's checkpoint against a column's."""

    share: str = ""
    num_votes: int = 0


@dataclass(frozen=True)
class Leaderboard:
    """Ratings as the page shows them."""

    pool: Pool
    board: Board
    chart: charts.Chart | None
    """None before there is a vote."""
    ranked: Sequence[Standing]
    """The best one first."""
    columns: Sequence[Standing]
    """Those with most votes, in order of age."""
    rows: Sequence[tuple[Standing, Sequence[Cell]]]


def pools(session: Session) -> list[Pool]:
    """All that can be asked, the run heard from last first."""
    return [Pool(run, kind) for run in runs.list_runs(session) for kind in arena.kinds(session, run)]


def find_pool(known: Sequence[Pool], key: str) -> Pool | None:
    """The pool of that address; the first one of the run that it names alone, or of all where it is empty."""
    for pool in known:
        if key in ("", pool.key, pool.run.name):
            return pool
    return None


def get_pool(session: Session, key: str) -> Pool:
    """The pool of that address among all that can be asked.

    Raises:
        NotFound: there is none.
    """
    found = find_pool(pools(session), key)
    if found is None:
        raise NotFound("There are no two checkpoints here that could be held against each other.")
    return found


def starters(session: Session, pool: Pool) -> list[str]:
    """Beginnings that the checkpoints are asked anyway, to take instead of writing one."""
    newest = arena.candidates(session, pool.run, pool.kind)[-1]
    own = evaluations.for_checkpoint(session, newest)
    asked = [one for one in own if one.task.is_probe and one.task.schedule != suites.IDLE]
    found = list(dict.fromkeys(saying.prompt for saying in probes.sayings([], asked)))
    return (found or list(STARTERS))[:MAX_STARTERS]


def sides(session: Session, battle: Battle) -> list[Side]:
    """Both columns; who wrote them is not even looked up before the vote."""
    is_chat = battle.checkpoints[0].kind == "chat"
    revealed: Sequence[Revealed | None] = (None, None)
    if battle.vote is not None:
        changed = standings.changes(session, battle.checkpoints[0].run, battle.vote)
        revealed = [Revealed(one, *changed.get(one.id, (None, None))) for one in battle.checkpoints]
    columns = zip(battle.turns, SIDES, LETTERS, revealed, strict=True)
    return [Side(turn, name, letter, is_chat, shown) for turn, name, letter, shown in columns]


def respond(request: Request, battle: Battle, side: str) -> StreamingResponse:
    """Stream one answer of a battle as `server.turns` does, without what would tell the two apart."""
    own, other = battle.turns if side == "left" else battle.turns[::-1]
    response = turns.respond(request, own.id)
    response.body_iterator = _blind(response.body_iterator, own.id, other.id)
    return response


async def _blind(chunks: Any, own_id: int, other_id: int) -> AsyncIterator[str]:
    """Waits are those of both answers: anybody may ask how long each checkpoint's line is. Errors name checkpoints."""
    shown: dict[str, Any] | None = None
    async for chunk in chunks:
        kind = next((line[7:] for line in chunk.splitlines() if line.startswith("event: ")), "")
        # The other one's wait may change while this one's does not, so each time is asked anew.
        is_asked = kind == "queued" or (not kind and shown is not None)
        last = await _last_place(own_id, other_id) if is_asked else None
        if last is not None:
            told = turns.queued(last)
            is_news, shown = told != shown, told
            yield f"event: queued\ndata: {json.dumps(told, ensure_ascii=False)}\n\n" if is_news else NOTHING_NEW
        else:
            shown = None if kind else shown
            yield _with_data(chunk, {"error": ""}) if kind == "done" else chunk


async def _last_place(own_id: int, other_id: int) -> Place | None:
    """The place of the answer that begins later; its own battle's other answer is nobody ahead."""
    waiting = (await places.look()).by_turn
    known = [place for turn_id in (own_id, other_id) if (place := waiting.get(turn_id)) is not None]
    if not known:
        return None
    last = max(known, key=lambda place: (place.high_seconds, place.ahead_chats))
    has_partner = other_id in waiting or (await turns.look_at(other_id)).is_open
    return last._replace(ahead_chats=max(0, last.ahead_chats - has_partner))


def _with_data(chunk: str, other: Mapping[str, Any]) -> str:
    """The event with some of its data replaced."""
    lines = [
        f"data: {json.dumps(json.loads(line[6:]) | dict(other), ensure_ascii=False)}" if line[:6] == "data: " else line
        for line in chunk.rstrip("\n").split("\n")
    ]
    return "\n".join(lines) + "\n\n"


def leaderboard(session: Session, pool: Pool) -> Leaderboard:
    """The ratings of a pool."""
    board = standings.board(session, pool.run, pool.kind)
    ranked = sorted(board.standings, key=lambda one: -one.rating)
    busiest = {one.checkpoint.id for one in sorted(board.standings, key=lambda one: -one.num_votes)[:MAX_TABLE]}
    columns = [one for one in board.standings if one.checkpoint.id in busiest]
    rows = [(one, [_cell(board, one, other) for other in columns]) for one in columns]
    return Leaderboard(pool, board, chart(pool, board), ranked, columns, rows)


def chart(pool: Pool, board: Board) -> charts.Chart | None:
    """Rating against tokens, with its band; of the largest group that votes connect, in the run's main precision."""
    if not board.standings:
        return None
    by_group: dict[int, list[Standing]] = {}
    for one in board.standings:
        by_group.setdefault(one.component, []).append(one)
    largest = max(by_group.values(), key=lambda group: sum(one.num_votes for one in group))
    finest = max(one.checkpoint.precision for one in largest)
    shown = [one for one in largest if one.checkpoint.precision == finest and one.checkpoint.tokens_seen is not None]
    return charts.Chart(
        key=f"arena-{pool.kind}",
        title=gettext("Arena") if pool.kind == "pretrained" else gettext("Arena, chat model"),
        colour="accent",
        metric_name=gettext("Elo points by tokens"),
        x_name=gettext("tokens"),
        src=f"/arena/chart?pool={pool.key}",
        live="",
        dots=[_dot(one) for one in shown],
        lines=(charts.Line(len(shown)),),
        chance=ANCHOR,
        chance_text=gettext("mean"),
        higher_is_better=True,
        band=gettext("95%% interval"),
        is_whole=True,
        words={**charts.words(), "items": gettext("votes")},
    )


def as_json(pool: Pool, board: Board) -> dict[str, Any]:
    """Ratings for programs."""
    rows = [
        {
            "checkpoint": one.checkpoint.label,
            "step": one.checkpoint.step,
            "precision": one.checkpoint.precision,
            "tokens_seen": one.checkpoint.tokens_seen,
            "rating": one.rating,
            "low": one.low,
            "high": one.high,
            "rating_at_equal_length": one.at_equal_length,
            "low_at_equal_length": one.at_equal_length_low,
            "high_at_equal_length": one.at_equal_length_high,
            "votes": one.num_votes,
            "wins": one.num_wins,
            "losses": one.num_losses,
            "even": one.num_even,
            "group": one.component,
        }
        for one in board.standings
    ]
    return {
        "run": pool.run.name,
        "kind": pool.kind,
        "votes": board.num_votes,
        "voters": board.num_voters,
        "left_out": board.tally.num_left_out,
        "is_connected": board.is_connected,
        "length_effect": board.length_effect,
        "checkpoints": rows,
    }


def raw_votes(run_id: int, after: int, limit: int | None) -> Iterator[dict[str, Any]]:
    """Every vote of a run as `CSV_HEADER` names its columns, read as it is sent, in a session of its own."""
    with db.read_session() as session:
        run = session.get_one(Run, run_id)
        of_run = select(Checkpoint).where(Checkpoint.run_id == run_id)
        known = {one.id: one for one in session.scalars(of_run)}
        for place, vote in enumerate(votes.of_run(session, run, after)):
            if limit is not None and place >= limit:
                return
            yield _raw(vote, known)


def by_id(session: Session, docket: Sequence[Vote]) -> Mapping[int, Checkpoint]:
    """The checkpoints that votes are about."""
    ids = {number for vote in docket for number in (vote.left_id, vote.right_id)}
    return {one.id: one for one in session.scalars(select(Checkpoint).where(Checkpoint.id.in_(ids)))}


def _raw(vote: Vote, known: Mapping[int, Checkpoint]) -> dict[str, Any]:
    left, right = known[vote.left_id], known[vote.right_id]
    return {
        "id": vote.id,
        "created_at": vote.created_at.isoformat(timespec="seconds"),
        "left": left.label,
        "right": right.label,
        "left_step": left.step,
        "right_step": right.step,
        "left_tokens": vote.left_tokens,
        "right_tokens": vote.right_tokens,
        "choice": vote.choice,
        "voter": vote.voter,
        "prompt_hash": vote.prompt_hash,
        "flags": list(vote.flags),
        "counts": votes.counts(vote.flags) and votes.is_genuine(vote),
    }


def _dot(one: Standing) -> charts.Dot:
    tokens = one.checkpoint.tokens_seen or 0
    return charts.Dot(
        x=tokens,
        y=one.rating,
        low=one.low,
        high=one.high,
        x_text=x_text("tokens", tokens),
        y_text=number(one.rating),
        range_text=f"{number(one.low)} – {number(one.high)}",
        n=one.num_votes,
        step=one.checkpoint.step,
        href=address_of(one.checkpoint),
        tokens_text=gettext("step %(step)s", step=number(one.checkpoint.step)),
    )


def address_of(checkpoint: Checkpoint) -> str:
    """Where a checkpoint's page is."""
    usual = checkpoint.kind == "pretrained" and checkpoint.precision == 16
    asked = "" if usual else f"?kind={checkpoint.kind}&precision={checkpoint.precision}"
    return f"/runs/{checkpoint.run.name}/checkpoints/{checkpoint.step}{asked}"


def _cell(board: Board, one: Standing, other: Standing) -> Cell:
    met = board.meetings.get((one.checkpoint.id, other.checkpoint.id))
    return Cell() if met is None else Cell(f"{met.score / met.num_votes:.0%}", met.num_votes)
