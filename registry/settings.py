"""Every setting of the site, read from the environment with the prefix `GROW_`."""

import os
import secrets
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """One instance a process; see `get_settings`."""

    model_config = SettingsConfigDict(env_prefix="GROW_", extra="ignore")

    home: Path = Field(default=Path(".grow"))
    """Folder of all data: database, checkpoints, samples, corpus, logs."""
    host: str = "127.0.0.1"
    port: int = 8000
    site_name: str = "Grow"
    public_url: str = ""
    """Where people reach the site, such as `https://grow.example.org`: for links in messages sent elsewhere."""
    model_license: str = "apache-2.0"
    """Licence of the weights that this site trains, by its name on the Hugging Face Hub; it stands in every card."""
    webhook_private_addresses: bool = False
    """Whether webhooks may go to this machine and private networks, and over plain HTTP."""
    database_url: str = ""
    """Empty means SQLite inside `home`."""
    redis_url: str = ""
    """Empty means the embedded Valkey that `grow up` started, or port 6379 of this machine."""
    secret_key: str = ""
    """Signs forms. Empty means a key kept in `home`, made on first use."""
    secure_cookies: bool = False
    """Set behind HTTPS: cookies are then never sent over plain HTTP."""
    trusted_proxies: str = ""
    """Comma-separated addresses whose X-Forwarded-For header is believed."""
    accel_location: str = ""
    """Where the nginx in front has `checkpoints` and `blobs` as internal locations, such as `/_files`: it then sends
    the files itself. Empty: this server sends them."""
    engine: str = "auto"
    """`vllm`, `transformers`, `scripted`, or `auto`: vLLM where it is installed."""
    engine_threads: int = 0
    """CPU threads of the engine; 0 leaves the choice to it."""
    scoring_engine: str = "auto"
    """What scores benchmarks: `vllm`, `transformers`, or `auto`: the faster one of this machine."""
    scoring_dtype: str = "auto"
    """Precision of the scoring where the transformers engine does it: `float32`, `bfloat16` or `auto`."""
    panel: str = ""
    """Patterns of the tasks that every checkpoint gets, comma-separated; empty leaves it to the tasks themselves."""
    milestone_every: int = Field(default=10, ge=-1)
    """Every so many checkpoints of a run get the full suites, and its last one; 0 leaves only the last, -1 none."""
    average_last: int = Field(default=0, ge=0, le=50)
    """When a milestone is ready, the mean of so many checkpoints that ends there is made; 0 makes none."""
    release: Literal["milestones", "all", "none"] = "milestones"
    """Which checkpoints are released, and so made in 8 and 4 bit too, once they are ready: milestones and the last
    one of a run, all, or none; an administrator releases any of them."""
    quantize_device: str = "cpu"
    """Where 4 bit is worked out: `cpu`, or a device that the engine leaves free, such as `cuda:1`."""
    quantize_threads: int = Field(default=0, ge=0)
    """Threads of that; 0 takes half of the machine's, at a low priority."""
    quantize_timeout_seconds: float = Field(default=21_600.0, gt=0.0)
    """After so long a quantization is given up."""
    evaluation_budget_seconds: float = Field(default=0.0, ge=0.0)
    """Engine seconds that the evaluations of one checkpoint may cost; 0 sets no limit."""
    slice_seconds: float = Field(default=4.0, gt=0.0)
    """How long a slice of an evaluation may keep the engine, about: a chat waits at most that long."""
    benchmarks_dir: Path | None = None
    """Folder of benchmarks that cannot be shipped (`ceval`, `cmmlu`, `clue`, `gaokao`); see docs/benchmarks.md."""
    run_code: bool = False
    """Whether code that a model wrote is run, in a sandbox, to see if it is right."""
    answers_at_once: int = Field(default=64, ge=1)
    """Answers that one engine writes side by side; more wait in line."""
    swap_wait_seconds: float = Field(default=20.0, gt=0.0)
    """How long anybody waits, about, because the engine holds another checkpoint; then it is swapped."""
    max_upload_bytes: int = Field(default=64 * 2**30, ge=1)
    """Largest checkpoint that is taken in."""
    upload_days: float = Field(default=7.0, gt=0.0)
    """How long an upload that has stopped keeps what has come of it."""
    checkpoints_bytes: int = Field(default=0, ge=0)
    """Bytes that all checkpoints together may have; 0 sets no limit."""
    user_checkpoints_bytes: int = Field(default=0, ge=0)
    """Bytes that the checkpoints which one person brought may have; 0 sets no limit."""
    free_disk_bytes: int = Field(default=2**30, ge=0)
    """What must stay free on the disk of `home` whatever is taken in: the database needs room too."""
    quarantine_days: float = Field(default=30.0, ge=0.0)
    """How long the files of a rejected checkpoint are kept, so that one can look at them."""
    blob_store: str = ""
    """Where checkpoints' files are kept besides this disk: `s3://bucket/prefix`, `oss://bucket/prefix`; empty: nowhere.

    This disk is then a cache: what is missing here is fetched when it is needed.
    """
    blob_store_options: str = ""
    """fsspec's options for the store as JSON (`endpoint_url`, `key`, `secret`); empty: what fsspec finds by itself."""
    cache_bytes: int = Field(default=0, ge=0)
    """With a blob store: above this the least recently used checkpoints leave this disk; 0 sets no limit."""
    max_prompt_chars: int = Field(default=8_000, ge=1)
    chat_limit: str = "20/minute"
    """Messages one person may send; the notation of the `limits` library."""
    film_frames: int = Field(default=40, ge=2)
    """Checkpoints that one question may be put to at a time, as a film."""
    api_limit: str = "60/minute"
    """Requests one person may send to the OpenAI-compatible interface, and five times that from one address."""
    hub_limit: str = "1200/minute"
    """Requests by which one person may push with the Hub protocol, and five times that from one address."""
    api_concurrent: int = Field(default=16, ge=1)
    """Requests of one person that may wait or be answered at a time."""
    api_tokens_per_day: int = Field(default=1_000_000, ge=0)
    """Tokens, read and written, that the requests of one person may cost a day."""
    login_limit: str = "5/minute"
    """Wrong passwords for one name, and five times that from one address."""
    register_limit: str = "10/hour"
    report_limit: str = "20/hour"
    """Answers that one person may report."""
    vote_limit: str = "20/hour"
    """Votes that one person may cast in the arena, and five times that from one address."""
    proposal_limit: str = "5/day"
    """Prompts for the time-lapse that one person may propose."""
    log_json: bool = False

    @field_validator("benchmarks_dir", mode="before")
    @classmethod
    def _from_address(cls, value: Any) -> Any:
        """A mirror path may be given as a `file://` address."""
        return value.removeprefix("file://") or None if isinstance(value, str) else value

    @property
    def database(self) -> str:
        """SQLAlchemy URL of the database."""
        return self.database_url or f"sqlite:///{self.home.absolute() / 'grow.db'}"

    @property
    def redis(self) -> str:
        """URL of the Redis-protocol broker."""
        if self.redis_url:
            return self.redis_url
        noted = self.home / "run" / "redis_url"
        return noted.read_text().strip() if noted.exists() else "redis://127.0.0.1:6379/0"

    @property
    def secret(self) -> str:
        """The signing key; made once, readable by the owner alone."""
        return self.secret_key or _kept_secret(self.home / "secret_key")

    @property
    def checkpoints_dir(self) -> Path:
        """Published checkpoints: `<run>/step-<step>[-chat][-4bit]`."""
        return self.home / "checkpoints"

    @property
    def blobs_dir(self) -> Path:
        """The content of checkpoints' files, each once: `<first two letters>/<sha256>`."""
        return self.home / "blobs"

    @property
    def locks_dir(self) -> Path:
        """Lock files of work on folders that only one process may do at a time."""
        return self.home / "locks"

    @property
    def samples_dir(self) -> Path:
        """Parquet files of answers: `<checkpoint id>/<evaluation id>-<digest>.parquet`."""
        return self.home / "samples"

    @property
    def uploads_dir(self) -> Path:
        """Uploads being received; emptied when each is accepted or refused."""
        return self.home / "uploads"


def _kept_secret(path: Path) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return path.read_text().strip()
    with os.fdopen(descriptor, "w") as file:
        file.write(secrets.token_urlsafe(48))
    return path.read_text().strip()


@lru_cache
def get_settings() -> Settings:
    """The settings of this process; tests clear the cache after changing the environment."""
    return Settings()
