"""The program of `worker.confined`: reads a request a line from standard input, writes an answer a line.

It imports nothing of ours, so that it starts in a tenth of a second. Run it by its path, never by import.
"""

import datetime as dt
import json
import resource
import sys
from pathlib import Path
from typing import Any

import jinja2
import jinja2.ext
from jinja2.sandbox import ImmutableSandboxedEnvironment

MAX_MEMORY_BYTES = 2 * 2**30
MAX_TEXT_CHARS = 2_000_000
MAX_TEMPLATE_CHARS = 200_000
SAMPLES = (
    "To be, or not to be: that is the question.\n\n\tdef f(x):  return x**2  # 3.14159\n",
    "中华人民共和国的一切权力属于人民。😀 naïve café",
    "a" * 3_000,
    " " * 3_000,
)
"""The last two are what a pattern that goes back and forth never gets through."""


class Generation(jinja2.ext.Extension):
    """The tag around what the model says; transformers counts its tokens there, here it only has to be known."""

    tags = {"generation"}  # noqa: RUF012 - Jinja declares it so

    def parse(self, parser: Any) -> Any:
        """The statements in it, as they are."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def render(request: dict[str, Any]) -> dict[str, Any]:
    """A conversation through a template; the environment is that of transformers' `apply_chat_template`."""
    if len(request["template"]) > MAX_TEMPLATE_CHARS:
        return {"error": f"it has more than {MAX_TEMPLATE_CHARS:,} characters."}
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise
    environment.globals["strftime_now"] = lambda form: dt.datetime.now().astimezone().strftime(form)
    template = environment.from_string(request["template"])
    arguments = {"messages": request["messages"], "tools": None, "documents": None, "add_generation_prompt": True}
    pieces, length = [], 0
    for piece in template.generate(**{**request["tokens"], **arguments}):
        length += len(piece)
        if length > MAX_TEXT_CHARS:
            return {"error": f"it writes more than {MAX_TEXT_CHARS:,} characters for a short conversation."}
        pieces.append(piece)
    return {"text": "".join(pieces)}


def open_tokenizer(request: dict[str, Any]) -> dict[str, Any]:
    """Load what a folder has, and read some text with it."""
    folder = Path(request["folder"])
    return {"largest": _open_fast(folder) if (folder / "tokenizer.json").exists() else _open_sentencepiece(folder)}


def _open_fast(folder: Path) -> int:
    from tokenizers import Tokenizer  # noqa: PLC0415 - templates need none of them

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    for text in SAMPLES:
        tokenizer.decode(tokenizer.encode(text).ids)
    return max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1)


def _open_sentencepiece(folder: Path) -> int:
    from sentencepiece import SentencePieceProcessor  # noqa: PLC0415

    tokenizer = SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    for text in SAMPLES:
        tokenizer.decode(tokenizer.encode(text))
    return int(tokenizer.get_piece_size()) - 1


def _to_json(value: Any, ensure_ascii: bool = False, **options: Any) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, **options)


def _raise(message: str) -> None:
    raise jinja2.TemplateError(message)


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    work = {"render": render, "tokenizer": open_tokenizer}[request["do"]]
    try:
        return work(request)
    except BaseException as error:  # what a library in Rust raises is no Exception
        line = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
        return {"error": line if line.endswith(".") else f"{line}."}


def main() -> None:
    """Answer until nobody asks any more."""
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY_BYTES, MAX_MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for line in sys.stdin.buffer:
        sys.stdout.buffer.write(json.dumps(_answer(json.loads(line))).encode() + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
