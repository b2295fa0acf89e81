"""The settings of an answer."""

import pytest

from registry.errors import Invalid
from server import knobs


def test_defaults_differ_by_kind_and_are_accepted() -> None:
    assert knobs.defaults("chat") != knobs.defaults("pretrained")
    for kind in ("chat", "pretrained"):
        assert knobs.check(knobs.defaults(kind), kind)["max_tokens"] > 0


def test_what_a_form_leaves_out_is_the_earlier_turns_then_the_default() -> None:
    typed = knobs.typed({"top_p": "0.4"}, "pretrained", {"temperature": 0.2, "logprobs": 5})
    assert (typed.top_p, typed.temperature, typed.max_tokens) == ("0.4", "0.2", "128")


def test_an_empty_seed_is_none_and_a_number_a_whole_one() -> None:
    assert "seed" not in knobs.check(knobs.typed({"seed": " "}, "chat"), "chat")
    assert knobs.check(knobs.typed({"seed": "12"}, "chat"), "chat")["seed"] == 12
    with pytest.raises(Invalid):
        knobs.check(knobs.typed({"seed": "inf"}, "chat"), "chat")
