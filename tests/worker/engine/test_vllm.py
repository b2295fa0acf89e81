"""The real vLLM engine on tiny checkpoints: one child for the whole module, restarted only where a test says so."""

import contextlib
import os
import shutil
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file, save_file

from registry.settings import Settings
from worker.engine.protocol import EngineDown, EngineError, Sampling, Score, ScoreRequest
from worker.engine.tokenizer import load_tokenizer
from worker.engine.transformers import TransformersEngine
from worker.engine.vllm import VllmEngine, _check_same

pytestmark = pytest.mark.engine

TOLERANCE = 1e-3
BF16_NOISE = 0.25
"""Largest difference between two bf16 implementations of these random weights, whose log-probabilities reach -15."""

CONTRACT_NATS = 0.02
CONTRACT_CHOICES = 0.99
"""What the two engines owe each other on models that have learnt something."""


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VllmEngine]:
    engine = VllmEngine(Settings(home=tmp_path_factory.mktemp("home"), engine_threads=1))
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def folders(make_checkpoint) -> dict[str, Path]:
    return {
        "A": make_checkpoint("tied-a", seed=1),
        "B": make_checkpoint("tied-b", seed=2),
        "untied A": make_checkpoint("untied-a", seed=1, tied=False),
        "untied B": make_checkpoint("untied-b", seed=2, tied=False),
    }


@pytest.fixture(scope="module")
def known() -> dict[str, list[Score]]:
    """Scores of engines that were started freshly with a checkpoint, as the tests come by them."""
    return {}


def largest_difference(left: Sequence[Score], right: Sequence[Score]) -> float:
    pairs = zip(left, right, strict=True)
    return max(
        abs(a - b) for one, other in pairs for a, b in zip(one.token_logprobs, other.token_logprobs, strict=True)
    )


def mean_difference(left: Sequence[Score], right: Sequence[Score]) -> float:
    """Over all tokens, in nats."""
    pairs = list(zip(left, right, strict=True))
    differences = [
        abs(a - b) for one, other in pairs for a, b in zip(one.token_logprobs, other.token_logprobs, strict=True)
    ]
    return sum(differences) / len(differences)


def by_item(scores: Sequence[Score]) -> list[Sequence[Score]]:
    """Four choices an item."""
    return [scores[start : start + 4] for start in range(0, len(scores), 4)]


def best(scores: Sequence[Score]) -> int:
    """The likeliest choice."""
    return max(range(len(scores)), key=lambda choice: sum(scores[choice].token_logprobs))


def members(group: int) -> list[str]:
    """Living processes of a group; one that waits to be reaped is dead."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, ProcessLookupError):
            if os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.name())
    return found


def test_the_first_use_starts_a_child_whose_scores_agree_with_transformers(engine, folders, known, score_requests):
    engine.use(folders["A"])
    known["A"] = engine.score(score_requests)

    peer = TransformersEngine(dtype="bfloat16")
    peer.use(folders["A"])
    expected = peer.score(score_requests)
    assert largest_difference(known["A"], expected) < BF16_NOISE
    assert [len(score.token_logprobs) for score in known["A"]] == [len(r.continuation) for r in score_requests]


def test_tied_weights_swap_in_place_there_and_back(engine, folders, known, score_requests):
    starts = engine.num_starts
    engine.use(folders["B"])
    known["B swapped"] = engine.score(score_requests)
    engine.use(folders["A"])
    back = engine.score(score_requests)

    assert engine.num_starts == starts
    assert largest_difference(back, known["A"]) < TOLERANCE
    assert largest_difference(known["B swapped"], known["A"]) > 1.0


def test_streaming_gives_the_text_that_generate_gives(engine, folders):
    engine.use(folders["A"])
    prompt = load_tokenizer(folders["A"]).encode("To be, or not to be 中华")
    sampling = Sampling(max_tokens=24)
    [whole] = engine.generate([prompt], sampling)
    deltas = list(engine.stream(prompt, sampling))

    assert "".join(delta.text for delta in deltas) == whole.text
    assert deltas[-1].finish_reason == whole.finish_reason
    assert deltas[-1].completion_tokens == whole.completion_tokens == 24
    assert deltas[-1].prompt_tokens == whole.prompt_tokens == len(prompt)


def test_generate_answers_in_the_order_of_the_prompts(engine, folders):
    prompts = [[0, 5, 6, 7], [0, 9] * 60, [0, 40]]
    together = engine.generate(prompts, Sampling(max_tokens=100))
    apart = [engine.generate([prompt], Sampling(max_tokens=100))[0] for prompt in prompts]

    assert [answer.prompt_tokens for answer in together] == [4, 64, 2]
    assert [answer.completion_tokens for answer in together] == [answer.completion_tokens for answer in apart]


def test_it_tells_what_its_processes_held_and_for_how_many_tokens(engine, folders):
    engine.use(folders["A"])
    [peak] = engine.peaks()
    assert (peak.engine, peak.device, peak.folder) == ("vllm", "cpu", folders["A"])
    assert peak.num_bytes > 500_000_000
    assert peak.kv_tokens >= 128
    assert peak.step_tokens == 2_048


def test_closing_a_stream_frees_the_engine(engine, folders):
    stream = engine.stream([0, 5], Sampling(max_tokens=120, temperature=1.0, seed=1))
    next(stream)
    stream.close()

    deadline = time.monotonic() + 30
    while engine.num_running() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert engine.num_running() == 0


def test_a_long_context_keeps_its_end_and_fills_the_model_to_the_last_token(engine, folders):
    engine.use(folders["A"])
    context = [3 + index % 300 for index in range(400)]
    [cut] = engine.score([ScoreRequest(context, [7, 8])])
    [exact] = engine.score([ScoreRequest(context[-127:], [7, 8])])
    assert cut.token_logprobs == pytest.approx(exact.token_logprobs, abs=TOLERANCE)

    peer = TransformersEngine(dtype="bfloat16")
    peer.use(folders["A"])
    assert largest_difference([cut], peer.score([ScoreRequest(context, [7, 8])])) < BF16_NOISE

    with pytest.raises(EngineError, match="does not fit"):
        engine.score([ScoreRequest([3], [5] * 129)])


def test_weights_that_are_no_numbers_are_refused_and_the_child_goes_on(engine, folders, tmp_path):
    broken = shutil.copytree(folders["A"], tmp_path / "nan")
    tensors = load_file(broken / "model.safetensors")
    tensors["model.norm.weight"] = torch.full_like(tensors["model.norm.weight"], float("nan"))
    save_file(tensors, broken / "model.safetensors", metadata={"format": "pt"})
    starts = engine.num_starts
    with pytest.raises(EngineError, match="holds NaN: norm"):
        engine.use(broken)
    engine.use(folders["A"])
    assert engine.num_starts == starts


def test_numbers_that_overflow_are_an_error_and_no_dead_engine(engine, folders, tmp_path):
    huge = shutil.copytree(folders["A"], tmp_path / "huge")
    tensors = load_file(huge / "model.safetensors")
    tensors["model.norm.weight"] = torch.full_like(tensors["model.norm.weight"], 3e38)
    save_file(tensors, huge / "model.safetensors", metadata={"format": "pt"})
    engine.use(huge)
    starts = engine.num_starts
    with pytest.raises(EngineError, match="no finite numbers"):
        engine.score([ScoreRequest([3, 4], [5, 6])])
    engine.use(folders["A"])
    assert engine.num_starts == starts


def test_weights_that_are_not_those_of_the_files_are_noticed(engine, folders):
    engine.use(folders["A"])
    with pytest.raises(EngineError, match="other weights than the files hold"):
        _check_same(engine._call("check_checkpoint", str(folders["B"])), folders["B"])


def test_a_killed_child_is_reported_and_the_next_use_starts_another(engine, folders, known, score_requests):
    engine.use(folders["A"])
    os.killpg(engine.pid, signal.SIGKILL)
    with pytest.raises(EngineDown):
        engine.score(score_requests)

    engine.use(folders["B"])
    fresh = engine.score(score_requests)
    assert largest_difference(fresh, known["B swapped"]) < TOLERANCE


def test_untied_weights_need_another_child_and_then_swap_in_place(engine, folders, score_requests):
    starts = engine.num_starts
    engine.use(folders["untied A"])
    assert engine.num_starts == starts + 1

    fresh = engine.score(score_requests)
    engine.use(folders["untied B"])
    swapped = engine.score(score_requests)
    engine.use(folders["untied A"])
    assert engine.num_starts == starts + 1
    assert largest_difference(engine.score(score_requests), fresh) < TOLERANCE

    peer = TransformersEngine(dtype="bfloat16")
    peer.use(folders["untied B"])
    assert largest_difference(swapped, peer.score(score_requests)) < BF16_NOISE


def test_on_a_trained_model_it_agrees_with_transformers_and_picks_the_same_choices(engine, trained_checkpoint):
    engine.use(trained_checkpoint.folder)
    peer = TransformersEngine(dtype="bfloat16")
    peer.use(trained_checkpoint.folder)
    items = trained_checkpoint.draw_items(150)
    requests = [request for item in items for request in item]

    ours, theirs = engine.score(requests), peer.score(requests)
    assert engine.reads_prefix_cache, "some contexts are long enough for it"
    assert mean_difference(ours, theirs) <= CONTRACT_NATS
    same = [best(one) == best(other) for one, other in zip(by_item(ours), by_item(theirs), strict=True)]
    assert sum(same) >= CONTRACT_CHOICES * len(items)
    assert sum(best(scores) == 0 for scores in by_item(ours)) > len(items) / 3, "it has learnt something"


def test_close_leaves_no_process(engine):
    group = engine.pid
    assert members(group)
    engine.close()
    deadline = time.monotonic() + 30
    while members(group) and time.monotonic() < deadline:  # killed, and not yet collected by the system
        time.sleep(0.05)
    assert members(group) == []
