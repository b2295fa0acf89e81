"""What visitors should know about the models' answers and about what is kept."""

from dataclasses import dataclass

from fastapi import APIRouter, Request, Response

from registry import calls, conversations
from registry.accounts import SESSION_DAYS
from registry.settings import get_settings
from server import render

router = APIRouter(include_in_schema=False)
SECONDS_AN_HOUR = 3_600


@dataclass(frozen=True)
class AboutPage:
    """Context of about/models.html."""

    undo_hours: int
    call_hours: int
    login_days: int
    max_prompt_chars: int
    report_limit: str


@router.get("/about/models")
def about_models(request: Request) -> Response:
    """How answers come about, what is filtered, how to report, and what is kept for how long."""
    settings = get_settings()
    context = AboutPage(
        undo_hours=int(conversations.UNDO.total_seconds() // SECONDS_AN_HOUR),
        call_hours=int(calls.KEPT.total_seconds() // SECONDS_AN_HOUR),
        login_days=SESSION_DAYS,
        max_prompt_chars=settings.max_prompt_chars,
        report_limit=settings.report_limit,
    )
    return render.page(request, "about/models.html", context)
