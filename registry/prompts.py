"""Verbs of the prompts that visitors propose: proposing, accepting, declining, withdrawing.

An accepted prompt is a probe task of the suite `community`, asked of every checkpoint in the idle
lane; its text stays in the database, and no template is ever made of it. How and why:
docs/decisions/0014-community-prompts.md.
"""

import hashlib
import json
import re
import unicodedata
from collections.abc import Sequence

from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, joinedload

from registry import checkpoints, evaluations, suites
from registry.errors import Conflict, Invalid, NotFound, Refused
from registry.models import Checkpoint, Evaluation, ProposedPrompt, Task, User
from registry.models.base import READY, SCORED, VERIFYING, utcnow
from registry.models.prompts import ACCEPTED, DECLINED, WAITING, WITHDRAWN

MAX_CHARS, MAX_LINES = 200, 8
MAX_REASON_CHARS = 300
MAX_WAITING_OF_ONE = 3
MAX_WAITING = 200
"""Of everybody: what an administrator can still read through."""
MAX_ACCEPTED = 64
"""Each costs every checkpoint some engine seconds, past and to come."""
TASK_PREFIX = "visitor_prompt_"
"""Names of the tasks: `visitor_prompt_<key of the item>`."""
TITLE_CHARS = 60

_BIDI = re.compile("[\u202a-\u202e\u2066-\u2069]")
"""Marks that turn the direction of what follows, beyond the text's own end."""


def item_key(text: str) -> str:
    """The key that the worker gives to an item whose only field is this prompt."""
    content = json.dumps({"prompt": text}, ensure_ascii=False, sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def propose(session: Session, user: User, text: str) -> ProposedPrompt:
    """Ask for a beginning to be shown to every checkpoint.

    Raises:
        Invalid: it is no short plain text.
        Refused: this person, or everybody together, has proposed enough for now.
        Conflict: it was proposed before.
    """
    text = _plain(text)
    known = session.scalar(select(ProposedPrompt).where(ProposedPrompt.item == item_key(text)))
    if known is not None:
        raise _proposed_before(known.state)
    waiting = select(func.count()).where(ProposedPrompt.state == WAITING)
    if (session.scalar(waiting.where(ProposedPrompt.user_id == user.id)) or 0) >= MAX_WAITING_OF_ONE:
        raise Refused("%(limit)s of your proposals are waiting: wait for an answer first.", limit=MAX_WAITING_OF_ONE)
    if (session.scalar(waiting) or 0) >= MAX_WAITING:
        raise Refused("Too many proposals are waiting already: try again in some days.")
    prompt = ProposedPrompt(item=item_key(text), text=text, user_id=user.id)
    try:
        with session.begin_nested():  # its end writes the row: the page shows the id
            session.add(prompt)
    except IntegrityError:  # somebody else proposed it since we looked
        raise _proposed_before(WAITING) from None
    return prompt


def _proposed_before(state: str) -> Conflict:
    return {
        WAITING: Conflict("This beginning was proposed already and is waiting for an answer."),
        ACCEPTED: Conflict("This beginning was proposed and accepted already."),
        DECLINED: Conflict("This beginning was proposed before and declined."),
        WITHDRAWN: Conflict("This beginning was accepted before and withdrawn later."),
    }[state]


def _plain(text: str) -> str:
    text = text.replace("\r\n", "\n").replace("\r", "\n").strip()
    if not text:
        raise Invalid("The beginning is empty: write some words for the model to go on from.")
    if len(text) > MAX_CHARS:
        raise Invalid(
            "The beginning has %(count)s characters; at most %(limit)s are accepted.", count=len(text), limit=MAX_CHARS
        )
    if text.count("\n") >= MAX_LINES:
        raise Invalid("The beginning has more than %(limit)s lines.", limit=MAX_LINES)
    odd = any(unicodedata.category(one) in ("Cc", "Cs", "Co", "Cn") and one not in "\n\t" for one in text)
    if odd or _BIDI.search(text):
        raise Invalid("The beginning holds control characters: only plain text is accepted.")
    return text


def get_prompt(session: Session, prompt_id: int) -> ProposedPrompt:
    """A proposed prompt with its task.

    Raises:
        NotFound: there is none of that id.
    """
    query = select(ProposedPrompt).where(ProposedPrompt.id == prompt_id).options(joinedload(ProposedPrompt.task))
    prompt = session.scalar(query)
    if prompt is None:
        raise NotFound("There is no proposed prompt with the id %(prompt_id)s.", prompt_id=prompt_id)
    return prompt


def _locked(session: Session, prompt_id: int) -> ProposedPrompt:
    """The prompt as it stands now, while nobody else can decide it."""
    # A statement of its own: the next one sees all that whoever held the row before has written.
    session.execute(select(ProposedPrompt.id).where(ProposedPrompt.id == prompt_id).with_for_update())
    return get_prompt(session, prompt_id)


def accept(session: Session, prompt_id: int, admin: User) -> int:
    """Ask it of every checkpoint, past and to come; returns how many were put in line now.

    A declined or withdrawn one may be accepted after all; what it was asked before stands.

    Raises:
        Conflict: it is accepted, or as many as this site carries are.
    """
    prompt = _locked(session, prompt_id)
    if prompt.state == ACCEPTED:
        raise Conflict("This prompt is accepted already.")
    if count(session).get(ACCEPTED, 0) >= MAX_ACCEPTED:
        raise Conflict("%(limit)s prompts are accepted: withdraw one first.", limit=MAX_ACCEPTED)
    _decide(prompt, ACCEPTED, admin, "")
    if prompt.task is None:
        prompt.task = _make_task(session, prompt)
    prompt.task.retired = False
    session.flush()
    known = checkpoints.list_checkpoints(session, states=(READY, VERIFYING), kind="pretrained")
    asked = [checkpoint for checkpoint in known if suites.is_asked_idly(checkpoint.kind, checkpoint.precision)]
    return evaluations.plan_everywhere(session, prompt.task, asked)


def decline(session: Session, prompt_id: int, admin: User, reason: str) -> None:
    """Say no, with a reason that the visitor reads.

    Raises:
        Invalid: the reason is missing or too long.
        Conflict: it was decided already.
    """
    prompt = _locked(session, prompt_id)
    if prompt.state != WAITING:
        raise Conflict("This prompt was decided already.")
    _decide(prompt, DECLINED, admin, _reason(reason))


def withdraw(session: Session, prompt_id: int, admin: User, reason: str = "") -> None:
    """Take an accepted prompt back: what is in line is cancelled, and its answers are shown no more.

    Raises:
        Invalid: the reason is too long.
        Conflict: it is not accepted.
    """
    prompt = _locked(session, prompt_id)
    if prompt.state != ACCEPTED or prompt.task is None:
        raise Conflict("Only an accepted prompt can be withdrawn.")
    _decide(prompt, WITHDRAWN, admin, _reason(reason) if reason.strip() else "")
    prompt.task.retired = True
    evaluations.cancel_task(session, prompt.task, "The prompt was withdrawn.")


def _decide(prompt: ProposedPrompt, state: str, admin: User, reason: str) -> None:
    prompt.state, prompt.reason, prompt.decided_by_id, prompt.decided_at = state, reason, admin.id, utcnow()


def _reason(reason: str) -> str:
    reason = " ".join(reason.split())
    if not reason:
        raise Invalid("Give a reason: the visitor who proposed it reads it.")
    if len(reason) > MAX_REASON_CHARS:
        raise Invalid("The reason may have %(limit)s characters.", limit=MAX_REASON_CHARS)
    return reason


def _make_task(session: Session, prompt: ProposedPrompt) -> Task:
    first = " ".join(prompt.text.split())
    return suites.add_task(
        session,
        task_name(prompt),
        suite=suites.COMMUNITY,
        title=first if len(first) <= TITLE_CHARS else first[: TITLE_CHARS - 1] + "…",
        output_type="generate_until",
        metric="",
        is_probe=True,
        schedule=suites.IDLE,
        position=prompt.id,
    )


def task_name(prompt: ProposedPrompt) -> str:
    """Of the task that asks it."""
    return f"{TASK_PREFIX}{prompt.item}"


def text_of_task(session: Session, name: str) -> str | None:
    """The text behind the name of a community task; None for a name that is none."""
    item = name.removeprefix(TASK_PREFIX)
    if item == name:
        return None
    return session.scalar(select(ProposedPrompt.text).where(ProposedPrompt.item == item))


def accepted(session: Session) -> Sequence[ProposedPrompt]:
    """The prompts that every checkpoint is asked, in the order in which they were proposed."""
    query = select(ProposedPrompt).where(ProposedPrompt.state == ACCEPTED).order_by(ProposedPrompt.id)
    return session.scalars(query).all()


def of_user(session: Session, user: User, limit: int = 20) -> Sequence[ProposedPrompt]:
    """What somebody proposed, the newest first."""
    query = select(ProposedPrompt).where(ProposedPrompt.user_id == user.id)
    return session.scalars(query.order_by(ProposedPrompt.id.desc()).limit(limit)).all()


def list_prompts(session: Session, *states: str, limit: int = MAX_WAITING) -> Sequence[ProposedPrompt]:
    """Prompts in these states with who proposed them: those that wait by age, others by when they were decided."""
    newest = ProposedPrompt.decided_at.desc()
    query = select(ProposedPrompt).where(ProposedPrompt.state.in_(states)).options(joinedload(ProposedPrompt.user))
    return session.scalars(query.order_by(newest, ProposedPrompt.id).limit(limit)).all()


def count(session: Session) -> dict[str, int]:
    """How many prompts are in each state."""
    rows = session.execute(select(ProposedPrompt.state, func.count()).group_by(ProposedPrompt.state))
    return {state: number for state, number in rows}


def progress(session: Session) -> dict[int, dict[str, int]]:
    """For each community task by id, how many evaluations are in each status."""
    query = (
        select(Evaluation.task_id, Evaluation.status, func.count())
        .join(Checkpoint, Checkpoint.id == Evaluation.checkpoint_id)
        .join(Task, Task.id == Evaluation.task_id)
        .where(Task.schedule == suites.IDLE, Checkpoint.state.in_((VERIFYING, *SCORED)))
        .group_by(Evaluation.task_id, Evaluation.status)
    )
    counts: dict[int, dict[str, int]] = {}
    for task_id, status, number in session.execute(query):
        counts.setdefault(task_id, {})[status] = number
    return counts
