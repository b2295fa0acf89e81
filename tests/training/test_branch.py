"""Beginning a run with the state of another."""

import json
from pathlib import Path
from typing import Any

import pytest

from training import branch, state
from training import config as configs
from training.publish import Origin, run_folder

ORIGIN = Origin("demo", 20, is_rewind=True)


def settings(**changes: Any) -> dict[str, Any]:
    config = configs.load("debug").as_dict()
    for name, value in changes.items():
        section, _, key = name.partition("__")
        config = {**config, section: {**config[section], key: value} if key else value}
    plain: dict[str, Any] = json.loads(json.dumps(config))
    return plain


@pytest.fixture
def demo(grow_home: Path) -> Path:
    """A run with the states of two steps."""
    folder = run_folder("demo")
    for step in (10, 20):
        own = folder / "state" / state.tag(step)
        (own / "deep").mkdir(parents=True)
        (own / "weights.pt").write_bytes(b"weights")
        (own / "deep" / "moments.pt").write_bytes(b"moments")
        state.mark_complete(own, {"step": step})
    state.write_json(folder / "run.json", {"config": settings(), "corpus": "abc"})
    return folder


def test_a_step_of_a_run_is_written_with_an_at_sign() -> None:
    assert branch.parse("demo@20", is_rewind=True) == ORIGIN
    for text in ("demo", "demo@", "@20", "demo@x", "demo@-1"):
        with pytest.raises(ValueError, match="write RUN@STEP"):
            branch.parse(text, is_rewind=False)


def test_the_state_is_there_whole_and_the_other_run_keeps_its_own(demo: Path) -> None:
    branch.begin("demo-2", ORIGIN, settings())
    child = run_folder("demo-2")
    assert state.complete_steps(child / "state") == [20]
    assert state.read_mark(child / "state" / "step-20") == {"step": 20}
    state.remove(child / "state" / "step-20")
    assert (demo / "state" / "step-20" / "deep" / "moments.pt").read_bytes() == b"moments"
    assert state.complete_steps(demo / "state") == [10, 20]


def test_it_is_remembered_and_asking_again_changes_nothing(demo: Path) -> None:
    branch.begin("demo-2", ORIGIN, settings())
    assert branch.recorded("demo-2") == ORIGIN
    branch.begin("demo-2", ORIGIN, settings())
    with pytest.raises(ValueError, match="Give the new one another name"):
        branch.begin("demo-2", ORIGIN._replace(step=10), settings())
    with pytest.raises(ValueError, match="Give the new one another name"):
        branch.begin("demo", ORIGIN, settings())
    assert branch.recorded("demo") is None
    assert branch.recorded("nobody") is None


def test_a_copy_that_was_cut_short_is_made_again(demo: Path) -> None:
    torn = run_folder("demo-2") / "state" / "step-20"
    torn.mkdir(parents=True)
    (torn / "weights.pt").write_bytes(b"we")
    branch.begin("demo-2", ORIGIN, settings())
    assert (torn / "weights.pt").read_bytes() == b"weights"


def test_a_step_without_a_state_is_told_with_those_that_have_one(demo: Path) -> None:
    with pytest.raises(ValueError, match="Its states: 10, 20"):
        branch.begin("demo-2", ORIGIN._replace(step=15), settings())
    with pytest.raises(ValueError, match="Its states: none"):
        branch.begin("demo-2", ORIGIN._replace(run="nobody"), settings())


def test_the_rate_and_the_order_of_the_text_may_change(demo: Path) -> None:
    branch.begin("demo-2", ORIGIN, settings(seed=99, optimizer__learning_rate=1e-5, corpus__mixture={"zh": 1.0}))
    assert run_folder("demo-2").is_dir()


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"batch_size": 8}, "batch_size"),
        ({"model__hidden_size": 96}, "model"),
        ({"corpus__sources": []}, "corpus.sources"),
        ({"optimizer__beta2": 0.5}, "optimizer.beta2"),
    ],
)
def test_what_the_state_depends_on_must_stay(demo: Path, changes: dict[str, Any], name: str) -> None:
    with pytest.raises(ValueError, match=f"'{name}' must stay"):
        branch.begin("demo-2", ORIGIN, settings(**changes))
    assert not run_folder("demo-2").exists()
