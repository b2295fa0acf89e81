"""A crowd before one web server: most wait in line, the others read an answer as it is written.

    python -m benchmarks.crowd [--waiting 500] [--streaming 100] [--tokens 400] [--output crowd.json]

The desk of a real worker writes; its engine is a metronome that gives every open answer a word at each beat, because
what is measured is the web server: its memory, and that every stream holds what was stored, nothing lost or doubled.
Takes about a minute.
"""

import argparse
import asyncio
import json
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil

from benchmarks import _playground
from registry import accounts, chats, db, events
from registry.models import User
from worker.desk import Desk
from worker.engine.protocol import Abort, Asked, Delta
from worker.engine.scripted import ScriptedEngine
from worker.line import Residency
from worker.questions import read

AIM_MB = 700
BEAT_SECONDS = 0.03
OPEN_AT_ONCE = 50


class Metronome(ScriptedEngine):
    """One word for every open answer at each beat."""

    def __init__(self) -> None:
        super().__init__()
        self._open: list[tuple[Asked, int]] = []
        self._lock = threading.Lock()  # answers begin beside the beat
        threading.Thread(target=self._beat_for_ever, daemon=True).start()

    def begin(self, asked: Sequence[Asked]) -> list[Abort]:
        """Join the beat."""
        with self._lock:
            self._open += [(one, 0) for one in asked]
        return [lambda: None for _ in asked]

    def _beat_for_ever(self) -> None:
        while True:
            time.sleep(BEAT_SECONDS)
            with self._lock:
                beating, self._open = self._open, []
            for one, number in beating:
                _step(one, number)
            with self._lock:
                self._open += [(one, number + 1) for one, number in beating if number + 1 < one.sampling.max_tokens]


def _step(one: Asked, number: int) -> None:
    is_last = number + 1 >= one.sampling.max_tokens
    usage = (len(one.prompt), one.sampling.max_tokens) if is_last else (None, None)
    one.put(Delta(f"word{number} ", "length" if is_last else None, *usage))


class Reader:
    """One open page: what it was told."""

    def __init__(self, turn_id: int, cookie: str) -> None:
        self.turn_id, self.cookie = turn_id, cookie
        self.text, self.places, self.is_done, self.is_open = "", 0, False, False
        self.num_starts, self.last_id = 0, ""
        self.is_told_by_stream = False
        """The end came from the answer's stream; one that was lost with the broker ends from the row."""

    async def follow(self, host: str, port: int, gate: asyncio.Semaphore) -> None:
        """Read the turn's stream to its end."""
        async with gate:
            reader, writer = await asyncio.open_connection(host, port, limit=2**20)
            head = f"GET /chat/turns/{self.turn_id}/events HTTP/1.1\r\nHost: {host}:{port}\r\n"
            head += f"Last-Event-ID: {self.last_id}\r\n" if self.last_id else ""
            writer.write(f"{head}Accept: text/event-stream\r\nCookie: session={self.cookie}\r\n\r\n".encode())
            status = await reader.readline()
            if b" 200 " not in status:
                raise SystemExit(f"A stream was refused: {status!r}")
        self.is_open = True
        try:
            event: dict[str, str] = {}
            while (line := await reader.readline()) and not self.is_done:
                # As a browser's event source: an event counts once it is whole, its id too.
                if line.strip():
                    name, _, value = line.decode().rstrip("\r\n").partition(": ")
                    event[name] = value
                    continue
                if "data" in event:
                    self.last_id = event.get("id", self.last_id)
                    self.is_told_by_stream = "id" in event
                    self._take(event.get("event", ""), json.loads(event["data"]))
                event = {}
        finally:
            writer.close()

    def _take(self, kind: str, data: dict[str, Any]) -> None:
        if kind == "queued":
            self.places += 1
        elif kind == "start":
            self.text, self.num_starts = "", self.num_starts + 1
        elif kind == "delta":
            self.text += data["text"]
        elif kind == "done":
            self.is_done = True


def main(arguments: Sequence[str]) -> None:
    """Measure and print."""
    options = _parse(arguments)
    number = options.waiting + options.streaming
    with tempfile.TemporaryDirectory() as name, _playground.site(Path(name) / "home") as site:
        [checkpoint_id] = _playground.publish(1)
        people = _playground.make_people(number)
        turns = [_playground.ask(person, checkpoint_id, options.tokens) for person in people]
        readers = [Reader(turn, _log_in(person)) for turn, person in zip(turns, people, strict=True)]
        found = asyncio.run(_watch(readers, urlsplit(site.address), site.server.pid, options))
        found |= _compare(readers)
    found |= {"waiting": options.waiting, "streaming": options.streaming, "tokens": options.tokens}
    _report(found, options.output)


def _log_in(user_id: int) -> str:
    with db.transaction() as session:
        return accounts.open_session(session, session.get_one(User, user_id))


async def _watch(readers: Sequence[Reader], address: Any, pid: int, options: argparse.Namespace) -> dict[str, Any]:
    gate = asyncio.Semaphore(OPEN_AT_ONCE)
    tasks = [asyncio.create_task(reader.follow(address.hostname, address.port, gate)) for reader in readers]
    while not all(reader.is_open for reader in readers):
        await asyncio.sleep(0.1)
    before = psutil.Process(pid).cpu_times()
    started = time.monotonic()
    stopping = threading.Event()
    worker = threading.Thread(target=_work, args=(options.streaming, stopping), daemon=True)
    worker.start()
    peak = 0
    while sum(reader.is_done for reader in readers) < options.streaming:
        peak = max(peak, psutil.Process(pid).memory_full_info().pss)
        await asyncio.sleep(0.2)
    seconds = time.monotonic() - started
    after = psutil.Process(pid).cpu_times()
    stopping.set()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    busy = after.user + after.system - before.user - before.system
    return {"peak_mb": peak / 2**20, "seconds": seconds, "server_cores": busy / seconds}


def _work(number: int, stopping: threading.Event) -> None:
    """The worker: takes as many as stream, and no more."""
    line = Residency("metronome", max_answers=number)
    desk = Desk(line, threading.Event(), on_end=lambda: None)
    engine = Metronome()
    events.worker_beat("metronome", "writing", line.facts())
    while line.num_in_flight < number and (taken := line.take(read)):
        desk.begin_all(taken, engine)
    while not stopping.wait(1):
        events.worker_beat("metronome", "writing", line.facts())


def _compare(readers: Sequence[Reader]) -> dict[str, Any]:
    wrong, words = 0, 0
    with db.read_session() as session:
        for reader in readers:
            turn = chats.get_turn(session, reader.turn_id)
            if reader.is_done:
                words += len(turn.answer.split())
                wrong += reader.text != turn.answer or reader.num_starts != 1
    told = [reader.places for reader in readers if not reader.is_done]
    return {"wrong": wrong, "words": words, "never_told": sum(places == 0 for places in told)}


def _report(found: dict[str, Any], output: Path | None) -> None:
    lines = [
        f"{found['waiting']} wait, {found['streaming']} read {found['tokens']} words each, {found['seconds']:.1f} s",
        f"web server: {found['peak_mb']:.0f} MB at most (aim: under {AIM_MB}), {found['server_cores']:.2f} cores",
        f"{found['words']:,} words came; streams that differ from what is stored: {found['wrong']} (aim: 0); "
        f"people in line who were told no place: {found['never_told']} (aim: 0)",
    ]
    sys.stdout.write("\n".join(lines) + "\n")
    if output is not None:
        output.write_text(json.dumps(found, indent=1))


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.crowd", description=__doc__)
    parser.add_argument("--waiting", type=int, default=500)
    parser.add_argument("--streaming", type=int, default=100)
    parser.add_argument("--tokens", type=int, default=400)
    parser.add_argument("--output", type=Path)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main(sys.argv[1:])
