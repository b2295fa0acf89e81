"""Repositories whose revisions are checkpoints: which of them there are, and at which step of which run each belongs.

Understood are the names of Pythia (`step1000`), OLMo (`step1000-tokens4B`, `stage2-ingredient1-step…`), SmolLM3
(`stage1-step-40000`, `it-…`) and of this site (`step-8000`).
"""

import fnmatch
import re
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Self
from urllib.parse import urlsplit

import httpx2
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, HFValidationError

from registry import revisions, runs
from registry.errors import Invalid, NotFound, name_list

DERIVED = re.compile(r".*-(avg\d*|4bit|8bit)$")
"""What a site like this one makes of its checkpoints itself; it is made here anew."""


class Chosen(NamedTuple):
    """A revision that becomes a checkpoint."""

    revision: str
    run: str
    step: int
    tokens_seen: int | None
    kind: str
    sha: str


class Listed(NamedTuple):
    """The revisions of a repository."""

    chosen: list[Chosen]
    left_out: list[str]
    """Names without a step, and those of a step that another one has already."""


class Wanted(NamedTuple):
    """What somebody asked to import."""

    repo: str
    endpoint: str
    pattern: str
    run: str

    @classmethod
    def make(cls, repo: str, *, endpoint: str = "", pattern: str = "*", run: str = "") -> Self:
        """Check what was asked for.

        Raises:
            Invalid: the run cannot be called so, or the endpoint is no address.
        """
        run = run or re.sub(r"[^a-z0-9._-]", "-", repo.rpartition("/")[2].lower())
        if not runs.NAME.fullmatch(run):
            raise Invalid(
                "'%(name)s' cannot be a run's name: use a-z, 0-9, dot, dash and underscore, 63 at most.", name=run
            )
        if endpoint and (urlsplit(endpoint).scheme not in ("http", "https") or not urlsplit(endpoint).netloc):
            raise Invalid("'%(endpoint)s' is no address of a site.", endpoint=endpoint[:120])
        return cls(repo, endpoint.rstrip("/"), pattern or "*", run)

    def as_args(self) -> dict[str, Any]:
        """For the row of a job."""
        return self._asdict()

    def api(self) -> HfApi:
        """A client of its site."""
        return HfApi(endpoint=self.endpoint or None, library_name="grow")


def list_revisions(wanted: Wanted) -> Listed:
    """Ask the site for the revisions of a repository.

    Raises:
        NotFound: there is no such repository, or none of its revisions names a step.
        Invalid: the site cannot be asked.
    """
    return listed(fetch_refs(wanted), wanted)


def fetch_refs(wanted: Wanted) -> list[tuple[str, str]]:
    """The tags and branches of a repository, with their commits.

    Raises:
        NotFound: there is no such repository.
        Invalid: the site cannot be asked.
    """
    try:
        refs = wanted.api().list_repo_refs(wanted.repo)
    except HFValidationError as error:
        raise Invalid("'%(repo)s' is no repository's name.", repo=wanted.repo[:120]) from error
    except HfHubHTTPError as error:
        raise NotFound("%(repo)s cannot be read: %(error)s", repo=wanted.repo[:120], error=first_line(error)) from error
    except (OSError, httpx2.HTTPError) as error:
        raise Invalid("%(repo)s cannot be reached: %(error)s", repo=wanted.repo, error=first_line(error)) from error
    return list({ref.name: ref.target_commit for ref in (*refs.tags, *refs.branches)}.items())


def listed(named: Sequence[tuple[str, str]], wanted: Wanted) -> Listed:
    """The revisions of interest of those that there are.

    Raises:
        NotFound: none of them names a step.
    """
    found = choose(named, wanted)
    if not found.chosen:
        raise NotFound(
            "No revision of %(repo)s that matches '%(pattern)s' names a step. Revisions: %(known)s.",
            repo=wanted.repo,
            pattern=wanted.pattern,
            known=name_list(sorted(name for name, _ in named)),
        )
    return found


def choose(named: Iterable[tuple[str, str]], wanted: Wanted) -> Listed:
    """Give each revision its place, by step; where stages count anew, each has a run of its own."""
    matching = [(name, sha) for name, sha in named if fnmatch.fnmatch(name, wanted.pattern)]
    placed, left_out = [], []
    for name, sha in matching:
        place = None if DERIVED.fullmatch(name) else revisions.parse(name)
        if place is None:
            left_out.append(name)
        else:
            placed.append((name, sha, place))
    apart = _count_anew([place for _, _, place in placed])
    chosen: dict[tuple[str, int, str], Chosen] = {}
    for name, sha, place in sorted(placed, key=lambda one: (one[2].stage or 0, one[2].step, one[0])):
        run = f"{wanted.run}-stage{place.stage}" if apart and (place.stage or 1) > 1 else wanted.run
        kind = "chat" if name.endswith("-chat") else "pretrained"
        one = Chosen(name, run[:63], place.step, place.tokens_seen, kind, sha)
        if chosen.setdefault((one.run, one.step, one.kind), one) is not one:
            left_out.append(name)
    return Listed(list(chosen.values()), sorted(left_out))


def _count_anew(places: Sequence[revisions.Place]) -> bool:
    """Whether a later stage has steps that an earlier one reached."""
    highest = -1
    for stage in sorted({place.stage or 1 for place in places}):
        steps = [place.step for place in places if (place.stage or 1) == stage]
        if min(steps) <= highest:
            return True
        highest = max(highest, *steps)
    return False


def in_words(names: Sequence[str]) -> str:
    """The names, as far as they fit on a line or two."""
    return name_list(list(names))


def first_line(error: Exception) -> str:
    """What an error says, for a line."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
