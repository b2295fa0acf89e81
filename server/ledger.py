"""The learn-and-forget ledger of a task: every item by every checkpoint, what became of each, and what is selected.

It is put together anew for each request from the file of cells and the items file: a million answers in well under
a third of a second (benchmarks/ledger.py).
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Literal, NamedTuple
from urllib.parse import urlencode

import numpy as np
import numpy.typing as npt
from fastapi import Query
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from analysis import ledger as histories
from analysis.ledger import STATES, Histories, Patience
from registry import cells, ledger, samples
from registry.cells import Bytes, Cells
from registry.errors import RegistryError
from registry.ledger import Line, Member
from registry.models import Checkpoint, Evaluation, Run, Task
from registry.models.base import FINISHED
from registry.samples import Item
from server.figures import x_text
from server.i18n import N_, error_text, gettext

View = Literal["right", "likelihood"]
State = Literal["", "learned", "relearned", "forgotten", "flickering", "never"]
Language = Literal["", "chinese", "english", "code"]

PAGE_ITEMS = 50
TITLE_CHARS = 140
LOOKED_AT = 4 * TITLE_CHARS
"""Characters of a prompt, from its end, that its title is made of: spaces and empty lines are left out."""
STATE_WORDS = {
    "learned": N_("learned"),
    "relearned": N_("relearned"),
    "forgotten": N_("forgotten"),
    "flickering": N_("flickering"),
    "never": N_("not learned"),
}
STATE_MARKS = {"learned": "●", "relearned": "◐", "forgotten": "▼", "flickering": "≈", "never": "○"}
"""A shape for each state, so that none is told by its colour alone."""
CHINESE = re.compile("[\u4e00-\u9fff]+")
CHINESE_SHARE = 0.2
"""Share of Chinese characters from which a text is Chinese: one of them says as much as several letters."""


@dataclass(frozen=True)
class Selection:
    """What a visitor wants to see of a ledger; every field stands in the address."""

    view: View = "right"
    state: State = ""
    subject: Annotated[str, Query(max_length=300)] = ""
    language: Language = ""
    q: Annotated[str, Query(max_length=200)] = ""
    kind: Literal["pretrained", "chat"] = "pretrained"
    precision: Annotated[int, Query(ge=1, le=64)] = 16
    protocol: Annotated[str, Query(max_length=16)] = ""

    def query(self, **changes: object) -> str:
        """The query of an address with these changes, beginning with `?`; what is as usual is left out."""
        usual = Selection()
        wanted = {**vars(self), **changes}
        named = {name: value for name, value in wanted.items() if value != getattr(usual, name, None)}
        return f"?{urlencode(named)}" if named else "?"

    @property
    def of_line(self) -> str:
        """The query that goes along to an item's page: which checkpoints, under which protocol."""
        return self.query(view="right", state="", subject="", language="", q="").rstrip("?")

    @property
    def is_narrowed(self) -> bool:
        """Whether any filter is set."""
        return bool(self.state or self.subject or self.language or self.q)


class Entry(NamedTuple):
    """One item of the ledger, in words."""

    row: int
    """In the arrays of the ledger."""
    position: int
    item: str
    """16 hexadecimal digits; empty where the items file does not have it."""
    title: str
    subject: str
    language: str
    state: str
    """Empty where nothing is right or wrong."""
    age: str
    forgettability: float | None
    share_right: float | None

    @property
    def state_word(self) -> str:
        """The state in the visitor's language."""
        return gettext(STATE_WORDS[self.state]) if self.state else ""

    @property
    def state_mark(self) -> str:
        """Its shape."""
        return STATE_MARKS.get(self.state, "")


@dataclass(frozen=True)
class Ledger:
    """All answers of a task through a run."""

    line: Line
    cells: Cells
    items: Mapping[int, Item]
    """By position; empty where there is no items file."""
    is_judged: bool
    """Whether answers are right or wrong; else only their likelihood is known."""
    has_likelihood: bool
    patience: Patience
    histories: Histories | None
    """None where nothing is right or wrong."""
    acquired: npt.NDArray[np.int64]
    """Column of each item's age of acquisition; -1 without."""
    order: npt.NDArray[np.int64]
    """Rows by age of acquisition."""

    @property
    def members(self) -> Sequence[Member]:
        """The checkpoints, by step."""
        return self.line.members

    @cached_property
    def entries(self) -> list[Entry]:
        """Every item, by age of acquisition."""
        ages = [_age_text(member) for member in self.members]
        return [_entry(self, int(row), ages) for row in self.order]

    def view(self, wanted: View) -> View:
        """The wanted view, or the one that there is."""
        return "likelihood" if not self.is_judged else wanted if self.has_likelihood else "right"

    def bytes_of(self, view: View) -> Bytes:
        """[row, checkpoint] of a view."""
        return self.cells.right if view == "right" else self.cells.likelihood


@dataclass(frozen=True)
class Choice:
    """A value that a filter can have, with how many items it leaves."""

    value: str
    word: str
    num: int
    mark: str = ""


@dataclass(frozen=True)
class Selected:
    """A ledger as filtered; the counts of a filter are those that its values would leave beside the other filters."""

    entries: Sequence[Entry]
    """By age of acquisition."""
    num_all: int
    states: Sequence[Choice]
    subjects: Sequence[Choice]
    languages: Sequence[Choice]


def load(session: Session, run: Run, task: Task, selection: Selection) -> Ledger | str:
    """The ledger of a task, or a sentence that says why there is none."""
    if task.is_probe:
        return gettext("These are prompts without a right answer. The time-lapse shows what the model made of them.")
    line = ledger.line(session, run, task, selection.protocol, kind=selection.kind, precision=selection.precision)
    if not line.members:
        return _why_empty(session, line, selection)
    try:
        found = ledger.cells_of(session, line)
        items = read_items(line)
    except RegistryError as error:
        return gettext("The answers cannot be shown. %(why)s", why=error_text(error))
    return of_cells(line, found, items)


def of_cells(line: Line, found: Cells, items: Mapping[int, Item]) -> Ledger:
    """The ledger of these answers; where the score of an item is a number, the full score alone is right."""
    is_judged = bool(found.right.any())
    chance = chance_of(line.task, items)
    if is_judged:
        is_right = found.right == cells.MOST
        known = histories.histories_of(is_right, (found.right != cells.NOTHING) & ~is_right, chance)
        acquired, share = known.acquired, known.share_right
    else:
        known, acquired = None, histories.halfway(cells.values_of(found.likelihood))
        share = np.zeros(len(acquired))
    return Ledger(
        line=line,
        cells=found,
        items=items,
        is_judged=is_judged,
        has_likelihood=bool(found.likelihood.any()),
        patience=histories.patience(len(line.members), chance),
        histories=known,
        acquired=acquired,
        order=histories.by_age(acquired, share),
    )


def read_items(line: Line) -> dict[int, Item]:
    """The items of a line by position; none where its results were imported without them.

    Raises:
        NotFound, Invalid: the file is missing or broken.
    """
    return {item.position: item for item in samples.read_items(line.items_file)} if line.items_file else {}


def chance_of(task: Task, items: Mapping[int, Item]) -> float | None:
    """How often a guess is right: what the task says, or one over the number of choices; None for free answers."""
    if task.chance is not None:
        return task.chance
    sizes = [len(item.choices) for item in items.values()]
    return 1 / min(sizes) if sizes and min(sizes) > 1 else None


def select_entries(whole: Ledger, selection: Selection) -> Selected:
    """The items that pass every filter, and what each filter would leave."""
    wanted = _searched(whole, selection.q)
    entries = [entry for entry in whole.entries if wanted is None or entry.position in wanted]
    filters = {"state": selection.state, "subject": selection.subject, "language": selection.language}

    def passing(but: str = "") -> list[Entry]:
        set_ = {name: value for name, value in filters.items() if value and name != but}
        return [entry for entry in entries if all(getattr(entry, name) == value for name, value in set_.items())]

    states = Counter(entry.state for entry in passing("state"))
    subjects = Counter(entry.subject for entry in passing("subject"))
    languages = Counter(entry.language for entry in passing("language"))
    every = {(entry.subject, entry.language) for entry in whole.entries}
    return Selected(
        entries=passing(),
        num_all=len(whole.entries),
        states=[Choice(name, gettext(STATE_WORDS[name]), states[name], STATE_MARKS[name]) for name in STATES]
        if whole.is_judged
        else [],
        subjects=_choices(sorted({subject for subject, _ in every}), subjects),
        languages=_choices(sorted({language for _, language in every}), languages),
    )


def language_of(text: str, task: Task) -> str:
    """What a text is written in: code where the task is about code, else Chinese or English by its characters."""
    if task.ability == "code":
        return "code"
    chinese = len(text) - len(CHINESE.sub("", text))
    return "chinese" if chinese > CHINESE_SHARE * len(text) else "english"


def title_of(item: Item | None) -> str:
    """The end of what was asked, in one line: the question stands there, examples before it."""
    if item is None:
        return ""
    words = " ".join((item.prompt[-LOOKED_AT:] or " / ".join(item.choices)).split())
    if len(words) <= TITLE_CHARS and len(item.prompt) <= LOOKED_AT:
        return words
    return "…" + words[-TITLE_CHARS:] if item.prompt else words[:TITLE_CHARS] + "…"


def item_href(whole: Ledger, item: str, selection: Selection) -> str:
    """Address of an item's page."""
    return f"/runs/{whole.line.run.name}/tasks/{whole.line.task.name}/items/{item}{selection.of_line}"


def _age(whole: Ledger, row: int, ages: Sequence[str]) -> str:
    column = int(whole.acquired[row])
    if column < 0:
        return ""
    if whole.histories is not None and whole.histories.from_start[row]:
        at_birth = whole.members[column].step == 0
        return gettext("from the start") if at_birth else gettext("%(age)s or before", age=ages[column])
    return ages[column]


def _age_text(member: Member) -> str:
    return x_text("step", member.step) if member.tokens_seen is None else x_text("tokens", member.tokens_seen)


def _entry(whole: Ledger, row: int, ages: Sequence[str]) -> Entry:
    position = int(whole.cells.positions[row])
    item, known = whole.items.get(position), whole.histories
    title = title_of(item)
    return Entry(
        row=row,
        position=position,
        item=item.item if item else "",
        title=title or gettext("item %(number)s", number=position + 1),
        subject=item.group if item else "",
        language=language_of(title, whole.line.task),
        state=STATES[known.state[row]] if known else "",
        age=_age(whole, row, ages),
        forgettability=_number(known.forgettability[row]) if known else None,
        share_right=_number(known.share_right[row]) if known else None,
    )


def _number(value: float) -> float | None:
    return None if value != value else float(value)  # NaN alone differs from itself


def _searched(whole: Ledger, words: str) -> set[int] | None:
    """Positions of the items with these words; None where nothing is searched for."""
    wanted = words.casefold().split()
    if not wanted:
        return None
    texts = {
        position: f"{item.prompt} {' '.join(item.choices)} {item.answer}".casefold()
        for position, item in whole.items.items()
    }
    return {position for position, text in texts.items() if all(word in text for word in wanted)}


def _choices(values: Sequence[str], counts: Mapping[str, int]) -> list[Choice]:
    """What a filter offers; one that could not tell anything apart offers nothing."""
    return [Choice(value, value, counts[value]) for value in values if value] if len(values) > 1 else []


def _why_empty(session: Session, line: Line, selection: Selection) -> str:
    if line.protocols:
        return gettext("There is no answer under this protocol.")
    own = (
        select(func.count())
        .select_from(Evaluation)
        .join(Evaluation.checkpoint)
        .where(
            Checkpoint.run_id == line.run.id,
            Checkpoint.kind == selection.kind,
            Checkpoint.precision == selection.precision,
            Evaluation.task_id == line.task.id,
            Evaluation.status == FINISHED,
        )
    )
    if session.scalar(own):
        return gettext("Only the results were imported: the answers to single items are not here.")
    return gettext("No checkpoint has answered these questions yet. They appear here by themselves.")
