"""vLLM and transformers side by side: vLLM answers, and scores are worked out by whichever is faster here."""

from collections.abc import Generator, Sequence
from pathlib import Path

from worker.engine.command import is_servable
from worker.engine.peak import Peak
from worker.engine.protocol import Abort, Asked, Delta, Engine, Generation, Row, Sampling, Score, ScoreRequest
from worker.engine.shape import ModelShape, read_shape
from worker.engine.speed import faster


class EnginePair:
    """An engine whose parts hold a checkpoint each; as a whole it is the one that answers."""

    def __init__(self, answers: Engine, scores: Engine, *, notes: Path | None) -> None:
        """`scores` scores whatever it can; with `notes`, a folder for measurements, only where it is the faster one."""
        self._answers = answers
        self._scores = scores
        self._notes = notes
        self.name = answers.name
        self.version = answers.version
        self.dtype = answers.dtype

    @property
    def resident(self) -> Path | None:
        """What the answering part holds."""
        return self._answers.resident

    @property
    def num_loads(self) -> int:
        """How often weights were put into the answering part."""
        return self._answers.num_loads

    def use(self, folder: Path) -> None:
        """Make `folder` resident in the answering part."""
        self._answers.use(folder)

    def score(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        """By the answering part, which holds the checkpoint; `part` gives the one to prefer."""
        return self._answers.score(requests)

    def generate(self, prompts: Sequence[list[int]], sampling: Sampling) -> list[Generation]:
        """By the answering part."""
        return self._answers.generate(prompts, sampling)

    def stream(self, prompt: list[int], sampling: Sampling) -> Generator[Delta, None, None]:
        """By the answering part."""
        return self._answers.stream(prompt, sampling)

    def begin(self, asked: Sequence[Asked]) -> list[Abort]:
        """By the answering part."""
        return self._answers.begin(asked)

    def read(self, prompts: Sequence[list[int]], num_likeliest: int) -> list[list[Row]]:
        """By the answering part."""
        return self._answers.read(prompts, num_likeliest)

    def part(self, output_type: str, folder: Path) -> Engine:
        """The one that answers for `generate_until`, else the one that scores this checkpoint."""
        if output_type == "generate_until":
            return self._answers
        # A quantized one goes where the 16-bit one is scored: their difference is then not that of two engines.
        shape = read_shape(folder)
        if self._notes is None or not is_servable(shape):
            return self._scores
        return self._choose(folder, shape, self._notes)

    def peaks(self) -> list[Peak]:
        """Of both parts."""
        return [*self._answers.peaks(), *self._scores.peaks()]

    def close(self) -> None:
        """Free the device."""
        self._answers.close()
        self._scores.close()

    def _choose(self, folder: Path, shape: ModelShape, notes: Path) -> Engine:
        # vLLM first: on a GPU it takes a fixed share of the memory, and the other one what is left.
        best = faster((self._answers, self._scores), folder, shape, notes)
        if best is not self._scores:
            self._scores.close()
        return best
