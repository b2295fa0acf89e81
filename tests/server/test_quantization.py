"""What quantization costs: the section of a run, the forms of a checkpoint, and the data."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from registry import checkpoints, db, runs
from registry.models.base import READY
from server import pulse
from server.app import create_app
from tests.server.conftest import BROWSER
from tests.server.conftest import _own_home as own_home
from tests.server.quantized import FAILURE, STEPS, add_forms

PAGE = "/runs/demo/quantization"


@pytest.fixture(scope="module")
def quantized(seeded_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """The seeded site with forms, made once: nothing here writes."""
    home = tmp_path_factory.mktemp("quantized") / "home"
    shutil.copytree(seeded_home, home)
    with own_home(home):
        with db.transaction() as session:
            add_forms(session)
            session.info.pop("deferred_jobs", None)  # no broker listens
        pulse.forget()
        with TestClient(create_app(), headers=BROWSER, raise_server_exceptions=False) as opened:
            yield opened


class TestRun:
    def test_a_run_without_forms_says_how_they_come_about(self, seeded: TestClient) -> None:
        assert "quantized by themselves" in seeded.get(PAGE).text
        assert 'id="quantization"' not in seeded.get("/runs/demo").text

    def test_each_precision_has_a_curve_with_its_sentence_and_table(self, quantized: TestClient) -> None:
        page = quantized.get(PAGE).text
        charts = re.findall(r'id="chart-quantization-(\d)-(\w+)"', page)
        assert charts == [("8", "share"), ("8", "bits_per_byte"), ("4", "share"), ("4", "bits_per_byte")]
        assert page.count("with every tenfold of tokens") == 4
        assert "Quantization costs more the more the model has learned" in page
        assert page.count("<table>") == 4
        data = [json.loads(text) for text in re.findall(r'<script type="application/json">(.*?)</script>', page)]
        four = next(chart for chart in data if chart["key"] == "quantization-4-share")
        assert [dot["step"] for dot in four["dots"]] == list(STEPS)
        assert four["percent"] is True
        assert four["chance"] == 0.0
        assert all(dot["low"] <= dot["y"] <= dot["high"] for dot in four["dots"])

    def test_a_single_task_can_be_chosen(self, quantized: TestClient) -> None:
        page = quantized.get(f"{PAGE}?task=zh_bits").text
        assert '<option value="zh_bits" selected>' in page
        assert re.findall(r'id="chart-quantization-(\d)-(\w+)"', page) == [
            ("8", "bits_per_byte"),
            ("4", "bits_per_byte"),
        ]
        assert "/evaluations/" in page
        assert quantized.get(f"{PAGE}?task=nonsense").status_code == 404

    def test_the_runs_page_leads_there(self, quantized: TestClient) -> None:
        page = quantized.get("/runs/demo").text
        assert f'hx-get="{PAGE}" hx-select="#quantization"' in page

    def test_it_speaks_chinese(self, quantized: TestClient) -> None:
        page = quantized.get(PAGE, headers={"accept-language": "zh-CN"}).text
        assert "What quantization costs" not in page
        assert "量化" in page


class TestData:
    def test_averages_and_tasks_come_with_intervals_and_trends(self, quantized: TestClient) -> None:
        content = quantized.get("/api/v1/runs/demo/quantization").json()
        assert content["run"] == "demo"
        four = next(one for one in content["averages"] if (one["bits"], one["metric"]) == (4, "share"))
        assert [point["checkpoint"] for point in four["points"]] == [f"demo@{step}-4bit" for step in STEPS]
        assert four["points"][0]["n"] == 2
        bits = next(one for one in content["tasks"] if (one["bits"], one["task"]) == (4, "zh_bits"))
        assert bits["trend"]["direction"] == "grows"
        assert bits["trend"]["low"] <= bits["trend"]["slope"] <= bits["trend"]["high"]
        assert bits["points"][0]["cost"] > 0

    def test_a_run_without_forms_has_none(self, seeded: TestClient) -> None:
        assert seeded.get("/api/v1/runs/demo/quantization").json() == {"run": "demo", "averages": [], "tasks": []}
        assert seeded.get("/api/v1/runs/none/quantization").status_code == 404


class TestCheckpoint:
    def test_its_forms_stand_on_its_page_with_what_they_lost(self, quantized: TestClient) -> None:
        page = quantized.get("/runs/demo/checkpoints/1500?kind=pretrained&precision=16").text
        section = page.split('id="precisions"')[1].split("</section>")[0]
        assert section.count('<th scope="row">') == 3
        assert "GPTQ" in section
        assert "groups of 64" in section
        assert "points" in section

    def test_one_that_failed_says_why_and_leads_nowhere(self, quantized: TestClient) -> None:
        page = quantized.get("/runs/demo/checkpoints/1750?kind=pretrained&precision=16").text
        section = page.split('id="precisions"')[1].split("</section>")[0]
        assert FAILURE in section
        assert "queued" in section
        assert "precision=4" not in section

    def test_a_form_is_held_against_its_sixteen_bit_one_unasked(self, quantized: TestClient) -> None:
        page = quantized.get("/runs/demo/checkpoints/1500?precision=4").text
        assert '<option value="demo@1500" selected>' in page
        assert 'id="precisions"' in page

    def test_a_checkpoint_nobody_quantized_has_no_such_section(self, quantized: TestClient) -> None:
        assert 'id="precisions"' not in quantized.get("/runs/demo/checkpoints/32").text


def test_a_form_is_never_the_newest_of_its_run(quantized: TestClient) -> None:
    with db.read_session() as session:
        run = runs.get_run(session, "demo")
        extent = checkpoints.extent(session, run)
        assert extent.newest is not None
        assert (extent.newest.precision, extent.newest.state) == (16, READY)
    assert "4bit" not in quantized.get("/").text.split("</main>")[0].split("<main")[1].split("Talk to")[1][:200]
