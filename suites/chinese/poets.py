"""Who wrote this held-out poem: one of four poets of the same dynasty whose names are equally long.

Every poet is the right answer of as many items as every other of his dynasty and the wrong one of
three times as many, so knowing which names are frequent is worth nothing.
"""

from typing import Any, NamedTuple

from datasets import Dataset

from corpora.draw import rank
from corpora.verse import Poem, held_out_poems, is_unseen

NAMELESS = {"无名氏", "無名氏", "不詳", "佚名"}
ASKED = {"shi": "這首唐詩的作者是：", "ci": "这首宋词的作者是："}
"""In the script of the poems."""


class Sheet(NamedTuple):
    """Poets of one dynasty whose names have the same length, with the poems to ask about, equally many of each."""

    form: str
    poems: dict[str, list[Poem]]


def authors(poems_each: int, poets_each: int, max_chars: int, **_metadata: Any) -> dict[str, Dataset]:
    """For each dynasty and length of name, `poets_each` poets with `poems_each` poems each."""
    items = []
    for form in ASKED:
        for length in (2, 3):
            sheet = _sheet(form, length, (poems_each, poets_each, max_chars))
            items += [_item(sheet, poet, number) for poet in sheet.poems for number in range(poems_each)]
    shuffled = sorted(items, key=lambda item: rank("author", item["prompt"]))
    return {"test": Dataset.from_list(shuffled)}


def _sheet(form: str, length: int, wanted: tuple[int, int, int]) -> Sheet:
    poems_each, poets_each, max_chars = wanted
    found: dict[str, list[Poem]] = {}
    for poem in held_out_poems(form):
        text = "\n".join(poem.lines)
        if len(poem.author) == length and poem.author not in NAMELESS and len(text) <= max_chars and is_unseen(text):
            found.setdefault(poem.author, []).append(poem)
    # The most prolific: the ones whom a reader can know.
    names = sorted(found, key=lambda name: (-len(found[name]), rank("poet", name)))[:poets_each]
    poems = {}
    for name in sorted(names, key=lambda name: rank("ring", name)):
        telling = [poem for poem in found[name] if not _names_a_poet(poem, names)]
        poems[name] = sorted(telling, key=lambda poem: rank("poem", poem.key))[:poems_each]
    return Sheet(form, poems)


def _names_a_poet(poem: Poem, names: list[str]) -> bool:
    return any(name in poem.title or name in "".join(poem.lines) for name in names)


def _item(sheet: Sheet, poet: str, number: int) -> dict[str, Any]:
    """The wrong poets stand at distances around the ring that no other poem of this poet uses."""
    ring = list(sheet.poems)
    poem = sheet.poems[poet][number]
    at = ring.index(poet)
    wrong = [ring[(at + 1 + 3 * number + step) % len(ring)] for step in range(3)]
    choices = sorted([poet, *wrong], key=lambda name: rank("order", poem.key, name))
    text = "\n".join(poem.lines)
    prompt = f"{poem.title}\n{text}\n\n{ASKED[sheet.form]}"
    return {"prompt": prompt, "choices": choices, "target": choices.index(poet), "poet": poet}
