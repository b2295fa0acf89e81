"""Every model that can be taken home or talked to, by run; and the page of one: its card, programs, memory, files."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import HTMLResponse, PlainTextResponse, RedirectResponse
from markupsafe import Markup
from sqlalchemy.orm import Session

from registry import aliases, checkpoints, runs, shelf
from registry.errors import NotFound
from registry.models import Checkpoint, Run
from registry.models.base import EXTERNAL
from registry.shelf import Item, revision_of
from server import architecture, cards, devices, growth, hardware, i18n, render
from server.deps import ReadSession, RunInPath
from server.hardware import CARD, Hardware
from server.snippets import ADDRESS, Snippet, snippets

router = APIRouter(include_in_schema=False)
SHOWN = 30
"""Steps of a run that the list shows at first: the released ones, those with a name, and the newest."""
MARKDOWN = "text/markdown; charset=utf-8"
YAML = "application/yaml; charset=utf-8"

Search = Annotated[str, Query(max_length=120)]
Kind = Literal["", "pretrained", "chat", "average"]
Bits = Literal["", "16", "8", "4"]
Batch = Literal["1", "4", "16", "64"]
Device = Literal["card", "processor"]
Language = Literal["", "en", "zh"]


@dataclass(frozen=True)
class Form:
    """One precision of a step."""

    bits: int
    href: str
    size_bytes: int


@dataclass(frozen=True)
class ModelRow:
    """A step of a run, in all its precisions."""

    item: Item
    """The form with most bits."""
    href: str
    forms: Sequence[Form]
    names: Sequence[str]
    """Aliases that point at it now."""
    memory_bytes: int | None
    """On a card, for one answer as long as the context; the smallest form."""

    @property
    def is_released(self) -> bool:
        """Whether it is offered to the public."""
        return self.item.is_released


@dataclass(frozen=True)
class Shelf:
    """The models of one run that were asked for: released ones first, then the newest."""

    run: Run
    pretrained: Sequence[ModelRow]
    chat: Sequence[ModelRow]
    averages: Sequence[ModelRow]
    num_hidden: int
    """Further steps, which only the list of the run alone shows."""


@dataclass(frozen=True)
class Wanted:
    """What the list is narrowed to."""

    search: str
    kind: str
    bits: str
    is_released: bool

    @property
    def is_everything(self) -> bool:
        """Whether nothing is left out."""
        return not (self.search or self.kind or self.bits or self.is_released)

    def allows(self, item: Item) -> bool:
        """Whether a checkpoint is asked for, but for its name."""
        kind = "average" if item.kind.startswith("avg") else item.kind
        is_kind = not self.kind or kind == self.kind
        is_form = not self.bits or item.precision == int(self.bits)
        return is_kind and is_form and (item.is_released or not self.is_released)


@dataclass(frozen=True)
class ModelsPage:
    """Context of models/page.html."""

    shelves: Sequence[Shelf]
    wanted: Wanted
    only: str
    """The run that the list is about; empty for all."""
    num_models: int


@dataclass(frozen=True)
class ModelPage:
    """Context of models/model.html."""

    checkpoint: Checkpoint
    title: str
    revision: str
    href: str
    evidence_href: str
    names: Sequence[str]
    forms: Sequence[Form]
    card: Markup
    card_language: str
    snippets: Sequence[Snippet]
    hardware: Hardware | None
    batches: Sequence[int]
    kinds: Sequence[str]
    """Of devices that the table tells apart."""
    many_shown: int
    files_href: str
    """Address of the page with its files, mirrors and checksums."""
    is_here: bool
    """Whether its files can be had; false for one that is known by its results alone."""


@router.get("/models")
def list_models(
    request: Request,
    session: ReadSession,
    q: Search = "",
    kind: Kind = "",
    bits: Bits = "",
    released: bool = False,
    run: Annotated[str, Query(max_length=64)] = "",
) -> HTMLResponse:
    """Every ready checkpoint, released ones first; `q` is a part of a run's name, of an alias, or a step."""
    only = runs.get_run(session, run) if run else None
    wanted = Wanted(q.strip().lower(), kind, bits, released)
    found = [item for item in shelf.items(session, only) if wanted.allows(item)]
    by_name = {one.name: one for one in runs.list_runs(session)}
    shelves = [
        _shelf(session, by_name[name], list(items), wanted, None if only else SHOWN)
        for name, items in groupby(found, key=lambda item: item.run)
    ]
    shelves = [one for one in shelves if one.pretrained or one.chat or one.averages]
    shelves.sort(key=lambda one: one.run.heartbeat_at, reverse=True)
    num_models = sum(len(one.pretrained) + len(one.chat) + len(one.averages) + one.num_hidden for one in shelves)
    return render.page(request, "models/page.html", ModelsPage(shelves, wanted, run, num_models))


@router.get("/models/{run}")
def show_newest(session: ReadSession, run: RunInPath) -> Response:
    """The newest release of a run, or its newest checkpoint."""
    found = [item for item in shelf.items(session, run) if item.kind == "pretrained" and item.precision == 16]
    found = found or shelf.items(session, run)
    if not found:
        raise NotFound("The run '%(run)s' has no model that is ready.", run=run.name)
    best = max(found, key=lambda item: (item.is_released, item.step))
    return RedirectResponse(f"/models/{run.name}/{best.revision}", 307)


@router.get("/models/{run}/{revision}")
def show_model(
    request: Request,
    session: ReadSession,
    run: RunInPath,
    revision: str,
    batch: Batch = "1",
    device: Device = "card",
    card: Language = "",
) -> Response:
    """The page of one checkpoint, to take it home; a name that moves along leads to what it points at now."""
    checkpoint = _find(session, run, revision)
    if revision_of(checkpoint) != revision:
        return RedirectResponse(cards.model_href(checkpoint), 307)
    return render.page(request, "models/model.html", _page(session, request, checkpoint, int(batch), device, card))


@router.get("/models/{run}/{revision}/README.md")
def download_card(
    request: Request, session: ReadSession, run: RunInPath, revision: str, lang: Language = ""
) -> Response:
    """The card as Markdown, with the header that the Hugging Face Hub reads."""
    checkpoint = _find(session, run, revision)
    text = cards.card_markdown(session, checkpoint, lang or i18n.current(), _address(request))
    name = f"{checkpoint.run.name}-{revision_of(checkpoint)}-README.md"
    return PlainTextResponse(text, media_type=MARKDOWN, headers=_attachment(name))


@router.get("/models/{run}/{revision}/CITATION.cff")
def download_citation(request: Request, session: ReadSession, run: RunInPath, revision: str) -> Response:
    """How to cite it, for programs."""
    checkpoint = _find(session, run, revision)
    text = cards.citation_cff(checkpoint, _address(request))
    return PlainTextResponse(text, media_type=YAML, headers=_attachment("CITATION.cff"))


def _attachment(name: str) -> dict[str, str]:
    return {"Content-Disposition": f'attachment; filename="{name}"'}


def _find(session: Session, run: Run, revision: str) -> Checkpoint:
    return checkpoints.by_label(session, f"{run.name}@{revision.removeprefix('step-')}")


def _address(request: Request) -> str:
    """As the operator gave it, else as this visitor reached the site, where that may stand in a program."""
    address = str(request.base_url).rstrip("/")
    return "" if cards.has_public_url() or not ADDRESS.fullmatch(address) else address


def _shelf(session: Session, run: Run, found: Sequence[Item], wanted: Wanted, limit: int | None) -> Shelf:
    names = aliases.by_checkpoint(session, run)
    rows = [row for row in _rows(run, found, names) if _is_found(row, wanted.search)]
    rows.sort(key=lambda row: (row.is_released, row.item.step), reverse=True)
    shown = rows if limit is None else [row for at, row in enumerate(rows) if at < limit or row.names]
    return Shelf(
        run=run,
        pretrained=[row for row in shown if row.item.kind == "pretrained"],
        chat=[row for row in shown if row.item.kind == "chat"],
        averages=[row for row in shown if row.item.kind.startswith("avg")],
        num_hidden=len(rows) - len(shown),
    )


def _is_found(row: ModelRow, search: str) -> bool:
    texts = (row.item.run, row.item.label, row.item.revision, *row.names)
    return not search or any(search in text.lower() for text in texts)


def _rows(run: Run, found: Sequence[Item], names: Mapping[int, Sequence[str]]) -> list[ModelRow]:
    """One row for all precisions of a step and kind."""
    by_place: dict[tuple[int, str], list[Item]] = {}
    for item in found:
        by_place.setdefault((item.step, item.kind), []).append(item)
    rows = []
    for forms in by_place.values():
        forms.sort(key=lambda item: -item.precision)
        known = [Form(item.precision, f"/models/{run.name}/{item.revision}", item.size_bytes) for item in forms]
        own = [name for item in forms for name in names.get(item.id, ())]
        rows.append(ModelRow(forms[0], known[0].href, known, own, _memory(forms)))
    return rows


def _memory(forms: Sequence[Item]) -> int | None:
    """Its files are its weights, near enough for a list; the page of the model has the whole sum."""
    smallest = min((item.size_bytes for item in forms if item.size_bytes), default=None)
    return None if smallest is None else round(smallest + hardware.ENGINE_BYTES[CARD])


def _page(
    session: Session, request: Request, checkpoint: Checkpoint, batch: int, device: str, language: str
) -> ModelPage:
    shape, config = architecture.shape_of(checkpoint), architecture.config_of(checkpoint)
    address = _address(request)
    card_language = language or i18n.current()
    found = [item for item in shelf.items(session, checkpoint.run) if item.step == checkpoint.step]
    forms = sorted((item for item in found if item.kind == checkpoint.kind), key=lambda item: -item.precision)
    run = checkpoint.run.name
    return ModelPage(
        checkpoint=checkpoint,
        title=cards.title_of(checkpoint),
        revision=revision_of(checkpoint),
        href=cards.model_href(checkpoint),
        evidence_href=growth.checkpoint_href(checkpoint),
        names=aliases.by_checkpoint(session, checkpoint.run).get(checkpoint.id, []),
        forms=[Form(item.precision, f"/models/{run}/{item.revision}", item.size_bytes) for item in forms],
        card=cards.card_html(session, checkpoint, card_language, address),
        card_language=card_language,
        snippets=[] if checkpoint.state == EXTERNAL else snippets(cards.repo_of(session, checkpoint, address)),
        hardware=hardware.hardware_of(session, config, shape, batch, device) if shape is not None else None,
        batches=hardware.BATCHES,
        kinds=(devices.CONSUMER, devices.DATACENTER) if device == CARD else (devices.COMPUTER,),
        many_shown=hardware.MANY_SHOWN,
        files_href=_files_href(checkpoint),
        is_here=checkpoint.state != EXTERNAL,
    )


def _files_href(checkpoint: Checkpoint) -> str:
    path, mark, asked = growth.checkpoint_href(checkpoint).partition("?")
    return f"{path}/files{mark}{asked}"
