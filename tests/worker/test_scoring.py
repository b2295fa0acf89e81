"""Our engines behind lm-eval give the numbers that lm-eval's own Hugging Face backend gives."""

import json
import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from lm_eval import evaluator
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from tokenizers import Tokenizer, processors

from worker import scoring
from worker.engine.protocol import Score, ScoreRequest
from worker.engine.scripted import ScriptedEngine
from worker.engine.transformers import TransformersEngine
from worker.evaluate import load_task
from worker.scoring import EngineLM, Stopped, TokenMemory

CONTEXT_LENGTH = 512
NUM_ITEMS = 24


@pytest.fixture(scope="module")
def folder(make_checkpoint: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random LLaMA with room for the items, whose tokenizer puts a begin token first, as LLaMA's does."""
    copy = tmp_path_factory.mktemp("scoring") / "tiny"
    shutil.copytree(make_checkpoint("scoring", seed=5), copy)
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "max_position_embeddings": CONTEXT_LENGTH}))
    tokenizer = Tokenizer.from_file(str(copy / "tokenizer.json"))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<|begin|> $A", special_tokens=[("<|begin|>", tokenizer.token_to_id("<|begin|>"))]
    )
    tokenizer.save(str(copy / "tokenizer.json"))
    return copy


@pytest.fixture(scope="module")
def model(folder: Path) -> EngineLM:
    engine = TransformersEngine(dtype="float32")
    engine.use(folder)
    return EngineLM(engine, folder)


def hf_backend(folder: Path, *, begin_token: bool, max_length: int) -> HFLM:
    return HFLM(
        pretrained=str(folder),
        dtype="float32",
        softmax_dtype="float32",
        device="cpu",
        batch_size=1,
        add_bos_token=begin_token,
        max_length=max_length,
    )


def evaluate(model: Any, name: str) -> dict[str, Any]:
    tasks = {"tasks": {name: load_task(name)}, "groups": {}}
    found = evaluator.evaluate(model, tasks, limit=NUM_ITEMS, bootstrap_iters=0, log_samples=True)
    return {"results": found["results"][name], "samples": found["samples"][name]}


def request(*arguments: Any, number: int = 0) -> Instance:
    return Instance("loglikelihood", {}, arguments, 0, metadata=("task", number, 1))


class TestAgainstTheHuggingFaceBackend:
    @pytest.mark.parametrize("name", ["starter_follows_en", "starter_pairs_zh", "starter_skills_pattern"])
    def test_choice_tasks_score_the_same(self, folder: Path, model: EngineLM, name: str) -> None:
        theirs = evaluate(hf_backend(folder, begin_token=True, max_length=model.limit - 1), name)
        ours = evaluate(model, name)
        assert ours["results"]["acc,none"] == theirs["results"]["acc,none"]
        for one, two in zip(ours["samples"], theirs["samples"], strict=True):
            for (our_sum, _), (their_sum, _) in zip(one["filtered_resps"], two["filtered_resps"], strict=True):
                assert our_sum == pytest.approx(their_sum, abs=1e-3)

    @pytest.mark.parametrize("max_length", [CONTEXT_LENGTH, 100])
    def test_bits_per_byte_are_the_same_in_one_window_and_in_many(
        self, folder: Path, model: EngineLM, max_length: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(model, "max_length", max_length)
        theirs = evaluate(hf_backend(folder, begin_token=False, max_length=model.limit - 1), "starter_bpb_en")
        ours = evaluate(model, "starter_bpb_en")
        wanted = theirs["results"]["bits_per_byte,none"]
        assert ours["results"]["bits_per_byte,none"] == pytest.approx(wanted, rel=1e-5)


class TestTokenizing:
    def test_a_context_begins_with_the_begin_token_once(self, model: EngineLM) -> None:
        begin = model.prefix_token_id
        assert model.tok_encode("To be")[0] == begin
        assert model.tok_encode("To be").count(begin) == 1
        assert model.tok_encode("<|begin|>To be") == model.tok_encode("To be")

    def test_spaces_at_the_end_of_the_context_go_to_the_continuation(self, model: EngineLM) -> None:
        assert model._encode("To be, ", "or not") == model._encode("To be,", " or not")

    def test_every_byte_of_a_text_is_predicted_once(self, model: EngineLM, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(model, "max_length", 32)
        text = "不是那条船 " * 20
        token_ids = model.tok_encode(text, add_special_tokens=False)
        windows = list(model._rolling(model.prefix_token_id, token_ids))
        assert [token for window in windows for token in window.continuation] == token_ids
        assert all(len(window.context) + len(window.continuation) <= model.limit for window in windows)

    def test_a_continuation_longer_than_the_model_sees_is_scored_whole(
        self, model: EngineLM, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(model, "max_length", 32)
        (total,) = model.loglikelihood([request("So,", " " + "long " * 30)])
        assert math.isfinite(total[0])
        assert model.answers[0, 0].num_tokens > 32


def test_a_stop_is_noticed_before_the_next_batch(make_checkpoint: Any) -> None:
    folder = make_checkpoint("scoring", seed=5)
    engine = ScriptedEngine()
    engine.use(folder)
    model = EngineLM(engine, folder, should_stop=lambda: model.engine_seconds > 0)
    with pytest.raises(Stopped):
        model.loglikelihood([request("To be", f" number {number}", number=number) for number in range(2_500)])


class TestTokenMemory:
    def test_a_text_is_tokenized_once_for_each_tokenizer(self) -> None:
        asked: list[str] = []

        def tokenize(text: str) -> list[int]:
            asked.append(text)
            return [len(text)]

        memory = TokenMemory()
        assert [memory.encode(digest, "four", tokenize) for digest in ("a", "a", "b")] == [[4], [4], [4]]
        assert asked == ["four", "four"]

    def test_it_forgets_when_it_is_full(self) -> None:
        asked: list[str] = []

        def tokenize(text: str) -> list[int]:
            asked.append(text)
            return [1, 2, 3]

        memory = TokenMemory(max_tokens=5)
        for text in ("a", "b", "c", "a"):
            memory.encode("t", text, tokenize)
        assert asked == ["a", "b", "c", "a"]


class Counting(ScriptedEngine):
    """Remembers what it was asked at once."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[list[ScoreRequest]] = []

    def score(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        self.batches.append(list(requests))
        return super().score(requests)


class TestBatches:
    @pytest.fixture
    def engine(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Counting:
        monkeypatch.setattr(scoring, "BATCH_SIZE", 6)
        engine = Counting()
        engine.use(folder)
        return engine

    def test_the_choices_of_an_item_go_together_so_that_their_context_is_read_once(
        self, engine: Counting, folder: Path
    ) -> None:
        words = ["be", "or not to be", "that is the question whether", "the law"]
        requests = [
            Instance("loglikelihood", {}, (f"To {item} be, {'or ' * item}", word), idx, ("task", item, 1))
            for item in range(9)
            for idx, word in enumerate(words)
        ]
        EngineLM(engine, folder).loglikelihood(requests)
        contexts = [{tuple(one.context) for one in batch} for batch in engine.batches]
        assert len(contexts) == 5, "two items a batch"
        assert sum(map(len, contexts)) == 9, "no context is in two batches"

    def test_so_many_with_one_context_are_cut_all_the_same(self, engine: Counting, folder: Path) -> None:
        requests = [
            Instance("loglikelihood", {}, ("To be", f" {number}"), number, ("task", 0, 1)) for number in range(30)
        ]
        EngineLM(engine, folder).loglikelihood(requests)
        assert [len(batch) for batch in engine.batches] == [12, 12, 6]
