"""Reading JSON that somebody else wrote: one meaning only, of a bearable size and depth."""

import json
from pathlib import Path
from typing import Any, NoReturn

from registry.errors import Invalid

MAX_BYTES = 16_000_000
"""A configuration has a few thousand, the index of a large model's shards some hundred thousand."""


def read(path: Path, *, max_bytes: int = MAX_BYTES) -> Any:
    """What a JSON file holds.

    Raises:
        Invalid: it is too large, not JSON, or says something twice.
        FileNotFoundError: there is no such file.
    """
    with path.open("rb") as file:
        raw = file.read(max_bytes + 1)
    if len(raw) > max_bytes:
        raise Invalid(
            "%(file)s is larger than the %(limit)s bytes that such a file may have.",
            file=path.name,
            limit=f"{max_bytes:,}",
        )
    return parse(raw, path.name)


def read_object(path: Path) -> dict[str, Any]:
    """What a JSON file holds, if that is an object.

    Raises:
        Invalid: as `read`, or it is something else.
        FileNotFoundError: there is no such file.
    """
    content = read(path)
    if not isinstance(content, dict):
        raise Invalid("%(file)s must hold an object.", file=path.name)
    return content


def parse(raw: bytes, name: str) -> Any:
    """What JSON text says; `name` is what the reason calls it.

    Raises:
        Invalid: it is not JSON, names one key twice, or is nested without end.
    """
    try:
        return json.loads(raw.decode(), object_pairs_hook=_unique, parse_constant=_refuse)
    except _Twice as error:
        raise Invalid("%(file)s names %(key)s twice.", file=name, key=repr(error.args[0])[:100]) from None
    except RecursionError:
        raise Invalid("%(file)s is nested too deeply.", file=name) from None
    except ValueError as error:  # of JSON and of UTF-8, and numbers of too many digits
        raise Invalid("%(file)s is not valid JSON: %(error)s.", file=name, error=str(error)[:200]) from error


class _Twice(Exception):
    """A key that an object has two times."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise _Twice(key)
            seen.add(key)
    return found


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number")
