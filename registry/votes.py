"""Votes as evidence: signed, without names, kept whether they count or not.

A vote's signature is an HMAC of its fields under the site's secret: a row that was changed in the database by hand is
found, and counts no more. Rows that were deleted are not found.
"""

import hashlib
import hmac
from collections.abc import Iterator, Sequence
from threading import Lock
from typing import Any, NamedTuple

from sqlalchemy import String, cast, func, select
from sqlalchemy.orm import Session

from registry import audit
from registry.errors import Conflict, NotFound
from registry.models import Run, User, Vote
from registry.settings import get_settings

LEFT, RIGHT, TIE, BAD = "left", "right", "tie", "bad"
CHOICES = (LEFT, RIGHT, TIE, BAD)
CLEARED, CONFIRMED = "cleared", "confirmed"
"""What an administrator adds to the flags: the vote counts after all, or it is settled that it does not."""
VOTER_CHARS = 16
PAGE_SIZE = 30
BATCH = 500

_checked: dict[tuple[str, str], tuple[int, tuple[int, ...]]] = {}
"""By database and secret: up to which vote all were looked at, and which of them were not signed so."""
_lock = Lock()  # request threads remember

SIGNED = (
    "id", "run_id", "left_id", "right_id", "choice", "left_tokens", "right_tokens", "prompt_hash", "voter",
    "address_hash", "flags", "created_at",
)  # fmt: skip
"""Not the battle and the account: those are let go when the account is deleted, and the vote stays."""


class Docket(NamedTuple):
    """One page of the votes that wait for an administrator, the newest first."""

    votes: Sequence[Vote]
    total: int
    number: int
    """Which page it is; the first is 1."""

    @property
    def num_pages(self) -> int:
        """How many pages there are, at least one."""
        return max(1, -(-self.total // PAGE_SIZE))


def digest(purpose: str, text: str) -> str:
    """A text as 64 characters that nobody without the site's secret can connect with it."""
    return hmac.new(get_settings().secret.encode(), f"{purpose}:{text}".encode(), hashlib.sha256).hexdigest()


def pseudonym(user: User) -> str:
    """What the raw data call a voter: always the same, and it leads back to nobody."""
    return digest("voter", str(user.id))[:VOTER_CHARS]


def signature_of(fields: Sequence[Any]) -> str:
    """The signature of a vote's `SIGNED` fields, in their order."""
    *plain, flags, created_at = fields
    return digest("vote", "\n".join([*map(str, plain), ",".join(flags), created_at.isoformat()]))


def sign(session: Session, vote: Vote) -> None:
    """Sign a vote as it stands, after every change of its flags."""
    session.flush()  # its own id is part of what is signed, so that a copied row is found too
    vote.signature = signature_of([getattr(vote, name) for name in SIGNED])


def is_genuine(vote: Vote) -> bool:
    """Whether a vote is as it was signed."""
    return hmac.compare_digest(vote.signature, signature_of([getattr(vote, name) for name in SIGNED]))


def counts(flags: Sequence[str]) -> bool:
    """Whether a vote with these flags is part of the ratings."""
    return not flags or CLEARED in flags


def verify(session: Session, run: Run | None = None, after: int = 0) -> list[int]:
    """The ids of votes, from the one after `after`, whose rows were changed by hand, or signed under another secret."""
    query = select(*(getattr(Vote, name) for name in SIGNED), Vote.signature).order_by(Vote.id).where(Vote.id > after)
    if run is not None:
        query = query.where(Vote.run_id == run.id)
    rows = session.execute(query.execution_options(yield_per=BATCH))
    return [fields[0] for *fields, kept in rows if signature_of(fields) != kept]


def unsigned(session: Session, *, afresh: bool = False) -> Sequence[int]:
    """What `verify` finds, cheap enough to be asked at every visit: votes that were looked at are remembered.

    A secret that was replaced is noticed at once, since it is another key of the memory; a row that was changed by hand
    after it was looked at only `afresh`, or by the next process.
    """
    key = (get_settings().database, digest("checked", ""))
    with _lock:
        last_id, found = (0, ()) if afresh else _checked.get(key, (0, ()))
    newest = session.scalar(select(func.max(Vote.id))) or 0
    if newest > last_id:
        found = (*found, *verify(session, after=last_id))
        with _lock:
            _checked[key] = (newest, found)
    return found


def forget() -> None:
    """Let go of all that is remembered, for tests."""
    with _lock:
        _checked.clear()


def of_run(session: Session, run: Run, after: int = 0) -> Iterator[Vote]:
    """Every vote of a run, whether it counts or not, in order of their ids, from the one after `after`."""
    query = select(Vote).where(Vote.run_id == run.id, Vote.id > after).order_by(Vote.id)
    yield from session.scalars(query.execution_options(yield_per=BATCH))


def count_waiting(session: Session) -> int:
    """How many flagged votes nobody has looked at."""
    return session.scalar(select(func.count(Vote.id)).where(*_waiting())) or 0


def flagged(session: Session, *, page: int = 1) -> Docket:
    """One page of the flagged votes that nobody has looked at."""
    number = max(1, page)
    query = select(Vote).where(*_waiting()).order_by(Vote.id.desc())
    rows = session.scalars(query.limit(PAGE_SIZE).offset((number - 1) * PAGE_SIZE)).all()
    return Docket(rows, count_waiting(session), number)


def settle(session: Session, actor: User, vote_id: int, *, does_count: bool) -> Vote:
    """Decide about a flagged vote: it counts after all, or it stays out.

    Raises:
        NotFound: there is no such vote.
        Conflict: it has no flags, was decided about already, or its row was changed by hand.
    """
    vote = session.get(Vote, vote_id)
    if vote is None:
        raise NotFound("There is no vote with the id %(vote_id)s.", vote_id=vote_id)
    if not vote.flags or CLEARED in vote.flags or CONFIRMED in vote.flags:
        raise Conflict("Nothing about this vote waits for a decision.")
    if not is_genuine(vote):
        raise Conflict("This vote was changed in the database by hand; it cannot be made to count.")
    word = CLEARED if does_count else CONFIRMED
    audit.note(session, actor, f"vote_{word}", f"vote:{vote.id}", {"flags": list(vote.flags)})
    vote.flags = [*vote.flags, word]
    sign(session, vote)
    return vote


def _waiting() -> tuple[Any, ...]:
    text = cast(Vote.flags, String)
    return text != "[]", text.not_like(f"%{CLEARED}%"), text.not_like(f"%{CONFIRMED}%")
