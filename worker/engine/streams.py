"""The two ways to hear an answer, each made from the other: pulled from a generator, or pushed to a function."""

import queue
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import closing

from worker.engine.protocol import Abort, Asked, Delta, EngineError, Sampling

Begin = Callable[[Sequence[Asked]], list[Abort]]
Stream = Callable[[list[int], Sampling], Generator[Delta, None, None]]


def stream_from(begin: Begin, prompt: list[int], sampling: Sampling) -> Generator[Delta, None, None]:
    """Pieces of an answer that an engine pushes. Closing the generator aborts the work.

    Raises:
        EngineError: what the engine pushed instead of a piece.
    """
    pieces: queue.SimpleQueue[Delta | EngineError] = queue.SimpleQueue()
    [abort] = begin([Asked(prompt, sampling, pieces.put)])
    try:
        while True:
            piece = pieces.get()
            if isinstance(piece, EngineError):
                raise piece
            yield piece
            if piece.finish_reason is not None:
                return
    finally:
        abort()


def begin_in_thread(stream: Stream, asked: Asked) -> Abort:
    """Pushes the pieces of a generator from a thread of its own, for engines that write few answers at once."""
    aborted = threading.Event()

    def run() -> None:
        try:
            with closing(stream(asked.prompt, asked.sampling)) as pieces:
                for piece in pieces:
                    if aborted.is_set():
                        return
                    asked.put(piece)
        except EngineError as error:
            asked.put(error)
        except Exception as error:  # whoever waits for this answer must hear of it
            asked.put(EngineError(f"The engine met an unexpected error ({type(error).__name__}): {error}"))

    threading.Thread(target=run, name="answer", daemon=True).start()
    return aborted.set
