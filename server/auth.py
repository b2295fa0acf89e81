"""Who is asking: the login session behind a request's cookie."""

from typing import Any

from fastapi import Request


def page_context(request: Request) -> dict[str, Any]:
    """`viewer` (the logged-in user or None) and `csrf_token` for every template."""
    return {"viewer": None, "csrf_token": ""}
