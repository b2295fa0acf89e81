"""An evaluation, from the planned row to the results and the sample file."""

from pathlib import Path
from typing import Any

import pytest
from lm_eval import evaluator

from registry import checkpoints, db, evaluations, samples, suites
from registry.models import Task
from registry.models.base import FINISHED, QUEUED
from registry.settings import get_settings
from worker.engine.protocol import EngineError
from worker.engine.scripted import ScriptedEngine
from worker.evaluate import Stopped, load_task, record, run_evaluation, run_slice
from worker.scoring import EngineLM


@pytest.fixture
def folder(make_checkpoint: Any) -> Path:
    found: Path = make_checkpoint("evaluate", seed=3)
    return found


@pytest.fixture
def engine(folder: Path) -> ScriptedEngine:
    engine = ScriptedEngine()
    engine.use(folder)
    return engine


def plan(checkpoint_id: int, task_name: str) -> int:
    """Plan everything for a checkpoint and give the evaluation of one task."""
    with db.transaction() as session:
        suites.sync(session)
        evaluations.plan(session, checkpoints.get_by_id(session, checkpoint_id))
    with db.read_session() as session:
        found = evaluations.for_checkpoint(session, checkpoints.get_by_id(session, checkpoint_id))
        return next(evaluation.id for evaluation in found if evaluation.task.name == task_name)


class TestRunEvaluation:
    def test_a_choice_task_gives_accuracy_and_probability_with_intervals(
        self, engine: ScriptedEngine, folder: Path
    ) -> None:
        outcome = run_evaluation(engine, folder, "starter_pairs_en")
        assert [score.metric for score in outcome.results] == ["acc", "acc_norm", "prob"]
        for score in outcome.results:
            assert score.low is not None
            assert score.high is not None
            assert score.low < score.value < score.high
            assert score.n == outcome.num_items == 200

    def test_the_numbers_are_the_ones_lm_eval_reports(self, engine: ScriptedEngine, folder: Path) -> None:
        for name, metric in (("starter_follows_zh", "acc"), ("starter_bpb_zh", "bits_per_byte")):
            tasks = {"tasks": {name: load_task(name)}, "groups": {}}
            # lm-eval leaves all standard errors out when it may not bootstrap; the one of `acc` takes no bootstrap
            iterations = 2 if metric == "acc" else 0
            theirs = evaluator.evaluate(EngineLM(engine, folder), tasks, bootstrap_iters=iterations)["results"][name]
            ours = {score.metric: score for score in run_evaluation(engine, folder, name).results}
            assert ours[metric].value == pytest.approx(theirs[f"{metric},none"], rel=1e-9)
            if metric == "acc":
                assert ours[metric].stderr == pytest.approx(theirs["acc_stderr,none"])

    def test_accuracy_follows_from_the_stored_columns(self, engine: ScriptedEngine, folder: Path) -> None:
        outcome = run_evaluation(engine, folder, "starter_skills_coding")
        share = sum(map(samples.is_right, outcome.samples)) / outcome.num_items
        assert outcome.results[0].value == pytest.approx(share)
        assert all(len(sample.num_tokens) == len(sample.num_bytes) == 5 for sample in outcome.samples)

    def test_probes_keep_prompt_and_answer_and_have_no_score(self, engine: ScriptedEngine, folder: Path) -> None:
        outcome = run_evaluation(engine, folder, "starter_probes")
        assert outcome.results == []
        assert len(outcome.samples) == 8
        assert all(sample.prompt and sample.text is not None and sample.finish_reason for sample in outcome.samples)

    def test_two_checkpoints_answer_items_of_the_same_keys(self, engine: ScriptedEngine, make_checkpoint: Any) -> None:
        keys = []
        for seed in (3, 4):
            folder = make_checkpoint(f"evaluate-{seed}", seed=seed)
            engine.use(folder)
            outcome = run_evaluation(engine, folder, "starter_pairs_zh")
            keys.append(([sample.item for sample in outcome.samples], outcome.protocol["items"]))
        assert keys[0] == keys[1]

    def test_the_protocol_names_what_the_numbers_depend_on(self, engine: ScriptedEngine, folder: Path) -> None:
        protocol = run_evaluation(engine, folder, "starter_pairs_zh").protocol
        assert protocol["engine"] == "scripted"
        assert protocol["num_fewshot"] == 0
        assert {"engine_version", "dtype", "lm_eval", "task_version", "items", "tokenizer"} <= protocol.keys()

    def test_an_unknown_task_is_refused(self, engine: ScriptedEngine, folder: Path) -> None:
        with pytest.raises(EngineError, match="no task 'nonsense'"):
            run_evaluation(engine, folder, "nonsense")


class TestRunSlice:
    def test_results_and_samples_are_recorded(self, engine: ScriptedEngine, folder: Path, publish: Any) -> None:
        checkpoint_id = publish(folder)
        evaluation_id = plan(checkpoint_id, "starter_bpb_code")
        outcome = run_slice(engine, evaluation_id)
        with db.transaction() as session:
            record(session, evaluation_id, outcome)
        with db.read_session() as session:
            checkpoint = checkpoints.get_by_id(session, checkpoint_id)
            done = {e.id: e for e in evaluations.for_checkpoint(session, checkpoint)}[evaluation_id]
        assert done.status == FINISHED
        assert [result.metric for result in done.results] == ["bits_per_byte"]
        kept = samples.read(get_settings().samples_dir / done.samples_file)
        assert len(kept) == done.num_items == 64

    def test_running_twice_writes_the_same_file(self, engine: ScriptedEngine, folder: Path, publish: Any) -> None:
        evaluation_id = plan(publish(folder), "starter_pairs_zh")
        first, second = run_slice(engine, evaluation_id), run_slice(engine, evaluation_id)
        assert first.samples_file == second.samples_file
        assert len(list(get_settings().samples_dir.rglob("*.*"))) == 1

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
        with pytest.raises(EngineError, match="planned at version 0"):
            run_slice(engine, evaluation_id)
