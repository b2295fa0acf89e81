"""One item through training: what every checkpoint chose or wrote, and how likely each choice was."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from markupsafe import Markup
from pydantic import BaseModel
from sqlalchemy.orm import Session

from registry import ledger
from registry.cells import LEAST, MOST, values_of
from registry.errors import NotFound
from registry.history import Answered
from registry.ledger import Member
from registry.models import Run, Task
from registry.samples import Item
from server.figures import value_text, x_text
from server.i18n import N_, gettext
from server.items import DIVISORS
from server.ledger import Entry, Ledger, Selection, item_href, load
from server.render import label, script_json

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
NAME_CHARS = 60
SENTENCES = {
    "learned": N_("The model learned this at %(age)s and has kept it since."),
    "relearned": N_("The model learned this at %(age)s, forgot it, and learned it again."),
    "forgotten": N_("The model learned this at %(age)s and has forgotten it since."),
    "flickering": N_("The model first knew this at %(age)s, but has not been steady since: it comes and goes."),
    "never": N_("The model has not learned this yet: it was never right often enough in a row to rule out luck."),
}
FROM_START = {
    "learned": N_("The model has known this since the first checkpoint."),
    "relearned": N_("The model knew this at the first checkpoint, forgot it, and learned it again."),
    "forgotten": N_("The model knew this at the first checkpoint and has forgotten it since."),
    "flickering": N_("The model knew this at the first checkpoint, but has not been steady since: it comes and goes."),
}

Floats = npt.NDArray[np.float64]


class Life(NamedTuple):
    """An item with all its answers, as the API and the page are made from."""

    whole: Ledger
    entry: Entry
    item: Item
    answered: Sequence[Answered]
    """By step."""
    is_right: Sequence[bool | None]
    """None where it is neither."""
    probabilities: Floats | None
    """[checkpoint, choice]; None where there is nothing to choose."""
    chosen: Sequence[int | None]
    likelihood: Sequence[float | None]
    """Of the right choice, or of each byte of a text on average."""
    members: Sequence[Member]
    """Where in training each answer stands."""


@dataclass(frozen=True)
class ChoiceLine:
    """One of the answers to choose from."""

    letter: str
    text: str
    is_target: bool
    first: str
    last: str
    """Its probability at the first and the last checkpoint."""


@dataclass(frozen=True)
class AnswerRow:
    """What one checkpoint answered."""

    step: int
    age: str
    href: str
    """Of the evaluation."""
    is_right: bool | None
    chosen: str
    """Letter of the choice."""
    likelihood: str
    text: str | None
    """What it wrote, where the answer is free."""
    score: str
    is_change: bool
    """Right after a wrong answer, or wrong after a right one."""


@dataclass(frozen=True)
class ItemView:
    """An item's page."""

    entry: Entry
    item: Item
    choices: Sequence[ChoiceLine]
    measured: str
    """The text whose likelihood was measured, where there is nothing to choose."""
    rows: Sequence[AnswerRow]
    """The newest first."""
    chart: Markup | None
    """JSON of the curves; None for free answers."""
    num_right: int
    before: str
    after: str
    """Addresses of the neighbours by position; empty at the ends."""
    sentence: str
    is_free: bool


class AnswerOut(BaseModel):
    """What one checkpoint answered: `chosen` is the number of a choice, `likelihood` that of the right one."""

    step: int
    tokens_seen: int | None
    evaluation_id: int
    is_right: bool | None
    chosen: int | None
    likelihood: float | None
    probabilities: list[float]
    text: str | None
    score: float | None


class ItemOut(BaseModel):
    """An item with every answer through training, by step; the states are those of the ledger."""

    run: str
    task: str
    item: str
    position: int
    subject: str
    prompt: str
    choices: list[str]
    target: int | None
    answer: str
    state: str
    age: str
    forgettability: float | None
    answers: list[AnswerOut]

    @classmethod
    def of(cls, life: Life) -> "ItemOut":
        """As the API shows it."""
        item, entry = life.item, life.entry
        return cls(
            run=life.whole.line.run.name,
            task=life.whole.line.task.name,
            item=item.item,
            position=item.position,
            subject=item.group,
            prompt=item.prompt,
            choices=item.choices,
            target=item.target,
            answer=item.answer,
            state=entry.state,
            age=entry.age,
            forgettability=entry.forgettability,
            answers=[_answer_out(life, at) for at in range(len(life.answered))],
        )


def life_of(session: Session, run: Run, task: Task, item: str, selection: Selection) -> Life:
    """An item by its hash, or by its number from 1, with every answer to it.

    Raises:
        NotFound: the task has no such item, its text is not here, or nobody has answered it.
    """
    whole = load(session, run, task, selection)
    if isinstance(whole, str):
        raise NotFound("%(why)s", why=whole)
    entry = next((one for one in whole.entries if item in (one.item, str(one.position + 1))), None)
    if entry is None or entry.position not in whole.items:
        raise NotFound("Task '%(task)s' has no item '%(item)s'.", task=task.name, item=item)
    own, answered = whole.items[entry.position], ledger.answers_to(session, whole.line, entry.position)
    columns = {int(one): column for column, one in enumerate(whole.cells.evaluations)}
    places = [columns[one.source.evaluation_id] for one in answered]
    right, likely = whole.cells.right[entry.row, places], values_of(whole.cells.likelihood[entry.row, places])
    scores = _scores(task.metric, own, answered)
    return Life(
        whole=whole,
        entry=entry,
        item=own,
        answered=answered,
        is_right=[{LEAST: False, MOST: True}.get(int(one)) for one in right],
        probabilities=None if scores is None else _softmax(_logprobs(answered)),
        chosen=[None] * len(answered) if scores is None else [int(one) for one in scores.argmax(axis=1)],
        likelihood=[None if np.isnan(one) else float(one) for one in likely],
        members=[whole.members[place] for place in places],
    )


def view_of(life: Life, selection: Selection) -> ItemView:
    """Everything that the page of an item shows."""
    entry, item = life.entry, life.item
    in_order = sorted(life.whole.items.values(), key=lambda one: one.position)
    place = next(at for at, one in enumerate(in_order) if one.item == item.item)
    hrefs = [item_href(life.whole, one.item, selection) for one in in_order[max(0, place - 1) : place + 2]]
    return ItemView(
        entry=entry,
        item=item,
        choices=_choices(life),
        measured=item.choices[0] if len(item.choices) == 1 else "",
        rows=_rows(life)[::-1],
        chart=_chart(life),
        num_right=sum(one is True for one in life.is_right),
        before=hrefs[0] if place > 0 else "",
        after=hrefs[-1] if place + 1 < len(in_order) else "",
        sentence=_sentence(life),
        is_free=any(one.sample.text is not None for one in life.answered),
    )


def _logprobs(answered: Sequence[Answered]) -> Floats:
    return np.array([one.sample.sum_logprob for one in answered], dtype=np.float64)


def _scores(metric: str, item: Item, answered: Sequence[Answered]) -> Floats | None:
    """[checkpoint, choice], what the headline metric takes the highest of; None where there is nothing to choose."""
    sizes = {len(one.sample.sum_logprob) for one in answered}
    if len(sizes) != 1 or sizes == {0} or sizes == {1}:
        return None
    lengths = {
        "num_bytes": [one.sample.num_bytes for one in answered],
        "num_tokens": [one.sample.num_tokens for one in answered],
        "num_chars": [[len(choice) for choice in item.choices]] * len(answered),
    }
    column = DIVISORS.get(metric)
    found = _logprobs(answered)
    if column and len(item.choices) == found.shape[1]:
        found = found / np.maximum(1, np.array(lengths[column], dtype=np.float64))
    return found


def _softmax(logprobs: Floats) -> Floats:
    with np.errstate(invalid="ignore"):
        weights = np.nan_to_num(np.exp(logprobs - logprobs.max(axis=1, keepdims=True)))
    total = np.maximum(weights.sum(axis=1, keepdims=True), np.finfo(np.float64).tiny)
    return np.asarray(weights / total, dtype=np.float64)


def _choices(life: Life) -> list[ChoiceLine]:
    if life.probabilities is None:
        return []
    first, last = life.probabilities[0], life.probabilities[-1]
    return [
        ChoiceLine(
            letter=letter(at),
            text=_choice_text(life.item, at),
            is_target=at == life.answered[-1].sample.target,
            first=value_text("prob", float(first[at])),
            last=value_text("prob", float(last[at])),
        )
        for at in range(life.probabilities.shape[1])
    ]


def _choice_text(item: Item, at: int) -> str:
    return item.choices[at] if at < len(item.choices) else gettext("choice %(number)s", number=at + 1)


def letter(at: int) -> str:
    """What a choice is called: A, B, C …"""
    return LETTERS[at] if at < len(LETTERS) else str(at + 1)


def _rows(life: Life) -> list[AnswerRow]:
    rows: list[AnswerRow] = []
    before: bool | None = None
    for at, one in enumerate(life.answered):
        is_right, chosen, likely = life.is_right[at], life.chosen[at], life.likelihood[at]
        sample, member = one.sample, life.members[at]
        rows.append(
            AnswerRow(
                step=member.step,
                age="" if member.tokens_seen is None else x_text("tokens", member.tokens_seen),
                href=f"/evaluations/{member.evaluation_id}",
                is_right=is_right,
                chosen="" if chosen is None else letter(chosen),
                likelihood="" if likely is None else value_text("prob", likely),
                text=sample.text,
                score="" if sample.score is None else value_text(life.whole.line.task.metric, sample.score),
                is_change=before is not None and is_right is not None and before != is_right,
            )
        )
        before = before if is_right is None else is_right
    return rows


def _chart(life: Life) -> Markup | None:
    """Plain numbers and ready-made words; `<` is escaped, so no text can end the script tag."""
    members = life.members
    axis = "step" if any(member.tokens_seen is None for member in members) else "tokens"
    series: list[dict[str, Any]]
    if life.probabilities is not None:
        series = [
            {
                "name": f"{letter(at)} · {_short(_choice_text(life.item, at))}",
                "is_right": at == life.answered[-1].sample.target,
                "values": [round(float(value), 4) for value in life.probabilities[:, at]],
            }
            for at in range(life.probabilities.shape[1])
        ]
    elif any(value is not None for value in life.likelihood):
        name = gettext("probability of each byte, on average")
        series = [{"name": name, "is_right": True, "values": life.likelihood}]
    else:
        return None
    content = {
        "x": [member.step if axis == "step" else member.tokens_seen for member in members],
        "x_texts": [x_text("step", member.step) for member in members],
        "x_name": label(axis),
        "hrefs": [f"/evaluations/{member.evaluation_id}" for member in members],
        "series": series,
        "right": gettext("the right answer"),
    }
    return script_json(content)


def _sentence(life: Life) -> str:
    """What became of it, for somebody who sees the words for the first time."""
    entry, known = life.entry, life.whole.histories
    if not entry.state:
        return gettext("This is a text: it has no right answer, only a likelihood.")
    if known is not None and known.from_start[entry.row]:
        return gettext(FROM_START[entry.state])
    return gettext(SENTENCES[entry.state], age=entry.age)


def _short(text: str) -> str:
    words = " ".join(text.split())
    return words if len(words) <= NAME_CHARS else words[:NAME_CHARS] + "…"


def _answer_out(life: Life, at: int) -> AnswerOut:
    member, sample = life.members[at], life.answered[at].sample
    return AnswerOut(
        step=member.step,
        tokens_seen=member.tokens_seen,
        evaluation_id=member.evaluation_id,
        is_right=life.is_right[at],
        chosen=life.chosen[at],
        likelihood=life.likelihood[at],
        probabilities=[] if life.probabilities is None else life.probabilities[at].tolist(),
        text=sample.text,
        score=sample.score,
    )
