"""The programs that people really use against the OpenAI-compatible interface: openai's client, and lm-eval."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from lm_eval.api.instance import Instance
from lm_eval.models.openai_completions import LocalCompletionsAPI
from sqlalchemy import func, select

from registry import accounts, calls, checkpoints, db, keys
from registry.models import ApiCall, Ticket
from registry.models.base import CANCELLED, FINISHED, QUEUED, RUNNING
from tests.browser.conftest import Site, wait_for
from tests.conftest import ROOT
from worker.engine.protocol import ScoreRequest
from worker.engine.scripted import ScriptedEngine

pytestmark = pytest.mark.browser
MODEL = "garden@10"
PROMPT = "A seed fell on the path"


@pytest.fixture(scope="module")
def token(site: Site) -> str:
    """A key of a member."""

    def make() -> str:
        with db.transaction() as session:
            user = accounts.register(session, "programmer", "correct horse battery")
            session.flush()
            return keys.make(session, user, "tests").token

    made: str = site.use(make)
    return made


@pytest.fixture
def client(site: Site, token: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{site.address}/v1", api_key=token, max_retries=0, timeout=60) as made:
        yield made


def folder(site: Site) -> Path:
    """Where the checkpoint's files are."""

    def find() -> Path:
        with db.read_session() as session:
            return checkpoints.path(checkpoints.by_label(session, MODEL)).absolute()

    found: Path = site.use(find)
    return found


def test_grow_chat_asks_the_site(site: Site, token: str) -> None:
    """A terminal without a model, which the site's engine answers."""
    command = [sys.executable, "-m", "worker.chat", MODEL, "--terminal", "--site", site.address]
    environment = {**os.environ, "GROW_KEY": token}
    talk = subprocess.run(
        command, input=f"{PROMPT}\n", capture_output=True, text=True, cwd=ROOT, env=environment, timeout=60
    )
    assert talk.returncode == 0, talk.stderr
    assert PROMPT in talk.stdout
    refused = subprocess.run(
        command, input="", capture_output=True, text=True, cwd=ROOT, env={**environment, "GROW_KEY": "no"}, timeout=60
    )
    assert refused.returncode != 0
    assert "wants a key" in refused.stderr + refused.stdout


def test_models_are_listed(client: openai.OpenAI) -> None:
    assert MODEL in [model.id for model in client.models.list()]
    assert client.models.retrieve(MODEL).object == "model"
    with pytest.raises(openai.NotFoundError, match="garden"):
        client.models.retrieve("garden@11")


def test_a_chat_is_answered_whole_and_as_a_stream_alike(client: openai.OpenAI) -> None:
    messages: Any = [{"role": "user", "content": PROMPT}]
    asked: dict[str, Any] = {"model": MODEL, "messages": messages, "max_tokens": 60, "temperature": 0}
    whole = client.chat.completions.create(**asked)
    assert PROMPT in str(whole.choices[0].message.content)  # the scripted engine says what it was asked
    assert whole.choices[0].finish_reason == "stop"
    assert whole.usage is not None
    assert whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens > 10
    parts = list(client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    text = "".join(part.choices[0].delta.content or "" for part in parts if part.choices)
    assert text == whole.choices[0].message.content
    assert len(parts) > 2
    assert parts[-1].usage == whole.usage
    assert parts[-2].choices[0].finish_reason == "stop"


def test_probabilities_and_several_choices(client: openai.OpenAI) -> None:
    messages: Any = [{"role": "user", "content": PROMPT}]
    answer = client.chat.completions.create(
        model=MODEL, messages=messages, n=3, logprobs=True, top_logprobs=2, max_completion_tokens=20
    )
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    for choice in answer.choices:
        assert choice.logprobs is not None
        assert choice.logprobs.content
        assert "".join(one.token for one in choice.logprobs.content) == choice.message.content
        assert all(one.logprob < 0 and len(one.top_logprobs) == 2 for one in choice.logprobs.content)


def test_completions_of_several_prompts_and_a_stream(client: openai.OpenAI) -> None:
    whole = client.completions.create(model=MODEL, prompt=[PROMPT, "Another"], max_tokens=60)
    assert [choice.text for choice in whole.choices] == [PROMPT, "Another"]
    stream = client.completions.create(model=MODEL, prompt=PROMPT, max_tokens=60, stream=True)
    assert "".join(part.choices[0].text for part in stream) == PROMPT


def test_hostile_text_comes_back_as_it_is(client: openai.OpenAI) -> None:
    prompt = "<script>alert(1)</script> \u202e\x1b[31m 中文 😀 " + "w" * 100
    answer = client.completions.create(model=MODEL, prompt=prompt, max_tokens=250)
    assert answer.choices[0].text.strip() == prompt.strip()


def test_errors_are_the_clients_own(site: Site, client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "x"}], temperature=7)
    assert (refused.value.param, refused.value.type) == ("temperature", "invalid_request_error")
    with pytest.raises(openai.BadRequestError) as too_long:
        client.completions.create(model=MODEL, prompt=[5] * 256, echo=True, max_tokens=1, logprobs=1)
    assert (too_long.value.code, too_long.value.param) == ("context_length_exceeded", "prompt")
    stranger = openai.OpenAI(base_url=f"{site.address}/v1", api_key="grow_nobody", max_retries=0)
    with pytest.raises(openai.AuthenticationError):
        stranger.models.list()


def test_who_hangs_up_in_the_middle_leaves_nothing_behind(site: Site, token: str, client: openai.OpenAI) -> None:
    stream = client.completions.create(model=MODEL, prompt="word " * 40, max_tokens=200, stream=True)
    next(iter(stream))
    stream.close()

    def is_over() -> bool:
        with db.read_session() as session:
            call = session.scalars(select(ApiCall).order_by(ApiCall.id.desc())).first()
            assert call is not None
            ticket = session.scalars(select(Ticket).where(Ticket.call_id == call.id)).one()
            # The scripted engine may have been faster.
            return call.status in (CANCELLED, FINISHED) and ticket.status in (CANCELLED, FINISHED)

    wait_for(lambda: site.use(is_over), 60, "the end of the call", site.home)


def test_all_that_is_asked_at_once_is_answered(site: Site, token: str) -> None:
    answered: list[str] = []

    def ask(number: int) -> None:
        with openai.OpenAI(base_url=f"{site.address}/v1", api_key=token, timeout=60) as client:
            stream = client.completions.create(model=MODEL, prompt=f"number {number}", max_tokens=60, stream=True)
            answered.append("".join(part.choices[0].text for part in stream))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answered) == [f"number {number}" for number in range(8)]


def test_lm_eval_gets_the_scores_of_the_engine(site: Site, token: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", token)
    client = LocalCompletionsAPI(
        base_url=f"{site.address}/v1/completions",
        model=MODEL,
        tokenizer=str(folder(site)),
        max_length=256,
        batch_size=8,
        max_retries=1,
    )
    pairs = [("To be, or not", " to be"), ("To be, or not", " to sleep"), ("春眠", "不觉晓"), ("a", "b")]
    found = client.loglikelihood(
        [Instance("loglikelihood", {}, pair, index, ("none", index, 1)) for index, pair in enumerate(pairs)],
        disable_tqdm=True,
    )
    engine = ScriptedEngine()
    engine.use(folder(site))
    for pair, (logprob, is_greedy) in zip(pairs, found, strict=True):
        context, continuation = client._encode_pair(*pair)
        [score] = engine.score([ScoreRequest(list(context), list(continuation))])
        assert logprob == pytest.approx(sum(score.token_logprobs), abs=1e-6)
        assert is_greedy == score.is_greedy


def test_lm_eval_gets_texts_until_a_stop(site: Site, token: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", token)
    client = LocalCompletionsAPI(
        base_url=f"{site.address}/v1/completions", model=MODEL, tokenizer=str(folder(site)), max_length=256
    )
    asked = [
        ("Count: one two three", {"until": ["\n"], "max_gen_toks": 40}),
        ("Again", {"until": ["\n"], "max_gen_toks": 40}),
    ]
    found = client.generate_until(
        [Instance("generate_until", {}, one, index, ("none", index, 1)) for index, one in enumerate(asked)],
        disable_tqdm=True,
    )
    assert found == ["Count: one two three", "Again"]


def test_what_was_used_is_counted(site: Site, client: openai.OpenAI) -> None:
    usage = client.completions.create(model=MODEL, prompt=PROMPT, max_tokens=60).usage
    assert usage is not None

    def look() -> tuple[calls.Today, int, int]:
        with db.read_session() as session:
            user = accounts.authenticate(session, "programmer", "correct horse battery")
            total = session.scalar(select(func.count(ApiCall.id)).where(ApiCall.user_id == user.id)) or 0
            num_open = session.scalar(select(func.count(ApiCall.id)).where(ApiCall.status.in_((QUEUED, RUNNING)))) or 0
            rows = calls.usage(session, user)
            assert sum(one.requests for one in rows) == total
            return calls.today(session, user), total, num_open

    today, total, num_open = site.use(look)
    assert today.used >= usage.total_tokens
    assert (today.reserved, num_open) == (0, 0)
    assert total >= 1


def test_a_stream_is_server_sent_events(site: Site, token: str) -> None:
    body = {"model": MODEL, "prompt": "hi", "stream": True}
    headers = {"authorization": f"Bearer {token}"}
    with httpx.stream("POST", f"{site.address}/v1/completions", json=body, headers=headers, timeout=60) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        lines = [line for line in answer.iter_lines() if line.startswith("data: ")]
    assert lines[-1] == "data: [DONE]"
    assert json.loads(lines[0].removeprefix("data: "))["object"] == "text_completion"
