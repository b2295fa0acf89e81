"""Verbs of the audit trail: what administrators, and the site on their behalf, have done about people and texts.

An entry names things by their numbers ("user:12", "turn:7"), not by their texts: what is deleted elsewhere is then
not kept alive here. The only entries that are ever changed are those of somebody who deletes their account: the
deed stays, the name goes.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Select, func, select, update
from sqlalchemy.orm import Session

from registry.models import AuditEntry, User

DELETED = "deleted account"
"""The actor's name once the account is gone."""
PAGE_SIZE = 50
_KEPT = "kept_audit_entries"


class Page(NamedTuple):
    """Some entries of the trail, the newest first."""

    entries: Sequence[AuditEntry]
    total: int
    number: int
    """Which page it is; the first is 1."""

    @property
    def num_pages(self) -> int:
        """How many pages there are, at least one."""
        return max(1, -(-self.total // PAGE_SIZE))


def note(
    session: Session, actor: User | None, action: str, subject: str = "", detail: Mapping[str, Any] | None = None
) -> AuditEntry:
    """Write down a deed; it is kept if the transaction is.

    Args:
        session: the transaction.
        actor: who did it; None: the site itself.
        action: a word for the deed, for example `ban`.
        subject: what it was done to, as "user:12".
        detail: numbers and words that tell it from other deeds of its kind; no texts of visitors.
    """
    entry = _entry(actor, action, subject, detail)
    session.add(entry)
    return entry


def keep(
    session: Session, actor: User | None, action: str, subject: str = "", detail: Mapping[str, Any] | None = None
) -> None:
    """Write down something whose transaction is about to be rolled back, such as a refusal; arguments as of `note`.

    `db.transaction` records it in a transaction of its own after the block has ended, whichever way.
    """
    session.info.setdefault(_KEPT, []).append(_entry(actor, action, subject, detail))


def take_kept(session: Session) -> list[AuditEntry]:
    """What `keep` has gathered in this session, once."""
    found: list[AuditEntry] = session.info.pop(_KEPT, [])
    return found


def list_entries(session: Session, *, action: str = "", actor: str = "", page: int = 1) -> Page:
    """One page of the trail, of one kind of deed or one actor's name where given."""
    query = select(AuditEntry)
    if action:
        query = query.where(AuditEntry.action == action)
    if actor:
        query = query.where(func.lower(AuditEntry.actor_name) == actor.strip().lower())
    return _page(session, query, max(1, page))


def actions(session: Session) -> list[str]:
    """The kinds of deeds that occur, for the filter."""
    return list(session.scalars(select(AuditEntry.action).distinct().order_by(AuditEntry.action)))


def names(session: Session, entries: Sequence[AuditEntry]) -> dict[str, str]:
    """The names of the people that entries are about, by subject; those who have left have none."""
    ids = {int(one.subject[5:]) for one in entries if one.subject.startswith("user:")}
    rows = session.execute(select(User.id, User.name).where(User.id.in_(ids))).all()
    return {f"user:{number}": name for number, name in rows}


def forget_name(session: Session, user: User) -> None:
    """Somebody leaves: their deeds stay, without the name."""
    session.execute(update(AuditEntry).where(AuditEntry.actor_id == user.id).values(actor_name=DELETED))


def _entry(actor: User | None, action: str, subject: str, detail: Mapping[str, Any] | None) -> AuditEntry:
    actor_id, name = (actor.id, actor.name) if actor is not None else (None, "")
    return AuditEntry(actor_id=actor_id, actor_name=name, action=action, subject=subject, detail=dict(detail or {}))


def _page(session: Session, query: Select[AuditEntry], number: int) -> Page:
    total = session.scalar(select(func.count()).select_from(query.subquery())) or 0
    rows = query.order_by(AuditEntry.id.desc()).limit(PAGE_SIZE).offset((number - 1) * PAGE_SIZE)
    return Page(session.scalars(rows).all(), total, number)
