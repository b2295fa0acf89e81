"""The audit trail: deeds in order, filters, and the name of somebody who left."""

from sqlalchemy.orm import Session

from registry import audit
from tests.factories import make_user


def test_deeds_are_listed_the_newest_first_by_kind_and_actor(session: Session) -> None:
    keeper, other = make_user(session, "Keeper", role="admin"), make_user(session, "Other", role="admin")
    audit.note(session, keeper, "ban", "user:7", {"reason": "spam"})
    audit.note(session, other, "unban", "user:7")
    audit.note(session, None, "answer_cut", "turn:3")
    session.flush()
    assert [one.action for one in audit.list_entries(session).entries] == ["answer_cut", "unban", "ban"]
    assert [one.detail for one in audit.list_entries(session, action="ban").entries] == [{"reason": "spam"}]
    assert [one.action for one in audit.list_entries(session, actor="keeper").entries] == ["ban"]
    assert audit.actions(session) == ["answer_cut", "ban", "unban"]


def test_the_trail_is_read_page_by_page(session: Session) -> None:
    for number in range(audit.PAGE_SIZE + 3):
        audit.note(session, None, "answer_cut", f"turn:{number}")
    session.flush()
    first, second = audit.list_entries(session), audit.list_entries(session, page=2)
    assert (len(first.entries), len(second.entries), first.num_pages, first.total) == (50, 3, 2, 53)
    assert second.entries[-1].subject == "turn:0"


def test_people_are_named_while_they_are_here(session: Session) -> None:
    mei = make_user(session, "mei")
    session.flush()
    entries = [audit.note(session, None, "ban", f"user:{mei.id}"), audit.note(session, None, "ban", "user:999999")]
    assert audit.names(session, entries) == {f"user:{mei.id}": "mei"}


def test_the_name_of_somebody_who_left_is_taken_out(session: Session) -> None:
    keeper = make_user(session, "Keeper", role="admin")
    audit.note(session, keeper, "ban", "user:7")
    session.flush()
    audit.forget_name(session, keeper)
    session.expire_all()
    assert [one.actor_name for one in audit.list_entries(session).entries] == [audit.DELETED]
