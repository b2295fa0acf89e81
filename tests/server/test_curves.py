"""Growth curves as charts: a line for each protocol, gaps, verdicts, imported points."""

import json
from collections.abc import Sequence

import pytest

from registry.curves import Point, Series
from registry.models import Task
from registry.protocol import protocol_key
from server import curves
from server.curves import Failure, Notes
from tests.server.answers import OLD_PROTOCOL, PROTOCOL

OLD, NEW = protocol_key(OLD_PROTOCOL), protocol_key(PROTOCOL)
NOTES = Notes({OLD: OLD_PROTOCOL, NEW: PROTOCOL}, {}, ())


def make_point(step: int, value: float, key: str = NEW, **fields: object) -> Point:
    plain = Point(
        x=float(step * 1000),
        step=step,
        tokens_seen=step * 1000,
        value=value,
        stderr=0.02,
        low=value - 0.04,
        high=value + 0.04,
        n=200,
        checkpoint_id=step,
        evaluation_id=100 + step,
        protocol_key=key,
        is_imported=False,
        verdict="",
    )
    return plain._replace(**fields)  # type: ignore[arg-type]


def make_series(
    points: Sequence[Point], *, metric: str = "acc", higher: bool = True, schedule: str = "panel", x: str = "tokens"
) -> Series:
    task = Task(name="a_task", title="A task", title_zh="任务", ability="chinese", metric="acc", chance=0.25)
    task.higher_is_better, task.schedule = higher, schedule
    return Series("demo", task, metric, x, list(points))


def of_values(values: Sequence[float], **fields: bool | str) -> Series:
    return make_series([make_point(step, value) for step, value in enumerate(values)], **fields)  # type: ignore[arg-type]


class TestWords:
    def test_it_says_where_the_ability_is_and_how_far_it_came(self) -> None:
        chart = curves.growth_chart(of_values([0.25, 0.412]))
        assert chart.latest is not None
        assert chart.latest.y_text == "41.2%"
        assert chart.change_text == "+16.2 points"
        assert chart.improved is True
        assert chart.chance_text == "guessing: 25.0%"

    @pytest.mark.parametrize(("higher", "improved"), [(True, False), (False, True)])
    def test_falling_is_good_where_lower_is_better(self, higher: bool, improved: bool) -> None:
        assert curves.growth_chart(of_values([0.5, 0.3], higher=higher)).improved is improved

    def test_guessing_is_drawn_for_the_headline_metric_only(self) -> None:
        assert curves.growth_chart(of_values([0.3, 0.4], metric="brier_score")).chance is None

    def test_each_point_leads_to_its_checkpoint_and_to_its_answers(self) -> None:
        [dot] = curves.growth_chart(of_values([0.3])).dots
        assert (dot.href, dot.evaluation_href) == ("/runs/demo/checkpoints/0", "/evaluations/100")

    def test_the_age_in_tokens_is_told_on_every_axis(self) -> None:
        [dot] = curves.growth_chart(make_series([make_point(8, 0.3)], x="step")).dots
        assert dot.tokens_text == "8K tokens"

    def test_no_points_make_an_empty_chart(self) -> None:
        chart = curves.growth_chart(make_series([]))
        assert (chart.latest, chart.change_text, list(chart.table)) == (None, "", [])


class TestLines:
    SERIES = make_series(
        [
            make_point(1, 0.30, OLD, evaluation_id=1),
            make_point(2, 0.40, OLD, evaluation_id=2),
            make_point(2, 0.10, NEW, evaluation_id=3),
            make_point(3, 0.20, NEW, evaluation_id=4),
        ]
    )

    def test_a_changed_protocol_begins_another_line_that_says_what_differs(self) -> None:
        chart = curves.growth_chart(self.SERIES, NOTES)
        assert [dot.line for dot in chart.dots] == [0, 0, 1, 1]
        earlier, latest = chart.lines
        assert (earlier.num_points, earlier.differs) == (
            2,
            "engine version 0.31.0, now 0.32.0; number format float32, now bfloat16",
        )
        assert (latest.summary, latest.differs) == ("vllm 0.32.0 · bfloat16 · 0-shot", "")

    def test_progress_is_counted_under_the_latest_protocol_alone(self) -> None:
        chart = curves.growth_chart(self.SERIES, NOTES)
        assert chart.change_text == "+10.0 points"
        assert [dot.y for dot in chart.current] == [0.1, 0.2]

    def test_few_scores_of_a_milestone_task_are_not_joined(self) -> None:
        few = curves.growth_chart(of_values([0.3, 0.4], schedule="milestone"))
        many = curves.growth_chart(of_values([0.3, 0.4, 0.5, 0.6], schedule="milestone"))
        panel = curves.growth_chart(of_values([0.3, 0.4]))
        assert [chart.lines[-1].is_loose for chart in (few, many, panel)] == [True, False, False]


class TestPoints:
    def test_a_verdict_has_a_word_and_a_shape(self) -> None:
        points = [make_point(step, 0.3, verdict=word) for step, word in enumerate(("", "gain", "loss", "within noise"))]
        chart = curves.growth_chart(make_series(points))
        assert [dot.verdict_mark for dot in chart.dots] == ["", "▲", "▼", "●"]
        assert chart.has_verdicts
        assert chart.words["within noise"] == "within noise"

    def test_what_was_measured_elsewhere_says_so(self) -> None:
        chart = curves.growth_chart(make_series([make_point(1, 0.3, is_imported=True)]))
        assert json.loads(chart.data)["dots"][0]["imported"] is True

    def test_a_checkpoint_with_a_warning_is_marked(self) -> None:
        chart = curves.growth_chart(of_values([0.3, 0.4]), Notes({}, {}, {1}))
        assert [dot.warned for dot in chart.dots] == [False, True]


class TestFailures:
    NOTES = Notes({}, {"a_task": [Failure(1500.0, 1, 7, "The engine went down.")]}, ())

    def test_a_failure_is_a_gap_and_never_a_zero(self) -> None:
        chart = curves.growth_chart(make_series([make_point(0, 0.3), make_point(2, 0.4)]), self.NOTES)
        assert [(dot.y, dot.failed, dot.after_gap) for dot in chart.dots] == [
            (0.3, "", False),
            (None, "The engine went down.", False),
            (0.4, "", True),
        ]

    def test_a_line_that_ends_before_it_has_no_gap(self) -> None:
        chart = curves.growth_chart(make_series([make_point(2, 0.3), make_point(3, 0.4)]), self.NOTES)
        assert not any(dot.after_gap for dot in chart.dots)

    def test_failures_alone_leave_the_chart_without_a_value(self) -> None:
        chart = curves.growth_chart(make_series([]), self.NOTES)
        assert (chart.latest, len(chart.dots), chart.band) == (None, 1, "")
