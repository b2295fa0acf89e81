"""Routes of the history of conversations: search, rename, delete and undo, share, export and import."""

from dataclasses import dataclass
from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Form, Request, Response, UploadFile
from fastapi.responses import RedirectResponse

from registry import chatfiles, chats
from registry import conversations as verbs
from registry.errors import Invalid, RegistryError
from registry.models import Chat
from server import auth, conversations, csrf, knobs, render
from server.conversations import Composer, History
from server.deps import ReadSession, WriteSession
from server.i18n import gettext

router = APIRouter(prefix="/chat", route_class=csrf.FormRoute, include_in_schema=False)


@dataclass(frozen=True)
class HistoryFragment:
    """Context of chats/_entries.html."""

    history: History


@dataclass(frozen=True)
class SharePanel:
    """Context of chats/_share.html."""

    chat: Chat
    site_address: str


@router.get("/history")
def show_history(request: Request, session: ReadSession, user: auth.Member) -> Response:
    """The entries that hold the words `q`, from the page `older` on; as a page of its own without a script."""
    if "hx-request" not in request.headers:
        return RedirectResponse(f"/chat?{request.url.query}", 303)
    return render.page(request, "chats/_entries.html", HistoryFragment(conversations.history(session, user, request)))


@router.post("/import")
def import_chat(
    request: Request, session: WriteSession, user: auth.Member, file: Annotated[UploadFile | None, Form()] = None
) -> Response:
    """Read a file that was exported here, or on another site of this kind, into the history."""
    try:
        if file is None or not file.filename:
            raise Invalid(gettext("Choose a file first: one that was exported from a conversation."))
        content = file.file.read(chatfiles.MAX_BYTES + 1)
        chat = chatfiles.bring_in(session, user, chatfiles.read(content))
    except RegistryError as error:
        session.rollback()  # half a conversation is none
        message, status = conversations.told(error)
        chosen = conversations.find_checkpoint(session, "")
        composer = Composer(knobs.defaults(chosen.kind if chosen is not None else ""), error=message)
        return conversations.page(request, session, user, None, chosen, composer, status=status)
    return RedirectResponse(f"/chat/{chat.public_id}", 303)


@router.post("/{public_id}/rename")
def rename_chat(
    request: Request, session: WriteSession, user: auth.Member, public_id: str, title: Annotated[str, Form()] = ""
) -> Response:
    """Give a conversation another title, and come back to the page that asked."""
    verbs.rename(session, verbs.find(session, user, public_id), title)
    return RedirectResponse(_back(request, public_id), 303)


@router.post("/{public_id}/clear")
def clear_chat(session: WriteSession, user: auth.Member, public_id: str) -> Response:
    """Hide a conversation and offer to bring it back."""
    entry = verbs.find(session, user, public_id)
    verbs.clear(session, entry)
    with_checkpoint = f"checkpoint={quote(entry.checkpoint.label)}&" if isinstance(entry, Chat) else ""
    return RedirectResponse(f"/chat?{with_checkpoint}cleared={entry.public_id}", 303)


@router.post("/{public_id}/restore")
def restore_chat(session: WriteSession, user: auth.Member, public_id: str) -> Response:
    """Undo a deletion."""
    return RedirectResponse(verbs.restore(session, user, public_id).address, 303)


@router.post("/{public_id}/share")
def share_chat(request: Request, session: WriteSession, user: auth.Member, public_id: str) -> Response:
    """Make a link to the branch that is shown."""
    chat = chats.get_chat(session, user, public_id)
    verbs.share(session, chat)
    return _share_panel(request, chat)


@router.post("/{public_id}/unshare")
def unshare_chat(request: Request, session: WriteSession, user: auth.Member, public_id: str) -> Response:
    """End the link."""
    chat = chats.get_chat(session, user, public_id)
    verbs.unshare(session, chat)
    return _share_panel(request, chat)


@router.get("/{public_id}/export.json")
def export_json(session: ReadSession, user: auth.Member, public_id: str) -> Response:
    """The whole tree, to be read back in here."""
    chat = chats.get_chat(session, user, public_id)
    return _download(chatfiles.to_json(chat), "application/json", f"{chat.public_id}.json")


@router.get("/{public_id}/export.md")
def export_markdown(session: ReadSession, user: auth.Member, public_id: str) -> Response:
    """The branch that is shown, to be read anywhere."""
    chat = chats.get_chat(session, user, public_id)
    return _download(chatfiles.to_markdown(chat).encode(), "text/markdown; charset=utf-8", f"{chat.public_id}.md")


def _share_panel(request: Request, chat: Chat) -> Response:
    if "hx-request" not in request.headers:
        return RedirectResponse(f"/chat/{chat.public_id}", 303)
    panel = SharePanel(chat, str(request.base_url).rstrip("/"))
    return render.page(request, "chats/_share.html", panel)


def _back(request: Request, public_id: str) -> str:
    address = request.headers.get("referer", "")
    start = str(request.base_url).rstrip("/")
    path = address.removeprefix(start) if address.startswith(f"{start}/chat") else f"/chat/{public_id}"
    return auth.own_path(path, f"/chat/{public_id}")


def _download(content: bytes, media_type: str, name: str) -> Response:
    headers = {"Content-Disposition": f'attachment; filename="conversation-{name}"'}
    return Response(content, media_type=media_type, headers=headers)
