"""Adds a checkpoint to a site on another machine, by the Hub protocol: what breaks off goes on where it was.

`huggingface_hub` shows the progress, tries again while the network is away, and sends nothing that the site has.
"""

import tempfile
from http import HTTPStatus
from pathlib import Path
from typing import Any, NamedTuple

from grow import folders
from registry import store
from registry.errors import Invalid, Refused, RegistryError

CONNECT_SECONDS = 10.0


class Away(RegistryError):
    """The site cannot be reached; trying again later may help."""


class Site(NamedTuple):
    """Where checkpoints go."""

    url: str
    token: str


def read_site(url: str, token_file: Path | None, token: str = "") -> Site:
    """A site and the API key for it, from a file, or as given.

    Raises:
        Invalid: there is no key.
    """
    if token_file is not None:
        try:
            token = token_file.read_text()
        except OSError as error:
            raise Invalid(f"The key in {token_file} cannot be read: {error.strerror}.") from error
    if not token.strip():
        raise Invalid("Give an API key with the scope 'push': --token-file FILE, or HF_TOKEN in the environment.")
    return Site(url.rstrip("/"), token.strip())


def push_remote(
    folder: Path,
    site: Site,
    *,
    run: str,
    step: int,
    tokens_seen: int | None,
    kind: str,
    tokenizer: Path | None = None,
) -> str:
    """Send a folder to a site; returns the checkpoint's label. The same again sends nothing.

    Raises:
        Invalid: it is no checkpoint that is safe to load.
        Refused: the site does not take it; with its reason.
        Away: the site cannot be reached.
    """
    found = folders.files(folder, tokenizer)
    for name in found:
        store.check_file_name(name)
    branch = f"step-{step}" + (f"-tokens{tokens_seen}" if tokens_seen is not None else "")
    branch += "-chat" if kind == "chat" else ""
    with tempfile.TemporaryDirectory(prefix="grow-push-") as staged:
        for name, path in found.items():
            (Path(staged) / name).parent.mkdir(exist_ok=True)
            (Path(staged) / name).symlink_to(path.resolve())
        _send(Path(staged), site, run, branch, step)
    return f"{run}@{step}" + ("-chat" if kind == "chat" else "")


def _send(folder: Path, site: Site, run: str, branch: str, step: int) -> None:
    # It takes a second to import, which only pushes need.
    import httpx2  # noqa: PLC0415
    from huggingface_hub import HfApi  # noqa: PLC0415
    from huggingface_hub.errors import HfHubHTTPError  # noqa: PLC0415

    hub = HfApi(endpoint=site.url, token=site.token, library_name="grow")
    try:
        repo = _open_repo(hub, run)
        hub.create_branch(repo, branch=branch, exist_ok=True)
        hub.upload_folder(
            repo_id=repo,
            folder_path=folder,
            revision=branch,
            commit_message=f"Push step {step}",
            delete_patterns="*",  # what the branch began with
        )
    except HfHubHTTPError as error:
        raise _refusal(error) from error
    except (OSError, RuntimeError, httpx2.HTTPError) as error:  # the last of the client, RuntimeError of its hf_xet
        raise Away(f"{site.url} cannot be reached: {_first_line(error)}") from error


def _open_repo(hub: Any, run: str) -> str:
    """The full id of the run's repository, which is made if it is new."""
    from huggingface_hub.errors import HfHubHTTPError  # noqa: PLC0415

    try:
        return str(hub.create_repo(run).repo_id)
    except HfHubHTTPError as error:
        if error.response is None or error.response.status_code != HTTPStatus.CONFLICT:
            raise
        return str(error.response.json()["name"])


def _refusal(error: Any) -> RegistryError:
    response, message = error.response, error.server_message or ""
    if response is not None and response.status_code in (429, 500, 502, 503, 504):
        return Away(f"The site is busy or away ({response.status_code}): {message or _first_line(error)}")
    return Refused(message or _first_line(error))


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
