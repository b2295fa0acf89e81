"""`python -m training --config demo --run NAME`: one process.

Many: `torchrun --nproc_per_node 2 -m training --config demo --run-name NAME`, or `deepspeed --module training …`.
"""

import argparse
import dataclasses
import json
import logging
import signal
import sys
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import Any

import structlog
from sqlalchemy.exc import SQLAlchemyError

from registry.errors import RegistryError
from training import branch, distributed, loop, publish, state
from training import config as configs
from training.config import Config
from training.corpus import PackedCorpus, prepare_corpus
from training.model import count_parameters

log = structlog.get_logger(__name__)

FREE_TO_CHANGE = {"name", "max_steps", "log_every", "evaluate_every", "evaluation_sequences", "checkpoints", "parallel"}
"""What may differ when a run goes on: none of it changes what a step does to the model (`state` guards `parallel`)."""


REPEAT_SECONDS = 3.0
"""Ctrl-C reaches a process more than once, from the terminal and from its launcher; after this a repeat is meant."""


class Stopped(Exception):
    """Asked to end before there was anything to save."""


class Stop:
    """Answers SIGTERM and Ctrl-C: at once before training, after the current step during it."""

    def __init__(self) -> None:
        self.is_training = False
        self._asked_at: float | None = None
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)

    def __call__(self) -> bool:
        """Whether to stop after this step."""
        return self._asked_at is not None

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if not self.is_training:
            raise Stopped
        if self._asked_at is None:
            self._asked_at = now
        elif now - self._asked_at > REPEAT_SECONDS:
            raise KeyboardInterrupt


def main(arguments: list[str] | None = None) -> int:
    """Train until the run is finished or somebody stops it; the exit code."""
    options = _parse(arguments)
    _set_up_logging()
    stop = Stop()
    try:
        config = configs.load(options.config)
        if options.steps is not None:
            config = dataclasses.replace(config, max_steps=options.steps)
            configs.check(config)
        return _train(config, options.run or config.name, _origin(options), stop)
    except (ValueError, RegistryError, SQLAlchemyError) as error:
        log.error(str(error))
        return 2
    except Stopped:
        log.info("Stopped before the first step.")
        return 0
    finally:
        distributed.leave()


def _origin(options: argparse.Namespace) -> publish.Origin | None:
    asked = options.rewind or options.branch
    return branch.parse(asked, is_rewind=bool(options.rewind)) if asked else None


def _train(config: Config, run: str, origin: publish.Origin | None, stop: Stop) -> int:
    distributed.set_threads(config)
    distributed.join()
    first = distributed.rank() == 0
    if origin is not None and first:
        branch.begin(run, origin, _plain(config))
    origin = origin or branch.recorded(run)
    publisher = publish.Publisher(run=run, config=config, num_parameters=count_parameters(config), origin=origin)
    if first:
        began_with = _check_unchanged(config, publish.run_folder(run))
        publisher.begin()
    else:
        began_with = ""
    try:
        if _is_done(config, run):
            log.info("This run is finished already; --steps gives it more.", run=run, steps=config.max_steps)
            finished = True
        else:
            corpus = _open_corpus(config, publish.run_folder(run), began_with)
            trainer = loop.Trainer(config, corpus, publish.run_folder(run), publisher)
            stop.is_training = True
            finished = trainer.run(stop)
    except Stopped:
        finished = False
    except Exception as error:
        # The edge of the process: whatever it was, the site must not show the run as running.
        log.error("Training failed.", error=f"{type(error).__name__}: {error}")
        if first:
            _mark_failed(publisher)
        if isinstance(error, (ValueError, RegistryError)):
            raise
        traceback.print_exc()
        return 1
    if first:
        if finished:
            publisher.finish()
        else:
            publisher.pause()
            log.info("Stopped; the same command goes on from here.", run=run)
    return 0


def _mark_failed(publisher: publish.Publisher) -> None:
    try:
        publisher.fail()
    except SQLAlchemyError as error:
        log.warning("The database cannot be told of the failure.", error=str(error))


def _is_done(config: Config, run: str) -> bool:
    """Whether the last step is saved and published."""
    steps = state.complete_steps(publish.run_folder(run) / "state")
    return bool(steps) and steps[-1] >= config.max_steps and publish.is_published(run, steps[-1])


def _check_unchanged(config: Config, folder: Path) -> str:
    """The corpus that the run began with; empty for a new one.

    Raises:
        ValueError: the run began with another config.
    """
    if not state.complete_steps(folder / "state"):
        return ""
    kept = state.read_json(folder / "run.json")
    before, now = kept["config"], _plain(config)
    for name in now:
        if name not in FREE_TO_CHANGE and before.get(name) != now[name]:
            raise ValueError(
                f"This run began with another '{name}' in its config: {before.get(name)}, now {now[name]}. "
                "Give the run another name."
            )
    return str(kept["corpus"])


def _open_corpus(config: Config, folder: Path, began_with: str) -> PackedCorpus:
    """Process 0 prepares it, the others open what it made."""
    home, chosen = publish.settings().home, ""
    if distributed.rank() == 0:
        chosen = prepare_corpus(config, home, began_with).fingerprint
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "run.json"
        kept = {"origin": state.read_json(path).get("origin")} if path.is_file() else {}
        state.write_json(path, {"config": _plain(config), "corpus": chosen, **kept})
    return prepare_corpus(config, home, distributed.from_first(chosen))


def _plain(config: Config) -> dict[str, Any]:
    """The config as JSON has it: lists for tuples."""
    plain: dict[str, Any] = json.loads(json.dumps(config.as_dict()))
    return plain


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m training", description=__doc__)
    parser.add_argument("--config", default="demo", help="name in training/configs, or a YAML file")
    # torchrun takes a bare --run for its own --run-path, even behind the module's name.
    parser.add_argument(
        "--run", "--run-name", help="name of the run; a known name goes on with it (default: the config's name)"
    )
    origin = parser.add_mutually_exclusive_group()
    origin.add_argument("--rewind", metavar="RUN@STEP", help="go on from a saved step of RUN, and take its place")
    origin.add_argument("--branch", metavar="RUN@STEP", help="go on from a saved step of RUN, beside it")
    parser.add_argument("--steps", type=int, help="last step, in place of the config's max_steps")
    # The deepspeed launcher gives each process its number as an option; the environment has it too.
    parser.add_argument("--local_rank", type=int, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def _set_up_logging() -> None:
    as_json = publish.settings().log_json
    renderer: Any = structlog.processors.JSONRenderer() if as_json else structlog.dev.ConsoleRenderer(colors=False)
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso" if as_json else "%H:%M:%S", utc=as_json),
            _name_rank,
            renderer,
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)


def _name_rank(_logger: Any, _method: str, event: Any) -> Mapping[str, Any]:
    """Say which process speaks, where there are several."""
    if distributed.is_joined() and distributed.world_size() > 1:
        event["rank"] = distributed.rank()
    return dict(event)


if __name__ == "__main__":
    sys.exit(main())
