"""The starter suite: every task loads, is the same everywhere, leaks nothing, and is no easier than it says."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from lm_eval.api.task import ConfigurableTask

from corpora.split import held_out, is_held_out, training
from registry.suites import FOLDER
from worker.engine.protocol import Score, ScoreRequest
from worker.engine.scripted import ScriptedEngine
from worker.evaluate import load_task, run_evaluation

FILES = sorted((FOLDER / "starter").glob("*.yaml"))
NAMES = [f"starter_{file.stem}" for file in FILES]
CHOICES = [name for name in NAMES if "bpb" not in name and "probes" not in name]
FOLLOWS = [name for name in NAMES if "follows" in name]
ABILITIES = {"chinese", "english", "code", "maths", "reasoning", "knowledge"}
STANDARD_ERRORS = 3.5

DIGESTS = """
import hashlib
from worker.evaluate import load_task
for name in {names}:
    print(name, hashlib.sha256(repr(list(load_task(name).eval_docs)).encode()).hexdigest())
"""


class CoinEngine(ScriptedEngine):
    """Gives each continuation a random total, however long it is: what a model without any knowledge does."""

    def score(self, requests: Any) -> list[Score]:
        return [Score([self._total(request), *[0.0] * (len(request.continuation) - 1)], False) for request in requests]

    def _total(self, request: ScoreRequest) -> float:
        drawn = hashlib.sha256(repr((request.context, request.continuation)).encode()).digest()
        return -1.0 - int.from_bytes(drawn[:4], "big") / 2**32


def docs(name: str) -> list[dict[str, Any]]:
    return list(load_task(name).eval_docs)


def about(name: str) -> dict[str, Any]:
    found: dict[str, Any] = load_task(name).get_config("metadata")["grow"]
    return found


def source_of(name: str) -> str:
    return str(load_task(name).get_config("dataset_kwargs")["source"])


@pytest.mark.parametrize("name", NAMES)
class TestEveryTask:
    def test_loads_through_lm_eval_and_has_items(self, name: str) -> None:
        task = load_task(name)
        assert isinstance(task, ConfigurableTask)
        wanted = (task.get_config("dataset_kwargs") or {}).get("num_items", 8)
        assert len(task.eval_docs) == wanted

    def test_says_what_the_registry_needs(self, name: str) -> None:
        found = about(name)
        assert found["title"]
        assert found["title_zh"]
        assert found["ability"] in ABILITIES
        assert found["is_probe"] == (name == "starter_probes")
        assert found["metric"] in ("", *load_task(name).aggregation())

    def test_asks_no_question_twice(self, name: str) -> None:
        contents = [repr(sorted(doc.items())) for doc in docs(name)]
        assert len(set(contents)) == len(contents)

    def test_is_one_file_named_after_the_task(self, name: str) -> None:
        text = (FOLDER / "starter" / f"{name.removeprefix('starter_')}.yaml").read_text()
        assert yaml.safe_load(text.split("custom_dataset")[0])["task"] == name


def test_items_are_the_same_in_another_process_with_another_hash_seed() -> None:
    names = ["starter_bpb_zh", "starter_follows_zh", "starter_pairs_zh"]
    environment = {**os.environ, "PYTHONHASHSEED": "77"}
    command = [sys.executable, "-c", DIGESTS.format(names=names)]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, env=environment, cwd=FOLDER.parent)
    here = {name: hashlib.sha256(repr(docs(name)).encode()).hexdigest() for name in names}
    assert dict(line.split() for line in shown.stdout.splitlines() if line.startswith("starter")) == here


class TestNothingLeaks:
    @pytest.mark.parametrize("name", [name for name in NAMES if "bpb" in name])
    def test_passages_are_held_out_text(self, name: str) -> None:
        documents = {document.key: document for document in held_out(source_of(name))}
        for doc in docs(name):
            document = documents[doc["document"]]
            assert doc["text"] in document.text
            assert is_held_out(document)

    @pytest.mark.parametrize("name", [*FOLLOWS, "starter_pairs_zh", "starter_pairs_en"])
    def test_no_right_answer_stands_in_the_training_text(self, name: str) -> None:
        trained_on = "\0".join(document.text for document in training(source_of(name)))
        seen = [right for doc in docs(name) if (right := doc["choices"][doc["target"]]) in trained_on]
        assert seen == []


class TestChance:
    @pytest.mark.parametrize("name", CHOICES)
    def test_random_scores_reach_the_chance_that_the_task_states(self, name: str, coin: Any) -> None:
        engine, folder = coin
        found = {score.metric: score for score in run_evaluation(engine, folder, name).results}
        chance = about(name)["chance"]
        assert abs(found["acc"].value - chance) <= STANDARD_ERRORS * (chance * (1 - chance) / found["acc"].n) ** 0.5

    @pytest.mark.parametrize("name", FOLLOWS)
    def test_neither_the_longest_nor_the_shortest_choice_wins(self, name: str) -> None:
        for pick in (max, min):
            right = sum(
                pick(range(4), key=lambda at, doc=doc: len(doc["choices"][at].encode())) == doc["target"]
                for doc in docs(name)
            )
            share = right / len(docs(name))
            assert share <= 0.25 + STANDARD_ERRORS * (0.25 * 0.75 / len(docs(name))) ** 0.5

    @pytest.mark.parametrize("name", FOLLOWS)
    def test_choices_are_about_as_long_as_each_other(self, name: str) -> None:
        for doc in docs(name):
            sizes = [len(choice.encode()) for choice in doc["choices"]]
            assert max(sizes) - min(sizes) <= 0.25 * max(sizes)

    @pytest.mark.parametrize("name", ["starter_pairs_zh", "starter_pairs_en"])
    def test_pairs_hold_the_same_characters(self, name: str) -> None:
        for doc in docs(name):
            one, two = doc["choices"]
            assert one != two
            assert sorted(one) == sorted(two)


@pytest.fixture
def coin(bytes_folder: Path) -> tuple[CoinEngine, Path]:
    engine = CoinEngine()
    engine.use(bytes_folder)
    return engine, bytes_folder
