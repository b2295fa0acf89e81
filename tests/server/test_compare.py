"""Two checkpoints side by side: who meets whom, what is compared, what is not, and what is said about it."""

import json
import math
import re
from html import unescape

import pytest
from fastapi.testclient import TestClient
from sqlalchemy.orm import Session

from registry import checkpoints, comparisons, db, runs
from registry.models import Checkpoint
from server import compare, flips, forest, sides
from server.sides import View
from tests.factories import finish_evaluation, make_checkpoint, make_run, make_task

TWO = "/compare?a=demo@250&b=demo@1000"


def row_of(page: str, task: str) -> str:
    """The row of a task in the table, with the one of its flips."""
    return page.split(f'id="task-{task}"')[1].split('<tr id="task-')[0]


class TestChoosing:
    def test_without_a_choice_every_run_and_checkpoint_can_be_chosen(self, seeded: TestClient) -> None:
        page = seeded.get("/compare").text
        assert "Choose two checkpoints" in page
        assert '<option value="demo">demo</option>' in page
        assert '<option value="demo@1750-chat">' in page
        assert '<option value="elsewhere@2000">elsewhere · step 2,000 · 4B tokens</option>' in page
        assert "uploads@1" not in page  # it was rejected

    def test_one_side_alone_waits_for_the_other(self, seeded: TestClient) -> None:
        page = seeded.get("/compare?b=demo@500").text
        assert '<option value="demo@500" selected>' in page
        assert "Choose two checkpoints" in page

    def test_an_empty_site_says_so(self, client: TestClient) -> None:
        assert "There is no checkpoint yet" in client.get("/compare").text

    def test_the_address_of_the_other_way_round(self, seeded: TestClient) -> None:
        assert 'href="/compare?a=demo@1000&amp;b=demo@250"' in seeded.get(TWO).text

    def test_an_unknown_label_names_what_exists_and_keeps_the_choice(self, seeded: TestClient) -> None:
        answer = seeded.get("/compare?a=demo@7&b=demo@500")
        assert answer.status_code == 404
        assert "no checkpoint at step 7" in answer.text
        assert '<option value="demo@500" selected>' in answer.text
        assert seeded.get("/compare?a=nobody&b=demo@500").status_code == 404
        assert "names no checkpoint" in seeded.get("/compare?a=demo@1@2&b=demo").text

    def test_the_same_twice_is_refused(self, seeded: TestClient) -> None:
        for address in ("/compare?a=demo@500&b=demo@500", "/compare?a=demo&b=demo"):
            answer = seeded.get(address)
            assert answer.status_code == 422
            assert "Both sides are demo@" in answer.text

    def test_a_long_run_is_listed_in_even_steps(self, session: Session) -> None:
        run = make_run(session, "long")
        for step in range(sides.MAX_OPTIONS + 100):
            session.add(Checkpoint(run=run, step=step, folder=f"long/{step}", digest="", manifest={}, state="ready"))
        session.flush()
        [group] = sides.option_groups(session)
        assert len(group.options) <= sides.MAX_OPTIONS
        assert [group.options[0].value, group.options[-1].value] == [f"long@{sides.MAX_OPTIONS + 99}", "long@0"]

    @pytest.mark.parametrize("asked", ["x=-1", "x=nan", "x=inf", "at=steps", "a=" + "n" * 200])
    def test_nonsense_is_refused(self, seeded: TestClient, asked: str) -> None:
        assert seeded.get(f"/compare?{asked}").status_code == 422


class TestTwoCheckpoints:
    def test_each_task_has_its_difference_interval_and_verdict(self, seeded: TestClient) -> None:
        row = row_of(seeded.get(TWO).text, "code_next_line")
        assert "+17.5 points" in row
        assert "+9.7 … +24.7" in row
        assert "▲</span> gain" in row
        assert "p &lt; 0.001" in row
        assert "alone p &lt; 0.001" in row
        assert "21 learned, 0 forgotten" in row

    def test_less_may_be_better(self, seeded: TestClient) -> None:
        row = row_of(seeded.get(TWO).text, "zh_bits")
        assert "lower is better" in row
        assert "−0.642" in row
        assert "▲</span> gain" in row
        assert "forgotten" not in row  # texts are neither right nor wrong

    def test_tasks_stand_under_their_ability(self, seeded: TestClient) -> None:
        page = seeded.get(TWO).text.split('id="table"')[1]
        assert page.index("Chinese</th>") < page.index("English</th>") < page.index("Code</th>")

    def test_the_sum_counts_verdicts(self, seeded: TestClient) -> None:
        page = seeded.get("/compare?a=demo@250&b=demo@500").text
        assert "Of 8 tasks," in page
        assert "5 better at B" in page
        assert "3 within noise" in page

    def test_swapped_gains_are_losses(self, seeded: TestClient) -> None:
        page = seeded.get("/compare?a=demo@1000&b=demo@250").text
        assert "8 better at A" in page
        assert "0 right at B only, 21 at A only" in row_of(page, "code_next_line")

    def test_what_only_one_was_asked_is_listed(self, seeded: TestClient) -> None:
        page = seeded.get("/compare?a=demo@250&b=demo@500").text
        assert "4 tasks that only one of the two has a score of" in page

    def test_a_plot_for_each_unit(self, seeded: TestClient) -> None:
        page = seeded.get(TWO).text
        assert page.count("data-forest") == 2
        assert "in bits per byte" in page
        assert "in percentage points" in page
        assert "← B is better" in page.split('id="forest-down-bits_per_byte"')[1].split("</figure>")[0]
        assert "← A is better" in page.split('id="forest-up-share"')[1].split("</figure>")[0]

    def test_it_asks_the_database_a_bounded_number_of_questions(self, seeded: TestClient, queries: list[str]) -> None:
        seeded.get(TWO)
        assert len(queries) <= 13

    def test_in_chinese(self, seeded: TestClient) -> None:
        page = seeded.get(TWO, headers={"accept-language": "zh"}).text
        assert "共 8 项任务" in page
        assert "学会 21 题，忘掉 0 题" in page

    def test_a_rejected_checkpoint_says_why(self, seeded: TestClient) -> None:
        page = seeded.get("/compare?a=uploads@1&b=demo@500").text
        assert "holds NaN" in page
        assert "no task in common" in page


class TestMeasuredDifferently:
    def test_it_is_not_compared_and_said(self, seeded: TestClient) -> None:
        page = seeded.get("/compare?a=demo@64&b=demo@500").text
        assert 'id="task-zh_pairs"' not in page
        apart = page.split('id="apart"')[1]
        assert "Swapped words, Chinese" in apart
        assert "engine version 0.31.0, now 0.32.0" in apart

    def test_it_can_be_asked_for_and_is_marked(self, seeded: TestClient) -> None:
        page = seeded.get("/compare?a=demo@64&b=demo@500&mixed=true").text
        assert "Measured differently:" in row_of(page, "zh_pairs")
        assert 'id="apart"' not in page

    def test_imported_results_are_compared_by_their_scores(self, seeded: TestClient) -> None:
        page = seeded.get("/compare?a=demo@500&b=elsewhere@2000&mixed=true").text
        assert "by the two scores alone" in row_of(page, "zh_next_line")
        assert "item by item" not in page

    def test_without_a_task_measured_alike_there_is_no_table(self, seeded: TestClient) -> None:
        page = seeded.get("/compare?a=demo@500&b=elsewhere@2000").text
        assert "No task was asked of both in the same way" in page
        assert "data-forest" not in page


@pytest.fixture
def second(seeded: TestClient) -> TestClient:
    """The seeded site with a second run, whose checkpoints lie between those of the first."""
    with db.transaction() as session:
        run = make_run(session, "second")
        for step, tokens in ((10, 1_000_000), (20, 2_050_000), (30, 60_000_000)):
            make_checkpoint(session, run, step, tokens_seen=tokens, flops=tokens * 1e8)
        make_run(session, "young")
        session.info.pop("deferred_jobs", None)
    return seeded


class TestTwoRuns:
    def test_they_meet_at_the_largest_amount_in_common(self, second: TestClient) -> None:
        page = second.get("/compare?a=demo&b=second").text
        assert "demo@500" in page
        assert "second@20" in page
        assert "They are 2,000 tokens apart (0.1%)" in page or "2K tokens apart (0.1%)" in page

    def test_the_reader_can_move_along(self, second: TestClient) -> None:
        page = second.get("/compare?a=demo&b=second").text
        younger = re.search(r'rel="prev" href="([^"]+)"', page)
        assert younger
        page = second.get(unescape(younger.group(1))).text
        assert "demo@250" in page
        assert "second@10" in page

    def test_by_compute_other_checkpoints_may_meet(self, second: TestClient) -> None:
        page = second.get("/compare?a=demo&b=second&at=flops").text
        assert "FLOPs apart" in page

    def test_a_checkpoint_meets_a_run(self, second: TestClient) -> None:
        page = second.get("/compare?a=demo@1000&b=second").text
        assert "second@20" in page
        assert "A difference may come from age alone" in page

    def test_a_run_without_amounts_cannot_be_aligned(self, second: TestClient) -> None:
        answer = second.get("/compare?a=demo&b=young")
        assert answer.status_code == 422
        assert "cannot be brought to the same age" in answer.text

    def test_an_address_keeps_what_was_chosen(self) -> None:
        view = View("demo", "second", "flops", 1.5e15, mixed=True)
        assert view.href == "/compare?a=demo&b=second&at=flops&x=1.5e%2B15&mixed=true"
        assert View("demo@1", "demo@2", "flops", 3.0).href == "/compare?a=demo@1&b=demo@2"
        assert View("demo", "b").with_x(2048000.0).href == "/compare?a=demo&b=b&at=tokens&x=2048000"


class TestFlips:
    def address(self, client: TestClient, task: str = "code_next_line") -> str:
        found = re.search(r'hx-get="(/compare/flips[^"]+)"', row_of(client.get(TWO).text, task))
        assert found
        return unescape(found.group(1))

    def test_the_learned_come_first_with_both_answers(self, seeded: TestClient) -> None:
        page = seeded.get(self.address(seeded)).text
        assert page.index("21 items learned") < page.index("0 items forgotten")
        assert page.count('<p class="flip-head') == flips.FLIPS_SHOWN
        assert re.search(r'href="/runs/demo/tasks/code_next_line/items/[0-9a-f]{16}\?protocol=\w{16}"', page)
        assert 'title="the choice of demo@1000">B</span>' in page
        assert "the right answer" in page
        assert 'name="robots" content="noindex"' in page

    def test_a_fragment_for_the_page_itself(self, seeded: TestClient) -> None:
        text = seeded.get(self.address(seeded), headers={"hx-request": "true"}).text
        assert "<html" not in text
        assert "items learned" in text

    def test_all_of_one_direction(self, seeded: TestClient) -> None:
        whole = f"{self.address(seeded)}&show=learned&whole=true"
        assert whole in unescape(seeded.get(self.address(seeded)).text)
        page = seeded.get(whole).text
        assert page.count('<p class="flip-head') == 21
        assert "forgotten" not in page

    def test_free_answers_stand_beside_the_right_one(self, seeded: TestClient) -> None:
        page = seeded.get("/compare?a=demo@500&b=demo@1500").text
        found = re.search(r'hx-get="(/compare/flips[^"]+)"', row_of(page, "sums"))
        assert found
        text = seeded.get(unescape(found.group(1))).text
        assert "What is" in text
        assert "the right answer" in text

    def test_its_questions_to_the_database_are_few(self, seeded: TestClient, queries: list[str]) -> None:
        address = self.address(seeded)
        queries.clear()
        seeded.get(address)
        assert len(queries) <= 5

    def test_other_tasks_share_no_item(self, seeded: TestClient) -> None:
        one, other = self.address(seeded), self.address(seeded, "zh_next_line")
        first, second = re.findall(r"=(\d+)", one)[0], re.findall(r"=(\d+)", other)[1]
        assert seeded.get(f"/compare/flips?a={first}&b={second}").status_code == 422

    def test_what_has_no_answers_here_is_refused(self, seeded: TestClient) -> None:
        with db.read_session() as session:
            checkpoint = checkpoints.get_checkpoint(session, runs.get_run(session, "elsewhere"), 2000)
            found = seeded.get(f"/api/v1/checkpoints/{checkpoint.id}/evaluations").json()
        assert seeded.get(f"/compare/flips?a={found[0]['id']}&b=1").status_code == 409
        assert seeded.get("/compare/flips?a=999999&b=1").status_code == 404


class TestApi:
    def test_every_task_as_numbers(self, seeded: TestClient) -> None:
        found = seeded.get("/api/v1/compare?a=demo@250&b=demo@1000").json()
        assert (found["a"]["step"], found["b"]["step"]) == (250, 1000)
        [one] = [task for task in found["tasks"] if task["task"] == "code_next_line"]
        assert one["value"] == pytest.approx(0.175)
        assert (one["learned"], one["forgotten"], one["verdict"], one["is_paired"]) == (21, 0, "gain", True)
        assert one["p_value"] <= one["corrected_p"]
        assert found["alone"] == ["basic_skills"]

    def test_what_differs_is_named(self, seeded: TestClient) -> None:
        found = seeded.get("/api/v1/compare?a=demo@64&b=demo@500").json()
        assert [(one["task"], one["differs"]) for one in found["apart"]] == [("zh_pairs", ["engine_version", "dtype"])]

    def test_errors_are_told(self, seeded: TestClient) -> None:
        assert seeded.get("/api/v1/compare?a=demo@1&b=demo@500").status_code == 404
        assert seeded.get("/api/v1/compare?a=demo@500&b=demo@500").json()["status"] == 422


def test_an_interval_without_an_end_is_not_drawn(session: Session) -> None:
    run, task = make_run(session), make_task(session)
    for step, value in ((10, 0.3), (20, 0.4)):
        finish_evaluation(session, make_checkpoint(session, run, step), task, value, stderr=math.inf)
    session.expire_all()
    one, other = (checkpoints.by_label(session, f"demo@{step}") for step in (10, 20))
    found = comparisons.compare(session, one, other)
    told = compare.tell(sides.Sides(one, other, None), found)
    [plot] = forest.forests(told.groups, found.outcomes)
    assert json.loads(plot.data)["rows"][0]["low"] is None
