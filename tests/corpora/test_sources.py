"""Reading text from installed packages."""

import json
from pathlib import Path

import pytest

from corpora.sources import MIN_CHARS, SOURCES


@pytest.mark.parametrize(
    ("name", "language"), [("statutes", "zh"), ("shakespeare", "en"), ("stdlib", "code"), ("poetry", "zh")]
)
def test_every_source_names_its_language_and_licence(name: str, language: str) -> None:
    assert SOURCES[name].language == language
    assert SOURCES[name].licence


@pytest.mark.parametrize("name", ["statutes", "shakespeare", "stdlib"])
def test_an_installed_source_reads_the_same_documents_in_the_same_order(name: str) -> None:
    first, second = list(SOURCES[name].documents()), list(SOURCES[name].documents())
    assert first == second
    assert len(first) > 100
    assert len({document.key for document in first}) == len(first)
    assert min(len(document.text.strip()) for document in first) >= MIN_CHARS


def test_statutes_are_chapters_of_law_in_force() -> None:
    documents = list(SOURCES["statutes"].documents())
    civil_code = next(document for document in documents if "民法典/第一章 基本规定" in document.key)
    assert civil_code.text.startswith("中华人民共和国民法典 第一章 基本规定\n第一条 为了保护民事主体的合法权益")


def test_plays_are_cut_into_scenes_and_sonnets_into_poems() -> None:
    texts = [document.text for document in SOURCES["shakespeare"].documents()]
    assert any(text.startswith("Scene I. Elsinore. A platform before the Castle.") for text in texts)
    assert any(text.startswith("II\n\nWhen forty winters shall besiege thy brow") for text in texts)
    assert not any("Gutenberg" in text for text in texts)


def test_the_standard_library_comes_without_its_tests() -> None:
    keys = [document.key for document in SOURCES["stdlib"].documents()]
    assert "json/decoder.py" in keys
    assert not any(part in ("test", "tests", "site-packages") for key in keys for part in key.split("/"))


def test_poetry_is_read_from_the_folder_that_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    poem = {"title": "靜夜思", "author": "李白", "paragraphs": ["床前明月光，疑是地上霜。舉頭望明月，低頭思故鄉。"] * 2}
    for number in (10, 2):
        folder = tmp_path / "dist" / "quantangshi"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"poet.tang.{number}.json").write_text(json.dumps([{**poem, "title": f"其{number}"}]))
    (tmp_path / "dist" / "songci").mkdir()
    monkeypatch.setenv("GROW_POETRY_DIR", str(tmp_path))
    texts = [document.text for document in SOURCES["poetry"].documents()]
    assert [text.split("\n")[0] for text in texts] == ["其2 李白", "其10 李白"]


def test_poetry_that_is_not_installed_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GROW_POETRY_DIR", str(tmp_path))
    assert not SOURCES["poetry"].available()
    with pytest.raises(FileNotFoundError, match="poetry"):
        list(SOURCES["poetry"].documents())
