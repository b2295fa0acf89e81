"""How fast a checkpoint comes in by browser, beside a bare socket, and what memory that takes.

The same bytes go over loopback both ways, in turns: to a bare process that hashes them with sha256 and writes them to a
file, and to the real web server by the tus protocol in the page's chunks, each with its checksum, hashed one ahead as
the page does. The server checks each chunk, hashes the file on its way, writes it and counts it in the database.

    python -m benchmarks.upload [--mebibytes 1024] [--rounds 3] [--long-gibibytes 20]
"""

import argparse
import base64
import hashlib
import http.client
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from registry import accounts, db, keys
from registry.settings import get_settings
from tests.conftest import ROOT, free_port, migrate

MIB = 2**20
CHUNK = 32 * MIB
"""As static/js/upload/sender.js has it."""
BARE = """
import hashlib, socket, sys
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
buffer = bytearray(2**20)
view = memoryview(buffer)
while True:
    connection, _ = listener.accept()
    digest = hashlib.sha256()
    with connection, open(sys.argv[1], "wb", buffering=0) as file:
        while size := connection.recv_into(buffer):
            digest.update(view[:size])
            file.write(view[:size])
        connection.sendall(digest.digest())
"""


def say(line: str) -> None:
    """Tell as soon as it is known."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


@contextmanager
def bare(folder: Path) -> Iterator[int]:
    """The bare receiver; gives its port."""
    child = subprocess.Popen([sys.executable, "-c", BARE, str(folder / "bare")], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    try:
        yield int(child.stdout.readline())
    finally:
        child.kill()
        child.wait()


@contextmanager
def site(home: Path) -> Iterator[tuple[int, str, int]]:
    """The real web server; gives its port, a key that may push, and its process id."""
    port = free_port()
    os.environ.update(GROW_HOME=str(home), GROW_PORT=str(port), GROW_REDIS_URL="redis://127.0.0.1:1/0")
    get_settings.cache_clear()
    migrate(db.current_engine())
    with db.transaction() as session:
        user = accounts.create_admin(session, "keeper", "keeper of the garden")
        token = keys.make(session, user, "push", (keys.PUSH,)).token
    with (home / "server.log").open("wb") as log:
        child = subprocess.Popen([sys.executable, "-m", "server"], cwd=ROOT, stdout=log, stderr=log)
    try:
        while True:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except ConnectionRefusedError:
                time.sleep(0.2)
        yield port, token, child.pid
    finally:
        child.terminate()
        child.wait()


def send_bare(port: int, data: bytes, count: int) -> float:
    """Seconds until the bare receiver has hashed and written everything."""
    started = time.perf_counter()
    with socket.create_connection(("127.0.0.1", port)) as connection:
        for _ in range(count):
            connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        connection.recv(32)
    return time.perf_counter() - started


class Client:
    """Uploads as the page does, on one connection."""

    def __init__(self, port: int, token: str) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port)
        self._headers = {"Authorization": f"Bearer {token}", "Tus-Resumable": "1.0.0"}
        self._step = 0

    def _ask(self, method: str, path: str, body: bytes = b"", **headers: str) -> bytes:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self._connection.request(method, path, body=body, headers={**self._headers, **named})
        answer = self._connection.getresponse()
        said = answer.read()
        if answer.status >= 300:
            raise RuntimeError(f"{method} {path}: {answer.status} {said.decode()}")
        return said

    def send(self, data: bytes, count: int) -> float:
        """Seconds until `count` chunks are counted; the upload is then cancelled."""
        self._step += 1
        self._connection.close()  # an idle one was closed by the server
        # One byte more than is sent, so that nothing is unpacked.
        files = [{"name": "x.zip", "size": len(data) * count + 1}]
        content = json.dumps({"run": "bench", "step": str(self._step), "files": files}).encode()
        upload = json.loads(self._ask("POST", "/api/uploads", content, Content_Type="application/json"))
        url = upload["files"][0]["url"]
        with ThreadPoolExecutor(1) as ahead:
            started = time.perf_counter()
            checksum = ahead.submit(digest, data)
            for number in range(count):
                named = {
                    "Content_Type": "application/offset+octet-stream",
                    "Upload_Offset": str(number * len(data)),
                    "Upload_Checksum": f"sha256 {checksum.result()}",
                }
                checksum = ahead.submit(digest, data) if number + 1 < count else checksum
                self._ask("PATCH", url, data, **named)
            taken = time.perf_counter() - started
        self._ask("DELETE", f"/api/uploads/{upload['id']}")
        return taken


def digest(data: bytes) -> str:
    """The checksum of a chunk, computed anew for each."""
    return base64.b64encode(hashlib.sha256(data).digest()).decode()


def memory(pid: int, field: str) -> float:
    """Mebibytes that a process uses (`VmRSS`) or has used at most (`VmHWM`)."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--mebibytes", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--long-gibibytes", type=int, default=20)
    options = parser.parse_args()
    home = Path(tempfile.mkdtemp(prefix="grow-upload-"))
    data, count = os.urandom(CHUNK), options.mebibytes * MIB // CHUNK
    try:
        with bare(home) as bare_port, site(home) as (port, token, pid):
            client = Client(port, token)
            client.send(data, 2)  # the first requests import and compile
            before, ratios = memory(pid, "VmRSS"), []
            for _ in range(options.rounds):
                plain, ours = send_bare(bare_port, data, count), client.send(data, count)
                ratios.append(plain / ours)
                size = options.mebibytes
                say(f"bare {size / plain:6.0f} MiB/s   ours {size / ours:6.0f} MiB/s   ratio {plain / ours:.2f}")
            say(f"median ratio {statistics.median(ratios):.2f} (aim 0.70), load {os.getloadavg()[0]:.1f}")
            if options.long_gibibytes:
                taken = client.send(bytes(CHUNK), options.long_gibibytes * 1024 * MIB // CHUNK)
                rate = options.long_gibibytes * 1024 / taken
                peak = memory(pid, "VmHWM")
                say(f"{options.long_gibibytes} GiB of zeros: {taken:.0f} s, {rate:.0f} MiB/s")
                say(f"memory of the server: {before:.0f} MiB before, {peak:.0f} MiB at most (aim 300)")
    finally:
        shutil.rmtree(home, ignore_errors=True)


if __name__ == "__main__":
    main()
