"""Long answers of the Hub protocol in pages: the client follows `Link: <…>; rel="next"` to wherever it points."""

from collections.abc import Sequence
from typing import Any

from fastapi import Request
from fastapi.responses import JSONResponse

from server.hubapi.errors import HubError
from server.i18n import gettext

MAX_ITEMS = 1_000


def paged(request: Request, found: Sequence[Any], limit: int = MAX_ITEMS) -> JSONResponse:
    """The part of `found` that the request's `cursor` and `limit` ask for, with the address of the next part.

    Raises:
        HubError: 400 where they are no numbers.
    """
    begin, size = _number(request, "cursor", 0), min(_number(request, "limit", limit), limit)
    headers = {}
    if size and begin + size < len(found):
        # The address under which the client knows this site, not one that the site thinks it has.
        headers["Link"] = f'<{request.url.include_query_params(cursor=begin + size)}>; rel="next"'
    return JSONResponse(list(found[begin : begin + size]), headers=headers)


def _number(request: Request, name: str, default: int) -> int:
    value = request.query_params.get(name, str(default))
    if not (value.isascii() and value.isdecimal() and len(value) <= 9):
        raise HubError(400, gettext("'%(name)s' must be a whole number.", name=name))
    return int(value)
