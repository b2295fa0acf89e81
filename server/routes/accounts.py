"""Routes of accounts: registering, logging in and out, and one's own logins."""

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from threading import BoundedSemaphore
from typing import Annotated

from fastapi import APIRouter, Form, Request, Response
from fastapi.responses import RedirectResponse

from registry import accounts, db, departures
from registry.errors import Conflict, Invalid, Refused
from registry.models import LoginSession, User
from registry.settings import get_settings
from server import auth, csrf, limits, render
from server.auth import own_path
from server.deps import ReadSession
from server.i18n import error_text, gettext

router = APIRouter(route_class=csrf.FormRoute, include_in_schema=False)


# An argon2 hash takes 64 MiB: request threads wait here, so that a flood of logins cannot fill the memory.
_hashing = BoundedSemaphore(4)


@dataclass(frozen=True)
class CredentialsPage:
    """Context of accounts/login.html and accounts/register.html."""

    name: str = ""
    next: str = "/"
    errors: Mapping[str, str] = field(default_factory=dict)
    """Field name to sentence; "form" for what belongs to no single field."""


BROWSERS = (("Edg", "Edge"), ("OPR", "Opera"), ("Firefox", "Firefox"), ("Chrome", "Chrome"), ("Safari", "Safari"))
SYSTEMS = (
    ("iPhone", "iPhone"),
    ("iPad", "iPad"),
    ("Android", "Android"),
    ("Windows", "Windows"),
    ("Mac OS", "macOS"),
    ("Linux", "Linux"),
)
"""Marks in a User-Agent header, the telling ones first: every browser also names its forerunners."""


@dataclass(frozen=True)
class OpenLogin:
    """One row of the list of logins."""

    login: LoginSession
    browser: str
    is_here: bool


@dataclass(frozen=True)
class AccountPage:
    """Context of accounts/account.html."""

    login: LoginSession
    logins: Sequence[OpenLogin]
    done: str = ""
    errors: Mapping[str, str] = field(default_factory=dict)


@router.get("/login")
def login_page(request: Request, next: str = "/") -> Response:
    """The login form; who is logged in already goes on."""
    if auth.current_user(request) is not None:
        return RedirectResponse(own_path(next), 303)
    return _form(request, "accounts/login.html", CredentialsPage(next=own_path(next)))


@router.post("/login")
def log_in(
    request: Request,
    name: Annotated[str, Form()] = "",
    password: Annotated[str, Form()] = "",
    next: Annotated[str, Form()] = "/",
) -> Response:
    """Open a login, with a new token whatever the browser had before."""
    try:
        user = _authenticate(request, name, password)
    except Refused:
        message = gettext("The name or the password is wrong.")
        return _form(request, "accounts/login.html", _typed(name, next, {"form": message}), 401)
    except limits.TooMany as error:
        message = gettext(
            "Too many tries. Wait %(seconds)s seconds, then try again.",
            seconds=error.retry_seconds,
        )
        return _form(request, "accounts/login.html", _typed(name, next, {"form": message}), 429, error)
    return _enter(request, user, next)


@router.get("/register")
def register_page(request: Request, next: str = "/chat") -> Response:
    """The registration form."""
    if auth.current_user(request) is not None:
        return RedirectResponse(own_path(next), 303)
    return _form(request, "accounts/register.html", CredentialsPage(next=own_path(next)))


@router.post("/register")
def register(
    request: Request,
    name: Annotated[str, Form()] = "",
    password: Annotated[str, Form()] = "",
    next: Annotated[str, Form()] = "/chat",
) -> Response:
    """Make an account and log it in."""
    errors = _problems(name, password)
    status, too_many = 422, None
    if not errors:
        try:
            limits.hit("register", get_settings().register_limit, auth.client_address(request))
            with _hashing, db.transaction() as session:
                user = accounts.register(session, name, password)
            return _enter(request, user, next)
        except limits.TooMany as error:
            errors, status, too_many = {"form": error.detail}, 429, error
        except Conflict:
            errors, status = {"name": gettext("This name is taken. Choose another.")}, 409
        except Invalid as error:
            errors = {"name": error_text(error)}
    return _form(request, "accounts/register.html", _typed(name, next, errors), status, too_many)


@router.post("/logout")
def log_out(request: Request) -> Response:
    """End this browser's login."""
    login = auth.current_login(request)
    if login is not None:
        with db.transaction() as session:
            accounts.revoke(session, login.user, login.id)
    response = RedirectResponse("/", 303)
    auth.drop_login(response)
    return response


@router.get("/account")
def account_page(request: Request, login: auth.Login, done: str = "") -> Response:
    """One's open logins and the password form."""
    return _account(request, login, done=done)


@router.post("/account/logins/{login_id}/revoke")
def revoke(login_id: int, login: auth.Login) -> Response:
    """End one of one's own logins."""
    with db.transaction() as session:
        accounts.revoke(session, login.user, login_id)
    if login_id == login.id:
        response = RedirectResponse("/", 303)
        auth.drop_login(response)
        return response
    return RedirectResponse("/account?done=revoked", 303)


@router.post("/account/logins/revoke-others")
def revoke_others(login: auth.Login) -> Response:
    """End every login but this browser's."""
    with db.transaction() as session:
        accounts.revoke_others(session, login.user, login.id)
    return RedirectResponse("/account?done=revoked", 303)


@router.post("/account/password")
def change_password(
    request: Request,
    login: auth.Login,
    old: Annotated[str, Form()] = "",
    new: Annotated[str, Form()] = "",
) -> Response:
    """Set another password, end every login with the old one, and log this browser in again."""
    problem = _password_problem(new)
    if problem:
        return _account(request, login, errors={"new": problem}, status=422)
    try:
        _authenticate(request, login.user.name, old)
    except Refused:
        return _account(request, login, errors={"old": gettext("The old password is wrong.")}, status=401)
    except limits.TooMany as error:
        return _account(request, login, errors={"old": error.detail}, status=429)
    with _hashing, db.transaction() as session:
        user = session.get_one(User, login.user_id)
        accounts.set_password(session, user, new)
        session.flush()  # the old logins end before the new one begins
        token = accounts.open_session(session, user, request.headers.get("user-agent", ""))
    response = RedirectResponse("/account?done=password", 303)
    auth.keep_login(response, token)
    return response


@router.get("/account/export")
def export(session: ReadSession, user: auth.Member) -> Response:
    """Everything that is kept under one's account, as a file."""
    headers = {"Content-Disposition": 'attachment; filename="account.json"', "Cache-Control": "no-store"}
    return Response(departures.export(session, user), media_type="application/json", headers=headers)


@router.post("/account/delete")
def delete(request: Request, login: auth.Login, password: Annotated[str, Form()] = "") -> Response:
    """End the account and all that is only its own, once the password is given again."""
    try:
        _authenticate(request, login.user.name, password)
        with db.transaction() as session:
            departures.delete(session, session.get_one(User, login.user_id))
    except Refused as error:
        return _account(request, login, errors={"leave": error_text(error)}, status=403)
    except limits.TooMany as error:
        return _account(request, login, errors={"leave": error.detail}, status=429)
    response = RedirectResponse("/account/deleted", 303)
    auth.drop_login(response)
    return response


@router.get("/account/deleted")
def deleted_page(request: Request) -> Response:
    """Goodbye."""
    return render.page(request, "accounts/deleted.html", CredentialsPage())


def _authenticate(request: Request, name: str, password: str) -> User:
    limit, address = get_settings().login_limit, auth.client_address(request)
    key = unicodedata.normalize("NFKC", name).strip().casefold()
    address_limit = limits.of_address(limit)
    limits.check("login-address", address_limit, address)
    # Counted before the answer is known: tries sent at the same moment are not free.
    limits.hit("login", limit, key)
    try:
        with _hashing, db.read_session() as session:
            user = accounts.authenticate(session, name, password)
    except Refused:
        limits.hit("login-address", address_limit, address)
        raise
    limits.clear("login", limit, key)
    return user


def _enter(request: Request, user: User, next: str) -> Response:
    before = auth.current_login(request)
    with db.transaction() as session:
        if before is not None:
            accounts.revoke(session, before.user, before.id)
        # The library's recommended cost may have risen since the password was set.
        session.get_one(User, user.id).password_hash = user.password_hash
        token = accounts.open_session(session, user, request.headers.get("user-agent", ""))
    response = RedirectResponse(own_path(next), 303)
    auth.keep_login(response, token)
    return response


def _form(
    request: Request, template: str, context: CredentialsPage, status: int = 200, too_many: limits.TooMany | None = None
) -> Response:
    csrf.ensure_visitor(request)
    headers = {"Retry-After": str(too_many.retry_seconds)} if too_many is not None else None
    response = render.page(request, template, context, status_code=status, headers=headers)
    auth.keep_visitor(request, response)
    return response


def _account(
    request: Request,
    login: LoginSession,
    *,
    done: str = "",
    errors: Mapping[str, str] | None = None,
    status: int = 200,
) -> Response:
    with db.read_session() as session:
        found = accounts.list_sessions(session, login.user)
    logins = [OpenLogin(one, browser_name(one.user_agent), one.id == login.id) for one in found]
    context = AccountPage(login=login, logins=logins, done=done, errors=errors or {})
    return render.page(request, "accounts/account.html", context, status_code=status)


def browser_name(user_agent: str) -> str:
    """`Firefox, Linux`, or the beginning of the header where it is no browser's."""
    browser = next((name for mark, name in BROWSERS if f"{mark}/" in user_agent), "")
    system = next((name for mark, name in SYSTEMS if mark in user_agent), "")
    return ", ".join(part for part in (browser, system) if part) or user_agent[:60]


def _typed(name: str, next: str, errors: Mapping[str, str]) -> CredentialsPage:
    return CredentialsPage(name=name[:100], next=own_path(next), errors=errors)


def _problems(name: str, password: str) -> dict[str, str]:
    problems = {}
    if not 2 <= len(unicodedata.normalize("NFKC", name).strip()) <= 40:
        problems["name"] = gettext("A name has 2 to 40 characters.")
    if problem := _password_problem(password):
        problems["password"] = problem
    return problems


def _password_problem(password: str) -> str:
    if len(password) < accounts.MIN_PASSWORD_CHARS:
        return gettext("A password has at least %(count)s characters.", count=accounts.MIN_PASSWORD_CHARS)
    if len(password) > accounts.MAX_PASSWORD_CHARS:
        return gettext("A password has at most %(count)s characters.", count=accounts.MAX_PASSWORD_CHARS)
    return ""
