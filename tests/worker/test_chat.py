"""`grow chat`: the terminal on a real pseudo-terminal, its sources, and what a model may not do to a terminal."""

import contextlib
import io
import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path

import httpx
import pytest
from rich.console import Console

from registry import checkpoints, db
from registry.settings import get_settings
from tests.browser.talker import TEMPLATE
from tests.browser.tiny import write_folder
from tests.factories import make_checkpoint, make_run
from worker.chat import page
from worker.chat.__main__ import main
from worker.chat.sources import LocalSource, SiteSource, SourceError, open_engine
from worker.chat.terminal import Terminal, printable
from worker.engine.protocol import Sampling
from worker.engine.scripted import ScriptedEngine
from worker.prompts import Message


def chat_folder(folder: Path) -> Path:
    write_folder(folder)
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "chat_template": TEMPLATE}))
    return folder


class Told:
    """A model that says what it was asked, and notes it."""

    name, is_chat = "told", True

    def __init__(self, pieces: Sequence[str] = ("one ", "two"), error: BaseException | None = None) -> None:
        self.pieces, self.error = pieces, error
        self.asked: list[list[Message]] = []
        self.drawn: list[Sampling] = []
        self.num_closed = 0

    def stream(self, messages: Sequence[Message], sampling: Sampling) -> Generator[str, None, None]:
        self.asked.append(list(messages))
        self.drawn.append(sampling)
        try:
            yield from self.pieces
            if self.error is not None:
                raise self.error
        finally:
            self.num_closed += 1

    def close(self) -> None:
        """Nothing to free."""


def talk(source: Told, *lines: str) -> str:
    """The screen after these lines."""
    waiting = iter(lines)

    def read(_prompt: str) -> str:
        for line in waiting:
            return line
        raise EOFError

    console = Console(record=True, width=200, file=io.StringIO())
    Terminal(source, Sampling(max_tokens=8), console, read).run()
    return console.export_text()


class TestTerminal:
    def test_it_remembers_what_was_said_until_it_is_told_to_forget(self) -> None:
        source = Told()
        talk(source, "a", "b", "/reset", "c")
        assert [len(asked) for asked in source.asked] == [1, 3, 1]
        assert source.asked[1][1] == {"role": "assistant", "content": "one two"}

    def test_an_instruction_comes_first_and_can_be_taken_back(self) -> None:
        source = Told()
        talk(source, "/system be brief", "a", "/system", "b")
        assert source.asked[0][0] == {"role": "system", "content": "be brief"}
        assert source.asked[1][0]["role"] == "user"

    def test_triple_quotes_hold_several_lines(self) -> None:
        source = Told()
        talk(source, '"""def f():', "    return 1", '"""', '"""x"""')
        assert [asked[-1]["content"] for asked in source.asked] == ["def f():\n    return 1", "x"]

    @pytest.mark.parametrize("line", ["/temperature 9", "/temperature x", "/tokens 0", "/tokens -1", "/tokens ²"])
    def test_a_number_that_makes_no_sense_changes_nothing(self, line: str) -> None:
        source = Told()
        assert "That must be a number" in talk(source, line, "a")
        assert source.drawn == [Sampling(max_tokens=8)]

    def test_numbers_change_how_it_draws(self) -> None:
        source = Told()
        talk(source, "/temperature 0.5", "/tokens 99", "a")
        assert source.drawn == [Sampling(max_tokens=99, temperature=0.5)]

    def test_an_error_is_a_sentence_and_the_conversation_goes_on(self) -> None:
        source = Told(pieces=(), error=SourceError("The site does not answer."))
        assert "The site does not answer." in talk(source, "a", "b")
        assert [len(asked) for asked in source.asked] == [1, 1]

    def test_ctrl_c_keeps_what_was_written_and_stops_the_model(self) -> None:
        source = Told(error=KeyboardInterrupt())
        assert "(stopped)" in talk(source, "a", "b")
        assert source.num_closed == 2
        assert len(source.asked[1]) == 3

    def test_what_a_model_writes_cannot_move_the_cursor(self) -> None:
        assert printable("a\x1b[2J\x07b\n\t\x9bc\u202e字") == "a[2Jb\n\tc字"
        assert "\x1b" not in talk(Told(pieces=("\x1b]0;title\x07",)), "a")


@contextlib.contextmanager
def on_a_terminal(folder: Path, environment: dict[str, str]) -> Iterator[tuple[int, "subprocess.Popen[bytes]"]]:
    parent, child = pty.openpty()
    command = [sys.executable, "-m", "worker.chat", str(folder), "--terminal", "--engine", "scripted"]
    process = subprocess.Popen(
        command, stdin=child, stdout=child, stderr=child, env={**os.environ, **environment}, start_new_session=True
    )
    os.close(child)
    try:
        yield parent, process
    finally:
        process.kill()
        process.wait()
        os.close(parent)


def read_until(terminal: int, text: str, seconds: float = 90.0) -> str:
    seen, deadline = "", time.monotonic() + seconds
    while text not in seen:
        ready, _, _ = select.select([terminal], [], [], max(0.0, deadline - time.monotonic()))
        assert ready, f"waited for {text!r}, saw {seen[-2000:]!r}"
        seen += os.read(terminal, 65_536).decode(errors="replace")
    return seen


def test_on_a_real_terminal_it_answers_stops_at_ctrl_c_and_leaves(tmp_path: Path, grow_home: Path) -> None:
    with on_a_terminal(chat_folder(tmp_path / "tiny"), {"GROW_SCRIPTED_SECONDS": "0.2"}) as (terminal, process):
        read_until(terminal, "> ")
        os.write(terminal, b"hello\n")
        read_until(terminal, "user")  # the answer has begun; the rest would take seconds
        process.send_signal(signal.SIGINT)
        read_until(terminal, "(stopped)")
        os.write(terminal, b"/exit\n")
        assert process.wait(timeout=30) == 0


class TestSources:
    def test_a_chat_model_gets_its_template_and_a_base_model_the_last_text(self, tmp_path: Path) -> None:
        said = [
            {"role": "user", "content": "a"},
            {"role": "assistant", "content": "b"},
            {"role": "user", "content": "c"},
        ]
        chat = LocalSource(ScriptedEngine(), chat_folder(tmp_path / "chat"), "chat")
        base = LocalSource(ScriptedEngine(), write_folder(tmp_path / "base"), "base")
        assert "".join(chat.stream(said, Sampling())) == "user: a\nassistant: b\nuser: c\nassistant:"
        assert "".join(base.stream(said, Sampling())) == "c"

    def test_closing_an_answer_frees_the_engine(self, tmp_path: Path) -> None:
        engine = ScriptedEngine(seconds_per_token=0.02)
        source = LocalSource(engine, write_folder(tmp_path / "base"), "base")
        pieces = source.stream([{"role": "user", "content": "a long text " * 20}], Sampling(max_tokens=400))
        next(pieces)
        pieces.close()
        deadline = time.monotonic() + 30
        while engine.num_streams_open and time.monotonic() < deadline:
            time.sleep(0.02)
        assert engine.num_streams_open == 0

    def test_the_registry_gives_a_ready_checkpoint_and_says_what_another_is(
        self, database: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with db.transaction() as session:
            run = make_run(session)
            write_folder(checkpoints.path(make_checkpoint(session, run, 3)))
            make_checkpoint(session, run, 4, ready=False)
            session.info.pop("deferred_jobs", None)
        options = ["--terminal", "--engine", "scripted"]
        monkeypatch.setattr(sys, "stdin", io.StringIO("/exit\n"))
        assert main(["demo@3", *options]) == 0
        assert main(["demo@4", *options]) == 1
        assert main(["demo@5", *options]) == 1
        assert main(["nothing", *options]) == 1
        said = " ".join(capsys.readouterr().err.split())
        assert "demo@4 is verifying" in said
        assert "no checkpoint at step 5" in said
        assert "neither a folder with a config.json nor RUN@STEP" in said

    def test_an_engine_that_is_not_installed_is_a_sentence(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("worker.chat.sources.find_spec", lambda _name: None)
        with pytest.raises(SourceError, match="vllm is not installed here"):
            open_engine("vllm", get_settings())


class TestSite:
    def source(self, monkeypatch: pytest.MonkeyPatch, answers: dict[str, httpx.Response]) -> SiteSource:
        """A site whose answers are given by path: the real one is asked in tests/browser/test_openai_clients.py."""

        def handle(request: httpx.Request) -> httpx.Response:
            return answers[request.url.path]

        made = httpx.Client
        monkeypatch.setattr(httpx, "Client", lambda **given: made(**given, transport=httpx.MockTransport(handle)))
        return SiteSource("https://grow.example/", "grow_key", "demo@3")

    MODEL = httpx.Response(200, json={"id": "demo@3"})

    def test_pieces_come_as_they_are_sent(self, monkeypatch: pytest.MonkeyPatch) -> None:
        events = [{"choices": [{"delta": {"content": text}}]} for text in ("He", "llo")]
        body = "".join(f"data: {json.dumps(event)}\n\n" for event in events) + ": nothing new\n\ndata: [DONE]\n\n"
        answer = httpx.Response(200, text=body, headers={"content-type": "text/event-stream"})
        source = self.source(monkeypatch, {"/v1/models/demo@3": self.MODEL, "/v1/chat/completions": answer})
        assert list(source.stream([{"role": "user", "content": "x"}], Sampling())) == ["He", "llo"]

    @pytest.mark.parametrize(
        ("answer", "sentence"),
        [
            (httpx.Response(401, json={"error": {"message": "x"}}), "GROW_KEY"),
            (httpx.Response(404, json={"error": {"message": "There is no run 'demo'."}}), "There is no run 'demo'."),
            (httpx.Response(200, text="<html>", headers={"content-type": "text/html"}), "200 OK"),
        ],
    )
    def test_a_site_that_refuses_says_why(
        self, monkeypatch: pytest.MonkeyPatch, answer: httpx.Response, sentence: str
    ) -> None:
        with pytest.raises(SourceError, match=sentence):
            self.source(monkeypatch, {"/v1/models/demo@3": answer})

    @pytest.mark.parametrize("data", ["not json", '{"error": {"message": "The engine is away."}}'])
    def test_an_answer_that_breaks_is_an_error(self, monkeypatch: pytest.MonkeyPatch, data: str) -> None:
        answer = httpx.Response(200, text=f"data: {data}\n\n", headers={"content-type": "text/event-stream"})
        source = self.source(monkeypatch, {"/v1/models/demo@3": self.MODEL, "/v1/chat/completions": answer})
        with pytest.raises(SourceError, match=r"no answer|engine is away"):
            list(source.stream([{"role": "user", "content": "x"}], Sampling()))


def test_the_page_gives_the_model_what_was_said_and_shows_text_as_text() -> None:
    source = Told(pieces=("<img src=x>", " & more"))
    answer = page.build(source, Sampling(), "en").fn
    shown = [{"role": "user", "content": "a"}, {"role": "assistant", "content": [{"type": "text", "text": "1 &lt; 2"}]}]
    written = list(answer("b", shown, "be brief", 0.5, 12))
    assert written[-1] == "&lt;img src=x&gt; &amp; more"
    assert source.asked == [
        [
            {"role": "system", "content": "be brief"},
            {"role": "user", "content": "a"},
            {"role": "assistant", "content": "1 < 2"},
            {"role": "user", "content": "b"},
        ]
    ]
    assert source.drawn[0].max_tokens == 12
