"""The 4-bit program of the model page, run on a checkpoint that was really quantized."""

import os
import subprocess
import sys
from pathlib import Path

from server.snippets import Repo, gptqmodel_text


def test_the_program_for_gptqmodel_loads_what_the_site_quantizes_and_writes(four_bit: Path, tmp_path: Path) -> None:
    repo = Repo("https://grow.example", "demo", "step-8", is_chat=False, label="demo@8", four_bit="step-8-4bit")
    text = gptqmodel_text(repo)
    download = 'snapshot_download("demo", revision="step-8-4bit")'
    assert download in text
    program = text.replace(download, repr(str(four_bit)))  # how the client fetches is tests/server/test_snippets.py's
    environment = {**os.environ, "GPTQMODEL_CPU_WORKERS": "2", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-"], input=program, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=500
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Once upon a time" in done.stdout
