"""What came from what: the page of a run's lineage, and the graphs as JSON."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Path, Request
from fastapi.responses import HTMLResponse

from registry import checkpoints, lineage
from registry.models import Run
from server import growth, pedigree, render
from server.deps import ReadSession, RunInPath
from server.outputs import LineageOut

router = APIRouter(include_in_schema=False)
api = APIRouter(prefix="/api/v1", tags=["lineage"])


@dataclass(frozen=True)
class LineagePage:
    """Context of runs/lineage.html."""

    run: Run
    age: growth.Age
    pedigree: pedigree.Pedigree


@router.get("/runs/{run}/lineage")
def show_lineage(request: Request, session: ReadSession, run: RunInPath) -> HTMLResponse:
    """A run, the runs that it went on from or that went on from it, and what was made of their checkpoints."""
    drawn = pedigree.draw(lineage.of_run(session, run), f"run:{run.name}")
    return render.page(request, "runs/lineage.html", LineagePage(run, growth.age_of(session, run), drawn))


@api.get("/runs/{run}/lineage")
def get_run_lineage(session: ReadSession, run: RunInPath) -> LineageOut:
    """The graph around a run: `nodes` are runs and checkpoints, an edge's `target` came from its `source`."""
    return LineageOut.of(lineage.of_run(session, run))


@api.get("/checkpoints/{checkpoint_id}/lineage")
def get_checkpoint_lineage(session: ReadSession, checkpoint_id: Annotated[int, Path(lt=2**31)]) -> LineageOut:
    """What one checkpoint came from, all the way back, and what came of it."""
    return LineageOut.of(lineage.of_checkpoint(session, checkpoints.get_by_id(session, checkpoint_id)))
