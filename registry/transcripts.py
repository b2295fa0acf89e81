"""Answers that lm-eval logged, as our items and samples."""

import hashlib
import json
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from registry.errors import Invalid
from registry.lmeval import MAX_LOGPROB, Logged, TaskResult, as_number
from registry.samples import Item, Sample

Kind = Literal["choice", "continuation", "text", "free"]

ROUNDING = 1e-3
"""A log-probability may be above 0 by this many nats."""


class Transcript(NamedTuple):
    """A task's items with the answers to them, in the same order."""

    kind: Kind
    items: list[Item]
    samples: list[Sample]


class _Answer(NamedTuple):
    sum_logprob: float
    is_greedy: bool


def convert(result: TaskResult, logged: Sequence[Logged], headline: str) -> Transcript:
    """Items by their numbers, counted anew from 0; `headline` is the metric whose score is kept by item.

    Raises:
        Invalid: the entries are not all of one kind, or a log-probability cannot be one.
    """
    kinds = {_kind(result, one) for one in logged}
    if len(kinds) != 1:
        raise Invalid("The logged items of task '%(task)s' are not of one kind.", task=result.task)
    [kind] = kinds
    choices = [one.contexts if kind == "text" else one.continuations for one in logged]
    if kind == "choice":
        choices = _without_delimiter(choices, str(result.config.get("target_delimiter", " ")))
    answers = [[] if kind == "free" else [_answer(result.task, one) for one in entry.responses] for entry in logged]
    targets = _targets(logged, choices, answers) if kind == "choice" else [None] * len(logged)
    group_of = _group_of(result)
    items, samples = [], []
    for position, entry in enumerate(logged):
        item = Item(
            item=item_key(entry.doc),
            position=position,
            group=group_of(entry.doc),
            prompt="" if kind == "text" or len(set(entry.contexts)) > 1 else entry.contexts[0],
            choices=choices[position],
            target=targets[position],
            answer=entry.target if kind == "free" else "",
        )
        items.append(item)
        samples.append(_sample(item, entry, answers[position])._replace(score=entry.scores.get(headline)))
    return Transcript(kind, items, samples)


def item_key(doc: Any) -> str:
    """The worker's hash of an item, so that answers from both places meet item by item."""
    content = json.dumps(doc, ensure_ascii=False, sort_keys=True)
    return hashlib.sha256(content.encode(errors="surrogatepass")).hexdigest()[:16]


def _kind(result: TaskResult, entry: Logged) -> Kind:
    if entry.is_free:
        return "free"
    if not entry.continuations:
        return "text"
    is_alone = len(entry.continuations) == 1 or result.config.get("output_type") == "loglikelihood"
    return "continuation" if is_alone else "choice"


def _without_delimiter(choices: list[list[str]], delimiter: str) -> list[list[str]]:
    """What lm-eval measures the length of: the choice, without what it puts between question and choice."""
    if not all(choice.startswith(delimiter) for row in choices for choice in row):
        return choices
    return [[choice.removeprefix(delimiter) for choice in row] for row in choices]


def _answer(task: str, response: Any) -> _Answer:
    """`["-1.5", "False"]` of a continuation, `"-1.5"` of a text; numbers and truth values in the old layout."""
    parts = response if isinstance(response, list) else [response]
    logprob = as_number(parts[0]) if parts else None
    if logprob is None or not -MAX_LOGPROB <= logprob <= ROUNDING:
        raise Invalid(
            "Task '%(task)s' has a log-probability that is none: %(value)s.", task=task, value=str(response)[:80]
        )
    return _Answer(logprob, len(parts) > 1 and str(parts[1]) == "True")


def _targets(
    logged: Sequence[Logged], choices: Sequence[list[str]], answers: Sequence[list[_Answer]]
) -> list[int | None]:
    """The right choices; none where the log does not say which they are.

    It has numbers and texts alike as text, so the reading is taken under which the logged accuracy comes out.
    """
    best = [int(np.argmax([answer.sum_logprob for answer in row])) for row in answers]
    readings: list[Callable[[str, list[str]], int | None]] = [_by_number, _by_text]
    for reading in readings:
        found = [reading(entry.target, row) for entry, row in zip(logged, choices, strict=True)]
        fits = [
            target is not None and entry.scores.get("acc", target == one) == (target == one)
            for target, entry, one in zip(found, logged, best, strict=True)
        ]
        if all(fits):
            return found
    return [None] * len(logged)


def _by_number(target: str, choices: list[str]) -> int | None:
    is_number = target.isascii() and target.isdigit() and len(target) < 6
    return int(target) if is_number and int(target) < len(choices) else None


def _by_text(target: str, choices: list[str]) -> int | None:
    return choices.index(target) if target in choices else None


def _group_of(result: TaskResult) -> Callable[[Any], str]:
    """What clusters the items, where the task's own YAML names a field for it."""
    metadata = result.config.get("metadata")
    about = metadata.get("grow") if isinstance(metadata, dict) else None
    field = about.get("group") if isinstance(about, dict) else None
    return lambda doc: str(doc.get(field, "")) if isinstance(field, str) and isinstance(doc, dict) else ""


def _sample(item: Item, entry: Logged, answers: Sequence[_Answer]) -> Sample:
    if not answers:
        text = "" if entry.responses[0] is None else str(entry.responses[0])
        return Sample(item.item, item.position, None, [], [0], [_num_bytes(text)], [], None, text)
    return Sample(
        item=item.item,
        position=item.position,
        target=item.target,
        sum_logprob=[answer.sum_logprob for answer in answers],
        num_tokens=[0] * len(answers),  # lm-eval does not log them
        num_bytes=[_num_bytes(choice) for choice in item.choices],
        is_greedy=[answer.is_greedy for answer in answers],
    )


def _num_bytes(text: str) -> int:
    return len(text.encode(errors="replace"))
