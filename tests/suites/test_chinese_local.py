"""Benchmarks in a folder of the site's own: C-Eval, CMMLU, GAOKAO-Bench and CLUE in the layouts that people have.

Every item here was written for this file; only the form of the files is the benchmarks'.
"""

import csv
import json
from pathlib import Path
from typing import Any

import lm_eval
import pytest
import yaml
from datasets import Dataset
from lm_eval.api.task import ConfigurableTask
from lm_eval.tasks import TaskManager

from corpora.local import VARIABLE
from registry.suites import FOLDER

LIBRARY = Path(lm_eval.__file__).parent / "tasks"


@pytest.fixture
def benchmarks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that the site names."""
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    return tmp_path


def load(name: str) -> ConfigurableTask:
    """A task of the suite, built anew."""
    return TaskManager(include_path=str(FOLDER), include_defaults=False).load([name])["tasks"][name]


def docs(name: str) -> list[dict[str, Any]]:
    return list(load(name).eval_docs)


def questions(number: int, *, subject: str) -> list[dict[str, str]]:
    """Questions with a right answer, as in a CSV of C-Eval."""
    return [
        {
            "id": str(at),
            "question": f"{subject}第{at}题，下列数中最大的是____。",
            "A": "1",
            "B": "2",
            "C": "3",
            "D": "4",
            "answer": "ABCD"[at % 4],
            "explanation": "",
        }
        for at in range(number)
    ]


def write_csv(file: Path, rows: list[dict[str, str]], **renamed: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    named = [{renamed.get(key, key): value for key, value in row.items()} for row in rows]
    with file.open("w", encoding="utf-8-sig", newline="") as text:
        writer = csv.DictWriter(text, list(named[0]))
        writer.writeheader()
        writer.writerows(named)


def write_lines(file: Path, *records: Any) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records))


def library_context(file: Path, shots: list[dict[str, str]], asked: dict[str, str]) -> str:
    """What lm-eval's own task of a subject asks with five examples."""
    folder = file.parent
    about = yaml.safe_load(file.read_text())
    config = yaml.safe_load((folder / about["include"]).read_text())
    split = config.get("test_split") or config["validation_split"]
    rows = {"dev": Dataset.from_list(shots), split: Dataset.from_list([asked])}
    own = {key: value for key, value in config.items() if key not in ("dataset_path", "metadata")}
    task = ConfigurableTask(
        config={**own, "task": about["task"], "description": about["description"], "custom_dataset": lambda **_: rows}
    )
    task.set_fewshot_seed(seed=1234)
    return str(task.fewshot_context(task.eval_docs[0], num_fewshot=5))


class TestCeval:
    def test_asks_what_lm_eval_asks_with_five_examples(self, benchmarks: Path) -> None:
        shots, asked = questions(5, subject="例"), questions(2, subject="法学")
        write_csv(benchmarks / "ceval" / "dev" / "law_dev.csv", shots)
        write_csv(benchmarks / "ceval" / "val" / "law_val.csv", asked)
        task = load("chinese_ceval")
        for doc, row in zip(task.eval_docs, asked, strict=True):
            prompt = task.fewshot_context(doc, num_fewshot=0)
            assert prompt == library_context(LIBRARY / "ceval" / "ceval-valid_law.yaml", shots, row)
            assert doc["subject"] == "law"
            assert task.doc_to_choice(doc)[task.doc_to_target(doc)] == row["answer"]
            assert task.config.target_delimiter == " "

    def test_begins_with_the_subject_and_ends_with_the_question(self, benchmarks: Path) -> None:
        write_csv(benchmarks / "ceval" / "formal_ceval" / "dev" / "law_dev.csv", questions(5, subject="例"))
        write_csv(benchmarks / "ceval" / "formal_ceval" / "val" / "law_val.csv", questions(1, subject="法学"))
        (doc,) = docs("chinese_ceval")
        assert doc["prompt"].startswith(
            "以下是中国关于法学的单项选择题，请选出其中的正确答案。\n\n"
            "例第0题，下列数中最大的是____。\nA. 1\nB. 2\nC. 3\nD. 4\n答案： A\n\n"
        )
        assert doc["prompt"].endswith("\n\n法学第0题，下列数中最大的是____。\nA. 1\nB. 2\nC. 3\nD. 4\n答案：")

    def test_questions_whose_answer_is_kept_secret_are_left_out(self, benchmarks: Path) -> None:
        write_csv(benchmarks / "ceval" / "dev" / "law_dev.csv", questions(5, subject="例"))
        secret = [{**row, "answer": ""} for row in questions(2, subject="密")]
        write_csv(benchmarks / "ceval" / "val" / "law_val.csv", [*questions(3, subject="法学"), *secret])
        assert len(docs("chinese_ceval")) == 3


class TestCmmlu:
    def test_asks_what_lm_eval_asks_with_five_examples(self, benchmarks: Path) -> None:
        shots, asked = questions(5, subject="例"), questions(1, subject="农学")
        names = {"question": "Question", "answer": "Answer", "id": ""}
        write_csv(benchmarks / "cmmlu" / "dev" / "agronomy.csv", shots, **names)
        write_csv(benchmarks / "cmmlu" / "test" / "agronomy.csv", asked, **names)
        (doc,) = docs("chinese_cmmlu")
        as_published = [{names.get(key, key) or "id": value for key, value in row.items()} for row in (*shots, *asked)]
        expected = library_context(LIBRARY / "cmmlu" / "cmmlu_agronomy.yaml", as_published[:5], as_published[5])
        assert doc["prompt"] == expected
        assert doc["subject"] == "agronomy"

    def test_a_subject_without_its_examples_is_named(self, benchmarks: Path) -> None:
        write_csv(benchmarks / "cmmlu" / "dev" / "agronomy.csv", questions(4, subject="例"))
        write_csv(benchmarks / "cmmlu" / "test" / "agronomy.csv", questions(1, subject="农学"))
        with pytest.raises(FileNotFoundError, match="five examples of the subject 'agronomy' are missing"):
            load("chinese_cmmlu")


class TestGaokao:
    def test_takes_questions_with_one_right_letter_from_the_benchmark_s_own_files(self, benchmarks: Path) -> None:
        folder = benchmarks / "gaokao" / "Data" / "Objective_Questions"
        one = {"year": "2030", "category": "（样卷）", "question": "1．（4分）太阳从（　　）升起\nA．东方  B．西方\n"}
        examples = [
            {**one, "answer": ["A"], "analysis": "", "index": 0, "score": 4},
            {**one, "answer": ["A", "B"], "analysis": "", "index": 1, "score": 4},
            {**one, "question": "两小题", "answer": ["AB"], "analysis": "", "index": 2, "score": 4},
        ]
        folder.mkdir(parents=True)
        for name in ("2010-2022_Geography_MCQs.json", "some-model_2010-2022_Geography_MCQs.json"):
            (folder / name).write_text(json.dumps({"keywords": "2010-2022_Geography_MCQs", "example": examples}))
        (doc,) = docs("chinese_gaokao")
        assert doc["prompt"] == "请你做一道地理选择题。\n1．（4分）太阳从（　　）升起\nA．东方  B．西方\n答案："
        assert (doc["choices"][doc["target"]], doc["subject"]) == ("A", "地理")


class TestClue:
    def test_c3_asks_every_question_of_a_passage(self, benchmarks: Path) -> None:
        two = [
            {"question": "谁来了？", "choice": ["小王", "小李", "小张", "小赵"], "answer": "小李"},
            {"question": "几点了？", "choice": ["一点", "两点"], "answer": "两点"},
        ]
        file = benchmarks / "clue" / "c3" / "data" / "c3-d-dev.json"
        file.parent.mkdir(parents=True)
        file.write_text(json.dumps([[["男：谁来了？", "女：是小李。"], two, "1-1"]]))
        (doc,) = docs("chinese_clue_c3")
        assert doc["prompt"] == "阅读：男：谁来了？\n女：是小李。\n问题：谁来了？\n答案："
        assert (doc["choices"], doc["target"]) == (["小王", "小李", "小张", "小赵"], 1)

    def test_chid_asks_for_each_blank_and_reads_to_the_end_of_its_sentence(self, benchmarks: Path) -> None:
        idioms = [f"成语第{number}" for number in "零一二三四五六七八九"]
        folder = benchmarks / "clue" / "chid_public"
        passage = "他做事#idiom000001#，从不马虎。人们说他#idiom000002#。"
        write_lines(folder / "dev.json", {"content": [passage], "candidates": idioms})
        (folder / "dev_answer.json").write_text(json.dumps({"#idiom000001#": 3, "#idiom000002#": 7}))
        first, second = sorted(docs("chinese_clue_chid"), key=lambda doc: len(doc["prompt"]))
        assert (first["prompt"], first["choices"][first["target"]]) == ("他做事", "成语第三，从不马虎。")
        assert second["prompt"] == "他做事____，从不马虎。人们说他"
        assert second["choices"][second["target"]] == "成语第七。"
        assert first["group"] == second["group"]

    def test_ocnli_leaves_out_what_its_annotators_disputed(self, benchmarks: Path) -> None:
        pair = {"sentence1": "门开着。", "sentence2": "门没有关。", "genre": "…"}
        write_lines(
            benchmarks / "clue" / "OCNLI" / "dev.json",
            {**pair, "label": "entailment"},
            {**pair, "sentence2": "天黑了。", "label": "-"},
        )
        (doc,) = docs("chinese_clue_ocnli")
        assert doc["prompt"] == "门开着。\n根据上文，“门没有关。”这句话是对的、错的，还是可能的？答案："
        assert doc["choices"][doc["target"]] == "对"

    @pytest.mark.parametrize(("label", "answer"), [("true", "是的"), ("false", "不是")])
    def test_wsc_asks_whom_a_pronoun_means(self, benchmarks: Path, label: str, answer: str) -> None:
        target = {"span1_index": 0, "span1_text": "小王", "span2_index": 8, "span2_text": "他"}
        text = "小王把伞给了小李，他没有带伞。"
        record = {"target": target, "idx": 0, "label": label, "text": text}
        write_lines(benchmarks / "clue" / "cluewsc2020_public" / "dev.json", record)
        (doc,) = docs("chinese_clue_wsc")
        assert doc["prompt"] == f"{text}\n上文中的“他”指的是“小王”吗？答案："
        assert doc["choices"][doc["target"]] == answer

    def test_tnews_offers_fifteen_sections_of_two_characters(self, benchmarks: Path) -> None:
        record = {"label": "108", "label_desc": "news_edu", "sentence": "新学期的课表出来了", "keywords": ""}
        write_lines(benchmarks / "clue" / "tnews" / "dev.json", record, record)
        (doc,) = docs("chinese_clue_tnews")
        assert doc["prompt"] == "新闻标题：新学期的课表出来了\n新闻类别："
        assert doc["choices"][doc["target"]] == "教育"
        assert {len(choice) for choice in doc["choices"]} == {2}
        assert len(set(doc["choices"])) == 15


class TestWhatIsMissing:
    def test_a_site_that_named_no_folder_is_told_what_to_set(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv(VARIABLE, raising=False)
        with pytest.raises(FileNotFoundError, match="GROW_BENCHMARKS_DIR is not set: it names the folder that holds"):
            load("chinese_ceval")

    @pytest.mark.parametrize(
        ("name", "folder"),
        [("ceval", "ceval"), ("cmmlu", "cmmlu"), ("gaokao", "gaokao"), ("clue_c3", "clue"), ("clue_tnews", "clue")],
    )
    def test_the_missing_folder_is_named(self, benchmarks: Path, name: str, folder: str) -> None:
        with pytest.raises(FileNotFoundError, match=f"no folder '{folder}'"):
            load(f"chinese_{name}")

    @pytest.mark.parametrize(
        ("name", "said"),
        [
            ("ceval", "val/"),
            ("cmmlu", "test/"),
            ("gaokao", "Objective_Questions/"),
            ("clue_chid", "chid/dev_answer.json"),
            ("clue_wsc", "wsc/dev.json"),
        ],
    )
    def test_an_empty_folder_is_told_which_files_it_must_hold(self, benchmarks: Path, name: str, said: str) -> None:
        (benchmarks / name.split("_")[0]).mkdir()
        with pytest.raises(FileNotFoundError, match=f"must hold .*{said}"):
            load(f"chinese_{name}")
