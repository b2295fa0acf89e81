"""Routes that columns side by side and films have in common: their page, stream, files, link and single answers."""

from collections.abc import Sequence
from dataclasses import dataclass

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse, RedirectResponse

from registry import ages as verbs
from registry import grouplinks
from registry.grouplinks import SharedGroup
from registry.models import ChatGroup
from server import ages, auth, charts, csrf, render, strips
from server.deps import ReadSession, WriteSession

router = APIRouter(route_class=csrf.FormRoute, include_in_schema=False)
SIDE, FILM = "/chat/side/{public_id}", "/chat/film/{public_id}"
NO_INDEX = {"X-Robots-Tag": "noindex"}


@dataclass(frozen=True)
class ChartFragment:
    """Context of charts/_chart.html."""

    chart: charts.Chart
    is_update: bool = False


@dataclass(frozen=True)
class SharePanel:
    """Context of ages/_share.html."""

    group: ChatGroup
    link: str | None
    site_address: str


@dataclass(frozen=True)
class SharedPage:
    """Context of ages/shared.html."""

    shared: SharedGroup
    columns: Sequence[ages.Column]
    settings: Sequence[tuple[str, str]]


@router.get(SIDE)
@router.get(FILM)
def show_group(request: Request, session: ReadSession, user: auth.Member, public_id: str) -> Response:
    """All answers as they stand; what is being written attaches itself to the stream."""
    return ages.group_response(request, session, ages.own_group(session, user, _kind(request), public_id))


@router.get(f"{SIDE}/events")
@router.get(f"{FILM}/events")
def stream_group(request: Request, session: ReadSession, user: auth.Member, public_id: str) -> Response:
    """All answers as they are written, in one stream."""
    group = ages.own_group(session, user, _kind(request), public_id)
    last = [column.last.turn for column in ages.columns_of(group) if column.last is not None]
    looks = {turn.id: strips.look_of(turn) for turn in last}
    return strips.respond(looks, tells_places=group.kind == "side")


@router.post(f"{SIDE}/stop")
@router.post(f"{FILM}/stop")
def stop_all(request: Request, session: WriteSession, user: auth.Member, public_id: str) -> Response:
    """Stop everything that waits or is being written."""
    group = ages.own_group(session, user, _kind(request), public_id)
    verbs.stop_all(session, group)
    if "hx-request" in request.headers:
        return Response(status_code=204)  # the stream tells the rest
    return RedirectResponse(f"/chat/{group.kind}/{public_id}", 303)


@router.get(f"{SIDE}/answers.json")
@router.get(f"{FILM}/answers.json")
def download_json(request: Request, session: ReadSession, user: auth.Member, public_id: str) -> Response:
    """All questions and answers with their settings, the first column first."""
    group = ages.own_group(session, user, _kind(request), public_id)
    return JSONResponse(ages.rows(ages.columns_of(group)), headers=_attachment(group, "json"))


@router.get(f"{SIDE}/answers.csv")
@router.get(f"{FILM}/answers.csv")
def download_csv(request: Request, session: ReadSession, user: auth.Member, public_id: str) -> Response:
    """The same as a table."""
    group = ages.own_group(session, user, _kind(request), public_id)
    content = ages.to_csv(ages.rows(ages.columns_of(group)))
    return Response(content, media_type="text/csv; charset=utf-8", headers=_attachment(group, "csv"))


@router.get(f"{SIDE}/certainty")
@router.get(f"{FILM}/certainty")
def show_certainty(request: Request, session: ReadSession, user: auth.Member, public_id: str) -> Response:
    """The curve of how sure each age was of its own words."""
    group = ages.own_group(session, user, _kind(request), public_id)
    chart = ages.chart_of(ages.columns_of(group), request.url.path)
    if chart is None:
        return Response()
    return render.page(request, "charts/_chart.html", ChartFragment(chart))


@router.post(f"{SIDE}/share")
@router.post(f"{FILM}/share")
def share_group(request: Request, session: WriteSession, user: auth.Member, public_id: str) -> Response:
    """Make a link to all answers as they stand."""
    group = ages.own_group(session, user, _kind(request), public_id)
    grouplinks.share(group)
    return _share_panel(request, group)


@router.post(f"{SIDE}/unshare")
@router.post(f"{FILM}/unshare")
def unshare_group(request: Request, session: WriteSession, user: auth.Member, public_id: str) -> Response:
    """End the link."""
    group = ages.own_group(session, user, _kind(request), public_id)
    grouplinks.unshare(group)
    return _share_panel(request, group)


@router.get(f"{SIDE}/{{column}}")
@router.get(f"{FILM}/{{column}}")
def show_column(request: Request, session: ReadSession, user: auth.Member, public_id: str, column: str) -> Response:
    """One column or frame as it stands in the database."""
    group = ages.own_group(session, user, _kind(request), public_id)
    return ages.column_response(request, group, verbs.column(group, column))


@router.get("/shared/ages/{token}")
def show_shared(request: Request, session: ReadSession, token: str) -> Response:
    """Columns or frames that their owner has shared: to read, by anybody with the link."""
    found = grouplinks.shared(session, token)
    columns = [ages.Column(one.chat, ages.shown_of(one.chat, one.turns)) for one in found.columns]
    context = SharedPage(found, columns, ages.settings_of(columns))
    return render.page(request, "ages/shared.html", context, headers=NO_INDEX)


def _kind(request: Request) -> str:
    return request.url.path.split("/")[2]


def _share_panel(request: Request, group: ChatGroup) -> Response:
    if "hx-request" not in request.headers:
        return RedirectResponse(f"/chat/{group.kind}/{group.public_id}", 303)
    panel = SharePanel(group, grouplinks.link(group), str(request.base_url).rstrip("/"))
    return render.page(request, "ages/_share.html", panel)


def _attachment(group: ChatGroup, suffix: str) -> dict[str, str]:
    return {"Content-Disposition": f'attachment; filename="{group.kind}-{group.public_id}.{suffix}"'}
