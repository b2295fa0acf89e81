"""A checkpoint's card: what it says, in which form, and that nothing from outside becomes markup."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from huggingface_hub import ModelCard
from sqlalchemy.orm import Session

from registry import checkpoints, db, runs
from registry.models import Checkpoint, CheckpointParent, Task
from registry.settings import get_settings
from server import cards, render
from tests.factories import finish_evaluation, make_checkpoint, make_half, make_run, make_task


@pytest.fixture
def filled(seeded: TestClient) -> Iterator[Session]:
    """A session on the seeded site."""
    with db.transaction() as session:
        yield session
        session.info.pop("deferred_jobs", None)


def card(session: Session, label: str, language: str = "en") -> str:
    return cards.card_markdown(session, checkpoints.by_label(session, label), language, "https://grow.example")


def section(text: str, heading: str) -> str:
    return text.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


def test_the_hubs_own_library_reads_its_header_and_every_score_in_it(filled: Session) -> None:
    read = ModelCard(card(filled, "demo@1500"))
    assert read.data.language == ["zh", "en"]
    assert (read.data.license, read.data.library_name) == ("apache-2.0", "transformers")
    assert "code" in read.data.tags
    found = {one.dataset_type: one for one in read.data.eval_results}
    assert found["zh_next_line"].metric_type == "acc"
    assert 0 < found["zh_next_line"].metric_args["low"] < found["zh_next_line"].metric_value < 1
    assert found["zh_next_line"].source_url == "https://grow.example/runs/demo/checkpoints/1500"


def test_scores_have_intervals_and_are_counted_from_the_release_before(filled: Session) -> None:
    assert "the checkpoint before; there is no earlier release" in section(card(filled, "demo@1500"), "Scores")
    checkpoints.release(filled, checkpoints.by_label(filled, "demo@750"))
    told = section(card(filled, "demo@1500"), "Scores")
    assert "the release before, demo@750." in told
    row = next(line for line in told.splitlines() if line.startswith("| Which line follows, Chinese"))
    assert re.search(r"\d+\.\d% – \d+\.\d%", row)
    assert "points" in row


def test_a_gain_is_told_as_a_change_and_a_loss_is_a_limitation_too(session: Session) -> None:
    run, better, worse = make_run(session), make_task(session, "better"), make_task(session, "worse")
    before, after = (make_checkpoint(session, run, step) for step in (1, 2))
    for checkpoint, high, low in ((before, 0.3, 0.9), (after, 0.9, 0.3)):
        finish_evaluation(session, checkpoint, better, high, stderr=0.01)
        finish_evaluation(session, checkpoint, worse, low, stderr=0.01)
    text = cards.card_text(session, after, "en")
    assert "▲ Better: 30.0% → 90.0%" in section(text, "What changed")
    assert "▼ Worse: 90.0% → 30.0%" in section(text, "What changed")
    assert "became worse than the one it is compared with in: Worse." in section(text, "Limitations")


@pytest.mark.parametrize(
    "sentence",
    [
        "a base model: it goes on with a text",
        "tokens for each parameter",
        "50% Chinese, 25% English, 25% Code",
        "at most 256 tokens at once",
        "cannot be told from guessing: Basic skills, coding",
    ],
)
def test_limitations_are_worked_out(filled: Session, sentence: str) -> None:
    assert sentence in section(card(filled, "demo@1500"), "Limitations")


def test_a_chat_model_and_a_new_one_say_what_they_lack(filled: Session) -> None:
    told = section(card(filled, "demo@1750-chat"), "Limitations")
    assert "No training for safety" in told
    assert "Nothing has been measured of it yet." in told


def test_data_names_sources_licences_and_what_was_read(filled: Session) -> None:
    run = runs.get_run(filled, "demo")
    runs.log_metrics(filled, run, 1_400, 0, {"data/tokens_zh": 3_000_000.0})
    runs.log_metrics(filled, run, 1_700, 0, {"data/tokens_zh": 9_000_000.0})
    told = section(card(filled, "demo@1500"), "What it has read")
    assert "- shakespeare: Public domain" in told
    assert "| Chinese | 50% | 3,000,000 |" in told


def test_chinese_is_chinese_throughout(filled: Session) -> None:
    text = card(filled, "demo@1500", "zh").partition("\n---\n")[2].partition("```")[0]
    for heading in ("它是什么", "它读过什么", "成绩", "有什么变化", "局限性", "所需内存"):
        assert f"## {heading}" in text
    left = {word for word in re.findall(r"[A-Za-z]{4,}", re.sub(r"\(http\S+\)|`[^`]*`", "", text))}
    assert left <= {
        "demo",
        "Grow",
        "LLaMA",
        "LlamaForCausalLM",
        "FLOPs",
        "Hoffmann",
        "Python",
        "statutes",
        "shakespeare",
    } | {"stdlib", "outside", "copyright", "package", "Public", "domain", "token"}


def test_a_quantized_form_is_held_against_its_sixteen_bits_and_names_its_base(session: Session) -> None:
    run = make_run(session)
    whole, half = make_checkpoint(session, run, 5), make_half(session, run, 5)
    session.add(CheckpointParent(child_id=half.id, parent_id=whole.id, role="quantization"))
    session.flush()
    read = ModelCard(cards.card_markdown(session, half, "en"))
    assert (read.data.base_model, read.data.base_model_relation) == (run.name, "quantized")
    assert "its 16-bit form" not in section(read.text, "Scores")  # nothing was measured yet
    assert cards.before_of(session, half) is whole
    assert "Its weights are rounded" in section(read.text, "Limitations")


def hostile(session: Session) -> Checkpoint:
    run = make_run(session, config={"corpus": {"mixture": {"<b>x": 1.0}, "sources": [{"name": "[a](javascript:b)|c"}]}})
    task: Task = make_task(session, "nasty", title="<script>alert(1)</script> | [x](javascript:alert(1)) `a`")
    checkpoint = make_checkpoint(session, run, 3)
    finish_evaluation(session, checkpoint, task, 0.5)
    return checkpoint


def test_names_from_outside_stay_text(session: Session) -> None:
    html = cards.card_html(session, hostile(session), "en", "https://grow.example")
    assert "<script" not in html
    assert "&lt;script&gt;" in html
    assert 'href="javascript' not in html
    assert "<b>" not in html
    assert ModelCard(cards.card_markdown(session, checkpoints.by_label(session, "demo@3"), "en")).data.eval_results


@pytest.mark.parametrize(
    "config", [{}, {"model": "x", "corpus": [1], "licences": 3}, {"corpus": {"sources": ["x", None]}}]
)
def test_a_run_that_says_little_or_nonsense_has_a_card_all_the_same(
    session: Session, config: dict[str, object]
) -> None:
    checkpoint = make_checkpoint(session, make_run(session, config=config), 3)
    text = cards.card_text(session, checkpoint, "en")
    assert "Its sources are not on record here." in text
    assert "What it has read is not on record here." in text


def test_the_citation_names_digest_tokens_and_address(filled: Session) -> None:
    told = section(card(filled, "demo@1500"), "How to cite it")
    digest = checkpoints.by_label(filled, "demo@1500").digest
    assert f"sha256 {digest}" in told
    assert "url    = {https://grow.example/models/demo/step-1500}" in told
    assert "6,144,000 tokens" in told


def test_without_a_request_the_address_is_the_operators(
    filled: Session, monkeypatch: pytest.MonkeyPatch, grow_home: Path
) -> None:
    monkeypatch.setenv("GROW_PUBLIC_URL", "https://grow.example.org/")
    get_settings.cache_clear()
    text = cards.card_markdown(filled, checkpoints.by_label(filled, "demo@1500"), "en")
    assert '"HF_ENDPOINT"] = "https://grow.example.org"' in text


def test_its_markdown_is_tables_and_lists_when_it_is_shown(filled: Session) -> None:
    html = str(render.markdown(cards.card_text(filled, checkpoints.by_label(filled, "demo@1500"), "en")))
    assert html.count("<table>") >= 5
    assert "<pre><code" in html
    assert "| " not in re.sub(r"<pre>.*?</pre>", "", html, flags=re.DOTALL)
