"""The ledger as data: what the heat map draws, a byte a cell."""

import base64

import numpy as np
from markupsafe import Markup
from pydantic import BaseModel
from typing_extensions import TypedDict

from registry.ledger import Member
from server.i18n import gettext
from server.ledger import STATE_MARKS, STATE_WORDS, Entry, Ledger, Selected, Selection, item_href
from server.render import script_json


class ColumnOut(TypedDict):
    """A checkpoint of the heat map; `tokens_seen` is null where it is not known."""

    step: int
    tokens_seen: int | None
    evaluation_id: int


class RowOut(TypedDict):
    """An item of the heat map.

    `state` is `learned`, `relearned`, `forgotten`, `flickering` or `never`, and empty where nothing is right or wrong;
    `acquired` is the number of the column at which it was learned, null if it never was; `from_start` says that it was
    known at its first answer. `forgettability` is the share of wrong answers since, `forgetting_events` how often a
    right answer was followed by a wrong one.
    """

    item: str
    position: int
    text: str
    subject: str
    language: str
    state: str
    acquired: int | None
    age_tokens: int | None
    age_step: int | None
    age: str
    from_start: bool
    forgettability: float | None
    forgetting_events: int | None
    share_right: float | None


class LedgerOut(BaseModel):
    """Items by checkpoints, the items by age of acquisition.

    `cells` is base64 of one byte a cell, row after row, `len(items)` rows of `len(checkpoints)` bytes: 0 where there is
    no answer, else 1 plus 254 times the value. In the view `right` 1 is wrong and 255 right (between them lie scores
    that are neither); in the view `likelihood` the value is the probability of the right choice among the choices, or
    of each byte of a text on average. `patience` is how many right answers in a row make an item learned, and how many
    wrong ones make it forgotten.
    """

    run: str
    task: str
    version: str
    metric: str
    view: str
    kind: str
    precision: int
    protocol_key: str
    patience: dict[str, int]
    counts: dict[str, int]
    checkpoints: list[ColumnOut]
    items: list[RowOut]
    item_path: str
    """Address of an item's page with `{item}` in it."""
    cells: str

    @classmethod
    def of(cls, whole: Ledger, selected: Selected, selection: Selection) -> "LedgerOut":
        """As the API shows it."""
        view, line = whole.view(selection.view), whole.line
        rows = np.array([entry.row for entry in selected.entries], dtype=np.int64)
        return cls(
            run=line.run.name,
            task=line.task.name,
            version=line.task.version,
            metric=line.task.metric,
            view=view,
            kind=selection.kind,
            precision=selection.precision,
            protocol_key=line.members[0].protocol_key,
            patience=whole.patience._asdict(),
            counts={state.value: state.num for state in selected.states},
            checkpoints=[_column(member) for member in line.members],
            items=[_row(whole, entry) for entry in selected.entries],
            item_path=item_href(whole, "{item}", selection),
            cells=base64.b64encode(whole.bytes_of(view)[rows].tobytes()).decode(),
        )


def words() -> Markup:
    """What the heat map says, in the visitor's language, as JSON for its script."""
    said = {
        "right": gettext("right"),
        "wrong": gettext("wrong"),
        "nothing": gettext("not asked"),
        "step": gettext("step %(step)s", step="{step}"),
        "tokens": gettext("%(count)s tokens", count="{count}"),
        "open_item": gettext("Open the question"),
        "open_checkpoint": gettext("The answers of this checkpoint"),
        "failed": gettext("The heat map could not be loaded. The table below has every question."),
        "likelihood": gettext("probability"),
        "states": {name: f"{STATE_MARKS[name]} {gettext(word)}" for name, word in STATE_WORDS.items()},
    }
    return script_json(said)


def _column(member: Member) -> ColumnOut:
    return {"step": member.step, "tokens_seen": member.tokens_seen, "evaluation_id": member.evaluation_id}


def _row(whole: Ledger, entry: Entry) -> RowOut:
    column, known = int(whole.acquired[entry.row]), whole.histories
    member = whole.members[column] if column >= 0 else None
    return RowOut(
        item=entry.item,
        position=entry.position,
        text=entry.title,
        subject=entry.subject,
        language=entry.language,
        state=entry.state,
        acquired=column if member else None,
        age_tokens=member.tokens_seen if member else None,
        age_step=member.step if member else None,
        age=entry.age,
        from_start=bool(known.from_start[entry.row]) if known else False,
        forgettability=entry.forgettability,
        forgetting_events=int(known.forgetting_events[entry.row]) if known else None,
        share_right=entry.share_right,
    )
