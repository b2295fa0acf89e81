"""Measured memory: the highest figure of an architecture stays."""

from typing import Any

from sqlalchemy.orm import Session

from registry import peaks
from registry.models import MemoryPeak
from tests.factories import make_checkpoint, make_run


def seen(num_bytes: int, **fields: Any) -> MemoryPeak:
    facts = {"architecture": "a" * 16, "engine": "vllm 0.32.0", "dtype": "bfloat16", "device": "cpu", **fields}
    return MemoryPeak(num_bytes=num_bytes, kv_tokens=num_bytes, step_tokens=2_048, **facts)


def test_a_higher_figure_replaces_a_lower_one_and_never_the_other_way(session: Session) -> None:
    checkpoint = make_checkpoint(session, make_run(session))
    for num_bytes in (10, 30, 20):
        peaks.note(session, seen(num_bytes, checkpoint_id=checkpoint.id))
        session.flush()
    [kept] = peaks.of_architecture(session, "a" * 16)
    assert (kept.num_bytes, kept.kv_tokens, kept.checkpoint_id) == (30, 30, checkpoint.id)


def test_engines_and_number_formats_have_figures_of_their_own(session: Session) -> None:
    for fields in ({}, {"engine": "transformers 5.19.0"}, {"dtype": "float32"}, {"architecture": "b" * 16}):
        peaks.note(session, seen(10, **fields))
    session.flush()
    assert len(peaks.of_architecture(session, "a" * 16)) == 3


def test_a_folder_leads_to_its_checkpoint(session: Session) -> None:
    checkpoint = make_checkpoint(session, make_run(session), 5)
    assert peaks.checkpoint_in(session, checkpoint.folder) is checkpoint
    assert peaks.checkpoint_in(session, "elsewhere") is None
