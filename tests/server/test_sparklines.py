"""The curves of the front page in small."""

from typing import Any

import pytest
from sqlalchemy.orm import Session

from server import sparklines
from server.sparklines import Sparkline
from tests.factories import finish_evaluation, make_checkpoint, make_run, make_task
from tests.server.lines import make_line


def of_values(*values: float, **fields: Any) -> Sparkline:
    plain = {"run": "demo", "key": "a task", "title": "A task", "colour": "accent", "metric": "acc", "chance": None}
    line = make_line([1000 * at for at in range(len(values))], values) if values else None
    return Sparkline(**{**plain, "higher_is_better": True, "line": line, **fields})


def test_it_says_how_far_it_came() -> None:
    curve = of_values(0.25, 0.412)
    assert (curve.latest_text, curve.change_text, curve.improved) == ("41.2%", "+16.2 points", True)


@pytest.mark.parametrize(("higher", "improved"), [(True, False), (False, True)])
def test_falling_is_good_where_lower_is_better(higher: bool, improved: bool) -> None:
    assert of_values(0.5, 0.3, higher_is_better=higher).improved is improved


@pytest.mark.parametrize("values", [(), (0.5,), (0.5, 0.5)])
def test_without_a_change_nothing_is_better_or_worse(values: tuple[float, ...]) -> None:
    curve = of_values(*values)
    assert (curve.improved, curve.clarity) == (None, 0.0)


def test_the_polyline_goes_from_edge_to_edge() -> None:
    assert of_values(0.25, 0.5).points == "0.0,22.0 100.0,2.0"
    assert of_values(0.5).points == ""


def test_a_long_curve_is_thinned_and_keeps_its_ends() -> None:
    points = of_values(*(at / 1000 for at in range(1000))).points.split()
    assert len(points) <= sparklines.NUM_POINTS + 1
    assert (points[0], points[-1]) == ("0.0,22.0", "100.0,2.0")


def test_the_clearest_gain_is_the_one_to_show_first() -> None:
    assert of_values(0.2, 0.8).clarity > of_values(0.2, 0.22).clarity > 0
    assert of_values(0.8, 0.2).clarity == 0


def test_the_front_page_shows_the_panel_alone(session: Session) -> None:
    run = make_run(session)
    panel, full = make_task(session, "panel"), make_task(session, "full", schedule="milestone")
    checkpoint = make_checkpoint(session, run, 1)
    checkpoint.is_milestone = True
    for task in (panel, full):
        finish_evaluation(session, checkpoint, task, 0.4)
    found = sparklines.of_panel(session, run)
    assert [(curve.key, curve.latest_text) for curve in found] == [("panel", "40.0%")]
    assert sparklines.has_scores(found)


def test_a_run_that_has_not_begun_has_curves_without_scores(session: Session) -> None:
    make_task(session)
    [curve] = sparklines.of_panel(session, make_run(session))
    assert (curve.line, curve.latest_text, curve.points) == (None, "–", "")
    assert not sparklines.has_scores([curve])
