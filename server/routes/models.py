"""Every model that can be talked to, by run."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from registry import checkpoints
from registry.models import Checkpoint, Run
from server import growth, render
from server.deps import ReadSession

router = APIRouter(include_in_schema=False)
MEMORY_FACTOR = 1.2
"""Weights, and a fifth for activations and a short context."""


@dataclass(frozen=True)
class ModelRow:
    """A checkpoint that is ready, and what it needs."""

    checkpoint: Checkpoint
    href: str
    memory_bytes: int | None
    """Estimate, from the parameters and their precision."""


@dataclass(frozen=True)
class Shelf:
    """The models of one run, the newest first."""

    run: Run
    pretrained: Sequence[ModelRow]
    chat: Sequence[ModelRow]


@dataclass(frozen=True)
class ModelsPage:
    """Context of models/page.html."""

    shelves: Sequence[Shelf]


@router.get("/models")
def list_models(request: Request, session: ReadSession) -> HTMLResponse:
    """Every ready checkpoint."""
    found = checkpoints.list_checkpoints(session)
    shelves = [_shelf(list(group)) for _, group in groupby(found, key=lambda c: c.run_id)]
    shelves.sort(key=lambda shelf: shelf.run.heartbeat_at, reverse=True)
    return render.page(request, "models/page.html", ModelsPage(shelves))


def _shelf(found: Sequence[Checkpoint]) -> Shelf:
    rows = [ModelRow(c, growth.checkpoint_href(c), _memory(c)) for c in reversed(found)]
    return Shelf(
        run=found[0].run,
        pretrained=[row for row in rows if row.checkpoint.kind == "pretrained"],
        chat=[row for row in rows if row.checkpoint.kind == "chat"],
    )


def _memory(checkpoint: Checkpoint) -> int | None:
    if checkpoint.num_parameters is None:
        return None
    return int(checkpoint.num_parameters * checkpoint.precision / 8 * MEMORY_FACTOR)
