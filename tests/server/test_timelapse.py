"""The time-lapse: one prompt at every age, readable without a script, with what is missing said in words."""

import html
import re

import pytest
from fastapi.testclient import TestClient

from registry import db, prompts
from registry.models import Checkpoint, Evaluation
from registry.models.base import FINISHED
from server import timelapse
from tests.factories import make_checkpoint, make_run, make_user
from tests.server.conftest import Queries
from tests.server.growing import KEY, PROMPT, accept, grow

PAGE = "/runs/growing/timelapse"
DATA = "/api/v1/runs/growing/timelapse"


def words(page: str) -> str:
    """What a page says, without its markup."""
    main = page[page.index("<main") : page.index("</main>")]
    return " ".join(html.unescape(re.sub(r"<[^>]*>", "", re.sub(r"<(script|svg).*?</\1>", "", main))).split())


@pytest.fixture
def growing(client: TestClient) -> TestClient:
    with db.transaction() as session:
        session.info["deferred_jobs"] = {}
        grow(session)
        session.info.pop("deferred_jobs")
    return client


class TestPage:
    def test_it_shows_the_newest_age_that_has_an_answer(self, growing: TestClient) -> None:
        page = growing.get(PAGE)
        assert page.status_code == 200
        assert "12.3K tokens step 3" in words(page.text)
        assert f"{PROMPT} to be, the king said…" in words(page.text)
        assert "4 / 6" in page.text

    def test_the_address_chooses_prompt_and_age(self, growing: TestClient) -> None:
        page = growing.get(PAGE, params={"prompt": prompts.item_key("x = "), "step": 1}).text
        assert "x = gnik eht eht …" in words(page)
        assert "selected>x = </option>" in page

    def test_it_listens_to_the_answers_to_its_own_prompt_alone(self, growing: TestClient) -> None:
        [live] = re.findall(r'id="timelapse"[^>]*data-live="([^"]*)"', growing.get(PAGE).text)
        assert live == "checkpoint:growing evaluation:growing:probes"

    def test_new_words_are_marked_as_insertions(self, growing: TestClient) -> None:
        page = growing.get(PAGE, params={"step": 1}).text
        assert "the <ins>king</ins>" in page
        assert "<ins>" not in growing.get(PAGE, params={"step": 0}).text.partition('id="tl-note"')[0]

    def test_an_answer_after_a_gap_is_held_against_the_last_one_before_it(self, growing: TestClient) -> None:
        page = growing.get(PAGE, params={"step": 3}).text
        assert "the king <ins>said</ins>" in page

    @pytest.mark.parametrize(
        ("step", "sentence"),
        [(2, "There is no answer of this age."), (4, "Asking it failed"), (5, "It has not been asked yet")],
    )
    def test_an_age_without_an_answer_says_why(self, growing: TestClient, step: int, sentence: str) -> None:
        assert sentence in words(growing.get(PAGE, params={"step": step}).text)

    def test_links_lead_to_the_neighbours_and_the_ends(self, growing: TestClient) -> None:
        page = html.unescape(growing.get(PAGE, params={"step": 2}).text)
        for step in (0, 1, 3, 5):
            assert f'href="{PAGE}?prompt={KEY}&step={step}"' in page
        first = html.unescape(growing.get(PAGE, params={"step": 0}).text)
        assert 'id="tl-to-earlier" aria-disabled="true"' in first

    def test_a_step_that_is_gone_leads_to_the_nearest(self, growing: TestClient) -> None:
        assert "6 / 6" in growing.get(PAGE, params={"step": 900}).text

    def test_the_marks_of_an_answer(self, growing: TestClient) -> None:
        assert "1 different words of 4 · 67% of word pairs repeat earlier ones" in words(
            growing.get(PAGE, params={"step": 0}).text
        )

    def test_one_can_talk_to_it_at_that_age(self, growing: TestClient) -> None:
        assert 'href="/chat?checkpoint=growing@1"' in growing.get(PAGE, params={"step": 1}).text

    def test_the_list_has_every_age(self, growing: TestClient) -> None:
        said = words(growing.get(PAGE, params={"list": "true"}).text)
        for part in ("the the the the", "the the king", "to be, the king said", "Asking it failed", "step 5"):
            assert part in said

    def test_a_long_list_has_pages(self, growing: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("server.routes.timelapse.LIST_AGES", 2)
        page = growing.get(PAGE, params={"list": "true", "step": 3}).text
        assert 'id="step-2"' in page
        assert 'id="step-1"' not in page
        assert f"prompt={KEY}&amp;step=1&amp;list=true" in page
        assert f"prompt={KEY}&amp;step=4&amp;list=true" in page

    def test_it_is_there_in_chinese(self, growing: TestClient) -> None:
        growing.cookies.set("lang", "zh")
        page = growing.get(PAGE, params={"step": 4}).text
        assert "提问失败" in page
        assert "从噪声到语言" in page

    @pytest.mark.parametrize("params", [{"step": -1}, {"step": "x"}, {"step": 10**16}, {"list": "maybe"}])
    def test_nonsense_is_refused(self, growing: TestClient, params: dict[str, str]) -> None:
        assert growing.get(PAGE, params=params).status_code == 422

    def test_an_unknown_prompt_or_run_is_not_found(self, growing: TestClient) -> None:
        assert growing.get(PAGE, params={"prompt": "<script>"}).status_code == 404
        assert growing.get("/runs/nope/timelapse").status_code == 404

    def test_its_queries_do_not_grow_with_the_ages(self, growing: TestClient, queries: Queries) -> None:
        growing.get(PAGE)
        assert len(queries) <= 7
        with db.transaction() as session:
            run = session.query(Checkpoint).first().run  # type: ignore[union-attr]
            for step in range(10, 30):
                make_checkpoint(session, run, step)
            session.info.pop("deferred_jobs", None)
        before = len(queries)
        queries.clear()
        growing.get(PAGE)
        assert before > 0
        assert len(queries) <= 7


class TestEmpty:
    def test_a_run_without_checkpoints(self, client: TestClient) -> None:
        with db.transaction() as session:
            make_run(session, "growing")
        page = client.get(PAGE)
        assert page.status_code == 200
        assert "No checkpoint of this run has written anything yet" in page.text
        assert client.get(DATA).json() == {"run": "growing", "prompts": [], "prompt": None, "ages": []}

    def test_one_checkpoint(self, client: TestClient) -> None:
        with db.transaction() as session:
            session.info["deferred_jobs"] = {}
            grow(session, {7: " the the"})
            session.info.pop("deferred_jobs")
        page = client.get(PAGE).text
        assert "There is one age so far" in page
        assert "1 / 1" in page

    def test_an_accepted_prompt_before_anything_was_answered(self, client: TestClient) -> None:
        with db.transaction() as session:
            session.info["deferred_jobs"] = {}
            run = make_run(session, "growing")
            accept(session, "Once")
            make_checkpoint(session, run, 1)
            session.info.pop("deferred_jobs")
        page = words(client.get(PAGE).text)
        assert "Once" in page
        assert "There is no answer of this age." in page

    def test_a_missing_sample_file_is_a_missing_answer(self, growing: TestClient) -> None:
        with db.read_session() as session:
            finished = session.query(Evaluation).filter_by(status=FINISHED).order_by(Evaluation.id).first()
            assert finished is not None
            path = timelapse.get_settings().samples_dir / f"{finished.checkpoint_id}" / f"{finished.id}"
        for file in path.iterdir():
            file.unlink()
        page = growing.get(PAGE, params={"step": 0})
        assert page.status_code == 200
        assert "There is no answer of this age" in page.text


class TestData:
    def test_it_has_every_age_with_text_and_marks(self, growing: TestClient) -> None:
        data = growing.get(DATA, params={"prompt": KEY}).json()
        assert [age["step"] for age in data["ages"]] == [0, 1, 2, 3, 4, 5]
        assert [age["state"] for age in data["ages"]] == [
            "answered", "answered", "missing", "answered", "failed", "coming",
        ]  # fmt: skip
        first = data["ages"][0]
        assert (first["text"], first["cut"], first["num_words"], first["num_distinct_words"]) == (
            " the the the the", True, 4, 1,
        )  # fmt: skip
        assert first["repetition"] == pytest.approx(2 / 3)
        assert data["ages"][4]["text"] is None
        assert data["prompt"] == {"key": KEY, "text": PROMPT, "language": "en", "proposed_by_visitor": False}
        assert [one["text"] for one in data["prompts"]] == [PROMPT, "x = "]

    def test_an_unknown_prompt_is_not_found(self, growing: TestClient) -> None:
        assert growing.get(DATA, params={"prompt": "0" * 16}).status_code == 404

    def test_its_queries(self, growing: TestClient, queries: Queries) -> None:
        growing.get(DATA)
        assert len(queries) <= 6


class TestVisitorsPrompts:
    HOSTILE = "<script>alert(1)</script> {{ 7 * 7 }} \"'"

    @pytest.fixture
    def hostile(self, growing: TestClient) -> str:
        with db.transaction() as session:
            session.info["deferred_jobs"] = {}
            prompt = accept(session, self.HOSTILE, answers={0: " <img src=x onerror=alert(2)>", 3: " {{ 6 * 6 }}"})
            session.info.pop("deferred_jobs")
            return prompt.item

    def test_its_answers_are_shown_and_nothing_in_it_runs(self, growing: TestClient, hostile: str) -> None:
        page = growing.get(PAGE, params={"prompt": hostile, "step": 0}).text
        assert "<script>alert" not in page
        assert "<img" not in page
        said = html.unescape(page)
        assert self.HOSTILE in said
        assert "<img src=x onerror=alert(2)>" in said
        assert "{{ 6 * 6 }}" in words(growing.get(PAGE, params={"prompt": hostile, "step": 3}).text)

    def test_it_stands_in_a_group_of_its_own(self, growing: TestClient, hostile: str) -> None:
        page = growing.get(PAGE).text
        assert '<optgroup label="Proposed by visitors">' in page
        found = growing.get(DATA, params={"prompt": hostile}).json()
        assert found["prompt"]["proposed_by_visitor"] is True
        assert [age["state"] for age in found["ages"]] == ["answered", "coming", "coming", "answered"] + ["coming"] * 2

    def test_a_withdrawn_one_is_shown_nowhere(self, growing: TestClient, hostile: str) -> None:
        with db.transaction() as session:
            [prompt] = prompts.accepted(session)
            evaluation = session.query(Evaluation).filter_by(task_id=prompt.task_id, status=FINISHED).first()
            assert evaluation is not None
            prompts.withdraw(session, prompt.id, make_user(session, role="admin"))
        assert growing.get(PAGE, params={"prompt": hostile}).status_code == 404
        for address in (
            PAGE,
            DATA,
            "/runs/growing/checkpoints/0",
            f"/api/v1/checkpoints/{evaluation.checkpoint_id}/evaluations",
            "/",
        ):
            assert "7 * 7" not in growing.get(address).text
        for address in (f"/evaluations/{evaluation.id}", f"/api/v1/evaluations/{evaluation.id}/samples"):
            assert growing.get(address).status_code == 404

    def test_the_home_and_checkpoint_pages_do_not_swell(self, growing: TestClient, hostile: str) -> None:
        assert "7 * 7" not in growing.get("/").text
        page = growing.get("/runs/growing/checkpoints/0").text
        inside = page[page.index('<details class="files" id="by-visitors">') :].partition("</details>")[0]
        assert "1 beginning that a visitor proposed" in inside
        assert "7 * 7" in inside
        assert page.count("7 * 7") == inside.count("7 * 7")

    def test_the_backlog_names_them_apart(self, growing: TestClient, hostile: str) -> None:
        page = words(growing.get("/runs/growing/checkpoints").text)
        assert "4 answers to visitors' prompts are still to come, when nothing else waits." in page
        assert "3 of 4 evaluations done" in page
