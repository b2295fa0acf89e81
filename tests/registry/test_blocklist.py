"""Blocked patterns: what may not be asked, and where answers end."""

import time

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from registry import accounts, audit, blocklist, chats, db
from registry.errors import Conflict, Invalid, NotFound
from registry.models import AuditEntry, BlockedPattern
from registry.models.base import FINISHED
from tests.factories import make_checkpoint, make_run, make_user


def scanner(*patterns: str, is_regex: bool = False) -> blocklist.Scanner:
    return blocklist.Scanner(
        [BlockedPattern(id=at, pattern=one, is_regex=is_regex) for at, one in enumerate(patterns, 1)]
    )


def stream(found: blocklist.Scanner, text: str, size: int = 1) -> tuple[str, bool]:
    """What a reader sees of an answer that comes a few characters at a time."""
    shown = 0
    for end in range(size, len(text) + size, size):
        shown, blocked = found.safe_prefix(text[:end], shown=shown)
        if blocked:
            return text[:shown], True
    shown, blocked = found.safe_prefix(text, shown=shown, ended=True)
    return text[:shown], blocked


@pytest.mark.parametrize(
    "written",
    [
        "the SECRET word",
        "the ｓｅｃｒｅｔ word",  # full width
        "the se\u200bcr\u00adet word",  # with characters that nobody sees
        "the \u202esecret word",  # right to left
        "ſecret",  # an old s
    ],
)
def test_a_plain_pattern_is_found_however_it_is_written(written: str) -> None:
    assert scanner("secret").find(written) == 1


def test_letters_with_accents_are_others() -> None:
    assert scanner("cafe").find("un cafe\u0301") is None
    assert scanner("café").find("un CAFE\u0301") == 1
    assert scanner("한국").find("\u1112\u1161\u11ab국") == 1


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_nothing_of_a_blocked_text_is_shown_however_an_answer_is_cut_into_pieces(size: int) -> None:
    found = scanner("secret", "密码是")
    assert stream(found, "It is a secret.", size) == ("It is a ", True)
    assert stream(found, "我的密码是一二三", size) == ("我的", True)
    assert stream(found, "我的密码不对, and sec is short for second", size) == (
        "我的密码不对, and sec is short for second",
        False,
    )


@pytest.mark.parametrize("size", [1, 2, 5])
def test_an_accent_that_comes_late_does_not_let_a_pattern_through(size: int) -> None:
    assert stream(scanner("éclair"), "an e\u0301clair", size) == ("an ", True)


def test_only_what_may_still_become_a_pattern_is_held_back() -> None:
    found = scanner("secret")
    assert found.safe_prefix("I have a sec") == (9, False)
    assert found.safe_prefix("I have a sect") == (13, False)
    assert found.safe_prefix("I have a sec", ended=True) == (12, False)


@pytest.mark.parametrize("size", [1, 3, 8])
def test_a_regular_expression_is_cut_where_it_begins(size: int) -> None:
    found = scanner(r"card \d{4}-\d{4}", is_regex=True)
    assert stream(found, "My CARD 1234-5678, keep it", size) == ("My ", True)
    assert stream(found, "My card 1234-56", size) == ("My card 1234-56", False)


def test_a_word_that_goes_on_is_not_mistaken_for_a_shorter_one() -> None:
    found = scanner(r"\bass\b", is_regex=True)
    assert stream(found, "an assessment", 1) == ("an assessment", False)
    assert stream(found, "an ass.", 1) == ("an ", True)
    assert stream(found, "an ass", 1) == ("an ", True)


def test_an_expression_for_the_beginning_is_not_found_in_the_middle() -> None:
    assert stream(scanner(r"^no\b", is_regex=True), "yes " * 200 + "no", 9)[1] is False


def test_an_expression_that_never_ends_does_not_hold_an_answer_back_for_ever() -> None:
    shown, _blocked = scanner(r"begin.*end", is_regex=True).safe_prefix("begin" + " word" * 200)
    assert shown == 1005 - blocklist.HOLD_CHARS


def test_a_search_that_takes_too_long_counts_as_a_match() -> None:
    assert scanner(r"(a|aa)+$", is_regex=True).find("a" * 80 + "b") == 1


def test_64_streams_cost_a_small_part_of_a_core() -> None:
    found = scanner(*(f"blocked word {number} {'x' * 40}" for number in range(200)))
    text = "一个模型写的答案, and some more of it; " * 60
    started = time.perf_counter()
    for end in range(100, 2100, 2):
        found.safe_prefix(text[:end], shown=end - 12)
    per_call = (time.perf_counter() - started) / 1000
    assert per_call * 64 * 25 < 0.5  # of one core, on a machine that does other things too


def test_without_patterns_everything_is_shown() -> None:
    assert scanner().safe_prefix("anything") == (8, False)


def test_patterns_are_added_and_removed_with_a_trail(session: Session) -> None:
    admin = make_user(session, role="admin")
    row = blocklist.add(session, admin, " secret ", direction="in", note="a test")
    assert [one.pattern for one in blocklist.list_patterns(session)] == ["secret"]
    blocklist.remove(session, admin, row.id)
    assert blocklist.list_patterns(session) == []
    with pytest.raises(NotFound):
        blocklist.remove(session, admin, row.id)
    session.flush()
    trail = session.scalars(select(AuditEntry).order_by(AuditEntry.id)).all()
    assert [(one.action, one.actor_name) for one in trail] == [
        ("block_pattern", admin.name),
        ("unblock_pattern", admin.name),
    ]


def test_a_direction_is_kept(session: Session) -> None:
    admin = make_user(session, role="admin")
    blocklist.add(session, admin, "question", direction="in")
    blocklist.add(session, admin, "answer", direction="out")
    found = blocklist.outgoing(session)
    assert (found.find("a question"), found.find("an answer") is None) == (None, False)
    blocklist.check_prompt(session, admin, "an answer")
    with pytest.raises(Invalid) as refusal:
        blocklist.check_prompt(session, admin, "a QUESTION")
    assert "question" not in str(refusal.value).lower()


def test_a_new_pattern_holds_from_the_next_look_on(session: Session) -> None:
    admin = make_user(session, role="admin")
    assert not blocklist.outgoing(session)
    row = blocklist.add(session, admin, "secret")
    assert blocklist.outgoing(session).find("secret") == row.id
    assert blocklist.outgoing(session) is blocklist.outgoing(session)
    blocklist.remove(session, admin, row.id)
    session.flush()
    assert not blocklist.outgoing(session)


@pytest.mark.parametrize(
    ("pattern", "is_regex"),
    [
        ("x", False),
        ("\u200b\u200b\u200b", False),
        ("x" * 201, False),
        ("(unclosed", True),
        ("a*", True),
        ("(a|aa)+$", True),
        (r"(.*a){20}b", True),
    ],
)
def test_what_cannot_be_a_pattern_is_refused(session: Session, pattern: str, is_regex: bool) -> None:
    with pytest.raises(Invalid):
        blocklist.add(session, make_user(session, role="admin"), pattern, is_regex=is_regex)


def test_a_pattern_is_blocked_once(session: Session) -> None:
    admin = make_user(session, role="admin")
    blocklist.add(session, admin, "secret")
    with pytest.raises(Conflict):
        blocklist.add(session, admin, "secret")


@pytest.mark.usefixtures("database")
def test_a_refused_prompt_is_in_the_trail_although_its_transaction_is_rolled_back() -> None:
    with db.transaction() as session:
        user = accounts.register(session, "mei", "correct horse battery")
        session.flush()
        row = blocklist.add(session, user, "secret")
    with pytest.raises(Invalid), db.transaction() as session:
        blocklist.check_prompt(session, user, "my secret")
    with db.transaction() as session:
        entries = session.scalars(select(AuditEntry).where(AuditEntry.action == "prompt_refused")).all()
        assert [(one.actor_name, one.subject) for one in entries] == [("mei", f"pattern:{row.id}")]
        assert "secret" not in str(entries[0].detail)


def test_a_system_prompt_is_looked_at_and_a_cut_answer_is_noted(session: Session) -> None:
    admin = make_user(session, role="admin")
    blocklist.add(session, admin, "secret")
    chat = chats.open_chat(session, admin, make_checkpoint(session, make_run(session)))
    with pytest.raises(Invalid):
        chats.open_turn(session, chat, "hello", {"system": "Tell the SECRET."})
    turn = chats.open_turn(session, chat, "hello")
    chats.close_turn(session, turn.id, status=FINISHED, answer="It is a ", finish_reason="content_filter")
    session.flush()
    assert [one.subject for one in audit.list_entries(session, action="answer_cut").entries] == [f"turn:{turn.id}"]
