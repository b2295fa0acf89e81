"""One checkpoint: scores against the one before, its words, its facts."""

import pytest
from fastapi.testclient import TestClient

from registry import db, evaluations, runs, samples, suites, tickets
from registry.settings import get_settings
from tests.factories import make_checkpoint


class TestCheckpointPage:
    def test_scores_stand_beside_those_of_the_checkpoint_before(self, seeded: TestClient) -> None:
        page = seeded.get("/runs/demo/checkpoints/500").text
        assert "against" in page
        assert "step 250" in page
        assert 'class="verdict gain"' in page

    def test_the_first_checkpoint_has_nothing_to_compare_with(self, seeded: TestClient) -> None:
        page = seeded.get("/runs/demo/checkpoints/0").text
        assert 'class="verdict' not in page

    def test_scores_to_come_are_named(self, seeded: TestClient) -> None:
        page = seeded.get("/runs/demo/checkpoints/1750").text
        assert "5 scores still to come" in page
        assert "queued" in page

    def test_its_words_stand_beside_the_earlier_ones(self, seeded: TestClient) -> None:
        page = seeded.get("/runs/demo/checkpoints/1000").text
        assert page.count('<article class="saying') == 4
        assert page.count('class="said old"') == 4

    def test_facts(self, seeded: TestClient) -> None:
        page = seeded.get("/runs/demo/checkpoints/1000").text
        for fact in ("4,096,000", "7,340,032", "15.2 MB", "vllm 0.32.0", "model.safetensors"):
            assert fact in page

    def test_a_rejected_one_says_why(self, seeded: TestClient) -> None:
        assert "holds NaN" in seeded.get("/runs/uploads/checkpoints/1").text

    def test_kinds_at_one_step_have_their_own_pages(self, seeded: TestClient) -> None:
        assert "demo@1750-chat" in seeded.get("/runs/demo/checkpoints/1750?kind=chat").text

    def test_an_unknown_step_names_the_steps(self, seeded: TestClient) -> None:
        answer = seeded.get("/runs/demo/checkpoints/3")
        assert answer.status_code == 404
        assert "250" in answer.text

    @pytest.mark.parametrize("address", ["/runs/demo/checkpoints/one", "/runs/demo/checkpoints/0?kind=cat"])
    def test_a_step_that_is_no_number_is_refused(self, seeded: TestClient, address: str) -> None:
        assert seeded.get(address).status_code == 422


def test_the_same_items_are_compared_one_by_one(seeded: TestClient) -> None:
    """400 items of which 40 more become right and none is lost: far beyond chance when paired, though
    the two error bars overlap."""
    with db.transaction() as session:
        run = runs.get_run(session, "demo")
        task = suites.get_task(session, "zh_next_line")
        for step, right in ((3000, 160), (3001, 180)):
            checkpoint = make_checkpoint(session, run, step)
            evaluations.plan(session, checkpoint)
            session.flush()
            own = next(e for e in evaluations.for_checkpoint(session, checkpoint) if e.task_id == task.id)
            folder = get_settings().samples_dir
            path = samples.write(folder / str(checkpoint.id), str(own.id), _answers(right))
            tickets.cancel(session, evaluation_id=own.id)
            score = evaluations.Score("acc", right / 400, 0.0246, right / 400 - 0.048, right / 400 + 0.048, 400)
            evaluations.finish(
                session,
                own.id,
                results=[score],
                protocol={},
                num_items=400,
                engine_seconds=1.0,
                samples_file=str(path.relative_to(folder)),
            )
        session.info.pop("deferred_jobs", None)
    page = seeded.get("/runs/demo/checkpoints/3001").text
    assert 'class="verdict gain" title="Both checkpoints answered the same items' in page


def _answers(right: int) -> list[samples.Sample]:
    """Two choices an item; the first `right` items are answered rightly."""
    fields = samples.Sample._fields
    return [
        samples.Sample(
            **dict(
                zip(
                    fields,
                    (f"{i:064x}", i, 0, [-1.0, -2.0] if i < right else [-2.0, -1.0], [1, 1], [3, 3], None, None, None),
                    strict=True,
                )
            )
        )
        for i in range(400)
    ]
