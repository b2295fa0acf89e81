"""Fills a data folder with a run that looks like a real one, for working on pages and for their tests.

`GROW_HOME=/tmp/somewhere python -m tests.server.seed`, then `GROW_HOME=/tmp/somewhere python -m server`.
"""

import datetime as dt
import math
import random

from sqlalchemy import select
from sqlalchemy.orm import Session

from registry import accounts, changes, checkpoints, db, evaluations, fingerprints, news, runs, samples, tickets
from registry.evaluations import NewSlice, Score
from registry.models import Checkpoint, Evaluation, Run, Suite, Task
from registry.models.base import utcnow
from registry.samples import Item, Sample
from registry.settings import get_settings
from registry.store import Manifest
from tests.conftest import migrate
from tests.server import answers
from tests.server.answers import OLD_PROTOCOL, PROTOCOL

STEPS = (0, 16, 32, 64, 128, 250, 500, 750, 1000, 1250, 1500, 1750)
TOKENS_PER_STEP = 4096
CONFIG = {
    "model": {
        "vocab_size": 8192,
        "hidden_size": 256,
        "num_layers": 6,
        "num_heads": 4,
        "intermediate_size": 704,
        "context_length": 256,
        "tie_embeddings": True,
    },
    "corpus": {
        "mixture": {"zh": 0.5, "en": 0.25, "code": 0.25},
        "sources": [{"name": "statutes"}, {"name": "shakespeare"}, {"name": "stdlib"}],
    },
    "licences": {"statutes": "outside copyright; package MIT", "shakespeare": "Public domain", "stdlib": "PSF-2.0"},
}
ACC, BITS, EXACT = ("acc", True), ("bits_per_byte", False), ("exact_match", True)
TASKS = (
    # name, title, title_zh, ability, metric, chance, first value, last value
    ("zh_bits", "Bits per byte, Chinese statutes", "中文法条每字节比特", "chinese", BITS, None, 2.83, 1.19),
    ("zh_next_line", "Which line follows, Chinese", "中文：哪一行在后", "chinese", ACC, 0.25, 0.26, 0.49),
    ("zh_pairs", "Swapped words, Chinese", "中文：词序对错", "chinese", ACC, 0.5, 0.51, 0.83),
    ("en_bits", "Bits per byte, Shakespeare", "莎士比亚每字节比特", "english", BITS, None, 4.52, 2.31),
    ("en_next_line", "Which line follows, Shakespeare", "莎士比亚：哪一行在后", "english", ACC, 0.25, 0.24, 0.46),
    ("en_pairs", "Swapped words, English", "英文：词序对错", "english", ACC, 0.5, 0.49, 0.74),
    ("code_bits", "Bits per byte, Python", "Python 每字节比特", "code", BITS, None, 3.65, 1.62),
    ("code_next_line", "Which line follows, Python", "Python：哪一行在后", "code", ACC, 0.25, 0.27, 0.57),
    ("basic_skills", "Basic skills, coding", "基本技能：编程", "code", ACC, 0.25, 0.23, 0.31),
    ("zh_idiom", "Complete the idiom", "补全成语", "chinese", ACC, 0.25, 0.25, 0.44),
    ("sums", "Sums of two numbers", "两数之和", "maths", EXACT, None, 0.0, 0.35),
    ("zh_exam", "School exams", "学校考试", "knowledge", ACC, 0.25, 0.25, 0.3),
)
NUM_PANEL = 9
"""The tasks after these are asked at milestones only."""
MILESTONES = (500, 1500)
OLD_UNTIL, BOTH_UNTIL = 64, 250
"""Swapped words, Chinese, was scored by an older engine, then twice by both, then by the new one."""
BUDGET_SENTENCE = (
    "Left out: the evaluations of this checkpoint have cost 41 of their 40 engine seconds, and this one takes about "
    "7 more. It can be run by hand."
)
DOWN_SENTENCE = "The engine went down 5 times at this; it is not tried again."
ENGINE_LOG = "INFO Initializing a V1 LLM engine\nRuntimeError: <device> out of memory\n"
PROMPTS = {
    "第一条　为了": (
        "的的的的，，的的",
        "规定的，应当依照本法的规定，由有关部门",
        "保护公民、法人和其他组织的合法权益，维护社会秩序，根据宪法，制定本法。",
    ),
    "To be, or not to be": (
        " the the , , the the the ,",
        ", and the lord, and the world of the",
        ", that is the matter: I will not stay\nTo see the king; and yet my lord is come.",
    ),
    "def read_lines(path):\n": (
        "    = = ( ( self self",
        "    return self.self\n    if self.path:",
        "    with open(path) as file:\n        return [line.strip() for line in file]\n",
    ),
    "My lord, I": (
        " , , and and",
        " am not so the lord",
        " have a letter from your noble son,\nAnd he commends him to your grace.",
    ),
}


def seed(session: Session) -> Run:
    """A run with twelve checkpoints, one of them still being evaluated, uploads, imports, news and two people."""
    rng = random.Random(7)
    run = runs.create_run(
        session,
        name="demo",
        config=CONFIG,
        git_revision="4f0c2a91d6be",
        num_parameters=7_340_032,
        tokens_per_step=TOKENS_PER_STEP,
        max_steps=6000,
    )
    run.created_at = utcnow() - dt.timedelta(minutes=41)
    tasks = _tasks(session)
    probe = _probe(session, tasks[0].suite)
    _metrics(session, run, rng)
    for step in STEPS:
        checkpoint = _checkpoint(session, run, step, age_minutes=40 * (1 - step / STEPS[-1]) + 0.5)
        checkpoint.is_milestone = step in MILESTONES
        evaluations.plan(session, checkpoint)
        by_task = {e.task_id: e for e in evaluations.for_checkpoint(session, checkpoint)}
        for task in tasks[: 4 if step == STEPS[-1] else len(tasks)]:
            if task.id in by_task:
                _work(session, checkpoint, by_task[task.id], task)
        if step == STEPS[-1]:
            answers.begin(session, by_task[tasks[4].id], tasks[4])
        _say(session, by_task[probe.id], _share(step))
    _warn(session, run)
    _others(session, run)
    _import(session, tasks[1])
    _compare(session)
    return run


def _share(step: int) -> float:
    """How much of what it will have learned at the last step the model knows."""
    return math.log1p(step / 60) / math.log1p(STEPS[-1] / 60)


def _tasks(session: Session) -> list[Task]:
    starter, chinese = Suite(name="starter"), Suite(name="chinese")
    session.add_all([starter, chinese])
    session.flush()
    made = []
    for position, (name, title, title_zh, ability, (metric, higher), chance, *_values) in enumerate(TASKS):
        fields = {"title": title, "title_zh": title_zh, "ability": ability, "metric": metric, "chance": chance}
        kind = {"acc": "multiple_choice", "exact_match": "generate_until"}.get(metric, "loglikelihood_rolling")
        task = Task(name=name, output_type=kind, position=position, higher_is_better=higher, **fields)
        task.suite, task.schedule = (starter, "panel") if position < NUM_PANEL else (chinese, "milestone")
        made.append(task)
    session.add_all(made)
    session.flush()
    return made


def _probe(session: Session, suite: Suite) -> Task:
    task = Task(suite=suite, name="probes", title="Probes", title_zh="续写", ability="english", is_probe=True)
    task.output_type = "generate_until"
    session.add(task)
    session.flush()
    return task


def _metrics(session: Session, run: Run, rng: random.Random) -> None:
    for step in range(1, STEPS[-1] + 60, 5):
        loss = 3.1 + 5.9 * math.exp(-step / 130) + 0.9 * math.exp(-step / 900) + rng.gauss(0, 0.06)
        values = {
            "train/loss": loss,
            "train/learning_rate": 1e-3 * min(1, step / 100),
            "train/grad_norm": 0.6 + 2.2 * math.exp(-step / 60) + abs(rng.gauss(0, 0.08)),
            "train/tokens_per_second": 5800 + rng.gauss(0, 160),
        }
        if step % 50 == 1:
            values |= {f"heldout/loss_{name}": loss * scale for name, scale in (("zh", 0.9), ("en", 1.16), ("code", 1))}
        runs.log_metrics(session, run, step, step * TOKENS_PER_STEP, values)
    session.flush()


def _checkpoint(
    session: Session, run: Run, step: int, *, age_minutes: float, kind: str = "pretrained", ready: bool = True
) -> Checkpoint:
    digest = f"{step:x}{run.name.encode().hex()}".ljust(64, "5")[:64]
    files = {
        "config.json": {"size": 742, "sha256": digest},
        "model.safetensors": {"size": 14_681_240, "sha256": digest[::-1]},
        "tokenizer.json": {"size": 512_310, "sha256": digest},
    }
    facts = {"tokens_seen": step * TOKENS_PER_STEP, "flops": 6.0 * 7_340_032 * step * TOKENS_PER_STEP}
    folder = f"{run.name}/step-{step}" + ("-chat" if kind == "chat" else "")
    manifest = Manifest(files=files, facts=facts)
    checkpoint = checkpoints.register(session, run, step=step, folder=folder, manifest=manifest, kind=kind)
    checkpoint.created_at = utcnow() - dt.timedelta(minutes=age_minutes)
    if ready:
        checkpoints.mark_ready(session, checkpoint, 7_340_032)
    session.flush()
    return checkpoint


def _work(session: Session, checkpoint: Checkpoint, evaluation: Evaluation, task: Task) -> None:
    """What a worker makes of an evaluation: two of them go wrong, and one task has changed its engine."""
    first, last = next(row for row in TASKS if row[0] == task.name)[6:]
    aim = first + (last - first) * _share(checkpoint.step) ** 1.15
    is_old = task.name == "zh_pairs" and checkpoint.step <= BOTH_UNTIL
    if (task.name, checkpoint.step) == ("en_pairs", 500):
        tickets.cancel(session, evaluation_id=evaluation.id)
        evaluations.fail(session, evaluation.id, DOWN_SENTENCE, ENGINE_LOG)
        return
    if (task.name, checkpoint.step) == ("basic_skills", 1000):
        tickets.cancel(session, evaluation_id=evaluation.id)
        evaluations.cancel(session, evaluation.id, BUDGET_SENTENCE)
        return
    answers.finish(session, evaluation, task, aim, OLD_PROTOCOL if is_old else PROTOCOL)
    if is_old and checkpoint.step > OLD_UNTIL:
        [again] = evaluations.plan_tasks(session, checkpoint, [task], again=True)
        answers.finish(session, again, task, aim + 0.02, PROTOCOL)


def _say(session: Session, evaluation: Evaluation, share: float) -> None:
    age = 0 if share < 0.2 else 1 if share < 0.75 else 2
    said = [
        Sample(f"{at:016x}", at, None, [], [24], [len(texts[age].encode())], [], None, texts[age], "length")
        for at, texts in enumerate(PROMPTS.values())
    ]
    folder = get_settings().samples_dir
    items = [Item(f"{at:016x}", at, "", prompt, [], None) for at, prompt in enumerate(PROMPTS)]
    items_path = samples.write_items(folder / "items", "probes", items)
    path = samples.write_slice(folder / str(evaluation.checkpoint_id) / str(evaluation.id), 0, said)
    tickets.cancel(session, evaluation_id=evaluation.id)
    evaluations.start(session, evaluation.id, len(said), PROTOCOL)
    part = NewSlice(0, len(said), path.relative_to(folder).as_posix(), 2.2)
    evaluations.add_slice(session, evaluation.id, part)
    evaluations.finish(
        session,
        evaluation.id,
        results=[],
        protocol=PROTOCOL,
        items_file=items_path.relative_to(folder).as_posix(),
    )
    session.flush()


def _warn(session: Session, run: Run) -> None:
    """One step holds another's weights, and two behave alike."""
    by_step = {c.step: c for c in checkpoints.list_checkpoints(session, run)}
    for one, other in ((16, 32), (32, 16)):
        fingerprints.warn(by_step[one], fingerprints.SAME_WEIGHTS, step=other)
    for one, other in ((750, 1250), (1250, 750)):
        fingerprints.warn(by_step[one], fingerprints.TWIN, step=other, distance=0.0003)
    by_step[1000].fingerprint = {"vllm/bfloat16": [-31.25, -18.5]}
    session.flush()


def _compare(session: Session) -> None:
    """Judge every step, as the comparing job does in a session of its own."""
    session.expire_all()
    finished = session.scalars(select(Evaluation.id).where(Evaluation.status == "finished").order_by(Evaluation.id))
    for evaluation_id in finished.all():
        evaluation = changes.load(session, evaluation_id)
        assert evaluation is not None
        for pair in changes.pairs(session, evaluation):
            if pair.after is evaluation:
                changes.record(session, pair, changes.difference(pair))
        changes.mark_compared(session, evaluation_id)
    session.flush()
    session.expire_all()


def _import(session: Session, task: Task) -> None:
    """Scores of a model whose files are not here."""
    run = runs.create_run(session, name="elsewhere", kind="upload")
    for step, value in ((1000, 0.27), (2000, 0.31), (3000, 0.36)):
        checkpoint = checkpoints.register_external(session, run, step=step, tokens_seen=step * 2_000_000)
        score = Score(task.metric, value, 0.012, value - 0.024, value + 0.024, 1400)
        protocol = {"source": "lm-eval 0.4.8, hf", "dtype": "float16", "num_fewshot": 0, "imported": True}
        evaluations.record_imported(session, checkpoint, task, protocol=protocol, results=[score], num_items=1400)
    session.flush()


def _others(session: Session, run: Run) -> None:
    _checkpoint(session, run, 1750, age_minutes=0.3, kind="chat")
    upload = runs.create_run(session, name="uploads", kind="upload")
    bad = _checkpoint(session, upload, 1, age_minutes=90, ready=False)
    checkpoints.mark_rejected(session, bad, "model.safetensors holds NaN in model.layers.3.mlp.up_proj.weight.")
    admin = accounts.register(session, "admin", "correct horse battery", role="admin")
    news.publish_post(
        session,
        title="It has learned to open a statute",
        body="After **6 million tokens** the model begins a law the way laws begin.\n\n"
        "> 第一条　为了保护公民\n\nSee [the run](/runs/demo).",
        author=admin,
        run=run,
        step=1500,
        kind="checkpoint",
    )
    news.publish_post(
        session, title="The observatory is open", body="Every checkpoint is tested and kept.", author=admin
    )


def fill() -> None:
    """Make the folder in GROW_HOME and fill it."""
    get_settings().home.mkdir(parents=True, exist_ok=True)
    migrate(db.current_engine())
    with db.transaction() as session:
        session.info["deferred_jobs"] = {}
        seed(session)
        session.info.pop("deferred_jobs")


if __name__ == "__main__":
    fill()
