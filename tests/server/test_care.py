"""Names, averages and retention in the console; lineages as pages and as JSON; what deleted files look like."""

import re

import httpx
import pytest
from fastapi.testclient import TestClient

from registry import aliases, audit, checkpoints, db, joblog, lineage, retention, runs
from registry.models.base import RETIRED
from tests.factories import make_checkpoint, make_half, make_run
from tests.server.visitors import PASSWORD, TOKEN

RULE = {"keep_newest": "2", "keep_best": "1", "keep_milestones": "true"}


def post(client: TestClient, page: str, address: str, fields: dict[str, str]) -> httpx.Response:
    """Send a form of a page, and see where it leads."""
    token = TOKEN.search(client.get(page).text)
    assert token is not None
    return client.post(address, data={"csrf_token": token[1], **fields})


@pytest.fixture
def admin(seeded: TestClient) -> TestClient:
    """An administrator before the seeded site."""
    post(seeded, "/login", "/login", {"name": "admin", "password": PASSWORD})
    return seeded


def derived() -> None:
    """An average, a quantized form, a branch and a fine-tune of the seeded run."""
    with db.transaction() as session:
        demo = runs.get_run(session, "demo")
        parents = [checkpoints.get_checkpoint(session, demo, step) for step in (1000, 1250, 1500)]
        average = make_checkpoint(session, demo, 1500, kind="avg3")
        checkpoints.add_parents(session, average, parents, "average")
        half = make_half(session, demo, 1500)
        checkpoints.add_parents(session, half, parents[-1:], "quantization")
        make_run(session, "branch", origin=runs.Origin(demo, 500))
        tuned = make_checkpoint(session, make_run(session, "tuned", kind="upload"), 10, kind="chat")
        lineage.set_base(session, tuned, "grow/demo@1250")
        session.info.pop("deferred_jobs", None)


def retire(step: int) -> None:
    with db.transaction() as session:
        checkpoints.get_checkpoint(session, runs.get_run(session, "demo"), step).state = RETIRED


class TestNames:
    def test_a_name_is_set_moved_undone_and_taken_away(self, admin: TestClient) -> None:
        first = post(admin, "/admin/care/demo", "/admin/care/demo/names", {"name": "stable", "checkpoint": "500"})
        assert "The name stable points there now." in first.text
        moved = post(
            admin, "/admin/care/demo", "/admin/care/demo/names", {"name": "stable", "checkpoint": "demo@latest"}
        )
        assert "Undo: back to demo@500" in moved.text
        undone = post(admin, "/admin/care/demo", "/admin/care/demo/names", {"name": "stable", "checkpoint": "demo@500"})
        assert "Undo: back to demo@1750" in undone.text
        assert '<span class="pill alias">stable</span>' in admin.get("/runs/demo/checkpoints").text
        assert "pill alias" in admin.get("/runs/demo/checkpoints/500").text
        with db.read_session() as session:
            assert checkpoints.by_label(session, "demo@stable").step == 500
            assert audit.list_entries(session, action="alias").total == 3
        gone = post(admin, "/admin/care/demo", "/admin/care/demo/names/remove", {"name": "stable"})
        assert "The name stable is gone." in gone.text
        with db.read_session() as session:
            names = [one.name for one in aliases.list_aliases(session, runs.get_run(session, "demo"))]
        assert "stable" not in names
        assert "latest" in names

    @pytest.mark.parametrize(
        ("fields", "sentence"),
        [
            ({"name": "latest", "checkpoint": "500"}, "has a meaning of its own"),
            ({"name": "step-5", "checkpoint": "500"}, "cannot be a checkpoint"),
            ({"name": "<b>x</b>", "checkpoint": "500"}, "cannot be a checkpoint"),
            ({"name": "stable", "checkpoint": "17"}, "no checkpoint at step 17"),
            ({"name": "stable", "checkpoint": "uploads@1"}, "is no checkpoint of"),
        ],
    )
    def test_what_is_no_name_is_refused_in_a_sentence(
        self, admin: TestClient, fields: dict[str, str], sentence: str
    ) -> None:
        answer = post(admin, "/admin/care/demo", "/admin/care/demo/names", fields)
        assert answer.status_code == 422
        assert sentence in answer.text
        assert "<b>x</b>" not in answer.text

    def test_it_may_stand_in_addresses_of_the_chat_and_of_comparisons(self, admin: TestClient) -> None:
        with db.transaction() as session:
            demo = runs.get_run(session, "demo")
            aliases.set_alias(session, demo, "stable", checkpoints.get_checkpoint(session, demo, 500), None)
        assert "demo@500" in admin.get("/chat?checkpoint=demo@stable").text
        assert "demo@500" in admin.get("/compare?a=demo@stable&b=demo@1000").text
        assert admin.get("/runs/demo/checkpoints/1000?against=demo@stable").status_code == 200


class TestRetention:
    def test_a_dry_run_says_what_would_go_and_why_the_rest_stays(self, admin: TestClient) -> None:
        tried = post(admin, "/admin/care/demo", "/admin/care/demo/rule/try", RULE)
        assert "keep_newest=2" in str(tried.url)
        assert "csrf" not in str(tried.url)
        page = tried.text
        assert "Tried only: this rule is not saved." in page
        assert "would lose their files" in page
        assert "among the newest" in page
        assert "milestone" in page
        assert "Delete these files" not in page
        with db.read_session() as session:
            assert retention.get_rule(session, runs.get_run(session, "demo")) is None

    def test_a_saved_rule_is_applied_to_what_was_shown(self, admin: TestClient) -> None:
        saved = post(admin, "/admin/care/demo", "/admin/care/demo/rule", RULE)
        assert "The rule is saved." in saved.text
        shown = re.search(r'name="only" value="([\d,]+)"', saved.text)
        assert shown is not None
        asked = post(admin, "/admin/care/demo", "/admin/care/demo/apply", {"only": shown[1]})
        assert "A worker deletes these files now" in asked.text
        with db.read_session() as session:
            [job] = joblog.list_jobs(session, kind=joblog.RETENTION)
            going = retention.dry_run(session, runs.get_run(session, "demo")).going
        assert job.args == {"run": "demo", "only": sorted(one.id for one in going)}
        removed = post(admin, "/admin/care/demo", "/admin/care/demo/rule/remove", {})
        assert "everything stays" in removed.text
        answer = post(admin, "/admin/care/demo", "/admin/care/demo/apply", {"only": shown[1]})
        assert (answer.status_code, "has no rule" in answer.text) == (422, True)

    def test_only_administrators_see_and_do_this(self, seeded: TestClient) -> None:
        for path in ("/admin/care", "/admin/care/demo"):
            assert seeded.get(path, follow_redirects=False).status_code in (303, 401, 403)

    def test_the_list_says_what_each_run_keeps(self, admin: TestClient) -> None:
        post(admin, "/admin/care/demo", "/admin/care/demo/rule", RULE)
        page = admin.get("/admin/care").text
        assert "keeps the newest 2, the best 1 of each task" in page
        assert "keeps everything" in page

    def test_scores_of_deleted_files_stay_and_nothing_else_is_offered(self, admin: TestClient) -> None:
        before = admin.get("/api/v1/runs/demo/growth", params={"tasks": "zh_bits"}).json()["series"][0]["lines"]
        retire(500)
        after = admin.get("/api/v1/runs/demo/growth", params={"tasks": "zh_bits"}).json()["series"][0]["lines"]
        assert after == before
        page = admin.get("/runs/demo/checkpoints/500").text
        assert "Its files were deleted." in page
        assert "/chat?checkpoint=demo@500" not in page
        assert "were deleted, so it can no longer answer" in admin.get("/chat?checkpoint=demo@500").text
        assert admin.get("/runs/demo/checkpoints/500/files").status_code == 404
        assert admin.get("/api/models/demo/revision/step-500").status_code == 404


class TestAverages:
    def test_an_administrator_asks_for_one(self, admin: TestClient) -> None:
        answer = post(admin, "/admin/care/demo", "/admin/care/demo/averages", {"last": "3", "until": "1,500"})
        assert "demo@1500-avg3 is asked for." in answer.text
        with db.read_session() as session:
            [job] = joblog.list_jobs(session, kind=joblog.AVERAGE)
        assert job.args == {"last": 3, "until": 1500}

    @pytest.mark.parametrize(
        ("fields", "sentence"),
        [
            ({"last": "1"}, "An average is of 2 to"),
            ({"last": "50"}, "needs as many"),
            ({"last": "2", "until": "x"}, "is no step"),
            ({"last": "2", "until": "17"}, "no checkpoint at step 17"),
        ],
    )
    def test_what_cannot_be_is_said(self, admin: TestClient, fields: dict[str, str], sentence: str) -> None:
        answer = post(admin, "/admin/care/demo", "/admin/care/demo/averages", fields)
        assert (answer.status_code, sentence in answer.text) == (422, True)

    def test_it_has_a_page_and_a_line_of_its_own(self, seeded: TestClient) -> None:
        derived()
        page = seeded.get("/runs/demo/checkpoints/1500?kind=avg3").text
        assert "demo@1500-avg3" in page
        assert "mean of the last 3" in page
        assert 'value="avg3-16"' in seeded.get("/runs/demo").text
        assert seeded.get("/api/v1/runs/demo/growth?kind=avg3").status_code == 200
        assert seeded.get("/api/v1/runs/demo/growth?kind=avg").status_code == 422


class TestLineage:
    def test_the_graph_of_a_run_has_everything_that_hangs_together(self, seeded: TestClient) -> None:
        assert "nothing was made of its checkpoints" in seeded.get("/runs/uploads/lineage").text
        derived()
        found = seeded.get("/api/v1/runs/demo/lineage").json()
        names = {node["key"]: node["label"] for node in found["nodes"]}
        edges = {(names[edge["source"]], names[edge["target"]], edge["role"]) for edge in found["edges"]}
        assert edges >= {
            ("demo@1000", "demo@1500-avg3", "average"),
            ("demo@1500", "demo@1500-8bit", "quantization"),
            ("demo@500", "branch", "branch"),
            ("demo@1250", "tuned@10-chat", "fine-tune"),
            ("tuned", "tuned@10-chat", "training"),
            ("demo", "demo@1500", "training"),
        }
        assert "demo@128" not in names.values()  # nothing came of it
        page = seeded.get("/runs/demo/lineage").text
        assert 'href="/runs/demo/checkpoints/1500?kind=avg3"' in page
        assert "was averaged into" in page

    def test_the_graph_of_a_checkpoint_has_what_it_came_from_and_what_came_of_it(self, seeded: TestClient) -> None:
        derived()
        with db.read_session() as session:
            average = checkpoints.by_label(session, "demo@1500-avg3")
        found = seeded.get(f"/api/v1/checkpoints/{average.id}/lineage").json()
        assert {node["label"] for node in found["nodes"]} == {
            "demo", "demo@1000", "demo@1250", "demo@1500", "demo@1500-avg3",
        }  # fmt: skip
        page = seeded.get("/runs/demo/checkpoints/1500").text
        assert "demo@1500-8bit" in page.split('id="lineage"')[1]

    def test_an_unknown_one_is_told(self, seeded: TestClient) -> None:
        assert seeded.get("/api/v1/checkpoints/999999/lineage").status_code == 404
        assert seeded.get("/api/v1/runs/none/lineage").status_code == 404

    def test_many_derived_ones_are_counted_not_drawn(self, seeded: TestClient) -> None:
        with db.transaction() as session:
            demo = runs.get_run(session, "demo")
            base = checkpoints.get_checkpoint(session, demo, 1500)
            for step in range(2000, 2000 + lineage.MAX_DERIVED + 5):
                checkpoints.add_parents(session, make_checkpoint(session, demo, step, kind="chat"), [base], "fine-tune")
            session.info.pop("deferred_jobs", None)
        assert "6 older derived checkpoints are not drawn." in seeded.get("/runs/demo/lineage").text
