"""The protocol's key: what makes two evaluations comparable."""

import pytest

from registry.protocol import IDENTITY, differing, protocol_key

PROTOCOL = {name: "1" for name in IDENTITY}


@pytest.mark.parametrize("name", IDENTITY)
def test_each_field_of_the_identity_makes_another_key(name: str) -> None:
    assert protocol_key({**PROTOCOL, name: "2"}) != protocol_key(PROTOCOL)


def test_what_is_only_told_does_not() -> None:
    assert protocol_key({**PROTOCOL, "revision": "abc"}) == protocol_key(PROTOCOL)


def test_the_order_of_the_fields_does_not_matter() -> None:
    assert protocol_key(dict(reversed(PROTOCOL.items()))) == protocol_key(PROTOCOL)


def test_it_can_say_in_what_two_differ() -> None:
    assert differing(PROTOCOL, {**PROTOCOL, "dtype": "2", "revision": "x"}) == ["dtype"]
