"""The growth page: every way to look at the curves, kept in the address."""

import datetime as dt
import json
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.sync_api import Locator, Page, expect

from registry import db, runs, suites
from registry.models.base import utcnow
from tests.browser.conftest import PHONE, Site
from tests.factories import finish_evaluation, make_checkpoint

pytestmark = pytest.mark.browser


def card(page: Page, task: str) -> Locator:
    return page.locator(f'[data-card="{task}"]')


def asked(page: Page) -> dict[str, str]:
    """What stands in the address."""
    return {name: values[0] for name, values in parse_qs(urlsplit(page.url).query).items()}


def ready(page: Page) -> None:
    expect(page.locator("html")).to_have_attribute("data-ready", "true")


@pytest.fixture
def growth(seeded_page: Page) -> Page:
    """The page with the cards in sight drawn."""
    seeded_page.goto("/runs/demo")
    ready(seeded_page)
    return seeded_page


def test_cards_are_drawn_when_they_come_near(growth: Page) -> None:
    expect(card(growth, "zh_bits")).to_have_attribute("data-drawn", "12")
    expect(card(growth, "zh_bits").locator(".chart-value")).to_have_text("1.191")
    last = card(growth, "sums")
    assert last.get_attribute("data-drawn") is None
    last.scroll_into_view_if_needed()
    expect(last).to_have_attribute("data-drawn", "2")


@pytest.mark.parametrize("axis", ["step", "flops", "time", "loss"])
def test_the_axis_goes_into_the_address_and_into_the_points(growth: Page, axis: str) -> None:
    with growth.expect_response(lambda answer: f"growth?x={axis}" in answer.url):
        growth.locator(f'input[name="x"][value="{axis}"]').check(force=True)
    ready(growth)
    assert asked(growth)["x"] == axis
    drawn = card(growth, "zh_bits").get_attribute("data-drawn")
    # Step 0 lies before the first held-out measurement.
    assert drawn == ("11" if axis == "loss" else "12")


def test_a_logarithmic_axis_leaves_out_what_has_no_logarithm(growth: Page) -> None:
    growth.get_by_label("logarithmic").check()
    expect(card(growth, "zh_bits")).to_have_attribute("data-drawn", "11")
    assert asked(growth) == {"scale": "log"}


def test_another_metric_of_the_same_answers(growth: Page) -> None:
    growth.get_by_label("Vertical axis").select_option("above_chance")
    expect(card(growth, "zh_pairs").locator(".chart-metric")).to_contain_text("above guessing")
    expect(card(growth, "zh_pairs").locator(".chart-value")).to_have_text("58.3%")
    growth.get_by_label("Vertical axis").select_option("prob")
    expect(card(growth, "zh_bits").locator(".plot-empty")).to_have_text("No score in this metric.")
    assert asked(growth) == {"y": "prob"}


def test_a_link_shows_the_same_view(growth: Page) -> None:
    growth.goto(
        "/runs/demo?x=step&scale=log&y=above_chance&smooth=0.6&band=0&runs=elsewhere&tasks=zh_pairs,zh_next_line"
    )
    ready(growth)
    expect(growth.locator('input[name="x"][value="step"]')).to_be_checked()
    expect(growth.get_by_label("logarithmic")).to_be_checked()
    expect(growth.locator('input[name="smooth"]')).to_have_value("0.6")
    expect(growth.locator('input[name="band"]')).not_to_be_checked()
    expect(growth.locator("#legend li")).to_have_text(["demo", "elsewhere"])
    expect(growth.locator("#focus-chips li")).to_have_count(4)
    growth.get_by_role("button", name="Reset the view").click()
    expect(growth.locator("#legend")).to_be_hidden()
    assert asked(growth) == {"tasks": "zh_pairs,zh_next_line"}


def test_smoothing_keeps_the_raw_points(growth: Page) -> None:
    growth.goto("/runs/demo?tasks=zh_bits")
    ready(growth)
    series = "echarts.getInstanceByDom(document.getElementById('focus-plot')).getOption().series"
    values = f"{series}.find(one => one.id?.startsWith('raw:')).data.map(one => one.value[1])"
    raw = growth.evaluate(values)
    growth.locator('input[name="smooth"]').fill("0.8")
    expect(growth.locator("#smooth-now")).to_have_text("0.80")
    ready(growth)
    assert growth.evaluate(values) == raw
    smooth = growth.evaluate(f"{series}.find(one => one.id?.startsWith('smooth:')).data.map(one => one[1])")
    assert len(smooth) == len(raw)
    assert smooth[0] == pytest.approx(raw[0])
    assert smooth[-1] > raw[-1]  # it lags behind what falls


def test_curves_are_enlarged_laid_over_each_other_and_closed_again(growth: Page) -> None:
    growth.get_by_role("button", name="Enlarge Swapped words, Chinese").click()
    expect(growth.locator("#focus-plot")).to_have_attribute("data-drawn", "14")
    expect(growth.locator(".microscope")).to_contain_text("Emergence microscope")
    growth.locator("#focus-add").select_option("en_bits")
    expect(growth.locator("#focus-chips li")).to_have_count(2)
    assert asked(growth)["tasks"] == "zh_pairs,en_bits"
    growth.get_by_role("button", name="Remove: Swapped words, Chinese").click()
    expect(growth.locator("#focus-chips li")).to_have_text(["Bits per byte, Shakespeare×"])
    growth.go_back()
    expect(growth.locator("#focus-chips li")).to_have_count(2)
    growth.get_by_role("button", name="Close the large chart").click()
    expect(growth.locator("#focus")).to_be_hidden()
    growth.get_by_role("button", name="all in one chart").first.click()
    expect(growth.locator("#focus-chips li")).to_have_count(4)


def test_the_large_chart_is_walked_by_keyboard(growth: Page) -> None:
    growth.goto("/runs/demo?tasks=zh_bits")
    ready(growth)
    growth.locator("#focus-plot").focus()
    growth.keyboard.press("End")
    expect(growth.locator("#growth-said")).to_contain_text("1.191 bits per byte. 95% interval:")
    growth.keyboard.press("ArrowLeft")
    expect(growth.locator("#growth-said")).to_contain_text("Step 1,500")
    expect(growth.locator(".chart-tip")).to_contain_text("vllm 0.32.0")
    growth.keyboard.press("Enter")
    growth.wait_for_url("**/runs/demo/checkpoints/1500")


def test_hovering_tells_and_a_click_opens_the_checkpoint(growth: Page) -> None:
    plot = card(growth, "zh_pairs").locator(".plot")
    box = plot.bounding_box()
    assert box is not None
    growth.mouse.move(box["x"] + box["width"] - 20, box["y"] + box["height"] / 2)
    tip = card(growth, "zh_pairs").locator(".chart-tip")
    expect(tip).to_contain_text("79.2% accuracy")
    expect(tip).to_contain_text("95% interval: 71.1% – 85.5%")
    expect(tip).to_contain_text("120 items")
    growth.mouse.click(box["x"] + box["width"] - 20, box["y"] + box["height"] / 2)
    growth.wait_for_url("**/runs/demo/checkpoints/1750")


def test_every_chart_has_a_table(growth: Page) -> None:
    of_card = card(growth, "en_pairs")
    of_card.scroll_into_view_if_needed()
    of_card.locator("summary").click()
    rows = of_card.locator("tbody tr")
    expect(rows).to_have_count(11)
    expect(rows.filter(has_text="failed")).to_have_count(1)
    expect(rows.first).to_contain_text("vllm 0.32.0")


def test_posts_stand_on_the_axis_and_in_a_list(growth: Page) -> None:
    expect(growth.locator("#pin-list a")).to_have_text(["It has learned to open a statute"])


def test_a_view_is_shared_as_link_frame_and_files(growth: Page) -> None:
    growth.context.grant_permissions(["clipboard-read", "clipboard-write"])
    growth.goto("/runs/demo?x=step&tasks=zh_bits")
    ready(growth)
    growth.get_by_text("Share", exact=True).click()
    growth.get_by_role("button", name="Copy the link to this view").click()
    assert growth.evaluate("navigator.clipboard.readText()") == growth.url
    growth.get_by_role("button", name="Copy the code to embed it").click()
    code = growth.evaluate("navigator.clipboard.readText()")
    assert '/embed/runs/demo?x=step&amp;tasks=zh_bits"' in code
    for name, begins in (("PNG", b"\x89PNG"), ("SVG", b"<svg"), ("CSV", b"run,kind"), ("JSON", b'{"run":"demo"')):
        with growth.expect_download() as started:
            growth.locator(f"#save-{name.lower()}").click()
        assert Path(started.value.path()).read_bytes().startswith(begins), name


def test_the_data_of_two_runs_are_one_file(growth: Page) -> None:
    growth.goto("/runs/demo?runs=elsewhere&tasks=zh_next_line")
    ready(growth)
    growth.get_by_text("Share", exact=True).click()
    with growth.expect_download() as started:
        growth.locator("#save-csv").click()
    lines = Path(started.value.path()).read_text().splitlines()
    assert {line.split(",")[0] for line in lines} == {"run", "demo", "elsewhere"}
    with growth.expect_download() as started:
        growth.locator("#save-json").click()
    found = json.loads(Path(started.value.path()).read_text())
    assert [one["run"] for one in found] == ["demo", "elsewhere"]


def test_the_frame_shows_one_chart(growth: Page) -> None:
    growth.goto("/embed/runs/demo?tasks=zh_bits")
    expect(growth.locator("#focus-plot")).to_have_attribute("data-drawn", "12")
    expect(growth.get_by_role("link", name="See it on Grow")).to_have_attribute("href", "/runs/demo?tasks=zh_bits")


def test_a_rewind_is_drawn_with_its_past_and_greys_what_it_superseded(growth: Page, seeded_site: Site) -> None:
    seeded_site.use(begin_rewind)
    series = "echarts.getInstanceByDom(document.getElementById('focus-plot')).getOption().series"
    lines = f"{series}.filter(one => one.id?.startsWith('raw:')).map(one => [one.data.length, one.lineStyle.color])"
    growth.goto("/runs/again?tasks=en_bits")
    ready(growth)
    grown = dict(growth.evaluate(lines))
    assert sorted(grown) == [1, 2]  # its own point, and its parent's up to step 10
    assert grown[1] == grown[2]
    growth.goto("/runs/first?tasks=en_bits")
    ready(growth)
    kept = dict(growth.evaluate(lines))
    assert sorted(kept) == [2, 3]
    assert kept[2] != kept[3]
    growth.locator("#focus-table summary").click()
    expect(growth.locator("#focus-table tbody tr").first).to_contain_text("superseded")


def begin_rewind() -> None:
    """Two runs: the second went back to step 10 of the first and took its place."""
    with db.transaction() as session:
        task = suites.get_task(session, "en_bits")
        first = runs.create_run(session, name="first", tokens_per_step=4096)
        for step in (0, 10, 20, 30, 40):
            finish_evaluation(session, make_checkpoint(session, first, step), task, 4 - step / 100)
        again = runs.create_run(session, name="again", tokens_per_step=4096, origin=runs.Origin(first, 10, True))
        finish_evaluation(session, make_checkpoint(session, again, 15), task, 2.2)
        # The site's front page is about the run that was heard from last.
        first.heartbeat_at = again.heartbeat_at = utcnow() - dt.timedelta(days=9)
        session.info.pop("deferred_jobs", None)


@pytest.mark.parametrize("run", ["uploads", "elsewhere"])
def test_runs_with_few_or_no_points_say_so(growth: Page, run: str) -> None:
    growth.goto(f"/runs/{run}")
    expect(growth.locator("#growth")).to_be_visible()
    if run == "elsewhere":
        expect(card(growth, "zh_next_line")).to_have_attribute("data-drawn", "3")
    else:
        expect(growth.locator(".plot-empty").first).to_be_visible()


def test_on_a_phone_nothing_is_wider_than_the_screen(growth: Page) -> None:
    growth.set_viewport_size(PHONE)
    for address in ("/runs/demo", "/runs/demo?tasks=zh_bits,zh_pairs", "/embed/runs/demo"):
        growth.goto(address)
        ready(growth)
        assert growth.evaluate("document.documentElement.scrollWidth") == PHONE["width"], address


def test_data_that_cannot_be_loaded_is_said_on_the_card(growth: Page) -> None:
    growth.route("**/api/v1/**", lambda route: route.abort())
    growth.goto("/runs/demo")
    expect(card(growth, "zh_bits").locator(".plot-empty")).to_contain_text("could not be loaded")


def test_the_theme_button_redraws_in_the_other_colours(growth: Page, seeded_site: Site) -> None:
    line = (
        "echarts.getInstanceByDom(document.querySelector('[data-card=zh_bits] .plot'))"
        ".getOption().series.find(s => s.id?.startsWith('raw')).lineStyle.color"
    )
    before = growth.evaluate(line)
    growth.get_by_role("button", name="Light or dark").click()
    ready(growth)
    assert growth.evaluate(line) != before
