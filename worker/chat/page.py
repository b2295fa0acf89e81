"""The same conversation in a browser: a Gradio page of this machine."""

import contextlib
import html
import os
from collections.abc import Generator, Mapping, Sequence
from typing import Any

from worker.chat.sources import Source, SourceError
from worker.engine.protocol import Sampling

# Gradio would otherwise tell its makers of each start, and ask them for its newest version.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"

FONTS = ("system-ui", "PingFang SC", "Noto Sans CJK SC", "sans-serif")
"""Of the reader's machine: the default theme would fetch others."""
MAX_TOKENS = 2_048
TEXTS: Mapping[str, Mapping[str, str]] = {
    "en": {
        "chat": "It reads the whole conversation.",
        "base": "A base model: it goes on with your text, and does not remember what came before.",
        "settings": "Settings",
        "system": "Instruction (system prompt)",
        "temperature": "Temperature",
        "tokens": "Tokens an answer may have",
        "say": "Say something…",
    },
    "zh": {
        "chat": "它会读完整个对话。",
        "base": "这是基座模型：它会接着你的文字往下写，不记得之前的内容。",
        "settings": "设置",
        "system": "指令（系统提示）",
        "temperature": "温度",
        "tokens": "回答最多多少个 token",
        "say": "说点什么……",
    },
}


def build(source: Source, sampling: Sampling, language: str) -> Any:
    """The page, not yet served.

    Raises:
        ImportError: gradio is not installed.
    """
    import gradio  # noqa: PLC0415 - optional, and it costs seconds

    texts = TEXTS[language]

    def answer(message: str, history: Sequence[Mapping[str, Any]], *chosen: Any) -> Generator[str, None, None]:
        system, temperature, max_tokens = chosen if source.is_chat else ("", *chosen)
        messages = [{"role": "system", "content": system}] if system else []
        messages += [read_message(one) for one in history]
        messages.append({"role": "user", "content": message})
        drawn = Sampling(max_tokens=int(max_tokens), temperature=float(temperature), top_p=sampling.top_p)
        text = ""
        try:
            with contextlib.closing(source.stream(messages, drawn)) as pieces:
                for piece in pieces:
                    text += piece
                    # What a model writes is text: neither markup nor a picture to fetch.
                    yield html.escape(text, quote=False)
        except SourceError as error:
            raise gradio.Error(str(error)) from error

    knobs: list[Any] = [
        gradio.Slider(0.0, 2.0, value=sampling.temperature, step=0.05, label=texts["temperature"]),
        gradio.Slider(1, MAX_TOKENS, value=sampling.max_tokens, step=1, label=texts["tokens"]),
    ]
    if source.is_chat:
        knobs.insert(0, gradio.Textbox("", label=texts["system"], lines=2))
    return gradio.ChatInterface(
        answer,
        title=source.name,
        description=texts["chat" if source.is_chat else "base"],
        textbox=gradio.Textbox(placeholder=texts["say"], show_label=False, container=False, scale=7, autofocus=True),
        chatbot=gradio.Chatbot(
            render_markdown=False, sanitize_html=True, height="60vh", show_label=False, buttons=["copy"]
        ),
        additional_inputs=knobs,
        additional_inputs_accordion=texts["settings"],
        analytics_enabled=False,
        flagging_mode="never",
        concurrency_limit=1,
    )


def serve(source: Source, sampling: Sampling, *, host: str, port: int, language: str, opens: bool) -> None:
    """Until Ctrl-C."""
    import gradio  # noqa: PLC0415

    theme = gradio.themes.Default(font=list(FONTS), font_mono=["ui-monospace", "monospace"])
    build(source, sampling, language).launch(
        server_name=host,
        server_port=port,
        inbrowser=opens,
        share=False,
        show_error=True,
        theme=theme,
        footer_links=[],
        ssr_mode=False,
        mcp_server=False,
    )


def read_message(shown: Mapping[str, Any]) -> dict[str, str]:
    """A message of the page's history, as it was said; gradio keeps it as text, or as a list of parts."""
    role, content = str(shown["role"]), shown["content"]
    parts = [content] if isinstance(content, str) else [str(part.get("text", "")) for part in content]
    text = "".join(parts)
    return {"role": role, "content": html.unescape(text) if role == "assistant" else text}
