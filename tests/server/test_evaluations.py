"""One evaluation: its page, and asking for it again."""

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select

from registry import db, evaluations, events, tickets
from registry.models import Checkpoint, Evaluation, Task
from tests.factories import make_checkpoint, make_run, make_task
from tests.server.visitors import Visitor, member


def id_of(task: str, step: int, run: str = "demo") -> int:
    """The newest evaluation of a task at a step of the seeded run."""
    with db.read_session() as session:
        query = (
            select(Evaluation.id)
            .join(Evaluation.task)
            .join(Evaluation.checkpoint)
            .where(Task.name == task, Checkpoint.step == step, Checkpoint.run.has(name=run))
        )
        found = session.scalars(query.order_by(Evaluation.id.desc())).first()
        assert found is not None
        return found


class TestPage:
    def test_every_metric_has_its_interval(self, seeded: TestClient) -> None:
        page = seeded.get(f"/evaluations/{id_of('zh_next_line', 500)}").text
        for name in ("accuracy", "bits per byte", "Brier score", "probability of the right answer"):
            assert name in page
        assert "on the curve" in page

    def test_the_change_is_told_in_plain_words(self, seeded: TestClient) -> None:
        page = seeded.get(f"/evaluations/{id_of('zh_bits', 500)}").text
        assert "Against step 250" in page
        assert "▲</span> gain" in page
        assert "less than once in 1,000 comparisons" in page
        assert "answered the same 120 items, compared one by one" in page

    def test_it_leads_to_the_steps_before_and_after(self, seeded: TestClient) -> None:
        page = seeded.get(f"/evaluations/{id_of('zh_bits', 500)}").text
        assert f'href="/evaluations/{id_of("zh_bits", 250)}" rel="prev"' in page
        assert f'href="/evaluations/{id_of("zh_bits", 750)}" rel="next"' in page

    def test_the_first_says_that_there_is_nothing_before(self, seeded: TestClient) -> None:
        assert "nothing to compare with" in seeded.get(f"/evaluations/{id_of('zh_bits', 0)}").text

    def test_the_protocol_is_a_table_that_marks_what_counts(self, seeded: TestClient) -> None:
        page = seeded.get(f"/evaluations/{id_of('zh_bits', 500)}").text
        assert '<dt class="identity">engine version</dt><dd>0.32.0</dd>' in page
        assert "<dt>code revision</dt><dd>4f0c2a9</dd>" in page

    def test_the_other_protocol_of_the_step_is_linked(self, seeded: TestClient) -> None:
        page = seeded.get(f"/evaluations/{id_of('zh_pairs', 250)}").text
        assert "The same task at this step" in page
        assert "engine version 0.31.0, now 0.32.0" in page

    def test_slices_and_what_was_cut_are_told(self, seeded: TestClient) -> None:
        page = seeded.get(f"/evaluations/{id_of('code_next_line', 500)}").text
        assert "2 slices" in page
        assert "3 items longer than the context" in page

    def test_a_failure_shows_its_sentence_and_the_last_lines_escaped(self, seeded: TestClient) -> None:
        page = seeded.get(f"/evaluations/{id_of('en_pairs', 500)}").text
        assert "The engine went down 5 times at this" in page
        assert "RuntimeError: &lt;device&gt; out of memory" in page
        assert "/retry" not in page

    def test_one_under_way_shows_how_far_it_is_and_looks_again(self, seeded: TestClient) -> None:
        page = seeded.get(f"/evaluations/{id_of('en_next_line', 1750)}").text
        assert "64 of 120 items" in page
        assert "refresh, every 5s" in page

    def test_imported_results_say_so(self, seeded: TestClient) -> None:
        page = seeded.get(f"/evaluations/{id_of('zh_next_line', 2000, 'elsewhere')}").text
        assert "imported" in page
        assert "lm-eval 0.4.8, hf" in page
        assert "Compared by the two scores alone" in page

    def test_crawlers_are_asked_to_leave_the_items_alone(self, seeded: TestClient) -> None:
        assert 'name="robots" content="noindex"' in seeded.get(f"/evaluations/{id_of('zh_bits', 500)}").text

    def test_an_unknown_one(self, seeded: TestClient) -> None:
        assert seeded.get("/evaluations/99999").status_code == 404


class TestItems:
    def test_items_come_by_pages_of_fifty(self, seeded: TestClient) -> None:
        address = f"/evaluations/{id_of('zh_next_line', 500)}"
        assert seeded.get(address).text.count('<li class="item"') == 50
        last = seeded.get(address, params={"page": 3}).text
        assert last.count('<li class="item"') == 20
        assert "101–120 of 120" in last

    def test_right_and_wrong_can_be_looked_at_alone(self, seeded: TestClient) -> None:
        address = f"/evaluations/{id_of('zh_next_line', 500)}"
        wrong = seeded.get(address, params={"show": "wrong"}).text
        assert '<span class="right">' not in wrong
        assert '<span class="wrong">' in wrong
        assert "show=wrong&amp;page=2#samples" in wrong

    def test_an_items_text_is_no_markup(self, seeded: TestClient) -> None:
        page = seeded.get(f"/evaluations/{id_of('en_next_line', 500)}").text
        assert "&lt;script&gt;alert(&#39;a ghost&#39;)&lt;/script&gt;" in page
        assert "<script>" not in page

    @pytest.mark.parametrize("query", ["page=0", "page=x", "show=some"])
    def test_a_query_of_another_form_is_refused(self, seeded: TestClient, query: str) -> None:
        assert seeded.get(f"/evaluations/{id_of('zh_next_line', 500)}?{query}").status_code == 422

    def test_a_missing_file_is_a_sentence_on_the_page(self, seeded: TestClient) -> None:
        evaluation_id = id_of("zh_next_line", 500)
        with db.read_session() as session:
            evaluations.sample_paths(evaluations.get_evaluation(session, evaluation_id))[0].unlink()
        answer = seeded.get(f"/evaluations/{evaluation_id}")
        assert answer.status_code == 200
        assert "The answers cannot be shown. There is no sample file" in answer.text


@pytest.mark.usefixtures("database", "redis_url")
class TestRunAgain:
    def failed(self) -> int:
        with db.transaction() as session:
            make_task(session)
            [evaluation] = evaluations.plan(session, make_checkpoint(session, make_run(session), 10))
            tickets.cancel(session, evaluation_id=evaluation.id)
            evaluations.fail(session, evaluation.id, "The engine went down.")
            return evaluation.id

    def test_an_administrator_puts_it_back_in_line_and_open_pages_hear_of_it(self) -> None:
        evaluation_id = self.failed()
        admin = member("root", role="admin")
        assert f'action="/evaluations/{evaluation_id}/retry"' in admin.get(f"/evaluations/{evaluation_id}").text
        answer = admin.post(f"/evaluations/{evaluation_id}/retry", {})
        assert answer.headers["location"] == f"/evaluations/{evaluation_id}?again=true"
        assert "It is in line again" in admin.get(answer.headers["location"]).text
        with db.read_session() as session:
            assert evaluations.get_evaluation(session, evaluation_id).status == "queued"
            assert tickets.num_queued(session) == 1
        [(_, fields)] = events.client().xrange(events.BOARD_KEY)
        assert fields["kind"] == "evaluation"
        assert '"task": "zh_next_line"' in fields["data"]

    def test_what_is_in_line_is_not_queued_twice(self) -> None:
        evaluation_id, admin = self.failed(), member("root", role="admin")
        admin.post(f"/evaluations/{evaluation_id}/retry", {})
        answer = admin.post(f"/evaluations/{evaluation_id}/retry", {})
        assert answer.status_code == 409
        assert "only what failed or was cancelled can be run again" in answer.text

    def test_nobody_else_may(self) -> None:
        evaluation_id = self.failed()
        assert member("mei").post(f"/evaluations/{evaluation_id}/retry", {}).status_code == 403
        assert Visitor().client.post(f"/evaluations/{evaluation_id}/retry", data={}).status_code == 403

    def test_another_site_cannot_send_it(self) -> None:
        evaluation_id, admin = self.failed(), member("root", role="admin")
        answer = admin.post(f"/evaluations/{evaluation_id}/retry", {}, origin="https://evil.example")
        assert answer.status_code == 403
        with db.read_session() as session:
            assert evaluations.get_evaluation(session, evaluation_id).status == "failed"
