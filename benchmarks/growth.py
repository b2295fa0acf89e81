"""The growth page of a run of 1,000 checkpoints: its data beside MLflow's, its weight, and when it is drawn.

    python -m benchmarks.growth [--requests 200] [--without-mlflow] [--output growth.json]

Makes the run (60 tasks of five metrics at each checkpoint), starts the real web server, and asks for views of ten
tasks, each view another one, so that nothing is answered from a cache. Then MLflow's tracking server on SQLite gives
the same histories, one `get-history` a task, as its API has it. In between headless Chromium opens the page with an
empty cache, and every other page once, to weigh its scripts and style sheets.
"""

import argparse
import http.client
import json
import random
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode, urlsplit

import numpy as np
import psutil
from playwright.sync_api import Browser, Page, sync_playwright

from benchmarks import _growth, _mlflow, _site
from tests.browser import chromium

NUM_TASKS = 10
AIM_MS, AIM_RATIO, AIM_KB, AIM_PAINT, AIM_DRAWN = 50.0, 10.0, 100, 1.0, 2.0
VISITS = 5
GROWTH = f"/runs/{_growth.RUN}"
PAGES = (
    GROWTH,
    "/",
    "/runs",
    *(f"{GROWTH}/{name}" for name in ("training", "checkpoints", "tasks", "timelapse", "forecast")),
    f"{GROWTH}/checkpoints/500000",
    f"{GROWTH}/tasks/{_growth.task_name(0)}",
    f"/compare?a={_growth.RUN}@100000&b={_growth.RUN}@900000",
    f"/embed/runs/{_growth.RUN}",
    "/chat",
    "/models",
    "/news",
)
NOTE_READY = """
new MutationObserver(() => {
  if (document.documentElement?.dataset.ready === "true") window.readyAt ??= performance.now();
}).observe(document, { attributes: true, subtree: true, attributeFilter: ["data-ready"] });
"""
ENCODINGS = "gzip, deflate, br, zstd"
"""What Chromium takes."""
READY_AT = "() => document.documentElement.dataset.ready === 'true' && window.readyAt"


class View(NamedTuple):
    """Ten tasks in one metric."""

    tasks: Sequence[str]
    metric: str


def views(number: int, num_tasks: int) -> list[View]:
    """As many different views, always the same ones."""
    chosen = random.Random(0)
    names = [_growth.task_name(task) for task in range(num_tasks)]
    return [View(chosen.sample(names, NUM_TASKS), _growth.METRICS[at % len(_growth.METRICS)]) for at in range(number)]


class Asker:
    """A browser's connection, kept open; answers may be compressed."""

    def __init__(self, address: str) -> None:
        self._connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=60)

    def get(self, path: str, **query: str) -> bytes:
        """The body as it was sent."""
        self._connection.request("GET", f"{path}?{urlencode(query)}", headers={"Accept-Encoding": ENCODINGS})
        answer = self._connection.getresponse()
        body = answer.read()
        assert answer.status == http.HTTPStatus.OK, body[:1000]
        return body

    def close(self) -> None:
        """End the connection."""
        self._connection.close()


def measure(asked: Sequence[View], ask: Callable[[View], Sequence[bytes]], server: int) -> dict[str, float]:
    """Milliseconds of each view, how long a processor of the server worked for it, and what was sent."""
    times, sizes, worked = [], [], _worked_ms(server)
    for view in asked:
        began = time.perf_counter()
        bodies = ask(view)
        times.append((time.perf_counter() - began) * 1000)
        sizes.append(sum(map(len, bodies)))
    return {
        "first_ms": round(times[0], 1),
        "median_ms": round(float(np.median(times)), 1),
        "p95_ms": round(float(np.percentile(times, 95)), 1),
        "processor_ms": round((_worked_ms(server) - worked) / len(asked), 1),
        "kb_sent": round(float(np.mean(sizes)) / 1000, 1),
    }


def _worked_ms(server: int) -> float:
    """Processor time of a process and its children: another load on the machine moves it less than the clock."""
    root = psutil.Process(server)
    return 1000 * sum(sum(process.cpu_times()[:2]) for process in (root, *root.children(recursive=True)))


def ask_ours(site: _site.Site, asked: Sequence[View]) -> dict[str, float]:
    """One request a view."""
    with closing(Asker(site.address)) as asker:
        path = f"/api/v1/runs/{_growth.RUN}/growth"

        def ask(view: View) -> list[bytes]:
            return [asker.get(path, tasks=",".join(view.tasks), metric=view.metric)]

        return measure(asked, ask, site.server.pid)


def ask_mlflow(server: _mlflow.Server, asked: Sequence[View], num_points: int) -> dict[str, float]:
    """One request a history."""
    path = "/api/2.0/mlflow/metrics/get-history"
    with closing(Asker(server.address)) as asker:

        def history(task: str, metric: str) -> bytes:
            return asker.get(path, run_id=server.run_id, metric_key=f"{task}/{metric}", max_results=str(num_points))

        assert len(json.loads(history(asked[0].tasks[0], asked[0].metric))["metrics"]) == num_points
        return measure(asked, lambda view: [history(task, view.metric) for task in view.tasks], server.pid)


def look(site: _site.Site) -> dict[str, Any]:
    """When the growth page is painted and drawn, with nothing cached, and how heavy each page is."""
    with (
        sync_playwright() as playwright,
        closing(playwright.chromium.launch(executable_path=chromium.PATH, args=chromium.ARGUMENTS)) as browser,
    ):
        visits = [_visit(browser, site.address) for _ in range(VISITS + 1)][1:]  # the first one starts Chromium too
        weights = {page: _weigh(browser, site.address, page) for page in PAGES}
    return {
        "first_contentful_paint_seconds": _spread([paint for paint, _ in visits]),
        "drawn_seconds": _spread([drawn for _, drawn in visits]),
        "own_kb": {page: round(size / 1000, 1) for page, size in weights.items() if size is not None},
    }


def _visit(browser: Browser, address: str) -> tuple[float, float]:
    with closing(browser.new_context(base_url=address, viewport={"width": 1280, "height": 860})) as context:
        page = context.new_page()
        page.add_init_script(NOTE_READY)
        page.goto(GROWTH)
        drawn = page.wait_for_function(READY_AT, timeout=30_000).json_value()
        paint = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
    return paint / 1000, drawn / 1000


def _weigh(browser: Browser, address: str, path: str) -> int | None:
    """Bytes of the page's own scripts and style sheets as they are sent; None for a page that is not there."""
    with closing(browser.new_context(base_url=address)) as context:
        page = context.new_page()
        sizes = _sizes(page)
        answer = page.goto(path)
        page.wait_for_timeout(500)
        assert answer is not None
        return sum(sizes.values()) if answer.ok else None


def _sizes(page: Page) -> dict[str, int]:
    """Filled while the page loads: bytes by address."""
    session, own, sizes = page.context.new_cdp_session(page), {}, {}
    session.send("Network.enable")

    def note(event: dict[str, Any]) -> None:
        address = event["response"]["url"]
        if event["type"] in ("Script", "Stylesheet") and "/static/vendor/" not in address:
            own[event["requestId"]] = address

    def add(event: dict[str, Any]) -> None:
        if event["requestId"] in own:
            sizes[own[event["requestId"]]] = int(event["encodedDataLength"])

    session.on("Network.responseReceived", note)
    session.on("Network.loadingFinished", add)
    return sizes


def _spread(seconds: Sequence[float]) -> dict[str, float]:
    return {"median": round(float(np.median(seconds)), 2), "max": round(max(seconds), 2)}


def run(folder: Path, size: _growth.Size, requests: int, with_mlflow: bool) -> dict[str, Any]:
    """Make the run, measure ours, measure theirs."""
    asked = views(requests, size.tasks)
    _site.use(folder / "home")
    began = time.perf_counter()
    _growth.fill(size)
    figures: dict[str, Any] = {"making_seconds": round(time.perf_counter() - began)}
    with _site.serving() as site:
        figures["ours"] = ask_ours(site, asked)
        figures["page"] = look(site)
    if with_mlflow:
        with _mlflow.serving(folder / "mlflow", size) as server:
            figures["mlflow"] = ask_mlflow(server, asked, size.checkpoints) | {"version": _mlflow.VERSION}
        both = figures["mlflow"], figures["ours"]
        named = ("median_ms", "p95_ms", "processor_ms")
        figures["ratio"] = {name: round(both[0][name] / both[1][name], 1) for name in named}
    return figures


def main() -> None:
    """Parse the command line, measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, help="JSON file for the figures")
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--checkpoints", type=int, default=1000)
    parser.add_argument("--tasks", type=int, default=60)
    parser.add_argument("--without-mlflow", action="store_true", help="it is installed otherwise, about 1 GB")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="grow-growth-") as folder:
        size = _growth.Size(args.checkpoints, args.tasks)
        figures = run(Path(folder), size, args.requests, not args.without_mlflow)
    text = json.dumps(figures, indent=2)
    print(text)  # noqa: T201
    for line in _aims(figures):
        print(line)  # noqa: T201
    if args.output:
        args.output.write_text(text + "\n", encoding="utf-8")


def _aims(figures: dict[str, Any]) -> list[str]:
    page, ratio = figures["page"], figures.get("ratio", {}).get("median_ms", "not measured")
    return [
        f"ten tasks: p95 {figures['ours']['p95_ms']} ms (aim: {AIM_MS:.0f})",
        f"against MLflow: {ratio} times (aim: {AIM_RATIO:.0f})",
        f"heaviest page: {max(page['own_kb'].values())} kB (aim: {AIM_KB})",
        f"first contentful paint: {page['first_contentful_paint_seconds']['max']} s (aim: {AIM_PAINT:.0f})",
        f"drawn: {page['drawn_seconds']['max']} s (aim: {AIM_DRAWN:.0f})",
    ]


if __name__ == "__main__":
    main()
