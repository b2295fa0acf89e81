"""The one-checkpoint API: OpenAI's own client, the short question, refusals, and the image that it comes in."""

import json
import re
import shlex
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import openai
import pytest
import uvicorn
from fastapi.testclient import TestClient

from registry.errors import Invalid
from tests.browser.tiny import write_folder
from tests.conftest import ROOT, free_port
from tests.worker.test_chat import chat_folder
from worker.answers import model as models
from worker.answers.__main__ import Options, find_model
from worker.answers.app import create_app
from worker.answers.model import Model
from worker.chat.sources import SourceError
from worker.engine.protocol import EngineError
from worker.engine.scripted import ScriptedEngine

SAID = "user: Who are you?\nassistant:"


@contextmanager
def serve(
    folder: Path, *, seconds: float = 0.0, at_once: int = 2, key: str = ""
) -> Iterator[tuple[str, ScriptedEngine]]:
    """A real server with the scripted engine."""
    engine, port = ScriptedEngine(seconds_per_token=seconds), free_port()
    app = create_app(lambda: Model(engine, folder, "tiny@8", at_once=at_once), key)
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="warning", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    try:
        yield f"http://127.0.0.1:{port}", engine
    finally:
        server.should_exit = True
        thread.join(timeout=10)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serve(chat_folder(tmp_path_factory.mktemp("answers") / "chat")) as (address, _):
        yield address


def test_openais_own_client_asks_it_whole_and_streamed(site: str) -> None:
    client = openai.OpenAI(base_url=f"{site}/v1", api_key="-")
    assert [one.id for one in client.models.list()] == ["tiny@8"]
    question = [{"role": "user", "content": "Who are you?"}]
    whole = client.chat.completions.create(model="tiny@8", messages=question)
    assert whole.choices[0].message.content == SAID
    assert whole.usage.completion_tokens == whole.usage.prompt_tokens > 5
    options = {"stream": True, "stream_options": {"include_usage": True}}
    parts = list(client.chat.completions.create(model="tiny@8", messages=question, **options))
    assert "".join(part.choices[0].delta.content for part in parts if part.choices) == SAID
    assert parts[-1].usage.total_tokens == whole.usage.total_tokens
    text = client.completions.create(model="tiny@8", prompt="To be", max_tokens=40)
    assert text.choices[0].text == "To be"


def test_the_short_way_takes_a_question_in_the_address_and_earlier_ones_in_a_body(site: str) -> None:
    answer = httpx.get(f"{site}/ask", params={"question": "Who are you?"}).json()
    assert (answer["question"], answer["answer"], answer["model"]) == ("Who are you?", SAID, "tiny@8")
    assert httpx.get(f"{site}/ask", params={"question": "Who are you?", "stream": True}).text == SAID
    asked = {"question": "And?", "history": [["Who?", "Me."]]}
    assert httpx.post(f"{site}/ask", json=asked).json()["answer"].startswith("user: Who?\nassistant: Me.\nuser: And?")


def test_its_page_says_how_and_what_it_shows_cannot_run(site: str) -> None:
    answer = httpx.get(site)
    assert f"{site}/v1" in answer.text
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert httpx.get(f"{site}/health").json() == {"status": "ok", "model": "tiny@8"}


CHAT = {"messages": [{"role": "user", "content": "x"}]}


@pytest.mark.parametrize(
    ("path", "body", "status", "said"),
    [
        ("/v1/chat/completions", {"messages": []}, 400, "messages"),
        ("/v1/chat/completions", {**CHAT, "logit_bias": {}}, 400, "logit_bias"),
        ("/v1/chat/completions", {**CHAT, "n": 2}, 400, "n:"),
        ("/v1/chat/completions", {**CHAT, "temperature": 9}, 400, "temperature"),
        ("/v1/chat/completions", {**CHAT, "max_tokens": 0}, 400, "max_tokens"),
        ("/v1/chat/completions", {**CHAT, "model": "other"}, 404, "tiny@8"),
        ("/v1/chat/completions", {"messages": [{"role": "robot", "content": "x"}]}, 400, "role"),
        ("/v1/completions", {"prompt": ["a", "b"]}, 400, "prompt"),
        ("/v1/completions", {"prompt": "x", "stop": ["a"] * 5}, 400, "stop"),
        ("/ask", {"question": ""}, 400, "question"),
    ],
)
def test_what_is_not_supported_is_refused_by_its_name(
    site: str, path: str, body: dict[str, object], status: int, said: str
) -> None:
    answer = httpx.post(site + path, json=body)
    assert (answer.status_code, said in answer.json()["error"]["message"]) == (status, True)


def test_a_body_without_end_is_not_read(site: str) -> None:
    answer = httpx.post(f"{site}/ask", content=iter([b"{" * 1_000]), headers={"content-type": "application/json"})
    assert answer.status_code in (400, 413)
    assert httpx.post(f"{site}/ask", content=b" " * 4_000_001).status_code == 413


def test_hanging_up_frees_the_engine_and_the_place(tmp_path: Path) -> None:
    with serve(write_folder(tmp_path / "base"), seconds=0.05, at_once=1) as (address, engine):
        asked = {"prompt": "a long text " * 20, "max_tokens": 200, "stream": True}
        with httpx.stream("POST", f"{address}/v1/completions", json=asked) as answer:
            next(answer.iter_lines())
            assert engine.num_streams_open == 1
        deadline = time.monotonic() + 30
        while engine.num_streams_open and time.monotonic() < deadline:
            time.sleep(0.05)
        assert engine.num_streams_open == 0
        assert httpx.get(f"{address}/ask", params={"question": "x"}, timeout=30).status_code == 200


def test_too_many_who_wait_are_told_when_to_come_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "MAX_WAITING", 0)
    with serve(write_folder(tmp_path / "base")) as (address, _):
        answer = httpx.get(f"{address}/ask", params={"question": "x"})
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")


def test_with_a_key_nobody_asks_without_it(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "base")
    app = create_app(lambda: Model(ScriptedEngine(), folder, "base", at_once=1), "secret")
    with TestClient(app) as client:
        assert client.get("/ask?question=x").status_code == 401
        assert client.get("/ask?question=x", headers={"authorization": "Bearer wrong"}).status_code == 401
        assert client.get("/ask?question=x", headers={"authorization": "Bearer secret"}).status_code == 200
        assert client.get("/health").status_code == 200


def test_an_engine_that_fails_is_an_error_and_the_server_goes_on(tmp_path: Path) -> None:
    class Failing(ScriptedEngine):
        def stream(self, prompt, sampling):  # type: ignore[no-untyped-def]
            raise EngineError("The model gives no finite numbers.")

    folder = write_folder(tmp_path / "base")
    with TestClient(create_app(lambda: Model(Failing(), folder, "base", at_once=1))) as client:
        for _ in range(2):
            answer = client.post("/v1/completions", json={"prompt": "x"})
            assert (answer.status_code, "finite" in answer.json()["error"]["message"]) == (500, True)


class TestFinding:
    def test_a_mounted_folder_is_taken_as_it_is(self, tmp_path: Path) -> None:
        folder = write_folder(tmp_path / "model")
        assert find_model(Options(model=str(folder))) == (folder, "model")

    def test_a_folder_with_code_is_not_loaded(self, tmp_path: Path) -> None:
        folder = write_folder(tmp_path / "model")
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, "auto_map": {"AutoModel": "evil.py"}}))
        with pytest.raises(Invalid, match="auto_map"):
            find_model(Options(model=str(folder)))

    @pytest.mark.parametrize(
        ("name", "said"), [("", "GROW_MODEL"), ("demo", "cannot be fetched from"), ("a b", "cannot")]
    )
    def test_what_is_not_there_is_a_sentence(self, name: str, said: str) -> None:
        with pytest.raises(SourceError, match=said):
            find_model(Options(model=name))


class TestImage:
    """Docker cannot run here: the file is read as Docker would read it."""

    def instructions(self) -> list[tuple[str, str]]:
        text = (ROOT / "deploy" / "answers.Dockerfile").read_text().replace("\\\n", " ")
        lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
        return [(line.partition(" ")[0], line.partition(" ")[2]) for line in lines]

    def test_it_is_made_of_known_instructions_with_a_pinned_base_and_no_root(self) -> None:
        found = self.instructions()
        known = {"FROM", "RUN", "WORKDIR", "COPY", "USER", "ENV", "VOLUME", "EXPOSE", "HEALTHCHECK", "CMD"}
        assert {name for name, _ in found} <= known
        assert found[0] == ("FROM", "python:3.11-slim")
        users = [rest for name, rest in found if name == "USER"]
        assert users == ["grow"]
        assert found[-1][0] == "CMD"
        for name, rest in found:
            if name == "RUN":
                assert "--no-cache-dir" in rest or "pip" not in rest
                assert shlex.split(rest)

    def test_what_it_copies_is_there_and_is_enough_to_start(self) -> None:
        copied = [shlex.split(rest)[:-1] for name, rest in self.instructions() if name == "COPY"]
        paths = [path for sources in copied for path in sources]
        assert all((ROOT / path).exists() for path in paths)
        [command] = [json.loads(rest) for name, rest in self.instructions() if name == "CMD"]
        assert command == ["python", "-m", "worker.answers"]

    def test_its_list_of_packages_holds_what_the_program_imports(self) -> None:
        listed = (ROOT / "requirements" / "answers.txt").read_text()
        for name in ("torch", "transformers", "fastapi", "uvicorn", "pydantic-settings", "huggingface-hub", "httpx"):
            assert re.search(rf"^{name}==", listed, re.MULTILINE)
        for name in ("sqlalchemy", "celery", "deepspeed", "vllm"):
            assert not re.search(rf"^{name}", listed, re.MULTILINE)
