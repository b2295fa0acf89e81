"""Errors in the Hub's form: a status, `X-Error-Code` that the client turns into its exceptions, and a sentence."""

from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from fastapi import HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from fastapi.routing import APIRoute

from registry.errors import Conflict, Invalid, NoRoom, NotFound, Refused, RegistryError
from server.i18n import error_text

REPO, REVISION, ENTRY = "RepoNotFound", "RevisionNotFound", "EntryNotFound"
STATUSES: Mapping[type[RegistryError], int] = {NotFound: 404, Conflict: 409, Invalid: 422, Refused: 403, NoRoom: 507}


class HubError(HTTPException):
    """A refusal with the Hub's code, where it has one for it."""

    def __init__(self, status: int, message: str, code: str = "", headers: Mapping[str, str] | None = None) -> None:
        super().__init__(status, message, headers=dict(headers or {}))
        self.code = code


class HubRoute(APIRoute):
    """A route whose every refusal is in the Hub's form."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler, with its errors turned into answers."""
        handle = super().get_route_handler()

        async def answered(request: Request) -> Response:
            try:
                return await handle(request)
            except HubError as error:
                return error_answer(error.status_code, str(error.detail), error.code, error.headers)
            except RegistryError as error:
                status = next((status for kind, status in STATUSES.items() if isinstance(error, kind)), 500)
                return error_answer(status, error_text(error))
            except RequestValidationError as error:
                found = error.errors()[0]
                place = ".".join(str(part) for part in found["loc"][1:])
                return error_answer(400, f"{place}: {found['msg']}" if place else str(found["msg"]))
            except HTTPException as error:
                return error_answer(error.status_code, str(error.detail), headers=error.headers)

        return answered


def error_answer(status: int, message: str, code: str = "", headers: Mapping[str, str] | None = None) -> JSONResponse:
    """`{"error": …}` with the headers that the client reads; a header cannot carry every letter, the body does."""
    sent = dict(headers or {})
    if code:
        sent["X-Error-Code"] = code
    line = " ".join(message.split())
    if line.isascii():
        sent["X-Error-Message"] = line[:1_000]
    return JSONResponse({"error": message}, status_code=status, headers=sent)
