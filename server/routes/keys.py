"""Routes of API keys: making, listing and revoking them, what was used with them, and how to use them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated

from fastapi import APIRouter, Form, Request, Response
from fastapi.responses import RedirectResponse
from sqlalchemy.orm import Session

from registry import checkpoints, keys
from registry.errors import Conflict, Invalid, Refused
from registry.models import ApiKey, User
from registry.settings import get_settings
from server import auth, csrf, render, usage
from server.deps import ReadSession, WriteSession
from server.i18n import error_text
from server.usage import UsageView

router = APIRouter(route_class=csrf.FormRoute, include_in_schema=False)
USUAL = keys.USUAL
LIFETIMES = (0, 30, 90, 365)
"""Days that a key may be valid for, as the form offers them; 0: without end."""


@dataclass(frozen=True)
class KeysPage:
    """Context of accounts/api.html."""

    keys: Sequence[ApiKey]
    usage: UsageView
    scopes: Sequence[str]
    lifetimes: Sequence[int]
    base_url: str
    new_token: str = ""
    """A key that was made just now; shown this once."""
    done: str = ""
    errors: Mapping[str, str] = field(default_factory=dict)
    name: str = ""
    chosen: Sequence[str] = USUAL
    days: int = 0


@dataclass(frozen=True)
class ApiDocsPage:
    """Context of docs/api.html."""

    base_url: str
    model: str
    """A checkpoint for the examples."""
    requests: str
    concurrent: int
    tokens: int
    is_filled: bool
    """Whether there is a checkpoint at all."""


@router.get("/account/api")
def keys_page(request: Request, session: ReadSession, user: auth.Member, done: str = "") -> Response:
    """One's keys, and what was used with them."""
    return _page(request, session, user, done=done)


@router.post("/account/api/keys")
def make_key(
    request: Request,
    session: WriteSession,
    user: auth.Member,
    name: Annotated[str, Form()] = "",
    scope: Annotated[list[str] | None, Form()] = None,
    days: Annotated[str, Form()] = "0",
) -> Response:
    """Make a key and show it, once."""
    chosen = [one for one in scope or [] if one in _scopes(user)]
    lifetime = int(days) if days.isdigit() and int(days) in LIFETIMES else 0
    try:
        made = keys.make(session, user, name, chosen, days=lifetime or None)
    except (Invalid, Conflict, Refused) as error:
        about = "scope" if name.strip() and not chosen else "name"
        errors, status = {about: error_text(error)}, 409 if isinstance(error, Conflict) else 422
        return _page(
            request, session, user, errors=errors, status=status, name=name[:100], chosen=chosen, days=lifetime
        )
    response = _page(request, session, user, new_token=made.token)
    response.headers["Cache-Control"] = "no-store"
    return response


@router.post("/account/api/keys/{key_id}/revoke")
def revoke_key(session: WriteSession, user: auth.Member, key_id: int) -> Response:
    """End a key."""
    keys.revoke(session, user, key_id)
    return RedirectResponse("/account/api?done=revoked", 303)


@router.get("/docs/api")
def api_docs_page(request: Request, session: ReadSession) -> Response:
    """How to use the OpenAI-compatible interface, with this site's own address in the examples."""
    newest = [*checkpoints.newest(session, "chat"), *checkpoints.newest(session)]
    settings = get_settings()
    context = ApiDocsPage(
        base_url=_base_url(request),
        model=newest[0].label if newest else "run@1000",
        requests=settings.api_limit,
        concurrent=settings.api_concurrent,
        tokens=settings.api_tokens_per_day,
        is_filled=bool(newest),
    )
    return render.page(request, "docs/api.html", context)


def _page(
    request: Request,
    session: Session,
    user: User,
    *,
    new_token: str = "",
    done: str = "",
    errors: Mapping[str, str] | None = None,
    status: int = 200,
    name: str = "",
    chosen: Sequence[str] = USUAL,
    days: int = 0,
) -> Response:
    context = KeysPage(
        keys=keys.list_keys(session, user),
        usage=usage.of_user(session, user),
        scopes=_scopes(user),
        lifetimes=LIFETIMES,
        base_url=_base_url(request),
        new_token=new_token,
        done=done,
        errors=errors or {},
        name=name,
        chosen=chosen,
        days=days,
    )
    return render.page(request, "accounts/api.html", context, status_code=status)


def _scopes(user: User) -> Sequence[str]:
    """What this person's keys may do: bringing checkpoints in is for administrators and publishers."""
    return keys.SCOPES if user.may_publish else keys.USUAL


def _base_url(request: Request) -> str:
    return f"{str(request.base_url).rstrip('/')}/v1"
