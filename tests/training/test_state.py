"""States that count only when they are whole."""

from pathlib import Path

from training import state


def save(states: Path, step: int, *, whole: bool = True) -> Path:
    folder = states / state.tag(step)
    folder.mkdir(parents=True)
    (folder / "weights.pt").write_bytes(b"weights")
    if whole:
        state.mark_complete(folder, {"step": step})
    return folder


def test_no_states_at_first(tmp_path: Path) -> None:
    assert state.complete_steps(tmp_path / "state") == []


def test_steps_are_in_the_order_of_numbers(tmp_path: Path) -> None:
    for step in (1024, 8, 256):
        save(tmp_path, step)
    assert state.complete_steps(tmp_path) == [8, 256, 1024]


def test_a_half_written_state_is_ignored_and_removed(tmp_path: Path) -> None:
    save(tmp_path, 8)
    half = save(tmp_path, 16, whole=False)
    (tmp_path / "latest").write_text("step-16")
    assert state.complete_steps(tmp_path) == [8]
    state.remove_incomplete(tmp_path)
    assert not half.exists()
    assert state.complete_steps(tmp_path) == [8]


def test_the_mark_carries_the_facts(tmp_path: Path) -> None:
    assert state.read_mark(save(tmp_path, 8)) == {"step": 8}


def test_a_removed_state_is_gone(tmp_path: Path) -> None:
    state.remove(save(tmp_path, 8))
    assert state.complete_steps(tmp_path) == []
