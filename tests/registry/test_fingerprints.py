"""Warnings about checkpoints that are not what their step says."""

import numpy as np
from sqlalchemy.orm import Session

from registry import fingerprints
from registry.models import Checkpoint, Run
from tests.factories import make_checkpoint, make_run

ENGINE = "transformers/float32"


def walk(steps: list[int], seed: int = 0) -> dict[int, list[float]]:
    """Fingerprints of an honest training: they wander, less and less."""
    draw = np.random.default_rng(seed)
    values = draw.normal(-6, 1, 64)
    found = {}
    for step in steps:
        values = values + draw.normal(0, 0.5 / (1 + step / 200), 64)
        found[step] = values.tolist()
    return found


def record_all(session: Session, run: Run, prints: dict[int, list[float]], order: list[int]) -> dict[int, Checkpoint]:
    """Fingerprints in the order in which the checkpoints were tested."""
    made = {step: make_checkpoint(session, run, step) for step in order}
    for step in order:
        fingerprints.record(session, made[step], ENGINE, prints[step])
        session.flush()
    return made


def warnings(made: dict[int, Checkpoint]) -> dict[int, list[tuple[str, int]]]:
    """Kinds and steps of the warnings, where there are any."""
    return {step: [(w["kind"], w["step"]) for w in one.warnings] for step, one in made.items() if one.warnings}


STEPS = list(range(0, 200, 10))


def test_an_honest_training_raises_none(session: Session) -> None:
    assert warnings(record_all(session, make_run(session), walk(STEPS), STEPS)) == {}


def test_weights_of_another_step_are_warned_of_on_both(session: Session) -> None:
    prints = walk(STEPS)
    prints[150] = [value + 1e-4 for value in prints[40]]
    made = record_all(session, make_run(session), prints, STEPS)
    assert warnings(made) == {40: [("twin", 150)], 150: [("twin", 40)]}
    assert made[150].warnings[0]["distance"] == 0.0001


def test_a_warning_goes_when_the_steps_between_show_that_it_was_none(session: Session) -> None:
    run = make_run(session)
    coarse = {0: [-9.0] * 64, 100: [-5.0] * 64, 190: [-5.001] * 64}
    made = record_all(session, run, coarse, [0, 100, 190])
    assert warnings(made) == {100: [("twin", 190)], 190: [("twin", 100)]}
    fine = {step: [-5.0 - (step - 100) * 1e-5] * 64 for step in range(110, 190, 10)}
    made |= record_all(session, run, fine, list(fine))
    assert warnings(made) == {}


def test_the_same_weight_files_under_two_steps_are_warned_of(session: Session) -> None:
    run = make_run(session)
    made = {step: make_checkpoint(session, run, step) for step in (10, 20, 30)}
    made[30].weights_digest = made[10].weights_digest
    session.flush()
    for one in made.values():
        fingerprints.check_weights(session, one)
    assert warnings(made) == {10: [("same_weights", 30)], 30: [("same_weights", 10)]}


def test_other_kinds_and_other_engines_are_no_siblings(session: Session) -> None:
    run = make_run(session)
    prints = walk([10])[10]
    base, chat = make_checkpoint(session, run, 10), make_checkpoint(session, run, 10, kind="chat")
    later = make_checkpoint(session, run, 20)
    fingerprints.record(session, base, ENGINE, prints)
    fingerprints.record(session, chat, ENGINE, prints)
    fingerprints.record(session, later, "vllm/bfloat16", prints)
    assert [one.warnings for one in (base, chat, later)] == [[], [], []]
