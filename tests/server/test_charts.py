"""Curves as the chart element gets them: numbers, words, and data that cannot leave its script tag."""

import json

from server.charts import Chart, Dot


def make_chart(values: list[float | None], **fields: object) -> Chart:
    """A chart of one line with these values at 0, 1, 2 …; None is a failure."""
    dots = [
        Dot(float(x), y, None, None, str(x), str(y), "", failed="It failed." if y is None else "")
        for x, y in enumerate(values)
    ]
    plain = {"key": "a_task", "title": "A task", "colour": "chinese", "metric_name": "accuracy", "x_name": "steps"}
    return Chart(**{**plain, "src": "/", "live": "", "dots": dots, **fields})  # type: ignore[arg-type]


class TestChart:
    def test_a_title_cannot_end_the_script_tag(self) -> None:
        data = make_chart([0.3], title="</script><script>alert(1)</script>").data
        assert "<" not in data
        assert json.loads(data)["title"].startswith("</script>")

    def test_points_are_sent_without_what_is_empty_but_with_a_zero(self) -> None:
        [dot] = json.loads(make_chart([0.0]).data)["dots"]
        assert dot["y"] == 0.0
        assert dot["line"] == 0
        assert not {"low", "verdict", "imported", "failed"} & set(dot)

    def test_a_failure_has_a_place_and_no_value(self) -> None:
        chart = make_chart([0.3, None])
        assert chart.latest is not None
        assert (chart.latest.y, len(chart.table), json.loads(chart.data)["dots"][1].get("y")) == (0.3, 2, None)

    def test_an_element_id_is_safe(self) -> None:
        assert make_chart([], key="train/loss").element_id == "chart-train-loss"
