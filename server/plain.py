"""Text as people and models wrote it, made harmless to look at: what would act on the screen is shown instead."""

import re

BIDI = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
"""Characters that turn the direction of what follows them, for example of a file's name."""
ACTING = re.compile(rf"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ufeff{BIDI}]")


def visible(text: str) -> str:
    """Control and direction characters as signs that can be seen; tabs and line ends stay. js/chat/plain.js agrees."""
    return ACTING.sub(_sign, text.replace("\r\n", "\n"))


def one_line(text: str) -> str:
    """The same for a title: no line ends either."""
    return " ".join(visible(text).split())


def _sign(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code < 0x20:
        return chr(0x2400 + code)  # Unicode's pictures of them: ␛ for escape
    return "\u2421" if code == 0x7F else f"⟨U+{code:04X}⟩"
