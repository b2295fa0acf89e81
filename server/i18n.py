"""The two languages of the site: English in the source, Chinese from the catalogue.

Strings are marked with `_()` in templates and in `server/`. The language of a request is set once,
by `server.middleware`, and read by every call of `_()` below it. After adding strings::

    python -m server.i18n update     # extract, and merge new strings into server/locale/zh
    # then translate what is empty in server/locale/zh/LC_MESSAGES/messages.po

The .po file is read when the server starts; nothing has to be compiled. `update` is, in Babel's own commands::

    pybabel extract -F babel.cfg -k _ -k N_ -k ngettext:1,2 -k NotFound -k Conflict -k Invalid -k Refused … \
        --no-location --sort-output -o messages.pot server templates registry
    pybabel update -i messages.pot -d server/locale --no-fuzzy-matching --ignore-obsolete
"""

import gettext as gnu_gettext
import io
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from pathlib import Path

from babel.messages.catalog import Catalog
from babel.messages.frontend import CommandLineInterface
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po, write_po

from registry.errors import RegistryError

LANGUAGES = ("en", "zh")
LOCALE_DIR = Path(__file__).parent / "locale"
ERRORS = ("NotFound", "Conflict", "Invalid", "Refused", "NoRoom", "Away", "EntryMissing", "Stale")
KEYWORDS = ("_", "N_", "ngettext:1,2", *ERRORS)
"""What marks a string; the first argument of `registry`'s errors is a sentence."""
FOLDERS = ("server", "templates", "registry")
CATALOGUE = LOCALE_DIR / "zh" / "LC_MESSAGES" / "messages.po"
ROOT = Path(__file__).parent.parent
HEADER = """# The Chinese catalogue; server/i18n.py says how it is kept.
msgid ""
msgstr ""
"Language: zh\\n"
"MIME-Version: 1.0\\n"
"Content-Type: text/plain; charset=utf-8\\n"
"Content-Transfer-Encoding: 8bit\\n"
"Plural-Forms: nplurals=1; plural=0;\\n"

"""

_language: ContextVar[str] = ContextVar("language", default="en")


def use(language: str) -> None:
    """Set the language for the rest of this request."""
    _language.set(language if language in LANGUAGES else "en")


@contextmanager
def speaking(language: str) -> Iterator[None]:
    """Use a language for the lines below `with`, whatever the visitor's is."""
    token = _language.set(language if language in LANGUAGES else "en")
    try:
        yield
    finally:
        _language.reset(token)


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
    if language == "en":
        return gnu_gettext.NullTranslations()
    compiled = io.BytesIO()
    write_mo(compiled, read_catalogue())
    compiled.seek(0)
    return gnu_gettext.GNUTranslations(compiled)


def gettext(message: str, **values: object) -> str:
    """The message in the language of this request, with `%(name)s` filled in; a per cent sign is written `%%`."""
    return lookup(message) % values


def error_text(error: RegistryError) -> str:
    """The sentence of a verb's refusal in the language of this request."""
    return gettext(error.message, **error.values) if error.values else lookup(error.message)


def lookup(message: str) -> str:
    """The message in the language of this request as the catalogue has it; templates fill it in themselves."""
    return _catalogue(current()).gettext(message)


def ngettext(singular: str, plural: str, number: int) -> str:
    """The message for a number of things, in the language of this request."""
    return _catalogue(current()).ngettext(singular, plural, number)


def N_(message: str) -> str:
    """Mark a string for the catalogue where it stands; `gettext` translates it when it is shown."""
    return message


def extract(target: Path) -> None:
    """Write every marked string of templates and server to a catalogue template."""
    words = [option for word in KEYWORDS for option in ("-k", word)]
    options = ("-F", str(ROOT / "babel.cfg"), "--no-location", "--sort-output", "-o", str(target))
    folders = [str(ROOT / name) for name in FOLDERS]
    CommandLineInterface().run(["pybabel", "-q", "extract", *words, *options, *folders])


def update() -> None:
    """Merge new strings into the Chinese catalogue and drop those that are gone."""
    with tempfile.TemporaryDirectory() as folder:
        template = Path(folder) / "messages.pot"
        extract(template)
        with template.open("rb") as file:
            strings = read_po(file)
    catalogue = read_catalogue()
    catalogue.update(strings, no_fuzzy_matching=True)
    catalogue.obsolete.clear()
    with CATALOGUE.open("wb") as file:
        # The header of our own: the library's carries dates, which would change with every run.
        file.write(HEADER.encode())
        write_po(file, catalogue, omit_header=True, sort_output=True, width=110)


def read_catalogue() -> Catalog:
    """The Chinese catalogue as it stands in the source."""
    with CATALOGUE.open("rb") as file:
        return read_po(file, locale="zh")


if __name__ == "__main__":
    {"update": update}[sys.argv[1]]()
