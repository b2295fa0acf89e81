"""Training scalars from trainers elsewhere, such as `grow.callbacks.GrowCallback`."""

import math
from typing import Annotated

from fastapi import APIRouter
from pydantic import BaseModel, Field, field_validator

from registry import events, hub, hubcommits, runs
from registry.errors import NotFound
from server.deps import WriteSession
from server.hubapi.errors import HubRoute
from server.hubapi.pushers import Pusher

router = APIRouter(prefix="/api/v1", tags=["v1"], route_class=HubRoute)

MAX_POINTS, MAX_VALUES = 1_000, 200
MAX_NUMBER = 2**62
Key = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/@ -]{0,63}$")]


class Point(BaseModel):
    """The scalars of one step."""

    step: Annotated[int, Field(ge=0, le=MAX_NUMBER)]
    tokens_seen: Annotated[int, Field(ge=0, le=MAX_NUMBER)] = 0
    values: Annotated[dict[Key, float], Field(max_length=MAX_VALUES)]

    @field_validator("values")
    @classmethod
    def _finite(cls, values: dict[str, float]) -> dict[str, float]:
        """A loss that is not a number cannot be drawn; the others of its step can."""
        return {key: value for key, value in values.items() if math.isfinite(value)}


class Points(BaseModel):
    """What a trainer sends at once."""

    points: Annotated[list[Point], Field(min_length=1, max_length=MAX_POINTS)]


@router.post("/runs/{run}/metrics")
def log_metrics(run: str, asked: Points, user: Pusher, session: WriteSession) -> dict[str, int]:
    """Record scalars of a run, which is made if it is new; for API keys with the scope `push`."""
    try:
        owner = hub.find_run(session, run)
        hub.check_owner(session, owner, user)
    except NotFound:
        owner, _ = hubcommits.open_repo(session, run, "", user)
    for point in asked.points:
        runs.log_metrics(session, owner, point.step, point.tokens_seen, point.values)
    newest = max(point.step for point in asked.points)
    events.publish_board("metrics", {"run": owner.name, "step": newest})
    return {"points": len(asked.points)}
