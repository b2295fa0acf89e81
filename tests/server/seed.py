"""Fills a data folder with a run that looks like a real one, for working on pages and for their tests.

`GROW_HOME=/tmp/somewhere python -m tests.server.seed`, then `GROW_HOME=/tmp/somewhere python -m server`.
"""

import datetime as dt
import math
import random

from sqlalchemy.orm import Session

from registry import accounts, checkpoints, db, evaluations, news, runs, samples, tickets
from registry.models import Checkpoint, Evaluation, Run, Suite, Task
from registry.models.base import utcnow
from registry.settings import get_settings
from registry.store import Manifest
from tests.conftest import migrate

STEPS = (0, 16, 32, 64, 128, 250, 500, 750, 1000, 1250, 1500, 1750)
TOKENS_PER_STEP = 4096
ACC, BITS = ("acc", True), ("bits_per_byte", False)
TASKS = (
    # name, title, title_zh, ability, metric, chance, first value, last value, half the interval
    ("zh_bits", "Bits per byte, Chinese statutes", "中文法条每字节比特", "chinese", BITS, None, 2.83, 1.19, 0.04),
    ("zh_next_line", "Which line follows, Chinese", "中文：哪一行在后", "chinese", ACC, 0.25, 0.26, 0.41, 0.06),
    ("zh_pairs", "Swapped words, Chinese", "中文：词序对错", "chinese", ACC, 0.5, 0.51, 0.83, 0.05),
    ("en_bits", "Bits per byte, Shakespeare", "莎士比亚每字节比特", "english", BITS, None, 4.52, 2.31, 0.05),
    ("en_next_line", "Which line follows, Shakespeare", "莎士比亚：哪一行在后", "english", ACC, 0.25, 0.24, 0.36, 0.06),
    ("en_pairs", "Swapped words, English", "英文：词序对错", "english", ACC, 0.5, 0.49, 0.74, 0.05),
    ("code_bits", "Bits per byte, Python", "Python 每字节比特", "code", BITS, None, 3.65, 1.62, 0.05),
    ("code_next_line", "Which line follows, Python", "Python：哪一行在后", "code", ACC, 0.25, 0.27, 0.47, 0.06),
    ("basic_skills", "Basic skills, coding", "基本技能：编程", "code", ACC, 0.25, 0.23, 0.31, 0.07),
)
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
    """A run with twelve checkpoints, one of them still being evaluated, an upload, news and two people."""
    rng = random.Random(7)
    run = runs.create_run(
        session,
        name="demo",
        config={"model": {"hidden_size": 256, "num_hidden_layers": 6}, "data": {"zh": 0.5, "en": 0.25, "code": 0.25}},
        git_revision="4f0c2a91d6be",
        num_parameters=7_340_032,
        tokens_per_step=TOKENS_PER_STEP,
        max_steps=6000,
    )
    run.created_at = utcnow() - dt.timedelta(minutes=41)
    tasks = _tasks(session)
    probe = _probe(session)
    _metrics(session, run, rng)
    for index, step in enumerate(STEPS):
        checkpoint = _checkpoint(session, run, step, age_minutes=40 * (1 - step / STEPS[-1]) + 0.5)
        share = math.log1p(step / 60) / math.log1p(STEPS[-1] / 60)
        open_from = 4 if index == len(STEPS) - 1 else len(tasks)
        evaluations.plan(session, checkpoint)
        session.flush()
        by_task = {e.task_id: e for e in evaluations.for_checkpoint(session, checkpoint)}
        for task in tasks[:open_from]:
            _finish(session, by_task[task.id], task, share, rng)
        _say(session, by_task[probe.id], share)
    _others(session, run)
    return run


def _tasks(session: Session) -> list[Task]:
    suite = Suite(name="starter")
    made = []
    for position, (name, title, title_zh, ability, (metric, higher), chance, *_values) in enumerate(TASKS):
        fields = {"title": title, "title_zh": title_zh, "ability": ability, "metric": metric, "chance": chance}
        kind = "multiple_choice" if metric == "acc" else "loglikelihood_rolling"
        made.append(
            Task(suite=suite, name=name, output_type=kind, position=position, higher_is_better=higher, **fields)
        )
    session.add_all(made)
    session.flush()
    return made


def _probe(session: Session) -> Task:
    suite = session.query(Suite).one()
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


def _finish(session: Session, evaluation: Evaluation, task: Task, share: float, rng: random.Random) -> None:
    row = next(row for row in TASKS if row[0] == task.name)
    first, last, width = row[6:]
    value = first + (last - first) * share**1.15 + rng.gauss(0, width / 5)
    score = evaluations.Score(task.metric, value, width / 2, value - width, value + width, 400)
    tickets.cancel(session, evaluation_id=evaluation.id)
    evaluations.finish(
        session,
        evaluation.id,
        results=[score],
        protocol={"engine": "vllm 0.32.0", "dtype": "bfloat16", "num_fewshot": 0, "lm_eval": "0.4.13"},
        num_items=400,
        engine_seconds=1.7,
        samples_file="",
    )
    session.flush()


def _say(session: Session, evaluation: Evaluation, share: float) -> None:
    age = 0 if share < 0.2 else 1 if share < 0.75 else 2
    said = [
        samples.Sample(
            f"{index:064x}", index, None, [-20.0], [24], [len(texts[age].encode())], prompt, texts[age], "length"
        )
        for index, (prompt, texts) in enumerate(PROMPTS.items())
    ]
    folder = get_settings().samples_dir
    path = samples.write(folder / str(evaluation.checkpoint_id), str(evaluation.id), said)
    tickets.cancel(session, evaluation_id=evaluation.id)
    evaluations.finish(
        session,
        evaluation.id,
        results=[],
        protocol={"engine": "vllm 0.32.0", "dtype": "bfloat16"},
        num_items=len(said),
        engine_seconds=2.2,
        samples_file=str(path.relative_to(folder)),
    )
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


def main() -> None:
    """Make the folder in GROW_HOME and fill it."""
    get_settings().home.mkdir(parents=True, exist_ok=True)
    migrate(db.current_engine())
    with db.transaction() as session:
        session.info["deferred_jobs"] = {}
        seed(session)
        session.info.pop("deferred_jobs")


if __name__ == "__main__":
    main()
