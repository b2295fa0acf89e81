"""Sample files keep every answer, are the same bytes for the same answers, and are never replaced."""

from pathlib import Path

import numpy as np
import pytest

from registry import samples
from registry.errors import Invalid, NotFound
from registry.samples import Item, Sample

CHOICE = Sample("00000000000000a1", 0, 1, [-4.5, -3.25], [3, 2], [9, 9], [False, True])
TEXT = Sample("00000000000000b2", 1, None, [-120.5], [60], [240], [False])
ANSWER = Sample("ff000000000000c3", 2, None, [], [4], [12], [], 1.0, "有一座山", "length")

QUESTION = Item("00000000000000a1", 0, "history", "Question?\nAnswer:", [" one", " 二"], 1)
PROMPT = Item("ff000000000000c3", 2, "", "从前", [], None, "有座山")


def choices(*right: bool) -> list[Sample]:
    """Items whose right choice, the first, won or lost."""
    won = {True: [-1.0, -2.0], False: [-2.0, -1.0]}
    return [Sample(f"{at:016x}", at, 0, won[one], [1, 1], [4, 4], [False] * 2) for at, one in enumerate(right)]


def answered(num_items: int, num_choices: int) -> list[Sample]:
    """Answers as various as those of a model."""
    random = np.random.default_rng(1)
    return [
        Sample(
            item=random.bytes(8).hex(),
            position=position,
            target=int(random.integers(num_choices)) if num_choices > 1 else None,
            sum_logprob=(-random.gamma(4, 10, num_choices)).tolist(),
            num_tokens=random.integers(1, 60, num_choices).tolist(),
            num_bytes=random.integers(1, 300, num_choices).tolist(),
            is_greedy=(random.random(num_choices) < 0.1).tolist(),
        )
        for position in range(num_items)
    ]


class TestSlices:
    def test_what_is_written_is_read_back(self, tmp_path: Path) -> None:
        assert samples.read([samples.write_slice(tmp_path, 0, [CHOICE, TEXT, ANSWER])]) == [CHOICE, TEXT, ANSWER]

    def test_slices_are_one_evaluation_whatever_their_order(self, tmp_path: Path) -> None:
        first, second = samples.write_slice(tmp_path, 0, [CHOICE, TEXT]), samples.write_slice(tmp_path, 2, [ANSWER])
        assert samples.read([second, first]) == [CHOICE, TEXT, ANSWER]
        assert samples.read_slice(second) == [ANSWER]

    def test_the_same_answers_give_the_same_file_and_the_same_bytes(self, tmp_path: Path) -> None:
        first, second = (samples.write_slice(tmp_path / folder, 0, [CHOICE, ANSWER]) for folder in ("one", "two"))
        assert first.name == second.name
        assert first.read_bytes() == second.read_bytes()

    def test_other_answers_to_the_same_slice_leave_the_first_file_alone(self, tmp_path: Path) -> None:
        first = samples.write_slice(tmp_path, 0, [CHOICE])
        kept = first.read_bytes()
        second = samples.write_slice(tmp_path, 0, [CHOICE._replace(sum_logprob=[-1.0, -2.0])])
        assert first != second
        assert first.name.startswith("000000-")
        assert first.read_bytes() == kept
        assert sorted(tmp_path.iterdir()) == sorted([first, second])  # nothing half-written is left

    @pytest.mark.parametrize("slices", [[[CHOICE], [ANSWER]], [[CHOICE, TEXT], [TEXT, ANSWER]], [[TEXT, ANSWER]]])
    def test_a_missing_or_doubled_position_is_refused(self, tmp_path: Path, slices: list[list[Sample]]) -> None:
        paths = [samples.write_slice(tmp_path, one[0].position, one) for one in slices]
        with pytest.raises(Invalid, match="missing or there twice"):
            samples.read(paths)

    def test_a_missing_file_and_a_file_of_another_kind_are_told_apart(self, tmp_path: Path) -> None:
        with pytest.raises(NotFound):
            samples.read([tmp_path / "none.parquet"])
        (tmp_path / "text.parquet").write_text("not parquet")
        with pytest.raises(Invalid):
            samples.read([tmp_path / "text.parquet"])
        with pytest.raises(Invalid, match="another format"):
            samples.read([samples.write_items(tmp_path, "task", [QUESTION])])

    def test_text_without_an_encoding_is_kept_as_far_as_it_has_one(self, tmp_path: Path) -> None:
        path = samples.write_slice(tmp_path, 2, [ANSWER._replace(text="山\ud800")])
        assert samples.read_slice(path)[0].text == "山?"

    @pytest.mark.parametrize(("num_items", "num_choices"), [(100, 4), (200, 4), (250, 2), (100, 1), (200, 1)])
    def test_a_choice_costs_at_most_40_bytes_footer_included(
        self, tmp_path: Path, num_items: int, num_choices: int
    ) -> None:
        path = samples.write_slice(tmp_path, 0, answered(num_items, num_choices))
        assert path.stat().st_size / (num_items * num_choices) < 40


class TestItems:
    def test_what_is_written_is_read_back(self, tmp_path: Path) -> None:
        assert samples.read_items(samples.write_items(tmp_path, "task", [QUESTION, PROMPT])) == [QUESTION, PROMPT]

    def test_the_same_items_are_stored_once(self, tmp_path: Path) -> None:
        first = samples.write_items(tmp_path, "task", [QUESTION])
        before = first.stat()
        assert samples.write_items(tmp_path, "task", [QUESTION]) == first
        assert first.stat().st_mtime_ns == before.st_mtime_ns
        assert samples.write_items(tmp_path, "task", [QUESTION._replace(prompt="Another?")]) != first

    def test_a_name_that_leads_elsewhere_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(Invalid):
            samples.write_items(tmp_path, "../task", [QUESTION])


class TestAnswers:
    def test_flat_columns_by_position_with_the_characters_of_the_choices(self, tmp_path: Path) -> None:
        item = Item("00000000000000a1", 0, "", "", [" one", " 二"], 1)
        paths = [samples.write_slice(tmp_path, 1, [TEXT, ANSWER]), samples.write_slice(tmp_path, 0, [CHOICE])]
        found = samples.answers(paths, samples.write_items(tmp_path, "task", [item]))
        assert found.offsets.tolist() == [0, 2, 3]  # the free answer has no log-probability
        assert found.sum_logprob.tolist() == [-4.5, -3.25, -120.5]
        assert found.num_bytes.tolist() == [9, 9, 240]
        assert found.num_chars.tolist() == [4, 2, 0]
        assert found.is_greedy.tolist() == [False, True, False]
        assert found.target.tolist() == [1, -1]


class TestCompare:
    def test_accuracy_is_compared_item_by_item(self, tmp_path: Path) -> None:
        before = samples.write_slice(tmp_path, 0, choices(*[False] * 12, *[True] * 4))
        after = samples.write_slice(tmp_path, 0, choices(*[True] * 16))
        found = samples.compare([before], [after], "acc")
        assert found is not None
        assert (found.value, found.n, found.verdict()) == (0.75, 16, "gain")

    def test_probability_sees_what_accuracy_does_not(self, tmp_path: Path) -> None:
        before = samples.write_slice(tmp_path, 0, choices(*[True] * 4))
        surer = [one._replace(sum_logprob=[-0.5, -2.0]) for one in choices(*[True] * 4)]
        after = samples.write_slice(tmp_path, 0, surer)
        accuracy, prob, brier = (samples.compare([before], [after], name) for name in ("acc", "prob", "brier_score"))
        assert accuracy is not None
        assert accuracy.value == 0
        assert prob is not None
        assert prob.value == pytest.approx(1 / (1 + np.exp(-1.5)) - 1 / (1 + np.exp(-1)))
        assert brier is not None
        assert brier.value < 0

    @pytest.mark.parametrize(
        ("metric", "change"), [("acc", 0), ("acc_bytes", 1), ("acc_per_token", 1), ("acc_norm", 1)]
    )
    def test_the_longer_choice_wins_by_its_length(self, tmp_path: Path, metric: str, change: int) -> None:
        # The right choice, the second, is twice as long in tokens and bytes and thrice in characters.
        item = Item("00000000000000a1", 0, "", "", ["a", "abc"], 1)
        before = CHOICE._replace(sum_logprob=[-1.0, -9.0], num_tokens=[1, 2], num_bytes=[2, 4])
        paths = [samples.write_slice(tmp_path, 0, [one]) for one in (before, before._replace(sum_logprob=[-1.0, -1.5]))]
        found = samples.compare(paths[:1], paths[1:], metric, samples.write_items(tmp_path, "task", [item]))
        assert found is not None
        assert found.value == change

    def test_texts_are_compared_in_bits_per_byte(self, tmp_path: Path) -> None:
        texts = [TEXT._replace(position=0), TEXT._replace(item="00000000000000b3")]
        before = samples.write_slice(tmp_path, 0, texts)
        after = samples.write_slice(tmp_path, 0, [texts[0]._replace(sum_logprob=[-60.25]), texts[1]])
        found = samples.compare([before], [after], "bits_per_byte")
        assert found is not None
        assert found.value == pytest.approx(-60.25 / 0.6931472 / 480)

    def test_free_answers_are_compared_by_their_stored_score(self, tmp_path: Path) -> None:
        answer = ANSWER._replace(position=0)
        before = samples.write_slice(tmp_path, 0, [answer._replace(score=0.0)])
        found = samples.compare([before], [samples.write_slice(tmp_path, 0, [answer])], "exact_match")
        assert found is not None
        assert (found.value, found.n) == (1, 1)

    def test_a_stored_score_counts_for_more_than_the_columns(self, tmp_path: Path) -> None:
        # A task that scores in its own way: the most probable choice need not be the right one.
        before, after = (
            samples.write_slice(tmp_path, 0, [one._replace(score=score) for one in choices(True, True)])
            for score in (0.0, 1.0)
        )
        found = samples.compare([before], [after], "acc")
        assert found is not None
        assert found.value == 1

    def test_a_metric_that_the_answers_do_not_have_is_refused(self, tmp_path: Path) -> None:
        path = samples.write_slice(tmp_path, 0, [TEXT._replace(position=0), CHOICE._replace(position=1)])
        with pytest.raises(Invalid, match="no right choice"):
            samples.compare([path], [path], "prob")

    def test_errors_follow_what_clusters_the_items(self, tmp_path: Path) -> None:
        before = samples.write_slice(tmp_path, 0, choices(*[False] * 8))
        after = samples.write_slice(tmp_path, 0, choices(*[True] * 4, *[False] * 4))
        items = [Item(f"{at:016x}", at, str(at // 4), "", ["", ""], 0) for at in range(8)]
        alone = samples.compare([before], [after], "acc")
        clustered = samples.compare([before], [after], "acc", samples.write_items(tmp_path, "task", items))
        assert alone is not None
        assert clustered is not None
        assert clustered.stderr > alone.stderr

    def test_without_a_shared_item_there_is_nothing_to_compare(self, tmp_path: Path) -> None:
        before = samples.write_slice(tmp_path, 0, [CHOICE])
        after = samples.write_slice(tmp_path, 0, [ANSWER._replace(position=0)])
        assert samples.compare([before], [after], "acc") is None
        assert samples.compare([before], [after], "bits_per_byte") is None
