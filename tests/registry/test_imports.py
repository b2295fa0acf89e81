"""Results from elsewhere, as files that the installed lm-eval has really written."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
from lm_eval import simple_evaluate
from lm_eval.loggers import EvaluationTracker
from lm_eval.models.dummy import DummyLM
from lm_eval.tasks import TaskManager
from sqlalchemy.orm import Session

from analysis.metrics import item_values
from registry import checkpoints, evaluations, imports, runs, samples, suites
from registry.errors import Conflict, Invalid, NotFound
from registry.models import Evaluation
from registry.models.base import EXTERNAL, REJECTED
from tests.factories import make_checkpoint, make_run
from tests.registry.lmeval_files import entry, write_log, write_results
from worker.tasks import prepare_task

SUITES = Path(__file__).resolve().parents[2] / "suites"
CHOICE, TEXT, FREE = "starter_skills_coding", "starter_bpb_en", "starter_probes"
NUM_ITEMS = 12


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `lm_eval --log_samples --output_path` leaves: a result file and a sample file for each task."""
    folder = tmp_path_factory.mktemp("lm-eval")
    random.seed(7)  # lm-eval's dummy model answers at random
    found = simple_evaluate(
        model=DummyLM(),
        tasks=[CHOICE, TEXT, FREE],
        task_manager=TaskManager(include_path=str(SUITES / "starter"), include_defaults=False),
        limit=NUM_ITEMS,
        bootstrap_iters=0,
        log_samples=True,
    )
    tracker = EvaluationTracker(output_path=str(folder))
    tracker.general_config_tracker.log_experiment_args("dummy", "pretrained=some/model", None, None, False)
    logged = found.pop("samples")
    tracker.save_results_aggregated(results={**found, "lm_eval_version": "0.4.13"}, samples=logged)
    for task, entries in logged.items():
        tracker.save_results_samples(task_name=task, samples=entries)
    return folder


@pytest.fixture
def run(session: Session) -> str:
    return make_run(session).name


def by_task(imported: imports.Imported) -> dict[str, Evaluation]:
    return {evaluation.task.name: evaluation for evaluation in imported.evaluations}


def paths(session: Session, evaluation: Evaluation) -> list[Path]:
    session.flush()
    return evaluations.sample_paths(evaluations.get_evaluation(session, evaluation.id))


def values(session: Session, evaluation: Evaluation) -> dict[str, Any]:
    session.flush()
    found = next(e for e in evaluations.for_checkpoint(session, evaluation.checkpoint) if e.id == evaluation.id)
    return {result.metric: result for result in found.results}


class TestFilesOfTheInstalledVersion:
    def test_results_stand_on_the_curve_of_our_own_task(self, session: Session, run: str, written: Path) -> None:
        suites.sync(session)
        checkpoint = make_checkpoint(session, runs.get_run(session, run), 300)
        imported = imports.import_results(session, written, run=run, step=300)
        assert imported.checkpoint is checkpoint
        evaluation = by_task(imported)[CHOICE]
        assert evaluation.task is suites.get_task(session, CHOICE)
        assert evaluation.protocol["imported"] is True
        assert (evaluation.protocol["source"], evaluation.protocol["engine"]) == ("lm-eval", "dummy")
        assert (evaluation.protocol["model"], evaluation.protocol["lm_eval"]) == ("some/model", "0.4.13")
        assert evaluation.num_items == NUM_ITEMS

    def test_our_formulas_find_the_numbers_that_lm_eval_found(self, session: Session, run: str, written: Path) -> None:
        suites.sync(session)
        evaluation = by_task(imports.import_results(session, written, run=run, step=300))[CHOICE]
        [file] = written.rglob("results_*.json")
        theirs = json.loads(file.read_text())["results"][CHOICE]
        found = values(session, evaluation)
        assert found["acc"].value == theirs["acc,none"]
        assert found["acc_norm"].value == theirs["acc_norm,none"]
        assert found["acc"].low < found["acc"].value < found["acc"].high
        assert {"acc_bytes", "prob", "brier_score", "bits_per_byte"} <= found.keys()
        assert "acc_per_token" not in found  # lm-eval logs no tokens

    def test_every_answer_is_kept(self, session: Session, run: str, written: Path) -> None:
        suites.sync(session)
        evaluation = by_task(imports.import_results(session, written, run=run, step=300))[CHOICE]
        [log] = written.rglob(f"samples_{CHOICE}_*")
        entries = sorted(map(json.loads, log.read_text().splitlines()), key=lambda entry: int(entry["doc_id"]))
        answered = samples.read(paths(session, evaluation))
        assert [one.sum_logprob for one in answered] == [
            [pytest.approx(float(response[0][0])) for response in entry["resps"]] for entry in entries
        ]
        assert [one.score for one in answered] == [entry["acc"] for entry in entries]
        items_path = evaluations.items_path(evaluation)
        assert [item.choices for item in samples.read_items(items_path)] == [e["doc"]["choices"] for e in entries]
        derived = item_values("acc_norm", samples.answers(paths(session, evaluation), items_path))
        assert derived.tolist() == [entry["acc_norm"] for entry in entries]

    def test_items_are_those_that_our_worker_asks(self, session: Session, run: str, written: Path) -> None:
        suites.sync(session)
        found = by_task(imports.import_results(session, written, run=run, step=300))
        for task in (CHOICE, TEXT):
            assert samples.read_items(evaluations.items_path(found[task])) == prepare_task(task).items[:NUM_ITEMS]

    def test_texts_have_their_bits_per_byte(self, session: Session, run: str, written: Path) -> None:
        suites.sync(session)
        evaluation = by_task(imports.import_results(session, written, run=run, step=300))[TEXT]
        [file] = written.rglob("results_*.json")
        theirs = json.loads(file.read_text())["results"][TEXT]["bits_per_byte,none"]
        found = values(session, evaluation)["bits_per_byte"]
        assert found.value == pytest.approx(theirs)
        assert found.low < found.value < found.high  # lm-eval gives no error for it, the answers do

    def test_the_same_files_twice_change_nothing(self, session: Session, run: str, written: Path) -> None:
        suites.sync(session)
        first = imports.import_results(session, written, run=run, step=300)
        second = imports.import_results(session, list(written.rglob("*.json*")), run=run, step=300)
        assert second.evaluations == []
        assert sorted(second.known) == sorted(evaluation.task.name for evaluation in first.evaluations)

    def test_a_checkpoint_without_files_is_known_by_its_results(
        self, session: Session, run: str, written: Path
    ) -> None:
        found = imports.import_results(session, written, run=run, step=300, tokens=1_000).checkpoint
        assert (found.state, found.step, found.tokens_seen) == (EXTERNAL, 300, 1_000)

    def test_an_unknown_task_becomes_one_of_the_imported_suite(self, session: Session, run: str, written: Path) -> None:
        task = by_task(imports.import_results(session, written, run=run, step=300))[CHOICE].task
        assert (task.suite.name, task.title, task.metric, task.chance) == ("imported", CHOICE, "acc", 0.2)
        text = suites.get_task(session, TEXT)
        assert (text.metric, text.higher_is_better, text.chance) == ("bits_per_byte", False, None)


class TestFilesByHand:
    def test_results_without_answers_keep_their_stderr(self, session: Session, run: str, tmp_path: Path) -> None:
        path = write_results(tmp_path, versions={"piqa": 1.0}, **{"n-samples": {"piqa": {"effective": 25}}})
        [evaluation] = imports.import_results(session, path, run=run, step=1).evaluations
        assert (evaluation.task.version, evaluation.num_items, evaluation.items_file) == ("1.0", 25, "")
        result = values(session, evaluation)["acc"]
        assert (result.value, result.stderr, result.n) == (0.5, 0.1, 25)
        assert (result.low, result.high) == (pytest.approx(0.304, abs=1e-3), pytest.approx(0.696, abs=1e-3))

    def test_another_number_of_items_is_another_line(self, session: Session, run: str, tmp_path: Path) -> None:
        for effective in (25, 50):
            path = write_results(tmp_path, **{"n-samples": {"piqa": {"effective": effective}}})
            assert len(imports.import_results(session, path, run=run, step=1).evaluations) == 1

    def test_answers_scored_in_another_way_keep_that_score_and_no_other(
        self, session: Session, run: str, tmp_path: Path
    ) -> None:
        write_log(write_results(tmp_path).parent, entry(0, acc=0.0), entry(1))
        [evaluation] = imports.import_results(session, tmp_path, run=run, step=1).evaluations
        assert [(one.target, one.score) for one in samples.read(paths(session, evaluation))] == [(None, 0), (None, 1)]
        assert [*values(session, evaluation)] == ["acc"]

    def test_a_single_continuation_is_right_if_the_model_would_have_written_it(
        self, session: Session, run: str, tmp_path: Path
    ) -> None:
        one = {"arguments": {"gen_args_0": {"arg_0": "Once upon a", "arg_1": " time"}}, "target": " time"}
        write_log(
            write_results(tmp_path).parent,
            entry(0, **one, resps=[[["-0.5", "True"]]], acc=1.0),
            entry(1, **one, resps=[[["-4.5", "False"]]], acc=0.0),
        )
        [evaluation] = imports.import_results(session, tmp_path, run=run, step=1).evaluations
        found = values(session, evaluation)
        assert found["acc"].value == 0.5
        assert found["bits_per_byte"].value == pytest.approx(2.5 / 5 / 0.6931472)


class TestRefusals:
    def test_a_run_or_step_that_cannot_be(self, session: Session, run: str, tmp_path: Path) -> None:
        with pytest.raises(NotFound, match="no run 'nobody'"):
            imports.import_results(session, write_results(tmp_path), run="nobody", step=1)
        with pytest.raises(Invalid, match="count from 0"):
            imports.import_results(session, write_results(tmp_path), run=run, step=-1)

    def test_a_rejected_checkpoint_or_one_with_other_tokens(self, session: Session, run: str, tmp_path: Path) -> None:
        checkpoint = make_checkpoint(session, runs.get_run(session, run), 5)
        with pytest.raises(Conflict, match="has seen 20480 tokens, not 7"):
            imports.import_results(session, write_results(tmp_path), run=run, step=5, tokens=7)
        checkpoint.state = REJECTED
        with pytest.raises(Conflict, match="takes no results"):
            imports.import_results(session, write_results(tmp_path), run=run, step=5)

    def test_a_broken_log_records_nothing(self, session: Session, run: str, tmp_path: Path) -> None:
        results = {"piqa": {"acc,none": 1.0}, "arc": {"acc,none": 1.0}}
        write_log(write_results(tmp_path, results=results).parent, entry(0, resps=None))
        with pytest.raises(Invalid):
            imports.import_results(session, tmp_path, run=run, step=1)
        assert checkpoints.list_checkpoints(session, runs.get_run(session, run)) == []
