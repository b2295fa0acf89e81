"""What webhooks are sent: signed JSON, and ready-made messages for Slack, Feishu and WeCom in English or Chinese.

Everything that came from elsewhere (names, errors) goes into fields that are shown as plain text, or has the marks of
the service's own notation taken out: a message cannot mention everybody or hold a link that is not ours.
"""

import base64
import datetime as dt
import hashlib
import hmac
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import orjson

from registry.settings import get_settings
from registry.webhooks import (
    CHECKPOINT_READY,
    FEISHU,
    JOB_FAILED,
    JSON,
    PING,
    SLACK,
    SUITE_FINISHED,
    VERDICT_LOSS,
    WECOM,
    Sending,
)

MAX_LINES = 12
MAX_LINE_CHARS = 300
MAX_TITLE_CHARS = 140
WECOM_BYTES = 4_096
_WECOM_MARKS = str.maketrans({"<": "＜", ">": "＞", "[": "［", "]": "］", "*": "∗", "`": "'", "#": "＃", "@": "＠"})
_FEISHU_BAD, _FEISHU_GOOD = "red", "green"

Words = Mapping[str, str]
WORDS: Mapping[str, Words] = {
    "en": {
        "ready": "New checkpoint: {checkpoint}",
        "ready_line": "{tokens} tokens seen, {precision} bit, {kind}",
        "pretrained": "pretrained",
        "chat": "chat model",
        "suite": "{checkpoint} has finished the suite {suite}",
        "suite_line": "{finished} tasks finished, {failed} failed",
        "loss": "{checkpoint} has lost ground",
        "loss_line": "Significantly worse than {against}, corrected over all tasks:",
        "failed": "A job failed: {kind}",
        "evaluation": "evaluation",
        "ping": "Grow can reach this address",
        "ping_line": "This is a test of the webhook {webhook}.",
        "more": "… and {number} more",
        "open": "Open",
    },
    "zh": {
        "ready": "新检查点：{checkpoint}",
        "ready_line": "已读 {tokens} 个词元，{precision} 位，{kind}",
        "pretrained": "预训练",
        "chat": "对话模型",
        "suite": "{checkpoint} 完成了题库 {suite}",
        "suite_line": "{finished} 项完成，{failed} 项失败",
        "loss": "{checkpoint} 有退步",
        "loss_line": "与 {against} 相比显著变差（已对全部任务校正）：",
        "failed": "任务失败：{kind}",
        "evaluation": "评测",
        "ping": "Grow 可以连到这个地址",
        "ping_line": "这是对 Webhook {webhook} 的测试。",
        "more": "…… 还有 {number} 条",
        "open": "打开",
    },
}


class Message(NamedTuple):
    """What people read."""

    title: str
    lines: Sequence[str]
    link: str
    """Whole address of the page about it; empty where the site does not know its own address."""
    open: str
    """What the link is called."""
    is_bad: bool = False


class Outgoing(NamedTuple):
    """What goes over the line."""

    body: bytes
    headers: Mapping[str, str]


def outgoing(sending: Sending, now: dt.datetime) -> Outgoing:
    """The request that tells of an event, signed at `now`."""
    made = _MAKERS[sending.format](sending, now)
    return made._replace(headers={"Content-Type": "application/json; charset=utf-8", **made.headers})


def sign(secret: str, timestamp: int, body: bytes) -> str:
    """The value of `X-Grow-Signature-256`: HMAC-SHA256 over the timestamp, a dot, and the body as it is sent."""
    return "sha256=" + hmac.new(secret.encode(), b"%d." % timestamp + body, hashlib.sha256).hexdigest()


def sign_feishu(secret: str, timestamp: int) -> str:
    """Feishu's own signature: the timestamp and the secret are the key, and the message is empty."""
    key = f"{timestamp}\n{secret}".encode()
    return base64.b64encode(hmac.new(key, b"", hashlib.sha256).digest()).decode()


def refusal(format: str, status: int, response: str) -> str:
    """Why a receiver has not taken what it was sent, in a sentence; empty where it has."""
    if 300 <= status < 400:
        return f"The receiver sends elsewhere ({status}). Redirects are not followed: enter the final address."
    if not 200 <= status < 300:
        return f"The receiver answered {status}."
    code = _own_code(format, response)
    return f"The receiver refused it with its code {code}; see its answer." if code else ""


def describe(event: str, data: Mapping[str, Any], language: str) -> Message:
    """An event in words."""
    words = WORDS[language]
    title, lines = _TELLERS[event](data, words)
    shown = [_short(line, MAX_LINE_CHARS) for line in lines[:MAX_LINES]]
    if len(lines) > MAX_LINES:
        shown.append(words["more"].format(number=len(lines) - MAX_LINES))
    site, path = get_settings().public_url.rstrip("/"), data.get("path", "")
    link = f"{site}{path}" if site and path else site
    return Message(_short(title, MAX_TITLE_CHARS), shown, link, words["open"], event in (VERDICT_LOSS, JOB_FAILED))


def _own_code(format: str, response: str) -> int:
    """Feishu and WeCom answer 200 to everything, and say in the body whether they took it."""
    name = {FEISHU: "code", WECOM: "errcode"}.get(format)
    if name is None:
        return 0
    try:
        code = json.loads(response)[name]
    except (ValueError, KeyError, TypeError):
        return -1
    return code if isinstance(code, int) else -1


def _json(sending: Sending, now: dt.datetime) -> Outgoing:
    settings = get_settings()
    content = {
        "id": sending.key,
        "event": sending.event,
        "created_at": sending.created_at.isoformat(),
        "site": {"name": settings.site_name, "url": settings.public_url},
        "data": sending.data,
    }
    body, timestamp = orjson.dumps(content), int(now.timestamp())
    headers = {
        "X-Grow-Event": sending.event,
        "X-Grow-Delivery": sending.key,
        "X-Grow-Timestamp": str(timestamp),
        "X-Grow-Signature-256": sign(sending.secret, timestamp, body),
    }
    return Outgoing(body, headers)


def _slack(sending: Sending, _now: dt.datetime) -> Outgoing:
    message = describe(sending.event, sending.data, sending.language)
    blocks: list[dict[str, Any]] = [{"type": "header", "text": {"type": "plain_text", "text": message.title}}]
    if message.lines:
        blocks.append({"type": "section", "text": {"type": "plain_text", "text": "\n".join(message.lines)[:3_000]}})
    if message.link:
        button = {"type": "button", "text": {"type": "plain_text", "text": message.open}, "url": message.link}
        blocks.append({"type": "actions", "elements": [button]})
    # The notification's text is in Slack's notation: these three are all that it takes as marks of a link or mention.
    text = message.title.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return Outgoing(orjson.dumps({"text": text, "blocks": blocks}), {})


def _feishu(sending: Sending, now: dt.datetime) -> Outgoing:
    message = describe(sending.event, sending.data, sending.language)
    elements: list[dict[str, Any]] = [
        {"tag": "div", "text": {"tag": "plain_text", "content": line}} for line in message.lines
    ]
    if message.link:
        button = {"tag": "button", "text": {"tag": "plain_text", "content": message.open}, "type": "default"}
        elements.append({"tag": "action", "actions": [{**button, "url": message.link}]})
    title = {"tag": "plain_text", "content": message.title}
    header = {"title": title, "template": _FEISHU_BAD if message.is_bad else _FEISHU_GOOD}
    content: dict[str, Any] = {"msg_type": "interactive", "card": {"header": header, "elements": elements}}
    if sending.secret:
        timestamp = int(now.timestamp())
        content |= {"timestamp": str(timestamp), "sign": sign_feishu(sending.secret, timestamp)}
    return Outgoing(orjson.dumps(content), {})


def _wecom(sending: Sending, _now: dt.datetime) -> Outgoing:
    message = describe(sending.event, sending.data, sending.language)
    colour = "warning" if message.is_bad else "info"
    link = f"\n[{message.open}]({message.link})" if message.link else ""
    text = f'<font color="{colour}">**{message.title.translate(_WECOM_MARKS)}**</font>'
    for line in message.lines:
        longer = f"{text}\n> {line.translate(_WECOM_MARKS)}"
        if len((longer + link).encode()) > WECOM_BYTES:
            break
        text = longer
    return Outgoing(orjson.dumps({"msgtype": "markdown", "markdown": {"content": text + link}}), {})


_MAKERS: Mapping[str, Callable[[Sending, dt.datetime], Outgoing]] = {
    JSON: _json,
    SLACK: _slack,
    FEISHU: _feishu,
    WECOM: _wecom,
}


def _tell_ready(data: Mapping[str, Any], words: Words) -> tuple[str, list[str]]:
    tokens = data.get("tokens_seen")
    line = words["ready_line"].format(
        tokens="–" if tokens is None else f"{tokens:,}",
        precision=data["precision"],
        kind=words.get(data["kind"], data["kind"]),
    )
    return words["ready"].format(checkpoint=data["checkpoint"]), [line]


def _tell_suite(data: Mapping[str, Any], words: Words) -> tuple[str, list[str]]:
    counts = words["suite_line"].format(finished=data["num_finished"], failed=data["num_failed"])
    scores = [f"{one['task']}: {_figure(one)}" for one in data["results"]]
    return words["suite"].format(checkpoint=data["checkpoint"], suite=data["suite"]), [counts, *scores]


def _tell_loss(data: Mapping[str, Any], words: Words) -> tuple[str, list[str]]:
    losses = [f"{one['task']}: {_figure(one, is_change=True)}" for one in data["losses"]]
    against = words["loss_line"].format(against=data["against"])
    return words["loss"].format(checkpoint=data["checkpoint"]), [against, *losses]


def _tell_failed(data: Mapping[str, Any], words: Words) -> tuple[str, list[str]]:
    lines = [str(data[name]) for name in ("checkpoint", "task", "error") if data.get(name)]
    return words["failed"].format(kind=words.get(data["kind"], data["kind"])), lines


def _tell_ping(data: Mapping[str, Any], words: Words) -> tuple[str, list[str]]:
    return words["ping"], [words["ping_line"].format(webhook=data["webhook"])]


_TELLERS: Mapping[str, Callable[[Mapping[str, Any], Words], tuple[str, list[str]]]] = {
    CHECKPOINT_READY: _tell_ready,
    SUITE_FINISHED: _tell_suite,
    VERDICT_LOSS: _tell_loss,
    JOB_FAILED: _tell_failed,
    PING: _tell_ping,
}


def _figure(one: Mapping[str, Any], *, is_change: bool = False) -> str:
    sign = "+" if is_change else ""
    low, high = one.get("low"), one.get("high")
    interval = f" [{low:{sign}.3f}, {high:{sign}.3f}]" if low is not None and high is not None else ""
    return f"{one['value']:{sign}.3f} {one['metric']}{interval}"


def _short(text: str, limit: int) -> str:
    text = " ".join(text.split())
    return text if len(text) <= limit else text[: limit - 1] + "…"
