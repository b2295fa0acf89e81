"""The most memory that was held: of this process, of a group, and what the transformers engine says of itself."""

import os
import subprocess
import sys

from tests.worker.conftest import MakeCheckpoint
from worker.engine.pair import EnginePair
from worker.engine.peak import group_peak, resident_peak
from worker.engine.protocol import Sampling
from worker.engine.scripted import ScriptedEngine
from worker.engine.transformers import TransformersEngine


def test_a_process_that_held_more_has_a_higher_peak_and_one_that_is_gone_has_none() -> None:
    hold = "import sys; held = b'x' * 60_000_000; del held; print(flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        assert resident_peak(child.pid) > 60_000_000
        assert group_peak(os.getpgid(child.pid)) >= resident_peak(child.pid)
        child.communicate()
    assert resident_peak(child.pid) == 0


def test_the_engine_tells_what_it_held_and_for_how_many_tokens(make_checkpoint: MakeCheckpoint) -> None:
    engine = TransformersEngine(threads=1)
    assert engine.peaks() == []
    folder = make_checkpoint("peak", seed=3)
    engine.use(folder)
    list(engine.stream([0, 5, 6], Sampling(max_tokens=4)))
    [peak] = EnginePair(engine, ScriptedEngine(), notes=None).peaks()
    assert (peak.engine, peak.folder, peak.kv_tokens) == ("transformers", folder, 7)
    assert peak.num_bytes == resident_peak(os.getpid())
    engine.close()
