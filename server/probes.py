"""What a model wrote at its different ages: the answers to the probe prompts."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import structlog
from sqlalchemy.orm import Session

from registry import evaluations, samples
from registry.errors import RegistryError
from registry.models import Checkpoint, Evaluation, Run
from registry.models.base import FINISHED
from registry.settings import get_settings

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Saying:
    """One checkpoint's answer to one prompt, beside the answer before it."""

    prompt: str
    text: str
    cut: bool
    """It would have gone on."""
    before: str | None = None
    language: str = ""


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
        Saying(
            prompt=answer.prompt,
            text=answer.text,
            cut=answer.finish_reason == "length",
            before=earlier[answer.item].text if answer.item in earlier else None,
            language=_language(answer.prompt),
        )
        for evaluation in after
        for answer in _answers(evaluation)
    ]


def stories(session: Session, run: Run, limit: int = 8) -> list[Story]:
    """The probe prompts of a run, each as answered by its first, a middle and its newest checkpoint."""
    found = evaluations.probe_evaluations(session, run)
    chosen = _three_ages(sorted({e.checkpoint.step for e in found}))
    told: dict[str, list[tuple[Checkpoint, samples.ProbeAnswer]]] = {}
    for evaluation in found:
        if evaluation.checkpoint.step in chosen:
            for answer in _answers(evaluation):
                told.setdefault(answer.item, []).append((evaluation.checkpoint, answer))
    return [
        Story(
            key=item[:12],
            prompt=pairs[-1][1].prompt,
            language=_language(pairs[-1][1].prompt),
            ages=[Age(checkpoint, answer.text, answer.finish_reason == "length") for checkpoint, answer in pairs],
        )
        for item, pairs in list(told.items())[:limit]
    ]


def _three_ages(steps: Sequence[int]) -> set[int]:
    # The middle of log-spaced checkpoints by count is where the model is half-way to its newest words.
    return {steps[0], steps[len(steps) // 2], steps[-1]} if steps else set()


def _answers(evaluation: Evaluation) -> list[samples.ProbeAnswer]:
    if not evaluation.task.is_probe or evaluation.status != FINISHED or not evaluation.samples_file:
        return []
    try:
        return samples.probe_answers(get_settings().samples_dir / evaluation.samples_file)
    except RegistryError as error:
        # A missing file must not take the whole page away; the log says which one.
        log.warning("Probe answers cannot be read.", evaluation_id=evaluation.id, error=str(error))
        return []


def _language(prompt: str) -> str:
    """`zh`, `code` or `en`, so that the browser picks the right glyphs and the page the right type."""
    if any("\u4e00" <= character <= "\u9fff" for character in prompt):
        return "zh"
    return "code" if any(mark in prompt for mark in ("def ", "import ", "class ", "():", "for ")) else "en"
