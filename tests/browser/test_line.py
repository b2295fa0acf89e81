"""The place in line in a real browser: told before and after sending, kept over reload, tabs and restarts, given up."""

import re
from collections.abc import Iterator
from contextlib import closing
from typing import NamedTuple

import pytest
from playwright.sync_api import Browser, Page, expect
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from registry import accounts, chats, checkpoints, db, events, tickets
from registry.models import Chat, Checkpoint, Ticket, Turn, User
from registry.models.base import CANCELLED, FINISHED, QUEUED, RUNNING, utcnow
from registry.settings import get_settings
from registry.tickets import Claim
from server import limits
from tests.browser.conftest import DESKTOP, Site, _answers, _end, _environment, _start, log_in, sound, wait_for
from tests.conftest import free_port

pytestmark = pytest.mark.browser

PASSWORD = "patience is a virtue"
WORKER = "metronome"
TWO_AND_A_SLICE = re.compile(r"^\d+ chats and 1 evaluation slice ahead of you, about \d+–\d+ (s|minutes)$")
NEXT = re.compile(r"^You are next, about \d+–\d+ s$")


def person(session: Session, name: str) -> User:
    """Somebody registered, now or before."""
    known = [one for one in accounts.find_users(session, name)[0] if one.name == name]
    return known[0] if known else accounts.register(session, name, PASSWORD)


class Busy(NamedTuple):
    """A worker of the test's own that writes two answers and scores a slice; it never does more than it is told."""

    site: Site
    checkpoint: str
    answers: list[int]
    """Numbers of tickets."""
    slice: int

    def beat(self, checkpoint_id: int | None = None) -> None:
        """It gives a sign of life, for half a minute."""
        facts = {"max_answers": 2, "patience": 1e6, "load_seconds": 1.0}
        if checkpoint_id is not None:
            facts["checkpoint_id"] = checkpoint_id
        self.site.use(lambda: events.worker_beat(WORKER, "writing", facts))

    def end(self, *ticket_ids: int) -> None:
        """These are done."""

        def close() -> None:
            with db.transaction() as session:
                for ticket_id in ticket_ids:
                    ticket = session.get_one(Ticket, ticket_id)
                    ticket.status = FINISHED if ticket.turn_id else QUEUED
                    ticket.worker, ticket.lease_until = "", None

        self.site.use(close)


@pytest.fixture
def busy(seeded_site: Site) -> Iterator[Busy]:
    """Before anybody comes; the seeded site has no worker of its own."""

    def prepare() -> tuple[str, int, list[int], int]:
        with db.transaction() as session:
            person(session, "patient")
            # What earlier tests left in the line of this site would go before, or beside.
            left = update(Ticket).where(Ticket.status.in_((QUEUED, RUNNING)), Ticket.evaluation_id.is_(None))
            session.execute(left.values(status=CANCELLED, lease_until=None))
            checkpoint = checkpoints.by_label(session, "demo@1500")
            turns = [ask_long(session, person(session, name), checkpoint) for name in ("before", "earlier")]
            slices = select(Ticket).where(Ticket.evaluation_id.is_not(None), Ticket.status == QUEUED).limit(1)
            taken = [*session.scalars(select(Ticket).where(Ticket.turn_id.in_(turns))), session.scalars(slices).one()]
            for ticket in taken:
                ticket.status, ticket.worker, ticket.claimed_at = RUNNING, WORKER, utcnow()
            session.info.pop("deferred_jobs", None)
            return checkpoint.label, checkpoint.id, [one.id for one in taken[:2]], taken[2].id

    label, checkpoint_id, answers, scored = seeded_site.use(prepare)
    made = Busy(seeded_site, label, answers, scored)
    made.beat(checkpoint_id)
    yield made
    made.end(*answers, scored)
    seeded_site.use(lambda: events.client().hdel(events.WORKER_KEY, WORKER))


def ask_long(session: Session, user: User, checkpoint: Checkpoint) -> int:
    """A question whose answer takes a while; the number of its turn."""
    return chats.open_turn(session, chats.open_chat(session, user, checkpoint), "Tell me all", {"max_tokens": 1024}).id


def test_the_wait_is_told_before_and_after_sending_and_ends_with_a_click(seeded_page: Page, busy: Busy) -> None:
    page = seeded_page
    log_in(page, "patient", PASSWORD)
    page.goto(f"/chat?checkpoint={busy.checkpoint}")
    # The site asks the broker for workers every five seconds, the page the site every ten.
    expect(page.locator(".wait-note")).to_have_text(TWO_AND_A_SLICE, timeout=25_000)

    page.get_by_label("Message", exact=True).fill("And me?")
    page.get_by_label("Message", exact=True).press("Enter")
    page.wait_for_url(re.compile(r"/chat/[\w-]{15,}$"))
    place = page.locator(".turn .place")
    expect(place).to_have_text(TWO_AND_A_SLICE)
    with sound(page.context) as other:
        other.goto(page.url)
        expect(other.locator(".turn .place")).to_have_text(TWO_AND_A_SLICE)
        page.reload()
        expect(place).to_have_text(TWO_AND_A_SLICE)

        # It is corrected by itself, in every tab.
        busy.end(busy.answers[0], busy.slice)
        expect(place).to_have_text(NEXT)
        expect(other.locator(".turn .place")).to_have_text(NEXT)

        page.get_by_role("button", name="Stop").click()
        for tab in (page, other):
            expect(tab.locator(".turn-foot")).to_contain_text("stopped")
            expect(tab.locator(".turn .place")).to_have_count(0)
    assert busy.site.use(lambda: statuses_of("patient")) == [(CANCELLED, CANCELLED)]
    expect(page.get_by_role("button", name="Send", exact=True).last).to_be_enabled()


def statuses_of(name: str) -> list[tuple[str, str]]:
    """Of this person's turns and their tickets."""
    with db.read_session() as session:
        query = select(Turn.status, Ticket.status).join(Ticket, Ticket.turn_id == Turn.id).join(Chat).join(User)
        return [(turn, ticket) for turn, ticket in session.execute(query.where(User.name == name))]


class Held(NamedTuple):
    """An answer that the test writes instead of a worker."""

    site: Site
    public_id: str
    claim: Claim

    @property
    def subject(self) -> str:
        """As its stream is called."""
        return f"turn:{self.claim.turn_id}"

    def send(self, number: int, kind: str, **data: object) -> None:
        """One event, numbered as a worker's are."""
        self.site.use(lambda: events.append(self.subject, kind, data, fence=self.claim.fence, number=number))

    def end(self, number: int, answer: str, status: str = FINISHED, reason: str = "stop") -> None:
        """It is whole, or was stopped."""

        def close() -> None:
            with db.transaction() as session:
                tickets.finish(session, self.claim.ticket_id, self.claim.fence, status)
                chats.close_turn(
                    session, self.claim.turn_id or 0, status=status, answer=answer, finish_reason=reason
                )  # fmt: skip

        self.site.use(close)
        self.send(number, "done", status=status, finish_reason=reason, error="")


def hold(site: Site, name: str, prompt: str = "Once upon", lease_seconds: float = 300) -> Held:
    """A conversation of this person whose question was claimed before any worker could see it."""

    def prepare() -> Held:
        with db.transaction() as session:
            checkpoint = checkpoints.by_label(session, "garden@10")
            chat = chats.open_chat(session, person(session, name), checkpoint)
            turn = chats.open_turn(session, chat, prompt)
            ticket = session.scalars(select(Ticket).where(Ticket.turn_id == turn.id)).one()
            claim = tickets.claim(session, "test", lanes=[tickets.CHAT], lease_seconds=lease_seconds)
            assert claim is not None
            assert claim.ticket_id == ticket.id
            chats.start_turn(session, turn.id)
            return Held(site, chat.public_id, claim)

    held: Held = site.use(prepare)
    return held


def test_an_answer_is_stopped_where_it_is_in_every_tab(page: Page, site: Site) -> None:
    held = hold(site, "stopper")
    log_in(page, "stopper", PASSWORD)
    page.goto(f"/chat/{held.public_id}")
    held.send(1, "start", attempt=1)
    held.send(2, "delta", text=" a time")
    expect(page.locator(".turn .answer")).to_have_text("a time")
    with sound(page.context) as other:
        other.goto(page.url)
        expect(other.locator(".turn .answer")).to_have_text("a time")
        page.get_by_role("button", name="Stop").click()
        asked = {held.subject}
        wait_for(lambda: site.use(lambda: events.stops(asked)) == asked, 30, "the wish to stop", site.home)
        held.end(3, " a time", CANCELLED, "cancelled")
        for tab in (page, other):
            expect(tab.locator(".turn-foot")).to_contain_text("stopped")
            expect(tab.locator(".turn .answer")).to_have_text("a time")
            expect(tab.get_by_role("button", name="Stop")).to_have_count(0)


def test_who_leaves_in_the_middle_finds_the_whole_answer(page: Page, site: Site) -> None:
    held = hold(site, "leaver", "Gone with")
    log_in(page, "leaver", PASSWORD)
    page.goto(f"/chat/{held.public_id}")
    held.send(1, "start", attempt=1)
    held.send(2, "delta", text=" the")
    expect(page.locator(".turn .answer")).to_have_text("the")
    page.goto("/runs")
    held.send(3, "delta", text=" wind")
    held.end(4, " the wind")
    page.goto("/chat")
    page.locator("#entries .entry a").first.click()
    expect(page.locator(".turn .answer")).to_have_text("the wind")
    expect(page.get_by_role("button", name="Good answer")).to_be_visible()


def test_what_a_dead_worker_began_another_one_writes_and_nothing_stands_twice(page: Page, site: Site) -> None:
    held = hold(site, "survivor", "There was a gardener", lease_seconds=8)
    log_in(page, "survivor", PASSWORD)
    page.goto(f"/chat/{held.public_id}")
    held.send(1, "start", attempt=1)
    held.send(2, "delta", text="There was a gar")
    expect(page.locator(".turn .answer")).to_have_text("There was a gar")
    # Nobody renews its lease; the site's own worker takes it over, and its engine says the question again.
    expect(page.get_by_role("button", name="Good answer")).to_be_visible(timeout=60_000)
    expect(page.locator(".turn .answer")).to_have_text("There was a gardener")
    held.send(3, "delta", text=" and more from beyond")  # the dead one was only slow
    page.reload()
    expect(page.locator(".turn .answer")).to_have_text("There was a gardener")


def test_a_killed_web_server_costs_no_word(browser: Browser, site: Site) -> None:
    held = hold(site, "patron", "The server")
    port = free_port()
    environment = _environment(site.home, port, site.valkey.connection_url)
    address, log = f"http://127.0.0.1:{port}", site.home / "second.log"
    server = _start(log, environment, "server")
    try:
        wait_for(lambda: _answers(address), 60, "a second web server", site.home)
        with (
            closing(browser.new_context(base_url=address, locale="en-GB", viewport=DESKTOP)) as own,
            sound(own) as page,
        ):
            log_in(page, "patron", PASSWORD)
            page.goto(f"/chat/{held.public_id}")
            held.send(1, "start", attempt=1)
            held.send(2, "delta", text=" one")
            answer = page.locator(".turn .answer")
            expect(answer).to_have_text("one")
            server.kill()
            server.wait()
            expect(page.locator(".turn .place")).to_contain_text("Waiting for the service", timeout=20_000)
            held.send(3, "delta", text=" two")
            server = _start(log, environment, "server")
            # The browser comes back by itself, and says which words it has.
            expect(answer).to_have_text("one two", timeout=60_000)
            held.send(4, "delta", text=" three")
            expect(answer).to_have_text("one two three")
            held.end(5, " one two three")
            expect(page.get_by_role("button", name="Good answer")).to_be_visible()
            expect(answer).to_have_text("one two three")
    finally:
        _end(server)


def test_who_sends_too_fast_is_told_how_long_to_wait(page: Page, site: Site) -> None:
    def use_up() -> None:
        with db.transaction() as session:
            number = person(session, "hasty").id
        for _ in range(20):
            limits.hit("chat", get_settings().chat_limit, str(number))

    site.use(use_up)
    log_in(page, "hasty", PASSWORD)
    page.goto("/chat?checkpoint=garden@10")
    page.get_by_label("Message", exact=True).fill("Quick!")
    page.get_by_label("Message", exact=True).press("Enter")
    expect(page.locator(".composer-error")).to_contain_text(re.compile(r"Wait \d+ seconds; your text stays here"))
    expect(page.get_by_label("Message", exact=True)).to_have_value("Quick!")
