"""The two languages of the site: English in the source, Chinese from the catalogue.

Strings are marked with `_()` in templates and in `server/`. The language of a request is set once,
by `server.middleware`, and read by every call of `_()` below it. After adding strings::

    python -m server.i18n update     # extract, and merge new strings into server/locale/zh
    # translate what is empty in server/locale/zh/LC_MESSAGES/messages.po
    python -m server.i18n compile    # .po -> .mo, which set-up does too; .mo files are not committed

which is the same as::

    pybabel extract -F babel.cfg -k _ -k N_ -k ngettext:1,2 --no-location --sort-output -o messages.pot .
    pybabel update -i messages.pot -d server/locale --no-fuzzy-matching --ignore-obsolete --omit-header
    pybabel compile -d server/locale
"""

import gettext as gnu_gettext
import sys
import tempfile
from contextvars import ContextVar
from functools import lru_cache
from pathlib import Path

from babel.messages.frontend import CommandLineInterface

LANGUAGES = ("en", "zh")
LOCALE_DIR = Path(__file__).parent / "locale"
ROOT = Path(__file__).parent.parent

_language: ContextVar[str] = ContextVar("language", default="en")


def use(language: str) -> None:
    """Set the language for the rest of this request."""
    _language.set(language if language in LANGUAGES else "en")


def current() -> str:
    """The language of this request: `en` or `zh`."""
    return _language.get()


def choose(cookie: str | None, accept_language: str | None) -> str:
    """The visitor's choice by cookie, else the first language of the browser that the site speaks."""
    if cookie in LANGUAGES:
        return str(cookie)
    for quality, tag in _accepted(accept_language or ""):
        if quality > 0 and tag.split("-")[0] in LANGUAGES:
            return tag.split("-")[0]
    return "en"


def _accepted(header: str) -> list[tuple[float, str]]:
    found = []
    for part in header.split(","):
        tag, _, parameter = part.strip().partition(";")
        name, _, value = parameter.strip().partition("=")
        try:
            quality = float(value) if name.strip() == "q" else 1.0
        except ValueError:
            continue
        found.append((quality, tag.strip().lower()))
    return sorted(found, key=lambda item: -item[0])


@lru_cache
def _catalogue(language: str) -> gnu_gettext.NullTranslations:
    return gnu_gettext.translation("messages", LOCALE_DIR, [language], fallback=language == "en")


def gettext(message: str, **values: object) -> str:
    """The message in the language of this request, with `%(name)s` filled in."""
    found = _catalogue(current()).gettext(message)
    return found % values if values else found


def ngettext(singular: str, plural: str, number: int) -> str:
    """The message for a number of things, in the language of this request."""
    return _catalogue(current()).ngettext(singular, plural, number)


def N_(message: str) -> str:
    """Mark a string for the catalogue where it stands; `gettext` translates it when it is shown."""
    return message


def _pybabel(*arguments: str) -> None:
    CommandLineInterface().run(["pybabel", *arguments])


def extract(target: Path) -> None:
    """Write every marked string of templates and server to a catalogue template."""
    _pybabel(
        *("extract", "-F", str(ROOT / "babel.cfg"), "-k", "_", "-k", "N_", "-k", "ngettext:1,2"),
        *("--no-location", "--sort-output", "-o", str(target), str(ROOT)),
    )


def update() -> None:
    """Merge new strings into the Chinese catalogue and drop those that are gone."""
    with tempfile.TemporaryDirectory() as folder:
        template = Path(folder) / "messages.pot"
        extract(template)
        _pybabel(
            *("update", "-i", str(template), "-d", str(LOCALE_DIR), "--no-fuzzy-matching"),
            *("--ignore-obsolete", "--omit-header"),
        )


def compile_catalogues() -> None:
    """Make the .mo files that the server reads."""
    _pybabel("compile", "-d", str(LOCALE_DIR))


if __name__ == "__main__":
    {"update": update, "compile": compile_catalogues}[sys.argv[1]]()
