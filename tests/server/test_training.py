"""The training page: curves with what was superseded, branches and incidents, whatever the run went through."""

import csv
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy.orm import Session

from registry import db, news, runs
from registry.models import Run
from registry.runs import Origin
from server import training_curves
from server.training_curves import Panel, Training
from tests.conftest import migrate
from tests.factories import make_run
from tests.server import rewound


@pytest.fixture(scope="module")
def family_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with the runs of `tests.server.rewound`, made once; tests get copies."""
    path = tmp_path_factory.mktemp("family") / "grow.db"
    engine = db.get_engine(f"sqlite:///{path}")
    migrate(engine)
    with Session(engine) as session:
        rewound.add_family(session)
        session.commit()
    engine.dispose()
    return path


@pytest.fixture
def family(family_file: Path, grow_home: Path, client: TestClient) -> TestClient:
    """A browser before a site with that family."""
    db.current_engine().dispose()
    for extra in ("-wal", "-shm"):
        (grow_home / f"grow.db{extra}").unlink(missing_ok=True)
    shutil.copy(family_file, grow_home / "grow.db")
    return client


def training(name: str) -> Training:
    with db.read_session() as session:
        return training_curves.training_of(session, runs.get_run(session, name))


def panel(name: str, key: str) -> Panel:
    return next(panel for panel in training(name).panels if panel.key == key)


def log(name: str, points: dict[int, float], key: str = "train/loss", **fields: Any) -> None:
    with db.transaction() as session:
        run = make_run(session, name, **fields)
        for step, value in points.items():
            runs.log_metrics(session, run, step, step * 4096, {key: value})


class TestRewinds:
    def test_the_curve_of_a_rewind_begins_with_its_parents(self, family: TestClient) -> None:
        [own, *_] = panel("calm", "loss").own
        assert (own.key, own.step[0] < 10, own.step[-1] > 1990) == ("train/loss", True, True)
        assert list(own.step) == sorted(own.step)

    def test_what_the_parent_did_later_is_superseded(self, family: TestClient) -> None:
        given_up = [t for t in panel("calm", "loss").traces if t.role == "superseded" and t.key == "train/loss"]
        [spike] = [trace for trace in given_up if trace.run == "spike"]
        assert spike.step[0] <= 800 < spike.step[1], "it leaves the curve where it parted from it"
        assert spike.step[-1] > 1190

    def test_so_is_what_a_resume_did_again(self, family: TestClient) -> None:
        given_up = [t for t in panel("calm", "loss").traces if t.role == "superseded" and t.key == "train/loss"]
        [again] = [trace for trace in given_up if trace.run == "calm"]
        assert (again.step[0] <= 1300, again.step[-1] > 1490) == (True, True)

    def test_others_of_the_family_are_branches_with_their_names(self, family: TestClient) -> None:
        assert {t.name for t in panel("calm", "loss").traces if t.role == "branch"} == {"anneal"}
        assert {t.name for t in panel("spike", "loss").traces if t.role == "branch"} == {"anneal", "calm"}
        assert {t.name for t in panel("anneal", "loss").traces if t.role == "branch"} == {"calm"}

    def test_the_parents_own_curve_ends_where_it_was_superseded(self, family: TestClient) -> None:
        [own, *_] = panel("spike", "loss").own
        assert own.step[-1] <= 800

    def test_the_family_is_told_in_words(self, family: TestClient) -> None:
        page = family.get("/runs/calm/training").text
        assert "superseded after step 800" in page
        assert "rewind of spike to step 800" in page
        assert "branch of calm at step 1,400" in page

    def test_the_list_of_runs_shows_the_tree(self, family: TestClient) -> None:
        page = family.get("/runs").text
        tree = page.split('class="tree"')[1].split("</ul>")[0]
        assert [tree.index(f">{name}<") for name in ("spike", "calm", "anneal")] == sorted(
            tree.index(f">{name}<") for name in ("spike", "calm", "anneal")
        )
        assert "rewind of spike to step 800" in tree

    def test_the_list_of_strangers_has_none(self, seeded: TestClient) -> None:
        assert 'class="tree"' not in seeded.get("/runs").text

    def test_the_file_has_every_point_and_says_which_are_superseded(self, family: TestClient) -> None:
        answer = family.get("/runs/calm/training.csv?key=train/loss")
        assert answer.headers["content-type"].startswith("text/csv")
        rows = list(csv.DictReader(io.StringIO(answer.text)))
        assert {row["key"] for row in rows} == {"train/loss"}
        assert {row["superseded_by_attempt"] for row in rows} == {"", "1"}
        twice = [row["superseded_by_attempt"] for row in rows if row["step"] == "1304"]
        assert twice == ["", "1"]
        assert len(list(csv.reader(io.StringIO(family.get("/runs/calm/training.csv").text)))) > 5 * len(rows)


class TestIncidents:
    def test_they_have_a_place_on_every_axis_and_lead_to_their_post(self, family: TestClient) -> None:
        [first, second, last] = training("calm").incidents
        assert (first.title, first.run, first.step, first.tokens) == ("The loss went up", "spike", 920, 920 * 4096)
        assert first.time == pytest.approx(920 * 10, abs=60)
        assert (second.number, second.run, last.step, last.tokens) == (2, "calm", None, None)
        page = family.get("/runs/calm/training").text
        assert f'<a href="/news/{first.id}">The loss went up</a>' in page
        assert "the whole run" in page

    def test_other_posts_and_other_runs_are_left_out(self, family: TestClient) -> None:
        with db.transaction() as session:
            other = make_run(session, "other")
            news.publish_post(session, title="Elsewhere", body="", kind="incident", run=other, step=5)
            news.publish_post(session, title="News", body="", run=runs.get_run(session, "calm"), step=5)
        assert len(training("calm").incidents) == 3

    def test_a_title_cannot_end_the_script_element(self, family: TestClient) -> None:
        with db.transaction() as session:
            run = runs.get_run(session, "calm")
            news.publish_post(session, title="</script><b>x", body="", kind="incident", run=run, step=5)
        assert "</script><b>" not in family.get("/runs/calm/training").text


class TestMixture:
    def test_shares_are_of_what_was_read(self, family: TestClient) -> None:
        traces = panel("calm", "mixture").traces
        assert [trace.name for trace in traces] == ["Chinese", "English", "Code"]
        assert [sum(shares) for shares in zip(*(t.y for t in traces), strict=True)] == pytest.approx(
            [1.0] * len(traces[0].y)
        )
        assert training("calm").planned == {"zh": 0.5, "en": 0.25, "code": 0.25}

    def test_a_run_that_logged_nothing_of_it_shows_its_plan(self, client: TestClient) -> None:
        log("old", {1: 5.0, 2: 4.0}, config=rewound.CONFIG)
        shown = panel("old", "mixture")
        assert [list(trace.y) for trace in shown.traces] == [[0.5, 0.5], [0.25, 0.25], [0.25, 0.25]]
        assert "as planned" in shown.sentence

    @pytest.mark.parametrize("config", [{}, {"corpus": None}, {"corpus": {"mixture": {"zh": 0, "en": "all"}}}])
    def test_a_config_without_a_mixture_has_no_such_chart(self, client: TestClient, config: dict[str, Any]) -> None:
        log("bare", {1: 5.0, 2: 4.0}, config=config)
        assert [panel.key for panel in training("bare").panels] == ["loss"]


class TestOddRuns:
    def test_a_run_without_a_metric_says_what_will_come(self, client: TestClient) -> None:
        with db.transaction() as session:
            make_run(session, "new")
        page = client.get("/runs/new/training").text
        assert "The first curve appears here by itself" in page
        assert "data-panel" not in page

    def test_an_upload_says_that_it_was_not_trained_here(self, seeded: TestClient) -> None:
        assert "was not trained here" in seeded.get("/runs/elsewhere/training").text

    def test_one_point_is_a_chart(self, client: TestClient) -> None:
        log("one", {0: 9.1}, key="heldout/loss_zh")
        page = client.get("/runs/one/training").text
        assert page.count("data-panel=") == 1
        assert "9.100" in page

    def test_a_metric_of_ones_own_is_drawn_under_its_name(self, client: TestClient) -> None:
        log("mine", {1: 0.1, 2: 0.2}, key="my metric <b>")
        page = client.get("/runs/mine/training").text
        assert "my metric &lt;b&gt;" in page

    def test_a_branch_that_has_not_logged_yet_shows_its_parents_curve(self, client: TestClient) -> None:
        log("first", {step: 5.0 for step in range(1, 20)})
        with db.transaction() as session:
            make_run(session, "second", origin=Origin(runs.get_run(session, "first"), 10))
        [own] = panel("second", "loss").own
        assert own.step[-1] == 10

    def test_a_long_run_is_thinned_and_its_extremes_are_kept(self, client: TestClient) -> None:
        log("long", {step: float(step % 7) for step in range(2000)})
        [own] = panel("long", "loss").own
        assert len(own.y) <= training_curves.MAX_SPANS
        assert (min(own.low), max(own.high)) == (0.0, 6.0)

    def test_time_is_never_negative(self, client: TestClient) -> None:
        log("clock", {1: 1.0, 2: 2.0})
        with db.transaction() as session:
            run = runs.get_run(session, "clock")
            run.created_at = run.heartbeat_at.replace(year=run.heartbeat_at.year + 1)
        assert panel("clock", "loss").own[0].time == [0.0, 0.0]


class TestPage:
    @pytest.mark.parametrize(
        ("x", "words"), [("tokens", "8.2M tokens"), ("step", "step 1,996"), ("time", "after 7 hours")]
    )
    def test_the_table_is_in_the_unit_of_the_axis(self, family: TestClient, x: str, words: str) -> None:
        page = family.get(f"/runs/calm/training?x={x}").text
        assert words in page
        assert page.count("data-panel=") == page.count('class="chart-table"') == 5

    def test_an_axis_that_training_does_not_have_is_refused(self, family: TestClient) -> None:
        assert family.get("/runs/calm/training?x=flops").status_code == 422

    def test_the_table_is_short_and_keeps_rare_points(self, family: TestClient) -> None:
        rows = panel("calm", "loss").table("step")
        assert len(rows) < 100
        held_out = [row for row in rows if row.values[1]]
        assert len(held_out) == len(panel("calm", "loss").own[1].y)

    def test_the_data_are_in_the_api(self, family: TestClient) -> None:
        found = family.get("/api/v1/runs/calm/training").json()
        assert {one["key"] for one in found["panels"]} == {
            "loss",
            "train/learning_rate",
            "train/grad_norm",
            "train/tokens_per_second",
            "mixture",
        }
        page = family.get("/runs/calm/training").text
        embedded = page.split('id="training-data">')[1].split("</script>")[0]
        assert json.loads(embedded)["panels"] == found["panels"]
        assert family.get("/api/v1/runs/nope/training").status_code == 404

    def test_a_stretch_comes_in_more_detail(self, client: TestClient) -> None:
        log("long", {step: float(step % 7) for step in range(2000)})
        found = client.get("/api/v1/runs/long/training?first=1000&last=1200").json()
        [own] = found["panels"][0]["traces"]
        assert own["step"] == list(range(1000, 1201))
        assert own["low"] == []
        assert client.get("/api/v1/runs/long/training?first=-1").status_code == 422

    def test_only_an_administrator_is_offered_to_pin_an_incident(self, family: TestClient) -> None:
        assert "Pin an incident here" not in family.get("/runs/calm/training").text

    def test_it_asks_the_database_the_same_few_questions_of_any_run(
        self, family: TestClient, queries: list[str]
    ) -> None:
        log("alone", {step: 1.0 for step in range(50)})
        for name in ("calm", "spike", "anneal", "alone"):
            queries.clear()
            family.get(f"/runs/{name}/training")
            assert len(queries) <= 8

    def test_the_points_are_thinned_once_for_all_readers_until_more_are_logged(
        self, family: TestClient, queries: list[str]
    ) -> None:
        def thinnings() -> int:
            queries.clear()
            family.get("/runs/calm/training")
            return sum("GROUP BY" in query for query in queries)

        thinnings()
        assert thinnings() == 0
        log("calm", {5000: 2.5})
        assert thinnings() > 0


def test_every_curve_is_in_order_and_finite(family: TestClient, run_names: Callable[[], list[str]]) -> None:
    for name in run_names():
        for shown in training(name).panels:
            for trace in shown.traces:
                assert list(trace.step) == sorted(set(trace.step)), (name, shown.key, trace.name)


@pytest.fixture
def run_names() -> Callable[[], list[str]]:
    def names() -> list[str]:
        with db.read_session() as session:
            found: list[Run] = list(runs.list_runs(session))
        return [run.name for run in found]

    return names
