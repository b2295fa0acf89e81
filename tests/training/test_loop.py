"""The training loop in this process, under each ZeRO stage."""

import dataclasses
import json
import math
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from training import distributed, state
from training.config import Config
from training.corpus import PackedCorpus
from training.loop import Facts, NotFinite, Trainer, deepspeed_config, rotary_frequencies


class Notes:
    """An observer that remembers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.losses: dict[int, float] = {}
        self.values: dict[str, float] = {}
        self.checkpoints: list[Facts] = []
        self.starts: list[int] = []
        self.read: dict[int, dict[str, float]] = {}

    def on_start(self, after: int) -> None:
        self.starts.append(after)

    def on_metrics(self, step: int, tokens_seen: int, values: Mapping[str, float]) -> None:
        self.values.update(values)
        if "train/loss" in values:
            self.losses[step] = values["train/loss"]
            self.read[step] = {key: value for key, value in values.items() if key.startswith("data/")}

    def on_checkpoint(self, folder: Path, facts: Facts) -> None:
        folder.rename(self.folder / f"step-{facts.step}")
        self.checkpoints.append(facts)


@pytest.fixture
def notes(tmp_path: Path) -> Notes:
    return Notes(tmp_path)


@pytest.fixture(autouse=True)
def process_group() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    distributed.join()
    yield
    torch.set_num_threads(threads)


def with_stage(config: Config, stage: int, max_steps: int = 6) -> Config:
    parallel = dataclasses.replace(config.parallel, zero_stage=stage)
    return dataclasses.replace(config, parallel=parallel, max_steps=max_steps)


def never() -> bool:
    return False


REFERENCE: dict[int, dict[int, float]] = {}


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_every_zero_stage_trains_the_same_model(
    stage: int, debug: Config, corpus: PackedCorpus, notes: Notes, tmp_path: Path
) -> None:
    config = with_stage(debug, stage)
    trainer = Trainer(config, corpus, tmp_path / "run", notes)
    assert trainer.run(never)
    assert [facts.step for facts in notes.checkpoints] == [0, 2, 4, 6]
    assert notes.checkpoints[-1].tokens_seen == 6 * 4 * 64
    assert state.complete_steps(tmp_path / "run" / "state") == [0, 2, 4, 6]
    assert {"heldout/loss_zh", "heldout/loss_en", "heldout/loss_code"} < notes.values.keys()
    assert notes.values["train/grad_norm"] > 0
    assert notes.starts == [-1]
    tokens = {step: sum(counts.values()) for step, counts in notes.read.items()}
    assert set(tokens.values()) == {config.tokens_per_step * config.log_every}, "every token is of some language"
    assert set(notes.read[6]) == {"data/tokens_zh", "data/tokens_en", "data/tokens_code"}

    # Whoever loads the folder has the model that was trained: the held-out loss is the same.
    folder = tmp_path / "step-6"
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    windows = torch.from_numpy(corpus.held_out_windows("en", config.evaluation_sequences))
    with torch.no_grad():
        loss = model(input_ids=windows, labels=windows).loss.item()
    assert loss == pytest.approx(notes.values["heldout/loss_en"], abs=2e-3)
    assert len(AutoTokenizer.from_pretrained(folder)) == config.model.vocab_size
    assert json.loads((folder / "config.json").read_text())["dtype"] == "bfloat16"

    REFERENCE[stage] = notes.losses
    for losses in REFERENCE.values():
        assert notes.losses == pytest.approx(losses, abs=2e-3)


def test_the_angles_of_positions_stay_exact(debug: Config, corpus: PackedCorpus, notes: Notes, tmp_path: Path) -> None:
    trainer = Trainer(with_stage(debug, 3), corpus, tmp_path / "run", notes)
    rotary = trainer.engine.module.model.rotary_emb
    assert torch.equal(rotary.inv_freq, rotary_frequencies(debug))
    plain = AutoModelForCausalLM.from_config(trainer.engine.module.config)
    assert torch.equal(plain.model.rotary_emb.inv_freq, rotary_frequencies(debug))


def test_a_stopped_run_goes_on_as_if_nothing_had_happened(
    debug: Config, corpus: PackedCorpus, notes: Notes, tmp_path: Path
) -> None:
    # log_every 4 and a stop after step 3: half a log window has to survive.
    config = dataclasses.replace(with_stage(debug, 1, max_steps=8), log_every=4)
    assert Trainer(config, corpus, tmp_path / "whole", notes).run(never)
    whole = dict(notes.losses)

    again = Notes(tmp_path / "again")
    again.folder.mkdir()
    asked = iter([False, False, True])
    assert not Trainer(config, corpus, tmp_path / "cut", again).run(lambda: next(asked))
    assert state.complete_steps(tmp_path / "cut" / "state") == [0, 2, 3]
    assert [facts.step for facts in again.checkpoints] == [0, 2], "a bookmark off the grid is not published"
    (again.folder / "step-2").rename(tmp_path / "kept")
    assert Trainer(config, corpus, tmp_path / "cut", again).run(never)
    assert again.losses == whole
    assert state.complete_steps(tmp_path / "cut" / "state") == [0, 2, 4, 8], (
        "the bookmark goes when a newer one is whole"
    )


def test_a_state_without_its_checkpoint_is_published_on_resume(
    debug: Config, corpus: PackedCorpus, notes: Notes, tmp_path: Path
) -> None:
    config = with_stage(debug, 1, max_steps=2)
    assert Trainer(config, corpus, tmp_path / "run", notes).run(never)
    first = (tmp_path / "step-2" / "model.safetensors").read_bytes()
    (tmp_path / "step-2").rename(tmp_path / "lost")
    assert Trainer(config, corpus, tmp_path / "run", notes).run(never)
    assert (tmp_path / "step-2" / "model.safetensors").read_bytes() == first


def test_only_the_newest_states_stay_when_asked(
    debug: Config, corpus: PackedCorpus, notes: Notes, tmp_path: Path
) -> None:
    config = with_stage(debug, 1)
    config = dataclasses.replace(config, checkpoints=dataclasses.replace(config.checkpoints, keep_states=2))
    assert Trainer(config, corpus, tmp_path / "run", notes).run(never)
    assert state.complete_steps(tmp_path / "run" / "state") == [4, 6]


def test_a_loss_that_is_no_number_stops_the_run_with_its_state_kept(
    debug: Config, corpus: PackedCorpus, notes: Notes, tmp_path: Path
) -> None:
    config = with_stage(debug, 1)
    trainer = Trainer(config, corpus, tmp_path / "run", notes)
    with torch.no_grad():
        trainer.engine.module.model.norm.weight.fill_(math.nan)
    with pytest.raises(NotFinite, match="loss of step 1 is nan"):
        trainer.run(never)
    assert state.complete_steps(tmp_path / "run" / "state") == [0]


def test_another_zero_stage_cannot_go_on_with_a_state(
    debug: Config, corpus: PackedCorpus, notes: Notes, tmp_path: Path
) -> None:
    assert Trainer(with_stage(debug, 1, max_steps=2), corpus, tmp_path / "run", notes).run(never)
    with pytest.raises(ValueError, match="zero_stage 1, now it is 2"):
        Trainer(with_stage(debug, 2, max_steps=4), corpus, tmp_path / "run", notes).run(never)


def test_the_precision_is_the_machines_and_stays_what_it_was(
    debug: Config, corpus: PackedCorpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(dtype: str, max_steps: int) -> Trainer:
        return Trainer(with_stage(debug, 1, max_steps), corpus, tmp_path / dtype / "run", Notes(tmp_path / dtype))

    began = {}
    for dtype, has_bf16 in (("bfloat16", True), ("float32", False)):
        monkeypatch.setattr(distributed, "multiplies_bf16", lambda has_bf16=has_bf16: has_bf16)
        trainer = start(dtype, max_steps=2)
        assert trainer.dtype == dtype
        assert trainer.run(never)
        began[dtype] = next(trainer.engine.module.parameters()).dtype
    assert began == {"bfloat16": torch.bfloat16, "float32": torch.float32}

    # Each goes on as it began, though the machine is another one by now.
    for dtype, has_bf16 in (("bfloat16", False), ("float32", True)):
        monkeypatch.setattr(distributed, "multiplies_bf16", lambda has_bf16=has_bf16: has_bf16)
        shutil.rmtree(tmp_path / dtype / "step-2")  # published again on resume
        trainer = start(dtype, max_steps=4)
        assert trainer.run(never)
        assert (trainer.step, trainer.dtype) == (4, dtype)


def test_a_batch_that_cannot_be_shared_out_is_refused(debug: Config) -> None:
    parallel = dataclasses.replace(debug.parallel, micro_batch_size=3)
    with pytest.raises(ValueError, match="cannot be shared"):
        deepspeed_config(dataclasses.replace(debug, parallel=parallel))
