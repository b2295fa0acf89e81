"""The training page: axes, scales, smoothing, zoom, branches, incidents, and new points as they come."""

import re
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import pairwise
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.sync_api import Browser, Locator, Page, expect
from sqlalchemy import delete, select, update

from registry import db, events, runs
from registry.models import Post, Run
from tests.browser.conftest import PHONE, Site, log_in, sound
from tests.factories import make_run
from tests.server import rewound

pytestmark = pytest.mark.browser

OPTION = "key => echarts.getInstanceByDom(document.querySelector(`[data-panel='${key}'] .plot`)).getOption()"
PLAIN = ("train/learning_rate", "train/grad_norm", "train/tokens_per_second", "mixture")


@pytest.fixture(scope="module")
def _family(seeded_site: Site) -> Iterator[None]:
    """The runs of `tests.server.rewound`, a long one, and two that have hardly begun; taken away again."""

    def add() -> None:
        with db.transaction() as session:
            rewound.add_family(session)
            make_run(session, "unborn")
            long = make_run(session, "long")
            for step in range(2000):
                runs.log_metrics(session, long, step, step * 4096, {"train/loss": 5 - step / 1000 + step % 7 / 10})
            runs.log_metrics(session, make_run(session, "newborn"), 0, 0, {"heldout/loss_zh": 9.1})

    def remove() -> None:
        with db.transaction() as session:
            names = ("spike", "calm", "anneal", "unborn", "newborn", "long")
            mine = list(session.scalars(select(Run.id).where(Run.name.in_(names))))
            session.execute(delete(Post).where(Post.run_id.in_(mine)))
            session.execute(update(Run).where(Run.id.in_(mine)).values(parent_run_id=None))
            session.execute(delete(Run).where(Run.id.in_(mine)))

    seeded_site.use(add)
    yield
    seeded_site.use(remove)


@pytest.fixture
def training(seeded_page: Page, _family: None) -> Page:
    """The page of `calm`, drawn."""
    return opened(seeded_page, "/runs/calm/training")


def opened(page: Page, address: str) -> Page:
    page.goto(address)
    expect(panel(page, "loss")).to_have_attribute("data-drawn", re.compile(r"\d"))
    return page


def panel(page: Page, key: str) -> Locator:
    return page.locator(f'[data-panel="{key}"]')


def option(page: Page, key: str = "loss") -> Any:
    """What the chart is drawn from."""
    return page.evaluate(OPTION, key)


def has_every_step(page: Page) -> bool:
    """Whether the run's own loss is drawn without leaving out a step."""
    steps = [int(step) for step, _ in option(page)["series"][-2]["data"]]
    return steps == list(range(steps[0], steps[-1] + 1))


def until(page: Page, condition: Callable[[], bool]) -> None:
    """Waits in the browser's time; its own waiting would evaluate text, which the site's policy forbids."""
    for _ in range(100):
        if condition():
            return
        page.wait_for_timeout(100)
    raise AssertionError("It did not come true.")


def asked(page: Page) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(urlsplit(page.url).query).items()}


def drawn(page: Page, key: str = "loss") -> int:
    return int(panel(page, key).get_attribute("data-drawn") or 0)


def test_every_chart_has_the_same_axis(training: Page) -> None:
    ends = {(option(training, key)["xAxis"][0]["min"], option(training, key)["xAxis"][0]["max"]) for key in PLAIN}
    assert ends == {(0, 1996 * 4096)}


@pytest.mark.parametrize(("axis", "end"), [("steps", 1996), ("time", 25_360)])
def test_the_axis_is_switched_in_place_with_the_tables(training: Page, axis: str, end: float) -> None:
    training.evaluate("window.notReloaded = true")
    training.locator("#controls").get_by_role("link", name=axis).click()
    expect(panel(training, "loss").locator("thead th").first).to_have_text(axis)
    assert asked(training)["x"] == {"steps": "step", "time": "time"}[axis]
    assert option(training)["xAxis"][0]["max"] == pytest.approx(end, rel=0.01)
    assert training.evaluate("window.notReloaded") is True
    expect(training.locator("#controls [aria-current]")).to_have_text(axis)


def test_logarithms_are_of_the_axis_or_of_the_loss(training: Page) -> None:
    training.get_by_label("logarithmic axis").check()
    training.get_by_label("logarithmic loss").check()
    assert (option(training)["xAxis"][0]["type"], option(training)["yAxis"][0]["type"]) == ("log", "log")
    assert option(training, "train/grad_norm")["yAxis"][0]["type"] == "value"
    assert asked(training) == {"logx": "1", "logy": "1"}


def test_smoothing_is_drawn_over_the_raw_curve_and_kept_in_the_address(training: Page) -> None:
    before = drawn(training, "train/grad_norm")
    training.get_by_label("Smoothing").fill("0.9")
    expect(panel(training, "train/grad_norm")).to_have_attribute("data-drawn", str(before + 1))
    raw, smooth = [one for one in option(training, "train/grad_norm")["series"] if one["type"] == "line"][-3:-1]
    assert raw["lineStyle"]["opacity"] == 0.35
    assert len(raw["data"]) == len(smooth["data"])

    def roughness(series: Any) -> float:
        ys = [y for _, y in series["data"] if y is not None]
        return sum(abs(after - before) for before, after in pairwise(ys))

    assert roughness(smooth) < 0.3 * roughness(raw)
    training.reload()
    expect(training.get_by_label("Smoothing")).to_have_value("0.9")
    expect(panel(training, "train/grad_norm")).to_have_attribute("data-drawn", str(before + 1))


def test_a_gap_is_not_drawn_over(training: Page) -> None:
    lines = [one for one in option(training, "train/learning_rate")["series"] if one["type"] == "line" and one["data"]]
    assert any(y is None for _, y in lines[-1]["data"])


def test_incidents_are_marked_on_every_chart_and_listed(training: Page) -> None:
    for key in ("loss", *PLAIN):
        marks = [mark for mark in option(training, key)["series"][-1]["markLine"]["data"] if "xAxis" in mark]
        assert [(mark["label"]["formatter"], mark["xAxis"]) for mark in marks] == [
            ("1", 920 * 4096),
            ("2", 1600 * 4096),
        ]
    listed = training.locator(".incidents li")
    expect(listed).to_have_count(3)
    listed.first.get_by_role("link", name="The loss went up").click()
    expect(training.get_by_role("heading", level=1)).to_have_text("The loss went up")
    training.get_by_role("link", name="spike, step 920").click()
    expect(training).to_have_url(re.compile(r"/runs/spike/training#incidents$"))


def test_branches_and_what_was_superseded_are_named_and_can_be_hidden(training: Page) -> None:
    labels = [
        one["endLabel"]["formatter"] for one in option(training)["series"] if (one.get("endLabel") or {}).get("show")
    ]
    assert sorted(set(labels)) == ["anneal", "superseded"]
    before = drawn(training)
    superseded = panel(training, "loss").get_by_role("button", name="superseded")
    superseded.click()
    expect(superseded).to_have_attribute("aria-pressed", "false")
    hidden = before - drawn(training)
    assert hidden >= 2
    panel(training, "loss").get_by_role("button", name="anneal").press("Enter")
    assert drawn(training) == before - hidden - 1
    superseded.click()
    assert drawn(training) == before - 1
    training.locator(".tree").get_by_role("link", name="spike").click()
    expect(training.get_by_role("heading", level=1)).to_have_text("spike")


def test_all_charts_zoom_together(training: Page) -> None:
    training.get_by_role("button", name="Zoom in").click()
    training.get_by_role("button", name="Later").click()
    for key in ("loss", "mixture"):
        zoom = option(training, key)["dataZoom"][0]
        assert (zoom["start"], zoom["end"]) == (50, 100)
    training.get_by_role("button", name="Whole run").click()
    assert option(training)["dataZoom"][0]["start"] == 0


@pytest.mark.usefixtures("_family")
def test_what_is_zoomed_into_comes_in_more_detail(seeded_page: Page) -> None:
    opened(seeded_page, "/runs/long/training?x=step")
    assert len(option(seeded_page)["series"][1]["data"]) <= 400
    for _ in range(3):
        with seeded_page.expect_response(re.compile(r"/api/v1/runs/long/training\?first=\d+&last=\d+")):
            seeded_page.get_by_role("button", name="Zoom in").click()
    until(seeded_page, lambda: has_every_step(seeded_page))
    seeded_page.get_by_role("button", name="Whole run").click()
    until(seeded_page, lambda: not has_every_step(seeded_page))


def test_a_box_that_is_drawn_zooms(training: Page) -> None:
    box = panel(training, "loss").locator(".plot").bounding_box()
    assert box
    middle = box["y"] + box["height"] / 2
    training.mouse.move(box["x"] + box["width"] * 0.3, middle)
    training.mouse.down()
    training.mouse.move(box["x"] + box["width"] * 0.6, middle + 10, steps=6)
    training.mouse.up()
    expect(training.locator("#panels")).to_have_attribute("data-zoom", re.compile(r"^[23]\d\.\d [56]\d\.\d$"))
    assert option(training, "mixture")["dataZoom"][0]["start"] > 20


def test_hovering_tells_every_curve_at_that_place(training: Page) -> None:
    box = panel(training, "loss").locator(".plot").bounding_box()
    assert box
    training.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + box["height"] * 0.6)
    tip = panel(training, "loss").locator(".chart-tip")
    expect(tip).to_contain_text(re.compile(r"step \d"))
    expect(tip).to_contain_text("Training loss")
    expect(tip).to_contain_text("superseded")


def test_a_chart_is_saved_as_a_picture_and_as_a_table(training: Page) -> None:
    for name, end in (("PNG", "calm-loss.png"), ("CSV", "calm-training.csv")):
        with training.expect_download() as download:
            panel(training, "loss").get_by_text(name, exact=True).click()
        assert download.value.suggested_filename == end


def test_new_points_come_in_without_a_reload_and_keep_the_view(training: Page, seeded_site: Site) -> None:
    training.get_by_role("button", name="Zoom in").click()
    panel(training, "loss").locator("summary").click()
    training.evaluate("window.notReloaded = true")

    def log() -> None:
        with db.transaction() as session:
            run = runs.get_run(session, "calm")
            values = {"train/loss": 1.234, "train/learning_rate": 1e-4, "train/grad_norm": 0.5}
            runs.log_metrics(session, run, 2004, 2004 * 4096, values)
        events.publish_board("metrics", {"run": "calm", "step": 2004})

    seeded_site.use(log)
    expect(panel(training, "train/grad_norm").locator(".chart-value")).to_have_text("0.500", timeout=20_000)
    assert training.evaluate("window.notReloaded") is True
    expect(panel(training, "loss").locator("details")).to_have_attribute("open", "")
    assert option(training)["dataZoom"][0]["start"] == 25


def test_the_theme_changes_the_colours(training: Page) -> None:
    before = option(training)["yAxis"][0]["axisLabel"]["color"]
    training.get_by_role("button", name="Light or dark").click()
    assert option(training)["yAxis"][0]["axisLabel"]["color"] != before


def test_an_administrator_pins_an_incident_where_they_click(training: Page) -> None:
    log_in(training, "admin", "correct horse battery")
    opened(training, "/runs/calm/training?x=step")
    plot = panel(training, "loss").locator(".plot")
    box = plot.bounding_box()
    assert box
    plot.click(position={"x": box["width"] * 0.5, "y": box["height"] * 0.5})
    pin = training.locator("#pin")
    expect(pin).to_have_text(re.compile(r"Pin an incident at step [\d,]+"))
    pin.click()
    expect(training.get_by_label("Kind")).to_have_value("incident")
    expect(training.get_by_label("Pin to a run")).to_have_value("calm")
    assert 800 < int(training.get_by_label("at step").input_value()) < 1200


@pytest.mark.usefixtures("_family")
@pytest.mark.parametrize("name", ["unborn", "elsewhere"])
def test_a_run_without_a_curve_is_a_page_in_words(seeded_page: Page, name: str) -> None:
    seeded_page.goto(f"/runs/{name}/training")
    expect(seeded_page.locator(".empty")).to_be_visible()


@pytest.mark.usefixtures("_family")
def test_a_single_point_is_drawn(seeded_page: Page) -> None:
    opened(seeded_page, "/runs/newborn/training")
    [line] = [one for one in option(seeded_page)["series"] if one["data"]]
    assert (line["showSymbol"], line["data"]) == (True, [[0, 9.1]])


@pytest.fixture
def phone(browser: Browser, seeded_site: Site, _family: None) -> Iterator[Page]:
    made = browser.new_context(base_url=seeded_site.address, locale="zh-CN", viewport=PHONE, is_mobile=True)
    with closing(made), sound(made) as page:
        yield page


def test_it_fits_a_phone(phone: Page) -> None:
    opened(phone, "/runs/calm/training?smooth=0.8")
    assert phone.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    assert not any((one.get("endLabel") or {}).get("show") for one in option(phone)["series"])
    expect(phone.get_by_role("heading", name="回退与分支")).to_be_visible()


@pytest.mark.usefixtures("_family")
def test_without_scripts_the_tables_are_there(browser: Browser, seeded_site: Site) -> None:
    made = browser.new_context(base_url=seeded_site.address, locale="en-GB", java_script_enabled=False)
    with closing(made):
        page = made.new_page()
        page.goto("/runs/calm/training?x=step")
        panel(page, "mixture").locator("summary").click()
        expect(panel(page, "mixture").locator("tbody tr").first).to_contain_text("step 1,996")
