"""Answers that look like a model's, written and recorded as a worker does: items, slices, and results from them."""

import math
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from analysis import metrics
from analysis.intervals import wilson
from registry import evaluations, samples, tickets
from registry.evaluations import NewSlice, Score
from registry.models import Evaluation, Task
from registry.samples import Item, Sample
from registry.settings import get_settings

NUM_ITEMS = 120
FIRST_SLICE = 64
PROTOCOL: dict[str, Any] = {
    "engine": "vllm",
    "engine_version": "0.32.0",
    "dtype": "bfloat16",
    "lm_eval": "0.4.13",
    "task_version": "1",
    "template": "6e1f0a3b5c7d9e21",
    "num_fewshot": 0,
    "items": "a1b2c3d4e5f60718",
    "tokenizer": "0f1e2d3c4b5a6978",
    "context_length": 1024,
    "begin_token": True,
    "chat_template": False,
    "scoring_revision": 1,
    "revision": "4f0c2a9",
}
OLD_PROTOCOL = PROTOCOL | {"engine_version": "0.31.0", "dtype": "float32"}
CHOICE_METRICS = ("acc", "prob", "brier_score", "bits_per_byte")
WORDS = {
    "zh": ["国家保护公民的合法权益", "任何组织和个人不得侵犯", "应当依照本法的规定办理", "由有关主管部门负责解释"],
    "en": [
        "That I may see the king",
        "And bid my lord farewell",
        "O, never more to speak",
        "Whose crown is but a dream",
    ],
    "code": [
        "    return self.items",
        "    for line in file:",
        "    raise ValueError(name)",
        "    with open(path) as f:",
    ],
}


def finish(session: Session, evaluation: Evaluation, task: Task, aim: float, protocol: dict[str, Any]) -> None:
    """Answer every item so that the headline metric comes to about `aim`, and record it in two slices."""
    tickets.cancel(session, evaluation_id=evaluation.id)
    items = make_items(task)
    items_path = samples.write_items(_root() / "items", task.name, items)
    rows = list(_samples(task, items, aim, seed=evaluation.id))
    evaluations.start(session, evaluation.id, len(items), protocol)
    paths = []
    for start, stop in ((0, FIRST_SLICE), (FIRST_SLICE, len(items))):
        path = samples.write_slice(_folder(evaluation), start, rows[start:stop])
        truncated = 3 if task.name == "code_next_line" and start else 0
        evaluations.add_slice(session, evaluation.id, NewSlice(start, stop, _relative(path), 0.9, truncated))
        paths.append(path)
    scores = _scores(task, paths, items_path, rows)
    evaluations.finish(session, evaluation.id, results=scores, protocol=protocol, items_file=_relative(items_path))
    session.flush()


def begin(session: Session, evaluation: Evaluation, task: Task) -> None:
    """Answer the first slice only."""
    items = make_items(task)
    rows = list(_samples(task, items, 0.4, seed=evaluation.id))[:FIRST_SLICE]
    path = samples.write_slice(_folder(evaluation), 0, rows)
    evaluations.start(session, evaluation.id, len(items), PROTOCOL)
    evaluations.add_slice(session, evaluation.id, NewSlice(0, FIRST_SLICE, _relative(path), 0.9))
    session.flush()


def make_items(task: Task) -> list[Item]:
    """The items of a task, the same at every call."""
    rng = random.Random(task.name)
    language = "code" if task.ability == "code" else "zh" if task.name.startswith("zh") else "en"
    return [_item(task, position, language, rng) for position in range(NUM_ITEMS)]


def _item(task: Task, position: int, language: str, rng: random.Random) -> Item:
    key, words = f"{rng.getrandbits(64):016x}", WORDS[language]
    if task.output_type == "generate_until":
        one, two = rng.randrange(90), rng.randrange(90)
        return Item(key, position, "", f"Question: What is {one} plus {two}?\nAnswer:", [], None, str(one + two))
    lines = rng.sample(words, len(words))
    if task.output_type == "loglikelihood_rolling":
        return Item(key, position, "", "", [f"{position + 1}. " + "\n".join(lines)], None)
    prompt = f"{position + 1}. {lines[0]}\n" if position else "Enter <script>alert('a ghost')</script> HAMLET.\n"
    if task.name == "code_next_line":
        prompt = "def read(path):\n" + "\n".join(rng.choices(words, k=14)) + "\n"
    if task.chance == 0.5:
        return Item(key, position, "", "", [lines[1], lines[1][::-1]], 0)
    return Item(key, position, f"subject {position % 40}", prompt, lines, rng.randrange(4))


def _samples(task: Task, items: list[Item], aim: float, seed: int) -> Iterator[Sample]:
    """An item that is easy for one checkpoint is easy for all, but for a little luck."""
    luck, ease = random.Random(seed), random.Random(task.name)
    for item in items:
        is_right = ease.random() + luck.gauss(0, 0.02) < aim
        if task.output_type == "generate_until":
            text = item.answer if is_right else str(luck.randrange(180))
            yield Sample(item.item, item.position, None, [], [3], [len(text)], [], float(is_right), f" {text}", "stop")
        elif task.output_type == "loglikelihood_rolling":
            size = len(item.choices[0].encode())
            yield _one_text(item, size, -aim * math.log(2) * size * luck.gauss(1, 0.02))
        else:
            yield _choice(item, is_right, luck)


def _one_text(item: Item, size: int, sum_logprob: float) -> Sample:
    return Sample(item.item, item.position, None, [sum_logprob], [max(1, size // 3)], [size], [False])


def _choice(item: Item, is_right: bool, luck: random.Random) -> Sample:
    assert item.target is not None
    best = item.target if is_right else (item.target + 1 + luck.randrange(len(item.choices) - 1)) % len(item.choices)
    found = [-12.0 - 4 * luck.random() for _ in item.choices]
    found[best] = -11.5
    sizes = [len(choice.encode()) for choice in item.choices]
    return Sample(item.item, item.position, item.target, found, [5] * len(found), sizes, [False] * len(found))


def _scores(task: Task, paths: list[Path], items_path: Path, rows: list[Sample]) -> list[Score]:
    if task.output_type == "generate_until":
        estimates = {task.metric: wilson(sum(row.score == 1 for row in rows), len(rows))}
    else:
        found = samples.answers(paths, items_path)
        names = CHOICE_METRICS if task.output_type == "multiple_choice" else ("bits_per_byte",)
        estimates = {name: metrics.estimate(name, found) for name in names}
    return [Score(name, e.value, e.stderr, e.low, e.high, e.n) for name, e in estimates.items()]


def _root() -> Path:
    return get_settings().samples_dir


def _folder(evaluation: Evaluation) -> Path:
    return _root() / str(evaluation.checkpoint_id) / str(evaluation.id)


def _relative(path: Path) -> str:
    return path.relative_to(_root()).as_posix()
