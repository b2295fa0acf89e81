"""`python -m worker`: one Celery worker process with its engine, as `grow worker` and the containers start it."""

import argparse
import atexit
import logging
import os
import sys
import warnings
from typing import Any

import structlog
from celery.exceptions import CPendingDeprecationWarning
from celery.signals import setup_logging

from registry.settings import Settings, get_settings

# Model hubs are never asked; set before transformers and lm-eval read it.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("TQDM_DISABLE", "1")

QUIET = {
    "httpx": logging.WARNING,
    "httpcore": logging.WARNING,
    "kombu": logging.WARNING,
    "celery.app.trace": logging.WARNING,
    "celery.worker.strategy": logging.WARNING,
    "lm_eval": logging.ERROR,
}
"""Loggers that would bury what the worker itself has to say."""


def main(arguments: list[str]) -> None:
    """Run until SIGTERM; tickets under way go back to the line, and the engine ends with this process."""
    options = _parse(arguments)
    settings = get_settings()
    settings.home.mkdir(parents=True, exist_ok=True)
    _configure_logging(settings)
    # Imported here: the jobs bring torch and lm-eval, which `--help` need not wait for and which must
    # find the environment above.
    from worker import jobs  # noqa: PLC0415

    if options.beat:
        jobs.start_clock()
    atexit.register(jobs.close_engine)
    jobs.app.worker_main(
        [
            "worker",
            *("--pool", "threads"),
            *("--concurrency", str(options.threads)),
            *("--queues", options.queues),
            *("--hostname", f"{options.queues.replace(',', '-')}-{os.getpid()}@%h"),
            *("--loglevel", "INFO"),
            "--without-gossip",
            "--without-mingle",
        ]
    )


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="grow worker", description="Answers chats, scores and verifies checkpoints.")
    parser.add_argument("--queues", default="gpu,cpu", help="gpu: needs the engine; cpu: verifies and sweeps.")
    parser.add_argument("--threads", type=int, default=8, help="Pieces of work at once; all share one engine.")
    parser.add_argument(
        "--beat", action="store_true", help="Also sweep every few seconds; one worker that does is enough."
    )
    return parser.parse_args(arguments)


def _configure_logging(settings: Settings) -> None:
    renderer: Any = (
        structlog.processors.JSONRenderer()
        if settings.log_json
        else structlog.dev.ConsoleRenderer(colors=sys.stdout.isatty())
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.processors.format_exc_info if settings.log_json else _unchanged,
            renderer,
        ]
    )
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    for name, level in QUIET.items():
        logging.getLogger(name).setLevel(level)
    # Said at each lost connection; it concerns tasks with late acknowledgement, and ours have none.
    warnings.filterwarnings("ignore", category=CPendingDeprecationWarning)
    # Celery otherwise takes the root logger over and prints twice.
    setup_logging.connect(_keep_logging, weak=False)


def _unchanged(_logger: Any, _name: str, event: Any) -> Any:
    return event


def _keep_logging(**_: Any) -> None:
    """Being connected is enough: Celery then leaves logging alone."""


if __name__ == "__main__":
    main(sys.argv[1:])
