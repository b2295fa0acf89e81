"""Results from stored answers: the numbers that lm-eval gives, and the same again without an engine."""

from pathlib import Path
from typing import Any

import pytest
from lm_eval import evaluator

from tests.worker.own_suite import OwnSuite, questions
from worker import results
from worker.engine.scripted import ScriptedEngine
from worker.evaluate import load_task, run_evaluation
from worker.scoring import EngineLM
from worker.tasks import TaskError, prepare_task

METRICS = [{"metric": name} for name in ("acc", "acc_norm", "acc_bytes", "brier_score")]


@pytest.fixture
def folder(make_checkpoint: Any) -> Path:
    found: Path = make_checkpoint("results", seed=9)
    return found


def by_lm_eval(folder: Path, name: str) -> dict[str, Any]:
    """The results that lm-eval's own evaluator gives over the same engine."""
    engine = ScriptedEngine()
    engine.use(folder)
    tasks = {"tasks": {name: load_task(name)}, "groups": {}}
    found: dict[str, Any] = evaluator.evaluate(EngineLM(engine, folder), tasks, bootstrap_iters=0)["results"][name]
    return found


def ours(folder: Path, name: str) -> dict[str, float]:
    return {score.metric: score.value for score in run_evaluation(ScriptedEngine(), folder, name).results}


class TestAgainstLmEval:
    def test_choices_in_chinese_differ_in_characters_and_bytes(self, folder: Path, own_suite: OwnSuite) -> None:
        docs = questions(60)
        for at, doc in enumerate(docs):
            doc["choices"] = [f" 第{at}个", f" number {at} of them", f" {at}", " 很长的一个选择" * (at % 3 + 1)]
        name = own_suite.write("mixed", docs, metric_list=METRICS)
        theirs, found = by_lm_eval(folder, name), ours(folder, name)
        for metric in ("acc", "acc_norm", "acc_bytes", "brier_score"):
            assert found[metric] == pytest.approx(theirs[f"{metric},none"], rel=1e-6), metric

    def test_a_continuation_has_greedy_accuracy_and_perplexity(self, folder: Path, own_suite: OwnSuite) -> None:
        docs = [{"context": f"to be {at}", "word": " or"} for at in range(20)]
        name = own_suite.write(
            "word",
            docs,
            output_type="loglikelihood",
            doc_to_text="{{context}}",
            doc_to_target="{{word}}",
            doc_to_choice=None,
            metric_list=[{"metric": "perplexity", "aggregation": "perplexity"}, {"metric": "acc"}],
        )
        theirs, found = by_lm_eval(folder, name), ours(folder, name)
        assert found["perplexity"] == pytest.approx(theirs["perplexity,none"], rel=1e-5)
        assert found["acc"] == theirs["acc,none"]
        assert found["bits_per_byte"] > 0

    def test_several_filters_keep_their_names(self, folder: Path, own_suite: OwnSuite) -> None:
        docs = [{"question": f"so {at} it is", "answer": str(at)} for at in range(6)]
        take_number = [{"function": "regex", "regex_pattern": "(\\d+)"}, {"function": "take_first"}]
        name = own_suite.write(
            "numbers",
            docs,
            output_type="generate_until",
            doc_to_choice=None,
            doc_to_target="{{answer}}",
            generation_kwargs={"until": [], "max_gen_toks": 40},
            filter_list=[
                {"name": "number", "filter": take_number},
                {"name": "whole", "filter": [{"function": "take_first"}]},
            ],
            metric_list=[{"metric": "exact_match"}],
        )
        theirs, found = by_lm_eval(folder, name), ours(folder, name)
        assert found == {
            "exact_match": theirs["exact_match,number"],
            "exact_match,whole": theirs["exact_match,whole"],
        }
        assert found["exact_match"] == 1.0


class TestWithoutAnEngine:
    def test_the_stored_answers_give_the_same_results(self, folder: Path, own_suite: OwnSuite) -> None:
        name = own_suite.write("plain", questions(40))
        whole = run_evaluation(ScriptedEngine(), folder, name)
        prepared = prepare_task(name)
        assert results.derive_stored("multiple_choice", prepared.items, whole.samples) == whole.results

    def test_a_metric_that_some_item_does_not_have_is_left_out_alone(self, folder: Path, own_suite: OwnSuite) -> None:
        name = own_suite.write("plain", questions(12))
        whole = run_evaluation(ScriptedEngine(), folder, name)
        broken = [sample._replace(num_bytes=[0, 1, 1, 1]) for sample in whole.samples]
        found = results.derive_stored("multiple_choice", prepare_task(name).items, broken)
        assert "acc_bytes" not in [score.metric for score in found]
        assert "acc" in [score.metric for score in found]

    def test_where_nothing_can_be_worked_out_it_says_why(self, own_suite: OwnSuite) -> None:
        with pytest.raises(TaskError, match="No metric can be worked out: acc: "):
            results.derive_stored("multiple_choice", [], [])


def test_scoring_code_that_raises_is_told_with_task_and_item(folder: Path, own_suite: OwnSuite) -> None:
    (own_suite.folder / "score.py").write_text("def score(doc, results):\n    raise KeyError('gold')\n")
    name = own_suite.write("own", questions(3))
    path = own_suite.folder / "own.yaml"
    path.write_text(path.read_text() + "process_results: !function score.score\n")
    with pytest.raises(TaskError, match=r"Task 'own' cannot score item 0 \(KeyError\)"):
        run_evaluation(ScriptedEngine(), folder, name)
