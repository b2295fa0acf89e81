"""From the registration of a checkpoint to the points of its panel on the page, on a real site.

    python -m benchmarks.panel [--checkpoints 3] [--beside-training] [--output panel.json]

Starts a site with `grow up` in a folder of its own, registers checkpoints of the demo's shape one
after the other, and asks the page's own address for each chart until the new point is in it. The
first one also pays for building the items and starting the engines, so it is told apart.
Takes about three minutes on two cores.
"""

import argparse
import datetime as dt
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from grow.cli import DEMO_PANEL

RUN = "panel"
TIMEOUT_SECONDS = 300.0


def main(arguments: Sequence[str]) -> None:
    """Measure, print, and save as JSON."""
    options = _parse(arguments)
    with tempfile.TemporaryDirectory(prefix="grow-panel-") as name:
        folders = _train(Path(name) / "training", options.checkpoints)
        with _site(Path(name) / "site", beside_training=options.beside_training) as (address, environment):
            found = [_measure(address, environment, folder, at + 1) for at, folder in enumerate(folders)]
    later = [one["seconds"] for one in found[1:]]
    summary = {
        "beside_training": options.beside_training,
        "checkpoints": found,
        "first_seconds": found[0]["seconds"],
        "later_seconds": {"median": statistics.median(later), "max": max(later)},
    }
    _say(f"first checkpoint of a fresh site: {summary['first_seconds']:.1f} s")
    _say(f"the later ones: median {statistics.median(later):.1f} s, longest {max(later):.1f} s (aim: 20 s)")
    if options.output:
        Path(options.output).write_text(json.dumps(summary, indent=1))


def _train(home: Path, number: int) -> list[Path]:
    """Real checkpoints of the demo's model, a step apart."""
    home.mkdir()
    environment = _environment(home)
    _run(["-m", "grow", "migrate"], environment)
    _run(["-m", "training", "--config", "demo", "--run", "source", "--steps", str(8 * 2 ** (number - 2))], environment)
    folders = sorted((home / "checkpoints" / "source").glob("step-*"), key=lambda path: int(path.name[5:]))
    assert len(folders) >= number, "the grid of the demo: 0, 8, 16, 32 …"
    return folders[:number]


@contextmanager
def _site(home: Path, *, beside_training: bool) -> Iterator[tuple[str, dict[str, str]]]:
    home.mkdir()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = _environment(home) | {"GROW_PORT": str(port), "GROW_MILESTONE_EVERY": "-1", "GROW_PANEL": DEMO_PANEL}
    command = ["demo", "--run", "beside"] if beside_training else ["up"]
    with (home.parent / "site.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "grow", *command], env=environment, stdout=log, stderr=log, start_new_session=True
        )
    address = f"http://127.0.0.1:{port}"
    try:
        _until(lambda: _answers(address), "the site")
        yield address, environment
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)


def _measure(address: str, environment: dict[str, str], folder: Path, step: int) -> dict[str, Any]:
    """Seconds from the registration until every chart of the panel has the point."""
    copy = Path(environment["GROW_HOME"]) / f"incoming-{step}"
    shutil.copytree(folder, copy)
    _run(["-m", "grow", "push", str(copy), "--run", RUN, "--step", str(step)], environment)
    [checkpoint] = [one for one in _get(address, f"runs/{RUN}/checkpoints") if one["step"] == step]
    registered = time.time() - _age(checkpoint["created_at"])
    _until(lambda: _panel_is_done(address, checkpoint["id"]), "the panel")
    evaluations = [one for one in _get(address, f"checkpoints/{checkpoint['id']}/evaluations") if one["results"]]
    for one in evaluations:
        _until(lambda one=one: f'"step": {step},' in _chart(address, one["task"]), f"the point of {one['task']}")
    seconds = time.time() - registered
    engine = {one["task"]: round(one["engine_seconds"], 2) for one in evaluations}
    _say(f"step {step}: {seconds:.1f} s, of which {sum(engine.values()):.1f} s in the engine, {len(engine)} charts")
    return {"seconds": seconds, "engine_seconds": engine}


def _panel_is_done(address: str, checkpoint_id: int) -> bool:
    found = _get(address, f"checkpoints/{checkpoint_id}/evaluations")
    failed = [one for one in found if one["status"] in ("failed", "cancelled")]
    assert not failed, f"{failed[0]['task']}: {failed[0]['error']}"
    return bool(found) and all(one["status"] == "finished" for one in found)


def _chart(address: str, task: str) -> str:
    """The fragment that the page asks for when the board says that a point is there."""
    return httpx.get(f"{address}/runs/{RUN}/charts/{task}", params={"x": "step"}, timeout=20).text


def _get(address: str, path: str) -> Any:
    return httpx.get(f"{address}/api/v1/{path}", timeout=20).raise_for_status().json()


def _age(moment: str) -> float:
    return (dt.datetime.now(dt.UTC) - dt.datetime.fromisoformat(moment)).total_seconds()


def _answers(address: str) -> bool:
    try:
        return httpx.get(f"{address}/readyz", timeout=2).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False


def _until(condition: Any, what: str) -> None:
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit(f"Waited {TIMEOUT_SECONDS:.0f} s for {what}.")
        time.sleep(0.1)


def _environment(home: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GROW_")}
    return kept | {"GROW_HOME": str(home), "HF_HUB_OFFLINE": "1"}


def _run(arguments: list[str], environment: dict[str, str]) -> None:
    subprocess.run([sys.executable, *arguments], env=environment, check=True, capture_output=True)


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.panel", description=__doc__.partition("\n")[0])
    parser.add_argument("--checkpoints", type=int, default=3, help="Checkpoints to register, at least 2.")
    parser.add_argument("--beside-training", action="store_true", help="While the demo trains on the same machine.")
    parser.add_argument("--output", help="Where to save the figures as JSON.")
    return parser.parse_args(arguments)


def _say(sentence: str) -> None:
    print(sentence, flush=True)  # noqa: T201 - this is a program for the terminal


if __name__ == "__main__":
    main(sys.argv[1:])
