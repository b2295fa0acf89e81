"""Who is asking: the login behind a request's cookie, and who may see what."""

from typing import Annotated, Any
from urllib.parse import quote, urlsplit

from fastapi import Depends, HTTPException, Request, Response

from registry import accounts, db, uploads
from registry.models import LoginSession, User
from registry.models.base import utcnow
from registry.settings import get_settings
from server import csrf
from server.csrf import SESSION_COOKIE, VISITOR_COOKIE
from server.i18n import gettext

SECONDS_A_DAY = 86_400


def page_context(request: Request) -> dict[str, Any]:
    """`viewer` (the logged-in user or None) and `csrf_token` for every template."""
    return {"viewer": current_user(request), "csrf_token": csrf.token(request)}


def current_login(request: Request) -> LoginSession | None:
    """The valid login of this request, looked up once."""
    if not hasattr(request.state, "login"):
        request.state.login = _find(request.cookies.get(SESSION_COOKIE))
    found: LoginSession | None = request.state.login
    return found


def _find(token: str | None) -> LoginSession | None:
    if not token:
        return None
    with db.read_session() as session:
        login = accounts.find_session(session, token)
    if login is not None and login.last_seen_at < utcnow() - accounts.SEEN_EVERY:
        with db.transaction() as session:
            accounts.touch_session(session, login.id)
    return login


def current_user(request: Request) -> User | None:
    """The person behind this request; None for a visitor."""
    login = current_login(request)
    return login.user if login is not None else None


def require_login(request: Request) -> LoginSession:
    """The valid login of this request.

    Raises:
        HTTPException: a redirect to the login page for pages, 401 for scripts.
    """
    login = current_login(request)
    if login is not None:
        return login
    if "hx-request" in request.headers or "text/html" not in request.headers.get("accept", ""):
        raise HTTPException(401, gettext("You are not logged in, or no longer: log in and send it again."))
    raise HTTPException(303, headers={"Location": f"/login?next={quote(_page_of(request))}"})


def require_user(login: Annotated[LoginSession, Depends(require_login)]) -> User:
    """The person behind this request, who must be logged in."""
    return login.user


def require_admin(login: Annotated[LoginSession, Depends(require_login)]) -> User:
    """An administrator.

    Raises:
        HTTPException: 403 for anybody else who is logged in.
    """
    if not login.user.is_admin:
        raise HTTPException(403, gettext("This part of the site is for its administrators."))
    return login.user


def require_uploader(login: Annotated[LoginSession, Depends(require_login)]) -> User:
    """Somebody who may bring checkpoints in.

    Raises:
        HTTPException: 403 for anybody else who is logged in.
    """
    if not uploads.may_upload(login.user):
        raise HTTPException(403, gettext("Only administrators and publishers may upload checkpoints."))
    return login.user


Viewer = Annotated[User | None, Depends(current_user)]
Member = Annotated[User, Depends(require_user)]
Login = Annotated[LoginSession, Depends(require_login)]
Admin = Annotated[User, Depends(require_admin)]
Uploader = Annotated[User, Depends(require_uploader)]


def _page_of(request: Request) -> str:
    if request.method == "GET":
        return request.url.path + (f"?{request.url.query}" if request.url.query else "")
    referer = urlsplit(request.headers.get("referer", ""))  # a form's own page, not the address it posts to
    return own_path(referer.path)


def own_path(address: str, default: str = "/") -> str:
    """`address` where it is a path of this site, else `default`: a login must not send people elsewhere."""
    plain = address.startswith("/") and address[1:2] not in ("/", "\\") and address.isprintable()
    return address if plain and not urlsplit(address).netloc else default


def keep_login(response: Response, token: str) -> None:
    """Give the browser the cookie of its login."""
    _set_cookie(response, SESSION_COOKIE, token, accounts.SESSION_DAYS * SECONDS_A_DAY)


def drop_login(response: Response) -> None:
    """Take the cookie back."""
    response.delete_cookie(SESSION_COOKIE, path="/", secure=get_settings().secure_cookies, httponly=True)


def keep_visitor(request: Request, response: Response) -> None:
    """Give a browser that is not logged in what its forms are bound to."""
    _set_cookie(response, VISITOR_COOKIE, csrf.ensure_visitor(request), SECONDS_A_DAY)


def _set_cookie(response: Response, name: str, value: str, seconds: int) -> None:
    secure = get_settings().secure_cookies
    response.set_cookie(name, value, max_age=seconds, path="/", httponly=True, samesite="lax", secure=secure)


def client_address(request: Request) -> str:
    """Where the request comes from; uvicorn has already read the headers of trusted proxies."""
    return request.client.host if request.client else "unknown"
