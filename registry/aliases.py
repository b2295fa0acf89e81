"""Names of a run's checkpoints that move along: `latest` and `best-zh` by themselves, `stable` and others by hand.

What an alias points at is worked out when it is asked: a bookmark, an API client and a Hub revision follow it.
"""

import re
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session

from registry import audit, columns, suites
from registry.errors import Conflict, Invalid, NotFound, name_list
from registry.models import Alias, Checkpoint, Run, Task, User
from registry.models.base import READY, utcnow

LATEST, BEST = "latest", "best-"
NAME = re.compile(r"[a-z](?:[a-z0-9_-]|\.(?!\.)){0,39}")
ENDINGS = re.compile(r".*(-chat|-avg\d+|-\d+bit|\.lock|\.)")
"""What stands after a step or an alias to name another form of it, and what git allows in no name."""
RESERVED = frozenset({LATEST, "best", "main", "master", "head", "refs", "new"})
SHORT = {"chinese": "zh", "english": "en"}
"""Abilities that have a shorter name in aliases."""

Shares = npt.NDArray[np.float64]


class Named(NamedTuple):
    """An alias and what it points at now."""

    name: str
    checkpoint: Checkpoint
    is_computed: bool


def resolve(session: Session, run: Run, name: str) -> Checkpoint:
    """The checkpoint of a run that an alias points at now.

    Raises:
        NotFound: the run has no such alias; with those it has.
    """
    found = next((one.checkpoint for one in _by_hand(session, run) if one.name == name), None)
    if found is None and name == LATEST:
        found = latest(session, run)
    if found is None and name.startswith(BEST):
        found = _best(session, run).get(name)
    if found is None:
        raise NotFound(
            "The run '%(run)s' has no checkpoint that is called '%(name)s'. Names: %(known)s.",
            run=run.name,
            name=name[:80],
            known=name_list([one.name for one in list_aliases(session, run)]),
        )
    return found


def list_aliases(session: Session, run: Run) -> list[Named]:
    """Every alias of a run: the computed ones first, then those set by hand by name."""
    newest = latest(session, run)
    found = [Named(LATEST, newest, True)] if newest is not None else []
    found += [Named(name, checkpoint, True) for name, checkpoint in _best(session, run).items()]
    return [*found, *_by_hand(session, run)]


def by_checkpoint(session: Session, run: Run) -> dict[int, list[str]]:
    """The names of each checkpoint that has some, by its id."""
    found: dict[int, list[str]] = {}
    for one in list_aliases(session, run):
        found.setdefault(one.checkpoint.id, []).append(one.name)
    return found


def latest(session: Session, run: Run) -> Checkpoint | None:
    """The newest ready pretrained checkpoint in 16 bit."""
    query = select(Checkpoint).where(*_usable(run)).order_by(Checkpoint.step.desc(), Checkpoint.id.desc())
    return session.scalar(query.limit(1))


def set_alias(session: Session, run: Run, name: str, checkpoint: Checkpoint, user: User | None) -> Checkpoint | None:
    """Let a name point at a checkpoint; returns the one that it pointed at before.

    Raises:
        Invalid: it cannot be a name, or is one that is computed.
        Conflict: the checkpoint is of another run or not ready.
    """
    _check_name(name)
    if checkpoint.run_id != run.id:
        raise Conflict("%(checkpoint)s is no checkpoint of '%(run)s'.", checkpoint=checkpoint.label, run=run.name)
    if checkpoint.state != READY:
        raise Conflict("%(checkpoint)s is not ready, so no name can point at it.", checkpoint=checkpoint.label)
    known = session.scalar(select(Alias).where(Alias.run_id == run.id, Alias.name == name))
    before = known.checkpoint if known is not None else None
    if known is None:
        known = Alias(run_id=run.id, name=name)
        session.add(known)
    known.checkpoint, known.user_id, known.updated_at = checkpoint, user.id if user is not None else None, utcnow()
    session.flush()
    _note(session, user, run, name, before, checkpoint)
    return before


def remove_alias(session: Session, run: Run, name: str, user: User | None) -> Checkpoint:
    """Take a name away; returns the checkpoint that it pointed at.

    Raises:
        NotFound: it was not set by hand.
    """
    known = session.scalar(select(Alias).where(Alias.run_id == run.id, Alias.name == name))
    if known is None:
        raise NotFound("No name '%(name)s' was set by hand in '%(run)s'.", name=name[:80], run=run.name)
    before = known.checkpoint
    session.delete(known)
    session.flush()
    _note(session, user, run, name, before, None)
    return before


def _note(
    session: Session, user: User | None, run: Run, name: str, before: Checkpoint | None, after: Checkpoint | None
) -> None:
    detail = {
        "name": name,
        "before": before.label if before is not None else None,
        "after": after.label if after is not None else None,
    }
    audit.note(session, user, "alias", f"run:{run.id}", detail)


def _check_name(name: str) -> None:
    if name in RESERVED or name.startswith(BEST):
        raise Invalid("The name '%(name)s' has a meaning of its own here. Choose another.", name=name[:80])
    is_like_a_revision = name.startswith("step-") or re.fullmatch(r"[0-9a-f]{40}", name)
    if not NAME.fullmatch(name) or ENDINGS.fullmatch(name) or is_like_a_revision:
        raise Invalid(
            "'%(name)s' cannot be a checkpoint's name: use a-z, 0-9, dot, dash and underscore, beginning with a "
            "letter, 40 at most; not like 'step-100', '…-chat', '…-4bit' or a commit.",
            name=name[:80],
        )


def _by_hand(session: Session, run: Run) -> list[Named]:
    found = session.scalars(select(Alias).where(Alias.run_id == run.id).order_by(Alias.name))
    return [Named(alias.name, alias.checkpoint, False) for alias in found]


def _usable(run: Run) -> tuple[ColumnElement[bool], ...]:
    return (
        Checkpoint.run_id == run.id,
        Checkpoint.state == READY,
        Checkpoint.kind == "pretrained",
        Checkpoint.precision == 16,
    )


def _best(session: Session, run: Run) -> dict[str, Checkpoint]:
    """The best ready checkpoint in each ability, by the alias's name.

    By the mean over the ability's tasks of what is above guessing, `(score - chance) / (1 - chance)`, so that tasks
    with other numbers of choices weigh the same. Only checkpoints that have all of these tasks under one protocol
    are held against each other; of equal ones it is the earlier.
    """
    tasks = [
        task
        for task in suites.list_tasks(session)
        if task.schedule == suites.PANEL and task.metric in suites.SHARES and task.higher_is_better
    ]
    wanted: dict[str, list[int]] = {}
    for task in tasks:
        wanted.setdefault(task.metric, []).append(task.id)
    scores = columns.read(session, _usable(run), wanted)
    ids = np.array(session.scalars(select(Checkpoint.id).where(*_usable(run)).order_by(Checkpoint.step)).all())
    best: dict[str, int] = {}
    for ability in dict.fromkeys(task.ability for task in tasks) if ids.size else ():
        shares = np.stack([_shares(scores, task, ids) for task in tasks if task.ability == ability], axis=1)
        place = _best_row(shares)
        if place is not None:
            best[BEST + SHORT.get(ability, ability)] = int(ids[place])
    rows = session.scalars(select(Checkpoint).where(Checkpoint.id.in_(set(best.values()))))
    by_id = {checkpoint.id: checkpoint for checkpoint in rows}
    return {name: by_id[number] for name, number in best.items()}


def _shares(scores: columns.Scores, task: Task, ids: npt.NDArray[np.int64]) -> Shares:
    """Of each checkpoint in `ids`, ordered by step: the score above guessing under the protocol that most have.

    NaN where it has none; of protocols that equally many have, the newest.
    """
    shares = np.full(len(ids), np.nan)
    own = (scores.records["task"] == task.id) & np.isin(scores.checkpoint, ids)
    records, checkpoint = scores.records[own], scores.checkpoint[own]
    if records.size:
        protocols, which, numbers = np.unique(records["protocol"], return_inverse=True, return_counts=True)
        newest = [int(records["evaluation"][which == place].max()) for place in range(len(protocols))]
        chosen = which == max(range(len(protocols)), key=lambda place: (numbers[place], newest[place]))
        by_id = np.argsort(ids)
        places = by_id[np.searchsorted(ids, checkpoint[chosen], sorter=by_id)]
        chance = task.chance or 0.0
        shares[places] = (records["value"][chosen] - chance) / (1.0 - chance)
    return shares


def _best_row(shares: Shares) -> int | None:
    """The first of the rows with the highest mean in [checkpoint, task]; None where no row is whole.

    A task that fewer than half of the others' checkpoints have is left out: it has just been added.
    """
    numbers = (~np.isnan(shares)).sum(axis=0)
    if not numbers.max():
        return None
    means = shares[:, 2 * numbers >= numbers.max()].mean(axis=1).round(9)
    return None if np.isnan(means).all() else int(np.nanargmax(means))
