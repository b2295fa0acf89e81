"""`python -m worker.chat TARGET`: a page of this machine, or with `--terminal` the terminal."""

import argparse
import contextlib
import logging
import os
import signal
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

# Model hubs are never asked; set before transformers reads it.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("TQDM_DISABLE", "1")

import structlog
from rich.console import Console

from registry import checkpoints, db
from registry.errors import RegistryError
from registry.models.base import READY
from registry.settings import get_settings
from worker.chat import page
from worker.chat.sources import ENGINES, LocalSource, SiteSource, Source, SourceError, open_engine
from worker.chat.terminal import Terminal
from worker.engine.protocol import Sampling

KEY = "GROW_KEY"
"""Environment variable with an API key: on a command line everybody on the machine could read it."""


def main(arguments: Sequence[str]) -> int:
    """Talk until the person leaves; 1 where that cannot begin."""
    options = _parse(arguments)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell that began it in the background had it ignored
    errors = Console(stderr=True)
    try:
        with contextlib.closing(_open(options)) as source:
            _talk(source, options)
    except (SourceError, RegistryError) as error:
        errors.print(str(error), style="red", markup=False, highlight=False)
        return 1
    except KeyboardInterrupt:
        return 0
    return 0


def _open(options: argparse.Namespace) -> Source:
    if options.site:
        return SiteSource(options.site, os.environ.get(KEY, ""), options.target)
    folder, name = _find(options.target)
    with Console(stderr=True).status(f"Loading {name} …"):
        return LocalSource(open_engine(options.engine, get_settings()), folder, name)


def _find(target: str) -> tuple[Path, str]:
    """A folder of this machine, or a checkpoint of the registry."""
    folder = Path(target)
    if (folder / "config.json").is_file():
        return folder, folder.absolute().name
    if "@" not in target:
        raise SourceError(f"{target} is neither a folder with a config.json nor RUN@STEP.")
    with db.read_session() as session:
        checkpoint = checkpoints.by_label(session, target)
        if checkpoint.state != READY:
            raise SourceError(f"{checkpoint.label} is {checkpoint.state}: there is nothing to load.")
        folder, label = checkpoints.path(checkpoint), checkpoint.label
    return checkpoints.ensure_local(folder), label


def _talk(source: Source, options: argparse.Namespace) -> None:
    sampling = Sampling(max_tokens=options.max_tokens, temperature=options.temperature, top_p=options.top_p)
    if options.terminal:
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401, PLC0415 - its import lets `input` edit lines and remember them
        Terminal(source, sampling, Console(highlight=False)).run()
        return
    try:
        page.serve(
            source, sampling, host=options.host, port=options.port, language=_language(), opens=not options.no_browser
        )
    except ImportError as error:
        raise SourceError(
            "gradio is not installed: pip install --no-deps -r requirements/gradio.txt, or use --terminal."
        ) from error
    except OSError as error:
        raise SourceError(f"The page cannot be opened: {error}") from error


def _language() -> str:
    return "zh" if os.environ.get("LC_ALL", os.environ.get("LANG", "")).startswith("zh") else "en"


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="grow chat", description="Talk to one model.")
    parser.add_argument("target", help="RUN@STEP, or a folder with a config.json.")
    parser.add_argument("--terminal", action="store_true", help="Here instead of in a browser.")
    parser.add_argument("--site", default="", help=f"Address of a site that computes; its key is in {KEY}.")
    parser.add_argument("--engine", choices=ENGINES, default="auto")
    parser.add_argument("--temperature", type=float, default=0.8)
    parser.add_argument("--top-p", type=float, default=0.95)
    parser.add_argument("--max-tokens", type=int, default=256)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=7860)
    parser.add_argument("--no-browser", action="store_true", help="Do not open the page.")
    return parser.parse_args(arguments)


def _hush() -> None:
    """What libraries remark at their start would stand in the conversation."""
    logging.disable(logging.WARNING)
    warnings.filterwarnings("ignore")
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))


if __name__ == "__main__":
    _hush()
    sys.exit(main(sys.argv[1:]))
