"""Who pushes: the person of a request's API key, and the run that they may push into."""

from typing import Annotated

from fastapi import Depends, Request

from registry import db, hub, keys
from registry.models import Run, User
from registry.settings import get_settings
from server import auth, limits
from server.hubapi import repos
from server.hubapi.addresses import RepoId
from server.hubapi.errors import HubError
from server.i18n import gettext

WRONG_KEY = "Invalid credentials in Authorization header"
"""The client tells a wrong key from a repository that is hidden by exactly these words."""


def key_owner(request: Request) -> User:
    """The person whose valid API key a request carries.

    Raises:
        HubError: 401 without a valid key.
        TooMany: too many requests of this person, or from this address.
    """
    limit = get_settings().hub_limit
    limits.hit_address("hub", limit, auth.client_address(request))
    kind, _, token = request.headers.get("authorization", "").partition(" ")
    with db.read_session() as session:
        key = keys.find_key(session, token.strip()) if kind.lower() == "bearer" and token.strip() else None
    if key is None:
        raise HubError(401, WRONG_KEY)
    limits.hit("hub", limit, str(key.user_id))
    if keys.needs_touch(key):
        with db.transaction() as session:
            keys.touch(session, key.id)
    request.state.may_push = keys.may(key, keys.PUSH)
    return key.user


def pusher(request: Request) -> User:
    """The person whose API key a request carries, if they may bring checkpoints in.

    Raises:
        HubError: 401 without a valid key, 403 for one that may not push.
        Refused: the person is banned.
        TooMany: too many requests.
    """
    user = key_owner(request)
    keys.check_allowed(user)
    if not request.state.may_push:
        message = gettext("This API key may not bring checkpoints in: make one with the scope 'push'.")
        raise HubError(403, message)
    if not hub.may_push(user):
        raise HubError(403, gettext("Only administrators and publishers may bring checkpoints in."))
    return user


Pusher = Annotated[User, Depends(pusher)]


def own_run(repo_id: RepoId, user: Pusher) -> Run:
    """The run of the address, if this person may push into it.

    Raises:
        HubError: 404 where there is no such repository.
        Refused: it is somebody else's.
    """
    with db.read_session() as session:
        run = repos.find_run(session, repo_id)
        hub.check_owner(session, run, user)
    return run


OwnRun = Annotated[Run, Depends(own_run)]
