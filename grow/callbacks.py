"""For Hugging Face's Trainer: sends checkpoints and scalars to a site in the background, and never stands in the way.

    from grow.callbacks import GrowCallback
    Trainer(..., callbacks=[GrowCallback("https://site.example", run="my-run", token=os.environ["HF_TOKEN"])])

Whatever happens to the site or to the network, training goes on: what cannot be sent is tried again for a while, then
given up with a warning.
"""

import logging
import queue
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
from transformers import TrainerCallback

from grow import folders
from grow.remote import Away, Site, push_remote
from registry.errors import RegistryError

MAX_WAITING = 1_000
"""Scalars that wait for the site; the oldest go first when there are more."""
RETRY_SECONDS = (1.0, 5.0, 30.0, 120.0)
END_SECONDS = 600.0
"""How long the end of the training waits for what is being sent, while the site answers."""
REQUEST_SECONDS = 10.0

log = logging.getLogger(__name__)


class GrowCallback(TrainerCallback):  # type: ignore[misc]
    """Pushes each checkpoint that the Trainer saves, and its logs as the run's metrics."""

    def __init__(
        self,
        site: str,
        run: str,
        token: str,
        *,
        kind: str = "pretrained",
        tokenizer: str | Path | None = None,
        patience_seconds: float = 30.0,
    ) -> None:
        """`patience_seconds`: how long the end of the training waits for a site that does not answer."""
        self._patience_seconds = patience_seconds
        self._site, self._run, self._kind = Site(site.rstrip("/"), token), run, kind
        self._tokenizer = Path(tokenizer) if tokenizer is not None else None
        self._checkpoints, self._metrics = _Line("checkpoints"), _Line("metrics")

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """A checkpoint was written: send it."""
        if not state.is_world_process_zero:
            return
        folder, step = Path(args.output_dir) / f"checkpoint-{state.global_step}", int(state.global_step)
        tokens = int(state.num_input_tokens_seen or 0) or None
        self._checkpoints.add(lambda: self._send_checkpoint(folder, step, tokens))

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        """Scalars were logged: send them."""
        if not state.is_world_process_zero or not logs:
            return
        values = {_key(name): float(value) for name, value in logs.items() if isinstance(value, int | float)}
        point = {"step": int(state.global_step), "tokens_seen": int(state.num_input_tokens_seen or 0), "values": values}
        self._metrics.add(lambda: self._send_metrics(point))

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Wait for what is still being sent, not for ever."""
        for line in (self._metrics, self._checkpoints):
            if not line.finish(END_SECONDS, self._patience_seconds):
                log.warning("Not everything was sent to %s; push the rest with: grow watch", self._site.url)

    def _send_checkpoint(self, folder: Path, step: int, tokens: int | None) -> None:
        if not folders.looks_like_one(folder):
            log.warning("%s was deleted before it could be pushed; raise save_total_limit.", folder)
            return
        push_remote(
            folder,
            self._site,
            run=self._run,
            step=step,
            tokens_seen=tokens,
            kind=self._kind,
            tokenizer=self._tokenizer,
        )

    def _send_metrics(self, point: dict[str, Any]) -> None:
        try:
            answer = httpx.post(
                f"{self._site.url}/api/v1/runs/{self._run}/metrics",
                json={"points": [point]},
                headers={"Authorization": f"Bearer {self._site.token}"},
                timeout=REQUEST_SECONDS,
            )
        except httpx.TransportError as error:
            raise Away(str(error)) from error
        if answer.status_code >= 500 or answer.status_code == 429:
            raise Away(f"The site answered {answer.status_code}.")
        if answer.is_error:
            log.warning("%s does not take metrics: %s", self._site.url, answer.text[:300])


class _Line:
    """Does one thing after another in a thread of its own."""

    def __init__(self, name: str) -> None:
        self._waiting: queue.Queue[Callable[[], None]] = queue.Queue(MAX_WAITING)
        self._is_over, self._is_away = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"grow-{name}", daemon=True)
        self._thread.start()

    def add(self, action: Callable[[], None]) -> None:
        """Do it later; never waits."""
        while True:
            try:
                return self._waiting.put_nowait(action)
            except queue.Full:
                self._drop_oldest()

    def _drop_oldest(self) -> None:
        try:
            self._waiting.get_nowait()
        except queue.Empty:
            return
        self._waiting.task_done()

    def finish(self, seconds: float, patience_seconds: float) -> bool:
        """Wait until all of it is done, of a site that is away only so long; False: it took too long."""
        began = time.monotonic()
        while self._waiting.unfinished_tasks:
            waited = time.monotonic() - began
            if waited > seconds or (self._is_away.is_set() and waited > patience_seconds):
                break
            time.sleep(0.05)
        self._is_over.set()
        return not self._waiting.unfinished_tasks

    def _run(self) -> None:
        while True:
            action = self._waiting.get()
            try:
                self._try(action)
            except Exception:  # the edge: nothing of this may reach the training
                log.warning("Something could not be sent to the site.", exc_info=True)
            finally:
                self._waiting.task_done()

    def _try(self, action: Callable[[], None]) -> None:
        for pause in (*RETRY_SECONDS, None):
            try:
                action()
            except Away as error:
                self._is_away.set()
                if pause is None or self._is_over.wait(pause):
                    log.warning("Given up after several tries: %s", error)
                    return
            except RegistryError as error:
                log.warning("The site does not take it: %s", error)
                return
            else:
                self._is_away.clear()
                return


def _key(name: str) -> str:
    """The Trainer's names in the site's words: `train/loss`, `heldout/loss`."""
    if name.startswith("eval_"):
        return f"heldout/{name.removeprefix('eval_')}"
    return name if "/" in name else f"train/{name}"
