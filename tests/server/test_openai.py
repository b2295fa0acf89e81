"""The OpenAI-compatible interface before a worker that the test plays: forms, errors, limits, and hanging up."""

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient

from registry import calls, checkpoints, db, events, keys, tickets
from registry.models import ApiCall, User
from registry.models.base import CANCELLED, FAILED, FINISHED, QUEUED, utcnow
from registry.settings import get_settings
from server import limits, pulse
from server.openai import following
from server.openai.answers import text_logprobs
from tests.factories import make_checkpoint, make_run, make_user
from tests.server.visitors import application

Write = Callable[[ApiCall, int], None]
ROW = ["To", -0.25, [["To", -0.25], ["Be", -1.5]]]


@pytest.fixture(autouse=True)
def _rows(database: object, redis_url: str) -> None:
    pulse.forget()
    events.worker_beat("w", "idle")
    with db.transaction() as session:
        run = make_run(session)
        make_checkpoint(session, run, 0)
        make_checkpoint(session, run, 500, kind="chat")
        make_checkpoint(session, run, 900, ready=False)


def new_key(name: str = "mei", scopes: tuple[str, ...] = keys.SCOPES) -> str:
    with db.transaction() as session:
        return keys.make(session, make_user(session, name), "test", scopes).token


@pytest.fixture
def client() -> Iterator[TestClient]:
    """A program with a key."""
    with TestClient(application(), headers={"authorization": f"Bearer {new_key()}"}) as opened:
        yield opened


def choice(index: int = 0, text: str = "To be", **more: Any) -> dict[str, Any]:
    """One answer in a call's result."""
    usual = {"finish_reason": "stop", "tokens": None, "prompt_tokens": 3, "completion_tokens": 2}
    return {"index": index, "text": text, **usual, **more}


def close(claim: tickets.Claim, result: list[dict[str, Any]] | None, **end: Any) -> None:
    """Records the end of a call and tells it."""
    told = {"status": FINISHED, "finish_reason": "stop", "error": "", **end}
    with db.transaction() as session:
        tickets.finish(session, claim.ticket_id, claim.fence, told["status"])
        assert claim.call_id is not None
        written = {"prompt_tokens": 3, "completion_tokens": 2} if result else {}
        calls.close_call(session, claim.call_id, result=result, **told, **written)
    events.append(f"call:{claim.call_id}", "done", told)


@contextmanager
def worker(write: Callable[[tickets.Claim], None]) -> Iterator[list[dict[str, Any]]]:
    """Answers the next call in a thread; gives the requests it has seen."""
    seen: list[dict[str, Any]] = []

    def run() -> None:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            with db.transaction() as session:
                claim = tickets.claim(session, "w")
                if claim is not None and claim.call_id is not None:
                    seen.append(calls.get(session, claim.call_id).request)
                    calls.start(session, claim.call_id)
            if claim is not None:
                write(claim)
                return
            time.sleep(0.02)

    thread = threading.Thread(target=run)
    thread.start()
    yield seen
    thread.join()


def streaming(*texts: str, result: list[dict[str, Any]] | None = None) -> Callable[[tickets.Claim], None]:
    """A worker that tells its answer piece by piece."""

    def write(claim: tickets.Claim) -> None:
        events.append(f"call:{claim.call_id}", "start", {"attempt": claim.fence})
        for text in texts:
            events.append(f"call:{claim.call_id}", "delta", {"text": text})
        close(claim, result or [choice(text="".join(texts))])

    return write


def chunks(response: httpx.Response) -> list[Any]:
    """What a stream sent, the comments left out."""
    lines = [line.removeprefix("data: ") for line in response.text.split("\n") if line.startswith("data: ")]
    return [line if line == "[DONE]" else json.loads(line) for line in lines]


CHAT = {"model": "demo@500-chat", "messages": [{"role": "user", "content": "Who is there?"}]}
TEXT = {"model": "demo@0", "prompt": "To be"}


def error_of(response: httpx.Response) -> dict[str, Any]:
    content = response.json()
    assert list(content) == ["error"]
    assert sorted(content["error"]) == ["code", "message", "param", "type"]
    return dict(content["error"])


class TestModels:
    def test_every_ready_checkpoint_is_a_model(self, client: TestClient) -> None:
        answer = client.get("/v1/models").json()
        assert answer["object"] == "list"
        assert [one["id"] for one in answer["data"]] == ["demo@0", "demo@500-chat"]
        assert client.get("/v1/models/demo@500-chat").json() == answer["data"][1]

    @pytest.mark.parametrize("name", ["demo@900", "demo@7", "other@0", "gpt-4"])
    def test_another_is_not_found(self, client: TestClient, name: str) -> None:
        answer = client.get(f"/v1/models/{name}")
        assert answer.status_code == 404
        assert (error_of(answer)["code"], error_of(answer)["param"]) == ("model_not_found", "model")


class TestKeys:
    @pytest.mark.parametrize("header", ["", "Bearer", "Bearer grow_wrong", "Basic abc"])
    def test_without_a_valid_key_nothing_is_answered(self, client: TestClient, header: str) -> None:
        for answer in (
            client.get("/v1/models", headers={"authorization": header}),
            client.post("/v1/chat/completions", json=CHAT, headers={"authorization": header}),
        ):
            assert answer.status_code == 401
            assert error_of(answer)["code"] == "invalid_api_key"

    def test_a_key_may_only_what_it_was_made_for(self, client: TestClient) -> None:
        headers = {"authorization": f"Bearer {new_key('reader', (keys.MODELS,))}"}
        assert client.get("/v1/models", headers=headers).status_code == 200
        answer = client.post("/v1/completions", json=TEXT, headers=headers)
        assert (answer.status_code, error_of(answer)["code"]) == (403, "insufficient_scope")

    def test_who_is_banned_is_told_so(self, client: TestClient) -> None:
        with db.transaction() as session:
            session.query(User).one().banned_at = utcnow()
        answer = client.post("/v1/completions", json=TEXT)
        assert answer.status_code == 403
        assert "may not ask" in error_of(answer)["message"]

    def test_last_use_is_noted(self, client: TestClient) -> None:
        client.get("/v1/models")
        with db.read_session() as session:
            [key] = keys.list_keys(session, session.query(User).one())
            assert key.last_used_at is not None


class TestChat:
    def test_a_whole_answer(self, client: TestClient) -> None:
        with worker(lambda claim: close(claim, [choice(tokens=[ROW])])) as seen:
            answer = client.post(
                "/v1/chat/completions",
                json={**CHAT, "max_completion_tokens": 9, "temperature": 0, "seed": 5, "logprobs": True}
                | {"top_logprobs": 1, "stop": "\n", "user": "me", "tools": [], "n": 1},
            )
        assert answer.status_code == 200, answer.text
        content = answer.json()
        assert (content["object"], content["model"]) == ("chat.completion", "demo@500-chat")
        assert content["id"].startswith("chatcmpl-")
        [one] = content["choices"]
        assert one["message"] == {"role": "assistant", "content": "To be", "refusal": None}
        assert one["finish_reason"] == "stop"
        assert one["logprobs"]["content"] == [
            {
                "token": "To",
                "logprob": -0.25,
                "bytes": [84, 111],
                "top_logprobs": [{"token": "To", "logprob": -0.25, "bytes": [84, 111]}],
            }
        ]
        assert content["usage"] == {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
        [request] = seen
        assert request["messages"] == CHAT["messages"]
        wanted = {"max_tokens": 9, "temperature": 0, "seed": 5, "logprobs": 1, "stop": ["\n"], "n": 1}
        assert request["params"].items() >= wanted.items()

    def test_a_stream(self, client: TestClient) -> None:
        with worker(streaming("To ", "be")):
            answer = client.post(
                "/v1/chat/completions",
                json={**CHAT, "stream": True, "stream_options": {"include_usage": True}},
            )
        assert answer.headers["content-type"].startswith("text/event-stream")
        *parts, usage, done = chunks(answer)
        assert done == "[DONE]"
        assert parts[0]["choices"][0]["delta"] == {"role": "assistant", "content": "", "refusal": None}
        assert [part["choices"][0]["delta"].get("content") for part in parts[1:]] == ["To ", "be", None]
        assert [part["choices"][0]["finish_reason"] for part in parts] == [None, None, None, "stop"]
        assert {part["object"] for part in parts} == {"chat.completion.chunk"}
        assert len({part["id"] for part in parts}) == 1
        assert all(part["usage"] is None for part in parts)
        assert (usage["choices"], usage["usage"]["total_tokens"]) == ([], 5)

    def test_parts_of_a_message_are_joined(self, client: TestClient) -> None:
        parts = [{"type": "text", "text": "Who "}, {"type": "text", "text": "is there?"}]
        messages = [{"role": "developer", "content": "Be brief."}, {"role": "user", "content": parts}]
        with worker(lambda claim: close(claim, [choice()])) as seen:
            assert client.post("/v1/chat/completions", json={**CHAT, "messages": messages}).status_code == 200
        assert seen[0]["messages"] == [{"role": "system", "content": "Be brief."}, *CHAT["messages"]]

    def test_several_answers_are_streamed_one_after_the_other(self, client: TestClient) -> None:
        with worker(lambda claim: close(claim, [choice(0, "one"), choice(1, "two")])):
            answer = client.post("/v1/chat/completions", json={**CHAT, "stream": True, "n": 2})
        found: dict[int, str] = {0: "", 1: ""}
        for part in chunks(answer)[:-1]:
            [one] = part["choices"]
            found[one["index"]] += one["delta"].get("content", "")
        assert found == {0: "one", 1: "two"}


class TestCompletions:
    def test_echo_with_logprobs_as_lm_eval_asks(self, client: TestClient) -> None:
        rows = [["To", None, None], [" be", -0.5, [[" be", -0.5], [" or", -2.0]]], [",", -1.0, [[",", -1.0]]]]
        body = {
            **TEXT,
            "prompt": [[5, 6]],
            "echo": True,
            "logprobs": 1,
            "max_tokens": 1,
            "temperature": 0,
            "seed": 1234,
        }
        with worker(lambda claim: close(claim, [choice(text="To be,", tokens=rows)])) as seen:
            content = client.post("/v1/completions", json=body).json()
        assert content["object"] == "text_completion"
        assert content["choices"][0]["text"] == "To be,"
        assert content["choices"][0]["logprobs"] == {
            "tokens": ["To", " be", ","],
            "token_logprobs": [None, -0.5, -1.0],
            "top_logprobs": [None, {" be": -0.5, " or": -2.0}, {",": -1.0}],
            "text_offset": [0, 2, 5],
        }
        assert (seen[0]["prompts"], seen[0]["echo"]) == ([[5, 6]], True)

    @pytest.mark.parametrize(
        ("prompt", "kept"),
        [("a", ["a"]), (["a", "b"], ["a", "b"]), ([4, 5], [[4, 5]]), ([[4], [5, 6]], [[4], [5, 6]])],
    )
    def test_prompts_come_in_four_forms(self, client: TestClient, prompt: Any, kept: Any) -> None:
        result = [choice(index) for index in range(len(kept))]
        with worker(lambda claim: close(claim, result)) as seen:
            answer = client.post("/v1/completions", json={**TEXT, "prompt": prompt})
        assert [one["index"] for one in answer.json()["choices"]] == list(range(len(kept)))
        assert seen[0]["prompts"] == kept
        assert seen[0]["params"]["max_tokens"] == 16

    def test_a_stream(self, client: TestClient) -> None:
        with worker(streaming("or ", "not")):
            answer = client.post("/v1/completions", json={**TEXT, "stream": True})
        *parts, done = chunks(answer)
        assert [part["choices"][0]["text"] for part in parts] == ["or ", "not", ""]
        assert (parts[-1]["choices"][0]["finish_reason"], done) == ("stop", "[DONE]")
        assert "usage" not in parts[0]

    def test_what_the_stream_lost_is_read_from_the_row(self, client: TestClient) -> None:
        with worker(streaming("or ", result=[choice(text="or not to be")])):
            answer = client.post("/v1/completions", json={**TEXT, "stream": True})
        assert [part["choices"][0]["text"] for part in chunks(answer)[:-1]] == ["or ", "not to be", ""]

    def test_tokens_of_one_text_are_told_by_the_likeliest(self) -> None:
        found = text_logprobs(2, [["\ufffd", -3.0, [["\ufffd", -1.0], ["\ufffd", -3.0]]], ["x", float("-inf"), []]])
        assert found is not None
        assert found["top_logprobs"] == [{"\ufffd": -1.0}, None]
        assert found["token_logprobs"] == [-3.0, -9999.0]


class TestRefusals:
    @pytest.mark.parametrize(
        ("path", "change", "param"),
        [
            ("chat/completions", {"temperature": 3}, "temperature"),
            ("chat/completions", {"top_p": 0}, "top_p"),
            ("chat/completions", {"messages": []}, "messages"),
            ("chat/completions", {"messages": [{"role": "tool", "content": "x"}]}, "messages"),
            ("chat/completions", {"messages": [{"role": "assistant", "content": "x"}]}, "messages"),
            ("chat/completions", {"messages": "hello"}, "messages"),
            ("chat/completions", {"tools": [{"type": "function"}]}, "tools"),
            ("chat/completions", {"response_format": {"type": "json_object"}}, "response_format"),
            ("chat/completions", {"logit_bias": {"5": 1}}, "logit_bias"),
            ("chat/completions", {"presence_penalty": 0.5}, "presence_penalty"),
            ("chat/completions", {"top_logprobs": 3}, "top_logprobs"),
            ("chat/completions", {"max_tokens": 0}, "max_tokens"),
            ("chat/completions", {"max_tokens": 100_000}, "max_tokens"),
            ("chat/completions", {"stream_options": {"include_usage": True}}, "stream_options"),
            ("chat/completions", {"nonsense": 1}, "nonsense"),
            ("completions", {"prompt": None}, "prompt"),
            ("completions", {"prompt": [-1]}, "prompt"),
            ("completions", {"prompt": [True]}, "prompt"),
            ("completions", {"max_tokens": 0}, "max_tokens"),
            ("completions", {"logprobs": 21}, "logprobs"),
            ("completions", {"best_of": 4}, "best_of"),
            ("completions", {"suffix": "end"}, "suffix"),
            ("completions", {"n": 0}, "n"),
            ("completions", {"model": "demo@12345"}, "model"),
        ],
    )
    def test_what_is_wrong_is_named(self, client: TestClient, path: str, change: dict[str, Any], param: str) -> None:
        body = {**(CHAT if path.startswith("chat") else TEXT), **change}
        answer = client.post(f"/v1/{path}", json=body)
        assert answer.status_code in (400, 404)
        error = error_of(answer)
        assert (error["param"], error["type"]) == (param, "invalid_request_error")
        with db.read_session() as session:
            assert session.query(ApiCall).count() == 0

    @pytest.mark.parametrize(
        ("change", "sentence"),
        [
            ({"prompt": ["x"] * 33}, "At most 32 prompts"),
            ({"prompt": ["x"] * 10, "n": 10}, "At most 64 answers"),
            ({"prompt": "x" * 64_001}, "64,001 characters"),
            ({"prompt": ""}, "empty"),
            ({"model": "demo@900"}, "is verifying"),
        ],
    )
    def test_what_is_too_much_is_told_in_a_sentence(
        self, client: TestClient, change: dict[str, Any], sentence: str
    ) -> None:
        answer = client.post("/v1/completions", json={**TEXT, **change})
        assert answer.status_code == 400
        assert sentence in error_of(answer)["message"]

    def test_a_body_that_is_no_json_or_too_long(self, client: TestClient) -> None:
        broken = client.post("/v1/completions", content=b"{", headers={"content-type": "application/json"})
        assert (broken.status_code, error_of(broken)["type"]) == (400, "invalid_request_error")
        long = client.post("/v1/completions", content=b" " * 4_000_001)
        assert (long.status_code, error_of(long)["code"]) == (413, "request_too_large")

    def test_other_parts_of_openais_interface_are_not_there(self, client: TestClient) -> None:
        answer = client.post("/v1/embeddings", json={"input": "x"})
        assert (answer.status_code, error_of(answer)["code"]) == (404, "unknown_url")

    def test_a_prompt_that_does_not_fit_is_the_clients_fault(self, client: TestClient) -> None:
        end = {"status": FAILED, "finish_reason": calls.NOT_FITTING, "error": "This model reads 8 tokens."}
        with worker(lambda claim: close(claim, None, **end)):
            answer = client.post("/v1/completions", json=TEXT)
        assert answer.status_code == 400
        assert error_of(answer) == {
            "message": "This model reads 8 tokens.",
            "type": "invalid_request_error",
            "param": "prompt",
            "code": "context_length_exceeded",
        }

    def test_what_failed_here_is_not_to_be_repeated(self, client: TestClient) -> None:
        with worker(lambda claim: close(claim, None, status=FAILED, finish_reason="error", error="It broke.")):
            answer = client.post("/v1/completions", json=TEXT)
        assert (answer.status_code, answer.headers["x-should-retry"]) == (500, "false")
        assert error_of(answer)["message"] == "It broke."


class TestBrokenStreams:
    def test_nothing_appears_twice_when_another_worker_begins_anew(self, client: TestClient) -> None:
        def write(claim: tickets.Claim) -> None:
            subject = f"call:{claim.call_id}"
            for kind, data in (("start", {"attempt": 1}), ("delta", {"text": "half"}), ("start", {"attempt": 2})):
                events.append(subject, kind, data)
            events.append(subject, "delta", {"text": "half a"})

        with worker(write):
            answer = client.post("/v1/completions", json={**TEXT, "stream": True})
        first, last = chunks(answer)
        assert first["choices"][0]["text"] == "half"
        assert last["error"]["code"] == "answer_broken_off"

    def test_where_nothing_was_sent_the_second_worker_goes_on(self, client: TestClient) -> None:
        def write(claim: tickets.Claim) -> None:
            events.append(f"call:{claim.call_id}", "start", {"attempt": 1})
            streaming("whole")(claim)

        with worker(write):
            answer = client.post("/v1/completions", json={**TEXT, "stream": True})
        assert [part["choices"][0]["text"] for part in chunks(answer)[:-1]] == ["whole", ""]

    def test_an_error_ends_the_stream(self, client: TestClient) -> None:
        with worker(lambda claim: close(claim, None, status=FAILED, finish_reason="error", error="It broke.")):
            answer = client.post("/v1/completions", json={**TEXT, "stream": True})
        assert chunks(answer)[-1]["error"]["message"] == "It broke."


class TestLimits:
    @pytest.fixture(autouse=True)
    def _fresh(self) -> None:
        limits._memory.reset()

    def set(self, patch: pytest.MonkeyPatch, **values: str) -> None:
        for name, value in values.items():
            patch.setenv(f"GROW_{name.upper()}", value)
        get_settings.cache_clear()

    def test_too_many_requests_a_minute(self, client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
        self.set(monkeypatch, api_limit="2/minute")
        assert [client.get("/v1/models").status_code for _ in range(3)] == [200, 200, 429]
        answer = client.get("/v1/models")
        assert error_of(answer)["code"] == "rate_limit_exceeded"
        assert 1 <= int(answer.headers["retry-after"]) <= 60

    def test_an_address_has_a_limit_too(self, client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
        self.set(monkeypatch, api_limit="2/minute")
        bad = {"authorization": "Bearer grow_wrong"}
        assert [client.get("/v1/models", headers=bad).status_code for _ in range(11)] == [401] * 10 + [429]

    def test_too_many_at_a_time(self, client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
        self.set(monkeypatch, api_concurrent="1")
        with db.transaction() as session:
            params = {"max_tokens": 5, "logprobs": None}
            request = {"kind": "text", "prompts": ["x"], "params": params}
            user, checkpoint = session.query(User).one(), checkpoints.by_label(session, "demo@0")
            calls.open_call(session, user, None, checkpoint, request)
        answer = client.post("/v1/completions", json=TEXT)
        assert (answer.status_code, error_of(answer)["code"]) == (429, "rate_limit_exceeded")
        assert answer.headers["retry-after"] == "5"
        assert "1 requests under way" in error_of(answer)["message"]

    def test_the_tokens_of_a_day(self, client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
        self.set(monkeypatch, api_tokens_per_day="20")
        with worker(lambda claim: close(claim, [choice()])):
            assert client.post("/v1/completions", json={**TEXT, "max_tokens": 20}).status_code == 200
        answer = client.post("/v1/completions", json={**TEXT, "max_tokens": 16})
        assert (answer.status_code, error_of(answer)["code"]) == (429, "rate_limit_exceeded")
        assert "5 are used, and this request may write 16" in error_of(answer)["message"]
        assert 1 <= int(answer.headers["retry-after"]) <= 86_400


class TestNobodyThere:
    def test_after_a_while_without_a_worker_the_place_is_given_up(
        self, client: TestClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        events.client().delete(events.WORKER_KEY)
        pulse.forget()
        monkeypatch.setattr(following, "AWAY_SECONDS", 0.1)
        answer = client.post("/v1/completions", json=TEXT)
        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) > 0
        with db.read_session() as session:
            assert session.query(ApiCall).one().status == CANCELLED

    @pytest.mark.parametrize("is_stream", [True, False])
    def test_who_hangs_up_frees_the_place_at_once(self, client: TestClient, is_stream: bool) -> None:
        assert client.portal is not None
        token = str(client.headers["authorization"])
        client.portal.call(hang_up, token, {**TEXT, "stream": is_stream})
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            with db.read_session() as session:
                status = session.query(ApiCall).one().status
            if status != QUEUED:
                break
            time.sleep(0.05)
        assert status == CANCELLED
        with db.transaction() as session:
            assert tickets.claim(session, "w") is None


async def hang_up(authorization: str, body: dict[str, Any]) -> None:
    """Sends a request as a server would hand it on, and closes the connection as soon as it waits."""
    content = json.dumps(body).encode()
    has_sent = False

    async def receive() -> dict[str, Any]:
        nonlocal has_sent
        if not has_sent:
            has_sent = True
            return {"type": "http.request", "body": content, "more_body": False}
        for _ in range(200):
            await asyncio.sleep(0.02)
            with db.read_session() as session:
                if session.query(ApiCall).count():
                    break
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        return None

    headers = {"authorization": authorization, "content-type": "application/json", "content-length": str(len(content))}
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": "/v1/completions",
        "raw_path": b"/v1/completions",
        "query_string": b"",
        "root_path": "",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        "client": ("testclient", 1),
        "server": ("testserver", 80),
    }
    await application()(scope, receive, send)
    await asyncio.sleep(0.5)
