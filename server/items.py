"""The answers of one evaluation, item by item: what was asked, what the model found likely, whether it was right."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from analysis.answers import Answers, best_choices, lengths, probabilities
from registry import evaluations, samples
from registry.errors import RegistryError
from registry.models import Evaluation
from registry.models.base import FINISHED
from registry.samples import Item, Sample
from server.figures import value_text
from server.i18n import error_text, gettext
from server.render import number

PAGE_ITEMS = 50
PROMPT_CHARS, PROMPT_LINES = 280, 6
"""Of a longer prompt the end is shown: the question stands there, the examples before it."""
TEXT_CHARS = 700
DIVISORS = {"acc_norm": "num_chars", "acc_bytes": "num_bytes", "acc_per_token": "num_tokens"}
"""By which length each accuracy divides the log-probability of a choice."""

Show = Literal["all", "right", "wrong"]


class Answered(NamedTuple):
    """One item with what the checkpoint answered."""

    sample: Sample
    item: Item | None
    """None where the items file does not have it."""
    is_right: bool | None
    """None where there is no right and wrong: of a text, or with a score between the two."""
    chosen: int | None
    """The choice that the headline metric takes for the answer."""
    probabilities: Sequence[float]
    """Of each choice among the choices; empty for texts and free answers."""


@dataclass(frozen=True)
class Choice:
    """One of the answers to choose from."""

    text: str
    probability: float
    is_target: bool
    is_chosen: bool

    @property
    def percent(self) -> str:
        """Its probability in per cent."""
        return f"{number(100 * self.probability, 1)}%"


@dataclass(frozen=True)
class ItemRow:
    """One item as the page shows it."""

    number: int
    group: str
    prompt: str
    """The end of it."""
    whole_prompt: str
    """Empty where `prompt` is all of it."""
    choices: Sequence[Choice]
    text: str
    """What was written, or the text whose likelihood was measured."""
    is_free: bool
    """The model wrote `text`."""
    gold: str
    score: str
    is_right: bool | None
    is_cut: bool


@dataclass(frozen=True)
class Browser:
    """A page of items."""

    rows: Sequence[ItemRow] = ()
    show: Show = "all"
    page: int = 1
    num_pages: int = 1
    num_shown: int = 0
    """Items of this choice on all pages."""
    num_all: int = 0
    num_right: int = 0
    num_wrong: int = 0
    error: str = ""
    """Why there are no items, in a sentence."""

    @property
    def first(self) -> int:
        """Number of the first item of the page among those shown."""
        return (self.page - 1) * PAGE_ITEMS + 1


def answered(evaluation: Evaluation) -> list[Answered]:
    """Every item of a finished evaluation in order; needs task and slices loaded.

    Raises:
        NotFound, Invalid: a file is missing, or of an older format.
    """
    paths = evaluations.sample_paths(evaluation)
    items_path = evaluations.items_path(evaluation) if evaluation.items_file else None
    found = samples.read(paths)
    items = {item.item: item for item in samples.read_items(items_path)} if items_path else {}
    judged = _judged(evaluation.task.metric, paths, items_path, found)
    return [
        Answered(sample, items.get(sample.item), _is_right(sample, place), place.chosen, place.probabilities)
        for sample, place in zip(found, judged, strict=True)
    ]


def browse(evaluation: Evaluation, show: Show, page: int) -> Browser:
    """A page of an evaluation's items, all of them or those answered rightly or wrongly."""
    if evaluation.status != FINISHED:
        return Browser(error=gettext("The answers can be read here once the evaluation is finished."))
    if not evaluation.slices:
        return Browser(error=gettext("Only the results were imported: the answers to single items are not here."))
    try:
        every = answered(evaluation)
    except RegistryError as error:
        return Browser(error=gettext("The answers cannot be shown. %(why)s", why=error_text(error)))
    right = [one for one in every if one.is_right]
    wrong = [one for one in every if one.is_right is False]
    shown = {"all": every, "right": right, "wrong": wrong}[show]
    num_pages = max(1, -(-len(shown) // PAGE_ITEMS))
    page = min(max(1, page), num_pages)
    return Browser(
        rows=[item_row(evaluation, one) for one in shown[(page - 1) * PAGE_ITEMS : page * PAGE_ITEMS]],
        show=show,
        page=page,
        num_pages=num_pages,
        num_shown=len(shown),
        num_all=len(every),
        num_right=len(right),
        num_wrong=len(wrong),
    )


class _Judged(NamedTuple):
    target: int | None = None
    chosen: int | None = None
    probabilities: Sequence[float] = ()


def _judged(metric: str, paths: Sequence[Path], items_path: Path | None, found: Sequence[Sample]) -> list[_Judged]:
    """For each sample what was chosen and how likely each choice was; nothing for texts and free answers."""
    if not any(len(sample.sum_logprob) > 1 for sample in found):
        return [_Judged()] * len(found)
    flat = samples.answers(paths, items_path)
    try:
        chances, places = probabilities(flat), best_choices(flat, _scores(metric, flat))
    except ValueError:  # an impossible item; the log-probabilities are still in the API
        return [_Judged()] * len(found)
    judged = iter(
        _Judged(sample.target, int(place - start), [float(chance) for chance in chances[start:stop]])
        for sample, place, start, stop in zip(
            (sample for sample in found if sample.sum_logprob), places, flat.offsets[:-1], flat.offsets[1:], strict=True
        )
    )
    return [next(judged) if sample.sum_logprob else _Judged() for sample in found]


def _scores(metric: str, flat: Answers) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    column = DIVISORS.get(metric)
    return flat.sum_logprob / lengths(flat, getattr(flat, column), column) if column else flat.sum_logprob


def _is_right(sample: Sample, judged: _Judged) -> bool | None:
    if sample.score is not None:
        return {1.0: True, 0.0: False}.get(sample.score)
    return None if judged.target is None or judged.chosen is None else judged.chosen == judged.target


def item_row(evaluation: Evaluation, one: Answered) -> ItemRow:
    """One item as pages show it."""
    sample, item = one.sample, one.item
    prompt = item.prompt if item else ""
    end = "".join(prompt.splitlines(keepends=True)[-PROMPT_LINES:])[-PROMPT_CHARS:]
    is_free = sample.text is not None
    measured = item.choices[0] if item and len(item.choices) == 1 else ""
    return ItemRow(
        number=sample.position + 1,
        group=item.group if item else "",
        prompt=end if end == prompt else "…" + end.lstrip("\n"),
        whole_prompt="" if end == prompt else prompt,
        choices=_choices(one),
        text=_short(sample.text if sample.text is not None else measured),
        is_free=is_free,
        gold=item.answer if item else "",
        score=_score_text(evaluation.task.metric, sample),
        is_right=one.is_right,
        is_cut=sample.finish_reason == "length",
    )


def _choices(one: Answered) -> list[Choice]:
    texts = one.item.choices if one.item and len(one.item.choices) == len(one.probabilities) else None
    return [
        Choice(
            text=texts[place] if texts else gettext("choice %(number)s", number=place + 1),
            probability=chance,
            is_target=place == one.sample.target,
            is_chosen=place == one.chosen,
        )
        for place, chance in enumerate(one.probabilities)
    ]


def _score_text(metric: str, sample: Sample) -> str:
    """The number of an item that is neither right nor wrong."""
    if sample.score is not None:
        return value_text(metric, sample.score)
    if len(sample.sum_logprob) == 1 and sample.num_bytes[0] > 0:
        bits = -sample.sum_logprob[0] / np.log(2) / sample.num_bytes[0]
        return gettext("%(bits)s bits per byte", bits=number(float(bits), 3))
    return ""


def _short(text: str) -> str:
    return text if len(text) <= TEXT_CHARS else text[:TEXT_CHARS].rstrip() + "…"
