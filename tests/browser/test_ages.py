"""Several ages asked the same, in a real browser: columns that stream, a film that fills and plays, links to share."""

import csv
import json
import re
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from registry import accounts, ages, chats, checkpoints, db, events, grouplinks, runs, tickets
from registry.models.base import FINISHED
from registry.tickets import Claim
from tests.browser.conftest import DESKTOP, PHONE, Site, log_in, sound, wait_for
from tests.browser.test_hostile import HOSTILE
from tests.factories import make_checkpoint
from tests.server import grouped

pytestmark = pytest.mark.browser

RUN = "vineyard"
STEPS = (1, 2, 4, 8, 16)
PASSWORD = "older than the wine"
QUESTION = "Old wine is"


@pytest.fixture(scope="module", autouse=True)
def _run(site: Site) -> None:
    """Five ages of a run."""

    def is_ready() -> bool:
        with db.read_session() as session:
            return sum(one.run.name == RUN for one in checkpoints.list_checkpoints(session)) == len(STEPS)

    for step in STEPS:
        site.push(RUN, step, seed=step)
    site.use(lambda: wait_for(is_ready, 90, "five checkpoints", site.home))


@pytest.fixture
def guest(page: Page, site: Site) -> Page:
    """Somebody who is logged in."""

    def prepare() -> None:
        with db.transaction() as session:
            if not accounts.find_users(session, "vintner")[0]:
                accounts.register(session, "vintner", PASSWORD)

    site.use(prepare)
    log_in(page, "vintner", PASSWORD)
    return page


class Held(NamedTuple):
    """A group whose answers the test writes instead of a worker, and how to write them."""

    address: str
    claims: list[Claim]
    """By place."""
    site: Site

    def send(self, place: int, kind: str, **data: object) -> None:
        """One event on that answer's stream."""
        self.site.use(lambda: events.append(f"turn:{self.claims[place].turn_id}", kind, data))

    def begin(self, place: int, text: str) -> None:
        """A worker has begun to write it."""

        def start() -> None:
            with db.transaction() as session:
                chats.start_turn(session, self.claims[place].turn_id or 0)

        self.site.use(start)
        self.send(place, "start", attempt=1)
        self.send(place, "delta", text=text)

    def finish(self, place: int, answer: str) -> None:
        """Its answer is whole."""
        claim = self.claims[place]

        def close() -> None:
            with db.transaction() as session:
                tickets.finish(session, claim.ticket_id, claim.fence)
                chats.close_turn(session, claim.turn_id or 0, status=FINISHED, answer=answer, finish_reason="stop")

        self.site.use(close)
        self.send(place, "done", status="finished", finish_reason="stop", error="")


def hold(site: Site, kind: str, steps: tuple[int, ...]) -> Held:
    """A group that was claimed before any worker could see it."""

    def prepare() -> Held:
        with db.transaction() as session:
            [user] = accounts.find_users(session, "vintner")[0]
            run = runs.get_run(session, RUN)
            asked = [one for one in checkpoints.list_checkpoints(session, run) if one.step in steps]
            opening, lane = (ages.open_side, tickets.CHAT) if kind == "side" else (ages.open_film, tickets.PROBE)
            group = opening(session, user, asked, QUESTION, {"max_tokens": 16, "temperature": 0.8})
            claims = [tickets.claim(session, "test", lanes=[lane], lease_seconds=300) for _ in asked]
            by_turn = {claim.turn_id: claim for claim in claims if claim is not None}
            session.flush()
            session.expire_all()
            found = chats.get_group(session, user, group.public_id)
            ordered = [by_turn[chat.turns[0].id] for chat in found.chats]
            return Held(f"/chat/{kind}/{group.public_id}", ordered, site)

    held: Held = site.use(prepare)
    return held


@pytest.fixture
def columns(guest: Page, site: Site) -> Held:
    """Three columns that nobody answers but the test."""
    return hold(site, "side", STEPS[:3])


def answers(page: Page) -> Locator:
    """The answers of columns or frames."""
    return page.locator("#ages .answer")


def ask_side(page: Page, *steps: int) -> None:
    """Through the form, and until everything is written."""
    page.goto("/chat/side")
    for number in range(4):
        label = f"{RUN}@{steps[number]}" if number < len(steps) else ""
        page.get_by_label(f"Column {number + 1}").select_option(label)
    page.get_by_label("Question").fill(QUESTION)
    page.get_by_role("button", name="Ask all").click()
    page.wait_for_url(re.compile(r"/chat/side/[\w-]{15,}$"))
    expect(page.locator("#ages-line")).to_contain_text(f"{len(steps)} of {len(steps)} answered")


def test_four_ages_answer_next_to_each_other_and_the_next_question_goes_to_all(guest: Page) -> None:
    ask_side(guest, 1, 2, 4, 8)
    # The scripted engine says the prompt again.
    expect(answers(guest)).to_have_text([QUESTION] * 4)
    expect(guest.locator("#ages h2")).to_have_text([f"{RUN}@{step}" for step in (1, 2, 4, 8)])
    expect(guest.get_by_role("term").filter(has_text="Seed")).to_be_visible()
    box = guest.get_by_label("Ask all of them something else")
    box.fill("young wine")
    box.press("Enter")
    guest.wait_for_load_state()
    expect(answers(guest)).to_have_count(8)
    expect(guest.locator("#ages-line")).to_contain_text("4 of 4 answered")
    expect(answers(guest).nth(1)).to_have_text("young wine")


def test_columns_grow_at_once_survive_a_reload_and_end_whole(guest: Page, columns: Held) -> None:
    guest.goto(columns.address)
    expect(guest.locator(".place")).to_have_text(["It is your turn: the model is getting ready."] * 3)
    assert len(guest.context.pages) == 1
    columns.begin(0, " a <i>gift</i>")
    columns.begin(2, " 陈酒")
    expect(answers(guest)).to_have_text([" a <i>gift</i>", "", " 陈酒"])
    expect(guest.locator(".place").nth(2)).to_have_text("writing")
    expect(guest.get_by_role("button", name="Ask all")).to_be_disabled()

    guest.reload()
    expect(answers(guest)).to_have_text([" a <i>gift</i>", "", " 陈酒"])
    columns.send(2, "delta", text="更香")
    expect(answers(guest).nth(2)).to_have_text(" 陈酒更香")

    columns.finish(0, " a <i>gift</i>.")
    expect(guest.locator("#ages-line")).to_contain_text("1 of 3 answered")
    expect(guest.locator("#column-0 [data-copy]")).to_be_visible()
    expect(answers(guest).nth(2)).to_have_text(" 陈酒更香")
    columns.finish(1, " old.")
    columns.finish(2, " 陈酒更香。")
    expect(answers(guest)).to_have_text([" a <i>gift</i>.", " old.", " 陈酒更香。"])
    expect(guest.locator("#ages-line")).to_have_text("3 of 3 answered")
    expect(guest.get_by_role("button", name="Ask all")).to_be_enabled()
    expect(guest.get_by_role("button", name="Stop all")).to_be_hidden()


def test_one_column_is_stopped_and_then_all(guest: Page, columns: Held) -> None:
    guest.goto(columns.address)
    columns.begin(1, " better")
    expect(answers(guest).nth(1)).to_have_text(" better")
    with guest.expect_response(re.compile(r"/stop$")) as told:
        guest.locator("#column-1").get_by_role("button", name="Stop").click()
    assert told.value.ok
    turns = [f"turn:{claim.turn_id}" for claim in columns.claims]
    assert columns.site.use(lambda: events.stops(turns)) == {turns[1]}
    columns.finish(1, " better")
    expect(guest.locator("#column-1 [data-copy]")).to_be_visible()
    expect(guest.locator("#column-0 .place")).to_be_visible()
    with guest.expect_response(re.compile(r"/stop$")):
        guest.get_by_role("button", name="Stop all").click()
    # Those that nobody had begun leave the line at once.
    expect(guest.locator("#ages-line")).to_have_text("3 of 3 answered")
    expect(guest.get_by_text("stopped")).to_have_count(2)


def test_another_answer_from_one_column_and_from_all_is_kept_beside_the_first(guest: Page) -> None:
    ask_side(guest, 1, 2)
    guest.locator("#column-1").get_by_role("button", name="Another answer").click()
    expect(guest.locator("#column-1 .siblings")).to_contain_text("2/2")
    expect(guest.locator("#column-0 .siblings")).to_have_count(0)
    guest.locator("#column-1").get_by_role("button", name="The version before").click()
    expect(guest.locator("#column-1 .siblings")).to_contain_text("1/2")
    guest.get_by_role("button", name="Other answers").click()
    expect(guest.locator("#column-1 .siblings")).to_contain_text("3/3")
    expect(guest.locator("#column-0 .siblings")).to_contain_text("2/2")


def test_settings_hold_for_all_and_stay_for_the_next_question(guest: Page) -> None:
    guest.goto(f"/chat/side?checkpoint={RUN}@1&checkpoint={RUN}@16&prompt=Sweet")
    expect(guest.get_by_label("Column 2")).to_have_value(f"{RUN}@16")
    expect(guest.locator("#ages-wait")).to_contain_text("The last of them begins in about")
    guest.get_by_text("Settings", exact=True).click()
    guest.get_by_label("Seed").fill("77")
    guest.get_by_role("slider", name="Temperature").fill("0.3")
    guest.get_by_role("button", name="Ask all").click()
    expect(guest.locator(".ages-asked-with")).to_contain_text("77")
    expect(guest.locator(".ages-asked-with")).to_contain_text("0.3")
    expect(guest.locator("[name=temperature]")).to_have_value("0.3")
    expect(guest.locator("#ages-line")).to_contain_text("2 of 2 answered")
    guest.go_back()
    guest.get_by_text("Settings", exact=True).click()
    guest.get_by_label("Seed").fill("-1")
    guest.get_by_label("Seed").evaluate("one => one.removeAttribute('min')")
    guest.get_by_role("button", name="Ask all").click()
    expect(guest.get_by_role("alert")).to_contain_text("Seed must be a number from 0")
    expect(guest.get_by_label("Question")).to_have_value("Sweet")


def test_a_column_goes_on_with_another_age_or_alone(guest: Page) -> None:
    ask_side(guest, 1, 2)
    guest.locator("#column-0").get_by_text("This column").click()
    guest.locator("#column-0 [data-ages-list]").select_option(f"{RUN}@16")
    guest.get_by_role("button", name="Go on with it").click()
    expect(guest.locator("#column-0 h2")).to_have_text(f"{RUN}@16")
    expect(answers(guest)).to_have_text([QUESTION] * 2)
    guest.locator("#column-1").get_by_text("This column").click()
    guest.locator("#column-1").get_by_role("button", name="Continue alone").click()
    guest.wait_for_url(re.compile(r"/chat/[\w-]{15,}$"))
    expect(guest.locator(".turn .answer")).to_have_text(QUESTION)


def test_on_a_phone_the_columns_are_swiped(guest: Page, columns: Held) -> None:
    guest.set_viewport_size(PHONE)
    guest.goto(columns.address)
    strip = guest.locator("#ages")
    left = "element => element.getBoundingClientRect().left"
    assert guest.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    assert strip.evaluate("element => getComputedStyle(element).scrollSnapType") == "x mandatory"
    strip.evaluate("element => element.scrollTo({ left: element.clientWidth * 0.8, behavior: 'instant' })")
    guest.wait_for_function("() => Math.abs(document.getElementById('column-1').getBoundingClientRect().left - 16) < 3")
    assert guest.locator("#column-0").evaluate(left) < 0
    expect(guest.locator("#column-1 h2")).to_be_in_viewport()
    for place in range(3):
        columns.finish(place, "done")
    expect(guest.locator("#ages-line")).to_have_text("3 of 3 answered")


def test_a_film_fills_frame_by_frame_and_a_reload_keeps_it(guest: Page, site: Site) -> None:
    held = hold(site, "film", STEPS[:4])
    streams: list[str] = []
    guest.on("request", lambda request: streams.append(request.url) if request.url.endswith("/events") else None)
    guest.goto(held.address)
    stage = guest.locator("#stage")
    held.begin(0, " vinegar")
    expect(answers(guest).nth(0)).to_have_text(" vinegar")
    expect(stage.locator(".answer")).to_have_text(" vinegar")
    held.finish(0, " vinegar!")
    held.begin(1, " grapes")
    # Nobody has chosen a frame, so the stage goes where it is being written.
    expect(stage.locator("h2")).to_have_text(f"{RUN}@2")
    expect(stage.locator(".answer")).to_have_text(" grapes")
    guest.reload()
    expect(answers(guest).nth(0)).to_have_text(" vinegar!")
    expect(answers(guest).nth(1)).to_have_text(" grapes")
    expect(guest.locator("#ages-line")).to_contain_text("1 of 4 answered")
    for place, text in ((1, " grapes."), (2, " wine."), (3, " old wine.")):
        held.finish(place, text)
    expect(answers(guest)).to_have_text([" vinegar!", " grapes.", " wine.", " old wine."])
    expect(guest.locator("#ages-line")).to_have_text("4 of 4 answered")
    # One connection for all frames.
    assert len([url for url in streams if "/chat/" in url]) == 2

    slider = guest.get_by_label("Age of the model")
    slider.focus()
    guest.keyboard.press("Home")
    expect(stage.locator(".answer")).to_have_text(" vinegar!")
    guest.keyboard.press("ArrowRight")
    expect(stage.locator("h2")).to_have_text(f"{RUN}@2")
    assert re.match(rf"{RUN}@2, step 2 · [\d.,K]+ tokens read", slider.get_attribute("aria-valuetext") or "")
    guest.get_by_label("Speed").select_option("4")
    guest.get_by_role("button", name="Play").click()
    expect(guest.get_by_role("button", name="Pause")).to_be_visible()
    expect(stage.locator(".answer")).to_have_text(" old wine.")
    expect(guest.get_by_role("button", name="Play")).to_be_visible()
    guest.locator("#frame-2 [data-pick]").click()
    expect(stage.locator(".answer")).to_have_text(" wine.")


def test_a_film_of_ages_picked_by_hand_is_drawn_downloaded_and_asked_again(
    guest: Page, site: Site, tmp_path: Path
) -> None:
    guest.goto(f"/chat/film?run={RUN}")
    expect(guest.locator("#ages-wait")).to_contain_text("The last of them begins in about")
    guest.get_by_text("Pick from 5 ages").click()
    for step in (2, 8, 16):
        guest.get_by_label(f"step {step} ").check()
    expect(guest.get_by_label("By hand")).to_be_checked()
    guest.get_by_label("Question").fill(QUESTION)
    expect(guest.get_by_label("Keep how likely each word was")).to_be_checked()
    guest.get_by_role("button", name="Ask all").click()
    guest.wait_for_url(re.compile(r"/chat/film/[\w-]{15,}$"))
    expect(guest.locator("#ages-line")).to_contain_text("3 of 3 answered")
    expect(guest.locator("#ages h3")).to_have_text([f"{RUN}@{step}" for step in (2, 8, 16)])

    # The curve comes by itself, with its table.
    expect(guest.locator("#certainty .plot canvas")).to_be_visible()
    guest.locator("#certainty summary").click()
    rows = guest.locator("#certainty tbody tr")
    expect(rows).to_have_count(3)
    expect(rows.first).to_contain_text(re.compile(r"step 16\s*-\d\.\d{3}"))

    guest.get_by_text("Share, download").click()
    with guest.expect_download() as coming:
        guest.get_by_role("link", name="Answers as CSV").click()
    coming.value.save_as(tmp_path / "film.csv")
    with (tmp_path / "film.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [(row["step"], row["answer"]) for row in table] == [("2", QUESTION), ("8", QUESTION), ("16", QUESTION)]
    assert all(float(row["mean_logprob"]) < 0 for row in table)
    with guest.expect_download() as coming:
        guest.get_by_role("link", name="Answers as JSON").click()
    coming.value.save_as(tmp_path / "film.json")
    content = json.loads((tmp_path / "film.json").read_text())
    assert len({row["params"]["seed"] for row in content}) == 1

    first = guest.url
    guest.keyboard.press("Escape")
    guest.get_by_label("Question").fill("And beer is")
    guest.get_by_role("button", name="Ask all").click()
    guest.wait_for_url(lambda url: url != first)
    expect(guest.locator("#ages-line")).to_contain_text("3 of 3 answered")
    expect(answers(guest)).to_have_text(["And beer is"] * 3)
    expect(guest.locator(".ages-asked-with")).to_contain_text(str(content[0]["params"]["seed"]))


def test_a_message_of_a_conversation_is_put_to_other_ages(guest: Page) -> None:
    guest.goto(f"/chat?checkpoint={RUN}@4")
    guest.get_by_label("Message", exact=True).fill(QUESTION)
    guest.get_by_role("button", name="Send", exact=True).last.click()
    guest.wait_for_url(re.compile(r"/chat/[\w-]{15,}$"))
    expect(guest.get_by_role("button", name="Good answer")).to_be_visible()
    address = guest.url
    guest.get_by_text("Ask another age").click()
    guest.locator(".ask-age").get_by_role("link", name="Side by side").click()
    expect(guest.get_by_label("Question")).to_have_value(QUESTION)
    expect(guest.get_by_label("Column 1")).to_have_value(f"{RUN}@4")
    guest.goto(address)
    guest.get_by_text("Ask another age").click()
    guest.locator(".ask-age").get_by_role("link", name="Time machine").click()
    expect(guest.get_by_label("Question")).to_have_value(QUESTION)
    expect(guest.get_by_label("Run")).to_have_value(f"{RUN}:pretrained:16")


def test_a_link_shows_all_answers_to_a_stranger_until_it_is_ended(guest: Page, site: Site, browser: Browser) -> None:
    ask_side(guest, 1, 2)
    guest.get_by_text("Share, download").click()
    guest.get_by_role("button", name="Share by link").click()
    link = guest.locator("#share-link").input_value()
    with closing(browser.new_context(base_url=site.address, locale="en-GB")) as stranger, sound(stranger) as other:
        other.goto(link)
        expect(answers(other)).to_have_text([QUESTION] * 2)
        expect(other.locator("form[action*='chat/side']")).to_have_count(0)
        guest.get_by_role("button", name="End the link").click()
        expect(guest.get_by_role("button", name="Share by link")).to_be_visible()
        gone = other.goto(link)
        assert gone is not None
        assert gone.status == 404


def test_a_film_is_shared_with_its_slider(guest: Page, site: Site, browser: Browser) -> None:
    held = hold(site, "film", STEPS[:2])
    for place in range(2):
        held.finish(place, f" number {place}")
    guest.goto(held.address)
    guest.get_by_text("Share, download").click()
    guest.get_by_role("button", name="Share by link").click()
    link = guest.locator("#share-link").input_value()
    with closing(browser.new_context(base_url=site.address, locale="en-GB")) as stranger, sound(stranger) as other:
        other.goto(link)
        expect(other.locator("#stage .answer")).to_have_text(" number 0")
        other.get_by_label("Age of the model").focus()
        other.keyboard.press("End")
        expect(other.locator("#stage .answer")).to_have_text(" number 1")


def test_a_lost_connection_loses_and_doubles_nothing(guest: Page, columns: Held) -> None:
    columns.begin(0, " zero")
    guest.route("**/events", lambda route: route.abort(), times=2)
    guest.goto(columns.address)
    expect(guest.locator("#ages-line")).to_contain_text("away for the moment")
    expect(answers(guest).nth(0)).to_have_text(" zero", timeout=15_000)
    columns.send(0, "delta", text=" one")
    expect(answers(guest).nth(0)).to_have_text(" zero one")
    guest.context.set_offline(True)
    guest.wait_for_timeout(500)
    columns.send(0, "delta", text=" two")
    columns.finish(1, " gone meanwhile")
    guest.context.set_offline(False)
    expect(answers(guest).nth(0)).to_have_text(" zero one two", timeout=15_000)
    expect(answers(guest).nth(1)).to_have_text(" gone meanwhile", timeout=15_000)
    columns.send(0, "delta", text=" three")
    expect(answers(guest).nth(0)).to_have_text(" zero one two three")
    columns.finish(0, " zero one two three")
    columns.finish(2, " whole")
    expect(guest.locator("#ages-line")).to_have_text("3 of 3 answered")


@pytest.fixture
def hostile(guest: Page, site: Site) -> dict[str, str]:
    """Columns and a film in which people and models write what would act on a page; shared, too."""

    def prepare() -> dict[str, str]:
        with db.transaction() as session:
            [user] = accounts.find_users(session, "vintner")[0]
            run = runs.get_run(session, RUN)
            talker = make_checkpoint(session, run, 99, kind="chat")
            base = [one for one in checkpoints.list_checkpoints(session, run) if one.kind != "chat"]
            found = {}
            for kind, opening, asked in (("side", ages.open_side, [base[0], talker]), ("film", ages.open_film, base)):
                group = grouped.answer(session, user, opening(session, user, asked, HOSTILE[:7_900], {}), text=HOSTILE)
                found[kind] = f"/chat/{kind}/{group.public_id}"
                found[f"{kind} shared"] = f"/shared/ages/{grouplinks.share(group)}"
            talker.state = "retired"  # other tests ask everybody
            session.info.pop("deferred_jobs", None)
        return found

    made: dict[str, str] = site.use(prepare)
    return made


@pytest.mark.parametrize("size", [PHONE, DESKTOP], ids=["phone", "desktop"])
def test_what_would_act_on_the_page_is_only_read(guest: Page, hostile: dict[str, str], size: dict[str, int]) -> None:
    dialogs: list[str] = []
    guest.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    guest.set_viewport_size({"width": size["width"], "height": size["height"]})
    for name, address in hostile.items():
        guest.goto(address)
        guest.wait_for_timeout(300)
        assert guest.evaluate("document.documentElement.scrollWidth") <= size["width"], name
        assert guest.locator("main img, main script:not([type='application/json'])").count() == 0, name
        assert guest.locator("main a[href^='javascript']").count() == 0, name
        assert "␛[31m⟨U+202E⟩exe.gpj" in guest.locator("#ages .prompt").first.inner_text(), name
    assert dialogs == []
