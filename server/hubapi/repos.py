"""Which run and which revision a request of the Hub protocol is about, and who asks."""

from fastapi import Request
from sqlalchemy.orm import Session

from registry import hub, keys
from registry.errors import NotFound
from registry.hub import Revision
from registry.models import Run, User
from server.hubapi.errors import REPO, REVISION, HubError
from server.i18n import error_text


def find_run(session: Session, repo_id: str) -> Run:
    """The run of a repository's id, `run` or `namespace/run`.

    Raises:
        HubError: 404 RepoNotFound.
    """
    try:
        return hub.find_run(session, repo_id)
    except NotFound as error:
        raise HubError(404, error_text(error), REPO) from error


def find_revision(session: Session, run: Run, name: str, user: User | None = None) -> Revision:
    """What a revision's name stands for; the owner of a repository sees also what is not verified yet.

    Raises:
        HubError: 404 RevisionNotFound.
    """
    try:
        return hub.resolve(session, run, name, own=hub.owns(session, run, user))
    except NotFound as error:
        raise HubError(404, error_text(error), REVISION) from error


def asker(session: Session, request: Request) -> User | None:
    """The person whose key with the scope `push` a request carries; None for everybody else, who may only read."""
    kind, _, token = request.headers.get("authorization", "").partition(" ")
    key = keys.find_key(session, token.strip()) if kind.lower() == "bearer" and token.strip() else None
    return key.user if key is not None and keys.may(key, keys.PUSH) else None
