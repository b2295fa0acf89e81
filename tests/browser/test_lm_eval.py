"""lm-eval as people run it: whole tasks through `simple_evaluate` and `local-completions`, against the site."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lm_eval import simple_evaluate
from lm_eval.tasks import TaskManager

from registry import accounts, checkpoints, db, keys
from registry.models import ApiCall, Chat, Ticket, User
from registry.models.base import FINISHED
from tests.browser.conftest import Site
from tests.conftest import ROOT
from worker.engine.protocol import ScoreRequest
from worker.engine.scripted import ScriptedEngine
from worker.engine.tokenizer import load_tokenizer

pytestmark = pytest.mark.browser

MODEL = "garden@10"
CHOICE, TEXT, FREE = "starter_skills_pattern", "starter_bpb_en", "starter_probes"
LIMIT = 6


@pytest.fixture(scope="module")
def key(site: Site) -> str:
    """Of a researcher."""

    def make() -> str:
        with db.transaction() as session:
            return keys.make(session, accounts.register(session, "researcher", "harness and reins"), "lm-eval").token

    made: str = site.use(make)
    return made


@pytest.fixture(scope="module")
def folder(site: Site) -> Path:
    """Where the checkpoint's files are."""

    def find() -> Path:
        with db.read_session() as session:
            return checkpoints.path(checkpoints.by_label(session, MODEL)).absolute()

    found: Path = site.use(find)
    return found


@pytest.fixture(scope="module")
def found(site: Site, key: str, folder: Path) -> Iterator[dict[str, Any]]:
    """What lm-eval gives back: choices to score, texts to score in windows, and answers to write."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENAI_API_KEY", key)
        given: Any = simple_evaluate(
            model="local-completions",
            model_args={
                "base_url": f"{site.address}/v1/completions",
                "model": MODEL,
                "tokenizer": str(folder),
                "tokenizer_backend": "huggingface",
                "max_length": 256,
                "num_concurrent": 4,
                "max_retries": 1,
            },
            tasks=[CHOICE, TEXT, FREE],
            task_manager=TaskManager(include_path=str(ROOT / "suites" / "starter"), include_defaults=False),
            batch_size=4,
            limit=LIMIT,
            bootstrap_iters=0,
            log_samples=True,
        )
        yield given


def test_every_choice_has_the_score_of_the_engine_and_accuracy_follows(found: dict[str, Any], folder: Path) -> None:
    engine, tokenizer = ScriptedEngine(), load_tokenizer(folder)
    engine.use(folder)
    rows = found["samples"][CHOICE]
    assert len(rows) == LIMIT
    right = 0
    for row in rows:
        scores = []
        for place, (logprob, _) in enumerate(row["filtered_resps"]):
            before, choice = row["arguments"][place]
            context = list(tokenizer.encode(before, add_special_tokens=False))
            whole = list(tokenizer.encode(before + choice, add_special_tokens=False))
            [score] = engine.score([ScoreRequest(context, whole[len(context) :])])
            assert float(logprob) == pytest.approx(sum(score.token_logprobs), abs=1e-5)
            scores.append(float(logprob))
        right += int(np.argmax(scores)) == int(row["target"])
    assert found["results"][CHOICE]["acc,none"] == pytest.approx(right / LIMIT)


def test_texts_have_bits_and_probes_have_words(found: dict[str, Any]) -> None:
    assert 0 < found["results"][TEXT]["bits_per_byte,none"] < 100
    answers = [row["resps"][0][0] for row in found["samples"][FREE]]
    assert answers
    assert all(answers)


def test_its_requests_stood_in_the_line_like_everybodys(site: Site, found: dict[str, Any]) -> None:
    def look() -> tuple[int, int, int]:
        with db.read_session() as session:
            user = session.query(User).filter_by(name="researcher").one()
            asked = session.query(ApiCall).filter_by(user_id=user.id)
            served = session.query(Ticket).join(ApiCall, ApiCall.id == Ticket.call_id)
            served = served.filter(ApiCall.user_id == user.id, Ticket.status == FINISHED)
            return asked.count(), served.count(), session.query(Chat).filter_by(user_id=user.id).count()

    num_asked, num_served, num_chats = site.use(look)
    assert num_asked == num_served > 0
    assert num_chats == 0
