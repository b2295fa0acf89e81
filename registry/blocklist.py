"""Verbs of blocked patterns: what may not be asked, and where an answer ends because of what it would say next.

Both texts and plain patterns are folded (`registry.folding`): case, width and invisible characters make no difference.
Regular expressions are those of the `regex` package, because it can stop a search that takes too long and can tell
that a text so far may still become a match; they ignore case and look at the folded text.
"""

import time
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import regex
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from registry import audit
from registry.errors import Conflict, Invalid, NotFound
from registry.folding import decompose, fold, openings
from registry.models import BlockedPattern, User
from registry.models.base import utcnow
from registry.models.safety import BOTH, IN, OUT

DIRECTIONS = (IN, OUT, BOTH)
MIN_CHARS, MAX_CHARS = 2, 200
MAX_PATTERNS = 500
HOLD_CHARS = 200
"""Of a text that may still become a match of a regular expression, at most so many characters are held back."""
WINDOW_CHARS = 400
"""A regular expression looks so far back into what was shown already: a longer match is cut where it is found."""
SEARCH_SECONDS = 0.05
"""A search that takes longer counts as a match: nobody gets past a pattern by making it slow."""
_PROBES = ("a", "0", " ", "ab ", "a1", "x.x@", "中", "<a>", "\\", "A\n")


class Scanner:
    """Finds one set of patterns in texts, whole ones and such as still grow. Safe to share between threads."""

    def __init__(self, patterns: Sequence[BlockedPattern]) -> None:
        """Patterns of one direction, as rows."""
        self._plain = [(fold(one.pattern).text, one.id) for one in patterns if not one.is_regex]
        self._regexes = [(_compile(one.pattern), one.id) for one in patterns if one.is_regex]
        decomposed = [decompose(text) for text, _id in self._plain]
        self._beginnings = frozenset(text[:length] for text in decomposed for length in range(1, len(text) + 1))
        self._first = frozenset(one for text, _id in self._plain for one in openings(text[0]))
        self._longest = max(map(len, decomposed), default=0)

    def __bool__(self) -> bool:
        """Whether there is anything to look for."""
        return bool(self._plain or self._regexes)

    def find(self, text: str) -> int | None:
        """The id of a pattern that occurs in a whole text."""
        folded = fold(text)
        found = [number for pattern, number in self._plain if pattern in folded.text]
        found += [number for pattern, number in self._regexes if _search(pattern, folded.text) is not None]
        return found[0] if found else None

    def safe_prefix(self, text: str, *, shown: int = 0, ended: bool = False) -> tuple[int, bool]:
        """How much of an answer may be shown, and whether it has to end there.

        Call it with the text so far whenever it has grown, and once more with `ended` when it is whole: only then a
        regular expression's match at the very end of the text counts (more letters could undo `\\bcat\\b`), and
        nothing is held back.

        Args:
            text: the answer so far, from its beginning.
            shown: how many characters earlier calls for this answer released; what comes before is not looked at
                again, which makes the call cheap.
            ended: nothing more is to come.

        Returns:
            How many characters may be shown, never fewer than `shown`; and whether a blocked pattern begins there,
            so that the answer ends with finish_reason `content_filter`.
        """
        if not self:
            return len(text), False
        # An expression may ask for the text's beginning; plain patterns need nothing that was shown.
        begin = 0 if self._regexes else shown
        folded = fold(text[begin:])
        new = folded.place(shown - begin)
        looks = [self._plain_look(folded.text, new)]
        looks += [_regex_look(pattern, folded.text, new, ended) for pattern, _id in self._regexes]
        blocked = [place for place, is_match in looks if is_match]
        if blocked:
            return max(shown, begin + folded.origin(min(blocked))), True
        safe = len(text) if ended else begin + folded.origin(min(place for place, _is_match in looks))
        return max(shown, safe), False

    def _plain_look(self, text: str, start: int) -> tuple[int, bool]:
        found = [place for pattern, _id in self._plain if (place := text.find(pattern, start)) >= 0]
        if found:
            return min(found), True
        for place in range(max(start, len(text) - self._longest), len(text)):
            if text[place] in self._first and decompose(text[place:]) in self._beginnings:
                return place, False
        return len(text), False


def add(
    session: Session, actor: User, pattern: str, *, is_regex: bool = False, direction: str = BOTH, note: str = ""
) -> BlockedPattern:
    """Block a text, or a regular expression, from now on.

    Raises:
        Invalid: too short, too long, no regular expression, or one that matches everything or takes too long.
        Conflict: it is blocked already, or there are too many.
    """
    pattern = pattern.strip()
    if direction not in DIRECTIONS:
        raise Invalid("A pattern is for prompts, for answers or for both.")
    if not MIN_CHARS <= len(pattern) <= MAX_CHARS or len(note) > MAX_CHARS:
        raise Invalid(
            "A pattern has %(low)s to %(high)s characters; so has its note at most.", low=MIN_CHARS, high=MAX_CHARS
        )
    check = _check_regex if is_regex else _check_plain
    check(pattern)
    active = list_patterns(session)
    if any((one.pattern, one.is_regex) == (pattern, is_regex) for one in active):
        raise Conflict("This pattern is blocked already. Remove it first to change it.")
    if len(active) >= MAX_PATTERNS:
        raise Conflict("There are %(limit)s patterns already, as many as there can be.", limit=MAX_PATTERNS)
    row = BlockedPattern(pattern=pattern, is_regex=is_regex, direction=direction, note=note.strip())
    row.created_by_id = actor.id
    session.add(row)
    session.flush()  # the trail names it by its id
    audit.note(session, actor, "block_pattern", f"pattern:{row.id}", {"pattern": pattern, "direction": direction})
    return row


def remove(session: Session, actor: User, pattern_id: int) -> None:
    """Block a pattern no longer; the row stays, for the trail.

    Raises:
        NotFound: there is none of that id, or no more.
    """
    row = session.get(BlockedPattern, pattern_id)
    if row is None or row.removed_at is not None:
        raise NotFound("There is no such pattern, or no more.")
    row.removed_at = utcnow()
    audit.note(session, actor, "unblock_pattern", f"pattern:{row.id}", {"pattern": row.pattern})


def list_patterns(session: Session) -> Sequence[BlockedPattern]:
    """What is blocked now, the newest first."""
    query = select(BlockedPattern).where(BlockedPattern.removed_at.is_(None))
    return session.scalars(query.order_by(BlockedPattern.id.desc())).all()


def check_prompt(session: Session, user: User, text: str) -> None:
    """Whether a text may be sent to a model; a refusal is noted in the audit trail even though it rolls back.

    Raises:
        Invalid: it holds a blocked pattern; the sentence does not say which.
    """
    found = _scanner(session, IN).find(text)
    if found is None:
        return
    audit.keep(session, user, "prompt_refused", f"pattern:{found}", {"characters": len(text)})
    raise Invalid("This site's rules do not allow something in this text. Change it and send it again.")


def outgoing(session: Session) -> Scanner:
    """The scanner for answers as the patterns are now; asking again is one short query."""
    return _scanner(session, OUT)


def _scanner(session: Session, direction: str) -> Scanner:
    newest = (func.max(one) for one in (BlockedPattern.id, BlockedPattern.created_at, BlockedPattern.removed_at))
    version = tuple(session.execute(select(*newest, func.count())).one())
    key = (str(session.get_bind().engine.url), direction)
    kept = _kept.get(key)
    if kept is None or kept[0] != version:
        wanted = [one for one in list_patterns(session) if one.direction in (direction, BOTH)]
        _kept[key] = kept = (version, Scanner(wanted))
    return kept[1]


_kept: dict[tuple[str, str], tuple[tuple[Any, ...], Scanner]] = {}
"""By database and direction: newest id, addition, removal and number of the patterns, which differ when they do."""


@lru_cache(maxsize=2 * MAX_PATTERNS)
def _compile(pattern: str) -> Any:
    return regex.compile(pattern, regex.IGNORECASE | regex.VERSION1)


def _check_plain(pattern: str) -> None:
    if len(fold(pattern).text) < MIN_CHARS:
        raise Invalid("This pattern has too few visible characters.")


def _check_regex(pattern: str) -> None:
    try:
        compiled = _compile(pattern)
        matches_nothing = compiled.fullmatch("", timeout=SEARCH_SECONDS) or compiled.search("", timeout=SEARCH_SECONDS)
    except (regex.error, TimeoutError, OverflowError, RecursionError) as error:
        raise Invalid("This is not a regular expression that can be used: %(problem)s.", problem=str(error)) from None
    if matches_nothing:
        raise Invalid("This regular expression matches the empty text, and so every text.")
    letters = "".join(one for one in pattern if one.isalnum())
    started = time.monotonic()
    for unit in (*_PROBES, letters or "a", *letters[:8]):
        for end in ("", "!"):
            if _is_slow(compiled, unit * (HOLD_CHARS // len(unit)) + end):
                raise Invalid("This regular expression can take very long; avoid repetitions inside of repetitions.")
    if time.monotonic() - started > SEARCH_SECONDS * 10:
        raise Invalid("This regular expression can take very long; avoid repetitions inside of repetitions.")


def _is_slow(compiled: Any, text: str) -> bool:
    try:
        compiled.search(text, timeout=SEARCH_SECONDS)
    except TimeoutError:
        return True
    return False


def _search(pattern: Any, text: str, start: int = 0, *, partial: bool = False) -> tuple[int, int] | None:
    """Where a match begins and ends; one that takes too long to look for counts as one of all the text."""
    try:
        found = pattern.search(text, start, partial=partial, timeout=SEARCH_SECONDS)
    except TimeoutError:
        return start, -1
    return found.span() if found is not None else None


def _regex_look(pattern: Any, text: str, new: int, ended: bool) -> tuple[int, bool]:
    """From which character an expression stands in the way, and whether for good; `new` was not shown yet."""
    window = max(0, new - WINDOW_CHARS)
    found = _search(pattern, text, window)
    if found is not None:
        start, end = found
        # A match at the end of what there is may be undone by what follows, for a while.
        return start, ended or end != len(text) or len(text) - max(start, new) > HOLD_CHARS
    partial = _search(pattern, text, window, partial=True)
    return (max(partial[0], len(text) - HOLD_CHARS), False) if partial is not None else (len(text), False)
