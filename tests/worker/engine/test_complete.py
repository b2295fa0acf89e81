"""Several whole answers at once: in order, each with its own seed, and none left when nobody waits."""

import threading
from collections.abc import Sequence

import pytest

from worker.engine.complete import Unwanted, complete
from worker.engine.protocol import Abort, Asked, Delta, EngineError, Sampling
from worker.engine.scripted import ScriptedEngine


class Recording(ScriptedEngine):
    """Answers with the seed; what is begun and aborted is kept."""

    def __init__(self, error: EngineError | None = None, *, ends: bool = True) -> None:
        super().__init__()
        self.asked: list[Asked] = []
        self.num_aborted = 0
        self._error, self._ends = error, ends

    def begin(self, asked: Sequence[Asked]) -> list[Abort]:
        self.asked = list(asked)
        for one in asked:
            one.put(Delta(f"seed {one.sampling.seed} ", tokens=[["seed", -0.5, []]]))
            if self._error is not None:
                one.put(self._error)
            elif self._ends:
                one.put(Delta("end", "stop", len(one.prompt), 7))
        return [self._abort for _ in asked]

    def _abort(self) -> None:
        self.num_aborted += 1


def test_answers_stand_with_their_prompts_and_each_choice_has_its_seed():
    engine = Recording()
    written = complete(engine, [[1, 2], [3]], Sampling(seed=4), n=2, should_stop=lambda: False)
    assert [[one.text for one in choices] for choices in written] == [["seed 4 end", "seed 5 end"]] * 2
    one = written[0][0]
    assert (one.finish_reason, one.prompt_tokens, one.completion_tokens) == ("stop", 2, 7)
    assert one.tokens == [["seed", -0.5, []]]
    assert engine.num_aborted == 0


def test_no_tokens_asked_for_are_no_work():
    engine = Recording()
    [[one]] = complete(engine, [[1, 2]], Sampling(max_tokens=0), n=1, should_stop=lambda: False)
    assert (one.text, one.finish_reason, one.prompt_tokens, one.completion_tokens) == ("", "length", 2, 0)
    assert engine.asked == []


def test_one_that_fails_ends_them_all():
    engine = Recording(EngineError("no"))
    with pytest.raises(EngineError, match="no"):
        complete(engine, [[1], [2]], Sampling(), n=1, should_stop=lambda: False)
    assert engine.num_aborted == 2


def test_the_engine_stops_at_once_when_nobody_waits_any_more():
    engine, wanted = Recording(ends=False), threading.Event()
    threading.Timer(0.3, wanted.set).start()
    with pytest.raises(Unwanted):
        complete(engine, [[1], [2]], Sampling(), n=1, should_stop=wanted.is_set)
    assert engine.num_aborted == 2
