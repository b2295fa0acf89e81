"""Reading by the Hugging Face Hub protocol, as the client asks it."""

import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient

from registry import aliases, checkpoints, db, gitblobs, runs
from registry.models.base import VERIFYING
from tests.server.shelves import checkpoint, put
from tests.server.visitors import application

COMMIT = "x-repo-commit"


@pytest.fixture
def hub(shelf: Path) -> TestClient:
    """A client of the protocol before a run with three checkpoints that are ready, and two that are not."""
    return TestClient(application(), headers={"user-agent": "unknown/None; hf_hub/2.4.0"})


def git(*words: str, cwd: Path) -> str:
    """What git itself says."""
    return subprocess.run(["git", *words], cwd=cwd, check=True, capture_output=True, text=True).stdout.strip()


def tree(hub: TestClient, revision: str, rest: str = "", **asked: str) -> Any:
    answer = hub.get(f"/api/models/garden/tree/{revision}{rest}", params=asked)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_a_revision_tells_its_commit_and_files(hub: TestClient) -> None:
    told = hub.get("/api/models/garden/revision/step-1").json()
    assert told["sha"] == checkpoint(1).digest[:40]
    assert {one["rfilename"] for one in told["siblings"]} == set(checkpoint(1).manifest["files"])
    assert (told["id"], told["private"], told["gated"], told["pipeline_tag"]) == (
        "garden",
        False,
        False,
        "text-generation",
    )
    assert "size" not in told["siblings"][0]
    with_blobs = hub.get("/api/models/garden/revision/step-1?blobs=true").json()["siblings"]
    weights = next(one for one in with_blobs if one["rfilename"] == "model.safetensors")
    assert weights["lfs"]["sha256"] == checkpoint(1).manifest["files"]["model.safetensors"]["sha256"]


@pytest.mark.parametrize(
    ("name", "step", "kind"),
    [
        ("main", 2, "pretrained"),
        ("latest", 2, "pretrained"),
        ("step-1", 1, "pretrained"),
        ("step-2-chat", 2, "chat"),
        ("stable", 1, "pretrained"),
        ("{commit}", 1, "pretrained"),
    ],
)
def test_names_of_revisions(hub: TestClient, name: str, step: int, kind: str) -> None:
    with db.transaction() as session:
        garden = runs.get_run(session, "garden")
        aliases.set_alias(session, garden, "stable", checkpoints.get_checkpoint(session, garden, 1), None)
    name = name.format(commit=checkpoint(1).digest[:40])
    assert hub.get(f"/api/models/garden/revision/{name}").json()["sha"] == checkpoint(step, kind).digest[:40]


def test_names_of_files_and_folders_are_those_that_git_gives(hub: TestClient, tmp_path: Path) -> None:
    tmp_path = tmp_path / "repository"
    tmp_path.mkdir()
    git("init", "-q", cwd=tmp_path)
    for name, entry in checkpoint(2).manifest["files"].items():
        target = tmp_path / name
        target.parent.mkdir(exist_ok=True)
        content = (checkpoints.path(checkpoint(2)) / name).read_bytes()
        is_large = name.endswith(".safetensors")
        target.write_bytes(gitblobs.pointer(entry["sha256"], entry["size"]) if is_large else content)
    git("add", ".", cwd=tmp_path)
    whole = git("write-tree", cwd=tmp_path)
    rows = [line.split() for line in git("ls-tree", "-r", "-t", whole, cwd=tmp_path).splitlines()]
    listed = {one["path"]: one["oid"] for one in tree(hub, "step-2", recursive="True")}
    assert listed == {name: oid for _mode, _kind, oid, name in rows}
    assert gitblobs.tree_oid({name: oid for _mode, kind, oid, name in rows if kind == "blob"}) == whole


def test_a_list_of_files_shows_one_folder_or_everything_below(hub: TestClient) -> None:
    top = {one["path"]: one["type"] for one in tree(hub, "step-2")}
    assert top["additional_chat_templates"] == "directory"
    assert "additional_chat_templates/tool.jinja" not in top
    (inside,) = tree(hub, "step-2", "/additional_chat_templates")
    assert (inside["path"], inside["size"]) == ("additional_chat_templates/tool.jinja", 11)
    below = tree(hub, "step-2", recursive="true", expand="true")
    assert {one["path"] for one in below} == {*top, "additional_chat_templates/tool.jinja"}
    assert {one["lastCommit"]["id"] for one in below} == {checkpoint(2).digest[:40]}
    missing = hub.get("/api/models/garden/tree/step-1/additional_chat_templates")
    assert (missing.status_code, missing.headers["x-error-code"]) == (404, "EntryNotFound")


def test_long_lists_come_in_pages_that_stay_on_this_host(hub: TestClient) -> None:
    address, seen, pages = "http://models.example:8123/api/models/garden/tree/step-2?recursive=true&limit=2", [], 0
    while address:
        answer = hub.get(address)
        seen += [one["path"] for one in answer.json()]
        pages += 1
        address = answer.links.get("next", {}).get("url", "")
        assert address == "" or address.startswith("http://models.example:8123/api/models/garden/tree/step-2?")
    assert seen == [one["path"] for one in tree(hub, "step-2", recursive="true")]
    assert pages == 4
    assert hub.get("/api/models/garden/tree/main?limit=-1").status_code == 400


@pytest.mark.parametrize("repo", ["garden", "Garden"])
def test_the_head_of_a_file_says_what_the_client_keeps_it_under(hub: TestClient, repo: str) -> None:
    one = checkpoint(1)
    files, commit = one.manifest["files"], one.digest[:40]
    weights = hub.head(f"/{repo}/resolve/step-1/model.safetensors", headers={"accept-encoding": "identity"})
    sha256 = files["model.safetensors"]["sha256"]
    assert weights.headers["etag"] == weights.headers["x-linked-etag"] == f'"{sha256}"'
    assert weights.headers["x-linked-size"] == weights.headers["content-length"]
    assert weights.headers["content-length"] == str(files["model.safetensors"]["size"])
    config = hub.head(f"/{repo}/resolve/step-1/config.json")
    oid = git("hash-object", str(checkpoints.path(one) / "config.json"), cwd=checkpoints.path(one))
    assert config.headers["etag"] == f'"{oid}"'
    assert "x-linked-etag" not in config.headers
    for head in (weights, config):
        assert (head.headers[COMMIT], head.headers["accept-ranges"]) == (commit, "bytes")
        assert "x-xet-hash" not in head.headers
        assert head.content == b""


def test_a_file_is_never_compressed_and_its_commit_never_changes(hub: TestClient) -> None:
    commit = checkpoint(1).digest[:40]
    own = (checkpoints.path(checkpoint(1)) / "tokenizer.json").read_bytes()
    for revision, kept in ((commit, "public, max-age=31536000, immutable"), ("step-1", "no-cache")):
        answer = hub.get(
            f"/garden/resolve/{revision}/tokenizer.json", headers={"accept-encoding": "gzip, deflate, zstd, br"}
        )
        assert "content-encoding" not in answer.headers
        assert (answer.content, answer.headers["cache-control"]) == (own, kept)


@pytest.mark.parametrize(
    ("address", "code", "has_commit"),
    [
        ("/nobody/resolve/main/config.json", "RepoNotFound", False),
        ("/other/garden/resolve/main/config.json", "RepoNotFound", False),
        ("/garden/resolve/step-9/config.json", "RevisionNotFound", False),
        ("/garden/resolve/step-3/config.json", "RevisionNotFound", False),
        ("/garden/resolve/step-4/config.json", "RevisionNotFound", False),
        ("/garden/resolve/{verifying}/config.json", "RevisionNotFound", False),
        (f"/garden/resolve/{'0' * 40}/config.json", "RevisionNotFound", False),
        ("/garden/resolve/refs%2Fpr%2F1/config.json", "RevisionNotFound", False),
        ("/garden/resolve/step-99999999999999999999/config.json", "RevisionNotFound", False),
        ("/garden/resolve/%E2%80%AE/config.json", "", False),
        ("/garden/resolve/%FF/config.json", "", False),
        (f"/garden/resolve/main/{'a' * 2_000}", "", False),
        ("/garden/resolve/main/config.json%00", "", False),
        ("/garden/resolve/main/adapter_config.json", "EntryNotFound", True),
        ("/garden/resolve/main/manifest.json", "EntryNotFound", True),
        ("/garden/resolve/main/", "EntryNotFound", True),
        ("/garden/resolve/main/..%2Fstep-3%2Fconfig.json", "EntryNotFound", True),
        ("/garden/resolve/main/%2e%2e/%2e%2e/%2e%2e/secret_key", "EntryNotFound", True),
        ("/garden/resolve/main//etc/passwd", "EntryNotFound", True),
        ("/garden/resolve/main/..%5C..%5Csecret_key", "EntryNotFound", True),
        ("/api/models/nobody", "RepoNotFound", False),
        ("/api/models/garden/revision/step-9", "RevisionNotFound", False),
        ("/api/models/garden/revision/%00", "", False),
        ("/api/models/garden/tree/step-9", "RevisionNotFound", False),
        ("/api/models/garden/commits/step-9", "RevisionNotFound", False),
        ("/api/models/nobody/refs", "RepoNotFound", False),
    ],
)
def test_what_is_not_there_has_the_code_that_the_client_knows(
    hub: TestClient, address: str, code: str, has_commit: bool
) -> None:
    answer = hub.get(address.format(verifying=checkpoint(3).digest[:40]))
    assert answer.status_code == (404 if code else 400), answer.text
    assert answer.headers.get("x-error-code", "") == code
    assert (COMMIT in answer.headers) is has_commit
    assert answer.json()["error"]


def test_refs_commits_and_lists_hold_what_is_ready(hub: TestClient) -> None:
    refs = hub.get("/api/models/garden/refs").json()
    assert [one["name"] for one in refs["branches"]] == ["main", "step-1", "step-2-chat", "step-2", "latest"]
    for ref in refs["branches"]:
        assert hub.get(f"/api/models/garden/revision/{ref['name']}").json()["sha"] == ref["targetCommit"]
    commits = hub.get("/api/models/garden/commits/step-2-chat").json()
    assert [one["title"] for one in commits] == ["step-2-chat", "step-2", "step-1"]
    assert [one["title"] for one in hub.get("/api/models/garden/commits/step-1").json()] == ["step-1"]
    assert [one["id"] for one in hub.get("/api/models").json()] == ["garden"]
    assert [one["id"] for one in hub.get("/api/models?search=GARD").json()] == ["garden"]
    assert hub.get("/api/models?search=g_rden").json() == hub.get("/api/models?author=nobody").json() == []


def test_a_run_of_which_nothing_is_ready_is_there_and_empty(hub: TestClient) -> None:
    put("young", 1, state=VERIFYING)
    told = hub.get("/api/models/young").json()
    assert (told["siblings"], told.get("sha")) == ([], None)
    assert hub.get("/api/models/young/refs").json()["branches"] == []
    assert hub.get("/api/models/young/revision/main").headers["x-error-code"] == "RevisionNotFound"


PATHS = ["config.json", "model.safetensors", "additional_chat_templates", "nothing", "../secret_key"]


@pytest.mark.parametrize("sent", [{"data": {"paths": PATHS, "expand": False}}, {"json": {"paths": PATHS}}])
def test_paths_are_told_one_by_one(hub: TestClient, sent: dict[str, Any]) -> None:
    answer = hub.post("/api/models/garden/paths-info/step-2", **sent)
    assert [(one["path"], one["type"]) for one in answer.json()] == [
        ("config.json", "file"),
        ("model.safetensors", "file"),
        ("additional_chat_templates", "directory"),
    ]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b'{"paths": "config.json"', 400),
        (b'{"paths": {"a": 1}}', 400),
        (b"[" * 100_000, 400),
        (b'{"paths": [1]}', 400),
        (b'{"paths": [' + b'"a",' * 1_000 + b'"a"]}', 400),
        (b"x" * 1_000_001, 413),
    ],
)
def test_paths_that_are_none_are_refused(hub: TestClient, body: bytes, status: int) -> None:
    answer = hub.post("/api/models/garden/paths-info/main", content=body, headers={"content-type": "application/json"})
    assert (answer.status_code, bool(answer.json()["error"])) == (status, True)


def test_small_files_are_read_once_to_be_named(hub: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    first = tree(hub, "step-1")
    monkeypatch.setattr(gitblobs, "work_out", lambda files: pytest.fail(f"{files} read again"))
    assert tree(hub, "step-1") == first
    head: httpx.Response = hub.head("/garden/resolve/step-1/config.json")
    assert head.headers["etag"].strip('"') == next(one["oid"] for one in first if one["path"] == "config.json")
