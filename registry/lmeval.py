"""Reads what lm-eval wrote about a model: result files and logged samples. Nothing in them is believed.

Layouts since 0.4.3: `results_<time>.json` and `samples_<task>_<time>.jsonl`, one item a line. Of 0.4.0
to 0.4.2: `results.json` and `<model>_<task>.jsonl`, which is one JSON list. Only JSON is read, up to
the sizes below; a number must be finite.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from registry.errors import Invalid

MAX_FILES = 10_000
MAX_RESULTS_BYTES = 64 * 2**20
MAX_LIST_BYTES = 256 * 2**20
"""Of a file that is one JSON list and has to be read at once."""
MAX_SAMPLES_BYTES = 2 * 2**30
MAX_LINE_BYTES = 16 * 2**20
MAX_ITEMS = 200_000
MAX_CHOICES = 1_000
MAX_NAME_CHARS = 96
MAX_LOGPROB = 1e9
"""Nats; beyond it the 32 bits of a sample file say nothing."""

_TIME = re.compile(r"_(\d{4}-\d\d-\d\dT[\d.\-]+)$")
_NAME = re.compile(r"[\w][\w.-]*")
_NOT_METRICS = ("alias", "name", "sample_len", "samples", "bypass")


class Value(NamedTuple):
    """A number of a result file."""

    metric: str
    """With lm-eval's filter behind a comma where a task has several, and it is not the first."""
    value: float
    stderr: float | None


class TaskResult(NamedTuple):
    """One task of a result file."""

    task: str
    version: str
    num_items: int
    """0 where the file does not say."""
    values: list[Value]
    lower_is_better: set[str]
    config: Mapping[str, Any]
    """The task's YAML, where the file has it."""
    about: dict[str, Any]
    """What the numbers depend on, for the protocol."""
    samples: Path | None


class Logged(NamedTuple):
    """One item of a sample file."""

    number: int
    doc: Any
    contexts: list[str]
    continuations: list[str]
    """Empty for a whole text."""
    responses: list[Any]
    is_free: bool
    """A text that the model wrote itself."""
    target: str
    scores: Mapping[str, float]


def find_results(paths: Sequence[Path]) -> list[TaskResult]:
    """The tasks of all result files among `paths` and in their folders, the newest file first.

    Raises:
        Invalid: there is no result file, or one is broken.
    """
    files = sorted({file for path in paths for file in _files(path)})
    if len(files) > MAX_FILES:
        raise Invalid("There are more than %(limit)s files.", limit=MAX_FILES)
    logs = [file for file in files if file.suffix == ".jsonl"]
    results = [file for file in files if file.suffix == ".json"]
    if not results:
        raise Invalid("There is no result file of lm-eval here; they are called results_<time>.json.")
    # Names end in the time, so the newest comes first; of results that are there twice the first counts.
    return [found for file in reversed(results) for found in _read_results(file, logs)]


def read_samples(path: Path) -> list[Logged]:
    """The items of a sample file by number; of several filters the first.

    Raises:
        Invalid: it is too large, is no sample file, or holds a number that is none.
    """
    found: dict[int, Logged] = {}
    first_filter: Any = None
    for count, entry in enumerate(_entries(path)):
        if count == 0:
            first_filter = entry.get("filter")
        if entry.get("filter") != first_filter:
            continue
        logged = _logged(path, entry)
        if logged.number in found:
            raise Invalid("%(file)s has item %(item)s twice.", file=path.name, item=logged.number)
        if len(found) >= MAX_ITEMS:
            raise Invalid("%(file)s has more than %(limit)s items.", file=path.name, limit=MAX_ITEMS)
        found[logged.number] = logged
    if not found:
        raise Invalid("%(file)s has no items.", file=path.name)
    return [found[number] for number in sorted(found)]


def as_number(value: Any) -> float | None:
    """A finite number, also one that lm-eval wrote as text; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _files(path: Path) -> Iterator[Path]:
    if path.is_dir():
        for file in path.rglob("*"):
            is_named = file.suffix == ".jsonl" or (file.suffix == ".json" and file.name.startswith("results"))
            if is_named and file.is_file() and not file.is_symlink():
                yield file
    elif path.is_file():
        yield path
    else:
        raise Invalid("There is no file %(file)s.", file=str(path))


def _load(path: Path, text: bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Invalid("%(file)s is not valid JSON: %(error)s", file=path.name, error=error) from error


def _read_results(path: Path, logs: Sequence[Path]) -> list[TaskResult]:
    if path.stat().st_size > MAX_RESULTS_BYTES:
        raise Invalid("%(file)s is larger than %(limit)s bytes.", file=path.name, limit=MAX_RESULTS_BYTES)
    content = _load(path, path.read_bytes())
    results = _part(content, "results")
    if not results:
        raise Invalid("%(file)s is no result file of lm-eval: it has no results.", file=path.name)
    groups = {name for name, members in _part(content, "group_subtasks").items() if members}
    groups |= _part(content, "groups").keys()
    own = [log for log in logs if log.parent == path.parent and _time(log) == _time(path)]
    return [_task_result(path, content, name, _log_of(name, results, own)) for name in results if name not in groups]


def _part(content: Any, *keys: str) -> Mapping[str, Any]:
    for key in keys:
        content = content.get(key) if isinstance(content, dict) else None
    return content if isinstance(content, dict) else {}


def _time(path: Path) -> str:
    found = _TIME.search(path.stem)
    return found[1] if found else ""


def _log_of(task: str, tasks: Mapping[str, Any], logs: Sequence[Path]) -> Path | None:
    """The log of a task; a name that ends like another's belongs to the longer one."""
    for log in logs:
        name = _TIME.sub("", log.stem)
        owners = [one for one in tasks if name == f"samples_{one}" or name.endswith(f"_{one}")]
        if owners and max(owners, key=len) == task:
            return log
    return None


def _task_result(path: Path, content: Mapping[str, Any], name: str, log: Path | None) -> TaskResult:
    if len(name) > MAX_NAME_CHARS or not _NAME.fullmatch(name):
        raise Invalid("%(file)s names a task that cannot be one: %(task)s.", file=path.name, task=name[:MAX_NAME_CHARS])
    entry = _part(content, "results", name)
    config = _part(content, "configs", name)
    counted = as_number(
        _part(content, "n-samples", name).get("effective", entry.get("sample_len", entry.get("samples")))
    )
    fewshot = as_number(_part(content, "n-shot").get(name, config.get("num_fewshot")))
    version = _short(_part(content, "versions").get(name, "unknown"), 32)
    return TaskResult(
        task=name,
        version=version,
        num_items=int(counted or 0),
        values=_values(path, name, entry),
        lower_is_better={
            metric for metric, is_so in _part(content, "higher_is_better", name).items() if is_so is False
        },
        config=config,
        about={
            "engine": _short(content.get("model_source") or _part(content, "config").get("model") or ""),
            "model": _short(content.get("model_name") or ""),
            "lm_eval": _short(content.get("lm_eval_version") or ""),
            "task_version": version,
            "num_fewshot": None if fewshot is None else int(fewshot),
            "chat_template": bool(content.get("chat_template") or content.get("chat_template_sha")),
        },
        samples=log,
    )


def _short(value: Any, limit: int = 200) -> str:
    return str(value)[:limit]


def _values(path: Path, task: str, entry: Mapping[str, Any]) -> list[Value]:
    """The metrics of a task; `acc,none` since 0.4.0, `acc` before."""
    filters = list(dict.fromkeys(key.partition(",")[2] for key in entry if "," in key))
    found = []
    for key, given in entry.items():
        metric, comma, name = key.partition(",")
        if metric in _NOT_METRICS or metric.endswith("_stderr") or (filters and not comma):
            continue
        value = as_number(given)
        if value is None:
            raise Invalid(
                "%(file)s: '%(metric)s' of task '%(task)s' is no number.", file=path.name, metric=key[:48], task=task
            )
        title = metric if not comma or name == filters[0] else key
        if len(title) > 48:
            raise Invalid("%(file)s: the name of a metric is too long: %(metric)s.", file=path.name, metric=key[:96])
        found.append(Value(title, value, as_number(entry.get(f"{metric}_stderr{comma}{name}"))))
    return found


def _entries(path: Path) -> Iterator[Mapping[str, Any]]:
    size = path.stat().st_size
    with path.open("rb") as file:
        is_list = file.read(1) == b"["
        limit = MAX_LIST_BYTES if is_list else MAX_SAMPLES_BYTES
        if size > limit:
            raise Invalid("%(file)s is larger than %(limit)s bytes.", file=path.name, limit=limit)
        file.seek(0)
        content = _load(path, file.read()) if is_list else (_load(path, line) for line in _lines(path, file))
        for entry in content:
            if not isinstance(entry, dict):
                raise Invalid("%(file)s is no sample file of lm-eval.", file=path.name)
            yield entry


def _lines(path: Path, file: Any) -> Iterator[bytes]:
    while line := file.readline(MAX_LINE_BYTES + 1):
        if len(line) > MAX_LINE_BYTES:
            raise Invalid("%(file)s has a line of more than %(limit)s bytes.", file=path.name, limit=MAX_LINE_BYTES)
        if line.strip():
            yield line


def _logged(path: Path, entry: Mapping[str, Any]) -> Logged:
    """One entry, whatever its layout.

    Raises:
        Invalid: something that every entry has is missing or of another kind.
    """
    arguments, responses, number = _arguments(entry.get("arguments")), entry.get("resps"), entry.get("doc_id")
    if not isinstance(responses, list) or not isinstance(number, int) or "doc" not in entry:
        raise Invalid("%(file)s is no sample file of lm-eval: an entry is incomplete.", file=path.name)
    if not 0 < len(arguments) == len(responses) <= MAX_CHOICES:
        raise Invalid("%(file)s: item %(item)s has no requests, or too many.", file=path.name, item=number)
    if "acc_mutual_info" in entry:
        # Each choice is asked a second time without its context.
        arguments, responses = arguments[: len(arguments) // 2], responses[: len(arguments) // 2]
    second = [argument[1] for argument in arguments if len(argument) > 1]
    return Logged(
        number=number,
        doc=entry["doc"],
        contexts=[str(argument[0]) for argument in arguments],
        continuations=[one for one in second if isinstance(one, str)],
        # Each is a list with one answer a repetition.
        responses=[one[0] if isinstance(one, list) and one else None for one in responses],
        is_free=any(not isinstance(one, str) for one in second),
        target=str(entry.get("target", "")),
        scores={
            key: score
            for key, value in entry.items()
            if key not in ("doc_id", "target", "filter") and not isinstance(value, str)
            if (score := float(value) if isinstance(value, bool) else as_number(value)) is not None
        },
    )


def _arguments(given: Any) -> list[list[Any]]:
    """The arguments of each request: lists in the old layout, `gen_args_0.arg_0` in the new one; empty if neither."""
    if isinstance(given, dict):
        given = [given.get(f"gen_args_{number}") for number in range(len(given))]
        given = [[one.get(f"arg_{at}") for at in range(len(one))] if isinstance(one, dict) else None for one in given]
    if not isinstance(given, list):
        return []
    requests = [one for one in given if isinstance(one, list) and one and isinstance(one[0], str)]
    return requests if len(requests) == len(given) else []
