"""Names of files that somebody else chose: those that may be part of a checkpoint."""

import unicodedata
from collections.abc import Iterable

from registry.errors import Invalid

ALLOWED_SUFFIXES = (".json", ".safetensors", ".model", ".txt", ".jinja", ".md")
MAX_BYTES = 240
"""Of the whole path: file systems take 255 for a name, and a temporary name is a little longer."""
MAX_DEPTH = 4
HIDDEN = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
"""Unicode's categories of what is not seen, turns the direction of writing, or is not assigned."""


def check_file_name(name: str) -> None:
    """Whether a file of that name may be part of a checkpoint.

    Raises:
        Invalid: its path leaves the folder, it does not look like what it is, or its kind may hold code.
    """
    parts = name.replace("\\", "/").split("/")
    if name.startswith(("/", "\\")) or ":" in parts[0] or any(part in ("", ".", "..") for part in parts):
        raise Invalid("The path '%(name)s' leaves its folder.", name=shown(name))
    if len(name.encode(errors="replace")) > MAX_BYTES or len(parts) > MAX_DEPTH:
        raise Invalid("The path '%(name)s…' is too long or too deep.", name=shown(name)[:60])
    if any(unicodedata.category(character) in HIDDEN for character in name):
        raise Invalid("The file name '%(name)s' holds control characters or invisible ones.", name=shown(name))
    if any(character.isspace() and character != " " for character in name) or any(
        part != part.strip(" ") or part.endswith(".") for part in parts
    ):
        raise Invalid("The file name '%(name)s' has a space or a dot where none is seen.", name=shown(name))
    if unicodedata.normalize("NFC", name) != name:
        raise Invalid("The file name '%(name)s' is not in Unicode's usual form (NFC).", name=shown(name))
    if not name.endswith(ALLOWED_SUFFIXES):
        raise Invalid(
            "The file '%(name)s' is not accepted: formats such as pickle, .bin, .pt and .py can run code "
            "when they are loaded. Accepted: %(known)s.",
            name=shown(name),
            known=", ".join(ALLOWED_SUFFIXES),
        )


def check_twins(names: Iterable[str]) -> None:
    """Whether all names can be told apart, by people and by file systems that ignore case.

    Raises:
        Invalid: two cannot.
    """
    seen: dict[str, str] = {}
    for name in names:
        known = seen.setdefault(unicodedata.normalize("NFKC", name).casefold(), name)
        if known != name:
            raise Invalid(
                "The file names '%(first)s' and '%(second)s' cannot be told apart.",
                first=shown(known),
                second=shown(name),
            )


def shown(name: str) -> str:
    """A name for a message: short, and with what is not seen written out."""
    return "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in name[:120])
