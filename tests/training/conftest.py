"""Fixtures of the training tests: one small corpus, and training processes of the debug config."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from training import config as configs
from training.config import Config
from training.corpus import PackedCorpus, prepare_corpus

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def corpus_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the corpus of the debug config, built once."""
    home = tmp_path_factory.mktemp("corpus-home")
    prepare_corpus(configs.load("debug"), home)
    return home


@pytest.fixture
def debug() -> Config:
    """The debug config."""
    return configs.load("debug")


@pytest.fixture
def corpus(debug: Config, corpus_home: Path) -> PackedCorpus:
    """The corpus of the debug config."""
    return prepare_corpus(debug, corpus_home)


Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start_training(database: Path, corpus_home: Path) -> Iterator[Start]:
    """Starts `python -m training --config debug` in `database`'s folder; whatever still runs is killed at the end."""
    (database / "corpus").symlink_to(corpus_home / "corpus")
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str, launcher: tuple[str, ...] = (), config: str = "debug") -> subprocess.Popen[str]:
        command = [sys.executable, *launcher, "-m", "training", "--config", config, *arguments]
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if process.stdout:
            process.stdout.close()
