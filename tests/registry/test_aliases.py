"""Aliases: names that move along a run, computed or set by hand."""

import pytest
from sqlalchemy.orm import Session

from registry import aliases, audit, checkpoints
from registry.errors import Conflict, Invalid, NotFound
from registry.models import Run
from tests.factories import finish_evaluation, make_checkpoint, make_half, make_run, make_task, make_user


def _names(session: Session, run: Run) -> dict[str, str]:
    return {one.name: one.checkpoint.label for one in aliases.list_aliases(session, run)}


def test_latest_is_the_newest_ready_pretrained_checkpoint(session: Session) -> None:
    run = make_run(session)
    with pytest.raises(NotFound, match="no checkpoint that is called 'latest'"):
        aliases.resolve(session, run, "latest")
    newest = [make_checkpoint(session, run, step) for step in (10, 30, 20)][1]
    make_checkpoint(session, run, 40, kind="chat")
    make_checkpoint(session, run, 50, ready=False)
    make_half(session, run, 60)
    assert aliases.resolve(session, run, "latest") is newest
    assert _names(session, run) == {"latest": "demo@30"}


def test_the_best_of_an_ability_has_the_highest_mean_above_guessing(session: Session) -> None:
    run = make_run(session)
    easy, hard = make_task(session, "easy", chance=0.5), make_task(session, "hard", chance=0.25)
    english = make_task(session, "english", ability="english")
    make_task(session, "rare", ability="english", schedule="milestone")
    make_task(session, "bits", metric="bits_per_byte", higher_is_better=False, chance=None)
    found = [make_checkpoint(session, run, step) for step in (10, 20, 30)]
    # 20 has the higher plain mean (0.70 against 0.675), 10 is further above guessing (0.433 against 0.4)
    for checkpoint, scores in zip(found[:2], ((0.75, 0.6), (0.9, 0.5)), strict=True):
        finish_evaluation(session, checkpoint, easy, scores[0])
        finish_evaluation(session, checkpoint, hard, scores[1])
        finish_evaluation(session, checkpoint, english, 0.4)
    assert aliases.resolve(session, run, "best-zh") is found[1]
    finish_evaluation(session, found[2], easy, 0.99)  # only one of the two tasks
    assert _names(session, run) == {"latest": "demo@30", "best-zh": "demo@20", "best-en": "demo@10"}


def test_scores_under_different_protocols_are_not_held_against_each_other(session: Session) -> None:
    run, task = make_run(session), make_task(session)
    for step, value, engine in ((1, 0.5, "a"), (2, 0.6, "a"), (3, 0.9, "b")):
        finish_evaluation(session, make_checkpoint(session, run, step), task, value, protocol={"engine": engine})
    assert aliases.resolve(session, run, "best-zh").step == 2


def test_a_name_is_set_moved_and_taken_away_by_hand(session: Session) -> None:
    run, admin = make_run(session), make_user(session, "ada", role="admin")
    first, second = make_checkpoint(session, run, 1), make_checkpoint(session, run, 2)
    assert aliases.set_alias(session, run, "stable", first, admin) is None
    assert aliases.set_alias(session, run, "stable", second, admin) is first
    assert aliases.by_checkpoint(session, run) == {second.id: ["latest", "stable"]}
    assert aliases.set_alias(session, run, "stable", first, admin) is second  # undone
    assert aliases.resolve(session, run, "stable") is first
    assert aliases.remove_alias(session, run, "stable", admin) is first
    with pytest.raises(NotFound, match="Names: latest"):
        aliases.resolve(session, run, "stable")
    with pytest.raises(NotFound, match="set by hand"):
        aliases.remove_alias(session, run, "latest", admin)
    entries = [one.detail for one in audit.list_entries(session, action="alias").entries]
    assert entries[0] == {"name": "stable", "before": "demo@1", "after": None}
    assert len(entries) == 4


@pytest.mark.parametrize("name", ["", "latest", "best-zh", "best", "main", "step-5", "5", "A", "a b", "a" * 41])
@pytest.mark.parametrize("ending", ["", "/x"])
def test_some_words_are_no_names(session: Session, name: str, ending: str) -> None:
    run = make_run(session)
    with pytest.raises(Invalid):
        aliases.set_alias(session, run, name + ending, make_checkpoint(session, run), None)


@pytest.mark.parametrize("name", ["ab" * 20, "x-chat", "x-4bit", "x-avg5", "x..y", "x.lock", "x.", "x@y", "é"])
def test_nothing_that_reads_like_a_revision_or_another_form_is_a_name(session: Session, name: str) -> None:
    run = make_run(session)
    with pytest.raises(Invalid, match="cannot be a checkpoint's name"):
        aliases.set_alias(session, run, name, make_checkpoint(session, run), None)


def test_a_name_points_only_at_ready_checkpoints_of_its_run(session: Session) -> None:
    run, other = make_run(session), make_run(session, "other")
    with pytest.raises(Conflict, match="no checkpoint of 'demo'"):
        aliases.set_alias(session, run, "stable", make_checkpoint(session, other, 1), None)
    with pytest.raises(Conflict, match="not ready"):
        aliases.set_alias(session, run, "stable", make_checkpoint(session, run, 1, ready=False), None)


def test_a_label_may_have_an_alias_in_place_of_the_step(session: Session) -> None:
    run = make_run(session)
    plain, chat = make_checkpoint(session, run, 10), make_checkpoint(session, run, 10, kind="chat")
    average, half = make_checkpoint(session, run, 10, kind="avg5"), make_half(session, run, 10)
    aliases.set_alias(session, run, "stable", plain, None)
    aliases.set_alias(session, run, "assistant", chat, None)
    by_label = {
        "demo@stable": plain,
        "demo@latest": plain,
        "demo@stable-chat": chat,
        "demo@assistant": chat,
        "demo@stable-8bit": half,
        "demo@10-avg5": average,
        "demo@stable-avg5": average,
    }
    for label, checkpoint in by_label.items():
        assert checkpoints.by_label(session, label) is checkpoint
    for label in ("demo@none", "none@stable", "demo@", "demo@@stable", "demo@stable-4bit"):
        with pytest.raises(NotFound):
            checkpoints.by_label(session, label)
