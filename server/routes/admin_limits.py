"""The administrators' page of limits: what holds, what the default is, and changing it while the site runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

from fastapi import APIRouter, Form, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from sqlalchemy import select
from sqlalchemy.orm import Session

from registry import db, limits
from registry.errors import Invalid
from registry.limits import Limit
from registry.models import User
from registry.settings import get_settings
from server import auth, csrf, render
from server.deps import ReadSession
from server.i18n import N_, error_text, gettext

router = APIRouter(prefix="/admin/limits", route_class=csrf.FormRoute, include_in_schema=False)

GROUPS = {
    "visitors": N_("Visitors"),
    "interface": N_("Programs with a key"),
    "storage": N_("Storage"),
    "evaluation": N_("Evaluation"),
}
WORDS = {
    "chat_limit": N_("Messages of one person"),
    "max_prompt_chars": N_("Longest message, in characters"),
    "film_frames": N_("Checkpoints that one film asks at most"),
    "vote_limit": N_("Votes of one person"),
    "proposal_limit": N_("Prompts that one person proposes"),
    "report_limit": N_("Answers that one person reports"),
    "register_limit": N_("New accounts from one address"),
    "login_limit": N_("Wrong passwords for one name"),
    "api_limit": N_("Requests of one person"),
    "api_concurrent": N_("Requests of one person at a time"),
    "api_tokens_per_day": N_("Tokens of one person a day"),
    "hub_limit": N_("Requests of one person by the Hub protocol"),
    "max_upload_bytes": N_("Largest checkpoint"),
    "upload_days": N_("Days that an unfinished upload is kept"),
    "checkpoints_bytes": N_("All checkpoints together (0: no limit)"),
    "user_checkpoints_bytes": N_("Checkpoints of one person (0: no limit)"),
    "free_disk_bytes": N_("What must stay free on the disk"),
    "cache_bytes": N_("This disk as a cache of the blob store (0: no limit)"),
    "quarantine_days": N_("Days that files of rejected checkpoints are kept"),
    "evaluation_budget_seconds": N_("Engine seconds for one checkpoint's evaluations (0: no limit)"),
    "milestone_every": N_("Every so many checkpoints a milestone (0: only the last, -1: none)"),
    "slice_seconds": N_("Seconds that a slice of an evaluation keeps the engine"),
    "average_last": N_("Checkpoints that are averaged at a milestone (0: none)"),
    "answers_at_once": N_("Answers that one engine writes side by side"),
    "swap_wait_seconds": N_("Seconds that anybody waits for a swap, about"),
    "engine_threads": N_("Threads of the engine (0: its own choice)"),
    "run_code": N_("Whether code that a model wrote is run"),
    "webhook_private_addresses": N_("Whether webhooks may go to private networks"),
}


class Row(NamedTuple):
    """A limit as the page shows it."""

    limit: Limit
    words: str
    text: str
    """The value in force, as it is typed."""
    shown: str
    """The value in force, as a person reads it."""
    default: str
    by: str
    """Who changed it; empty where it is the default."""


@dataclass(frozen=True)
class LimitsPage:
    """Context of admin/limits.html."""

    groups: Sequence[tuple[str, Sequence[Row]]]
    fixed: Sequence[tuple[str, str, str]]
    """Words, value and variable of those that only the environment sets."""
    errors: Mapping[str, str]
    typed: Mapping[str, str]
    done: str = ""


@router.get("")
def show_limits(request: Request, session: ReadSession, _admin: auth.Admin, done: str = "") -> HTMLResponse:
    """What holds now."""
    return _page(request, session, done=done)


@router.post("/{name}")
def change(
    request: Request,
    admin: auth.Admin,
    name: str,
    value: Annotated[str, Form()] = "",
    default: Annotated[str, Form()] = "",
) -> Response:
    """Change a limit, or go back to its default."""
    try:
        with db.transaction() as session:
            if default:
                limits.reset(session, admin, name)
            else:
                limits.change(session, admin, name, value)
    except Invalid as error:
        with db.read_session() as session:
            errors, typed = {name: error_text(error)}, {name: value[: limits.MAX_CHARS]}
            return _page(request, session, errors=errors, typed=typed, status=422)
    limits.refresh(fresh=True)
    return RedirectResponse(f"/admin/limits?done={'reset' if default else 'changed'}#{name}", 303)


def _page(
    request: Request,
    session: Session,
    *,
    errors: Mapping[str, str] | None = None,
    typed: Mapping[str, str] | None = None,
    done: str = "",
    status: int = 200,
) -> HTMLResponse:
    known = limits.list_limits(session)
    changers = {one.change.user_id for group in known.values() for one in group if one.change is not None}
    names = {number: name for number, name in session.execute(select(User.id, User.name).where(User.id.in_(changers)))}
    settings = get_settings()
    context = LimitsPage(
        groups=[(gettext(GROUPS[group]), [_row(one, names) for one in rows]) for group, rows in known.items()],
        fixed=[(gettext(WORDS[name]), _shown(name, getattr(settings, name)), name.upper()) for name in limits.FIXED],
        errors=errors or {},
        typed=typed or {},
        done=done,
    )
    return render.page(request, "admin/limits.html", context, status_code=status)


def _row(limit: Limit, names: Mapping[int, str]) -> Row:
    by = "" if limit.change is None else names.get(limit.change.user_id or 0, gettext("somebody who has left"))
    words = gettext(WORDS[limit.name])
    text = f"{limit.value:.12g}" if isinstance(limit.value, float) else str(limit.value)
    return Row(limit, words, text, _shown(limit.name, limit.value), _shown(limit.name, limit.default), by)


def _shown(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return gettext("yes") if value else gettext("no")
    if name.endswith("_bytes"):
        return render.size(value)
    return render.number(value, 0 if float(value).is_integer() else 1) if isinstance(value, int | float) else str(value)
