"""What a run looks like as a repository over time: its commits, and the names that point at them.

Read without manifests, and without trees where it can be: a run has thousands of checkpoints.
"""

import datetime as dt
from typing import NamedTuple

from sqlalchemy import select
from sqlalchemy.orm import Session

from registry import aliases, hub, shelf
from registry.models import Checkpoint, HubCommit, HubRef, Run
from registry.models.base import READY


class Commit(NamedTuple):
    """A state of a repository that everybody may read."""

    sha: str
    title: str
    message: str
    created_at: dt.datetime
    step: int | None


class _Pushed(NamedTuple):
    """The columns of a pushed commit that lists need."""

    sha: str
    parent: str
    title: str
    message: str
    step: int | None
    checkpoint_id: int | None
    created_at: dt.datetime


class Names(NamedTuple):
    """The revisions that have a name, each with its commit."""

    branches: dict[str, str]
    """`step-8000` and the like, aliases, and branches that were pushed."""
    tags: dict[str, str]
    """Those that were pushed."""


def commits(session: Session, run: Run) -> list[Commit]:
    """The commits of a run, the newest first: those that were pushed, and one for every other checkpoint."""
    pushed = _pushed(session, run)
    shown = _shown(session, run, pushed)
    found = [
        Commit(one.sha, one.title, one.message, one.created_at, one.step) for one in pushed.values() if one.sha in shown
    ]
    by_commit = {one.checkpoint_id for one in pushed.values()}
    found += [
        Commit(hub.derived_sha(one), one.revision, "", one.created_at, one.step)
        for one in shelf.items(session, run)
        if one.id not in by_commit
    ]
    return sorted(found, key=lambda commit: (commit.created_at, commit.step or 0), reverse=True)


def names(session: Session, run: Run) -> Names:
    """The revisions that everybody may read by a name, as `hub.resolve` resolves them; without `main`."""
    branches = {one.revision: hub.derived_sha(one) for one in shelf.items(session, run)}
    derived = set(branches.values())
    branches |= {one.name: hub.derived_sha(one.checkpoint) for one in aliases.list_aliases(session, run)}
    pushed = _pushed(session, run)
    shown = derived | _shown(session, run, pushed)
    tags: dict[str, str] = {}
    for ref in hub.list_refs(session, run):
        branches.pop(ref.name, None)
        sha = _target(ref, pushed, shown)
        if sha and ref.name != hub.MAIN:
            (tags if ref.kind == hub.TAG else branches)[ref.name] = sha
    return Names(branches, tags)


def _target(ref: HubRef, pushed: dict[str, _Pushed], shown: set[str]) -> str:
    """The commit of a name that may be shown: of a branch the last one, of a tag only its own."""
    sha = ref.sha
    for _ in range(hub.MAX_WALK if ref.kind == hub.BRANCH else 0):
        if sha in shown or sha not in pushed:
            break
        sha = pushed[sha].parent
    return sha if sha in shown else ""


def _pushed(session: Session, run: Run) -> dict[str, _Pushed]:
    columns = (getattr(HubCommit, name) for name in _Pushed._fields)
    rows = session.execute(select(*columns).where(HubCommit.run_id == run.id).order_by(HubCommit.id))
    return {row.sha: _Pushed(*row) for row in rows}


def _shown(session: Session, run: Run, pushed: dict[str, _Pushed]) -> set[str]:
    """The commits that everybody may read, see `hub.is_shown`."""
    if not pushed:
        return set()
    verified = (
        select(HubCommit.sha)
        .join(Checkpoint, Checkpoint.id == HubCommit.checkpoint_id)
        .where(HubCommit.run_id == run.id, Checkpoint.state == READY)
    )
    loose = select(HubCommit.sha, HubCommit.tree).where(HubCommit.run_id == run.id, HubCommit.checkpoint_id.is_(None))
    plain = {sha for sha, tree in session.execute(loose) if not any(name.endswith(hub.WEIGHTS) for name in tree)}
    return plain | set(session.scalars(verified))
