"""The record of an answer that was written, in the rows of what had asked for it."""

import datetime as dt
from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session

from registry import calls, chats, tickets
from registry.models.base import CANCELLED, FINISHED
from registry.tickets import Claim


@dataclass(frozen=True)
class End:
    """How an answer ended."""

    text: str
    tokens: list[Any] | None
    """[text, logprob, [[text, logprob] of the likeliest …]] a token, where they were asked for."""
    finish_reason: str
    prompt_tokens: int | None
    completion_tokens: int | None
    started_at: dt.datetime | None
    """When its first piece came."""

    @property
    def status(self) -> str:
        """A stopped answer keeps what was written until then."""
        return CANCELLED if self.finish_reason == "cancelled" else FINISHED

    def told(self) -> dict[str, Any]:
        """What the last event of its stream says."""
        return {"status": self.status, "finish_reason": self.finish_reason, "error": ""}


def close(session: Session, claim: Claim, end: End) -> None:
    """Record the end of a turn, or of a streamed call, together with its ticket's.

    Raises:
        Conflict: the ticket is somebody else's by now.
    """
    tickets.finish(session, claim.ticket_id, claim.fence, end.status, started_at=end.started_at)
    if claim.turn_id is not None:
        chats.close_turn(
            session,
            claim.turn_id,
            status=end.status,
            answer=end.text,
            finish_reason=end.finish_reason,
            prompt_tokens=end.prompt_tokens,
            completion_tokens=end.completion_tokens,
            tokens=end.tokens,
            started_at=end.started_at,
        )
    elif claim.call_id is not None:
        choice = {
            "index": 0,
            "text": end.text,
            "finish_reason": end.finish_reason,
            "tokens": end.tokens,
            "prompt_tokens": end.prompt_tokens,
            "completion_tokens": end.completion_tokens,
        }
        calls.close_call(
            session,
            claim.call_id,
            status=end.status,
            result=[choice],
            finish_reason=end.finish_reason,
            prompt_tokens=end.prompt_tokens,
            completion_tokens=end.completion_tokens,
        )
