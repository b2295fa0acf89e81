"""Packed token shards."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from transformers import AutoTokenizer

from corpora import split
from training.config import Config, SourceShare
from training.corpus import PackedCorpus, fingerprint, prepare_corpus, read_texts


def with_sources(config: Config, *shares: SourceShare) -> Config:
    return dataclasses.replace(config, corpus=dataclasses.replace(config.corpus, sources=shares))


def test_documents_stand_one_after_the_other_between_begin_and_end(corpus: PackedCorpus, debug: Config) -> None:
    tokenizer = AutoTokenizer.from_pretrained(corpus.tokenizer_folder)
    first, second = read_texts(debug)["zh"].training[:2]
    expected = []
    for document in (first, second):
        expected += [0, *tokenizer(document.text, add_special_tokens=False).input_ids, 1]
    context = debug.model.context_length
    windows = [corpus.window("zh", number) for number in range(len(expected) // context + 1)]
    assert np.concatenate(windows)[: len(expected)].tolist() == expected


def test_small_vocabularies_take_two_bytes_a_token(corpus: PackedCorpus) -> None:
    size = (corpus.folder / "en.bin").stat().st_size
    assert size == 2 * corpus.facts["tokens"]["en"]


def test_no_held_out_document_is_in_the_training_text(debug: Config) -> None:
    for texts in read_texts(debug).values():
        assert not any(split.is_held_out(document) for document in texts.training)
        assert all(split.is_held_out(document) for document in texts.held_out)


def test_it_is_built_once(debug: Config, corpus: PackedCorpus, corpus_home: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in corpus.folder.rglob("*")}
    assert prepare_corpus(debug, corpus_home).folder == corpus.folder
    assert {path: path.stat().st_mtime_ns for path in corpus.folder.rglob("*")} == before
    assert [path.name for path in (corpus_home / "corpus").iterdir() if path.name.startswith(".")] == []


def test_a_half_built_corpus_is_built_again(debug: Config, corpus: PackedCorpus, tmp_path: Path) -> None:
    half = tmp_path / "corpus" / f".{corpus.fingerprint}-1"
    half.mkdir(parents=True)
    (half / "zh.bin").write_bytes(b"\0")
    again = prepare_corpus(debug, tmp_path)
    assert (again.folder / "zh.bin").read_bytes() == (corpus.folder / "zh.bin").read_bytes()


def test_the_fingerprint_follows_texts_and_vocabulary(debug: Config) -> None:
    texts = read_texts(debug)
    larger = dataclasses.replace(debug, model=dataclasses.replace(debug.model, vocab_size=600))
    fewer = {**texts, "en": dataclasses.replace(texts["en"], training=texts["en"].training[1:])}
    assert len({fingerprint(debug, texts), fingerprint(larger, texts), fingerprint(debug, fewer)}) == 3


def test_a_run_goes_on_only_with_the_text_it_began_with(debug: Config, corpus_home: Path) -> None:
    with pytest.raises(ValueError, match="began with corpus 0123"):
        prepare_corpus(debug, corpus_home, wanted="0123")


def test_a_source_that_is_not_installed_is_named(
    debug: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GROW_POETRY_DIR", str(tmp_path))
    with pytest.raises(ValueError, match="'poetry' is not installed"):
        read_texts(with_sources(debug, SourceShare(name="poetry")))
    optional = with_sources(debug, *debug.corpus.sources, SourceShare(name="poetry", optional=True))
    assert read_texts(optional).keys() == {"zh", "en", "code"}


def test_an_unknown_source_and_a_language_without_text_are_refused(debug: Config) -> None:
    with pytest.raises(ValueError, match="no source 'wikipedia'"):
        read_texts(with_sources(debug, SourceShare(name="wikipedia")))
    with pytest.raises(ValueError, match="mixture wants 'zh'"):
        read_texts(with_sources(debug, SourceShare(name="stdlib", max_megabytes=0.01)))


def test_held_out_windows_are_the_same_every_time(corpus: PackedCorpus) -> None:
    windows = corpus.held_out_windows("zh", 4)
    assert windows.shape == (4, corpus.context_length)
    assert np.array_equal(windows, corpus.held_out_windows("zh", 4))
