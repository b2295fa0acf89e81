"""Sixty-four streams at once: the site's OpenAI-compatible interface against vLLM's own server, same load, same run.

    python -m benchmarks.playground [--streams 64] [--requests 192] [--tokens 128] [--output playground.json]

Both serve the same checkpoint (random weights, the demo's shape) with one engine thread each, one after the other;
the load generator is the same program. Behind the site's interface stand the line, the worker and the broker, all on
this machine. What is added to the time to the first token is measured with few streams, where no engine queues.
Takes about two minutes.
"""

import argparse
import asyncio
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from benchmarks import _load, _playground, _site
from registry import chats, checkpoints, db, keys
from registry.models import User
from worker.engine.command import child_command, child_environment
from worker.engine.shape import read_shape

AIM_THROUGHPUT, AIM_FIRST_MS, AIM_FIRST_P95_MS, AIM_STALL = 0.95, 30, 80, 1.1
NO_LIMITS = {"GROW_API_LIMIT": "1000000/minute", "GROW_API_CONCURRENT": "1000", "GROW_API_TOKENS_PER_DAY": "1000000000"}
FEW = 4
ROUNDS = 2
"""The first of them warms both up."""


def main(arguments: Sequence[str]) -> None:
    """Measure and print."""
    options = _parse(arguments)
    draw = random.Random(options.seed)
    prompts = [[draw.randrange(3, 8_000) for _ in range(30)] for _ in range(options.requests)]
    # Answers of one length would end, and the next ones begin, all in the same moment, wave after wave.
    lengths = [draw.randint(options.tokens // 2, options.tokens * 3 // 2) for _ in prompts]
    with tempfile.TemporaryDirectory() as name, _playground.site(Path(name) / "home", **NO_LIMITS) as site:
        [checkpoint_id] = _playground.publish(1)
        with db.read_session() as session:
            checkpoint = checkpoints.get_by_id(session, checkpoint_id)
            folder, label = checkpoints.path(checkpoint), checkpoint.label
        with _peer(folder, Path(name)) as port:
            peer = _measure("127.0.0.1", port, _bodies("current", prompts, lengths), options.streams, "")
        [user_id] = _playground.make_people(1)
        with _playground.working():
            _playground.wait_for([_playground.ask(user_id, checkpoint_id, 8)], 180)
            address = urlsplit(site.address)
            header = f"Authorization: Bearer {_key(user_id)}\r\n"
            bodies = _bodies(label, prompts, lengths)
            ours = _measure(address.hostname or "", address.port or 0, bodies, options.streams, header)
    _report({"streams": options.streams, "tokens": options.tokens, "ours": ours, "peer": peer}, options.output)


def _bodies(model: str, prompts: Sequence[list[int]], lengths: Sequence[int]) -> list[dict[str, Any]]:
    return [
        {"model": model, "prompt": prompt, "max_tokens": length, "temperature": 1.0}
        for prompt, length in zip(prompts, lengths, strict=True)
    ]


def _measure(host: str, port: int, bodies: Sequence[dict[str, Any]], streams: int, header: str) -> dict[str, float]:
    many = [asyncio.run(_load.run(host, port, bodies, streams, header)) for _ in range(ROUNDS)][-1]
    few = asyncio.run(_load.run(host, port, bodies[: FEW * 10], FEW, header, pause=0.1))
    return {
        "tokens_per_second": many.tokens_per_second,
        "stall_ms": many.stall(0.99),
        "gap_ms": many.stall(0.5),
        "first_ms_of_many": many.first(0.5),
        "first_p95_ms_of_many": many.first(0.95),
        "first_ms": few.first(0.5),
        "first_p95_ms": few.first(0.95),
    }


def _key(user_id: int) -> str:
    with db.transaction() as session:
        return keys.make(session, session.get_one(User, user_id), "benchmark").token


@contextmanager
def _peer(folder: Path, scratch: Path) -> Iterator[int]:
    """vLLM's own server with the flags of ours, on a port."""
    port = _site.free_port()
    command = child_command(sys.executable, folder, Path("unused"), read_shape(folder))
    at = command.index("--uds")
    command[at : at + 2] = ["--port", str(port)]
    at = command.index("--middleware")
    del command[at : at + 2]
    with (scratch / "peer.log").open("wb") as log:
        server = subprocess.Popen(command, env=child_environment(os.environ, 1), stdout=log, stderr=log)
    try:
        while not _is_up(port):
            if server.poll() is not None:
                raise SystemExit((scratch / "peer.log").read_text()[-3000:])
            time.sleep(0.3)
        yield port
    finally:
        server.terminate()
        server.wait(30)


def _is_up(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/health", timeout=2).is_success
    except httpx.TransportError:
        return False


def _report(found: dict[str, Any], output: Path | None) -> None:
    ours, peer = found["ours"], found["peer"]
    found |= {
        "throughput_ratio": ours["tokens_per_second"] / peer["tokens_per_second"],
        "stall_ratio": ours["stall_ms"] / peer["stall_ms"],
        "added_first_ms": ours["first_ms"] - peer["first_ms"],
        "added_first_p95_ms": ours["first_p95_ms"] - peer["first_p95_ms"],
    }
    lines = [
        f"{found['streams']} streams of {found['tokens']} tokens",
        f"throughput: ours {ours['tokens_per_second']:,.0f} tokens/s, vLLM's server {peer['tokens_per_second']:,.0f}; "
        f"ratio {found['throughput_ratio']:.2f} (aim: at least {AIM_THROUGHPUT})",
        f"first token, {FEW} streams: ours {ours['first_ms']:.0f} ms, theirs {peer['first_ms']:.0f}; added "
        f"{found['added_first_ms']:.0f} (aim: under {AIM_FIRST_MS}); 95%: {ours['first_p95_ms']:.0f} and "
        f"{peer['first_p95_ms']:.0f}, added {found['added_first_p95_ms']:.0f} (aim: under {AIM_FIRST_P95_MS})",
        f"first token, {found['streams']} streams: ours {ours['first_ms_of_many']:.0f} ms, theirs "
        f"{peer['first_ms_of_many']:.0f}; 95%: {ours['first_p95_ms_of_many']:.0f} and "
        f"{peer['first_p95_ms_of_many']:.0f}",
        f"between pieces: ours {ours['gap_ms']:.1f} ms (99%: {ours['stall_ms']:.1f}), theirs {peer['gap_ms']:.1f} "
        f"({peer['stall_ms']:.1f}); ratio {found['stall_ratio']:.2f} (aim: at most {AIM_STALL})",
    ]
    sys.stdout.write("\n".join(lines) + "\n")
    if output is not None:
        output.write_text(json.dumps(found, indent=1))


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.playground", description=__doc__)
    parser.add_argument("--streams", type=int, default=64)
    parser.add_argument("--requests", type=int, default=192)
    parser.add_argument("--tokens", type=int, default=chats.DEFAULT_MAX_TOKENS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main(sys.argv[1:])
