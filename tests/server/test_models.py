"""The models page and the page of one model: what is ready, by run, and how to take it home."""

import re

import pytest
import yaml
from fastapi.testclient import TestClient

from analysis import memory
from registry import aliases, checkpoints, db
from registry.models import MemoryPeak
from registry.store import Manifest
from server import architecture

PAGE = "/models/demo/step-1500"


def release(label: str) -> None:
    with db.transaction() as session:
        checkpoints.release(session, checkpoints.by_label(session, label))


def add_form(step: int, precision: int) -> None:
    """The same step in fewer bits."""
    with db.transaction() as session:
        run = checkpoints.by_label(session, f"demo@{step}").run
        manifest = Manifest(
            files={"model.safetensors": {"size": 500, "sha256": f"{precision}".ljust(64, "0")}}, facts={}
        )
        folder = f"demo/step-{step}-{precision}bit"
        made = checkpoints.register(session, run, step=step, folder=folder, manifest=manifest, precision=precision)
        checkpoints.mark_ready(session, made, 5_000_000)
        session.info.pop("deferred_jobs", None)


def rows(page: str) -> list[str]:
    return re.findall(r'<th scope="row"><a href="(/models/[^"]+)"', page)


class TestList:
    def test_ready_checkpoints_are_listed_by_run_and_kind_newest_first(self, seeded: TestClient) -> None:
        page = seeded.get("/models").text
        assert rows(page)[:3] == ["/models/demo/step-1750-chat", "/models/demo/step-1750", "/models/demo/step-1500"]
        assert "Chat models" in page

    def test_released_ones_come_first_with_their_names_and_precisions(self, seeded: TestClient) -> None:
        add_form(500, 4)
        release("demo@500")
        page = seeded.get("/models").text
        assert rows(page)[1] == "/models/demo/step-500"
        row = page[page.index('"/models/demo/step-500"') :].partition("</tr>")[0]
        assert "released" in row
        assert "/models/demo/step-500-4bit" in row
        assert ">latest</span>" in page

    @pytest.mark.parametrize(
        ("query", "found"),
        [
            ("kind=chat", ["/models/demo/step-1750-chat"]),
            ("q=1250", ["/models/demo/step-1250"]),
            ("q=LATEST", ["/models/demo/step-1750"]),
            ("released=true", ["/models/demo/step-500"]),
            ("bits=4", ["/models/demo/step-500-4bit"]),
            ("kind=average", []),
        ],
    )
    def test_it_can_be_narrowed(self, seeded: TestClient, query: str, found: list[str]) -> None:
        add_form(500, 4)
        release("demo@500")
        page = seeded.get(f"/models?{query}").text
        assert rows(page) == found
        assert ("No model is like that." in page) == (not found)

    def test_a_long_run_shows_its_newest_and_leads_to_the_rest(
        self, seeded: TestClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("server.routes.models.SHOWN", 3)
        page = seeded.get("/models").text
        assert "older steps" in page
        assert len(rows(seeded.get("/models?run=demo").text)) == 13

    def test_a_rejected_checkpoint_is_no_model(self, seeded: TestClient) -> None:
        assert "/models/uploads" not in seeded.get("/models").text

    def test_an_empty_shelf_says_when_a_model_appears(self, client: TestClient) -> None:
        assert "No model is ready yet." in client.get("/models").text

    def test_the_number_of_queries_does_not_grow_with_the_checkpoints(
        self, seeded: TestClient, queries: list[str]
    ) -> None:
        seeded.get("/models")
        number = len(queries)
        add_form(500, 4)
        queries.clear()
        seeded.get("/models")
        assert len(queries) <= number + 1


class TestPage:
    def test_it_has_programs_card_and_memory_of_the_checkpoint(self, seeded: TestClient) -> None:
        page = seeded.get(PAGE).text
        assert "from_pretrained(&#34;demo&#34;, revision=&#34;step-1500&#34;)" in page
        assert "256 tokens" in page
        assert "Which line follows, Chinese" in page
        assert "<h3>Limitations</h3>" in page

    @pytest.mark.parametrize(
        ("asked", "led_to"),
        [
            ("/models/demo", "/models/demo/step-1750"),
            ("/models/demo/latest", "/models/demo/step-1750"),
            ("/models/demo/stable", "/models/demo/step-1000"),
            ("/models/demo/1500", PAGE),
        ],
    )
    def test_names_that_move_lead_to_the_lasting_address(self, seeded: TestClient, asked: str, led_to: str) -> None:
        with db.transaction() as session:
            chosen = checkpoints.by_label(session, "demo@1000")
            aliases.set_alias(session, chosen.run, "stable", chosen, None)
        answer = seeded.get(asked, follow_redirects=False)
        assert (answer.status_code, answer.headers["location"]) == (307, led_to)

    @pytest.mark.parametrize("path", ["/models/nobody/step-1", "/models/demo/step-7", "/models/demo/step-1'%3Cb%3E"])
    def test_what_is_not_there_is_not_found(self, seeded: TestClient, path: str) -> None:
        answer = seeded.get(path)
        assert answer.status_code == 404
        assert "<b>" not in answer.text

    def test_results_alone_give_a_card_without_programs(self, seeded: TestClient) -> None:
        page = seeded.get("/models/elsewhere/step-3000").text
        assert "known by imported results alone" in page
        assert 'id="use"' not in page

    def test_a_forged_host_never_gets_into_a_program(self, seeded: TestClient) -> None:
        answer = seeded.get(PAGE, headers={"host": 'evil"; rm -rf'})
        assert answer.status_code in (200, 400)
        assert "rm -rf" not in answer.text

    def test_the_table_follows_the_device_and_the_number_of_answers(self, seeded: TestClient) -> None:
        alone, many = (seeded.get(f"{PAGE}?batch={batch}").text for batch in (1, 64))
        totals = [re.findall(r"<strong>([\d.]+) GB</strong>", page) for page in (alone, many)]
        assert all(float(more) > float(less) for less, more in zip(*totals, strict=True))
        assert "RAM 8 GB" in seeded.get(f"{PAGE}?device=processor").text
        assert seeded.get(f"{PAGE}?batch=1000").status_code == 422

    def test_what_was_measured_stands_beside_what_is_computed(self, seeded: TestClient) -> None:
        assert "No engine here has held a model of this shape yet" in seeded.get(PAGE).text
        with db.transaction() as session:
            shape = architecture.shape_of(checkpoints.by_label(session, "demo@1500"))
            assert shape is not None
            key = memory.architecture_key(shape, 16)
            facts = {"dtype": "bfloat16", "device": "cpu", "kv_tokens": 256, "step_tokens": 2_048}
            session.add(MemoryPeak(architecture=key, engine="vllm 0.32.0", num_bytes=1_800_000_000, **facts))
        page = seeded.get(PAGE).text
        assert "Measured here with vllm 0.32.0, bfloat16: 1.8 GB at most" in page
        assert re.search(r"\((0\.9\d|1\.0\d) of it\)", page)


class TestDownloads:
    @pytest.mark.parametrize(("lang", "heading"), [("en", "## Limitations"), ("zh", "## 局限性")])
    def test_the_card_is_a_file_in_the_language_that_was_asked_for(
        self, seeded: TestClient, lang: str, heading: str
    ) -> None:
        answer = seeded.get(f"{PAGE}/README.md?lang={lang}")
        assert answer.headers["content-type"].startswith("text/markdown")
        assert 'filename="demo-step-1500-README.md"' in answer.headers["content-disposition"]
        assert heading in answer.text

    def test_the_citation_is_one_that_programs_read(self, seeded: TestClient) -> None:
        content = yaml.safe_load(seeded.get(f"{PAGE}/CITATION.cff").text)
        assert (content["cff-version"], content["version"]) == ("1.2.0", "step-1500")
        assert content["url"].endswith(PAGE)


def test_a_checkpoints_page_leads_to_its_card(seeded: TestClient) -> None:
    assert "/models/demo/step-1750-chat" in seeded.get("/runs/demo/checkpoints/1750?kind=chat").text
