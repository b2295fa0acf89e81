"""Pages from templates: one Jinja environment, the filters, and what every page shows.

A page's context is a frozen dataclass whose fields are the names the template uses.
"""

import datetime as dt
import hashlib
import html as html_entities
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

import nh3
import orjson
from babel.dates import format_datetime, format_timedelta
from babel.numbers import format_compact_decimal
from fastapi import Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markdown_it import MarkdownIt
from markupsafe import Markup

from registry import averages
from registry.models.base import utcnow
from registry.settings import get_settings
from server import answers, i18n, plain, pulse
from server.i18n import N_, gettext, lookup, ngettext

ROOT = Path(__file__).parent.parent
STATIC_DIR = ROOT / "static"
TOKENS_PER_PAGE = 400
TOKENS_PER_NOVEL = 130_000  # a hundred thousand English words
TOKENS_PER_READING_YEAR = 300 * 60 * 24 * 365  # reading day and night at about 230 words a minute

LABELS = {
    "queued": N_("queued"),
    "receiving": N_("receiving"),
    "running": N_("running"),
    "finished": N_("finished"),
    "failed": N_("failed"),
    "cancelled": N_("cancelled"),
    "verifying": N_("verifying"),
    "ready": N_("ready"),
    "rejected": N_("rejected"),
    "retired": N_("retired"),
    "external": N_("results only"),
    "pretrained": N_("pretrained"),
    "chat": N_("chat model"),
    "training": N_("training"),
    "upload": N_("uploads"),
    "news": N_("News"),
    "checkpoint": N_("Checkpoint"),
    "incident": N_("Incident"),
    "chinese": N_("Chinese"),
    "english": N_("English"),
    "code": N_("Code"),
    "maths": N_("Maths"),
    "reasoning": N_("Reasoning"),
    "knowledge": N_("Knowledge"),
    "starter": N_("Starter"),
    "imported": N_("Imported"),
    "tokens": N_("tokens"),
    "step": N_("steps"),
    "flops": N_("compute"),
    "time": N_("time"),
    "gain": N_("gain"),
    "loss": N_("loss"),
    "losses": N_("Losses"),
    "within noise": N_("within noise"),
    "waiting": N_("waiting"),
    "accepted": N_("accepted"),
    "declined": N_("declined"),
    "withdrawn": N_("withdrawn"),
    "community": N_("Visitors' prompts"),
    "harmful": N_("harmful"),
    "hateful": N_("hateful"),
    "sexual": N_("sexual"),
    "personal data": N_("personal data"),
    "wrong": N_("wrong"),
    "other": N_("something else"),
    "in": N_("in questions"),
    "out": N_("in answers"),
    "both": N_("everywhere"),
    "ban": N_("Person banned"),
    "unban": N_("Ban lifted"),
    "block_pattern": N_("Pattern blocked"),
    "unblock_pattern": N_("Pattern removed"),
    "report_made": N_("Answer reported"),
    "report_upheld": N_("Report upheld"),
    "report_dismissed": N_("Report dismissed"),
    "answer_withheld": N_("Answer removed"),
    "answer_cut": N_("Answer cut off"),
    "prompt_refused": N_("Question refused"),
    "account_deleted": N_("Account deleted"),
    "mirror_added": N_("Mirror offered"),
    "mirror_removed": N_("Mirror removed"),
    "vote_cleared": N_("Odd vote counted"),
    "vote_confirmed": N_("Odd vote left out"),
    "fast": N_("sooner than the answers could be read"),
    "identical": N_("both answers were the same"),
    "repeated": N_("the same question about the same two again"),
    "one-sided": N_("always the same side"),
    "longer": N_("always the longer answer"),
    "burst": N_("many votes from one address at once"),
    "left": N_("the left one"),
    "right": N_("the right one"),
    "push": N_("pushed"),
    "hub": N_("Hub protocol"),
    "import-hub": N_("hub import"),
    "quantization": N_("quantization"),
    "average": N_("average"),
    "quantize": N_("Quantization"),
    "retention": N_("Clearing up by rule"),
    "unpack": N_("Taking in an upload"),
    "arena": N_("arena"),
    "probe": N_("film strips"),
    "evaluation": N_("panel evaluation"),
    "milestone": N_("milestone evaluation"),
    "idle": N_("visitors' prompts"),
    "asked": N_("by hand only"),
    "member": N_("member"),
    "publisher": N_("publisher"),
    "admin": N_("administrator"),
    "role_changed": N_("Role changed"),
    "post_written": N_("Post written"),
    "post_edited": N_("Post edited"),
    "post_deleted": N_("Post taken down"),
    "incident_resolved": N_("Incident resolved"),
    "incident_opened": N_("Incident opened again"),
    "limit_changed": N_("Limit changed"),
    "limit_reset": N_("Limit set back"),
    "task_rescheduled": N_("Task rescheduled"),
    "task_retired": N_("Task retired"),
    "task_restored": N_("Task brought back"),
    "checkpoint_released": N_("Checkpoint released"),
    "checkpoint_unreleased": N_("Checkpoint released no longer"),
    "checkpoint_verified_again": N_("Checkpoint verified again"),
    "checkpoint_deleted": N_("Rejected checkpoint deleted"),
    "evaluations_requeued": N_("Evaluations run again"),
    "evaluations_cancelled": N_("Evaluations cancelled"),
    "job_cancelled": N_("Job cancelled"),
    "job_retried": N_("Job tried again"),
    "webhook_made": N_("Webhook added"),
    "webhook_changed": N_("Webhook changed"),
    "webhook_secret": N_("Webhook's secret renewed"),
    "webhook_paused": N_("Webhook paused"),
    "webhook_resumed": N_("Webhook resumed"),
    "webhook_resent": N_("Delivery sent again"),
    "webhook_deleted": N_("Webhook deleted"),
    "checkpoint.ready": N_("A new checkpoint is ready"),
    "suite.finished": N_("A suite is finished"),
    "verdict.loss": N_("A checkpoint has lost ground, significantly"),
    "job.failed": N_("A job or an evaluation failed"),
    "ping": N_("Test"),
    "tie": N_("tie"),
    "bad": N_("both bad"),
    "consumer": N_("consumer cards"),
    "data centre": N_("data centre cards"),
    "computer": N_("main memory"),
}
"""Words of the registry's vocabulary, as the visitor reads them."""


ACTIONS = {
    "release": N_("Release"),
    "unrelease": N_("Release no longer"),
    "verify": N_("Verify again"),
    "requeue": N_("Run failed and cancelled evaluations again"),
    "cancel": N_("Cancel open evaluations"),
    "delete": N_("Delete rejected ones"),
}
"""What can be done to checkpoints by hand; see `registry.inventory`."""
HOOK_FORMATS = {
    "json": N_("JSON, signed"),
    "slack": N_("Slack"),
    "feishu": N_("Feishu"),
    "wecom": N_("WeCom"),
}
SCHEDULES = {"panel": N_("for every checkpoint"), "milestone": N_("for milestones"), "asked": N_("when asked by hand")}


@dataclass(frozen=True)
class Banner:
    """A line across the top of every page."""

    kind: str
    """`warning` or `info`."""
    text: str


Provider = Callable[[Request], dict[str, Any]]
_providers: list[Provider] = []


def add_provider(provider: Provider) -> None:
    """Have `provider(request)` give more names to every template; see `common` for the defaults."""
    if provider not in _providers:
        _providers.append(provider)


def label(word: str) -> str:
    """A word of the registry's vocabulary in the visitor's language."""
    if word in LABELS:
        return gettext(LABELS[word])
    mean = averages.KIND.fullmatch(word)
    return gettext("mean of the last %(num)s", num=mean[1]) if mean else word


def hook_format(word: str) -> str:
    """What a webhook's messages are written for."""
    return gettext(HOOK_FORMATS[word])


def schedule(word: str) -> str:
    """When a task is run, as an administrator chooses it."""
    return gettext(SCHEDULES[word])


def action(word: str) -> str:
    """What an administrator may do, as a button says it."""
    return gettext(ACTIONS[word])


def with_labels(words: Sequence[Any]) -> list[tuple[Any, str]]:
    """Words of the vocabulary with their labels, for a choice."""
    return [(word, label(word) if isinstance(word, str) else str(word)) for word in words]


def number(value: float | None, digits: int = 0) -> str:
    """`12,345` or, with digits, `0.512`; English and Chinese write them alike."""
    return "–" if value is None else f"{value:,.{digits}f}"


def compact(value: float | None) -> str:
    """`5.1M` in English, `510万` in Chinese."""
    return "–" if value is None else _compact(value, i18n.current())


@lru_cache(maxsize=10_000)  # a page with many curves asks for the same few hundred token counts again and again
def _compact(value: float, language: str) -> str:
    return str(format_compact_decimal(value, fraction_digits=1, locale=language))


def size(num_bytes: int | None) -> str:
    """`12.3 MB`."""
    if num_bytes is None:
        return "–"
    value = float(num_bytes)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def ago(moment: dt.datetime) -> str:
    """`3 minutes ago` in the visitor's language."""
    return str(format_timedelta(moment - utcnow(), add_direction=True, locale=i18n.current()))


def duration(seconds: float) -> str:
    """`12 minutes`; parts of a second as `0.4 s`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    return str(format_timedelta(dt.timedelta(seconds=seconds), threshold=1.5, locale=i18n.current()))


def date(moment: dt.datetime) -> str:
    """`25 Nov 2026, 14:03` in UTC, in the visitor's language."""
    pattern = "y年M月d日 HH:mm" if i18n.current() == "zh" else "d MMM y, HH:mm"
    return str(format_datetime(moment, pattern, locale=i18n.current()))


def day(moment: dt.datetime) -> str:
    """`25 Nov 2026`."""
    return str(format_datetime(moment, "y年M月d日" if i18n.current() == "zh" else "d MMM y", locale=i18n.current()))


def reading(tokens: int) -> str:
    """So many tokens in a unit that a reader has held: pages, novels, years."""
    if tokens < TOKENS_PER_NOVEL:
        pages = max(1, round(tokens / TOKENS_PER_PAGE))
        return ngettext("about %(num)s page of a book", "about %(num)s pages of a book", pages) % {"num": number(pages)}
    if tokens < TOKENS_PER_READING_YEAR:
        novels = round(tokens / TOKENS_PER_NOVEL)
        return ngettext("about %(num)s novel", "about %(num)s novels", novels) % {"num": number(novels)}
    years = round(tokens / TOKENS_PER_READING_YEAR)
    return ngettext(
        "about %(num)s year of reading day and night", "about %(num)s years of reading day and night", years
    ) % {"num": number(years)}


@lru_cache
def _markdown() -> MarkdownIt:
    return MarkdownIt("commonmark", {"html": False, "linkify": False}).enable(["table", "strikethrough"])


def markdown(text: str) -> Markup:
    """Markdown as HTML that is safe to show, whoever wrote it."""
    # nh3 lets through only what it knows to be harmless.
    return Markup(nh3.clean(_markdown().render(text), link_rel="nofollow noopener noreferrer"))


def script_json(content: Any) -> Markup:
    """JSON for a script element, NaN as null; `<` is escaped, so that no text can end the element."""
    return Markup(orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY).decode().replace("<", "\\u003c"))


def excerpt(text: str, length: int = 150) -> str:
    """The beginning of a Markdown text in plain words."""
    plain = " ".join(nh3.clean(_markdown().render(text), tags=set()).split())
    words = html_entities.unescape(plain)
    return words if len(words) <= length else words[:length].rstrip() + "…"


@lru_cache
def _fingerprint(path: Path, _modified: float) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:10]


def static_url(name: str) -> str:
    """Address of a file of static/, which changes with its content and may be cached for ever."""
    path = STATIC_DIR / name
    if not path.exists():
        return f"/static/{name}"
    return f"/static/{name}?v={_fingerprint(path, path.stat().st_mtime)}"


@lru_cache
def environment() -> Environment:
    """The Jinja environment of the site."""
    made = Environment(
        loader=FileSystemLoader(ROOT / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=["jinja2.ext.i18n"],
    )
    made.install_gettext_callables(lookup, ngettext, newstyle=True)  # type: ignore[attr-defined]
    for name in (
        action,
        hook_format,
        schedule,
        ago,
        compact,
        date,
        day,
        duration,
        excerpt,
        label,
        markdown,
        number,
        reading,
        size,
    ):
        made.filters[name.__name__] = name
    made.filters |= {
        "answer": answers.answer,
        "visible": plain.visible,
        "with_labels": with_labels,
        "one_line": plain.one_line,
    }
    made.globals["static_url"] = static_url
    return made


def banners() -> list[Banner]:
    """What every visitor should know now: parts of the site that are away."""
    seen = pulse.take()
    if not seen.broker:
        text = gettext(
            "The message broker is away. Nothing is lost: questions keep their place and go on when it is back."
        )
        return [Banner("warning", text)]
    if not seen.workers:
        text = gettext("No worker is running now. Questions and benchmarks wait in line until one is back.")
        return [Banner("warning", text)]
    return []


def common(request: Request) -> dict[str, Any]:
    """What base.html needs on every page; the providers of `add_provider` override the defaults."""
    context: dict[str, Any] = {
        "request": request,
        "path": request.url.path,
        "here": request.url.path + (f"?{request.url.query}" if request.url.query else ""),
        "site_name": get_settings().site_name,
        "lang": i18n.current(),
        "theme": request.cookies.get("theme") if request.cookies.get("theme") in ("light", "dark") else "",
        "banners": banners(),
        "incidents": (),
        "viewer": None,
        "csrf_token": "",
    }
    for provider in _providers:
        context.update(provider(request))
    return context


def html(request: Request, template: str, context: Any, *, blank: bool = False) -> str:
    """A template with the fields of a dataclass; `blank` leaves out what only whole pages need."""
    own = {field.name: getattr(context, field.name) for field in fields(context)}
    return environment().get_template(template).render({**({} if blank else common(request)), **own})


def page(
    request: Request, template: str, context: Any, *, status_code: int = 200, headers: dict[str, str] | None = None
) -> HTMLResponse:
    """A whole page, or a fragment that may use what whole pages may."""
    return HTMLResponse(html(request, template, context), status_code=status_code, headers=headers)
