"""A run whose checkpoints answered a probe, with a gap, a failure and one still to come; and visitors' prompts."""

from collections.abc import Mapping, Sequence

from sqlalchemy.orm import Session

from registry import evaluations, prompts, samples, tickets
from registry.evaluations import NewSlice
from registry.models import Checkpoint, Evaluation, ProposedPrompt, Run, Task
from registry.models.base import FINISHED
from registry.samples import Item, Sample
from registry.settings import get_settings
from tests.factories import make_checkpoint, make_run, make_task, make_user

PROMPT = "To be, or not"
KEY = prompts.item_key(PROMPT)
SAID = {0: " the the the the", 1: " the the king", 2: None, 3: " to be, the king said", 4: None, 5: None}
"""By step; the ages without an answer were left out (2), failed (4), and are still to come (5)."""


def make_probe(session: Session) -> Task:
    """A probe task of this site's own."""
    return make_task(session, "probes", metric="", is_probe=True, output_type="generate_until")


def grow(session: Session, said: Mapping[int, str | None] = SAID) -> Run:
    """The run `growing`."""
    run = make_run(session, "growing")
    for step in said:
        make_checkpoint(session, run, step)
    probe = make_probe(session)
    for checkpoint in _by_step(session, run):
        text = said[checkpoint.step]
        if checkpoint.step == 2:
            continue
        [evaluation] = evaluations.plan(session, checkpoint)
        if text is not None:
            answer(session, evaluation, probe, {PROMPT: text, "x = ": text[::-1]})
        elif checkpoint.step == 4:
            tickets.cancel(session, evaluation_id=evaluation.id)
            evaluations.fail(session, evaluation.id, "The engine went down.")
    session.flush()
    return run


def answer(session: Session, evaluation: Evaluation, task: Task, texts: Mapping[str, str]) -> None:
    """Finish a probe evaluation with these answers by prompt, as a worker does."""
    folder = get_settings().samples_dir
    items = [Item(prompts.item_key(prompt), at, "", prompt, [], None) for at, prompt in enumerate(texts)]
    said = [
        Sample(item.item, at, None, [], [4], [len(text)], [], None, text, "length")
        for at, (item, text) in enumerate(zip(items, texts.values(), strict=True))
    ]
    items_path = samples.write_items(folder / "items", task.name, items)
    path = samples.write_slice(folder / str(evaluation.checkpoint_id) / str(evaluation.id), 0, said)
    tickets.cancel(session, evaluation_id=evaluation.id)
    protocol = {"engine": "scripted"}
    evaluations.start(session, evaluation.id, len(said), protocol)
    evaluations.add_slice(
        session, evaluation.id, NewSlice(0, len(said), path.relative_to(folder).as_posix(), engine_seconds=0.5)
    )
    file = items_path.relative_to(folder).as_posix()
    evaluations.finish(session, evaluation.id, results=[], protocol=protocol, items_file=file)


def accept(session: Session, text: str, *, answers: Mapping[int, str] | None = None) -> ProposedPrompt:
    """A visitor's prompt that was accepted, and answered by the checkpoints at these steps."""
    prompt = prompts.propose(session, make_user(session), text)
    prompts.accept(session, prompt.id, make_user(session, role="admin"))
    assert prompt.task is not None
    for evaluation in _of_task(session, prompt.task):
        step = session.get_one(Checkpoint, evaluation.checkpoint_id).step
        if step in (answers or {}) and evaluation.status != FINISHED:
            answer(session, evaluation, prompt.task, {text: (answers or {})[step]})
    session.flush()
    return prompt


def _by_step(session: Session, run: Run) -> Sequence[Checkpoint]:
    return session.query(Checkpoint).filter_by(run_id=run.id).order_by(Checkpoint.step).all()


def _of_task(session: Session, task: Task) -> Sequence[Evaluation]:
    return session.query(Evaluation).filter_by(task_id=task.id).all()
