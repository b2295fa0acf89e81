"""What waiting to expect, before anything is sent."""

from typing import Any

from fastapi import APIRouter

from registry import arena as battles
from registry import checkpoints, estimates, tickets
from registry.chats import DEFAULT_MAX_TOKENS
from registry.estimates import Place
from server import arena, auth, knobs, turns
from server.deps import ReadSession

router = APIRouter(include_in_schema=False)

MAX_TOKENS = 4_096


@router.get("/chat/wait")
def show_wait(
    session: ReadSession, _user: auth.Member, checkpoint: str, max_tokens: int = DEFAULT_MAX_TOKENS
) -> dict[str, Any]:
    """The place of somebody who would ask this checkpoint now: a sentence, and the wait as an interval in seconds."""
    asked = checkpoints.by_label(session, checkpoint)
    size = max(1, min(max_tokens, MAX_TOKENS))
    return _told(estimates.expect(session, lane=tickets.CHAT, checkpoint_id=asked.id, size=size))


@router.get("/arena/wait")
def show_battle_wait(session: ReadSession, _user: auth.Member, pool: str = "") -> dict[str, Any]:
    """The same for a battle: the wait until both answers begin, whoever will meet."""
    chosen = arena.get_pool(session, pool)
    size = int(knobs.defaults(chosen.kind).max_tokens)
    return _told(battles.expect(session, chosen.run, chosen.kind, size))


def _told(place: Place | None) -> dict[str, Any]:
    return turns.nobody() if place is None else turns.queued(place)
