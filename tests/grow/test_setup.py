"""Set-up: what decides whether vLLM is installed, and that done work is not done again."""

import subprocess
import sys
from pathlib import Path

import pytest

from grow import setup


def test_a_step_runs_again_only_when_its_inputs_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(setup, "VENV", tmp_path)
    pins, done = tmp_path / "pins.txt", []
    pins.write_text("a==1")
    for content in ("a==1", "a==1", "a==2"):
        pins.write_text(content)
        setup._once("packages", [pins], lambda: done.append(1))
    assert len(done) == 2


def test_a_failed_step_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(setup, "VENV", tmp_path)

    def fail() -> None:
        raise OSError("no network")

    with pytest.raises(OSError, match="no network"):
        setup._once("packages", [], fail)
    done: list[int] = []
    setup._once("packages", [], lambda: done.append(1))
    assert done == [1]


@pytest.mark.parametrize(("system", "said"), [("darwin", "Linux"), ("win32", "Linux")])
def test_other_systems_are_told_why_vllm_is_left_out(monkeypatch: pytest.MonkeyPatch, system: str, said: str) -> None:
    monkeypatch.setattr(sys, "platform", system)
    reason = setup._vllm_obstacle()
    assert reason is not None
    assert said in reason


def test_archives_are_fetched_by_hash_into_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[list[str]] = []
    monkeypatch.setattr(setup, "_run", lambda command: ran.append([str(part) for part in command]))
    setup._fetch_archives()
    (command,) = ran
    assert "download" in command
    assert {"--no-deps", "--require-hashes", "requirements/archives.txt"} <= set(command)
    assert command[-1] == str(setup.VENV / "share" / "grow")


def test_set_up_goes_on_without_the_archives_and_says_what_is_left_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(command: list[str]) -> None:
        raise subprocess.CalledProcessError(1, command)

    monkeypatch.setattr(setup, "_run", fail)
    setup._fetch_archives()
    said = capsys.readouterr().out
    assert "The parables of the suite 'chinese' are left out" in said
    assert "rm .venv/.archives-done && make setup" in said
