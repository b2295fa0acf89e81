"""Benchmarks in a folder of the site's own."""

from pathlib import Path

import pytest

from corpora.local import VARIABLE, find_benchmark


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_the_folder_is_a_path_or_a_file_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scheme: str) -> None:
    (tmp_path / "题库 1" / "ceval").mkdir(parents=True)
    folder = tmp_path / "题库 1"
    monkeypatch.setenv(VARIABLE, folder.as_uri() if scheme else str(folder))
    assert find_benchmark("ceval") == folder / "ceval"


def test_a_folder_that_is_not_named_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    with pytest.raises(FileNotFoundError, match="GROW_BENCHMARKS_DIR is not set"):
        find_benchmark("ceval")


def test_a_benchmark_that_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    with pytest.raises(FileNotFoundError, match="no folder 'cmmlu' in GROW_BENCHMARKS_DIR"):
        find_benchmark("cmmlu")
