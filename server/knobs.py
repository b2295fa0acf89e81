"""How an answer is drawn: what the visitor has set, the defaults for each kind of model, and what is accepted."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any

from fastapi import Depends, Request

from registry.errors import Invalid
from server.i18n import N_, gettext

CHAT = "chat"
MAX_TOKENS_LIMIT = 1024
MAX_SEED = 2**31 - 1
MAX_SYSTEM_CHARS = 2_000
LIMITS = {
    "temperature": (N_("Temperature"), 0.0, 2.0),
    "top_p": (N_("Top-p"), 0.01, 1.0),
    "repetition_penalty": (N_("Repetition penalty"), 0.5, 2.0),
    "max_tokens": (N_("Longest answer"), 1, MAX_TOKENS_LIMIT),
    "seed": (N_("Seed"), 0, MAX_SEED),
}
"""Name and range of each number; the seed may be left empty."""
WHOLE = ("max_tokens", "seed")


@dataclass(frozen=True)
class Knobs:
    """The settings as they stand in the form, so that what cannot be accepted is shown again as it was typed."""

    temperature: str
    top_p: str
    repetition_penalty: str
    max_tokens: str
    seed: str = ""
    system: str = ""


DEFAULTS = {
    # A base model in training falls into loops, and its texts are worth a long look; a chat model answers to the point.
    "pretrained": Knobs(temperature="0.8", top_p="0.95", repetition_penalty="1.1", max_tokens="128"),
    CHAT: Knobs(temperature="0.7", top_p="0.9", repetition_penalty="1.05", max_tokens="256"),
}


def defaults(kind: str) -> Knobs:
    """What a model of this kind begins with."""
    return DEFAULTS.get(kind, DEFAULTS["pretrained"])


def of_params(params: Mapping[str, Any], kind: str) -> Knobs:
    """The settings of an earlier turn, with the defaults for what it leaves open."""
    kept = {name: str(params[name]) for name in asdict(defaults(kind)) if params.get(name) is not None}
    return Knobs(**{**asdict(defaults(kind)), **kept})


def typed(request_form: Mapping[str, Any], kind: str, base: Mapping[str, Any] | None = None) -> Knobs:
    """The settings of a form, which may leave some out; those are an earlier turn's or the defaults."""
    before = asdict(of_params(base or {}, kind))
    sent = {name: str(request_form[name]) for name in before if isinstance(request_form.get(name), str)}
    return Knobs(**{**before, **sent})


def check(knobs: Knobs, kind: str) -> dict[str, Any]:
    """The settings in the names of `Turn.params`.

    Raises:
        Invalid: one of them is out of range, with its name and its range.
    """
    params: dict[str, Any] = {}
    for name, (label, low, high) in LIMITS.items():
        text = getattr(knobs, name).strip()
        if name == "seed" and not text:
            continue
        params[name] = _number(text, low, high, gettext(label), whole=name in WHOLE)
    system = knobs.system.strip()
    if len(system) > MAX_SYSTEM_CHARS:
        raise Invalid(
            gettext(
                "The system prompt has %(count)s characters; at most %(limit)s are accepted.",
                count=f"{len(system):,}",
                limit=f"{MAX_SYSTEM_CHARS:,}",
            )
        )
    if system and kind == CHAT:
        params["system"] = system
    return params


def _number(text: str, low: float, high: float, name: str, *, whole: bool) -> float | int:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not low <= value <= high:
        raise Invalid(gettext("%(name)s must be a number from %(low)s to %(high)s.", name=name, low=low, high=high))
    if whole and value != int(value):
        raise Invalid(gettext("%(name)s must be a whole number.", name=name))
    return int(value) if whole else value


async def form_fields(request: Request) -> Mapping[str, Any]:
    """All fields of the form that was sent; the form is read once a request."""
    return dict(await request.form())


Fields = Annotated[Mapping[str, Any], Depends(form_fields)]
