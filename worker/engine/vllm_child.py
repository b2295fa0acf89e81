"""One vLLM child and the line to it: HTTP on a Unix socket.

The child runs in its own process group. Its development endpoints (weight reloading) have no
authentication, so the socket lives in a folder that only this user can enter.
"""

import contextlib
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import httpx
import orjson

from registry.settings import Settings
from worker.engine.command import child_command, child_environment, extra_arguments
from worker.engine.process import EngineProcess
from worker.engine.protocol import EngineDown, EngineError
from worker.engine.shape import ModelShape

START_SECONDS = 900.0
READ_SECONDS = 300.0
LINE_SECONDS = 300.0
"""Without even a keep-alive; the engine may be busy with a large batch for long."""
_NOT_FINITE = "not JSON compliant"
"""What vLLM's server says when an answer holds NaN or infinity (0.32.0)."""


class VllmChild:
    """Starts on creation and returns when it answers; once it is dead it stays so."""

    def __init__(self, folder: Path, shape: ModelShape, settings: Settings) -> None:
        """Start with the checkpoint in `folder`.

        Raises:
            EngineDown: it did not start; nothing is left behind.
        """
        self._socket_folder = Path(tempfile.mkdtemp(prefix="grow-"))  # mode 0700
        socket = self._socket_folder / "engine"
        self._process = EngineProcess(
            child_command(sys.executable, folder, socket, shape) + extra_arguments(os.environ),
            child_environment(os.environ, settings.engine_threads),
            settings.home / "logs" / "engine.log",
        )
        self._client = httpx.Client(
            transport=httpx.HTTPTransport(uds=str(socket), limits=httpx.Limits(max_connections=None)),
            base_url="http://engine",
            timeout=httpx.Timeout(READ_SECONDS, connect=10.0),
        )
        try:
            self._await_health(folder)
        except EngineDown:
            self.stop()
            raise

    @property
    def pid(self) -> int:
        """Process group of the child."""
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        """Whether it runs; one that stopped answering is put down."""
        return self._process.is_alive

    def post(self, path: str, body: dict[str, Any]) -> Any:
        """The JSON that a request is answered with; None where there is none.

        Raises:
            EngineError: it refused.
            EngineDown: it died or does not answer.
        """
        try:
            response = self._client.post(path, json=body)
        except httpx.TransportError as error:
            raise self._death(str(error)) from error
        if response.status_code != httpx.codes.OK:
            raise self._refusal(response)
        return response.json() if response.content else None

    def get_text(self, path: str) -> str:
        """The text of a page.

        Raises:
            EngineDown: it died or does not answer.
        """
        try:
            return self._client.get(path).text
        except httpx.TransportError as error:
            raise self._death(str(error)) from error

    def lines(self, path: str) -> Generator[Any, None, None]:
        """The JSON lines of an answer that does not end.

        Raises:
            EngineError: it refused.
            EngineDown: it died or does not answer.
        """
        try:
            with self._client.stream("GET", path, timeout=LINE_SECONDS) as response:
                if response.status_code != httpx.codes.OK:
                    response.read()
                    raise self._refusal(response)
                for line in response.iter_lines():
                    yield orjson.loads(line)
        except (httpx.TransportError, httpx.StreamError) as error:
            raise self._death(str(error)) from error

    def stop(self) -> None:
        """End it and everything it started."""
        self._client.close()
        self._process.stop()
        shutil.rmtree(self._socket_folder, ignore_errors=True)

    def broke_off(self) -> EngineDown:
        """For an answer that ended before its end; puts the child down."""
        return self._death("its answer broke off")

    def _await_health(self, folder: Path) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if not self.is_alive:
                raise self._down(f"The engine did not start with {folder.name}: {self._process.last_words()}")
            with contextlib.suppress(httpx.TransportError):  # not listening yet
                if self._client.get("/health", timeout=5.0).status_code == httpx.codes.OK:
                    return
            time.sleep(0.2)
        raise self._down(f"The engine did not start with {folder.name} within {START_SECONDS:.0f} seconds.")

    def _refusal(self, response: httpx.Response) -> EngineError:
        try:
            content = response.json()
            message = str(content.get("error", {}).get("message") or content)[:400]
        except (ValueError, AttributeError):
            message = response.text[:400]
        if _NOT_FINITE in message:
            return EngineError("The model gives no finite numbers: its weights are broken, or too large for bfloat16.")
        if response.status_code < 500:
            return EngineError(f"The engine refused the request: {message}")
        # 5xx is how vLLM says that its core died; its process follows within a moment.
        return self._death(message)

    def _death(self, reason: str) -> EngineDown:
        """Put the child down, so that the next `use` starts a new one."""
        self._process.kill()
        return self._down(f"The engine died or stopped answering: {reason}.")

    def _down(self, message: str) -> EngineDown:
        return EngineDown(message, log=self._process.last_lines())
