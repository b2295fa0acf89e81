"""Whether a quantized model still is the model: both are asked about the same text."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from worker import fingerprint
from worker.engine.protocol import EngineError, ScoreRequest
from worker.engine.transformers import TransformersEngine


class Check(NamedTuple):
    """What was found; in nats a token."""

    before: float
    """Mean loss of the 16-bit one."""
    after: float
    """Mean loss of the quantized one; NaN where it gives numbers that are none."""
    tokens: int
    fingerprint: list[float]
    """The quantized one's log-probabilities of the 64 fixed strings."""
    distance: float
    """By how much those differ from the 16-bit one's, on average."""
    reason: str = ""
    """Why it could not be asked at all."""

    @property
    def loss(self) -> float:
        """What quantization cost."""
        return self.after - self.before

    def why_broken(self, max_loss: float) -> str:
        """A sentence where it is; empty where it is not."""
        if self.reason:
            return f"The quantized model does not load: {self.reason}"
        if not math.isfinite(self.after) or not math.isfinite(self.distance):
            return "The quantized model gives no finite log-probabilities: it is broken and is not offered."
        if self.loss > max_loss or self.distance > max_loss:
            return (
                f"The quantized model is broken and is not offered: its loss on text of the training corpus is "
                f"{self.after:.3f} nats a token (perplexity {math.exp(min(self.after, 99)):.1f}), the 16-bit one's "
                f"{self.before:.3f} ({math.exp(min(self.before, 99)):.1f}); {max_loss:g} more is allowed."
            )
        return ""

    def as_json(self) -> dict[str, Any]:
        """What is kept with the checkpoint."""
        found = {"before": self.before, "after": self.after, "tokens": self.tokens, "distance": self.distance}
        return {name: round(value, 5) for name, value in found.items()}


def compare(
    source: Path, target: Path, checks: Sequence[Sequence[int]], *, dtype: str = "auto", threads: int = 0
) -> Check:
    """Ask both models. The second is loaded as whoever scores it will load it.

    Raises:
        EngineError: the 16-bit one cannot be loaded, or gives numbers that are none.
    """
    requests = [ScoreRequest([sequence[0]], list(sequence[1:])) for sequence in checks]
    tokens = sum(len(request.continuation) for request in requests)
    engine = TransformersEngine(dtype=dtype, threads=threads)
    try:
        engine.use(source)
        strings, before = fingerprint.take(engine, source), _loss(engine, requests)
        try:
            engine.use(target)
        except EngineError as error:
            return Check(before, math.nan, tokens, [], math.nan, str(error))
        try:
            own = fingerprint.take(engine, target)
        except EngineError:  # says that they are not finite
            return Check(before, math.nan, tokens, [], math.nan)
        distance = float(np.abs(np.array(own) - np.array(strings)).mean())
        return Check(before, _loss(engine, requests), tokens, own, distance)
    finally:
        engine.close()


def _loss(engine: TransformersEngine, requests: Sequence[ScoreRequest]) -> float:
    found = [logprob for score in engine.score(requests) for logprob in score.token_logprobs]
    return -float(np.mean(found))
