"""Results that were measured elsewhere, put on the curves of a run and marked as imported.

What the files of lm-eval say about a task becomes one evaluation. Where the answers were logged, they
become sample files, as if we had asked; tokens were not logged, so their numbers are 0.
"""

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from statistics import NormalDist
from typing import NamedTuple

from sqlalchemy import select
from sqlalchemy.orm import Session

from analysis import metrics
from registry import checkpoints, evaluations, lmeval, runs, samples, suites, transcripts
from registry.errors import Conflict, Invalid
from registry.evaluations import NewSlice, Score
from registry.lmeval import TaskResult
from registry.models import Checkpoint, Evaluation, Task
from registry.models.base import REJECTED, RETIRED
from registry.settings import get_settings

HEADLINES = ("acc", "exact_match", "bits_per_byte", "f1", "bleu", "word_perplexity", "perplexity")
"""What the curve of an unknown task shows, the first that it has; of those that have none of them, its first."""
_Z = NormalDist().inv_cdf(0.975)
_SAME = 1e-5
"""Relative; 32 bits are kept of a log-probability."""


class Imported(NamedTuple):
    """What an import came to."""

    checkpoint: Checkpoint
    evaluations: list[Evaluation]
    known: list[str]
    """Tasks whose results under the same protocol were here already, and stand."""


class _Answers(NamedTuple):
    """The logged answers of one task, written down."""

    num_items: int
    items_file: str
    samples_file: str
    digest: str
    derived: dict[str, Score]
    num_choices: int | None
    """Where all items have the same number."""


def import_results(
    session: Session,
    paths: Path | Sequence[Path],
    *,
    run: str,
    step: int,
    tokens: int | None = None,
    kind: str = "pretrained",
) -> Imported:
    """Take lm-eval's files, or folders of them, as the results of one checkpoint.

    The checkpoint need not exist: then it is one that is known by its results alone. The same files
    twice change nothing.

    Raises:
        NotFound: there is no such run.
        Invalid: the files are no lm-eval results, or say something that cannot be.
        Conflict: the checkpoint was rejected or retired, or has other tokens.
    """
    if step < 0 or (tokens is not None and tokens < 0):
        raise Invalid("Steps and tokens count from 0.")
    owner = runs.get_run(session, run)
    found = lmeval.find_results([paths] if isinstance(paths, Path) else paths)
    # All files are read before the first row is written, so that SQLite's write lock is held for a moment.
    prepared = [(result, _answers(session, result)) for result in found if result.values]
    if not prepared:
        raise Invalid("The result files hold no task with a number.")
    checkpoint = checkpoints.register_external(session, owner, step=step, tokens_seen=tokens, kind=kind)
    _check(checkpoint, tokens)
    done, known = [], []
    for result, answers in prepared:
        evaluation = _record(session, checkpoint, result, answers)
        if evaluation is None:
            known.append(result.task)
        else:
            done.append(evaluations.get_evaluation(session, evaluation.id))
    return Imported(checkpoint, done, known)


def _check(checkpoint: Checkpoint, tokens: int | None) -> None:
    if checkpoint.state in (REJECTED, RETIRED):
        raise Conflict("%(checkpoint)s is no longer shown, so it takes no results.", checkpoint=checkpoint.label)
    if tokens is not None and checkpoint.tokens_seen != tokens:
        raise Conflict(
            "%(checkpoint)s has seen %(known)s tokens, not %(given)s.",
            checkpoint=checkpoint.label,
            known=checkpoint.tokens_seen,
            given=tokens,
        )


def _record(
    session: Session, checkpoint: Checkpoint, result: TaskResult, answers: _Answers | None
) -> Evaluation | None:
    num_items = answers.num_items if answers else result.num_items
    return evaluations.record_imported(
        session,
        checkpoint,
        _task(session, result, answers),
        protocol={
            **result.about,
            "source": "lm-eval",
            "imported": True,
            # Without the items their number tells a limited evaluation from a whole one.
            "items": answers.digest if answers else f"{num_items} items",
        },
        results=_scores(result, answers, num_items),
        num_items=num_items,
        slices=[NewSlice(0, answers.num_items, answers.samples_file)] if answers else [],
        items_file=answers.items_file if answers else "",
    )


def _task(session: Session, result: TaskResult, answers: _Answers | None) -> Task:
    """The task of that name and version, or a new one that only imports have."""
    headline = _headline(result)
    num_choices = answers.num_choices if answers and headline.startswith("acc") else None
    return suites.add_task(
        session,
        result.task,
        suite=suites.IMPORTED,
        version=result.version,
        output_type=str(result.config.get("output_type", "multiple_choice"))[:32],
        metric=headline,
        higher_is_better=headline not in result.lower_is_better,
        chance=1 / num_choices if num_choices else None,
    )


def _headline(result: TaskResult) -> str:
    names = [value.metric for value in result.values]
    return next((name for name in HEADLINES if name in names), names[0])


def _scores(result: TaskResult, answers: _Answers | None, num_items: int) -> list[Score]:
    """The file's numbers, with our intervals where our own computation agrees; then what else can be derived."""
    derived = dict(answers.derived) if answers else {}
    found = []
    for value in result.values:
        own = derived.pop(value.metric, None)
        if own is not None and abs(own.value - value.value) <= _SAME * max(1.0, abs(value.value)):
            found.append(own)
            continue
        reach = None if value.stderr is None else _Z * value.stderr
        low, high = (None, None) if reach is None else (value.value - reach, value.value + reach)
        found.append(Score(value.metric, value.value, value.stderr, low, high, num_items))
    return found + list(derived.values())


def _answers(session: Session, result: TaskResult) -> _Answers | None:
    """Write the logged answers of a task as sample and items files; None where none were logged."""
    if result.samples is None:
        return None
    known = session.scalar(select(Task).where(Task.name == result.task, Task.version == result.version))
    headline = known.metric if known else _headline(result)
    kind, items, answered = transcripts.convert(result, lmeval.read_samples(result.samples), headline)
    root = get_settings().samples_dir
    items_path = samples.write_items(root / "items", result.task, items)
    # The names are digests: the same answers again are the same file.
    path = samples.write_slice(root / "imported" / items_path.stem, 0, answered)
    counts = {len(item.choices) for item in items}
    return _Answers(
        num_items=len(items),
        items_file=items_path.relative_to(root).as_posix(),
        samples_file=path.relative_to(root).as_posix(),
        digest=hashlib.sha256("\n".join(item.item for item in items).encode()).hexdigest()[:16],
        derived={} if kind == "free" else _derive(kind, path, items_path),
        num_choices=counts.pop() if kind == "choice" and len(counts) == 1 else None,
    )


def _derive(kind: metrics.Kind, path: Path, items_path: Path) -> dict[str, Score]:
    """Every metric that these answers have, with its interval, clustered where the items have groups."""
    answers, groups = samples.answers([path], items_path), [item.group for item in samples.read_items(items_path)]
    found = {}
    for name in metrics.METRICS[kind]:
        with suppress(ValueError):  # no tokens are known, a choice may be empty: then not this metric, but others
            found[name] = Score(name, *metrics.estimate(name, answers, groups if any(groups) else None))
    return found
