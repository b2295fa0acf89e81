"""Tokenizers are told apart by what their files hold."""

from pathlib import Path

from worker.engine.tokenizer import tokenizer_digest


def make(folder: Path, vocabulary: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "tokenizer.json").write_text(vocabulary)
    return folder


def test_equal_files_have_one_digest_wherever_they_lie(tmp_path: Path) -> None:
    assert tokenizer_digest(make(tmp_path / "a", "one")) == tokenizer_digest(make(tmp_path / "b", "one"))


def test_another_vocabulary_is_another_tokenizer_also_in_the_same_folder(tmp_path: Path) -> None:
    before = tokenizer_digest(make(tmp_path / "a", "one"))
    assert tokenizer_digest(make(tmp_path / "a", "other")) != before


def test_a_template_is_no_part_of_it(tmp_path: Path) -> None:
    folder = make(tmp_path / "a", "one")
    before = tokenizer_digest(folder)
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    assert tokenizer_digest(folder) == before
