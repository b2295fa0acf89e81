"""Errors are sentences that a page can say in the reader's language."""

from registry.errors import NotFound, name_list


def test_the_sentence_is_whole_and_its_parts_are_kept() -> None:
    error = NotFound("There is no run '%(name)s'.", name="100%")
    assert str(error) == "There is no run '100%'."
    assert (error.message, error.values) == ("There is no run '%(name)s'.", {"name": "100%"})


def test_a_sentence_without_values_may_hold_per_cent_signs() -> None:
    assert str(NotFound("100% of nothing")) == "100% of nothing"


def test_a_list_of_names_is_short_and_the_same_in_every_language() -> None:
    assert name_list([]) == "–"
    assert name_list(["a", "b"]) == "a, b"
    assert name_list(["a", "b", "c"], limit=2) == "a, b, … (+1)"
