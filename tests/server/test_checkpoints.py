"""One checkpoint: scores against the one before, its words, its facts."""

import re
from html import unescape

import pytest
from fastapi.testclient import TestClient

from registry import checkpoints, db, evaluations, events, fingerprints, runs
from registry.settings import get_settings
from tests.factories import make_checkpoint, make_run, make_task
from tests.server.visitors import Visitor, member


class TestCheckpointPage:
    def test_scores_stand_beside_those_of_the_checkpoint_before(self, seeded: TestClient) -> None:
        page = seeded.get("/runs/demo/checkpoints/500").text
        assert "against" in page
        assert "step 250" in page
        assert 'class="verdict gain"' in page

    def test_the_first_checkpoint_has_nothing_to_compare_with(self, seeded: TestClient) -> None:
        page = seeded.get("/runs/demo/checkpoints/0").text
        assert 'class="verdict' not in page

    def test_scores_to_come_are_named(self, seeded: TestClient) -> None:
        page = seeded.get("/runs/demo/checkpoints/1750").text
        assert "5 scores still to come" in page
        assert "queued" in page

    def test_its_words_stand_beside_the_earlier_ones(self, seeded: TestClient) -> None:
        page = seeded.get("/runs/demo/checkpoints/1000").text
        assert page.count('<article class="saying') == 4
        assert page.count('class="said old"') == 4

    def test_facts(self, seeded: TestClient) -> None:
        page = seeded.get("/runs/demo/checkpoints/1000").text
        for fact in ("4,096,000", "7,340,032", "15.2 MB", "vllm 0.32.0", "model.safetensors"):
            assert fact in page

    def test_a_rejected_one_says_why(self, seeded: TestClient) -> None:
        assert "holds NaN" in seeded.get("/runs/uploads/checkpoints/1").text

    def test_kinds_at_one_step_have_their_own_pages(self, seeded: TestClient) -> None:
        assert "demo@1750-chat" in seeded.get("/runs/demo/checkpoints/1750?kind=chat").text

    def test_an_unknown_step_names_the_steps(self, seeded: TestClient) -> None:
        answer = seeded.get("/runs/demo/checkpoints/3")
        assert answer.status_code == 404
        assert "250" in answer.text

    @pytest.mark.parametrize("address", ["/runs/demo/checkpoints/one", "/runs/demo/checkpoints/0?kind=cat"])
    def test_a_step_that_is_no_number_is_refused(self, seeded: TestClient, address: str) -> None:
        assert seeded.get(address).status_code == 422


class TestScores:
    def test_the_stored_comparison_is_shown_with_its_interval_and_p_value(self, seeded: TestClient) -> None:
        row = row_of(seeded.get("/runs/demo/checkpoints/500").text, "Bits per byte, Chinese statutes")
        assert "▲</span> gain" in row
        assert "compared one by one" in row
        assert "p &lt; 0.001" in row

    def test_the_word_is_within_noise_where_chance_could_do_it(self, seeded: TestClient) -> None:
        page = seeded.get("/runs/demo/checkpoints/500").text
        assert "●</span> within noise" in page
        assert "在误差范围内" in seeded.get("/runs/demo/checkpoints/500", headers={"accept-language": "zh"}).text

    def test_a_failed_one_says_why(self, seeded: TestClient) -> None:
        row = row_of(seeded.get("/runs/demo/checkpoints/500").text, "Swapped words, English")
        assert "The engine went down 5 times" in row

    def test_one_that_was_left_out_says_why(self, seeded: TestClient) -> None:
        row = row_of(seeded.get("/runs/demo/checkpoints/1000").text, "Basic skills, coding")
        assert "cancelled" in row
        assert "of their 40 engine seconds" in row

    def test_a_change_from_an_earlier_step_than_the_others_names_it(self, seeded: TestClient) -> None:
        assert "step 750" in row_of(seeded.get("/runs/demo/checkpoints/1250").text, "Basic skills, coding")

    def test_one_under_way_shows_how_far_it_is(self, seeded: TestClient) -> None:
        page = seeded.get("/runs/demo/checkpoints/1750").text
        assert "64 of 120 items" in row_of(page, "Which line follows, Shakespeare")
        assert "refresh, every 5s" in page

    def test_the_page_looks_again_only_while_something_is_open(self, seeded: TestClient) -> None:
        assert "every 5s" not in seeded.get("/runs/demo/checkpoints/500").text

    def test_items_longer_than_the_context_are_counted(self, seeded: TestClient) -> None:
        row = row_of(seeded.get("/runs/demo/checkpoints/500").text, "Which line follows, Python")
        assert "3 items longer than the context" in row

    def test_a_second_protocol_is_folded_beside_the_newest(self, seeded: TestClient) -> None:
        row = row_of(seeded.get("/runs/demo/checkpoints/250").text, "Swapped words, Chinese")
        assert "1 more evaluation" in row
        assert "engine version 0.31.0, now 0.32.0" in row

    def test_the_suites_of_a_milestone_are_apart(self, seeded: TestClient) -> None:
        page = seeded.get("/runs/demo/checkpoints/500").text
        assert page.count('<tr class="suite">') == 2
        assert "Complete the idiom" in page

    def test_the_cost_is_told_with_the_budget_where_there_is_one(
        self, seeded: TestClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert "18 seconds of the engine so far" in seeded.get("/runs/demo/checkpoints/1250").text
        monkeypatch.setattr(get_settings(), "evaluation_budget_seconds", 40.0)
        assert "18 seconds of the engine, of a budget of 40 seconds" in seeded.get("/runs/demo/checkpoints/1250").text


class TestAgainst:
    def test_any_checkpoint_of_the_run_can_be_chosen(self, seeded: TestClient) -> None:
        page = seeded.get("/runs/demo/checkpoints/500").text
        assert '<option value="demo@250" selected>step 250</option>' in page
        assert '<option value="demo@1750-chat">step 1,750 · chat model</option>' in page
        assert '<option value="demo@500"' not in page

    def test_changes_are_counted_from_the_chosen_one(self, seeded: TestClient) -> None:
        page = seeded.get("/runs/demo/checkpoints/500?against=64").text
        assert '<option value="demo@64" selected>' in page
        row = row_of(page, "Bits per byte, Chinese statutes")
        assert "−0.726" in row
        assert "2.553" in row
        assert "step 64" in page.split('id="sayings"')[1]

    def test_a_later_one_shows_what_was_lost(self, seeded: TestClient) -> None:
        row = row_of(seeded.get("/runs/demo/checkpoints/250?against=1000").text, "Which line follows, Python")
        assert "▼</span> loss" in row

    def test_one_of_another_run_by_its_label(self, seeded: TestClient) -> None:
        page = seeded.get("/runs/demo/checkpoints/500?against=elsewhere@2000").text
        assert '<option value="elsewhere@2000" selected>' in page
        assert "Measured differently:" in row_of(page, "Which line follows, Chinese")

    def test_itself_is_the_one_before(self, seeded: TestClient) -> None:
        assert '<option value="demo@250" selected>' in seeded.get("/runs/demo/checkpoints/500?against=500").text

    def test_an_unknown_one_is_told(self, seeded: TestClient) -> None:
        assert seeded.get("/runs/demo/checkpoints/500?against=3").status_code == 404
        assert seeded.get("/runs/demo/checkpoints/500?against=x").status_code == 404

    def test_the_first_can_be_held_against_a_later_one(self, seeded: TestClient) -> None:
        page = seeded.get("/runs/demo/checkpoints/0").text
        assert '<option value="" selected>' in page
        assert 'class="verdict' in seeded.get("/runs/demo/checkpoints/0?against=16").text

    def test_it_leads_to_the_whole_comparison(self, seeded: TestClient) -> None:
        page = seeded.get("/runs/demo/checkpoints/500?against=64").text
        assert 'href="/compare?a=demo@64&amp;b=demo@500"' in page

    def test_the_cost_of_each_task(self, seeded: TestClient) -> None:
        row = row_of(seeded.get("/runs/demo/checkpoints/500").text, "Which line follows, Chinese")
        assert "1.8 s</span>" in row

    @pytest.mark.parametrize(("asked", "most"), [("", 30), ("?against=64", 36)])
    def test_its_questions_to_the_database_are_few(
        self, seeded: TestClient, queries: list[str], asked: str, most: int
    ) -> None:
        seeded.get(f"/runs/demo/checkpoints/500{asked}")
        assert len(queries) <= most


class TestFlips:
    def test_they_are_asked_for_when_they_come_into_view(self, seeded: TestClient) -> None:
        page = seeded.get("/runs/demo/checkpoints/1000?against=250").text
        assert 'hx-get="/runs/demo/checkpoints/1000/flips?against=demo@250" hx-trigger="intersect once"' in page

    def test_the_learned_come_first_then_the_forgotten_those_with_most_on_top(self, seeded: TestClient) -> None:
        text = seeded.get("/runs/demo/checkpoints/1000/flips").text
        assert "17 items learned" in text
        assert "1 item forgotten" in text
        assert text.index("learned") < text.index("forgotten")
        learned = text.split("forgotten</h3>")[0]
        assert learned.index("Which line follows, Python") < learned.index("Swapped words, English")

    def test_each_task_leads_to_its_items(self, seeded: TestClient) -> None:
        text = seeded.get("/runs/demo/checkpoints/1000/flips").text
        address = re.search(r'hx-get="(/compare/flips[^"]+show=learned)"', text)
        assert address
        assert "/runs/demo/tasks/" in seeded.get(unescape(address.group(1))).text

    def test_without_answers_there_is_nothing_to_tell(self, seeded: TestClient) -> None:
        text = seeded.get("/runs/elsewhere/checkpoints/2000/flips?against=1000").text
        assert "none was answered by both" in text
        assert "no earlier checkpoint" in seeded.get("/runs/demo/checkpoints/0/flips").text


class TestWords:
    def test_new_and_gone_words_are_marked(self, seeded: TestClient) -> None:
        page = seeded.get("/runs/demo/checkpoints/1000?against=64").text.split('id="sayings"')[1]
        assert "<ins>" in page
        assert "<del>" in page
        chinese = next(part for part in page.split("<article")[1:] if "第一条" in part)
        assert "<ins>保护公民、法人和其他组织的合法权益，维护社会秩序，根据宪法，制定本法。</ins>" in chinese
        assert "<del>规定的，应当依照本法的规定，由有关部门</del>" in chinese

    def test_nothing_is_marked_where_nothing_changed(self, seeded: TestClient) -> None:
        assert "<ins>" not in seeded.get("/runs/demo/checkpoints/128?against=64").text


class TestLineage:
    def tree(self, client: TestClient, address: str) -> str:
        return client.get(address).text.split('id="lineage"')[1].split("</section>")[0]

    def test_its_neighbours_and_its_digest(self, seeded: TestClient) -> None:
        tree = self.tree(seeded, "/runs/demo/checkpoints/500")
        assert "with the code of revision 4f0c2a91d6be" in tree
        assert tree.index("/checkpoints/250") < tree.index("this one") < tree.index("/checkpoints/750")
        assert re.search(r'title="Digest">[0-9a-f]{16}<', tree)

    def test_what_was_made_of_it(self, seeded: TestClient) -> None:
        assert 'href="/runs/demo/checkpoints/1750?kind=chat"' in self.tree(seeded, "/runs/demo/checkpoints/1750")
        chat = self.tree(seeded, "/runs/demo/checkpoints/1750?kind=chat")
        assert chat.index('href="/runs/demo/checkpoints/1750"') < chat.index("this one")
        assert "made of the same step" in chat

    def test_runs_that_branched_off_here_and_where_they_came_from(self, seeded: TestClient) -> None:
        with db.transaction() as session:
            demo = runs.get_run(session, "demo")
            child = make_run(session, "branch", origin=runs.Origin(demo, 600))
            make_run(session, "rewound", origin=runs.Origin(demo, 500, is_rewind=True))
            make_checkpoint(session, child, 700)
            session.info.pop("deferred_jobs", None)
        tree = self.tree(seeded, "/runs/demo/checkpoints/500")
        assert "branched off at step 600" in tree
        assert "goes on from step 500 in its place" in tree
        assert "branch" not in self.tree(seeded, "/runs/demo/checkpoints/750")
        own = self.tree(seeded, "/runs/branch/checkpoints/700")
        assert own.index('href="/runs/demo/checkpoints/600"') < own.index('href="/runs/branch"')

    def test_uploads_and_imports_say_so(self, seeded: TestClient) -> None:
        assert "Uploaded by an administrator" in self.tree(seeded, "/runs/uploads/checkpoints/1")
        assert "Measured elsewhere" in self.tree(seeded, "/runs/elsewhere/checkpoints/2000")


class TestWarnings:
    def test_the_same_weights_at_another_step(self, seeded: TestClient) -> None:
        page = seeded.get("/runs/demo/checkpoints/16").text
        sentence = 'byte for byte those of <a href="/runs/demo/checkpoints/32">step 32</a>: one of the two was probably'
        assert sentence in page

    def test_a_twin(self, seeded: TestClient) -> None:
        page = seeded.get("/runs/demo/checkpoints/750").text
        assert '<a href="/runs/demo/checkpoints/1250">step 1,250</a> does (difference 0.0003 nats' in page

    def test_they_are_told_in_chinese(self, seeded: TestClient) -> None:
        page = seeded.get("/runs/demo/checkpoints/16", headers={"accept-language": "zh"}).text
        assert "这一步的权重与<a" in page

    def test_another_tokenizer_and_kinds_yet_to_come(self, seeded: TestClient) -> None:
        with db.transaction() as session:
            checkpoint = checkpoints.get_checkpoint(session, runs.get_run(session, "demo"), 64)
            fingerprints.warn(checkpoint, fingerprints.TOKENIZER)
            fingerprints.warn(checkpoint, "something_new", step=0)
        page = seeded.get("/runs/demo/checkpoints/64").text
        assert "Its tokenizer is not the one of its run" in page
        assert "something_new" in page

    def test_most_have_none(self, seeded: TestClient) -> None:
        assert 'id="warnings"' not in seeded.get("/runs/demo/checkpoints/500").text


def test_one_known_by_its_results_alone_has_no_files_to_talk_to(seeded: TestClient) -> None:
    page = seeded.get("/runs/elsewhere/checkpoints/2000").text
    assert "known by imported results alone" in page
    assert "/chat?checkpoint" not in page


@pytest.mark.usefixtures("database", "redis_url")
class TestFullSuites:
    def checkpoint(self, state: str = "ready") -> int:
        with db.transaction() as session:
            make_task(session, "panel")
            make_task(session, "full", schedule="milestone")
            checkpoint = make_checkpoint(session, make_run(session), 10)
            evaluations.plan(session, checkpoint)
            checkpoint.state = state
            return checkpoint.id

    def test_an_administrator_makes_it_a_milestone_whatever_that_costs(self) -> None:
        checkpoint_id, admin = self.checkpoint(), member("root", role="admin")
        assert "Run the full suites" in admin.get("/runs/demo/checkpoints/10").text
        answer = admin.post(f"/checkpoints/{checkpoint_id}/full-suites", {})
        assert answer.headers["location"] == "/runs/demo/checkpoints/10?planned=1"
        page = admin.get(answer.headers["location"]).text
        assert "1 evaluation is in line now" in page
        assert "milestone</span>" in page
        assert "Run the full suites" not in page
        with db.read_session() as session:
            own = evaluations.for_checkpoint(session, checkpoints.get_by_id(session, checkpoint_id))
            assert [(one.task.name, one.ignore_budget) for one in own] == [("full", True), ("panel", False)]
        [(_, fields)] = events.client().xrange(events.BOARD_KEY)
        assert fields["kind"] == "checkpoint"

    def test_asking_twice_queues_nothing_twice(self) -> None:
        checkpoint_id, admin = self.checkpoint(), member("root", role="admin")
        admin.post(f"/checkpoints/{checkpoint_id}/full-suites", {})
        answer = admin.post(f"/checkpoints/{checkpoint_id}/full-suites", {})
        assert "was asked of it already" in admin.get(answer.headers["location"]).text

    @pytest.mark.parametrize("state", ["external", "rejected", "retired"])
    def test_what_has_no_files_to_load_is_refused(self, state: str) -> None:
        checkpoint_id, admin = self.checkpoint(state), member("root", role="admin")
        assert "Run the full suites" not in admin.get("/runs/demo/checkpoints/10").text
        answer = admin.post(f"/checkpoints/{checkpoint_id}/full-suites", {})
        assert answer.status_code == 409
        assert "nothing that an engine could load" in answer.text

    def test_nobody_else_may(self) -> None:
        checkpoint_id = self.checkpoint()
        assert member("mei").post(f"/checkpoints/{checkpoint_id}/full-suites", {}).status_code == 403
        assert Visitor().client.post(f"/checkpoints/{checkpoint_id}/full-suites", data={}).status_code == 403
        assert "Run the full suites" not in Visitor().get("/runs/demo/checkpoints/10").text


def row_of(page: str, title: str) -> str:
    """The row of a task in the table of scores."""
    return page.split(f">{title}</a>")[1].split("</tr>")[0]
