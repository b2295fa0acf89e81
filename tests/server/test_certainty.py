"""How sure each age was of its own words."""

import pytest
from sqlalchemy.orm import Session

from registry.models import Turn
from server import certainty
from tests.factories import make_checkpoint, make_run


@pytest.mark.parametrize(
    ("tokens", "mean"),
    [
        (None, None),
        ([], None),
        ([["<s>", None, []]], None),
        ([["a", -1.0, []], ["b", -3.0, [["c", -0.1]]]], (-2.0, 2)),
        ([["<s>", None, []], ["a", -1.0, []]], (-1.0, 1)),
    ],
)
def test_the_mean_is_over_the_tokens_that_have_a_probability(
    tokens: list[object] | None, mean: tuple[float, int] | None
) -> None:
    assert certainty.mean_logprob(tokens) == mean


def test_a_curve_leaves_out_who_kept_nothing_and_one_point_is_none(session: Session) -> None:
    run = make_run(session)
    answers = [
        (make_checkpoint(session, run, step), Turn(tokens=[["a", logprob, []]] if logprob is not None else None))
        for step, logprob in ((0, -4.0), (100, None), (500, -0.25))
    ]
    assert certainty.chart(answers[:2], "/x") is None
    drawn = certainty.chart(answers, "/x")
    assert drawn is not None
    assert [(dot.x, dot.y, dot.y_text, dot.n) for dot in drawn.dots] == [
        (0, -4.0, "-4.000", 1),
        (500, -0.25, "-0.250", 1),
    ]
    assert drawn.dots[1].href == "/runs/demo/checkpoints/500"
