"""What a model wrote at its different ages: the answers to the probe prompts."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import structlog
from sqlalchemy.orm import Session

from analysis import wording
from analysis.wording import Piece
from registry import evaluations, samples
from registry.errors import RegistryError
from registry.models import Checkpoint, Evaluation, Run
from registry.models.base import FINISHED
from registry.suites import IDLE

MAX_REMEMBERED = 20_000
"""Evaluations whose answers this process keeps, some kilobytes each; a sample file never changes."""

log = structlog.get_logger(__name__)


class Written(NamedTuple):
    """What a checkpoint wrote."""

    text: str
    cut: bool
    """It would have gone on."""


class Answer(NamedTuple):
    """What a checkpoint wrote, and to which prompt."""

    item: str
    prompt: str
    text: str
    cut: bool


@dataclass(frozen=True)
class Saying:
    """One checkpoint's answer to one prompt, beside the answer before it."""

    prompt: str
    text: str
    cut: bool
    """It would have gone on."""
    before: str | None = None
    language: str = ""
    pieces: Sequence[Piece] = ()
    """What became of `before`, word by word; empty where there is nothing before."""
    is_community: bool = False
    """A visitor proposed the prompt."""


@dataclass(frozen=True)
class Age:
    """A checkpoint and what it wrote."""

    checkpoint: Checkpoint
    text: str
    cut: bool


@dataclass(frozen=True)
class Story:
    """One prompt, answered at several ages."""

    key: str
    prompt: str
    language: str
    ages: Sequence[Age]


def sayings(before: Iterable[Evaluation], after: Iterable[Evaluation]) -> list[Saying]:
    """The probe answers of a checkpoint, each beside the earlier checkpoint's answer to the same prompt."""
    earlier = {answer.item: answer for evaluation in before for answer in _answers(evaluation)}
    return [
        _saying(answer, earlier.get(answer.item), is_community=evaluation.task.schedule == IDLE)
        for evaluation in after
        for answer in _answers(evaluation)
    ]


def _saying(answer: Answer, before: Answer | None, *, is_community: bool) -> Saying:
    return Saying(
        prompt=answer.prompt,
        text=answer.text,
        cut=answer.cut,
        before=before.text if before else None,
        language=language_of(answer.prompt),
        pieces=wording.readable(wording.changes(before.text, answer.text)) if before else (),
        is_community=is_community,
    )


def stories(session: Session, run: Run, limit: int = 8) -> list[Story]:
    """The probe prompts of a run, each as answered by its first, a middle and its newest checkpoint."""
    found = evaluations.probe_evaluations(session, run)
    chosen = _three_ages(sorted({e.checkpoint.step for e in found}))
    told: dict[str, list[tuple[Checkpoint, Answer]]] = {}
    for evaluation in found:
        if evaluation.checkpoint.step in chosen:
            for answer in _answers(evaluation):
                told.setdefault(answer.item, []).append((evaluation.checkpoint, answer))
    return [
        Story(
            key=item[:12],
            prompt=pairs[-1][1].prompt,
            language=language_of(pairs[-1][1].prompt),
            ages=[Age(checkpoint, answer.text, answer.cut) for checkpoint, answer in pairs],
        )
        for item, pairs in list(told.items())[:limit]
    ]


def _three_ages(steps: Sequence[int]) -> set[int]:
    # The middle of log-spaced checkpoints by count is where the model is half-way to its newest words.
    return {steps[0], steps[len(steps) // 2], steps[-1]} if steps else set()


def _answers(evaluation: Evaluation) -> list[Answer]:
    if not evaluation.task.is_probe or evaluation.status != FINISHED:
        return []
    paths = evaluations.sample_paths(evaluation)
    if not paths:
        return []
    try:
        texts = dict(prompts_in(evaluations.items_path(evaluation)))
        return [Answer(item, texts.get(item, ""), *found) for item, found in answers_in(*paths).items()]
    except RegistryError as error:
        # A missing file must not take the whole page away; the log says which one.
        log.warning("Probe answers cannot be read.", evaluation_id=evaluation.id, error=str(error))
        return []


@lru_cache(maxsize=MAX_REMEMBERED)
def answers_in(*paths: Path) -> Mapping[str, Written]:
    """What stands in the sample files of an evaluation, by the key of the item.

    Raises:
        NotFound, Invalid: as `samples.read_columns` does.
    """
    # Three of ten columns: a view of a thousand ages reads a thousand files.
    rows = [row for path in paths for row in samples.read_columns(path, ("item", "text", "finish_reason")).to_pylist()]
    return {
        f"{row['item']:016x}": Written(row["text"], row["finish_reason"] == "length")
        for row in rows
        if row["text"] is not None
    }


@lru_cache(maxsize=256)
def prompts_in(path: Path) -> Sequence[tuple[str, str]]:
    """The key and the prompt of every item of an items file.

    Raises:
        NotFound, Invalid: as `samples.read_items` does.
    """
    return [(item.item, item.prompt) for item in samples.read_items(path)]


def language_of(prompt: str) -> str:
    """`zh`, `code` or `en`, so that the browser picks the right glyphs and the page the right type."""
    if any("\u4e00" <= character <= "\u9fff" for character in prompt):
        return "zh"
    return "code" if any(mark in prompt for mark in ("def ", "import ", "class ", "():", "for ")) else "en"
