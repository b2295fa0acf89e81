"""Prompts that visitors proposed, asked of every checkpoint by the real worker's code with the scripted engine."""

import hashlib
import json
from collections.abc import Iterator
from typing import Any

import pytest

from registry import db, evaluations, prompts, samples, suites, tickets
from registry.errors import NotFound
from registry.models import Evaluation
from registry.models.base import FINISHED, QUEUED
from registry.protocol import protocol_key
from tests.factories import make_user
from tests.worker.conftest import MakeCheckpoint, Publish
from worker import tasks
from worker.engine.scripted import ScriptedEngine
from worker.evaluate import run_evaluation
from worker.jobs import work_on
from worker.tasks import TaskError, prepare_task

HOSTILE = '{{ cycler.__init__.__globals__ }} {% for x in y %} <script>alert(1)</script> %(name)s "prompt"'


@pytest.fixture(autouse=True)
def _forget_tasks() -> Iterator[None]:
    tasks.prepare_task.cache_clear()
    tasks.load_task.cache_clear()
    yield
    tasks.prepare_task.cache_clear()
    tasks.load_task.cache_clear()


def accept(text: str) -> str:
    """Propose and accept a prompt; the name of its task."""
    with db.transaction() as session:
        prompt = prompts.propose(session, make_user(session), text)
        prompts.accept(session, prompt.id, make_user(session, role="admin"))
        assert prompt.task is not None
        return prompt.task.name


def work_all() -> list[int]:
    """Take tickets until there are none; the ids of the evaluations."""
    done = []
    engine = ScriptedEngine()
    while True:
        with db.transaction() as session:
            claim = tickets.claim(session, "test", resident_id=None)
        if claim is None:
            return done
        assert claim.evaluation_id is not None
        work_on(claim, engine)
        done.append(claim.evaluation_id)


def load(evaluation_id: int) -> Evaluation:
    with db.read_session() as session:
        return evaluations.get_evaluation(session, evaluation_id)


def test_an_accepted_prompt_is_answered_by_every_past_checkpoint(
    redis_url: str, publish: Publish, make_checkpoint: MakeCheckpoint
) -> None:
    ids = [publish(make_checkpoint("community", seed=4), step=step) for step in (1, 2, 3)]
    name = accept("To be, or not")
    done = [load(one) for one in work_all()]
    assert sorted(one.checkpoint_id for one in done) == ids
    for one in done:
        assert (one.status, one.error, one.task.name) == (FINISHED, "", name)
        [item] = samples.read_items(evaluations.items_path(one))
        assert (item.item, item.prompt) == (prompts.item_key("To be, or not"), "To be, or not")
        [answer] = samples.read(evaluations.sample_paths(one))
        assert answer.item == item.item
        assert answer.text


@pytest.mark.parametrize("text", [HOSTILE, "从前有座山，\n山里有座庙", "prompt", "42"])
def test_a_prompt_reaches_the_model_as_it_was_written(database: Any, text: str) -> None:
    prepared = prepare_task(accept(text))
    [item] = prepared.items
    [[request]] = prepared.requests
    assert item.prompt == text
    assert request.args[0] == text
    assert item.item == prompts.item_key(text)
    content = json.dumps({"prompt": text}, ensure_ascii=False)
    assert item.item == hashlib.sha256(content.encode()).hexdigest()[:16]


def test_it_is_asked_as_the_sites_own_prompts_are(database: Any, make_checkpoint: MakeCheckpoint) -> None:
    name, folder, engine = accept("To be, or not to be"), make_checkpoint("community", seed=4), ScriptedEngine()
    theirs, ours = run_evaluation(engine, folder, name), run_evaluation(engine, folder, "starter_probes")
    differing = {key for key in ours.protocol if ours.protocol[key] != theirs.protocol[key]}
    assert differing == {"items", "template"}
    same = prepare_task("starter_probes").requests[0][0].args[1]
    assert prepare_task(name).requests[0][0].args[1] == same
    own = next(one for one in ours.samples if one.item == prompts.item_key("To be, or not to be"))
    assert theirs.samples[0].text == own.text
    assert protocol_key(theirs.protocol)


def test_a_task_without_its_prompt_is_refused(database: Any) -> None:
    with pytest.raises(TaskError, match="no prompt behind"):
        prepare_task(f"{prompts.TASK_PREFIX}0123456789abcdef")


def test_what_is_withdrawn_while_a_worker_holds_it_is_dropped(
    redis_url: str, publish: Publish, make_checkpoint: MakeCheckpoint
) -> None:
    publish(make_checkpoint("community", seed=4), step=1)
    name = accept("To be")
    with db.transaction() as session:
        claim = tickets.claim(session, "test")
    assert claim is not None
    assert claim.evaluation_id is not None
    with db.transaction() as session:
        [prompt] = prompts.accepted(session)
        prompts.withdraw(session, prompt.id, make_user(session, role="admin"))
    work_on(claim, ScriptedEngine())
    assert load(claim.evaluation_id).status not in (FINISHED, QUEUED)
    with db.read_session() as session, pytest.raises(NotFound, match="no task"):
        suites.get_task(session, name)
