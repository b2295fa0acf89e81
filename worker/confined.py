"""A small process that opens what checkpoints bring and that may be a trap: chat templates, and tokenizers.

A template is a program, and reading a tokenizer runs libraries written in other languages over bytes of strangers. The
process has a limit of memory and no file that it may write; what does not answer in time is ended with it.
"""

import json
import selectors
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from registry.errors import Invalid

PROGRAM = Path(__file__).with_name("confined_child.py")
RENDER_SECONDS = 10.0
"""A template takes a thousandth of a second; a machine that is busy may need the rest."""
TOKENIZER_SECONDS = 120.0
MAX_ANSWER_BYTES = 16 * 2**20


class Silent(Exception):
    """The process did not answer in time, or is gone; it says nothing more."""


class Confined:
    """One such process, started when it is first asked; any thread may ask, one after the other."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def ask(self, request: Mapping[str, Any], seconds: float) -> dict[str, Any]:
        """What the process answers.

        Raises:
            Silent: it does not, within so many seconds.
        """
        with self._lock:
            process = self._running()
            try:
                assert process.stdin is not None
                process.stdin.write(json.dumps(request).encode() + b"\n")
                process.stdin.flush()
                answer: dict[str, Any] = json.loads(_read_line(process, time.monotonic() + seconds))
            except (Silent, OSError, ValueError):
                self._end()
                raise Silent from None
            return answer

    def close(self) -> None:
        """End the process."""
        with self._lock:
            self._end()

    def _running(self) -> "subprocess.Popen[bytes]":
        if self._process is not None and self._process.poll() is not None:
            self._end()
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-B", str(PROGRAM)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={"TOKENIZERS_PARALLELISM": "false"},
                cwd="/",
            )
        return self._process

    def _end(self) -> None:
        if self._process is not None:
            with self._process as process:
                process.kill()
            self._process = None


_shared = Confined()


def render(template: str, messages: Sequence[Mapping[str, Any]], tokens: Mapping[str, Any]) -> str:
    """A conversation as a chat template writes it, ready for the answer; as `apply_chat_template` of transformers.

    Args:
        template: in Jinja's language.
        messages: `role` and `content` of each.
        tokens: the tokenizer's special tokens by name, such as `bos_token`.

    Raises:
        Invalid: the template cannot be rendered, not in time, or not in bearable size.
    """
    request = {"do": "render", "template": template, "messages": list(messages), "tokens": dict(tokens)}
    try:
        answer = _shared.ask(request, RENDER_SECONDS)
    except Silent:
        raise Invalid(
            f"The chat template does not end within {RENDER_SECONDS:g} s, or takes too much memory."
        ) from None
    if "error" in answer:
        raise Invalid(f"The chat template cannot be rendered: {answer['error']}")
    return str(answer["text"])


def render_chat(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Mapping[str, Any]]) -> str:
    """A conversation as a tokenizer's own chat template writes it.

    Raises:
        Invalid: it has none that is meant for conversations, or as `render`.
    """
    try:
        template = tokenizer.get_chat_template()
    except ValueError as error:
        raise Invalid("The tokenizer has no chat template of the name 'default'.") from error
    tokens = {
        name: [str(one) for one in value] if isinstance(value, list) else str(value)
        for name, value in tokenizer.special_tokens_map.items()
    }
    return render(template, messages, tokens)


def largest_token(folder: Path) -> int:
    """Open a folder's tokenizer and read some text with it; returns its largest token id, -1 where it has none.

    Raises:
        Invalid: it cannot be opened, not in time, or it takes too much memory.
    """
    child = Confined()
    try:
        answer = child.ask({"do": "tokenizer", "folder": str(folder.absolute())}, TOKENIZER_SECONDS)
    except Silent:
        raise Invalid("The tokenizer takes too long or too much memory to load.") from None
    finally:
        child.close()
    if "error" in answer:
        raise Invalid(f"The tokenizer does not load: {answer['error']}")
    return int(answer["largest"])


def _read_line(process: "subprocess.Popen[bytes]", deadline: float) -> bytes:
    assert process.stdout is not None
    found = bytearray()
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while not found.endswith(b"\n"):
            if len(found) > MAX_ANSWER_BYTES or not selector.select(max(0.0, deadline - time.monotonic())):
                raise Silent
            piece = process.stdout.read1(2**16)  # type: ignore[attr-defined]
            if not piece:
                raise Silent
            found += piece
    return bytes(found)
