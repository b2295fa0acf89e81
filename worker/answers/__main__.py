"""`python -m worker.answers`: serves the checkpoint that the environment names, as the container does.

GROW_MODEL is a folder, or a repository of the Hub protocol that is fetched from HF_ENDPOINT at GROW_REVISION.
"""

import logging
import os
import sys
from functools import partial
from pathlib import Path

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import uvicorn
from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from registry import jsonfiles
from registry.errors import Invalid, RegistryError
from registry.settings import get_settings
from worker.answers.app import create_app
from worker.answers.model import Model
from worker.chat.sources import SourceError, open_engine
from worker.engine.protocol import EngineError

ARCHITECTURE = "LlamaForCausalLM"
FILES = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]
"""What a model is made of; nothing that could run."""

log = logging.getLogger("worker.answers")


class Options(BaseSettings):
    """From the environment, with the prefix GROW_."""

    model_config = SettingsConfigDict(env_prefix="GROW_", extra="ignore")

    model: str = ""
    """A folder, or the name of a repository."""
    revision: str = "main"
    api_key: str = ""
    """Who asks must send it; empty lets everybody ask."""
    bind: str = "127.0.0.1"
    bind_port: int = Field(default=8080, ge=1, le=65_535)
    served_at_once: int = Field(default=4, ge=1)
    """Answers that are written side by side; more wait."""
    served_name: str = ""
    """Name of the model in the API; empty: the folder's, or REPOSITORY@REVISION."""


def main() -> int:
    """Serve until SIGTERM; 1 where there is no model."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    options = Options()
    try:
        folder, name = find_model(options)
    except (SourceError, RegistryError) as error:
        log.error("%s", error)
        return 1
    app = create_app(partial(_open, options, folder, options.served_name or name), options.api_key)
    uvicorn.run(app, host=options.bind, port=options.bind_port, server_header=False)
    return 0


def find_model(options: Options) -> tuple[Path, str]:
    """The folder of the model, fetched where it is not here, and the model's name.

    Raises:
        SourceError: nothing is named, or it cannot be fetched.
        Invalid: it is none that can be served.
    """
    if not options.model:
        raise SourceError("Say which model: GROW_MODEL is a folder, or the name of a repository (and HF_ENDPOINT).")
    folder = Path(options.model)
    name = folder.absolute().name
    if not (folder / "config.json").is_file():
        folder, name = _fetch(options), f"{options.model}@{options.revision}"
    _check(folder)
    return folder, name


def _check(folder: Path) -> None:
    """The engine runs no code of a model; here it is said what is wrong before torch has been loaded.

    Raises:
        Invalid: it is no LLaMA in safetensors form, or brings code.
    """
    config = jsonfiles.read_object(folder / "config.json")
    if config.get("architectures") != [ARCHITECTURE]:
        raise Invalid(
            "The architecture is %(found)s; only %(known)s is served here.",
            found=str(config.get("architectures"))[:80],
            known=ARCHITECTURE,
        )
    if config.get("auto_map"):
        raise Invalid("config.json names code of its own (auto_map); models here bring no code.")
    if not any(folder.glob("*.safetensors")):
        raise Invalid("There is no .safetensors file.")


def _fetch(options: Options) -> Path:
    from huggingface_hub import snapshot_download  # noqa: PLC0415 - reads HF_ENDPOINT when it is imported
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError  # noqa: PLC0415

    try:
        found = snapshot_download(options.model, revision=options.revision, allow_patterns=FILES)
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        place = os.environ.get("HF_ENDPOINT", "the Hub")
        raise SourceError(f"{options.model} at {options.revision} cannot be fetched from {place}: {first}") from error
    return Path(found)


def _open(options: Options, folder: Path, name: str) -> Model:
    try:
        engine = open_engine(get_settings().engine, get_settings())
        return Model(engine, folder, name, at_once=options.served_at_once)
    except (SourceError, EngineError) as error:
        raise SystemExit(str(error)) from error


if __name__ == "__main__":
    sys.exit(main())
