"""vLLM, as anybody starts it, with `HF_ENDPOINT` set to the site: it takes a step of a run from there."""

import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from registry import checkpoints, db, runs
from tests.conftest import ROOT, free_port
from tests.flows.conftest import end, wait_for
from tests.server.live import serve
from tests.worker.conftest import MakeCheckpoint, Publish

pytestmark = pytest.mark.engine


def test_vllm_serves_a_step_of_a_run_from_the_site(
    make_checkpoint: MakeCheckpoint, publish: Publish, tmp_path: Path
) -> None:
    publish(make_checkpoint("tied-a", seed=1), step=5)
    publish(make_checkpoint("tied-b", seed=2), step=6)
    port, log = free_port(), tmp_path / "vllm.log"
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", "demo", "--revision", "step-5"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--enforce-eager", "--max-model-len", "64"]
    offline = ("HF_", "TRANSFORMERS_", "GROW_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(offline)}
    settings = {"VLLM_CPU_KVCACHE_SPACE": "1", "OMP_NUM_THREADS": "1", "VLLM_NO_USAGE_STATS": "1"}
    with serve() as site, log.open("wb") as written:
        environment = {**kept, **settings, "HF_ENDPOINT": site, "HF_HOME": str(tmp_path / "cache")}
        child = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=written, stderr=written, start_new_session=True
        )
        try:
            wait_for(lambda: child.poll() is not None or _is_up(port), 300, lambda: log.read_text()[-4000:])
            assert child.poll() is None, log.read_text()[-4000:]
            sent = {"model": "demo", "prompt": "To be", "max_tokens": 3, "temperature": 0, "ignore_eos": True}
            answer = httpx.post(f"http://127.0.0.1:{port}/v1/completions", json=sent, timeout=60).json()
            assert answer["usage"]["completion_tokens"] == 3, answer
        finally:
            end(child)
    (snapshot,) = (tmp_path / "cache" / "hub" / "models--demo" / "snapshots").iterdir()
    with db.read_session() as session:
        wanted = checkpoints.get_checkpoint(session, runs.get_run(session, "demo"), 5)
    assert snapshot.name == wanted.digest[:40]
    assert (snapshot / "model.safetensors").exists()


def _is_up(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/health", timeout=2).status_code == 200
    except httpx.TransportError:
        return False
