"""Benchmark tasks as lm-eval builds them: loaded once a process, checked, and cut into requests by item."""

import hashlib
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import datasets
import jinja2
import yaml
from lm_eval.api.instance import Instance
from lm_eval.api.task import ConfigurableTask
from lm_eval.tasks import TaskManager
from lm_eval.utils import handle_non_serializable

from registry import db, prompts
from registry.samples import Item
from registry.settings import get_settings

SUITES = Path(__file__).resolve().parent.parent / "suites"
FEWSHOT_SEED = 1234
"""lm-eval's default: the same examples as everybody's."""

MAX_TASKS_IN_MEMORY = 64
"""More than `suites/` holds, so that a milestone does not push the panel out; MMLU with five examples takes 60 MB."""

_loading = threading.Lock()
"""lm-eval's task objects are built by code that shares module state."""


class TaskError(Exception):
    """The task itself cannot be asked: the sentence is for whoever wrote it or set up the machine."""


@dataclass(frozen=True)
class PreparedTask:
    """A task ready to be asked of any checkpoint: its items, and lm-eval's requests for each of them."""

    name: str
    task: ConfigurableTask
    docs: Sequence[Any]
    items: Sequence[Item]
    requests: Sequence[Sequence[Instance]]
    """By item; one a choice, in the choices' order."""
    items_digest: str
    template_digest: str

    @property
    def output_type(self) -> str:
        """lm-eval's word."""
        return str(self.task.OUTPUT_TYPE)

    @property
    def has_own_scoring(self) -> bool:
        """Whether the task brings code that turns answers into metrics."""
        return self.task.config.process_results is not None or self.output_type == "generate_until"


@lru_cache(maxsize=MAX_TASKS_IN_MEMORY)
def prepare_task(name: str) -> PreparedTask:
    """A task with its items and requests; a hundred checkpoints share them.

    Raises:
        TaskError: it does not exist, its data is missing, or its items cannot be asked.
    """
    task = load_task(name)
    with _loading:
        docs = _guarded(name, "its items", lambda: list(task.eval_docs))
        if not docs:
            raise TaskError(f"Task '{name}' has no items.")
        _guarded(name, "its prompts", lambda: _build_requests(task))
        requests = _by_item(task, len(docs))
        items = _guarded(
            name, "its choices", lambda: [_item(task, at, doc, requests[at]) for at, doc in enumerate(docs)]
        )
        prepared = PreparedTask(name, task, docs, items, requests, items_digest(items), template_digest(task))
        _check_items(prepared)
        _check_choices(prepared)
        return prepared


@lru_cache(maxsize=MAX_TASKS_IN_MEMORY)
def load_task(name: str) -> ConfigurableTask:
    """A task of `suites/`, of the installed lm-eval library, or of a prompt that a visitor proposed.

    Raises:
        TaskError: no such task, or it cannot be built.
    """
    if name.startswith(prompts.TASK_PREFIX):
        return _community_task(name)
    with _loading:
        manager = _suites_manager()
        if name not in manager.all_subtasks:
            manager = _library_manager()
        if name not in manager.all_subtasks:
            raise TaskError(f"There is no task '{name}', neither in suites/ nor in the installed lm-eval.")
        # Data that a task of somebody else's fetches stays with our data, not in the user's home.
        datasets.config.HF_DATASETS_CACHE = str(get_settings().home.absolute() / "datasets")
        task = _guarded(name, "its data or its YAML", lambda: manager.load([name])["tasks"][name])
        if task.config.repeats > 1:  # its metric is over several samples: from one it would be another number
            raise TaskError(
                f"Task '{name}' asks for {task.config.repeats} answers to each item (repeats); here each gets one."
            )
        # what lm-eval's simple_evaluate does before it calls evaluate
        if task.get_config("num_fewshot") is None:
            task.set_config(key="num_fewshot", value=0)
        task.set_fewshot_seed(seed=FEWSHOT_SEED)
        # It doubles the requests with ones that have no context, which are no choices of the item.
        task._metric_fn_list.pop("acc_mutual_info", None)
        return task


def _community_task(name: str) -> ConfigurableTask:
    """One prompt of a visitor as a task, asked as `starter_probes` is.

    The text is data of an item and comes out of a function, so lm-eval has no template to render. Its
    name is a hash of it: a task that is kept in memory can never have another text.
    """
    with db.read_session() as session:
        text = prompts.text_of_task(session, name)
    if text is None:
        raise TaskError(f"There is no prompt behind the task '{name}'.")
    config = {
        "task": name,
        "custom_dataset": lambda **_metadata: {"test": datasets.Dataset.from_list([{"prompt": text}])},
        "test_split": "test",
        "output_type": "generate_until",
        "doc_to_text": _prompt_of,
        "doc_to_target": _no_target,
        "generation_kwargs": {"until": [], "max_gen_toks": 48, "do_sample": False, "temperature": 0.0},
        "num_fewshot": 0,
        "metric_list": [{"metric": "bypass", "aggregation": "bypass", "higher_is_better": True}],
        "metadata": {"version": 1},
    }
    with _loading:
        task = _guarded(name, "its item", lambda: ConfigurableTask(config=config))
        task.set_fewshot_seed(seed=FEWSHOT_SEED)
        return task


def _prompt_of(doc: Mapping[str, str]) -> str:
    return doc["prompt"]


def _no_target(_doc: Mapping[str, str]) -> str:
    return ""


@lru_cache
def _suites_manager() -> TaskManager:
    return TaskManager(include_path=str(SUITES), include_defaults=False)


@lru_cache
def _library_manager() -> TaskManager:
    return TaskManager()


def _guarded(name: str, what: str, work: Callable[[], Any]) -> Any:
    """Run code of a task; whatever it raises becomes a sentence that names the task."""
    try:
        return work()
    except TaskError:
        raise
    except FileNotFoundError as error:
        raise TaskError(f"The data of task '{name}' is missing: {error}") from error
    except (jinja2.TemplateError, yaml.YAMLError) as error:
        raise TaskError(f"The template of task '{name}' is broken: {_first_line(error)}") from error
    except Exception as error:  # a task is somebody's code: it may raise anything
        kind = type(error).__name__
        raise TaskError(f"Task '{name}' fails while {what} are made ({kind}): {_first_line(error)}") from error


def _build_requests(task: ConfigurableTask) -> None:
    task.build_all_requests(limit=None, rank=0, world_size=1, cache_requests=False, rewrite_requests_cache=False)


def _by_item(task: ConfigurableTask, num_docs: int) -> list[list[Instance]]:
    grouped: list[list[Instance]] = [[] for _ in range(num_docs)]
    for instance in task.instances:
        grouped[int(instance.doc_id)].append(instance)
    return [sorted(instances, key=lambda instance: int(instance.idx)) for instances in grouped]


def _item(task: ConfigurableTask, position: int, doc: Any, requests: Sequence[Instance]) -> Item:
    content = json.dumps(doc, default=handle_non_serializable, ensure_ascii=False, sort_keys=True)
    key = hashlib.sha256(content.encode(errors="surrogatepass")).hexdigest()[:16]
    prompt, choices, target, answer = _parts(task, doc, requests)
    return Item(key, position, _group(task, doc), prompt, choices, target, answer)


def _parts(task: ConfigurableTask, doc: Any, requests: Sequence[Instance]) -> tuple[str, list[str], int | None, str]:
    """Prompt, choices, number of the right one and gold text of an item."""
    first = requests[0].args
    if task.OUTPUT_TYPE == "multiple_choice":
        choices = [str(choice) for choice in task.doc_to_choice(doc)]
        gold = task.doc_to_text(doc) if task.multiple_input else task.doc_to_target(doc)
        prompt = "" if task.multiple_input else str(first[0])
        return prompt, choices, _target(gold, choices), ""
    if task.OUTPUT_TYPE == "loglikelihood":
        return str(first[0]), [str(first[1])], None, ""
    if task.OUTPUT_TYPE == "loglikelihood_rolling":
        return "", [str(first[0])], None, ""
    return str(first[0]), [], None, str(task.doc_to_target(doc) or "")


def _target(gold: Any, choices: Sequence[str]) -> int | None:
    """The right choice; the first of several; None where the task scores in its own way."""
    if isinstance(gold, list):
        gold = gold[0] if gold else -1
    if isinstance(gold, str):
        return choices.index(gold) if gold in choices else None
    return int(gold) if 0 <= int(gold) < len(choices) else None


def _group(task: ConfigurableTask, doc: Any) -> str:
    about = (task.get_config("metadata") or {}).get("grow") or {}
    field = about.get("group") if isinstance(about, dict) else None
    return str(doc[field]) if field else ""


def _check_items(prepared: PreparedTask) -> None:
    """An item that counts twice moves the score, and its two answers cannot be told apart."""
    places: dict[str, int] = {}
    for item in prepared.items:
        if item.item in places:
            raise TaskError(
                f"Task '{prepared.name}' has the same item twice, at {places[item.item]} and {item.position}."
            )
        places[item.item] = item.position


def _check_choices(prepared: PreparedTask) -> None:
    """A list of one choice is always right; a right answer outside the choices never is."""
    if prepared.output_type != "multiple_choice":
        return
    for item, requests in zip(prepared.items, prepared.requests, strict=True):
        if len(requests) < 2:
            raise TaskError(f"Task '{prepared.name}' gives item {item.position} a choice of {len(requests)}.")
        if item.target is None and not prepared.has_own_scoring:
            raise TaskError(f"The right answer to item {item.position} of '{prepared.name}' is none of its choices.")


def items_digest(items: Sequence[Item]) -> str:
    """16 hexadecimal digits over the items' keys, in order."""
    return hashlib.sha256("\n".join(item.item for item in items).encode()).hexdigest()[:16]


def template_digest(task: ConfigurableTask) -> str:
    """16 hexadecimal digits over everything in the YAML that shapes a prompt or an answer."""
    names = (
        "output_type",
        "description",
        "doc_to_text",
        "doc_to_target",
        "doc_to_choice",
        "target_delimiter",
        "fewshot_delimiter",
        "fewshot_config",
        "generation_kwargs",
        "filter_list",
        "gen_prefix",
    )
    content = json.dumps({name: task.get_config(name) for name in names}, default=_stable, sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def _stable(value: Any) -> str:
    """Functions by their name: their address changes with each process."""
    return getattr(value, "__qualname__", None) or str(value)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
