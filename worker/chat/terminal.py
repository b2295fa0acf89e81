"""A conversation in the terminal: streamed, stopped by Ctrl-C, several lines between triple quotes."""

import contextlib
from collections.abc import Callable
from dataclasses import replace

from rich.console import Console

from worker.chat.sources import Source, SourceError
from worker.engine.protocol import Sampling

FENCE = '"""'
HELP = """/reset        forget the conversation
/system TEXT  say first what the model should be; without a text, no more
/temperature  how daring it draws, 0 to 2
/tokens       how many tokens an answer may have
/help         this
/exit         leave; Ctrl-D does too
Ctrl-C stops an answer. Three quotes begin and end a text of several lines."""
MAX_TEMPERATURE = 2.0
MAX_TOKENS = 100_000
STOPPED = "(stopped)"

Read = Callable[[str], str]
"""Shows a prompt and returns a line; raises EOFError at the end."""


class Terminal:
    """One person and one model."""

    def __init__(self, source: Source, sampling: Sampling, console: Console, read: Read = input) -> None:
        self._source, self._sampling, self._console, self._read = source, sampling, console, read
        self._system = ""
        self._said: list[dict[str, str]] = []

    def run(self) -> None:
        """Until /exit or the end of the input."""
        way = "It reads the whole conversation." if self._source.is_chat else "A base model: it goes on with your text."
        self._say(f"{self._source.name}. {way} /help lists the commands.")
        while True:
            try:
                text = self._ask()
            except EOFError:
                self._console.print()
                return
            except KeyboardInterrupt:
                self._console.print()
                continue
            if text in ("/exit", "/quit"):
                return
            if text.startswith("/"):
                self._obey(text)
            elif text:
                self._answer(text)

    def _ask(self) -> str:
        line = self._read("> ")
        if not line.startswith(FENCE):
            return line.strip()
        lines = [line.removeprefix(FENCE)]
        while not lines[-1].rstrip().endswith(FENCE):
            lines.append(self._read(". "))
        lines[-1] = lines[-1].rstrip().removesuffix(FENCE)
        return "\n".join(lines).strip()

    def _answer(self, text: str) -> None:
        self._said.append({"role": "user", "content": text})
        system = [{"role": "system", "content": self._system}] if self._system else []
        written = ""
        try:
            with contextlib.closing(self._source.stream([*system, *self._said], self._sampling)) as pieces:
                for piece in pieces:
                    written += piece
                    self._console.print(printable(piece), end="", markup=False, highlight=False, soft_wrap=True)
        except KeyboardInterrupt:
            self._console.print(f" {STOPPED}", end="", markup=False, style="dim")
        except SourceError as error:
            self._console.print()
            self._say(str(error), style="red")
        self._console.print()
        if written:
            self._said.append({"role": "assistant", "content": written})
        else:
            self._said.pop()  # what was not answered is not part of the conversation

    def _obey(self, text: str) -> None:
        command, _, rest = text.partition(" ")
        rest = rest.strip()
        if command == "/help":
            self._say(HELP)
        elif command == "/reset":
            self._said.clear()
            self._say("Forgotten.")
        elif command == "/system":
            self._set_system(rest)
        elif command == "/temperature":
            self._set_temperature(rest)
        elif command == "/tokens":
            self._set_tokens(rest)
        else:
            self._say(f"There is no command {printable(command)}. /help lists them.", style="red")

    def _set_system(self, text: str) -> None:
        if text and not self._source.is_chat:
            self._say("A base model takes no instruction; it goes on with your text.", style="red")
            return
        self._system = text
        self._say("It is told that first." if text else "It is told nothing first.")

    def _set_temperature(self, text: str) -> None:
        try:
            value = float(text)
        except ValueError:
            value = -1.0
        if not 0.0 <= value <= MAX_TEMPERATURE:
            self._say(f"That must be a number from 0 to {MAX_TEMPERATURE:g}.", style="red")
            return
        self._sampling = replace(self._sampling, temperature=value)
        self._say(f"The temperature is {value:g} now.")

    def _set_tokens(self, text: str) -> None:
        if not (text.isdecimal() and 1 <= int(text[:9]) <= MAX_TOKENS):
            self._say(f"That must be a number from 1 to {MAX_TOKENS:,}.", style="red")
            return
        self._sampling = replace(self._sampling, max_tokens=int(text))
        self._say(f"An answer may have {int(text):,} tokens now.")

    def _say(self, text: str, style: str = "dim") -> None:
        self._console.print(text, style=style, markup=False, highlight=False)


def printable(text: str) -> str:
    """Without what would move a terminal's cursor, change its title or ring its bell: a model may write anything."""
    return "".join(character for character in text if character in "\n\t" or character.isprintable())
