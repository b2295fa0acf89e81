"""What `grow doctor` says of the engines and of the blob store."""

import json
from pathlib import Path

import pytest

from grow import doctor
from registry.settings import Settings, get_settings


@pytest.mark.parametrize(
    ("engine", "scoring", "expected"),
    [
        ("auto", "auto", "whichever the worker measures"),
        ("auto", "transformers", "transformers scores, as GROW_SCORING_ENGINE says"),
        ("scripted", "auto", "scripted, as GROW_ENGINE says"),
    ],
)
def test_it_names_the_engines(monkeypatch, tmp_path, engine, scoring, expected):
    monkeypatch.setattr(doctor, "find_spec", lambda name: object())
    assert expected in doctor.engine_sentence(Settings(home=tmp_path, engine=engine, scoring_engine=scoring))


def test_it_shows_what_workers_measured(tmp_path: Path):
    assert doctor.speed_sentences(Settings(home=tmp_path)) == []
    notes = tmp_path / "run" / "speed"
    notes.mkdir(parents=True)
    figures = {"machine": "2 × EPYC", "seconds": {"vllm": 4.2, "transformers": 1.04, "absent": None}}
    (notes / "a.json").write_text(json.dumps(figures))
    [sentence] = doctor.speed_sentences(Settings(home=tmp_path))
    assert sentence == "Scores the same sample on 2 × EPYC: transformers 1.0 s, vllm 4.2 s"


def test_it_tries_the_blob_store_where_one_is_set(grow_home: Path, monkeypatch: pytest.MonkeyPatch):
    def sentences() -> str:
        get_settings.cache_clear()
        return "\n".join(f"{check.good} {check.sentence}" for check in doctor.run_checks(get_settings()))

    assert "blob store" not in sentences()
    monkeypatch.setenv("GROW_BLOB_STORE", (grow_home / "elsewhere").as_uri())
    assert "True The blob store takes files and gives them back" in sentences()
    monkeypatch.setenv("GROW_BLOB_STORE", "nosuch://bucket")
    assert "False GROW_BLOB_STORE or GROW_BLOB_STORE_OPTIONS cannot be used" in sentences()
