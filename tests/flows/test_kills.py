"""`kill -9` of worker, engine and broker in the middle of an evaluation: work goes on, no answer is lost or doubled.

All checkpoints have the same weights, so what was disturbed must come to the numbers of what was not. PostgreSQL,
Valkey, worker and vLLM are real, and leases run out by themselves.
"""

import contextlib
import html
import os
import signal
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import psutil
import pytest

from grow.push import push_folder
from registry import checkpoints, db, evaluations, runs, samples
from registry.models import Evaluation, Ticket
from registry.models.base import FAILED, FINISHED
from tests.browser import tiny
from tests.flows.conftest import Site, start_site, wait_for

pytestmark = [
    pytest.mark.flow,
    pytest.mark.engine,
    pytest.mark.skipif(find_spec("vllm") is None, reason="an engine is a process of its own only with vLLM"),
]

RUN, TASK, METRIC = "kills", "code_mbpp_bpb_panel", "bits_per_byte"
UNDISTURBED = 1
"""The step whose evaluation nothing happens to."""
OFTEN = 0.005
"""Seconds between two looks at what is to be met in the middle."""
LONG = 240
"""Enough for a lease to run out and an engine to start on a machine that is busy with other things."""


class Part(NamedTuple):
    """A recorded slice: its row, and its file as it lies on the disk."""

    row: int
    start: int
    stop: int
    file: str
    modified_ns: int
    content: bytes


@pytest.fixture(scope="module")
def busy(postgres_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A site where each checkpoint has one evaluation, of many small slices, scored by vLLM."""
    settings = {"GROW_ENGINE": "vllm", "GROW_SCORING_ENGINE": "vllm", "GROW_SLICE_SECONDS": "0.01"}
    with start_site(postgres_url, tmp_path_factory.mktemp("kills"), [TASK], **settings) as site:
        yield site


def push(site: Site, step: int) -> int:
    """Publish a checkpoint as `grow push` does, once; returns the number of its evaluation."""
    folder = site.home / "made" / f"{step}"
    if not folder.exists():
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(tiny, "HIDDEN", 64)  # attention heads of a width that vLLM serves on processors
            tiny.write_folder(folder)

    def publish() -> int:
        push_folder(folder, run=RUN, step=step, tokens_seen=step * 4096, kind="pretrained")
        with db.read_session() as session:
            checkpoint = checkpoints.get_checkpoint(session, runs.get_run(session, RUN), step)
            [evaluation] = evaluations.for_checkpoint(session, checkpoint)
            return evaluation.id

    return site.use(publish)


def read(site: Site, evaluation_id: int) -> Evaluation:
    """The row as it is now, with its slices."""

    def get() -> Evaluation:
        with db.read_session() as session:
            return evaluations.get_evaluation(session, evaluation_id)

    return site.use(get)


def is_over(site: Site, evaluation_id: int) -> bool:
    """Whether it is finished, failed or cancelled."""
    return read(site, evaluation_id).finished_at is not None


def api(site: Site, path: str) -> Any:
    """One answer of the JSON interface."""
    return httpx.get(f"{site.address}/api/v1/{path}", timeout=20).raise_for_status().json()


def results(site: Site, evaluation_id: int) -> dict[str, float]:
    """Metrics as the site gives them to others."""
    return {one["metric"]: one["value"] for one in api(site, f"evaluations/{evaluation_id}")["results"]}


def curve(site: Site) -> dict[int, float]:
    """What is drawn, by step."""
    series = api(site, f"runs/{RUN}/series?task={TASK}&metric={METRIC}&x=step")
    return {point["step"]: point["value"] for point in series["points"]}


def samples_folder(site: Site, evaluation: Evaluation) -> Path:
    """Where the files of its slices are."""
    return site.home / "samples" / str(evaluation.checkpoint_id) / str(evaluation.id)


def recorded(site: Site, evaluation_id: int) -> list[Part]:
    """The slices that count."""
    parts = []
    for part in read(site, evaluation_id).slices:
        path = site.home / "samples" / part.file
        parts.append(Part(part.id, part.start, part.stop, part.file, path.stat().st_mtime_ns, path.read_bytes()))
    return parts


def unrecorded(site: Site, evaluation_id: int) -> set[str]:
    """Names of files of answers that no row knows."""
    evaluation = read(site, evaluation_id)
    written = {path.name for path in samples_folder(site, evaluation).glob("*.parquet")}
    return written - {Path(part.file).name for part in evaluation.slices}


def engine(site: Site) -> list[psutil.Process]:
    """The processes of the worker's vLLM: the one that listens, then the one that computes."""
    found = []
    for process in psutil.Process(site.children["worker"].pid).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            command = process.cmdline()
            if command[1:3] == ["-m", "vllm.entrypoints.openai.api_server"] or command[:1] == ["VLLM::EngineCore"]:
                found.append(process)
    return found


def kill_engine(site: Site) -> None:
    """All of it, until nothing of it can write to the log any more."""
    processes = engine(site)
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    _, alive = psutil.wait_procs(processes, timeout=60)
    assert not alive


def wait_until_in_the_middle(site: Site, evaluation_id: int) -> None:
    """Until some of its slices are recorded and others are not."""
    wait_for(
        lambda: read(site, evaluation_id).num_done, LONG, lambda: f"the first slice: {site.log('worker')}", every=OFTEN
    )
    assert not is_over(site, evaluation_id), "It was too quick to be met in the middle."


def wait_until_finished(site: Site, evaluation_id: int) -> None:
    """Until it is over, which must not be by a failure."""
    wait_for(lambda: is_over(site, evaluation_id), LONG, lambda: f"an evaluation: {site.log('worker')}")
    evaluation = read(site, evaluation_id)
    assert evaluation.status == FINISHED, (evaluation.error, site.log("worker"))


def freeze_before_a_record(site: Site, evaluation_id: int) -> set[str]:
    """Stop the worker after it has written a slice's file and before it has recorded it; returns the file's name."""
    group = site.children["worker"].pid
    while not is_over(site, evaluation_id):
        wait_for(lambda: unrecorded(site, evaluation_id), LONG, "a file before its row", every=OFTEN)
        os.killpg(group, signal.SIGSTOP)
        if found := unrecorded(site, evaluation_id):
            return found
        os.killpg(group, signal.SIGCONT)
    pytest.fail("It was over before it could be met between a file and its row.")


def check_nothing_is_lost(site: Site, evaluation_id: int, before: list[Part]) -> None:
    """What was recorded before the kill stands, every answer is there once, and no number is another."""
    assert before
    assert recorded(site, evaluation_id)[: len(before)] == before
    evaluation = read(site, evaluation_id)
    parts = evaluation.slices
    assert len(parts) > len(before)
    assert [part.start for part in parts] == [0, *(part.stop for part in parts[:-1])]
    assert parts[-1].stop == evaluation.num_done == evaluation.num_items

    paths = site.use(lambda: evaluations.sample_paths(evaluation))
    items = samples.read_items(site.use(lambda: evaluations.items_path(evaluation)))
    assert [sample.item for sample in samples.read(paths)] == [item.item for item in items]
    assert len({item.item for item in items}) == evaluation.num_items
    # They are removed a moment after the last record.
    folder = samples_folder(site, evaluation)
    wait_for(lambda: set(folder.iterdir()) == set(paths), 30, "the end of files that no row knows")

    assert evaluation.protocol["engine"] == "vllm"
    undisturbed = push(site, UNDISTURBED)
    wait_until_finished(site, undisturbed)
    assert results(site, evaluation_id) == pytest.approx(results(site, undisturbed), abs=1e-3)


def test_the_next_worker_goes_on_where_a_killed_one_stopped(busy: Site) -> None:
    evaluation_id = push(busy, 0)
    wait_until_in_the_middle(busy, evaluation_id)
    orphans = freeze_before_a_record(busy, evaluation_id)
    abandoned, worker = engine(busy), busy.children["worker"]
    os.killpg(worker.pid, signal.SIGKILL)
    worker.wait()
    before = recorded(busy, evaluation_id)
    assert unrecorded(busy, evaluation_id) == orphans
    wait_for(lambda: not any(process.is_running() for process in abandoned), 60, "the engine of the killed worker")

    push(busy, UNDISTURBED)  # something to do for the next worker until the lease of the dead one has run out
    busy.start_worker()
    wait_until_finished(busy, evaluation_id)
    check_nothing_is_lost(busy, evaluation_id, before)


def test_a_killed_engine_is_started_again_and_costs_one_slice(busy: Site) -> None:
    evaluation_id = push(busy, 2)
    wait_until_in_the_middle(busy, evaluation_id)
    killed = engine(busy)
    killed[-1].kill()
    before = recorded(busy, evaluation_id)
    assert not is_over(busy, evaluation_id)

    wait_until_finished(busy, evaluation_id)
    assert busy.children["worker"].poll() is None
    assert not set(engine(busy)) & set(killed)
    check_nothing_is_lost(busy, evaluation_id, before)


def test_without_the_broker_work_goes_on_and_pages_answer(busy: Site) -> None:
    address = busy.valkey.connection_url
    evaluation_id = push(busy, 3)
    wait_until_in_the_middle(busy, evaluation_id)
    busy.valkey.terminate()  # SIGKILL
    try:
        before = recorded(busy, evaluation_id)
        for page in ("/", f"/runs/{RUN}", f"/evaluations/{evaluation_id}"):
            assert httpx.get(f"{busy.address}{page}", timeout=20).status_code == 200, page
        assert httpx.get(f"{busy.address}/readyz", timeout=20).json()["parts"] == {"database": "ok", "broker": "down"}
        wait_for(
            lambda: read(busy, evaluation_id).num_done > before[-1].stop,
            LONG,
            lambda: f"progress: {busy.log('worker')}",
        )
    finally:
        busy.valkey.start()
    assert busy.valkey.connection_url == address

    wait_until_finished(busy, evaluation_id)
    check_nothing_is_lost(busy, evaluation_id, before)
    # The message that asks for the comparison may have been lost; the sweep sends it again.
    wait_for(lambda: read(busy, evaluation_id).is_compared, LONG, lambda: f"the comparison: {busy.log('worker')}")


def test_what_takes_every_engine_down_fails_with_the_last_lines_and_is_not_drawn(busy: Site) -> None:
    wait_until_finished(busy, push(busy, UNDISTURBED))
    log = busy.home / "logs" / "engine.log"
    kill_engine(busy)
    evaluation_id = push(busy, 4)
    busy.use(lambda: count_deaths(evaluation_id, 3))
    said = log.stat().st_size

    def is_over_now() -> bool:
        nonlocal said
        if log.stat().st_size > said:  # the next one has come so far that it leaves lines behind
            kill_engine(busy)
            said = log.stat().st_size
        return is_over(busy, evaluation_id)

    wait_for(is_over_now, LONG, lambda: f"the failure: {busy.log('worker')}")
    failed = api(busy, f"evaluations/{evaluation_id}")
    assert (failed["status"], failed["results"]) == (FAILED, [])
    assert "The engine went down 5 times at this" in failed["error"]
    last_line = failed["log"].splitlines()[-1]
    assert last_line.strip()
    assert last_line in log.read_text(errors="replace")
    page = httpx.get(f"{busy.address}/evaluations/{evaluation_id}", timeout=20).text
    assert last_line in html.unescape(page)
    drawn = curve(busy)
    assert UNDISTURBED in drawn
    assert 4 not in drawn
    assert 0 not in drawn.values()


def count_deaths(evaluation_id: int, number: int) -> None:
    """As if engines had gone down at it before: each death takes an engine's start, and five are the limit."""
    with db.transaction() as session:
        session.query(Ticket).filter_by(evaluation_id=evaluation_id).update({"attempts": number})
