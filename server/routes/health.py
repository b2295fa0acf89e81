"""Probes for those who run the site: alive, ready, and the numbers for Prometheus."""

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from sqlalchemy.exc import SQLAlchemyError

from registry import checkpoints, db, tickets
from server import meters, pulse
from server.deps import ReadSession

router = APIRouter(include_in_schema=False)


@router.get("/healthz")
def healthz() -> dict[str, str]:
    """This process answers."""
    return {"status": "ok"}


@router.get("/readyz")
def readyz() -> JSONResponse:
    """Whether the database and the broker answer; 503 names what does not. A worker's absence is told, not counted."""
    seen = pulse.take(fresh=True)
    parts = {"database": _database_answers(), "broker": seen.broker}
    ready = all(parts.values())
    words = {name: "ok" if fine else "down" for name, fine in parts.items()}
    content = {"status": "ok" if ready else "unavailable", "parts": words, "workers": seen.workers}
    return JSONResponse(content, status_code=200 if ready else 503)


@router.get("/metrics")
def metrics(session: ReadSession) -> Response:
    """Counters and gauges in Prometheus' text format."""
    lanes = tickets.count_by_lane(session)
    for lane in tickets.LANES.values():
        for status in ("queued", "running"):
            meters.TICKETS.labels(lane, status).set(lanes.get((lane, status), 0))
    for state, number in checkpoints.count_by_state(session).items():
        meters.CHECKPOINTS.labels(state).set(number)
    seen = pulse.take()
    meters.WORKERS.set(len(seen.workers))
    meters.BROKER.set(seen.broker)
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)


def _database_answers() -> bool:
    try:
        return db.is_alive()
    except SQLAlchemyError:
        return False  # the answer of the probe is the report
