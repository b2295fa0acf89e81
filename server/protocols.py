"""Protocols as pages tell them: a summary in a line, a table, and what two of them differ in."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from registry.curves import Series
from registry.models import Evaluation
from registry.protocol import IDENTITY, differing
from server.i18n import N_, gettext, lookup

Protocol = Mapping[str, Any]

FIELDS = {
    "task_version": N_("task version"),
    "template": N_("prompt template"),
    "num_fewshot": N_("examples in the prompt"),
    "items": N_("items"),
    "engine": N_("engine"),
    "engine_version": N_("engine version"),
    "dtype": N_("number format"),
    "lm_eval": N_("lm-eval version"),
    "tokenizer": N_("tokenizer"),
    "context_length": N_("context length"),
    "begin_token": N_("begin token"),
    "chat_template": N_("chat template"),
    "scoring_revision": N_("scoring revision"),
    "source": N_("source"),
    "revision": N_("code revision"),
    "imported": N_("measured elsewhere"),
}
DIGESTS = frozenset({"template", "items", "tokenizer"})
"""Fields that are hashes: that they differ says something, how they differ does not."""


@dataclass(frozen=True)
class Field:
    """A row of the protocol's table."""

    key: str
    name: str
    value: str
    is_identity: bool
    """Whether another value begins another line of the chart."""


def of_series(session: Session, found: Iterable[Series]) -> dict[str, Protocol]:
    """The protocols of every line of these curves by their keys, in one query."""
    one_of_each = {point.protocol_key: point.evaluation_id for series in found for point in series.points}
    query = select(Evaluation.id, Evaluation.protocol).where(Evaluation.id.in_(one_of_each.values()))
    by_id = {row.id: row.protocol for row in session.execute(query)}
    return {key: by_id[evaluation_id] for key, evaluation_id in one_of_each.items()}


def table(protocol: Protocol) -> list[Field]:
    """Every field of a protocol, those that its numbers depend on first."""
    order = [*(key for key in IDENTITY if key in protocol), *(key for key in protocol if key not in IDENTITY)]
    return [Field(key, field_name(key), value_text(protocol[key]), key in IDENTITY) for key in order]


def summary(protocol: Protocol) -> str:
    """What most readers want to know of a protocol: `vllm 0.32.0 · bfloat16 · 5-shot`."""
    engine = " ".join(str(protocol[key]) for key in ("engine", "engine_version") if protocol.get(key))
    shots = protocol.get("num_fewshot")
    parts = [
        engine or str(protocol.get("source") or ""),
        str(protocol.get("dtype") or ""),
        "" if shots is None else gettext("%(num)s-shot", num=shots),
    ]
    return " · ".join(part for part in parts if part)


def difference_text(earlier: Protocol, latest: Protocol) -> str:
    """What an earlier protocol has another value of: `engine version 0.31.0, now 0.32.0; items`."""
    told = [_difference(key, earlier.get(key), latest.get(key)) for key in differing(earlier, latest)]
    return gettext("; ").join(told)


def _difference(key: str, earlier: Any, latest: Any) -> str:
    if key in DIGESTS:
        return field_name(key)
    values = {"name": field_name(key), "earlier": value_text(earlier), "latest": value_text(latest)}
    return gettext("%(name)s %(earlier)s, now %(latest)s", **values)


def field_name(key: str) -> str:
    """What a field is called; one that we do not know by its own name."""
    return lookup(FIELDS[key]) if key in FIELDS else key


def value_text(value: Any) -> str:
    """A field's value in words."""
    if isinstance(value, bool):
        return gettext("yes") if value else gettext("no")
    return "–" if value is None or value == "" else str(value)
