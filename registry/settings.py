"""Every setting of the site, read from the environment with the prefix `GROW_`."""

import os
import secrets
from functools import lru_cache
from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """One instance a process; see `get_settings`."""

    model_config = SettingsConfigDict(env_prefix="GROW_", extra="ignore")

    home: Path = Field(default=Path(".grow"))
    """Folder of all data: database, checkpoints, samples, corpus, logs."""
    host: str = "127.0.0.1"
    port: int = 8000
    site_name: str = "Grow"
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
    engine: str = "auto"
    """`vllm`, `transformers`, `scripted`, or `auto`: vLLM where it is installed."""
    engine_threads: int = 0
    """CPU threads of the engine; 0 leaves the choice to it."""
    max_upload_bytes: int = 64 * 2**30
    max_prompt_chars: int = 8_000
    chat_limit: str = "20/minute"
    """Messages one person may send; the notation of the `limits` library."""
    login_limit: str = "5/minute"
    """Wrong passwords for one name, and five times that from one address."""
    register_limit: str = "10/hour"
    log_json: bool = False

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
