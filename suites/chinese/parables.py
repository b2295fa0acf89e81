"""Parables and their morals: "parable-to-moral-match-zh" of OpenAI's evals, read from the package's archive.

The same items in two forms: choosing a letter, which small models cannot do, and how probable each moral is
after the story, which they can.
"""

import json
import re
import zipfile
from typing import Any

from datasets import Dataset

from corpora.archives import EVALS, find_archive
from corpora.draw import rank

MEMBER = "evals/registry/data/parable-to-moral-match/parable-to-moral-match-zh.jsonl"
LETTERS = "ABCDE"
QUESTION = re.compile(
    r"(?P<story>.+)\nWhich moral is this story attempting to convey\?[^\n]*\n"
    + " ".join(rf"{letter}\) (?P<{letter}>.+?)" for letter in LETTERS)
    + r"\nThe output should look like.*",
    re.DOTALL,
)
ANSWER = re.compile(rf"The final answer is: (?P<letter>[{LETTERS}])")


def letters(num_items: int, **_metadata: Any) -> dict[str, Dataset]:
    """Story, question and lettered morals; the choices are the letters."""
    return {"test": Dataset.from_list([_lettered(item) for item in _items()][:num_items])}


def morals(num_items: int, **_metadata: Any) -> dict[str, Dataset]:
    """Story and the beginning of its moral; the choices are the morals."""
    found = [{**item, "prompt": f"{item['story']}\n\n这个故事告诉我们："} for item in _items()]
    return {"test": Dataset.from_list(found[:num_items])}


def _items() -> list[dict[str, Any]]:
    """All items, in a fixed shuffle: the first so many are as good as any."""
    with zipfile.ZipFile(find_archive(EVALS)) as archive:
        lines = archive.read(MEMBER).decode("utf-8").strip().split("\n")
    return sorted((_item(json.loads(line)) for line in lines), key=lambda item: rank("parable", item["story"]))


def _item(row: dict[str, Any]) -> dict[str, Any]:
    question = QUESTION.fullmatch(row["input"][-1]["content"])
    answer = ANSWER.fullmatch(row["ideal"][0])
    if question is None or answer is None:
        raise ValueError("An item of parable-to-moral-match-zh is not written as its version 3.0.1.post1 has it.")
    choices = [question[letter].strip() for letter in LETTERS]
    return {"story": question["story"].strip(), "choices": choices, "target": LETTERS.index(answer["letter"])}


def _lettered(item: dict[str, Any]) -> dict[str, Any]:
    listed = "\n".join(f"{letter}. {moral}" for letter, moral in zip(LETTERS, item["choices"], strict=True))
    prompt = f"{item['story']}\n\n这个故事说明了什么道理？\n{listed}\n答案："
    return {**item, "prompt": prompt, "choices": list(LETTERS)}
