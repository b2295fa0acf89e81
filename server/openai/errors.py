"""Errors in OpenAI's form, for everything below /v1."""

from collections.abc import Mapping
from typing import Any

from fastapi import HTTPException
from fastapi.responses import JSONResponse

PATH = "/v1"
INVALID = "invalid_request_error"
CODES = {
    400: (INVALID, None),
    401: (INVALID, "invalid_api_key"),
    403: ("permission_error", None),
    404: (INVALID, "model_not_found"),
    405: (INVALID, "method_not_supported"),
    409: (INVALID, "model_not_ready"),
    413: (INVALID, "request_too_large"),
    422: (INVALID, None),
    429: ("requests", "rate_limit_exceeded"),
    503: ("server_error", "service_unavailable"),
}
"""OpenAI's type and code of an error where nothing tells more."""
PLAIN_STATUS = {409: 400, 422: 400}
"""OpenAI knows only 400 for a request that cannot be accepted; its client repeats what is answered with 409."""


class ApiError(HTTPException):
    """A refusal that names the parameter, or has a code of its own."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(status, message, headers=dict(headers or {}))
        self.param = param
        self.code = code

    def content(self) -> dict[str, Any]:
        """What is sent."""
        return error_content(self.status_code, str(self.detail), param=self.param, code=self.code)


def is_api(path: str) -> bool:
    """Whether an address belongs to this interface."""
    return path == PATH or path.startswith(f"{PATH}/")


def error_content(status: int, message: str, *, param: str | None = None, code: str | None = None) -> dict[str, Any]:
    """`{"error": {"message", "type", "param", "code"}}`."""
    kind, usual = CODES.get(status, ("server_error", None))
    return {"error": {"message": message, "type": kind, "param": param, "code": code or usual}}


def error_answer(
    status: int,
    message: str,
    *,
    param: str | None = None,
    code: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    """An error as a whole response."""
    content = error_content(status, message, param=param, code=code)
    return JSONResponse(content, status_code=PLAIN_STATUS.get(status, status), headers=dict(headers or {}))


def param_of(problems: Any) -> tuple[str, str | None]:
    """A sentence on what pydantic found wrong, and the parameter that the first of it is about."""
    first = problems[0]
    place = [str(part) for part in first["loc"][1:] if not str(part).startswith(("function-", "list[", "constrained-"))]
    param = place[0] if place else None
    where = ".".join(place)
    message = str(first["msg"]).removeprefix("Value error, ")
    return (f"{where}: {message}" if where else message), param
