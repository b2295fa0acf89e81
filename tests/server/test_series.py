"""Which checkpoints can be asked together, and how they are found."""

import pytest
from sqlalchemy.orm import Session

from registry.models import Checkpoint, Run
from server import series
from tests.factories import make_checkpoint, make_run


@pytest.fixture
def run(session: Session) -> Run:
    """A run with four base models and two chat models."""
    made = make_run(session, "older")
    for step in (0, 10, 20, 30):
        make_checkpoint(session, made, step)
    for step in (20, 30):
        make_checkpoint(session, made, step, kind="chat")
    return made


@pytest.fixture
def newer(session: Session, run: Run) -> Checkpoint:
    """The only checkpoint of a younger run."""
    return make_checkpoint(session, make_run(session, "newer"), 5)


def test_what_differs_by_age_alone_is_one_series(session: Session, newer: Checkpoint) -> None:
    known = series.all_series(session)
    assert [one.key for one in known] == ["newer:pretrained:16", "older:pretrained:16", "older:chat:16"]
    assert [one.step for one in known[1].checkpoints] == [0, 10, 20, 30]


def test_one_run_alone(session: Session, run: Run, newer: Checkpoint) -> None:
    assert {one.run.name for one in series.all_series(session, run)} == {"older"}


@pytest.mark.parametrize(
    ("key", "found"),
    [
        ("", "newer:pretrained:16"),
        ("older", "older:pretrained:16"),
        ("older:chat:16", "older:chat:16"),
        ("older:chat:4", None),
        ("none", None),
    ],
)
def test_a_series_is_found_by_its_key_or_its_run(
    session: Session, newer: Checkpoint, key: str, found: str | None
) -> None:
    one = series.find_series(series.all_series(session), key)
    assert (one.key if one is not None else None) == found


def test_columns_begin_with_the_ends_and_the_middle(session: Session, run: Run, newer: Checkpoint) -> None:
    known = series.all_series(session)
    assert series.ends(known) == ["newer@5"]
    talker = known[2].checkpoints[0]
    assert series.ends(known, talker) == ["older@20-chat", "older@30-chat"]
    assert series.ends(known, known[1].checkpoints[2]) == ["older@20", "older@0", "older@30"]
    assert series.ends([]) == []


def test_a_choice_without_a_series_asks_nobody() -> None:
    assert series.Choice(None).checkpoints == []


def test_a_checkpoint_has_an_address(session: Session, newer: Checkpoint) -> None:
    known = series.all_series(session)
    assert series.address_of(newer) == "/runs/newer/checkpoints/5"
    assert series.address_of(known[2].checkpoints[0]) == "/runs/older/checkpoints/20?kind=chat&precision=16"
