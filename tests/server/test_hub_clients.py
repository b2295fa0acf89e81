"""The Hub's own clients, unmodified, with `HF_ENDPOINT` set to the site: each in a process of its own."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from registry import checkpoints
from server.sendfile import SendFile
from tests.server.live import serve
from tests.server.shelves import checkpoint

BIN = Path(sys.executable).parent
asked: list[str] = []
"""What the clients of a test have asked for."""


class Noting:
    """Notes each request before the site gets it."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = SendFile(app)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            asked.append(f"{scope['method']} {scope['path']}")
        await self.app(scope, receive, send)


@pytest.fixture
def site(shelf: Path) -> Iterator[str]:
    """The address of a site with checkpoints."""
    asked.clear()
    with serve(Noting) as address:
        yield address


def environment(site: str, home: Path) -> dict[str, str]:
    """Of a user's process: the site is their Hub, and their cache is empty."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "TRANSFORMERS_", "GROW_"))}
    return {**kept, "HF_ENDPOINT": site, "HF_HOME": str(home), "HF_HUB_DISABLE_TELEMETRY": "1"}


def run(program: str, site: str, home: Path) -> dict[str, object]:
    """What a user's program tells, as JSON on its last line."""
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment(site, home), capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return found


API = """
import json
from huggingface_hub import HfApi, hf_hub_download, snapshot_download
from huggingface_hub.errors import RemoteEntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError
api, told = HfApi(token="grow_nobody"), {}
def error_of(action):
    try:
        action()
    except Exception as error:
        return type(error).__name__
told["models"] = [one.id for one in api.list_models(search="gar")]
told["sha"] = api.model_info("garden", revision="step-1", files_metadata=True).sha
told["branches"] = {one.name: one.target_commit for one in api.list_repo_refs("garden").branches}
told["commits"] = [one.title for one in api.list_repo_commits("garden")]
told["exists"] = [api.repo_exists("garden"), api.repo_exists("nobody"), api.revision_exists("garden", "step-1"),
                  api.revision_exists("garden", "step-3"), api.file_exists("garden", "config.json"),
                  api.file_exists("garden", "nothing.json")]
told["paths"] = [one.path for one in api.get_paths_info("garden", ["config.json", "additional_chat_templates", "no"])]
told["tree"] = [one.path for one in api.list_repo_tree("garden", recursive=True, expand=True)]
told["folder"] = snapshot_download("garden", revision="step-2")
told["verified"] = repr(api.verify_repo_checksums("garden", revision="step-2"))
told["file"] = hf_hub_download("garden", "config.json", revision="step-2-chat")
told["errors"] = [error_of(lambda: snapshot_download("nobody")),
                  error_of(lambda: snapshot_download("garden", revision="x")),
                  error_of(lambda: hf_hub_download("garden", "nothing.json"))]
print(json.dumps(told))
"""


def test_the_api_and_downloads_of_huggingface_hub(site: str, tmp_path: Path) -> None:
    told = run(API, site, tmp_path / "cache")
    first, second = checkpoint(1).digest[:40], checkpoint(2).digest[:40]
    assert (told["models"], told["sha"]) == (["garden"], first)
    assert told["branches"]["main"] == told["branches"]["step-2"] == second  # type: ignore[index]
    assert told["commits"] == ["step-2", "step-1"]
    assert told["exists"] == [True, False, True, False, True, False]
    assert told["paths"] == ["config.json", "additional_chat_templates"]
    assert "additional_chat_templates/tool.jinja" in told["tree"]  # type: ignore[operator]
    assert "mismatches=[], missing_paths=[], extra_paths=[]" in str(told["verified"])
    assert told["errors"] == ["RepositoryNotFoundError", "RevisionNotFoundError", "RemoteEntryNotFoundError"]
    folder = Path(str(told["folder"]))
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    manifest = checkpoint(2).manifest["files"]
    assert {name: hashlib.sha256(content).hexdigest() for name, content in files.items()} == {
        name: entry["sha256"] for name, entry in manifest.items()
    }


PRETRAINED = """
import json, torch
from transformers import AutoModelForCausalLM, AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained("garden", revision="step-1")
model = AutoModelForCausalLM.from_pretrained("garden", revision="step-1")
words = tokenizer("To be, or not to be", return_tensors="pt")
with torch.no_grad():
    print(json.dumps({"logits": model(**words).logits[0, -1, :8].tolist(), "name": model.config._name_or_path}))
"""


ONLY_MODEL = """
import json
from transformers import AutoModelForCausalLM
model = AutoModelForCausalLM.from_pretrained("garden", revision="step-1")
print(json.dumps({"layers": model.config.num_hidden_layers}))
"""


def test_from_pretrained_loads_a_step_and_asks_once_when_it_has_it(site: str, tmp_path: Path) -> None:
    first = run(PRETRAINED, site, tmp_path / "cache")
    assert f"GET /garden/resolve/{checkpoint(1).digest[:40]}/model.safetensors" in asked
    asked.clear()
    assert run(ONLY_MODEL, site, tmp_path / "cache")["layers"] == 1
    assert asked == ["GET /api/models/garden/revision/step-1"]
    local = PRETRAINED.replace('"garden", revision="step-1"', repr(str(checkpoints.path(checkpoint(1)))))
    assert run(local, site, tmp_path / "cache")["logits"] == pytest.approx(first["logits"])


def test_the_hf_program_downloads_and_goes_on(site: str, tmp_path: Path) -> None:
    folder = tmp_path / "here"
    command = [str(BIN / "hf"), "download", "garden", "--revision", "step-1", "--local-dir", str(folder)]
    for _ in range(2):
        done = subprocess.run(command, env=environment(site, tmp_path / "cache"), capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]
    sums = httpx.get(f"{site}/checkpoints/{checkpoint(1).digest}/SHA256SUMS").text
    subprocess.run(["sha256sum", "-c", "--quiet"], cwd=folder, input=sums, text=True, check=True)
    assert len([one for one in asked if one.startswith("GET") and one.endswith("/model.safetensors")]) == 1


class Cutting:
    """Ends the connection once, in the middle of a file."""

    def __init__(self, app: ASGIApp) -> None:
        self.app, self.is_due = app, True

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def cut(message: Message) -> None:
            if self.is_due and scope["method"] == "GET" and message.get("body", b"")[:100].find(b"__metadata__") > 0:
                self.is_due = False
                await send({**message, "body": message["body"][:50_000], "more_body": True})
                raise ConnectionResetError
            await send(message)

        if scope["type"] == "http":
            asked.append(f"{dict(scope['headers']).get(b'range', b'').decode()} {scope['path']}")
        await self.app(scope, receive, cut)


RESUMED = """
import json
from huggingface_hub import constants, hf_hub_download
constants.DOWNLOAD_CHUNK_SIZE = 1_000  # what it keeps of a download that broke off; 10 MB otherwise
print(json.dumps({"path": hf_hub_download("garden", "model.safetensors", revision="step-1")}))
"""


def test_a_download_that_broke_off_is_resumed(shelf: Path, tmp_path: Path) -> None:
    asked.clear()
    with serve(Cutting) as site:
        path = Path(str(run(RESUMED, site, tmp_path / "cache")["path"]))
    sha256 = checkpoint(1).manifest["files"]["model.safetensors"]["sha256"]
    assert hashlib.sha256(path.read_bytes()).hexdigest() == sha256
    assert asked[-1] == "bytes=50000- /garden/resolve/step-1/model.safetensors"
