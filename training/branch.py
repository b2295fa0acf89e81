"""Going on from an earlier step of another run: a rewind, which takes its place, or a branch beside it.

A published checkpoint is never written again, so a run that is to go another way from an earlier step
gets a name of its own. It begins with the other run's saved state; what decides the model and its text
must stay the same, the rest of the config may change: the learning rate, or the seed, to read other text.
"""

import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import structlog

from training import state
from training.publish import Origin, run_folder

NAME = re.compile(r"(?P<run>.+)@(?P<step>[0-9]{1,15})")
MUST_STAY = ("model", "batch_size")
CORPUS_MUST_STAY = ("sources", "tokenizer_megabytes")
OPTIMIZER_MUST_STAY = ("weight_decay", "beta1", "beta2", "epsilon")
"""They are part of the saved state."""

log = structlog.get_logger(__name__)


def parse(text: str, *, is_rewind: bool) -> Origin:
    """The origin that `RUN@STEP` names.

    Raises:
        ValueError: it names none.
    """
    match = NAME.fullmatch(text)
    if match is None:
        raise ValueError(f"'{text}' names no step of a run: write RUN@STEP, for example demo@500.")
    return Origin(match["run"], int(match["step"]), is_rewind)


def recorded(run: str) -> Origin | None:
    """Where a run that stands began; None where it began from nothing or is still to begin."""
    path = run_folder(run) / "run.json"
    found = state.read_json(path).get("origin") if path.is_file() else None
    return Origin(**found) if found else None


def begin(run: str, origin: Origin, config: Mapping[str, Any]) -> None:
    """Give a new run the state of its origin; one that stands already must have begun there.

    Raises:
        ValueError: the run began elsewhere, the origin has no such state, or the config may not differ so.
    """
    folder, source = run_folder(run), run_folder(origin.run)
    if state.complete_steps(folder / "state"):
        if recorded(run) != origin:
            raise ValueError(f"The run '{run}' exists and did not begin so. Give the new one another name.")
        return
    steps = state.complete_steps(source / "state")
    if origin.step not in steps:
        known = ", ".join(str(step) for step in steps) or "none"
        raise ValueError(f"'{origin.run}' has no saved state of step {origin.step}. Its states: {known}.")
    began_with = state.read_json(source / "run.json")
    _check(config, began_with["config"])
    folder.mkdir(parents=True, exist_ok=True)
    facts = {"config": config, "corpus": began_with["corpus"], "origin": origin._asdict()}
    state.write_json(folder / "run.json", facts)
    _copy_state(source / "state" / state.tag(origin.step), folder / "state" / state.tag(origin.step))
    log.info("Going on from another run's state.", run=run, origin=origin.run, step=origin.step)


def _check(config: Mapping[str, Any], before: Mapping[str, Any]) -> None:
    for section, names in ((None, MUST_STAY), ("corpus", CORPUS_MUST_STAY), ("optimizer", OPTIMIZER_MUST_STAY)):
        now, then = (config, before) if section is None else (config[section], before[section])
        for name in names:
            if now.get(name) != then.get(name):
                where = name if section is None else f"{section}.{name}"
                raise ValueError(f"'{where}' must stay as it was in the other run: the saved state depends on it.")


def _copy_state(source: Path, destination: Path) -> None:
    """The mark comes last. Files of a state are never written again, so both runs may share them on disk."""
    shutil.rmtree(destination, ignore_errors=True)
    ignore = shutil.ignore_patterns(state.MARK)
    try:
        shutil.copytree(source, destination, ignore=ignore, copy_function=os.link)
    except (OSError, shutil.Error):  # a file system without links
        shutil.rmtree(destination, ignore_errors=True)
        shutil.copytree(source, destination, ignore=ignore)
    state.mark_complete(destination, state.read_mark(source))
