"""The items that are right in one of two evaluations only, with both answers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal
from urllib.parse import quote, urlencode

from registry import comparisons
from registry.changes import Pair
from registry.models import Evaluation
from server import items
from server.items import Answered

FLIPS_SHOWN, MAX_FLIPS = 20, 400

Show = Literal["both", "learned", "forgotten"]


@dataclass(frozen=True)
class FlipChoice:
    """An answer to choose from, and who chose it."""

    text: str
    is_target: bool
    is_before: bool
    is_after: bool


@dataclass(frozen=True)
class Flip:
    """An item that one of the two has right and the other wrong."""

    number: int
    href: str
    question: str
    choices: Sequence[FlipChoice]
    before: str
    after: str
    gold: str


@dataclass(frozen=True)
class FlipList:
    """The flipped items of one task in one direction."""

    kind: str
    """`learned` or `forgotten`."""
    num_items: int
    flips: Sequence[Flip]
    more: str
    """Address of all of them; empty where they are shown."""


def flips_src(pair: Pair) -> str:
    """Address of the items that changed sides."""
    return f"/compare/flips?a={pair.before.id}&b={pair.after.id}"


def flip_lists(pair: Pair, show: Show, *, whole: bool) -> list[FlipList]:
    """The items of a task that changed sides, the learned ones first; all that may be shown where `whole`.

    Raises:
        NotFound, Invalid: a sample file is missing, or is none.
    """
    found = comparisons.flips(pair)
    wanted = {"learned": found.learned, "forgotten": found.forgotten}
    before = {one.sample.item: one for one in items.answered(pair.before)}
    after = {one.sample.item: one for one in items.answered(pair.after)}
    limit = MAX_FLIPS if whole else FLIPS_SHOWN
    lists = []
    for kind, hashes in wanted.items():
        if show in ("both", kind):
            ordered = sorted(hashes, key=lambda item: after[item].sample.position)
            flips = [_flip(pair, before[item], after[item]) for item in ordered[:limit]]
            more = f"{flips_src(pair)}&show={kind}&whole=true" if len(ordered) > limit and not whole else ""
            lists.append(FlipList(kind, len(ordered), flips, more))
    return lists


def _flip(pair: Pair, before: Answered, after: Answered) -> Flip:
    then, now = items.item_row(pair.before, before), items.item_row(pair.after, after)
    return Flip(
        number=now.number,
        href=_item_href(pair.after, after.sample.item),
        question=now.prompt,
        choices=[
            FlipChoice(choice.text, choice.is_target, earlier.is_chosen, choice.is_chosen)
            for earlier, choice in zip(then.choices, now.choices, strict=False)
        ],
        before=then.text,
        after=now.text,
        gold=now.gold,
    )


def _item_href(evaluation: Evaluation, item: str) -> str:
    """Address of an item's page, on the line of this evaluation."""
    checkpoint = evaluation.checkpoint
    line = {
        "kind": checkpoint.kind if checkpoint.kind != "pretrained" else "",
        "precision": str(checkpoint.precision) if checkpoint.precision != 16 else "",
        "protocol": evaluation.protocol_key or "",
    }
    asked = urlencode({name: value for name, value in line.items() if value})
    return f"/runs/{checkpoint.run.name}/tasks/{quote(evaluation.task.name)}/items/{item}?{asked}"
