"""The one program of a worker that speaks with a Hub: everything else of it is told never to ask one.

`python -m worker.hubclient` reads one request as JSON and answers with lines of JSON: `{"refs": [[name, commit]]}`, or
of a download `{"files": number, "bytes": number}` and then `{"file": path}` as each is there; `{"error": …}` ends it.
"""

import json
import sys
from pathlib import Path
from typing import Any

import httpx2
from huggingface_hub import hf_hub_download
from huggingface_hub.hf_api import RepoFile

from registry import filenames, hubimport, store
from registry.errors import Invalid, RegistryError
from registry.hubimport import Wanted

TEMPLATES = "additional_chat_templates"


def main() -> None:
    """Answer the request on standard input."""
    asked = json.load(sys.stdin)
    try:
        wanted = Wanted(**asked["wanted"])
        if asked["sha"]:
            _download(wanted, asked["sha"], Path(asked["folder"]), asked["limit"])
        else:
            _say(refs=hubimport.fetch_refs(wanted))
    except RegistryError as error:
        _say(error=str(error))
    except (OSError, httpx2.HTTPError) as error:  # of the network, an answer of the site, or the disk
        _say(error=f"cannot be downloaded: {hubimport.first_line(error)}", errno=getattr(error, "errno", None))


def _download(wanted: Wanted, sha: str, folder: Path, limit: int) -> None:
    """Bring a revision's files into a folder; what is there already stays."""
    tree = wanted.api().list_repo_tree(wanted.repo, revision=sha, recursive=True)
    files = [entry for entry in tree if isinstance(entry, RepoFile) and is_part(entry.path)]
    if not any(file.path.endswith(".safetensors") for file in files):
        raise Invalid("it has no weights as safetensors, and others can run code when they are loaded.")
    size = sum(file.size for file in files)
    if size > limit:
        raise Invalid(f"its files have {size:,} bytes; there is room for {limit:,}.")
    _say(files=len(files), bytes=size)
    for file in files:
        hf_hub_download(wanted.repo, file.path, revision=sha, local_dir=folder, endpoint=wanted.endpoint or None)
        _say(file=file.path)


def is_part(path: str) -> bool:
    """Whether a file of a repository is part of a checkpoint."""
    folder, _, _name = path.rpartition("/")
    if folder not in ("", TEMPLATES) or path == store.MANIFEST:
        return False
    try:
        filenames.check_file_name(path)
    except Invalid:
        return False
    return True


def _say(**line: Any) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
