"""The worker's end of `worker.engine.answers_app`: one connection on which the pieces of all answers come."""

import itertools
import threading
from collections.abc import Sequence
from functools import partial
from typing import Any

import structlog

from worker.engine.protocol import Abort, Delta, EngineDown, EngineError, Put
from worker.engine.vllm_child import VllmChild

PATH = "/grow/answers"
ABORT_PATH = "/grow/abort"

log = structlog.get_logger(__name__)


class VllmAnswers:
    """Answers that one child is writing; one instance a child."""

    def __init__(self, child: VllmChild) -> None:
        self._child = child
        self._lock = threading.Lock()  # threads begin and abort while the reader hands out
        self._open: dict[str, Put] = {}
        self._names = map(str, itertools.count())
        self._error: EngineDown | None = None
        threading.Thread(target=self._read, name="answers", daemon=True).start()

    def begin(self, bodies: Sequence[dict[str, Any]], puts: Sequence[Put]) -> list[Abort]:
        """Start answers; see `Engine.begin`.

        Raises:
            EngineDown: the child died or does not answer.
        """
        names = [next(self._names) for _ in bodies]
        with self._lock:
            if self._error is not None:
                raise self._error
            self._open |= dict(zip(names, puts, strict=True))
        try:
            self._child.post(PATH, {"asked": [{"id": name, **body} for name, body in zip(names, bodies, strict=True)]})
        except EngineError:
            for name in names:
                self._forget(name)
            raise
        return [partial(self._abort, name) for name in names]

    def _abort(self, name: str) -> None:
        if self._forget(name) is None:
            return
        try:
            self._child.post(ABORT_PATH, {"ids": [name]})
        except EngineError as error:  # it died: nothing goes on there either
            log.info("An answer could not be ended in the engine.", error=str(error))

    def _forget(self, name: str) -> Put | None:
        with self._lock:
            return self._open.pop(name, None)

    def _read(self) -> None:
        try:
            for rows in self._child.lines(PATH):
                for name, text, tokens, finish_reason, usage, error in rows:
                    prompt_tokens, completion_tokens = usage or (None, None)
                    self._hand_out(name, Delta(text, finish_reason, prompt_tokens, completion_tokens, tokens), error)
            raise self._child.broke_off()
        except EngineDown as error:
            self._end(error)
        except EngineError as error:
            self._end(EngineDown(str(error)))

    def _hand_out(self, name: str, delta: Delta, error: str | None) -> None:
        is_last = error is not None or delta.finish_reason is not None
        put = self._forget(name) if is_last else self._open.get(name)
        if put is None:
            return  # it was aborted meanwhile
        if error is not None:
            put(EngineError(f"The engine refused the request: {error}"))
        elif delta.finish_reason == "abort":
            put(EngineDown("The engine gave the answer up."))
        else:
            put(delta)

    def _end(self, error: EngineDown) -> None:
        with self._lock:
            self._error = error
            waiting, self._open = self._open, {}
        for put in waiting.values():
            put(error)
