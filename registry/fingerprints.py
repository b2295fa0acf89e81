"""Fingerprints of checkpoints, and the warnings that they raise: a mixed-up step is seen before anybody trusts it.

A fingerprint is the log-probability that the model gives to each of 64 fixed strings. A step of Pythia
held another step's weights until a user noticed (EleutherAI/pythia issue 108); here it is a warning.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from sqlalchemy import select
from sqlalchemy.orm import Session

from analysis import fingerprint as analysis
from registry.models import Checkpoint
from registry.models.base import READY

SAME_WEIGHTS, TWIN, TOKENIZER = "same_weights", "twin", "tokenizer"
NOISE_NATS = 0.02
"""Two loads of the same weights differ by less than this, also between batches (measured in tests/worker)."""

NUM_NEIGHBOURS = 4
"""Checkpoints on each side whose judgement a new one between them can change."""


def record(session: Session, checkpoint: Checkpoint, engine: str, values: Sequence[float]) -> None:
    """Keep a fingerprint, in nats, taken by `engine` (`<name>/<dtype>`); warn of a checkpoint that behaves alike.

    Its neighbours, and those that were warned of before, are judged anew: what looked like a copy on a
    coarse grid of steps may be a steep stretch of training once the steps between are known.
    """
    own = [round(float(value), 5) for value in values]
    checkpoint.fingerprint = {**checkpoint.fingerprint, engine: own}
    family = sorted([*_siblings(session, checkpoint), checkpoint], key=lambda one: one.step)
    family = [one for one in family if engine in one.fingerprint]
    place = family.index(checkpoint)
    near = family[max(0, place - NUM_NEIGHBOURS) : place + NUM_NEIGHBOURS + 1]
    doubted = [one for one in family if any(warning["kind"] == TWIN for warning in one.warnings)]
    for one in {id(one): one for one in [*near, *doubted]}.values():
        one.warnings = [warning for warning in one.warnings if warning["kind"] != TWIN]
    for one in near:
        _warn_of_twin(one, family, engine)
    for one in doubted:
        _warn_of_twin(one, family, engine)


def _warn_of_twin(checkpoint: Checkpoint, family: Sequence[Checkpoint], engine: str) -> None:
    others = [one for one in family if one is not checkpoint]
    if not others:
        return
    steps = [one.step for one in others]
    known = np.array([one.fingerprint[engine] for one in others])
    own = np.array(checkpoint.fingerprint[engine])
    found = analysis.twin_warning(known, steps, own, checkpoint.step, noise_floor=NOISE_NATS)
    if found is not None:
        twin, distance = others[found.row], round(float(found.distance), 5)
        warn(checkpoint, TWIN, step=twin.step, distance=distance)
        warn(twin, TWIN, step=checkpoint.step, distance=distance)


def check_weights(session: Session, checkpoint: Checkpoint) -> None:
    """Warn where another step of the run has the very same weight files."""
    for other in _siblings(session, checkpoint):
        if checkpoint.weights_digest and other.weights_digest == checkpoint.weights_digest:
            warn(checkpoint, SAME_WEIGHTS, step=other.step)
            warn(other, SAME_WEIGHTS, step=checkpoint.step)


def warn(checkpoint: Checkpoint, kind: str, **values: Any) -> None:
    """Put a warning on a checkpoint; the same one twice is one."""
    same = [old for old in checkpoint.warnings if (old["kind"], old.get("step")) == (kind, values.get("step"))]
    if not same:
        checkpoint.warnings = [*checkpoint.warnings, {"kind": kind, **values}]


def _siblings(session: Session, checkpoint: Checkpoint) -> Sequence[Checkpoint]:
    query = select(Checkpoint).where(
        Checkpoint.run_id == checkpoint.run_id,
        Checkpoint.kind == checkpoint.kind,
        Checkpoint.precision == checkpoint.precision,
        Checkpoint.state == READY,
        Checkpoint.id != checkpoint.id,
    )
    return session.scalars(query.order_by(Checkpoint.step)).all()
