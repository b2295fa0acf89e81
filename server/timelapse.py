"""One prompt through the ages of a run: which prompts there are, and what each checkpoint made of it."""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import structlog
from sqlalchemy import select
from sqlalchemy.orm import Session, defer

from analysis import wording
from analysis.wording import Marks, Piece
from registry import evaluations, prompts
from registry.errors import NotFound, RegistryError
from registry.models import Checkpoint, Evaluation, Run
from registry.models.base import FAILED, FINISHED, QUEUED, READY, RUNNING, SCORED
from registry.settings import get_settings
from server.growth import checkpoint_href
from server.i18n import gettext
from server.probes import Written, answers_in, language_of, prompts_in
from server.render import compact, number

ANSWERED, COMING, MISSING, FAILING = "answered", "coming", "missing", "failed"
"""What an age has to say: an answer, one that is still to come, none, or the reason of a failure."""

_EDGES = re.compile(r"(^\s+|\s*\n\s*|\s+$)")
log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Prompt:
    """A beginning that every checkpoint is given."""

    key: str
    """Of its item; stands in addresses."""
    text: str
    language: str
    is_community: bool
    """A visitor proposed it."""
    task_ids: frozenset[int]
    task_names: frozenset[str]
    """All versions of a task have one name."""

    def live(self, run: Run) -> str:
        """The events of a run that change what is known of it: new ages, and their answers to this prompt."""
        return " ".join(
            [f"checkpoint:{run.name}", *(f"evaluation:{run.name}:{name}" for name in sorted(self.task_names))]
        )


@dataclass(frozen=True)
class Age:
    """A checkpoint and its evaluation of the prompt's task; the answer is read from its file when it is asked for."""

    checkpoint: Checkpoint
    evaluation: Evaluation | None
    prompt: Prompt

    @cached_property
    def answer(self) -> Written | None:
        """What it wrote; None while there is nothing."""
        if self.evaluation is None or self.evaluation.status != FINISHED or not self.evaluation.slices:
            return None
        try:
            return answers_in(*evaluations.sample_paths(self.evaluation)).get(self.prompt.key)
        except RegistryError as error:
            # A missing file must not take the whole page away; the log says which one.
            log.warning("Probe answers cannot be read.", evaluation_id=self.evaluation.id, error=str(error))
            return None

    @property
    def state(self) -> str:
        """`answered`, `coming`, `failed` or `missing`."""
        if self.answer is not None:
            return ANSWERED
        status = self.evaluation.status if self.evaluation else ""
        return {QUEUED: COMING, RUNNING: COMING, FAILED: FAILING}.get(status, MISSING)

    @property
    def name(self) -> str:
        """How old it was, in tokens where they are known."""
        tokens = self.checkpoint.tokens_seen
        return gettext("%(count)s tokens", count=compact(tokens)) if tokens is not None else self.step_name

    @property
    def step_name(self) -> str:
        """Its step in words."""
        return gettext("step %(step)s", step=number(self.checkpoint.step))

    @property
    def note(self) -> str:
        """Why there is no answer, in a sentence; empty where there is one."""
        return {
            ANSWERED: "",
            COMING: gettext("It has not been asked yet: its answer appears here by itself."),
            FAILING: gettext("Asking it failed, so there is no answer of this age."),
            MISSING: gettext("There is no answer of this age."),
        }[self.state]

    @property
    def marks(self) -> Marks | None:
        """How varied its words are."""
        return wording.marks(self.answer.text) if self.answer else None

    @property
    def marks_text(self) -> str:
        """The marks in a few words."""
        return marks_text(self.marks)

    @property
    def href(self) -> str:
        """Address of the checkpoint's page."""
        return checkpoint_href(self.checkpoint)

    @property
    def chat_href(self) -> str:
        """Where one talks to it; empty where its files are not here."""
        return f"/chat?checkpoint={self.checkpoint.label}" if self.checkpoint.state == READY else ""


def marks_text(found: Marks | None) -> str:
    """`12 different words of 40 · 63% of word pairs repeat earlier ones`; empty without words."""
    if found is None or not found.num_words:
        return ""
    words = gettext("%(distinct)s different words of %(all)s", distinct=found.num_distinct, all=found.num_words)
    if found.repetition is None:
        return words
    return f"{words} · " + gettext("%(share)s%% of word pairs repeat earlier ones", share=round(100 * found.repetition))


def prompts_of(session: Session, run: Run) -> list[Prompt]:
    """The prompts of a run: the site's own as its checkpoints answered them, then those of visitors."""
    texts: dict[str, str] = {}
    tasks: dict[str, set[tuple[int, str]]] = {}
    for task_id, name, file in evaluations.items_files(session, run):
        for key, text in _items(get_settings().samples_dir / file):
            texts.setdefault(key, text)
            tasks.setdefault(key, set()).add((task_id, name))
    own = set(texts)
    for prompt in prompts.accepted(session):
        texts.setdefault(prompt.item, prompt.text)
        tasks.setdefault(prompt.item, set()).add((prompt.task_id or 0, prompts.task_name(prompt)))
    return [_prompt(key, text, tasks[key], is_community=key not in own) for key, text in texts.items()]


def _prompt(key: str, text: str, tasks: Collection[tuple[int, str]], *, is_community: bool) -> Prompt:
    ids, names = zip(*tasks, strict=True)
    return Prompt(key, text, language_of(text), is_community, frozenset(ids), frozenset(names))


def choose(known: Sequence[Prompt], key: str) -> Prompt | None:
    """The prompt of that key, the first one for an empty key; None where a run has none at all.

    Raises:
        NotFound: there is no such prompt, or it was withdrawn.
    """
    if not key:
        return known[0] if known else None
    found = next((prompt for prompt in known if prompt.key == key), None)
    if found is None:
        raise NotFound("There is no such prompt here; perhaps it was withdrawn.")
    return found


def ages_of(session: Session, run: Run, prompt: Prompt) -> list[Age]:
    """Every checkpoint of a run by step, with its evaluation of the prompt if there is one."""
    query = (
        select(Checkpoint)
        .where(
            Checkpoint.run_id == run.id,
            Checkpoint.kind == "pretrained",
            Checkpoint.precision == 16,
            Checkpoint.state.in_(SCORED),
        )
        # Not the manifests of a thousand checkpoints.
        .options(defer(Checkpoint.manifest), defer(Checkpoint.fingerprint), defer(Checkpoint.warnings))
        .order_by(Checkpoint.step)
    )
    known = session.scalars(query).all()
    found: dict[int, Evaluation] = {}
    for evaluation in evaluations.of_tasks(session, run, prompt.task_ids):
        earlier = found.get(evaluation.checkpoint_id)
        if earlier is None or earlier.status != FINISHED or evaluation.status == FINISHED:
            found[evaluation.checkpoint_id] = evaluation
    return [Age(checkpoint, found.get(checkpoint.id), prompt) for checkpoint in known]


def answered_before(ages: Sequence[Age], index: int) -> Age | None:
    """The last age before this one that has an answer."""
    return next((age for age in reversed(ages[:index]) if age.answer is not None), None)


def changes(before: Age | None, age: Age) -> list[Piece]:
    """What differs from the answer before; everything is `same` where there is none before it."""
    if age.answer is None:
        return []
    earlier = before.answer if before else None
    return _changes(earlier.text, age.answer.text) if earlier else [Piece("same", age.answer.text)]


@lru_cache(maxsize=2_000)
def _changes(before: str, after: str) -> list[Piece]:
    return [part for piece in wording.changes(before, after) for part in _without_edges(piece)]


def _without_edges(piece: Piece) -> list[Piece]:
    """A new stretch without the space around its lines, which is nothing to underline."""
    if piece.kind != "new":
        return [piece]
    parts = [part for part in _EDGES.split(piece.text) if part]
    return [Piece("same" if part.isspace() else "new", part) for part in parts]


def _items(path: Path) -> Sequence[tuple[str, str]]:
    try:
        return prompts_in(path)
    except RegistryError as error:
        log.warning("The prompts of a probe cannot be read.", file=path.name, error=str(error))
        return []
