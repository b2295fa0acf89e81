"""The ledger of a task: what became of each question, in the page, in the data, and for one question alone."""

import base64
import gzip
import json
from typing import Any

import pytest
from fastapi.testclient import TestClient

from registry import db
from registry.models import Run, Task
from registry.settings import get_settings
from server import i18n
from server.ledger import STATE_WORDS, Selection, language_of, title_of
from tests.factories import make_checkpoint, make_run, make_task
from tests.server import ledgers
from tests.server.ledgers import HISTORIES, NUM_CHECKPOINTS, PROTOCOL, key

PAGE, API = "/runs/grown/tasks/quiz", "/api/v1/runs/grown/tasks/quiz/ledger"


@pytest.fixture
def grown(client: TestClient) -> TestClient:
    """A browser before a site where a run has answered six questions at twelve checkpoints."""
    with db.transaction() as session:
        ledgers.make_ledger(session)
        session.info.pop("deferred_jobs", None)  # no broker listens
    return client


def add(make: Any, *arguments: Any) -> None:
    with db.transaction() as session:
        run = session.query(Run).filter_by(name="grown").one_or_none() or make_run(session, "grown")
        make(session, run, *arguments)
        session.info.pop("deferred_jobs", None)


def data(client: TestClient, address: str = API, **query: Any) -> dict[str, Any]:
    answer = client.get(address, params=query)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def grid(found: dict[str, Any]) -> list[list[int]]:
    cells = base64.b64decode(found["cells"])
    width = len(found["checkpoints"])
    assert len(cells) == width * len(found["items"])
    return [list(cells[start : start + width]) for start in range(0, len(cells), width)]


class TestData:
    def test_items_stand_by_age_of_acquisition_the_never_learned_last(self, grown: TestClient) -> None:
        found = data(grown)
        assert [(item["item"], item["state"]) for item in found["items"]] == [
            (key("early"), "learned"),
            (key("back"), "relearned"),
            (key("restless"), "flickering"),
            (key("lost"), "forgotten"),
            (key("steady"), "learned"),
            (key("lucky"), "never"),
        ]
        assert found["patience"] == {"right": 4, "wrong": 3}
        assert found["counts"] == {"learned": 2, "relearned": 1, "forgotten": 1, "flickering": 1, "never": 1}

    def test_a_cell_is_a_byte_in_the_order_of_the_items(self, grown: TestClient) -> None:
        found = data(grown)
        names = {key(name): marks for name, marks in HISTORIES.items()}
        expected = [[255 if mark == "✓" else 1 for mark in names[item["item"]]] for item in found["items"]]
        assert grid(found) == expected

    def test_or_the_probability_of_the_right_answer(self, grown: TestClient) -> None:
        found = data(grown, view="likelihood")
        assert found["view"] == "likelihood"
        first = grid(found)[0]
        assert {round((byte - 1) / 254, 2) for byte in first} == {0.71}

    def test_an_item_has_its_age_and_how_much_was_forgotten(self, grown: TestClient) -> None:
        by_item = {item["item"]: item for item in data(grown)["items"]}
        lost = by_item[key("lost")]
        assert (lost["acquired"], lost["age_step"], lost["age_tokens"]) == (1, 100, 409_600)
        assert lost["forgettability"] == pytest.approx(6 / 10)
        assert lost["forgetting_events"] == 1
        assert by_item[key("early")]["from_start"] is True
        assert by_item[key("lucky")]["acquired"] is None

    def test_filters_choose_the_rows(self, grown: TestClient) -> None:
        def left(**query: str) -> set[str]:
            return {item["item"] for item in data(grown, **query)["items"]}

        assert left(state="forgotten") == {key("lost")}
        assert left(subject="law") == {key("steady"), key("early"), key("restless")}
        assert left(language="chinese") == {key("early"), key("lost")}
        assert left(q="CITIZENS law") == {key("steady")}
        assert left(q="the fourth") == {key(name) for name in HISTORIES}
        assert left(subject="law", language="chinese") == {key("early")}
        assert left(q="nowhere") == set()

    def test_counts_are_those_beside_the_other_filters(self, grown: TestClient) -> None:
        counts = data(grown, state="forgotten", subject="law")["counts"]
        assert counts == {"learned": 2, "relearned": 0, "forgotten": 0, "flickering": 1, "never": 0}

    def test_it_travels_compressed(self, grown: TestClient) -> None:
        with grown.stream("GET", API, headers={"accept-encoding": "gzip"}) as answer:
            raw = b"".join(answer.iter_raw())
        assert answer.headers["content-encoding"] == "gzip"
        assert json.loads(gzip.decompress(raw))["run"] == "grown"
        plain = grown.get(API, headers={"accept-encoding": "identity"})
        assert "content-encoding" not in plain.headers
        assert plain.json()["run"] == "grown"

    def test_free_answers_are_right_or_wrong_whatever_is_asked_for(self, grown: TestClient) -> None:
        add(ledgers.make_free)
        found = data(grown, "/api/v1/runs/grown/tasks/sums/ledger", view="likelihood")
        assert found["view"] == "right"
        assert grid(found) == [[1, 255, 255, 255]]
        assert found["items"][0]["state"] == "learned"
        assert found["items"][0]["age_step"] == 100

    def test_texts_have_a_likelihood_and_no_state(self, grown: TestClient) -> None:
        add(ledgers.make_texts)
        found = data(grown, "/api/v1/runs/grown/tasks/bits/ledger")
        assert (found["view"], found["counts"]) == ("likelihood", {})
        assert [(item["text"], item["acquired"], item["state"]) for item in found["items"]] == [
            ("To be", 2, ""),
            ("or not", 4, ""),
        ]

    @pytest.mark.parametrize(
        "query", ["state=some", "view=x", "precision=0", "kind=x", "q=" + "x" * 201, "language=la"]
    )
    def test_a_query_of_another_form_is_refused(self, grown: TestClient, query: str) -> None:
        assert grown.get(f"{API}?{query}").status_code == 422

    @pytest.mark.parametrize(
        "address", ["/api/v1/runs/none/tasks/quiz/ledger", "/api/v1/runs/grown/tasks/none/ledger", f"{API}?kind=chat"]
    )
    def test_what_is_not_there(self, grown: TestClient, address: str) -> None:
        answer = grown.get(address)
        assert answer.status_code == 404
        assert answer.json()["detail"]

    def test_the_database_is_asked_a_few_questions_however_many_checkpoints(
        self, grown: TestClient, queries: list[str]
    ) -> None:
        data(grown)
        few = len(queries)
        add(lambda session, run: [_answered(session, run, NUM_CHECKPOINTS + more) for more in range(6)])
        queries.clear()
        data(grown)
        assert len(queries) == few <= 6


def _answered(session: Any, run: Run, column: int) -> None:
    task = session.query(Task).filter_by(name="quiz").one()
    checkpoint = make_checkpoint(session, run, 100 * column)
    ledgers.answer(session, checkpoint, task, ledgers.items(), ledgers.rows_at(0))


class TestPage:
    def test_it_says_what_one_sees_and_how_many_are_in_each_state(self, grown: TestClient) -> None:
        page = grown.get(PAGE).text
        assert "Each row is one question, each column one checkpoint" in page
        assert "the first of 4 right answers in a row" in page
        for state, number in {"learned": 2, "relearned": 1, "forgotten": 1, "flickering": 1, "never": 1}.items():
            assert f'href="?state={state}"' in page
            assert f'state-card {state}"' in page
            assert f'<span class="state-num num">{number}</span>' in page

    def test_every_question_leads_to_its_page_and_no_text_is_markup(self, grown: TestClient) -> None:
        page = grown.get(PAGE).text
        for name in HISTORIES:
            assert f'href="{PAGE}/items/{key(name)}"' in page
        assert "Who wrote &lt;b&gt;Hamlet&lt;/b&gt;?" in page

    def test_the_selection_stands_in_the_address_of_everything(self, grown: TestClient) -> None:
        page = grown.get(PAGE, params={"subject": "law", "view": "likelihood"}).text
        assert f'data-src="{API}?view=likelihood&amp;subject=law"' in page
        assert 'href="?view=likelihood&amp;state=learned&amp;subject=law"' in page
        assert '<option value="law" selected>law (3)</option>' in page
        assert "3 of 6 questions" in page

    def test_a_hostile_search_is_text(self, grown: TestClient) -> None:
        page = grown.get(PAGE, params={"q": '"><script>alert(1)</script>'}).text
        assert "<script>alert" not in page
        assert "No question passes these filters." in page

    def test_the_table_comes_by_pages(self, grown: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("server.routes.ledger.PAGE_ITEMS", 4)
        first, last = grown.get(PAGE).text, grown.get(f"{PAGE}?page=9").text
        assert 'rel="next" href="?page=2#ledger-items"' in first
        assert "5–6 of 6" in last
        assert f"/items/{key('lucky')}" in last

    def test_in_chinese(self, grown: TestClient) -> None:
        page = grown.get(PAGE, headers={"accept-language": "zh"}).text
        assert "测验" in page
        assert "遗忘" in page

    def test_texts_say_that_they_are_neither_right_nor_wrong(self, grown: TestClient) -> None:
        add(ledgers.make_texts)
        page = grown.get("/runs/grown/tasks/bits").text
        assert "A text is neither right nor wrong" in page
        assert "state-card" not in page

    def test_a_young_run_cannot_tell_knowledge_from_luck(self, client: TestClient) -> None:
        with db.transaction() as session:
            run, task = make_run(session, "grown"), make_task(session, "quiz")
            ledgers.answer(session, make_checkpoint(session, run, 0), task, ledgers.items(), ledgers.rows_at(0))
            session.info.pop("deferred_jobs", None)
        page = client.get(PAGE).text
        assert "With 1 checkpoint knowledge cannot be told from luck yet" in page
        assert 'data-src="/api/v1' in page

    def test_before_the_first_checkpoint_it_waits(self, client: TestClient) -> None:
        add(lambda session, run: make_task(session, "quiz"))
        page = client.get(PAGE).text
        assert "No checkpoint has answered these questions yet" in page
        assert 'data-live="evaluation:grown:quiz"' in page

    def test_imported_results_have_no_questions(self, client: TestClient) -> None:
        with db.transaction() as session:
            ledgers.make_imported(session)
            session.info.pop("deferred_jobs", None)
        assert "Only the results were imported" in client.get("/runs/foreign/tasks/elsewhere").text

    def test_probes_are_for_the_time_lapse(self, grown: TestClient) -> None:
        add(lambda session, run: make_task(session, "probes", is_probe=True, metric=""))
        page = grown.get("/runs/grown/tasks/probes").text
        assert 'href="/runs/grown/timelapse"' in page

    def test_a_missing_file_is_a_sentence(self, grown: TestClient) -> None:
        next(get_settings().samples_dir.glob("[0-9]*/*/*.parquet")).unlink()
        answer = grown.get(PAGE)
        assert answer.status_code == 200
        assert "The answers cannot be shown. There is no sample file" in answer.text

    def test_another_protocol_can_be_chosen(self, grown: TestClient) -> None:
        add(_other_protocol)
        latest = grown.get(PAGE).text
        assert "Answers are compared only where" in latest
        assert "With 1 checkpoint" in latest
        [earlier] = [part.split('"')[0] for part in latest.split('href="?protocol=')[1:]][:1]
        assert "the first of 4 right answers" in grown.get(f"{PAGE}?protocol={earlier}").text

    def test_the_database_is_asked_a_few_questions(self, grown: TestClient, queries: list[str]) -> None:
        grown.get(PAGE)
        assert len(queries) <= 8


def _other_protocol(session: Any, run: Run) -> None:
    task = session.query(Task).filter_by(name="quiz").one()
    checkpoint = make_checkpoint(session, run, 9000)
    other = PROTOCOL | {"engine": "other"}
    ledgers.answer(session, checkpoint, task, ledgers.items(), ledgers.rows_at(0), other)


class TestItem:
    def test_the_question_its_choices_and_what_became_of_it(self, grown: TestClient) -> None:
        page = grown.get(f"{PAGE}/items/{key('lost')}").text
        assert "秦始皇统一了哪些国家？" in page
        assert "The model learned this at 409.6K tokens and has forgotten it since." in page
        assert page.count("the right answer</span>") == 1
        assert "5 of 12" in page
        assert page.count('title="changed"') == 2

    def test_every_answer_leads_to_its_evaluation(self, grown: TestClient) -> None:
        page = grown.get(f"{PAGE}/items/{key('lost')}").text
        rows = page.split("<tbody>")[-1]
        assert rows.count('href="/evaluations/') == NUM_CHECKPOINTS
        assert rows.index("step 1,100") < rows.index("step 100<")

    def test_its_number_will_do_for_its_hash(self, grown: TestClient) -> None:
        assert "秦始皇统一了哪些国家？" in grown.get(f"{PAGE}/items/4").text

    def test_neighbours_are_linked(self, grown: TestClient) -> None:
        first, second = (grown.get(f"{PAGE}/items/{key(name)}").text for name in ("steady", "early"))
        assert 'rel="prev"' not in first
        assert f'href="{PAGE}/items/{key("early")}" rel="next"' in first
        assert f'href="{PAGE}/items/{key("steady")}" rel="prev"' in second

    def test_no_text_of_it_is_markup(self, grown: TestClient) -> None:
        page = grown.get(f"{PAGE}/items/{key('lucky')}").text
        assert "<b>Hamlet" not in page
        assert "The model has not learned this yet" in page

    def test_a_free_answer_is_read_in_its_own_words(self, grown: TestClient) -> None:
        add(ledgers.make_free)
        page = grown.get(f"/runs/grown/tasks/sums/items/{99:016x}").text
        assert "What it wrote" in page
        assert ">12</td>" in page
        assert "data-item-chart" not in page

    def test_a_text_has_a_curve_and_no_state(self, grown: TestClient) -> None:
        add(ledgers.make_texts)
        page = grown.get(f"/runs/grown/tasks/bits/items/{50:016x}").text
        assert "it has no right answer" in page
        assert "data-item-chart" in page

    def test_as_json(self, grown: TestClient) -> None:
        found = data(grown, f"/api/v1{PAGE}/items/{key('lost')}")
        assert found["state"] == "forgotten"
        assert [one["is_right"] for one in found["answers"]] == [mark == "✓" for mark in HISTORIES["lost"]]
        assert found["answers"][1]["chosen"] == found["target"]
        assert sum(found["answers"][0]["probabilities"]) == pytest.approx(1)

    @pytest.mark.parametrize("item", ["0" * 16, "x", "%3Cscript%3E"])
    def test_an_unknown_one(self, grown: TestClient, item: str) -> None:
        assert grown.get(f"{PAGE}/items/{item}").status_code == 404

    def test_the_database_is_asked_a_few_questions(self, grown: TestClient, queries: list[str]) -> None:
        grown.get(f"{PAGE}/items/{key('lost')}")
        assert len(queries) <= 9


class TestSelection:
    def test_what_is_as_usual_is_left_out_of_the_address(self) -> None:
        assert Selection().query() == "?"
        assert Selection(state="never").query(q="a b&c") == "?state=never&q=a+b%26c"
        assert Selection(state="never", kind="chat").of_line == "?kind=chat"


class TestWords:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("Which law?", "english"),
            ("哪部法律？", "chinese"),
            ("What does 法 mean in English?", "english"),
            ("", "english"),
        ],
    )
    def test_the_language_is_told_from_the_text(self, text: str, expected: str) -> None:
        assert language_of(text, Task(ability="knowledge")) == expected

    def test_what_is_about_code_is_code(self) -> None:
        assert language_of("def read():", Task(ability="code")) == "code"

    def test_of_a_long_prompt_the_end_is_the_title(self) -> None:
        item = ledgers.items()[0]._replace(prompt="An example. " * 40 + "Which law?")
        assert title_of(item).startswith("…")
        assert title_of(item).endswith("Which law?")
        assert title_of(item._replace(prompt="")) == "the first / the second / the third / the fourth"
        assert title_of(None) == ""


def test_every_state_has_a_word_in_chinese() -> None:
    i18n.use("zh")
    try:
        assert all(i18n.gettext(word) != word for word in STATE_WORDS.values())
    finally:
        i18n.use("en")
