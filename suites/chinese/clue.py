"""Five tasks of CLUE as choices that a base model can rank, from the public `dev` files in a folder of the site's own.

CLUE was made to train classifiers on; asked without training, as here, its numbers compare with those of
other language models, not with CLUE's own table.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from datasets import Dataset

from corpora.draw import rank
from corpora.local import find_benchmark

RELATIONS = {"entailment": "对", "contradiction": "错", "neutral": "可能"}
TOPICS = {
    "news_story": "故事",
    "news_culture": "文化",
    "news_entertainment": "娱乐",
    "news_sports": "体育",
    "news_finance": "财经",
    "news_house": "房产",
    "news_car": "汽车",
    "news_edu": "教育",
    "news_tech": "科技",
    "news_military": "军事",
    "news_travel": "旅游",
    "news_world": "国际",
    "news_stock": "股票",
    "news_agriculture": "农业",
    "news_game": "游戏",
}
"""TNEWS's labels in two characters each."""

BLANK = re.compile(r"#idiom\d+#")
SENTENCE_END = re.compile(r"[。！？…]+[”』」]*")
MAX_BEFORE = 200
"""Characters of a passage that stand before a blank."""


def c3(num_items: int, **_metadata: Any) -> dict[str, Dataset]:
    """Reading comprehension: passage or dialogue, question, four answers (items with fewer are left out)."""
    items = []
    for passage, questions, *_ in _records("c3", "*dev*.json"):
        text = "\n".join(passage)
        for row in questions:
            choices = row["choice"]
            if len(choices) == 4 and row["answer"] in choices:
                prompt = f"阅读：{text}\n问题：{row['question']}\n答案："
                items.append(_item(prompt, choices, choices.index(row["answer"]), group=text))
    return _first(items, num_items)


def chid(num_items: int, **_metadata: Any) -> dict[str, Dataset]:
    """Which of ten idioms stands in the blank; the rest of the sentence is read too."""
    answers: dict[str, int] = {}
    for file in _files("chid", "dev_answer.json"):
        answers |= json.loads(file.read_text(encoding="utf-8"))
    items = []
    for row in _records("chid"):
        for passage in row["content"]:
            for blank in BLANK.finditer(passage):
                before = BLANK.sub("____", passage[: blank.start()])[-MAX_BEFORE:]
                after = _to_sentence_end(BLANK.sub("____", passage[blank.end() :]))
                choices = [idiom + after for idiom in row["candidates"]]
                items.append(_item(before, choices, answers[blank[0]], group=passage))
    return _first(items, num_items)


def ocnli(num_items: int, **_metadata: Any) -> dict[str, Dataset]:
    """Whether the first sentence says, contradicts or leaves open the second; items the annotators disputed go."""
    items = [
        _item(
            f"{row['sentence1']}\n根据上文，“{row['sentence2']}”这句话是对的、错的，还是可能的？答案：",
            list(RELATIONS.values()),
            list(RELATIONS).index(row["label"]),
        )
        for row in _records("ocnli")
        if row["label"] in RELATIONS
    ]
    return _first(items, num_items)


def wsc(num_items: int, **_metadata: Any) -> dict[str, Dataset]:
    """Whether a pronoun means a noun."""
    items = []
    for row in _records("wsc"):
        pronoun, noun = row["target"]["span2_text"], row["target"]["span1_text"]
        prompt = f"{row['text']}\n上文中的“{pronoun}”指的是“{noun}”吗？答案："
        items.append(_item(prompt, ["不是", "是的"], int(str(row["label"]).lower() == "true"), group=row["text"]))
    return _first(items, num_items)


def tnews(num_items: int, **_metadata: Any) -> dict[str, Dataset]:
    """Which of fifteen sections a headline stands in."""
    items = [
        _item(f"新闻标题：{row['sentence']}\n新闻类别：", list(TOPICS.values()), list(TOPICS).index(row["label_desc"]))
        for row in _records("tnews")
    ]
    return _first(items, num_items)


def _item(prompt: str, choices: list[str], target: int, group: str = "") -> dict[str, Any]:
    """Items that share a passage share a `group`."""
    cluster = rank("group", group)[:16] if group else ""
    return {"prompt": prompt, "choices": choices, "target": target, "group": cluster}


def _first(items: list[dict[str, Any]], num_items: int) -> dict[str, Dataset]:
    """Different items, a part of them drawn by their content."""
    unique = {rank("clue", item["prompt"], *item["choices"]): item for item in reversed(items)}
    return {"test": Dataset.from_list([unique[key] for key in sorted(unique)[:num_items]])}


def _to_sentence_end(text: str) -> str:
    found = SENTENCE_END.search(text)
    return text[: found.end()] if found is not None else text


def _records(task: str, file_name: str = "dev.json") -> Iterator[Any]:
    """The records of a task's files: one JSON list, or one value a line."""
    for file in _files(task, file_name):
        text = file.read_text(encoding="utf-8-sig")
        # not `splitlines`, which also cuts at signs that JSON allows inside a string
        lines = (line for line in text.split("\n") if line.strip())
        yield from json.loads(text) if text.lstrip().startswith("[") else map(json.loads, lines)


def _files(task: str, pattern: str) -> list[Path]:
    """Files at any depth of a folder whose name holds the task's: `ocnli`, `OCNLI`, `ocnli_public`.

    Raises:
        FileNotFoundError: there is none.
    """
    folder = find_benchmark("clue")
    found = [
        file
        for file in sorted(folder.rglob(pattern))
        if any(task in part.lower() for part in file.relative_to(folder).parts[:-1])
    ]
    if not found:
        raise FileNotFoundError(f"The folder 'clue' must hold {task}/{pattern}.")
    return found
