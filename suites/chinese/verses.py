"""Items made of held-out poems: which line follows, and which order of two clauses is right.

The wrong lines come from held-out poems of the same form, so a model has read none of the choices
and all of them scan alike. lm-eval calls these through `custom_dataset`, once a process.
"""

import re
from collections import defaultdict
from collections.abc import Iterator
from itertools import islice
from typing import Any, NamedTuple

from datasets import Dataset

from corpora.draw import rank
from corpora.verse import Poem, clauses, held_out_poems, is_unseen

HAN = re.compile(r"[一-鿿]")
METRE = re.compile(r"(?:#{4,},)*#{4,}\.")
"""A line of whole clauses, its characters written as `#`; with a gap (□) or a clause too short to recognise it is none.
"""

COUPLET = re.compile(r"(#{5,7}),\1\.")
MIN_LINE = 7
"""A shorter line says too little about what comes before it."""


class Place(NamedTuple):
    """A line of a poem with what stands before it."""

    poem: Poem
    number: int
    context: str
    line: str
    metre: str

    @property
    def form(self) -> tuple[str, ...]:
        """Lines of one form can stand for each other: a ci by its tune, a shi by its number of lines."""
        tune = self.poem.title if self.poem.key.startswith("songci") else str(len(self.poem.lines))
        return (tune, self.metre)


def next_line(form: str, num_items: int, max_context: int, **_metadata: Any) -> dict[str, Dataset]:
    """Four lines of the same form and length, one of which really follows; at most `max_context` characters before."""
    places = [place for poem in held_out_poems(form) for place in _places(poem, max_context) if place.number >= 2]
    pools: dict[tuple[str, ...], list[Place]] = defaultdict(list)
    for place in places:
        if is_unseen(place.line):
            pools[place.form].append(place)
    chosen = _one_a_poem("next", [place for pool in pools.values() for place in pool])
    offered = ((place, _wrong_lines(place, pools[place.form])) for place in chosen)
    items = (_item(place, [place.line, *wrong]) for place, wrong in offered if len(wrong) == 3)
    return {"test": Dataset.from_list(list(islice(items, num_items)))}


def clause_order(form: str, num_items: int, max_context: int, **_metadata: Any) -> dict[str, Dataset]:
    """A line of two equally long clauses, and the same line with its clauses exchanged.

    The rhyme stands at the end of a line, so the exchange breaks the rhyme or the tones as well as the sense.
    """
    places = [
        place
        for poem in held_out_poems(form)
        for place in _places(poem, max_context)
        if COUPLET.fullmatch(place.metre) and is_unseen(place.line)
    ]
    exchanged = ((place, _exchange(place.line)) for place in _one_a_poem("order", places))
    items = (_item(place, [place.line, other]) for place, other in exchanged if other != place.line)
    return {"test": Dataset.from_list(list(islice(items, num_items)))}


def _places(poem: Poem, max_context: int) -> Iterator[Place]:
    """Every line but the first whose context is short enough."""
    context = f"{poem.heading}\n"
    for number, line in enumerate(poem.lines):
        metre = HAN.sub("#", line).replace("，", ",").replace("。", ".")
        if len(context) > max_context:
            return
        if number > 0 and len(line) > MIN_LINE and METRE.fullmatch(metre):
            yield Place(poem, number, context, line, metre)
        context += f"{line}\n"


def _one_a_poem(task: str, places: list[Place]) -> list[Place]:
    """One place of each poem, in a shuffle of the task's own: items are then independent of each other."""
    shuffled = sorted(places, key=lambda place: rank(task, place.context, place.line))
    chosen: dict[str, Place] = {}
    for place in shuffled:
        chosen.setdefault(place.poem.key, place)
    return list(chosen.values())


def _exchange(line: str) -> str:
    one, two = line.removesuffix("。").split("，")
    return f"{two}，{one}。"


def _wrong_lines(place: Place, pool: list[Place]) -> list[str]:
    """Three lines of other poems; none shares a clause with the poem itself, of which there may be two versions."""
    own = set(clauses("\n".join(place.poem.lines)))
    others = {other.line for other in pool if other.poem.key != place.poem.key and own.isdisjoint(clauses(other.line))}
    return sorted(others, key=lambda line: rank("wrong", place.line, line))[:3]


def _item(place: Place, choices: list[str]) -> dict[str, Any]:
    shown = sorted(choices, key=lambda choice: rank("shown", place.context, choice))
    return {"prompt": place.context, "choices": shown, "target": shown.index(place.line), "poem": place.poem.key}
