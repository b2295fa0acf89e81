"""What the pages of conversations show: history, composer, the shown branch and other ways, checkpoints to pick."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from itertools import groupby

import orjson
from fastapi import Request, Response
from fastapi.responses import PlainTextResponse, RedirectResponse
from sqlalchemy.orm import Session

from registry import chats, checkpoints, conversations, evaluations, suites
from registry.conversations import Listing
from registry.errors import Conflict, NotFound, Refused, RegistryError
from registry.models import Chat, ChatGroup, Checkpoint, Turn, User
from registry.settings import get_settings
from server import auth, knobs, limits, probes, render
from server.i18n import error_text, gettext
from server.knobs import Knobs
from server.render import compact, label

HISTORY_SIZE = 40
SAMPLES = 3
GOOD_REASONS = ("correct", "well written", "surprising")
BAD_REASONS = ("wrong", "not what I asked", "repeats itself", "harmful")


@dataclass(frozen=True)
class Option:
    """One checkpoint to pick."""

    value: str
    text: str
    is_chosen: bool


@dataclass(frozen=True)
class OptionGroup:
    """The checkpoints of one run, the newest first."""

    run: str
    options: Sequence[Option]


@dataclass(frozen=True)
class Composer:
    """What the visitor has typed and chosen."""

    knobs: Knobs
    prompt: str = ""
    error: str = ""


@dataclass(frozen=True)
class Shown:
    """One turn of the branch that is shown, and the ways the conversation went beside it."""

    turn: Turn
    siblings: Sequence[Turn]
    public_id: str
    """Of the conversation."""

    @property
    def place(self) -> int:
        """Which of the ways it is, from 1."""
        return self.siblings.index(self.turn) + 1

    @property
    def before(self) -> Turn | None:
        """The way before this one."""
        return self.siblings[self.place - 2] if self.place > 1 else None

    @property
    def after(self) -> Turn | None:
        """The way after this one."""
        return self.siblings[self.place] if self.place < len(self.siblings) else None


@dataclass(frozen=True)
class History:
    """Context of chats/_history.html and chats/_entries.html."""

    listing: Listing
    search: str = ""
    page: int = 0
    current: str = ""
    """The public id of what is open."""


@dataclass(frozen=True)
class ChatPage:
    """Context of chats/page.html and chats/notebook.html."""

    history: History
    chat: Chat | None
    checkpoint: Checkpoint | None
    groups: Sequence[OptionGroup]
    composer: Composer
    max_chars: int
    shown: Sequence[Shown] = field(default_factory=list)
    samples: Sequence[probes.Saying] = field(default_factory=list)
    """For visitors who are not logged in: what this checkpoint wrote."""
    cleared: Chat | ChatGroup | None = None
    """What was deleted just now, and can be brought back."""
    defaults: str = ""
    """The default settings of this kind of model, as JSON for the script."""
    site_address: str = ""


@dataclass(frozen=True)
class TurnFragment:
    """Context of chats/_turn.html."""

    shown: Shown
    checkpoint: Checkpoint
    asks_reason: bool = False


@dataclass(frozen=True)
class TurnsFragment:
    """Context of chats/_turns.html."""

    shown: Sequence[Shown]
    checkpoint: Checkpoint


def find_checkpoint(session: Session, wanted: str, kind: str = "") -> Checkpoint | None:
    """By label, `run@step` with kind and precision where needed; the newest one for an empty label."""
    if wanted:
        return checkpoints.by_label(session, wanted)
    newest = [*checkpoints.newest(session, kind or "chat"), *([] if kind else checkpoints.newest(session))]
    return newest[0] if newest else None


def shown_turns(chat: Chat) -> list[Shown]:
    """The branch that is shown, with the other ways at each place; for a chat with its turns."""
    return [Shown(turn, chats.siblings(chat, turn), chat.public_id) for turn in chats.branch(chat)]


def composer_of(chat: Chat) -> Composer:
    """An empty box with the settings of the last turn that is shown."""
    branch = chats.branch(chat)
    return Composer(knobs.of_params(branch[-1].params if branch else {}, chat.checkpoint.kind))


def limit_messages(request: Request, user: User) -> None:
    """Count one message of this person, and from their address: accounts cost nothing.

    Raises:
        TooMany: more than the site lets one person send, or all people from one address.
    """
    limit = get_settings().chat_limit
    limits.hit("chat", limit, str(user.id))
    limits.hit_address("chat", limit, auth.client_address(request))


def told(error: RegistryError | limits.TooMany) -> tuple[str, int]:
    """The sentence for the composer, and the status of the response."""
    if isinstance(error, limits.TooMany) and error.is_of_address:
        return gettext(
            "Too many messages come from your address, which others may share. Wait %(seconds)s seconds; your text "
            "stays here.",
            seconds=error.retry_seconds,
        ), 429
    if isinstance(error, limits.TooMany):
        return gettext(
            "You are sending faster than the line can take. Wait %(seconds)s seconds; your text stays here.",
            seconds=error.retry_seconds,
        ), 429
    statuses = ((Conflict, 409), (Refused, 403), (NotFound, 404))
    return error_text(error), next((status for kind, status in statuses if isinstance(error, kind)), 422)


def refuse(request: Request, message: str, status: int, whole_page: Callable[..., Response]) -> Response:
    """A sentence for the script, which keeps the text; without it `whole_page(status=…)`, with the text in it."""
    if "hx-request" in request.headers:
        return PlainTextResponse(message, status)
    return whole_page(status=status)


def go(request: Request, address: str) -> Response:
    """Send the browser elsewhere, with a script or without."""
    if "hx-request" in request.headers:
        return Response(headers={"HX-Redirect": address})
    return RedirectResponse(address, 303)


def turn_response(request: Request, turn: Turn, *, asks_reason: bool = False) -> Response:
    """One turn as a fragment, or the page that it stands on; for a turn with its chat and all its turns."""
    if "hx-request" not in request.headers:
        return RedirectResponse(f"/chat/{turn.chat.public_id}#turn-{turn.id}", 303)
    shown = Shown(turn, chats.siblings(turn.chat, turn), turn.chat.public_id)
    return render.page(request, "chats/_turn.html", TurnFragment(shown, turn.chat.checkpoint, asks_reason))


def turns_response(request: Request, chat: Chat) -> Response:
    """The whole shown branch as a fragment, or its page; for a chat with its turns."""
    if "hx-request" not in request.headers:
        return RedirectResponse(f"/chat/{chat.public_id}", 303)
    return render.page(request, "chats/_turns.html", TurnsFragment(shown_turns(chat), chat.checkpoint))


def page(
    request: Request,
    session: Session,
    viewer: User | None,
    chat: Chat | None,
    checkpoint: Checkpoint | None,
    composer: Composer,
    *,
    status: int = 200,
) -> Response:
    """The page of a conversation; what stands in the address about the history is kept."""
    context = page_context(request, session, viewer, chat, checkpoint, composer)
    return render.page(request, "chats/page.html", context, status_code=status)


def page_context(
    request: Request,
    session: Session,
    viewer: User | None,
    chat: Chat | None,
    checkpoint: Checkpoint | None,
    composer: Composer,
    *,
    kind: str = "",
) -> ChatPage:
    """What that page shows; only checkpoints of one `kind` can be picked where it is given."""
    undo = request.query_params.get("cleared", "")
    defaults = knobs.defaults(checkpoint.kind if checkpoint is not None else kind)
    return ChatPage(
        history=history(session, viewer, request, chat.public_id if chat is not None else ""),
        chat=chat,
        checkpoint=checkpoint,
        groups=option_groups(session, checkpoint, kind),
        composer=composer,
        max_chars=get_settings().max_prompt_chars,
        shown=shown_turns(chat) if chat is not None else [],
        samples=_samples(session, checkpoint) if viewer is None and checkpoint else [],
        cleared=conversations.cleared(session, viewer, undo) if viewer is not None and undo else None,
        defaults=orjson.dumps(asdict(defaults)).decode(),
        site_address=str(request.base_url).rstrip("/"),
    )


def history(session: Session, viewer: User | None, request: Request, current: str = "") -> History:
    """The part of the history that the address asks for: `q` words, `older` page."""
    if viewer is None:
        return History(Listing([], has_more=False))
    search = request.query_params.get("q", "")[:200]
    older = request.query_params.get("older", "")
    number = min(int(older), 100_000) if older.isdecimal() and len(older) < 10 else 0
    listing = conversations.history(session, viewer, search, page=number, size=HISTORY_SIZE)
    return History(listing, search, number, current or request.query_params.get("current", ""))


def option_groups(session: Session, chosen: Checkpoint | None, kind: str = "") -> list[OptionGroup]:
    """All ready checkpoints of a kind, or of all kinds, by run, the newest first."""
    ready = [one for one in checkpoints.list_checkpoints(session) if not kind or one.kind == kind]
    ready.sort(key=lambda one: (-one.run_id, -one.step, one.kind))
    return [
        OptionGroup(run, [_option(one, chosen) for one in group])
        for run, group in groupby(ready, key=lambda one: one.run.name)
    ]


def _option(checkpoint: Checkpoint, chosen: Checkpoint | None) -> Option:
    seen = checkpoint.tokens_seen
    words = [
        gettext("step %(step)s", step=f"{checkpoint.step:,}"),
        gettext("%(count)s tokens", count=compact(seen)) if seen is not None else "",
        label(checkpoint.kind),
        f"{checkpoint.precision} bit" if checkpoint.precision != 16 else "",
    ]
    is_chosen = chosen is not None and chosen.id == checkpoint.id
    return Option(checkpoint.label, " · ".join(word for word in words if word), is_chosen)


def _samples(session: Session, checkpoint: Checkpoint) -> list[probes.Saying]:
    own = evaluations.for_checkpoint(session, checkpoint)
    found = [one for one in own if one.task.is_probe and one.task.schedule != suites.IDLE]
    return probes.sayings([], found)[:SAMPLES]
