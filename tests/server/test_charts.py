"""Curves as the chart element gets them: numbers, words, and data that cannot leave its script tag."""

import json
from collections.abc import Sequence

import pytest

from registry.evaluations import Point, Series
from registry.models import Run, Task
from registry.models.base import utcnow
from registry.runs import MetricSpan
from server import charts

RUN = Run(name="demo", created_at=utcnow())


def make_series(values: Sequence[float], *, metric: str = "acc", higher: bool = True, title: str = "A task") -> Series:
    task = Task(name="a_task", title=title, title_zh="任务", ability="chinese", metric="acc", chance=0.25)
    task.higher_is_better = higher
    points = [
        Point(float(x * 1000), x, x * 1000, value, 0.02, value - 0.04, value + 0.04, 200, x)
        for x, value in enumerate(values)
    ]
    return Series("demo", task, metric, "tokens", points)


class TestGrowthChart:
    def test_it_says_where_the_ability_is_and_how_far_it_came(self) -> None:
        chart = charts.growth_chart(make_series([0.25, 0.412]))
        assert chart.latest is not None
        assert chart.latest.y_text == "41.2%"
        assert chart.change_text == "+16.2 points"
        assert chart.improved is True
        assert chart.chance_text == "guessing: 25.0%"

    @pytest.mark.parametrize(("higher", "improved"), [(True, False), (False, True)])
    def test_falling_is_good_where_lower_is_better(self, higher: bool, improved: bool) -> None:
        assert charts.growth_chart(make_series([0.5, 0.3], higher=higher)).improved is improved

    def test_guessing_is_drawn_for_the_headline_metric_only(self) -> None:
        assert charts.growth_chart(make_series([0.3, 0.4], metric="brier")).chance is None

    def test_each_point_opens_its_checkpoint(self) -> None:
        assert charts.growth_chart(make_series([0.3])).dots[0].href == "/runs/demo/checkpoints/0"

    def test_no_points_make_an_empty_chart(self) -> None:
        chart = charts.growth_chart(make_series([]))
        assert (chart.latest, chart.sparkline, chart.change_text, list(chart.table)) == (None, "", "", [])

    def test_a_title_cannot_end_the_script_tag(self) -> None:
        chart = charts.growth_chart(make_series([0.3], title="</script><script>alert(1)</script>"))
        assert "<" not in chart.data
        assert json.loads(chart.data)["title"].startswith("</script>")

    def test_the_clearest_gain_is_the_one_to_show_first(self) -> None:
        clear, vague = charts.growth_chart(make_series([0.2, 0.8])), charts.growth_chart(make_series([0.2, 0.22]))
        assert clear.clarity > vague.clarity > 0
        assert charts.growth_chart(make_series([0.8, 0.2])).clarity == 0


class TestTrainingChart:
    def span(self, step: int, mean: float, low: float, high: float, count: int) -> MetricSpan:
        return MetricSpan(step, step * 10, utcnow(), mean, low, high, count)

    def test_single_points_have_no_band(self) -> None:
        chart = charts.training_chart(RUN, "train/loss", [self.span(i, i, i, i, 1) for i in range(5)], "step")
        assert [dot.y for dot in chart.dots] == [0, 1, 2, 3, 4]
        assert chart.band == ""

    def test_merged_points_show_their_range(self) -> None:
        chart = charts.training_chart(RUN, "train/loss", [self.span(9, 3.5, 3.0, 4.0, 10)], "step")
        assert (chart.dots[0].low, chart.dots[0].high) == (3.0, 4.0)
        assert chart.band == "lowest to highest"

    def test_a_long_table_is_thinned(self) -> None:
        chart = charts.training_chart(RUN, "train/loss", [self.span(i, i, i, i, 1) for i in range(160)], "step")
        assert len(chart.table) <= charts.TABLE_ROWS
        assert chart.table[0].step == 159

    def test_compute_is_not_logged_with_scalars_so_tokens_stand_in(self) -> None:
        assert charts.training_chart(RUN, "train/loss", [self.span(1, 1, 1, 1, 1)], "flops").x_axis == "tokens"


@pytest.mark.parametrize(
    ("metric", "value", "text"),
    [
        ("acc", 0.3417, "34.2%"),
        ("bits_per_byte", 1.5732, "1.573"),
        ("train/learning_rate", 0.001, "1.00e-03"),
        ("train/tokens_per_second", 5812.3, "5,812"),
        ("acc", None, "–"),
    ],
)
def test_a_value_is_written_as_its_metric_is_read(metric: str, value: float | None, text: str) -> None:
    assert charts.value_text(metric, value) == text
