"""An evaluation, slice by slice, from the planned row to the results and the sample files."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from lm_eval import evaluator

from registry import checkpoints, db, evaluations, samples, suites
from registry.models import Evaluation, Task
from registry.models.base import FINISHED, QUEUED, RUNNING
from registry.settings import get_settings
from tests.worker.own_suite import OwnSuite, questions
from worker import evaluate
from worker.engine.protocol import EngineError, Score, ScoreRequest
from worker.engine.scripted import ScriptedEngine
from worker.evaluate import Outcome, Stopped, load_task, record, run_evaluation, run_slice
from worker.scoring import EngineLM
from worker.tasks import TaskError


@pytest.fixture
def folder(make_checkpoint: Any) -> Path:
    found: Path = make_checkpoint("evaluate", seed=3)
    return found


@pytest.fixture
def engine(folder: Path) -> ScriptedEngine:
    engine = ScriptedEngine()
    engine.use(folder)
    return engine


@pytest.fixture(autouse=True)
def _no_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate, "_items_per_second", {})


def plan(checkpoint_id: int, task_name: str) -> int:
    """Plan one task of `suites/` for a checkpoint and give the evaluation."""
    with db.transaction() as session:
        suites.sync(session)
        task = suites.get_task(session, task_name)
        checkpoint = checkpoints.get_by_id(session, checkpoint_id)
        [evaluation] = evaluations.plan_tasks(session, checkpoint, [task])
        return evaluation.id


def work(engine: ScriptedEngine, evaluation_id: int) -> list[Outcome]:
    """Slice after slice until it is finished."""
    outcomes: list[Outcome] = []
    while not outcomes or not outcomes[-1].is_last:
        outcomes.append(run_slice(engine, evaluation_id))
        with db.transaction() as session:
            record(session, evaluation_id, outcomes[-1])
    return outcomes


def finished(evaluation_id: int) -> Evaluation:
    """The evaluation with its results and slices."""
    with db.read_session() as session:
        one = evaluations.get_evaluation(session, evaluation_id)
        return next(e for e in evaluations.for_checkpoint(session, one.checkpoint) if e.id == evaluation_id)


class TestRunEvaluation:
    def test_a_choice_task_gives_every_metric_with_its_interval(self, engine: ScriptedEngine, folder: Path) -> None:
        whole = run_evaluation(engine, folder, "starter_pairs_en")
        names = [score.metric for score in whole.results]
        assert names == ["acc", "acc_norm", "acc_bytes", "acc_per_token", "prob", "brier_score", "bits_per_byte"]
        for score in whole.results:
            assert score.low is not None
            assert score.high is not None
            assert score.low < score.value < score.high
            assert score.n == len(whole.samples) == 200

    def test_the_numbers_are_the_ones_lm_eval_reports(self, engine: ScriptedEngine, folder: Path) -> None:
        for name, metric in (
            ("starter_follows_zh", "acc"),
            ("starter_follows_zh", "acc_norm"),
            ("starter_bpb_zh", "bits_per_byte"),
        ):
            tasks = {"tasks": {name: load_task(name)}, "groups": {}}
            # lm-eval leaves all standard errors out when it may not bootstrap; the one of `acc` takes no bootstrap
            iterations = 2 if metric == "acc" else 0
            theirs = evaluator.evaluate(EngineLM(engine, folder), tasks, bootstrap_iters=iterations)["results"][name]
            ours = {score.metric: score for score in run_evaluation(engine, folder, name).results}
            assert ours[metric].value == pytest.approx(theirs[f"{metric},none"], rel=1e-6)
            if metric == "acc":
                assert ours[metric].stderr == pytest.approx(theirs["acc_stderr,none"])

    def test_probes_keep_the_answer_and_have_no_score(self, engine: ScriptedEngine, folder: Path) -> None:
        whole = run_evaluation(engine, folder, "starter_probes")
        assert whole.results == []
        assert len(whole.samples) == 8
        assert all(sample.text is not None and sample.finish_reason for sample in whole.samples)

    def test_the_protocol_names_what_the_numbers_depend_on(self, engine: ScriptedEngine, folder: Path) -> None:
        protocol = run_evaluation(engine, folder, "starter_pairs_zh").protocol
        assert protocol["engine"] == "scripted"
        assert protocol["num_fewshot"] == 0
        wanted = {"engine_version", "dtype", "lm_eval", "task_version", "template", "items", "tokenizer", "revision"}
        assert wanted <= protocol.keys()

    def test_an_unknown_task_is_refused(self, engine: ScriptedEngine, folder: Path) -> None:
        with pytest.raises(TaskError, match="no task 'nonsense'"):
            run_evaluation(engine, folder, "nonsense")

    def test_items_longer_than_the_context_are_counted(
        self, engine: ScriptedEngine, folder: Path, own_suite: OwnSuite
    ) -> None:
        docs = questions(4)
        docs[1]["question"] = "to be or not to be " * 60
        whole = run_evaluation(engine, folder, own_suite.write("long", docs))
        assert whole.num_truncated == 1

    def test_a_number_that_is_not_finite_is_an_error_that_names_the_item(self, folder: Path) -> None:
        with pytest.raises(EngineError, match=r"gave nan as a log-probability at item 0"):
            run_evaluation(NotANumber(), folder, "starter_pairs_en")

    def test_free_answers_are_scored_by_the_tasks_own_code(
        self, engine: ScriptedEngine, folder: Path, own_suite: OwnSuite
    ) -> None:
        docs = [{"question": f"to be {at}", "answer": f"to be {at}" if at < 3 else "no"} for at in range(4)]
        name = own_suite.write(
            "exact",
            docs,
            output_type="generate_until",
            doc_to_choice=None,
            doc_to_target="{{answer}}",
            generation_kwargs={"until": [], "max_gen_toks": 40},
            metric_list=[{"metric": "exact_match"}],
        )
        whole = run_evaluation(engine, folder, name, metric="exact_match")  # the scripted engine echoes the prompt
        assert [(score.metric, score.value, score.n) for score in whole.results] == [("exact_match", 0.75, 4)]
        assert [sample.score for sample in whole.samples] == [1.0, 1.0, 1.0, 0.0]

    def test_groups_widen_the_interval(self, engine: ScriptedEngine, folder: Path, own_suite: OwnSuite) -> None:
        # Answers within a subject go together: the right letter is the subject's.
        docs = [{**doc, "answer": at // 20 % 4, "subject": str(at // 20)} for at, doc in enumerate(questions(120))]
        for doc in docs:
            doc["choices"] = [f" x{doc['subject']}", f" y{doc['subject']}", f" z{doc['subject']}", " w"]
        plain = own_suite.write("plain", docs)
        grouped = own_suite.write("grouped", docs, metadata={"version": 1, "grow": {"group": "subject"}})
        widths = []
        for name in (plain, grouped):
            acc = next(s for s in run_evaluation(engine, folder, name).results if s.metric == "acc")
            assert acc.low is not None
            assert acc.high is not None
            widths.append(acc.high - acc.low)
        assert widths[1] > 1.5 * widths[0]


class NotANumber(ScriptedEngine):
    """A model whose weights are broken."""

    def score(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        return [Score([float("nan")] * len(request.continuation), False) for request in requests]


class TestRunSlice:
    def test_slices_add_up_to_the_whole_evaluation(
        self, engine: ScriptedEngine, folder: Path, publish: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(evaluate, "FIRST_SLICE", 50)
        monkeypatch.setattr(evaluate, "_learn_pace", lambda *_: None)
        evaluation_id = plan(publish(folder), "starter_pairs_zh")
        outcomes = work(engine, evaluation_id)
        assert [(o.part.start, o.part.stop) for o in outcomes] == [(0, 50), (50, 100), (100, 150), (150, 200)]
        done = finished(evaluation_id)
        assert (done.status, done.num_done, done.num_items) == (FINISHED, 200, 200)
        kept = samples.read(evaluations.sample_paths(done))
        whole = run_evaluation(engine, get_settings().checkpoints_dir / "demo" / "step-0-pretrained", done.task.name)
        assert [(s.item, s.position) for s in kept] == [(s.item, s.position) for s in whole.samples]
        assert {r.metric: pytest.approx(r.value, rel=1e-6) for r in done.results} == {
            s.metric: s.value for s in whole.results
        }

    def test_the_next_slice_is_as_long_as_the_setting_says(
        self, engine: ScriptedEngine, folder: Path, publish: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("GROW_SLICE_SECONDS", "0.5")
        get_settings.cache_clear()
        monkeypatch.setattr(evaluate, "_items_per_second", {"starter_pairs_zh": 100.0})
        evaluation_id = plan(publish(folder), "starter_pairs_zh")
        assert run_slice(engine, evaluation_id).part.stop == 50

    def test_items_are_kept_once_for_all_checkpoints(self, folder: Path, publish: Any, make_checkpoint: Any) -> None:
        engine = ScriptedEngine()
        files = []
        for step, seed in ((0, 3), (1, 4)):
            evaluation_id = plan(publish(make_checkpoint(f"evaluate-{seed}", seed=seed), step=step), "starter_pairs_en")
            work(engine, evaluation_id)
            files.append(finished(evaluation_id).items_file)
        assert files[0] == files[1]
        items = samples.read_items(get_settings().samples_dir / files[0])
        assert len(items) == 200
        assert all(len(item.choices) == 2 and item.target in (0, 1) for item in items)

    def test_running_twice_writes_the_same_file(
        self, engine: ScriptedEngine, folder: Path, publish: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(evaluate, "_learn_pace", lambda *_: None)
        evaluation_id = plan(publish(folder), "starter_pairs_zh")
        first, second = run_slice(engine, evaluation_id), run_slice(engine, evaluation_id)
        assert first.part.file == second.part.file
        assert len(list((get_settings().samples_dir / "1").rglob("*.*"))) == 1

    def test_a_stop_leaves_nothing_behind(self, engine: ScriptedEngine, folder: Path, publish: Any) -> None:
        evaluation_id = plan(publish(folder), "starter_pairs_zh")
        with pytest.raises(Stopped):
            run_slice(engine, evaluation_id, should_stop=lambda: True)
        with db.read_session() as session:
            assert evaluations.get_evaluation(session, evaluation_id).status == QUEUED
        assert not get_settings().samples_dir.exists()

    def test_a_task_that_changed_since_it_was_planned_is_refused(
        self, engine: ScriptedEngine, folder: Path, publish: Any
    ) -> None:
        evaluation_id = plan(publish(folder), "starter_pairs_zh")
        with db.transaction() as session:
            task = session.get_one(Task, evaluations.get_evaluation(session, evaluation_id).task_id)
            task.version = "0"
        with pytest.raises(TaskError, match="planned at version 0"):
            run_slice(engine, evaluation_id)

    def test_another_engine_in_the_middle_begins_the_evaluation_anew(
        self, engine: ScriptedEngine, folder: Path, publish: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(evaluate, "FIRST_SLICE", 50)
        evaluation_id = plan(publish(folder), "starter_pairs_zh")
        with db.transaction() as session:
            record(session, evaluation_id, run_slice(engine, evaluation_id))
        upgraded = ScriptedEngine()
        upgraded.version = "2"
        assert run_slice(upgraded, evaluation_id).part.start == 0
        work(upgraded, evaluation_id)
        done = finished(evaluation_id)
        assert (done.status, done.protocol["engine_version"], done.num_done) == (FINISHED, "2", 200)

    def test_a_headline_that_the_task_does_not_give_is_an_error(
        self, engine: ScriptedEngine, folder: Path, publish: Any
    ) -> None:
        evaluation_id = plan(publish(folder), "starter_bpb_code")
        with db.transaction() as session:
            session.get_one(Task, evaluations.get_evaluation(session, evaluation_id).task_id).metric = "acc"
        with pytest.raises(TaskError, match=r"gives no metric 'acc'.*It has: bits_per_byte"):
            work(engine, evaluation_id)

    def test_a_tokenizer_unlike_that_of_the_run_is_an_error(
        self, engine: ScriptedEngine, folder: Path, publish: Any
    ) -> None:
        first, second = publish(folder, step=0), publish(folder, step=1)
        with db.transaction() as session:
            checkpoints.get_by_id(session, first).tokenizer = "aaaa"
            checkpoints.get_by_id(session, second).tokenizer = "bbbb"
        evaluation_id = plan(second, "starter_pairs_en")
        with pytest.raises(Exception, match=r"tokenizer of demo@1 \(bbbb\) is not the one of demo@0 \(aaaa\)"):
            run_slice(engine, evaluation_id)

    def test_files_of_slices_that_were_never_recorded_are_removed(
        self, engine: ScriptedEngine, folder: Path, publish: Any
    ) -> None:
        evaluation_id = plan(publish(folder), "starter_pairs_zh")
        part = run_slice(engine, evaluation_id).part  # the worker dies before it records this
        half = (get_settings().samples_dir / part.file).with_name(".half-written.tmp")
        half.write_bytes(b"PAR1")  # and another one while it writes
        work(engine, evaluation_id)
        evaluate.remove_orphans(evaluation_id)
        done = finished(evaluation_id)
        kept = sorted(path for path in (get_settings().samples_dir / "1").rglob("*") if path.is_file())
        assert kept == sorted(evaluations.sample_paths(done))

    def test_while_it_runs_it_says_how_far_it_is(
        self, engine: ScriptedEngine, folder: Path, publish: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(evaluate, "FIRST_SLICE", 50)
        evaluation_id = plan(publish(folder), "starter_pairs_zh")
        with db.transaction() as session:
            record(session, evaluation_id, run_slice(engine, evaluation_id))
        now = finished(evaluation_id)
        assert (now.status, now.num_done, now.num_items, now.results) == (RUNNING, 50, 200, [])
