"""Many people, few checkpoints, one engine: our line against first come, first served on the same engine.

    python -m benchmarks.line [--people 40] [--checkpoints 4] [--tokens 64] [--output line.json]

Everybody asks at once, each one of the checkpoints, drawn by chance. The peer takes the questions in the order in
which they came; neighbours that want the same checkpoint it answers side by side. Takes about two minutes.
"""

import argparse
import json
import random
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from benchmarks import _playground
from registry import checkpoints, db
from registry.settings import Settings, get_settings
from worker.engine.protocol import Asked, Delta, EngineError, Sampling
from worker.engine.tokenizer import load_tokenizer
from worker.engine.vllm import VllmEngine

AIM_RATIO, AIM_WAITS = 0.5, 1.5


def main(arguments: Sequence[str]) -> None:
    """Measure and print."""
    options = _parse(arguments)
    draw = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as name, _playground.site(Path(name) / "home"):
        ids = _playground.publish(options.checkpoints)
        wanted = [draw.choice(ids) for _ in range(options.people)]
        people = _playground.make_people(options.people)
        found = {"people": options.people, "checkpoints": options.checkpoints, "tokens": options.tokens}
        found["bound_seconds"] = get_settings().swap_wait_seconds
        found |= _measure_ours(people, wanted, options.tokens)
        found["peer_seconds"] = _measure_peer(wanted, options.tokens)
    found["ratio"] = found["seconds"] / found["peer_seconds"]
    found["longest_wait_over_bound"] = found["longest_wait"] / found["bound_seconds"]
    _report(found, options.output)


def _measure_ours(people: Sequence[int], wanted: Sequence[int], tokens: int) -> dict[str, Any]:
    with _playground.working():
        # An engine that holds the first checkpoint already, as the peer's does.
        _playground.wait_for([_playground.ask(people[0], wanted[0], 8)], 180)
        started = time.monotonic()
        turns = [_playground.ask(person, one, tokens) for person, one in zip(people, wanted, strict=True)]
        ended = _playground.wait_for(turns, 600)
        seconds = time.monotonic() - started
    waits = [(one.started_at - one.issued_at).total_seconds() for one in ended if one.started_at]
    if len(waits) != len(turns):
        raise SystemExit("Not every question was answered.")
    return {"seconds": seconds, "longest_wait": max(waits), "mean_wait": sum(waits) / len(waits)}


def _measure_peer(wanted: Sequence[int], tokens: int) -> float:
    with db.read_session() as session:
        folders = [checkpoints.path(checkpoints.get_by_id(session, one)) for one in wanted]
    engine = VllmEngine(Settings(home=get_settings().home, engine_threads=1))
    try:
        engine.use(folders[0])
        prompt = [0, *load_tokenizer(folders[0]).encode(_playground.WORDS)]
        _answer(engine, prompt, 1, 8)
        started = time.monotonic()
        for folder, neighbours in groupby(folders):
            engine.use(folder)
            _answer(engine, prompt, len(list(neighbours)), tokens)
        return time.monotonic() - started
    finally:
        engine.close()


def _answer(engine: VllmEngine, prompt: list[int], number: int, tokens: int) -> None:
    done = threading.Semaphore(0)

    def put(piece: Delta | EngineError) -> None:
        if isinstance(piece, EngineError) or piece.finish_reason is not None:
            done.release()

    engine.begin([Asked(prompt, Sampling(max_tokens=tokens, temperature=1.0), put)] * number)
    for _ in range(number):
        done.acquire()


def _report(found: dict[str, Any], output: Path | None) -> None:
    lines = [
        f"{found['people']} people, {found['checkpoints']} checkpoints, {found['tokens']} tokens each",
        f"ours: {found['seconds']:.2f} s; first come, first served: {found['peer_seconds']:.2f} s; "
        f"ratio {found['ratio']:.2f} (aim: at most {AIM_RATIO})",
        f"longest wait {found['longest_wait']:.2f} s, {found['longest_wait_over_bound']:.2f} of the bound of "
        f"{found['bound_seconds']:.0f} s (aim: at most {AIM_WAITS}); mean {found['mean_wait']:.2f} s",
    ]
    sys.stdout.write("\n".join(lines) + "\n")
    if output is not None:
        output.write_text(json.dumps(found, indent=1))


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.line", description=__doc__)
    parser.add_argument("--people", type=int, default=40)
    parser.add_argument("--checkpoints", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main(sys.argv[1:])
