"""The newest abilities: what counts as one, and in which order they are told."""

from typing import Any

from server.abilities import newest
from server.sparklines import Sparkline
from tests.server.lines import make_line


def curve(title: str, *points: tuple[float, float, str], **fields: Any) -> Sparkline:
    """A curve of (tokens, value, verdict) with intervals of 0.05 on both sides."""
    line = make_line([x for x, _, _ in points], [y for _, y, _ in points], [word for *_, word in points])
    plain = {"run": "demo", "key": title, "title": title, "colour": "accent", "metric": "acc", "chance": 0.25}
    given = {"higher_is_better": True, "line": line if points else None, **fields}
    return Sparkline(**{**plain, **given})


def sentences(*curves: Sparkline) -> list[str]:
    return [found.sentence for found in newest(curves)]


def test_it_begins_where_every_later_interval_is_above_guessing() -> None:
    chart = curve("a", (100, 0.25, ""), (200, 0.4, ""), (300, 0.27, ""), (400, 0.5, "gain"), (500, 0.6, ""))
    assert sentences(chart) == ["above guessing since 400 tokens: 60.0% right (guessing: 25.0%)"]


def test_a_single_interval_above_guessing_needs_the_verdict_as_well() -> None:
    assert sentences(curve("a", (100, 0.25, ""), (200, 0.4, "within noise"))) == []
    assert len(sentences(curve("a", (100, 0.25, ""), (200, 0.4, "gain")))) == 1


def test_what_was_there_from_the_beginning_is_no_news() -> None:
    assert sentences(curve("a", (100, 0.6, ""), (200, 0.6, "within noise"))) == []
    assert sentences(curve("a")) == []


def test_a_gain_is_told_where_guessing_is_unknown() -> None:
    chart = curve("a", (100, 0.30, ""), (200, 0.42, "gain"), (300, 0.43, "within noise"), chance=None)
    assert sentences(chart) == ["better at 200 tokens: accuracy 42.0% (+12.0 points)"]


def test_a_gain_that_was_lost_again_is_not_told() -> None:
    assert sentences(curve("a", (100, 0.2, ""), (200, 0.4, "gain"), (300, 0.2, "loss"), chance=None)) == []


def test_the_newest_rise_is_first_and_gains_come_after() -> None:
    old = curve("old", (1, 0.2, ""), (100, 0.5, ""), (900, 0.9, "gain"))
    new = curve("new", (1, 0.2, ""), (500, 0.5, ""), (900, 0.5, ""))
    gain = curve("gain", (1, 0.2, ""), (900, 0.5, "gain"), chance=None)
    another = curve("another", (1, 0.2, ""), (800, 0.5, "gain"), chance=None)
    found = newest([old, gain, another, new])
    assert [one.title for one in found] == ["new", "old", "gain"]
    assert found[0].href == "/runs/demo#chart-new"
