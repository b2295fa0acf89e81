"""Tiny checkpoints with random weights, as the trainer would have published them."""

import argparse
import inspect
import json
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Protocol

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from registry import checkpoints, db, runs, store
from registry.settings import get_settings
from tests.conftest import ROOT
from tests.worker.own_suite import own_suite
from worker.engine.protocol import ScoreRequest

__all__ = ["own_suite"]

SPECIAL_TOKENS = ["<|begin|>", "<|end|>", "<|pad|>"]
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)
VOCAB_SIZE = 320
CONTEXT_LENGTH = 128


class MakeCheckpoint(Protocol):
    """Writes one checkpoint folder and gives its path."""

    def __call__(self, name: str, *, seed: int = 0, tied: bool = True, layers: int = 2, chat: bool = False) -> Path: ...


@pytest.fixture(scope="session")
def make_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> MakeCheckpoint:
    root = tmp_path_factory.mktemp("checkpoints")
    tokenizer = _train_tokenizer()

    def make(name: str, *, seed: int = 0, tied: bool = True, layers: int = 2, chat: bool = False) -> Path:
        folder = root / name
        if not folder.exists():
            _build_model(seed, tied, layers).save_pretrained(folder)
            tokenizer.chat_template = CHAT_TEMPLATE if chat else None
            tokenizer.save_pretrained(folder)
        return folder

    return make


class Publish(Protocol):
    """Seals a copy of a folder as a step of the run `demo`, registers it and gives its id."""

    def __call__(self, folder: Path, *, step: int = 0, kind: str = "pretrained", ready: bool = True) -> int: ...


@pytest.fixture
def publish(database: Path) -> Publish:
    def publish(folder: Path, *, step: int = 0, kind: str = "pretrained", ready: bool = True) -> int:
        settings = get_settings()
        copy = settings.home / "incoming" / f"{folder.name}-{step}"
        shutil.copytree(folder, copy)
        place = f"demo/step-{step}-{kind}"
        facts = {"tokens_seen": step * 4096}
        manifest = store.seal(copy, settings.checkpoints_dir / place, facts)
        with db.transaction() as session:
            run = runs.create_run(session, name="demo", config={})
            checkpoint = checkpoints.register(session, run, step=step, folder=place, manifest=manifest, kind=kind)
            if ready:
                checkpoints.mark_ready(session, checkpoint, 1)
            return checkpoint.id

    return publish


@pytest.fixture(scope="session")
def score_requests() -> list[ScoreRequest]:
    """Contexts and continuations of many lengths."""
    draw = random.Random(7)
    return [
        ScoreRequest(
            context=[draw.randrange(3, VOCAB_SIZE) for _ in range(draw.randrange(1, 40))],
            continuation=[draw.randrange(3, VOCAB_SIZE) for _ in range(draw.randrange(1, 12))],
        )
        for _ in range(24)
    ]


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class TrainedCheckpoint(NamedTuple):
    """A folder, and the text that the model has not seen."""

    folder: Path
    held_out: list[int]

    def draw_items(self, number: int) -> list[list[ScoreRequest]]:
        """Which of four continuations follows? The first one does. Every other item asks for a single token."""
        draw = random.Random(3)
        items = []
        for at in range(number):
            length = draw.randrange(20, 200)
            size = 1 if at % 2 else draw.randrange(6, 20)
            start = draw.randrange(len(self.held_out) - length - size)
            context = [0, *self.held_out[start : start + length]]
            places = [start + length, *(draw.randrange(len(self.held_out) - size) for _ in range(3))]
            items.append([ScoreRequest(context, self.held_out[place : place + size]) for place in places])
        return items


@pytest.fixture(scope="session")
def trained_checkpoint(make_checkpoint: MakeCheckpoint, tmp_path_factory: pytest.TempPathFactory) -> TrainedCheckpoint:
    """A tiny LLaMA after some seconds on the source of a module: its answers are neither flat nor random."""
    folder = tmp_path_factory.mktemp("trained") / "step-120"
    shutil.copytree(make_checkpoint("tied-a", seed=1), folder)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    token_ids = tokenizer.encode(inspect.getsource(argparse), add_special_tokens=False)
    cut = len(token_ids) * 3 // 4
    model = _build_model(1, tied=True, layers=2, spread=0.02, context_length=512).float()
    _fit(model, torch.tensor(token_ids[:cut]), steps=120)
    model.to(torch.bfloat16).save_pretrained(folder)
    return TrainedCheckpoint(folder, token_ids[cut:])


@pytest.fixture(scope="session")
def four_bit(trained_checkpoint: TrainedCheckpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The trained checkpoint as GPTQModel makes it, in the process that the worker starts for it."""
    root = tmp_path_factory.mktemp("four")
    request = {"source": str(trained_checkpoint.folder), "target": str(root / "made"), "events": str(root / "events")}
    request |= {"bits": 4, "group_size": 64, "shares": {"stdlib": 1.0}, "threads": 1, "device": "cpu"}
    request |= {"scoring_dtype": "auto", "max_loss": 0.5}
    (root / "request.json").write_text(json.dumps(request))
    command = [sys.executable, "-m", "worker.quantizing", str(root / "request.json")]
    subprocess.run(command, check=True, capture_output=True, cwd=ROOT)
    return root / "made"


def _fit(model: LlamaForCausalLM, token_ids: torch.Tensor, steps: int) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        starts = torch.randint(len(token_ids) - 96, (8,), generator=generator)
        batch = torch.stack([token_ids[start : start + 96] for start in starts])
        optimizer.zero_grad()
        model(input_ids=batch, labels=batch).loss.backward()
        optimizer.step()


def _build_model(
    seed: int, tied: bool, layers: int, *, spread: float = 0.2, context_length: int = CONTEXT_LENGTH
) -> LlamaForCausalLM:
    """By default the weights are far from uniform, so that a stale layer shows."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCAB_SIZE,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=layers,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=context_length,
        tie_word_embeddings=tied,
        initializer_range=spread,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=2,
    )
    return LlamaForCausalLM(config).to(torch.bfloat16)


def _train_tokenizer() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    text = "To be, or not to be, that is the question: whether the people rule, or the law rules the people. "
    tokenizer.train_from_iterator([text] * 4 + ["中华人民共和国的一切权力属于人民。"] * 4, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|begin|>",
        eos_token="<|end|>",
        pad_token="<|pad|>",
    )
