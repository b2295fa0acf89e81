"""What stands in the addresses of the Hub protocol: a repository's id in one part or two, a revision, a path.

A revision may hold slashes, which the client writes as %2F: so the address is read as it was sent, not as it was
unescaped, where no slash tells any more whether it divides.
"""

from typing import Annotated, NamedTuple
from urllib.parse import unquote

from fastapi import Depends, Request

from server.hubapi.errors import HubError
from server.i18n import gettext

MAX_CHARS = 1_000


class Target(NamedTuple):
    """A revision, and a path in it."""

    revision: str
    path: str


def repo_id_of(request: Request) -> str:
    """`run` or `namespace/run`."""
    namespace, run = request.path_params.get("namespace"), request.path_params["run"]
    return f"{namespace}/{run}" if namespace else str(run)


def target_of(request: Request) -> Target:
    """The revision and the path at the end of `…/{namespace}/{run}/tree/{revision}/{path}`.

    Raises:
        HubError: 400 where the address is overlong or no text.
    """
    raw: bytes = request.scope["raw_path"]
    marker = request.scope["route"].path.split("/")  # what stands before the revision has as many parts there
    parts = raw.decode("ascii", "replace").split("/")[marker.index("{rest:path}") :]
    try:
        revision, path = unquote(parts[0], errors="strict"), unquote("/".join(parts[1:]), errors="strict")
    except UnicodeDecodeError:
        raise HubError(400, gettext("The address is no text.")) from None
    if len(raw) > MAX_CHARS or not (revision + path).isprintable():
        raise HubError(400, gettext("The address is no text."))
    return Target(revision, path)


RepoId = Annotated[str, Depends(repo_id_of)]
TargetInPath = Annotated[Target, Depends(target_of)]
