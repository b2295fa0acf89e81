"""Files out: the site beside a plain nginx, with curl and with the Hub's own client, and the memory that 20 GB cost.

Needs nginx and curl. Each round asks all of them one after the other, so that a neighbour's load falls on all alike.
"""

import argparse
import hashlib
import itertools
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import httpx
import psutil

from benchmarks import _playground, _site
from registry import checkpoints, db, runs, store
from registry.models import Checkpoint
from registry.settings import get_settings

WEIGHTS = "model.safetensors"
CONFIG = {"architectures": ["LlamaForCausalLM"], "model_type": "llama"}
SNAPSHOT = """
import sys, time
from huggingface_hub import snapshot_download
from huggingface_hub.utils import disable_progress_bars
disable_progress_bars()
started = time.perf_counter()
folder = snapshot_download("bench", revision=sys.argv[1])
print(time.perf_counter() - started, folder)
"""
NGINX = """
user {user};
worker_processes 1;
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ }}
http {{
  access_log off; sendfile on; tcp_nopush on; default_type application/octet-stream;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  server {{
    listen 127.0.0.1:{port};
    location /files/ {{ alias {checkpoint}/; }}
    location ~ ^/api/models/bench/revision/ {{ default_type application/json; alias {folder}/revision.json; }}
    location ~ ^/api/models/bench/tree/ {{ default_type application/json; alias {folder}/tree.json; }}
    location /bench/resolve/{commit}/ {{ alias {checkpoint}/; add_header X-Repo-Commit {commit}; }}
    location = /bench/resolve/{commit}/model.safetensors {{
      alias {checkpoint}/model.safetensors; etag off;
      add_header X-Repo-Commit {commit}; add_header ETag '"{sha256}"';
    }}
  }}
}}
"""


class Big(NamedTuple):
    """A checkpoint with one big file."""

    checkpoint: Checkpoint
    sha256: str
    size: int

    @property
    def path(self) -> str:
        """Its address on the site."""
        return f"/checkpoints/{self.checkpoint.digest}/files/{WEIGHTS}"


def main() -> None:
    """Print the speeds, their ratios, and the memory."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=1.5)
    parser.add_argument("--sparse-gigabytes", type=float, default=20.0)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    if shutil.which("nginx") is None or shutil.which("curl") is None:
        raise SystemExit("This benchmark needs nginx and curl: apt-get install nginx-light curl")
    # Not below /tmp's private folders: nginx gives up its rights before it reads.
    with tempfile.TemporaryDirectory(prefix="grow-download-") as folder:
        _site.use(Path(folder) / "home")
        _playground.migrate()
        big = put(1, int(options.gigabytes * 1e9), sparse=False)
        sparse = put(2, int(options.sparse_gigabytes * 1e9), sparse=True)
        with _site.serving() as site, nginx(Path(folder), site, big) as peer:
            by_curl(site.address + big.path, f"{peer}/files/{WEIGHTS}", big, options.rounds)
            by_client(site.address, peer, big, max(3, options.rounds // 2), Path(folder))
            memory(site, sparse)


def put(step: int, size: int, *, sparse: bool) -> Big:
    """A ready checkpoint whose weights have that size; sparse ones are zeros that take no room."""
    settings = get_settings()
    content = settings.home / f"made-{step}"
    content.mkdir(parents=True)
    (content / "config.json").write_text(json.dumps(CONFIG))
    with (content / WEIGHTS).open("wb") as file:
        if sparse:
            file.truncate(size)
        else:
            for begin in range(0, size, 2**24):
                file.write(os.urandom(min(2**24, size - begin)))
    place = f"bench/step-{step}"
    manifest = store.seal(content, settings.checkpoints_dir / place, {})
    with db.transaction() as session:
        run = runs.create_run(session, name="bench", config={})
        checkpoint = checkpoints.register(session, run, step=step, folder=place, manifest=manifest)
        checkpoints.mark_ready(session, checkpoint, 1)
        session.info.pop("deferred_jobs", None)
    return Big(checkpoint, manifest.files[WEIGHTS]["sha256"], size)


@contextmanager
def nginx(folder: Path, site: _site.Site, big: Big) -> Iterator[str]:
    """A plain nginx that has the same files, and the two answers that the client asks for before them."""
    port, own = _site.free_port(), folder / "nginx"
    own.mkdir()
    folder.chmod(0o755)
    commit = big.checkpoint.digest[:40]
    for kind in ("revision", "tree"):
        (own / f"{kind}.json").write_bytes(httpx.get(f"{site.address}/api/models/bench/{kind}/{commit}").content)
    values = {"folder": own, "port": port, "checkpoint": checkpoints.path(big.checkpoint).absolute(), "commit": commit}
    user = psutil.Process().username()
    (own / "nginx.conf").write_text(NGINX.format(**values, sha256=big.sha256, user=user))
    child = subprocess.Popen(["nginx", "-c", str(own / "nginx.conf")], stderr=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(100):
            try:
                httpx.head(f"{address}/files/{WEIGHTS}").raise_for_status()
                break
            except httpx.TransportError:
                time.sleep(0.05)
        yield address
    finally:
        child.terminate()
        child.wait(10)


def by_curl(ours: str, theirs: str, big: Big, rounds: int) -> None:
    """Bytes a second of one download to nowhere, and over four connections at once; the content checked once."""
    for address in (ours, theirs):
        if piped_sha256(address) != big.sha256:
            raise SystemExit(f"{address} gave another content.")
    for title, fetch in (("one connection", one), ("four parts at once", four)):
        seconds: dict[str, list[float]] = {ours: [], theirs: []}
        for _ in range(rounds):
            for address in (ours, theirs):
                seconds[address].append(fetch(address, big.size))
        report(f"curl, {title}", seconds[ours], seconds[theirs], big.size)


def piped_sha256(address: str) -> str:
    """The sha256 of what an address gives."""
    with subprocess.Popen(["curl", "-sf", address], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        return hashlib.file_digest(child.stdout, "sha256").hexdigest()  # type: ignore[arg-type]


def one(address: str, _size: int) -> float:
    """Seconds that curl took."""
    command = ["curl", "-sf", "-o", "/dev/null", "-w", "%{time_total}", address]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def four(address: str, size: int) -> float:
    """Seconds until four ranges were there."""
    edges = [size * number // 4 for number in range(5)]
    ranges = [f"{begin}-{end - 1}" for begin, end in itertools.pairwise(edges)]
    started = time.perf_counter()
    children = [subprocess.Popen(["curl", "-sf", "-r", part, "-o", "/dev/null", address]) for part in ranges]
    if any(child.wait() for child in children):
        raise SystemExit(f"{address} did not give its parts.")
    return time.perf_counter() - started


def by_client(ours: str, theirs: str, big: Big, rounds: int, folder: Path) -> None:
    """The same by `snapshot_download`, onto the disk, content checked each time."""
    seconds: dict[str, list[float]] = {ours: [], theirs: []}
    for number in range(rounds):
        for address in (ours, theirs):
            cache = folder / f"cache-{number}"
            environment = {**os.environ, "HF_ENDPOINT": address, "HF_HOME": str(cache), "HF_HUB_OFFLINE": "0"}
            command = [sys.executable, "-c", SNAPSHOT, big.checkpoint.digest[:40]]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
            taken, where = done.stdout.split()
            if store.file_sha256(Path(where) / WEIGHTS) != big.sha256:
                raise SystemExit(f"{address} gave another content.")
            seconds[address].append(float(taken))
            shutil.rmtree(cache)
    report("snapshot_download", seconds[ours], seconds[theirs], big.size)


def report(title: str, ours: list[float], theirs: list[float], size: int) -> None:
    """Medians, and ours over theirs."""
    mine, other = (size / statistics.median(seconds) / 1e6 for seconds in (ours, theirs))
    sys.stdout.write(f"{title}: {mine:,.0f} MB/s, nginx {other:,.0f} MB/s, ratio {mine / other:.2f} (aim: 0.9)\n")
    sys.stdout.flush()


def memory(site: _site.Site, sparse: Big) -> None:
    """What the server grows by while a file of many gigabytes goes out."""
    process, peak, done = psutil.Process(site.server.pid), 0, threading.Event()
    before = process.memory_info().rss

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.02):
            peak = max(peak, process.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    seconds = one(site.address + sparse.path, sparse.size)
    done.set()
    watcher.join()
    sys.stdout.write(
        f"{sparse.size / 1e9:.0f} GB out in {seconds:.0f} s: the server had {before / 1e6:.0f} MB before and "
        f"{peak / 1e6:.0f} MB at most (aim: 300)\n"
    )


if __name__ == "__main__":
    main()
