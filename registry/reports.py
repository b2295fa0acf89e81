"""Verbs of reports: visitors say which answers should not stand, administrators decide.

An answer that is withheld is gone for good, from the thread and from every copy of it: what may be somebody's
personal data is not to be kept for the case that it was none.
"""

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import func, or_, select, update
from sqlalchemy.orm import Session, joinedload

from registry import audit, bans, blocklist, chats, conversations
from registry.errors import Conflict, Invalid, NotFound
from registry.models import Chat, Report, Turn, User
from registry.models.base import CANCELLED, FINISHED, utcnow
from registry.models.safety import DISMISSED, OPEN, UPHELD

REASONS = ("harmful", "hateful", "sexual", "personal data", "wrong", "other")
MAX_NOTE_CHARS = 1_000
WITHHELD = "withheld"
"""`Turn.finish_reason` of an answer whose text an administrator has taken away."""
PAGE_SIZE = 20


class Case(NamedTuple):
    """An answer with everything said against it."""

    turn: Turn
    path: Sequence[Turn]
    """The conversation up to it."""
    author: User
    """Who asked."""
    reports: Sequence[Report]


class Tally(NamedTuple):
    """Answers to one person's questions."""

    reported: int
    upheld: int


class Docket(NamedTuple):
    """One page of cases, those that wait longest first."""

    cases: Sequence[Case]
    total: int
    number: int
    """Which page it is; the first is 1."""

    @property
    def num_pages(self) -> int:
        """How many pages there are, at least one."""
        return max(1, -(-self.total // PAGE_SIZE))


def readable_turn(session: Session, user: User, turn_id: int, token: str = "") -> Turn:
    """An answer that this person may read: their own, or one behind the link of a shared conversation.

    Raises:
        NotFound: there is none, or it is not for this person.
    """
    if not token:
        return chats.any_own_turn(session, user, turn_id)
    chat, turns = conversations.shared(session, token)
    for turn in turns:
        if turn.id == turn_id:
            turn.chat = chat
            return turn
    raise NotFound("There is no message with the id %(turn_id)s.", turn_id=turn_id)


def report(session: Session, user: User, turn: Turn, reason: str, note: str = "") -> Report:
    """Say that an answer should not stand; saying so again changes what was said.

    Raises:
        Invalid: an unknown reason, or an overlong note.
        Conflict: there is no answer, or this person's report was decided already.
    """
    if reason not in REASONS:
        raise Invalid("Choose one of the reasons.")
    if len(note) > MAX_NOTE_CHARS:
        raise Invalid("A note has at most %(limit)s characters.", limit=f"{MAX_NOTE_CHARS:,}")
    if turn.status not in (FINISHED, CANCELLED) or not turn.answer:
        raise Conflict("There is no answer to report.")
    # Held until the transaction ends: two clicks at the same moment make one report.
    session.execute(select(Turn.id).where(Turn.id == turn.id).with_for_update())
    found = said(session, user, turn)
    if found is not None and found.state != OPEN:
        raise Conflict("Your report of this answer was looked at already.")
    if found is None:
        found = Report(turn_id=turn.id, user_id=user.id)
        session.add(found)
    found.reason, found.note = reason, note.strip()
    audit.note(session, user, "report_made", f"turn:{turn.id}", {"reason": reason})
    return found


def said(session: Session, user: User, turn: Turn) -> Report | None:
    """What this person has said against an answer, if anything."""
    return session.scalar(select(Report).where(Report.turn_id == turn.id, Report.user_id == user.id))


def count_open(session: Session) -> int:
    """How many answers wait for a decision."""
    return session.scalar(select(func.count(Report.turn_id.distinct())).where(Report.state == OPEN)) or 0


def tallies(session: Session, user_ids: Sequence[int]) -> dict[int, Tally]:
    """What was reported of the answers to these people's questions; those of whom nothing was are left out."""
    upheld = func.count(Report.turn_id.distinct()).filter(Report.state == UPHELD)
    query = select(Chat.user_id, func.count(Report.turn_id.distinct()), upheld).join(Turn, Turn.chat_id == Chat.id)
    query = query.join(Report, Report.turn_id == Turn.id).where(Chat.user_id.in_(user_ids)).group_by(Chat.user_id)
    return {user_id: Tally(reported, right) for user_id, reported, right in session.execute(query).all()}


def docket(session: Session, *, page: int = 1) -> Docket:
    """One page of the answers that wait for a decision."""
    number = max(1, page)
    since = func.min(Report.id)
    query = select(Report.turn_id).where(Report.state == OPEN).group_by(Report.turn_id).order_by(since)
    ids = session.scalars(query.limit(PAGE_SIZE).offset((number - 1) * PAGE_SIZE)).all()
    return Docket([_case(session, turn_id) for turn_id in ids], count_open(session), number)


def uphold(
    session: Session, actor: User, turn_id: int, *, hide: bool = False, ban_reason: str | None = None, pattern: str = ""
) -> None:
    """Decide that the reports of an answer are right, and act on them.

    Args:
        session: the transaction.
        actor: the administrator.
        turn_id: whose answer.
        hide: take the answer's text away, for everybody and for good.
        ban_reason: ban who asked, for this reason; None: do not.
        pattern: block this text in prompts and answers from now on; empty: do not.

    Raises:
        NotFound: nothing about this answer waits for a decision.
        Invalid, Conflict, Refused: the ban or the pattern cannot be; nothing is decided then.
    """
    case = _decide(session, actor, turn_id, UPHELD)
    if hide:
        withhold(session, actor, case.turn)
    if ban_reason is not None:
        bans.ban(session, actor, case.author, ban_reason)
    if pattern.strip():
        blocklist.add(session, actor, pattern, note=f"turn:{turn_id}")


def dismiss(session: Session, actor: User, turn_id: int) -> None:
    """Decide that the answer may stand.

    Raises:
        NotFound: nothing about this answer waits for a decision.
    """
    _decide(session, actor, turn_id, DISMISSED)


def withhold(session: Session, actor: User, turn: Turn) -> None:
    """Take an answer's text away from its thread and from every copy that was made of it; this cannot be undone."""
    family = _family(session, turn.chat_id)
    copies = update(Turn).where(Turn.chat_id.in_(family), Turn.prompt == turn.prompt, Turn.answer == turn.answer)
    before, after = turn.prompt + turn.answer, turn.prompt
    # A notebook's question is the whole text so far, with the answers in it.
    going_on = select(Turn).where(Turn.chat_id.in_(family), Turn.prompt.startswith(before, autoescape=True))
    for later in session.scalars(going_on).all():
        later.prompt = after + later.prompt.removeprefix(before)
    session.execute(copies.values(answer="", tokens=None, finish_reason=WITHHELD))
    audit.note(session, actor, "answer_withheld", f"turn:{turn.id}")


def _decide(session: Session, actor: User, turn_id: int, state: str) -> Case:
    case = _case(session, turn_id)
    if not case.reports:
        raise NotFound("Nothing about this answer waits for a decision.")
    for one in case.reports:
        one.state, one.decided_by_id, one.decided_at = state, actor.id, utcnow()
    deed = "report_upheld" if state == UPHELD else "report_dismissed"
    audit.note(session, actor, deed, f"turn:{turn_id}", {"reports": len(case.reports)})
    return case


def _case(session: Session, turn_id: int) -> Case:
    turn = chats.get_turn(session, turn_id)
    query = select(Report).where(Report.turn_id == turn_id, Report.state == OPEN).order_by(Report.id)
    found = session.scalars(query.options(joinedload(Report.user))).all()
    author = session.get_one(User, turn.chat.user_id)
    return Case(turn, chats.path_to(turn.chat.turns, turn.id), author, found)


def _family(session: Session, chat_id: int) -> set[int]:
    """The thread, all threads that were copied from it, and all that it was copied from, with theirs."""
    known = {chat_id}
    while True:
        parents = select(Chat.forked_from_id).where(Chat.id.in_(known), Chat.forked_from_id.is_not(None))
        kin = select(Chat.id).where(or_(Chat.forked_from_id.in_(known), Chat.id.in_(parents)))
        found = set(session.scalars(kin)) | known
        if found == known:
            return known
        known = found
