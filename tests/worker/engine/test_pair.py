"""Two engines side by side: one answers, the other scores where it should."""

import json
import shutil
from pathlib import Path

import pytest

from registry.settings import Settings
from tests.worker.engine.test_speed import Paced
from worker.engine import make_engine
from worker.engine.pair import EnginePair
from worker.engine.protocol import Engine, Sampling
from worker.engine.scripted import ScriptedEngine
from worker.engine.transformers import TransformersEngine
from worker.engine.vllm import VllmEngine

SCORED = ("multiple_choice", "loglikelihood", "loglikelihood_rolling")


@pytest.fixture
def folder(make_checkpoint) -> Path:
    return make_checkpoint("tied-a", seed=1)


def changed(folder: Path, copy: Path, **config: object) -> Path:
    """The same checkpoint with other values in its config.json."""
    shutil.copytree(folder, copy)
    file = copy / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **config}))
    return copy


class TestParts:
    @pytest.mark.parametrize("output_type", SCORED)
    def test_scores_come_from_the_faster_one(self, folder, tmp_path, output_type):
        for answers, scores, expected in (
            (Paced("vllm", 0.2), Paced("transformers"), "transformers"),
            (Paced("vllm"), Paced("transformers", 0.2), "vllm"),
        ):
            pair = EnginePair(answers, scores, notes=tmp_path / expected)
            assert pair.part(output_type, folder).name == expected

    @pytest.mark.parametrize("output_type", SCORED)
    def test_without_notes_nothing_is_measured(self, folder, output_type):
        answers, scores = Paced("vllm"), Paced("transformers", 0.2)
        assert EnginePair(answers, scores, notes=None).part(output_type, folder) is scores
        assert answers.num_calls == scores.num_calls == 0

    def test_answers_come_from_the_first(self, folder, tmp_path):
        answers = Paced("vllm", 0.2)
        assert EnginePair(answers, Paced("transformers"), notes=tmp_path).part("generate_until", folder) is answers

    def test_a_quantized_checkpoint_is_scored_where_the_16_bit_one_is(self, folder, tmp_path):
        quantized = changed(folder, tmp_path / "4bit", quantization_config={"quant_method": "gptq", "bits": 4})
        answers = Paced("vllm", 0.2)
        scores = Paced("transformers")
        pair = EnginePair(answers, scores, notes=None)
        assert pair.part("multiple_choice", quantized) is pair.part("multiple_choice", folder) is scores
        assert pair.part("generate_until", quantized) is answers

    def test_an_architecture_without_kernels_is_scored_by_the_other(self, folder, tmp_path):
        narrow = changed(folder, tmp_path / "narrow", head_dim=16)
        answers, scores = Paced("vllm"), Paced("transformers", 0.2)
        assert EnginePair(answers, scores, notes=tmp_path / "notes").part("multiple_choice", narrow) is scores
        assert answers.num_calls == 0

    def test_a_scoring_part_that_lost_frees_its_memory(self, folder, tmp_path):
        scores = Paced("transformers", 0.2)
        EnginePair(Paced("vllm"), scores, notes=tmp_path).part("multiple_choice", folder)
        assert scores.resident is None


class TestTheWhole:
    def test_is_the_answering_part(self, folder, tmp_path):
        answers, scores = Paced("vllm"), Paced("transformers")
        pair: Engine = EnginePair(answers, scores, notes=tmp_path)
        assert isinstance(pair, Engine)
        pair.use(folder)
        assert (pair.name, pair.resident, pair.num_loads) == ("vllm", folder, 1)
        assert scores.resident is None
        [answer] = pair.generate([[3, 4, 5]], Sampling(max_tokens=8))
        assert "".join(delta.text for delta in pair.stream([3, 4, 5], Sampling(max_tokens=8))) == answer.text

    def test_closes_both(self, folder, tmp_path):
        answers, scores = Paced("vllm"), Paced("transformers")
        answers.use(folder)
        scores.use(folder)
        EnginePair(answers, scores, notes=tmp_path).close()
        assert answers.resident is scores.resident is None


class TestMakeEngine:
    @pytest.mark.parametrize(
        ("engine", "scoring", "kind"),
        [
            ("vllm", "auto", EnginePair),
            ("vllm", "transformers", EnginePair),
            ("vllm", "vllm", VllmEngine),
            ("transformers", "auto", TransformersEngine),
            ("transformers", "transformers", TransformersEngine),
            ("scripted", "auto", ScriptedEngine),
        ],
    )
    def test_makes_what_the_settings_name(self, tmp_path, engine, scoring, kind):
        made = make_engine(Settings(home=tmp_path, engine=engine, scoring_engine=scoring))
        assert type(made) is kind
        assert isinstance(made, Engine)

    @pytest.mark.parametrize(
        ("engine", "scoring", "sentence"),
        [
            ("cuda", "auto", "GROW_ENGINE is 'cuda'"),
            ("vllm", "fast", "GROW_SCORING_ENGINE is 'fast'"),
            ("transformers", "vllm", "needs GROW_ENGINE=vllm"),
        ],
    )
    def test_refuses_what_cannot_be(self, tmp_path, engine, scoring, sentence):
        with pytest.raises(ValueError, match=sentence):
            make_engine(Settings(home=tmp_path, engine=engine, scoring_engine=scoring))
