"""The arena in a real browser: a battle from its question to the reveal, the ratings, the raw votes, and odd votes."""

import csv
import re
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from registry import accounts, arena, chats, db, events, runs, tickets
from registry.models.base import FAILED, FINISHED, utcnow
from registry.tickets import Claim
from tests.browser.conftest import PHONE, Site, log_in, sound, wait_for
from tests.factories import make_user
from tests.registry.arena_battles import LONG_AGO, answer, favour, open_battle

pytestmark = pytest.mark.browser

RUN = "orchard"
STEPS = (1, 2, 3)
PASSWORD = "comparing apples"
NAMES = re.compile(rf"{RUN}@|step \d|checkpoints/")
TEXTS = {"left": "An apple a day", "right": "keeps <b>everybody</b> away, 一个苹果"}


@pytest.fixture(scope="module", autouse=True)
def _run(site: Site) -> None:
    """Three ages of a run."""

    def is_ready() -> bool:
        with db.read_session() as session:
            found = [run for run in runs.list_runs(session) if run.name == RUN]
            return bool(found) and len(arena.candidates(session, found[0], "pretrained")) == len(STEPS)

    for step in STEPS:
        site.push(RUN, step, seed=step)
    site.use(lambda: wait_for(is_ready, 60, "three checkpoints", site.home))


class Held(NamedTuple):
    """A battle whose answers the test writes instead of a worker, and how to write them."""

    public_id: str
    claims: dict[str, Claim]
    """By side."""
    site: Site

    def send(self, side: str, kind: str, **data: object) -> None:
        """One event on that answer's stream."""
        claim = self.claims[side]
        self.site.use(lambda: events.append(f"turn:{claim.turn_id}", kind, data))

    def fail(self, side: str) -> None:
        """Its checkpoint could not be loaded, which the error says by name."""
        claim = self.claims[side]
        error = f"{RUN}@1 could not be loaded."

        def close() -> None:
            with db.transaction() as session:
                tickets.finish(session, claim.ticket_id, claim.fence)
                chats.close_turn(session, claim.turn_id or 0, status=FAILED, answer="", error=error)

        self.site.use(close)
        self.send(side, "done", status="failed", finish_reason="", error=error)

    def finish(self, side: str) -> None:
        """Its answer is whole, and has been there for a minute, so that it could be read."""
        claim = self.claims[side]

        def close() -> None:
            with db.transaction() as session:
                tickets.finish(session, claim.ticket_id, claim.fence)
                chats.close_turn(
                    session, claim.turn_id or 0, status=FINISHED, answer=TEXTS[side], finish_reason="stop",
                    completion_tokens=len(TEXTS[side]) // 4, started_at=utcnow() - LONG_AGO,
                )  # fmt: skip

        self.site.use(close)
        self.send(side, "done", status="finished", finish_reason="stop", error="")


@pytest.fixture
def held(site: Site) -> Held:
    """Claimed before any worker could see it."""

    def prepare() -> tuple[str, dict[str, Claim]]:
        with db.transaction() as session:
            known, _ = accounts.find_users(session, "taster")
            user = known[0] if known else accounts.register(session, "taster", PASSWORD)
            run = runs.get_run(session, RUN)
            battle = open_battle(session, user, run, "Once upon a time")
            claimed = [tickets.claim(session, "test", lanes=[tickets.ARENA], lease_seconds=300) for _ in range(2)]
            by_turn = {claim.turn_id: claim for claim in claimed if claim is not None}
            return battle.group.public_id, {"left": by_turn[battle.left.id], "right": by_turn[battle.right.id]}

    public_id, claims = site.use(prepare)
    return Held(public_id, claims, site)


@pytest.fixture(scope="module")
def _votes(site: Site, _run: None) -> None:
    """Who is older wins, by the votes of three people."""

    def cast() -> None:
        with db.transaction() as session:
            run = runs.get_run(session, RUN)
            people = [make_user(session, f"juror{number}") for number in range(3)]
            for number in range(18):
                person = people[number % 3]
                battle = answer(session, person, open_battle(session, person, run, f"prompt {number}"))
                better = max(battle.checkpoints, key=lambda one: one.step)
                arena.vote(session, person, battle, favour(battle, better), f"10.0.0.{number % 3}")
            session.info.pop("deferred_jobs", None)

    site.use(cast)


def register(page: Page, name: str) -> None:
    """Through the form, which leads to the chat."""
    page.goto("/register")
    page.get_by_label("Name").fill(name)
    page.get_by_label("Password").fill(PASSWORD)
    page.locator("main button[type=submit]").click()
    page.wait_for_url("/chat")


def begin(page: Page, question: str) -> str:
    """Through the form; the address of the battle."""
    page.goto(f"/arena?pool={RUN}")
    page.get_by_label("A beginning, which both go on writing").fill(question)
    page.get_by_role("button", name="Begin the battle").click()
    page.wait_for_url(re.compile(r"/arena/[\w-]{15,}$"))
    return page.url


def answers(page: Page) -> Locator:
    """Both columns' texts, left and right."""
    return page.locator(".battle-side .answer")


class TestBattle:
    def test_from_the_question_to_the_reveal_with_the_mouse(self, page: Page) -> None:
        register(page, "newton")
        page.goto(f"/arena?pool={RUN}")
        # It is asked for again every ten seconds; the worker may only just have begun.
        expect(page.locator("[data-wait]")).to_contain_text(re.compile(r"about \d+–\d+ s"), timeout=25_000)
        page.get_by_label("A beginning, which both go on writing").fill("Kept while another run is chosen")
        page.get_by_label("Who is asked").select_option(label=f"{RUN} · pretrained")
        page.get_by_label("Who is asked").dispatch_event("change")
        page.wait_for_load_state()
        expect(page.get_by_label("A beginning, which both go on writing")).to_have_value(
            "Kept while another run is chosen"
        )
        starter = page.locator("[data-starter]").first
        starter.click()
        expect(page.get_by_label("A beginning, which both go on writing")).to_have_value(
            starter.get_attribute("data-starter") or ""
        )

        address = begin(page, "Once upon a time")
        expect(answers(page)).to_have_text(["Once upon a time"] * 2)
        page.get_by_role("button", name="A is better").click()

        expect(page.get_by_text("You found A better.")).to_be_visible()
        expect(page.locator(".battle-side h2 a")).to_have_text([re.compile(rf"{RUN}@\d")] * 2)
        expect(page.locator(".battle-side.is-better h2")).to_contain_text("A")
        # The scripted engine says the question again, so both answers are the same.
        expect(page.locator(".battle-verdict")).to_contain_text("does not count for now:")
        expect(page.locator(".battle-verdict")).to_contain_text("both answers were the same")
        expect(page.get_by_role("button", name="Next battle")).to_be_focused()

        page.goto(address)
        expect(page.get_by_text("You found A better.")).to_be_visible()
        expect(page.locator(".battle-vote")).to_have_count(0)
        again = page.request.post(
            f"{address}/vote",
            form={
                "choice": "right",
                "csrf_token": page.locator("meta[name=csrf-token]").get_attribute("content") or "",
            },
        )
        assert again.status == 409
        assert "You have voted on this battle already" in again.text()
        page.get_by_role("button", name="Next battle").click()
        page.wait_for_url(re.compile(rf"/arena\?pool={RUN}"))

    def test_both_answers_stream_blindly_and_the_keyboard_votes(self, page: Page, site: Site, held: Held) -> None:
        log_in(page, "taster", PASSWORD)
        heard: list[str] = []
        page.on("response", lambda got: heard.append(f"{got.url} {got.all_headers()}"))
        page.goto("/arena")
        page.get_by_role("link", name="Go on with your undecided battle: Once upon a time").click()
        left, right = page.locator(".battle-side").all()
        expect(page.get_by_role("button", name="A is better")).to_be_disabled()
        expect(page.locator(".place")).to_have_text(["It is your turn: the model is getting ready."] * 2)

        held.send("right", "start", attempt=1)
        held.send("right", "delta", text="keeps <b>every")
        expect(right.locator(".answer")).to_have_text("keeps <b>every")
        expect(right.locator(".place")).to_have_text("writing")
        expect(left.locator(".answer")).to_have_text("")
        held.send("left", "start", attempt=1)
        held.send("left", "delta", text="An apple")
        expect(left.locator(".answer")).to_have_text("An apple")
        page.reload()
        expect(answers(page)).to_have_text(["An apple", "keeps <b>every"])

        held.finish("right")
        expect(right.locator(".place")).to_have_text("Whole. Waiting for the other one …")
        expect(page.get_by_role("button", name="A is better")).to_be_disabled()
        held.finish("left")
        expect(answers(page)).to_have_text([TEXTS["left"], TEXTS["right"]])
        expect(page.get_by_role("button", name="A is better")).to_be_enabled()
        assert NAMES.search(page.content()) is None
        assert [one for one in heard if NAMES.search(one)] == []

        page.keyboard.press("ArrowRight")
        expect(page.get_by_role("button", name="B is better")).to_be_focused()
        page.keyboard.press("ArrowDown")
        expect(page.get_by_role("button", name="Tie")).to_be_focused()
        page.keyboard.press("ArrowLeft")
        page.keyboard.press("Enter")
        expect(page.get_by_text("You found A better.")).to_be_visible()
        expect(left).to_contain_text(re.compile(r"rating [\d,]+ → [\d,]+"))
        assert NAMES.search(page.content()) is not None

    def test_another_tab_that_is_late_is_told_of_the_vote(self, page: Page, site: Site, held: Held) -> None:
        log_in(page, "taster", PASSWORD)
        held.finish("left")
        held.finish("right")
        page.goto(f"/arena/{held.public_id}")
        other = page.context.new_page()
        other.goto(f"/arena/{held.public_id}")
        page.get_by_role("button", name="Both bad").click()
        expect(page.get_by_text("You found both bad.")).to_be_visible()
        other.get_by_role("button", name="B is better").click()
        expect(other.get_by_role("alert")).to_have_text("You have voted on this battle already.")
        expect(other.get_by_text("You found both bad.")).to_be_visible()

    def test_where_an_answer_fails_the_way_out_is_shown_at_once(self, page: Page, site: Site, held: Held) -> None:
        log_in(page, "taster", PASSWORD)
        page.goto(f"/arena/{held.public_id}")
        held.send("right", "start", attempt=1)
        held.send("right", "delta", text="still writing")
        expect(answers(page).last).to_have_text("still writing")
        held.fail("left")
        expect(page.get_by_role("alert")).to_contain_text("An answer could not be written")
        assert NAMES.search(page.content()) is None
        page.get_by_role("button", name="Another question").click()
        page.wait_for_url(re.compile(rf"/arena\?pool={RUN}"))

    def test_one_that_is_skipped_is_not_offered_again(self, page: Page, site: Site, held: Held) -> None:
        log_in(page, "taster", PASSWORD)
        page.goto(f"/arena/{held.public_id}")
        page.get_by_role("button", name="Skip it").click()
        page.wait_for_url(re.compile(rf"/arena\?pool={RUN}"))
        expect(page.get_by_text("Go on with your undecided battle")).to_have_count(0)
        answer_ = page.goto(f"/arena/{held.public_id}")
        assert answer_ is not None
        assert answer_.status == 404

    def test_on_a_phone_all_four_choices_are_at_hand(self, browser: Browser, site: Site, held: Held) -> None:
        held.finish("left")
        held.finish("right")
        with (
            closing(browser.new_context(base_url=site.address, locale="zh-CN", viewport=PHONE, has_touch=True)) as own,
            sound(own) as page,
        ):
            page.goto("/login")
            page.locator("input[name=name]").fill("taster")
            page.locator("input[name=password]").fill(PASSWORD)
            page.locator("main button[type=submit]").click()
            page.wait_for_url("/")
            page.goto(f"/arena/{held.public_id}")
            for name in ("A 更好", "B 更好", "平局", "都不好"):
                expect(page.get_by_role("button", name=name)).to_be_in_viewport()
            assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
            page.get_by_role("button", name="平局").tap()
            expect(page.get_by_text("你觉得两个差不多。")).to_be_visible()


@pytest.mark.usefixtures("_votes")
class TestRatings:
    def test_the_table_says_who_leads_and_the_chart_shows_it(self, page: Page) -> None:
        page.goto(f"/arena?pool={RUN}")
        rows = page.locator(".arena-ranks tbody tr")
        expect(rows).to_have_count(3)
        expect(rows.first).to_contain_text(f"{RUN}@3")
        expect(rows.last).to_contain_text(f"{RUN}@1")
        expect(page.locator("#chart-arena-pretrained")).to_have_attribute("data-drawn", "3")
        page.get_by_text("Who beat whom").first.click()
        # Battles of the tests before may be among them, so who leads need not have won every one.
        won = page.locator(".arena-met tbody tr").last
        expect(won).to_contain_text(re.compile(rf"{RUN}@3\s*(100|[5-9]\d)% \(\d+\)\s*(100|[5-9]\d)% \(\d+\)"))

    def test_the_growth_page_has_it_next_to_the_benchmarks(self, page: Page) -> None:
        page.goto(f"/runs/{RUN}")
        section = page.locator("#arena")
        expect(section.get_by_role("heading", name="Arena").first).to_be_visible()
        chart = section.locator("#chart-arena-pretrained")
        expect(chart).to_have_attribute("data-drawn", "3")
        chart.get_by_text("Table").click()
        expect(chart.locator("tbody tr")).to_have_count(3)
        section.get_by_role("link", name="Vote").click()
        page.wait_for_url(re.compile(rf"/arena\?pool={RUN}"))

    def test_the_raw_votes_are_there_for_everybody(self, page: Page, tmp_path: Path) -> None:
        page.goto(f"/arena?pool={RUN}")
        with page.expect_download() as waiting:
            page.get_by_role("link", name="CSV").click()
        path = tmp_path / "votes.csv"
        waiting.value.save_as(path)
        rows = list(csv.DictReader(path.read_text().splitlines()))
        assert len([row for row in rows if row["counts"] == "True"]) >= 18
        assert {row["left"].split("@")[0] for row in rows} == {RUN}
        assert "juror" not in path.read_text()


class TestOddVotes:
    def test_an_administrator_sees_them_and_decides(self, page: Page, browser: Browser, site: Site) -> None:
        register(page, "leibniz")
        begin(page, "The same for both")
        page.get_by_role("button", name="Tie").click()
        expect(page.get_by_text("You found both alike.")).to_be_visible()
        with (
            closing(browser.new_context(base_url=site.address, locale="en-GB", viewport=PHONE)) as own,
            sound(own) as keeper,
        ):
            log_in(keeper)
            keeper.goto("/admin")
            keeper.get_by_role("link", name="Odd votes").click()
            row = keeper.locator(".votes-table tbody tr").first
            expect(row).to_contain_text("both answers were the same")
            expect(row).to_contain_text("tie")
            row.get_by_role("button", name="It counts").click()
            expect(keeper.get_by_role("status").filter(has_text="The vote counts now.")).to_be_visible()
            keeper.goto("/admin/audit")
            expect(keeper.locator(".trail")).to_contain_text("Odd vote counted")
        page.reload()
        expect(page.locator(".battle-verdict")).not_to_contain_text("does not count")
