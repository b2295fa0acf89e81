"""The training page of a run: its curves with rewinds and incidents, their data, and a file of all points."""

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse, StreamingResponse
from markupsafe import Markup

from registry import db, runs
from registry.models import Run
from server import render, training_curves
from server.deps import ReadSession, RunInPath
from server.i18n import gettext
from server.training_curves import Axis, Training

router = APIRouter(include_in_schema=False)
api = APIRouter(prefix="/api/v1", tags=["training"])

MAX_KEYS = 50
MAX_STEP = 2**53


@dataclass(frozen=True)
class TrainingPage:
    """Context of runs/training.html."""

    run: Run
    x: Axis
    training: Training
    last_step: int
    data: Markup
    words: Markup


@router.get("/runs/{run}/training")
def show_training(request: Request, session: ReadSession, run: RunInPath, x: Axis = "tokens") -> HTMLResponse:
    """How the training goes, and the run's configuration."""
    training = training_curves.training_of(session, run)
    context = TrainingPage(
        run=run,
        x=x,
        training=training,
        last_step=max((trace.step[-1] for panel in training.panels for trace in panel.own if trace.step), default=0),
        data=render.script_json(training),
        words=render.script_json(_words()),
    )
    return render.page(request, "runs/training.html", context)


@router.get("/runs/{run}/training.csv")
def download_points(
    run: RunInPath, key: Annotated[Sequence[str], Query(max_length=MAX_KEYS)] = ()
) -> StreamingResponse:
    """Every point of the run as a table, superseded ones too; `key` chooses scalars."""
    name = f'attachment; filename="{run.name}-training.csv"'
    return StreamingResponse(_rows(run, key), media_type="text/csv", headers={"content-disposition": name})


@api.get("/runs/{run}/training", responses={404: {"description": "There is no such run."}})
def get_training(
    session: ReadSession,
    run: RunInPath,
    first: Annotated[int, Query(ge=0, le=MAX_STEP, description="Only steps from this one on.")] = 0,
    last: Annotated[int, Query(ge=0, le=MAX_STEP, description="Only steps up to this one.")] = MAX_STEP,
) -> Training:
    """The training charts of a run, or of a stretch of it in more detail: curves, rewinds, branches, incidents."""
    return training_curves.training_of(session, run, runs.Window(first, last))


def _rows(run: Run, keys: Sequence[str]) -> Iterator[str]:
    """The file in pieces, each from a session of its own: a slow reader must not keep one from everybody else."""
    lines = io.StringIO()
    writer = csv.writer(lines)
    writer.writerow(["run", "key", "step", "tokens_seen", "time", "value", "superseded_by_attempt"])
    after: runs.Place | None = runs.BEGINNING
    while after is not None:
        with db.read_session() as session:
            found = runs.next_points(session, run, keys, after)
        for row in found:
            at = row.created_at.isoformat()
            writer.writerow([run.name, row.key, row.step, row.tokens_seen, at, repr(row.value), row.attempt or ""])
        yield lines.getvalue()
        lines.seek(0)
        lines.truncate()
        after = runs.Place(found[-1].attempt, found[-1].key, found[-1].step) if found else None


def _words() -> dict[str, str]:
    """What the charts say themselves; `{}` is filled in by the browser."""
    return {
        "tokens": gettext("%(count)s tokens", count="{}"),
        "step": gettext("step %(step)s", step="{}"),
        "time": gettext("after %(time)s", time="{}"),
        "range": gettext("lowest to highest"),
        "smoothed": gettext("smoothed"),
        "superseded": gettext("superseded"),
        "incident": gettext("Incident"),
        "pin": gettext("Pin an incident at step %(step)s", step="{}"),
    }
