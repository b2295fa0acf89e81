"""Tokens with their probabilities, as a page colours them."""

import math

import pytest

from server import probabilities


@pytest.mark.parametrize(("p", "level"), [(1.0, 0), (0.9, 0), (0.5, 1), (0.2, 2), (0.06, 3), (0.01, 4)])
def test_the_level_tells_how_sure_the_model_was(p: float, level: int) -> None:
    [token] = probabilities.read([["a", math.log(p), []]], "a")
    assert token.level == level


def test_alternatives_are_probabilities_and_a_rest_has_none() -> None:
    token, rest = probabilities.read([["a", math.log(0.5), [["b", math.log(0.25)]]]], "abc")
    assert token.alternatives == '[["b",0.25]]'
    assert (rest.text, rest.probability) == ("bc", None)


def test_tokens_that_do_not_spell_the_answer_are_not_shown() -> None:
    assert probabilities.read([["a", -1.0, []]], "other") == []
    assert probabilities.read(None, "other") == []
