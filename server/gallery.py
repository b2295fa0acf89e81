"""Which curves the growth page offers: the tasks of a run by ability and suite, without their points."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from registry import suites
from registry.models import Checkpoint, Evaluation, Run, Task
from registry.models.base import EXTERNAL, FAILED, FINISHED
from server.charts import ABILITIES
from server.figures import task_title


@dataclass(frozen=True)
class Card:
    """One task's place on the page."""

    task: str
    title: str
    ability: str
    suite: str
    is_panel: bool
    """Asked at every checkpoint, not at milestones only."""
    has_points: bool


@dataclass(frozen=True)
class Shelf:
    """The cards of one suite that every checkpoint is asked, or those of milestones."""

    suite: str
    is_panel: bool
    cards: Sequence[Card]


@dataclass(frozen=True)
class Ability:
    """The cards of one ability, those of every checkpoint first."""

    name: str
    shelves: Sequence[Shelf]
    waiting: Sequence[str]
    """Titles of tasks whose first milestone is still to come."""

    @property
    def cards(self) -> list[Card]:
        """Those of every shelf."""
        return [card for shelf in self.shelves for card in shelf.cards]


def abilities(session: Session, run: Run) -> list[Ability]:
    """The tasks of a run with a headline metric, without those that this site cannot or will not ask."""
    scored = _scored(session, run)
    is_asked = not _has_results_only(session, run)
    tasks = [task for task in suites.list_tasks(session) if task.metric]
    order = {ability: place for place, ability in enumerate(ABILITIES)}
    names = sorted({task.ability for task in tasks}, key=lambda name: (order.get(name, len(order)), name))
    found = [_ability(name, [task for task in tasks if task.ability == name], scored, is_asked) for name in names]
    return [one for one in found if one.shelves or one.waiting]


def _scored(session: Session, run: Run) -> set[str]:
    """Names of the tasks that have been tried at a checkpoint of this run."""
    tried = (
        select(Evaluation.id)
        .join(Checkpoint, Checkpoint.id == Evaluation.checkpoint_id)
        .where(Evaluation.task_id == Task.id, Checkpoint.run_id == run.id, Evaluation.status.in_((FINISHED, FAILED)))
    )
    return set(session.scalars(select(Task.name).where(tried.exists())))


def _has_results_only(session: Session, run: Run) -> bool:
    """Whether a run was imported, so that nothing is ever asked of it here."""
    query = select(Checkpoint.state).where(Checkpoint.run_id == run.id).distinct()
    return set(session.scalars(query)) == {EXTERNAL}


def _ability(name: str, tasks: Sequence[Task], scored: set[str], is_asked: bool) -> Ability:
    shelves: dict[tuple[bool, str], list[Card]] = {}
    waiting = []
    for task in tasks:
        is_panel, is_awaited = task.schedule == suites.PANEL, is_asked and suites.is_possible(task)
        if task.name in scored or (is_panel and is_awaited):
            card = Card(task.name, task_title(task), name, task.suite.name, is_panel, task.name in scored)
            shelves.setdefault((not is_panel, task.suite.name), []).append(card)
        elif task.schedule == suites.MILESTONE and is_awaited:
            waiting.append(task_title(task))
    # Sorting is stable: the suites stay in their order behind the panel.
    ordered = sorted(shelves, key=lambda shelf: shelf[0])
    return Ability(name, [Shelf(suite, not later, shelves[later, suite]) for later, suite in ordered], waiting)
