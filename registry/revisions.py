"""What the name of a revision says about training: `step-8000`, Pythia's `step1000`, OLMo's `step1000-tokens4B`, …"""

import re
from typing import Any, NamedTuple

MAX_NUMBER = 2**63 - 1
UNITS = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9, "t": 10**12}
_STEP = re.compile(
    r"(?:^|[-_/])(?:step|iter|it|checkpoint|global_step)[-_]?(?P<step>\d{1,18})(?![0-9.])", re.IGNORECASE
)
_TOKENS = re.compile(r"tokens[-_]?(?P<number>\d{1,18}(?:\.\d{1,6})?)(?P<unit>[kmbt]?)(?![0-9a-z])", re.IGNORECASE)
_STAGE = re.compile(r"(?:^|[-_/])stage[-_]?(?P<stage>\d{1,3})(?![0-9])", re.IGNORECASE)
_MESSAGE = re.compile(r"\bstep[ :#=_-]*(?P<step>\d{1,18})\b", re.IGNORECASE)


class Place(NamedTuple):
    """Where in a training a revision stands, as far as its name says so."""

    step: int
    tokens_seen: int | None = None
    stage: int | None = None
    """Trainings in stages count their steps anew in each."""


def parse(name: str) -> Place | None:
    """The step that a revision's name names, and the tokens where it says them; None for `main` and the like."""
    found = list(_STEP.finditer(name))
    if not found or (step := int(found[-1]["step"])) > MAX_NUMBER:
        return None
    stage = _STAGE.search(name)
    return Place(step, _tokens(name), int(stage["stage"]) if stage else None)


def in_message(message: str) -> int | None:
    """The step in a commit's message, such as "Training in progress, step 500"."""
    found = _MESSAGE.search(message)
    return int(found["step"]) if found and int(found["step"]) <= MAX_NUMBER else None


def whole(value: Any) -> int | None:
    """A step or a number of tokens that a trainer wrote down; None for anything else."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return int(value) if is_number and 0 <= value <= MAX_NUMBER and value == int(value) else None


def _tokens(name: str) -> int | None:
    found = _TOKENS.search(name)
    if found is None:
        return None
    tokens = round(float(found["number"]) * UNITS[found["unit"].lower()])
    return tokens if tokens <= MAX_NUMBER else None
