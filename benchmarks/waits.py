"""Whether waits lie in the intervals that were told: simulated lines, and a real worker.

    python -m benchmarks.waits [--simulated 500] [--real 50] [--output waits.json]

Simulated: people come by chance to an engine whose answers take longer and shorter than the line thinks, with
checkpoints to swap; each is told an interval from what the line knows then (`registry.schedule`, `registry.estimates`).
Real: questions to four checkpoints of a running site, sent in bursts. Takes about two minutes.
"""

import argparse
import json
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks import _playground
from registry import estimates, schedule
from registry.estimates import GRAIN_SECONDS, REMEMBERED, Experience
from registry.schedule import Engine, Waiting

AIM = 0.8
NUM_CHECKPOINTS = 4
ANSWERS_AT_ONCE = 2


@dataclass(frozen=True)
class Person:
    """Comes at a moment, and would be answered for so long."""

    came: float
    checkpoint_id: int
    seconds: float


def main(arguments: Sequence[str]) -> None:
    """Measure and print."""
    options = _parse(arguments)
    found = {"simulated": _simulate(options.simulated, options.seed), "real": _measure(options.real, options.seed)}
    for name, share in found.items():
        sys.stdout.write(
            f"{name}: {share['inside']:.0%} of {share['tickets']} waits in their interval (aim: {AIM:.0%}); "
            f"waits {share['shortest']:.1f}–{share['longest']:.1f} s, intervals {share['width']:.1f} s wide\n"
        )
    if options.output is not None:
        options.output.write_text(json.dumps(found, indent=1))


def _simulate(number: int, seed: int) -> dict[str, Any]:
    draw = random.Random(seed)
    clock, people = 0.0, []
    for _ in range(number):
        clock += draw.expovariate(0.55)
        people.append(Person(clock, draw.randrange(NUM_CHECKPOINTS), draw.lognormvariate(0.6, 0.7)))
    told, waits, ratios = [], [], []
    actual = _really(people)
    for at, person in enumerate(people):
        expected = _expected(people, actual, at)
        known = Experience(*estimates.spread(ratios[-REMEMBERED:][::-1]), 0.0, 0.0)
        told.append(estimates.interval(expected, known))
        waits.append(actual[at] - person.came)
        # Only what has begun by now can have taught anything.
        ratios = [
            (waits[other] + GRAIN_SECONDS) / (_kept[other] + GRAIN_SECONDS)
            for other in range(at)
            if actual[other] <= person.came
        ]
        _kept[at] = expected
    return _score(told, waits)


_kept: dict[int, float] = {}


def _really(people: Sequence[Person]) -> list[float]:
    """When each begins, by the line's rules, everybody's own seconds, and nobody who has not come yet."""
    engine = Engine(None, ANSWERS_AT_ONCE, 20.0, 0.5)
    begun: dict[int, float] = {}
    while len(begun) < len(people):
        here = [at for at, person in enumerate(people) if at not in begun and person.came <= engine.now]
        if not here:
            engine.now = min(person.came for at, person in enumerate(people) if at not in begun)
            continue
        waiting = [
            Waiting(at, 0, people[at].checkpoint_id, engine.now - people[at].came, people[at].seconds) for at in here
        ]
        step = replace(
            engine,
            now=0.0,
            busy=[end - engine.now for end in engine.busy if end > engine.now],
            left={one: left - engine.now for one, left in engine.left.items()},
        )
        first = schedule.starts([step], waiting)
        chosen = min(first, key=lambda one: first[one])
        coming = [person.came for at, person in enumerate(people) if at not in begun and person.came > engine.now]
        moment = engine.now + first[chosen]
        if coming and min(coming) < moment - engine.load_seconds:
            engine.now = min(coming)  # somebody comes before it begins, and may change it
            continue
        begun[chosen] = moment
        if people[chosen].checkpoint_id != engine.checkpoint_id:
            if engine.checkpoint_id is not None:
                engine.left[engine.checkpoint_id] = moment
            engine.checkpoint_id = people[chosen].checkpoint_id
        engine.now = moment
        engine.busy = [end for end in engine.busy if end > moment] + [moment + people[chosen].seconds]
    return [begun[at] for at in range(len(people))]


def _expected(people: Sequence[Person], actual: Sequence[float], at: int) -> float:
    """What the line thinks when this person comes: it knows who waits and runs, and the mean length of answers."""
    now = people[at].came
    mean = sum(person.seconds for person in people) / len(people)
    running = [one for one in range(at) if actual[one] <= now < actual[one] + people[one].seconds]
    waiting = [one for one in range(at) if actual[one] > now]
    begun = [one for one in range(at) if actual[one] <= now]
    resident = people[max(begun, key=lambda one: actual[one])].checkpoint_id if begun else None
    engine = Engine(resident, ANSWERS_AT_ONCE, 20.0, 0.5)
    engine.busy = [max(estimates.LEAST_SECONDS, mean - (now - actual[one])) for one in running]
    line = [Waiting(one, 0, people[one].checkpoint_id, now - people[one].came, mean) for one in [*waiting, at]]
    return schedule.starts([engine], line)[at]


def _measure(number: int, seed: int) -> dict[str, Any]:
    draw = random.Random(seed)
    with tempfile.TemporaryDirectory() as name, _playground.site(Path(name) / "home"):
        ids, people = _playground.publish(NUM_CHECKPOINTS), _playground.make_people(number)
        with _playground.working(GROW_ANSWERS_AT_ONCE=str(ANSWERS_AT_ONCE)):
            _playground.wait_for([_playground.ask(people[0], ids[0], 8)], 180)
            time.sleep(6)  # until the worker has told what it measured
            turns = []
            for person in people:
                turns.append(_playground.ask(person, draw.choice(ids), draw.choice((64, 128, 192))))
                time.sleep(draw.expovariate(8.0))
            ended = _playground.wait_for(turns, 600)
    told = [(ticket.low_seconds or 0.0, ticket.high_seconds or 0.0) for ticket in ended]
    waits = [(ticket.started_at - ticket.issued_at).total_seconds() for ticket in ended if ticket.started_at]
    return _score(told, waits)


def _score(told: Sequence[tuple[float, float]], waits: Sequence[float]) -> dict[str, Any]:
    inside = [low <= wait <= high for (low, high), wait in zip(told, waits, strict=True)]
    return {
        "tickets": len(waits),
        "inside": sum(inside) / len(inside),
        "shortest": min(waits),
        "longest": max(waits),
        "width": sum(high - low for low, high in told) / len(told),
    }


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.waits", description=__doc__)
    parser.add_argument("--simulated", type=int, default=500)
    parser.add_argument("--real", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main(sys.argv[1:])
