"""The Hub protocol, writing, request by request: what the client sends, and what nobody should be able to send."""

import base64
import hashlib
import json
import shutil
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from fastapi.testclient import TestClient
from itsdangerous import URLSafeTimedSerializer

from registry import accounts, audit, blobs, checkpoints, db, hubfiles, keys, runs
from registry.models import Checkpoint, HubCommit, User
from registry.models.base import utcnow
from registry.settings import get_settings
from server.app import create_app
from server.routes import hub_lfs
from tests.conftest import migrate
from tests.registry.hubs import model

_serial = count(1)


class Pusher(TestClient):
    """A client with a person's key, and a repository of its own for each test."""

    run = ""

    @property
    def repo(self) -> str:
        return f"/api/models/anna/{self.run}"

    @property
    def lfs(self) -> str:
        return f"/anna/{self.run}.git/info/lfs/objects"

    def be(self, token: str) -> None:
        self.headers["authorization"] = f"Bearer {token}"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One site for the whole module."""
    folder = tmp_path_factory.mktemp("hub-home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GROW_HOME", str(folder))
        patch.setenv("GROW_REDIS_URL", "redis://127.0.0.1:1/0")  # nobody listens there
        get_settings.cache_clear()
        migrate(db.current_engine())
        yield folder
    get_settings.cache_clear()


@pytest.fixture(scope="module")
def people(home: Path) -> dict[str, str]:
    """Keys of a publisher, another one, a member, and one that may only read."""
    made = {}
    with db.transaction() as session:
        for name, role in (("anna", "publisher"), ("ben", "publisher"), ("carl", "member")):
            user = accounts.register(session, name, "correct horse", role=role)
            session.flush()
            made[name] = keys.make(session, user, "push", [keys.PUSH]).token
            if name == "anna":
                made["reader"] = keys.make(session, user, "read", [keys.MODELS]).token
    return made


@pytest.fixture(scope="module")
def pusher(home: Path) -> Iterator[Pusher]:
    with Pusher(create_app(), raise_server_exceptions=False) as opened:
        yield opened


@pytest.fixture
def anna(pusher: Pusher, people: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Pusher]:
    """Her client, with a new repository; no content is stored yet."""
    shutil.rmtree(get_settings().blobs_dir, ignore_errors=True)
    monkeypatch.setenv("GROW_HUB_LIMIT", "100000/minute")
    get_settings.cache_clear()
    pusher.be(people["anna"])
    pusher.run = f"tiny{next(_serial)}"
    assert pusher.post("/api/repos/create", json={"name": pusher.run, "organization": None}).status_code == 200
    yield pusher
    monkeypatch.undo()
    get_settings.cache_clear()


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def file(path: str, content: bytes) -> dict[str, Any]:
    value = {"path": path, "content": base64.b64encode(content).decode(), "encoding": "base64"}
    return {"key": "file", "value": value}


def large(path: str, oid: str, size: Any, algo: str = "sha256") -> dict[str, Any]:
    return {"key": "lfsFile", "value": {"path": path, "algo": algo, "oid": oid, "size": size}}


def commit(
    client: Pusher, *operations: Any, summary: str = "Upload", parent: str = "", revision: str = "main"
) -> httpx.Response:
    header = {"key": "header", "value": {"summary": summary, "description": "", "parentCommit": parent}}
    body = b"".join(json.dumps(line).encode() + b"\n" for line in (header, *operations))
    return post_raw(client, body, revision)


def post_raw(client: Pusher, body: bytes, revision: str = "main") -> httpx.Response:
    headers = {"content-type": "application/x-ndjson"}
    return client.post(f"{client.repo}/commit/{revision}", content=body, headers=headers)


def batch(client: Pusher, content: bytes, *transfers: str) -> dict[str, Any]:
    asked = {"operation": "upload", "transfers": transfers or ("basic",), "hash_algo": "sha256"}
    answer = client.post(
        f"{client.lfs}/batch", json={**asked, "objects": [{"oid": sha(content), "size": len(content)}]}
    )
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()["objects"][0]
    return found


def path_of(url: str) -> str:
    return urlsplit(url).path


def put(client: Pusher, url: str, content: bytes) -> httpx.Response:
    """As the client sends it: without its key."""
    return client.put(path_of(url), content=content, headers={"authorization": ""})


def upload(client: Pusher, content: bytes) -> None:
    found = batch(client, content)
    assert put(client, found["actions"]["upload"]["href"], content).status_code == 200
    verified = client.post(path_of(found["actions"]["verify"]["href"]), json={k: found[k] for k in ("oid", "size")})
    assert verified.status_code == 200


def num_commits(client: Pusher) -> int:
    with db.read_session() as session:
        run = runs.get_run(session, client.run)
        return session.query(HubCommit).filter(HubCommit.run_id == run.id).count()


class TestPeople:
    def test_whose_key_it_is(self, anna: Pusher, people: dict[str, str]) -> None:
        found = anna.get("/api/whoami-v2").json()
        assert (found["type"], found["name"], found["auth"]["accessToken"]["role"]) == ("user", "anna", "write")
        read = anna.get("/api/whoami-v2", headers={"authorization": f"Bearer {people['reader']}"}).json()
        assert read["auth"]["accessToken"]["role"] == "read"

    @pytest.mark.parametrize(
        ("who", "status"), [("", 401), ("Bearer hf_wrong", 401), ("reader", 403), ("carl", 403), ("ben", 403)]
    )
    def test_nobody_else_may_push(self, anna: Pusher, people: dict[str, str], who: str, status: int) -> None:
        anna.headers["authorization"] = f"Bearer {people[who]}" if who in people else who
        asked: list[tuple[str, str, Any]] = [
            ("POST", f"{anna.repo}/preupload/main", {"files": []}),
            ("POST", f"{anna.lfs}/batch", {"operation": "upload", "objects": []}),
            ("POST", f"{anna.repo}/commit/main", None),
            ("POST", f"{anna.repo}/tag/main", {"tag": "v1"}),
            ("POST", f"{anna.repo}/branch/x", {}),
            ("DELETE", f"{anna.repo}/tag/v1", None),
            ("GET", f"{anna.repo}/xet-write-token/main", None),
            ("POST", f"/api/v1/runs/{anna.run}/metrics", {"points": [{"step": 1, "values": {"train/loss": 1.0}}]}),
            ("POST", "/api/repos/create", {"name": anna.run}),
        ]
        for method, path, body in asked:
            answer = anna.request(method, path, json=body)
            assert answer.status_code == status, (method, path, answer.text)
            assert answer.json()["error"] == answer.headers["x-error-message"]
        assert num_commits(anna) == 1

    def test_a_banned_person_may_not_push(self, anna: Pusher) -> None:
        with db.transaction() as session:
            user = session.query(User).filter(User.name == "anna").one()
            user.banned_at = utcnow()
        assert commit(anna, file("a.json", b"{}")).status_code == 403
        with db.transaction() as session:
            session.get_one(User, user.id).banned_at = None


class TestRepositories:
    def test_one_that_is_there_is_told_with_its_address(self, anna: Pusher) -> None:
        answer = anna.post("/api/repos/create", json={"name": anna.run, "organization": "anna", "type": "model"})
        assert (answer.status_code, path_of(answer.json()["url"])) == (409, f"/anna/{anna.run}")

    @pytest.mark.parametrize(
        ("asked", "status"),
        [
            ({"name": "data", "type": "dataset"}, 400),
            ({"name": "../../etc"}, 422),
            ({"name": "a b"}, 422),
            ({"name": ""}, 422),
            ({"name": None}, 400),
            ({"name": 7}, 400),
            ({"organization": "ben"}, 403),
        ],
    )
    def test_what_cannot_be_made(self, anna: Pusher, asked: dict[str, Any], status: int) -> None:
        assert anna.post("/api/repos/create", json={"name": anna.run} | asked).status_code == status

    def test_one_that_is_not_there(self, anna: Pusher) -> None:
        for path in ("/api/models/anna/no", "/api/models/no", f"/api/models/ben/{anna.run}"):
            answer = anna.post(f"{path}/preupload/main", json={"files": []})
            assert (answer.status_code, answer.headers["x-error-code"]) == (404, "RepoNotFound")


class TestCommits:
    def test_a_model_becomes_a_checkpoint_and_pickles_are_left_out(self, anna: Pusher) -> None:
        files = model()
        asked = [{"path": name, "size": len(content), "sample": ""} for name, content in files.items()]
        asked.append({"path": "training_args.bin", "size": 5_000, "sample": ""})
        answer = anna.post(f"{anna.repo}/preupload/main", json={"files": asked})
        modes = {one["path"]: (one["uploadMode"], one["shouldIgnore"]) for one in answer.json()["files"]}
        assert modes["model.safetensors"] == ("lfs", False)
        assert modes["config.json"] == ("regular", False)
        assert modes["training_args.bin"][1]
        assert "training_args.bin" in answer.headers["x-hf-warning"]
        weights = files.pop("model.safetensors")
        upload(anna, weights)
        made = commit(
            anna,
            *(file(name, content) for name, content in files.items()),
            large("model.safetensors", sha(weights), len(weights)),
            file("training_args.bin", b"\x80\x04pickle"),
            summary="Training in progress, step 500",
        )
        assert made.status_code == 200, made.text
        told = made.json()
        assert (told["checkpoint"], told["ignored"]) == (f"{anna.run}@500", ["training_args.bin"])
        assert path_of(told["commitUrl"]) == f"/anna/{anna.run}/commit/{told['commitOid']}"
        with db.read_session() as session:
            assert checkpoints.by_label(session, f"{anna.run}@500").origin == "hub"
            entry = audit.list_entries(session, action="hub-commit").entries[0]
            assert entry.detail["ignored"] == ["training_args.bin"]
        again = anna.post(f"{anna.repo}/preupload/main", json={"files": asked[:1]}).json()["files"][0]
        assert again["oid"]  # a client that has the same file does not send it again

    def test_what_is_stored_needs_not_be_sent(self, anna: Pusher) -> None:
        upload(anna, b"content")
        assert "actions" not in batch(anna, b"content")

    def test_a_large_content_comes_in_parts(self, anna: Pusher, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(hub_lfs, "PART_BYTES", 10)
        content = b"0123456789" * 2 + b"abc"
        actions = batch(anna, content, "basic", "multipart")["actions"]
        header = actions["upload"]["header"]
        assert header["chunk_size"] == "10"
        parts = [{"partNumber": n, "etag": "x"} for n in (1, 2, 3)]
        done = {"oid": sha(content), "parts": parts}
        tags = [put(anna, header[str(n)], content[(n - 1) * 10 : n * 10]).headers.get("etag") for n in (1, 2)]
        assert all(tags)
        completed_at = path_of(actions["upload"]["href"])
        missing = anna.post(completed_at, json=done)
        assert (missing.status_code, "Not all parts" in missing.text) == (422, True)
        assert put(anna, header["3"], b"abcd").status_code == 400
        assert put(anna, header["3"], b"abd").status_code == 200
        wrong = anna.post(completed_at, json=done)
        assert (wrong.status_code, "sha256" in wrong.text) == (422, True)
        assert put(anna, header["3"], b"abc").status_code == 200
        assert anna.post(completed_at, json={**done, "parts": parts[:2]}).status_code == 400
        assert anna.post(completed_at, json=done).status_code == 200
        assert blobs.path(sha(content)).read_bytes() == content
        assert list(hubfiles.folder("incoming").iterdir()) == []
        assert anna.post(completed_at, json=done).status_code == 200  # the answer was lost, and it asks again

    @pytest.mark.parametrize(
        ("operation", "said"),
        [
            (file("../x.json", b"{}"), "leaves its folder"),
            (file("/etc/x.json", b"{}"), "leaves its folder"),
            (file("a/../../x.json", b"{}"), "leaves its folder"),
            (file("C:\\x.json", b"{}"), "leaves its folder"),
            (file("../x.pkl", b"{}"), "leaves its folder"),
            (file("a\0.json", b"{}"), "control characters"),
            (file("a\u202ejson.json", b"{}"), "control characters"),
            (file("", b"{}"), "leaves its folder"),
            ({"key": "file", "value": {"path": "a.json", "content": "!!", "encoding": "base64"}}, "base64"),
            ({"key": "file", "value": {"path": "a.json", "content": "e30=", "encoding": "utf-8"}}, "base64"),
            ({"key": "file", "value": {"path": 7}}, "must be a text"),
            (large("a.safetensors", "e" * 64, 10), "was not uploaded"),
            (large("a.safetensors", "../../etc/passwd", 10), "sha256"),
            (large("a.safetensors", "E" * 64, 10), "sha256"),
            (large("a.safetensors", "e" * 64, -1), "sha256"),
            (large("a.safetensors", "e" * 64, "10"), "sha256"),
            (large("a.safetensors", "e" * 64, 10, "md5"), "sha256"),
            ({"key": "symlink", "value": {"path": "a.json", "target": "/etc"}}, "not known here"),
            ({"key": "file", "value": []}, "no operation"),
            (["file"], "no operation"),
            ("file", "no operation"),
            (file("a.json", b"{}") | {"key": None}, "not known here"),
            ({"key": "deletedFile", "value": {"path": "no.json"}}, "doesn't exist"),
        ],
    )
    def test_an_operation_that_cannot_be(self, anna: Pusher, operation: Any, said: str) -> None:
        answer = commit(anna, file("good.json", b"{}"), operation)
        assert answer.status_code in (404, 422), answer.text
        assert said in answer.json()["error"]
        assert num_commits(anna) == 1

    @pytest.mark.parametrize(
        ("body", "status"),
        [
            (b"", 422),
            (b"\n\n", 422),
            (b"not json\n", 422),
            (b"[" * 100_000 + b"\n", 422),
            (b'{"key": "file", "value": {"path": "a.json"}}\n', 422),
            (b'{"key": "header", "key": "file", "value": {}}\n', 422),
            (b'{"key": "header", "value": {"summary": "x", "parentCommit": "main"}}\n', 422),
            (b"x" * (17 * 2**20), 413),
            (b'{"key": "header", "value": {"summary": "x"}}\n' * 2_001, 413),
            (b"\xff\xfe\n", 422),
        ],
    )
    def test_a_body_that_is_no_commit(self, anna: Pusher, body: bytes, status: int) -> None:
        answer = post_raw(anna, body)
        assert answer.status_code == status, answer.text
        assert num_commits(anna) == 1

    def test_a_parent_that_is_not_the_newest(self, anna: Pusher) -> None:
        first = commit(anna, file("a.json", b"{}")).json()["commitOid"]
        assert commit(anna, file("b.json", b"{}"), parent=first).status_code == 200
        stale = commit(anna, file("c.json", b"{}"), parent=first)
        assert (stale.status_code, "has moved on" in stale.text) == (412, True)

    def test_a_branch_that_is_not_there_and_pull_requests(self, anna: Pusher) -> None:
        answer = commit(anna, file("a.json", b"{}"), revision="step-1")
        assert (answer.status_code, answer.headers["x-error-code"]) == (404, "RevisionNotFound")
        assert "no pull requests" in anna.post(f"{anna.repo}/commit/main?create_pr=1", content=b"").text

    def test_a_quota_is_told_before_the_bytes_are_sent(self, anna: Pusher, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("GROW_USER_CHECKPOINTS_BYTES", "100")
        get_settings.cache_clear()
        asked = {"operation": "upload", "objects": [{"oid": "e" * 64, "size": 101}]}
        answer = anna.post(f"{anna.lfs}/batch", json=asked)
        assert (answer.status_code, "no room" in answer.text) == (507, True)


class TestUploads:
    @pytest.mark.parametrize(
        ("content", "status", "said"),
        [(b"short", 400, "announced"), (b"contents", 400, "announced"), (b"CONTENT", 422, "sha256")],
    )
    def test_other_bytes_than_were_announced(self, anna: Pusher, content: bytes, status: int, said: str) -> None:
        url = batch(anna, b"content")["actions"]["upload"]["href"]
        answer = put(anna, url, content)
        assert (answer.status_code, said in answer.json()["error"]) == (status, True)
        assert not blobs.has(sha(b"content"))
        assert list(hubfiles.folder("incoming").iterdir()) == []

    def test_a_body_without_a_length_is_cut_at_what_was_announced(self, anna: Pusher) -> None:
        url = batch(anna, b"content")["actions"]["upload"]["href"]
        answer = anna.put(path_of(url), content=iter([b"con", b"tent", b"s"]))
        assert (answer.status_code, "More bytes" in answer.text) == (422, True)
        assert anna.put(path_of(url), content=iter([b"con", b"tent"])).status_code == 200

    def test_an_address_that_was_not_made_here_or_has_expired(
        self, anna: Pusher, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        url = batch(anna, b"content")["actions"]["upload"]["href"]
        forged = URLSafeTimedSerializer("another key", salt="hub-upload").dumps([1, sha(b"content"), 7, 0])
        other = URLSafeTimedSerializer(get_settings().secret, salt="form").dumps([1, sha(b"content"), 7, 0])
        for wrong in (forged, other, path_of(url).rpartition("/")[2][:-1] + "x", "x"):
            assert anna.put(f"/api/hub/uploads/{wrong}", content=b"content").status_code == 403
        later = time.time() + 13 * 3_600
        monkeypatch.setattr(time, "time", lambda: later)
        answer = put(anna, url, b"content")
        assert (answer.status_code, "expired" in answer.text) == (403, True)

    @pytest.mark.parametrize(
        "asked",
        [
            {"operation": "download", "objects": []},
            {"operation": "upload", "hash_algo": "md5", "objects": []},
            {"operation": "upload", "objects": [{"oid": "../../x", "size": 1}]},
            {"operation": "upload", "objects": [{"oid": "e" * 64, "size": -1}]},
            {"operation": "upload", "objects": [{"oid": "e" * 64, "size": "many"}]},
            {"objects": "x"},
        ],
    )
    def test_a_batch_that_cannot_be(self, anna: Pusher, asked: dict[str, Any]) -> None:
        assert anna.post(f"{anna.lfs}/batch", json=asked).status_code == 400

    def test_what_has_not_come_is_not_verified(self, anna: Pusher) -> None:
        upload(anna, b"content")
        for oid, size in ((sha(b"content"), 8), ("e" * 64, 7)):
            assert anna.post(f"{anna.lfs}/verify", json={"oid": oid, "size": size}).status_code == 404


class TestNames:
    def test_tags_and_branches_come_and_go(self, anna: Pusher) -> None:
        made = commit(anna, file("a.json", b"{}")).json()["commitOid"]
        assert anna.post(f"{anna.repo}/tag/main", json={"tag": "v1/first"}).status_code == 200
        assert anna.post(f"{anna.repo}/tag/{made}", json={"tag": "v1/first"}).status_code == 409
        assert anna.post(f"{anna.repo}/branch/step-5", json={"startingPoint": made}).status_code == 200
        assert anna.post(f"{anna.repo}/branch/step-5", json={}).status_code == 409
        refs = anna.get(f"{anna.repo}/refs").json()
        assert [(tag["name"], tag["targetCommit"]) for tag in refs["tags"]] == [("v1/first", made)]
        assert {branch["name"] for branch in refs["branches"]} == {"main", "step-5"}
        assert anna.delete(f"{anna.repo}/tag/v1%2Ffirst").status_code == 200
        gone = anna.delete(f"{anna.repo}/tag/v1%2Ffirst")
        assert (gone.status_code, gone.headers["x-error-code"]) == (404, "RevisionNotFound")
        assert anna.delete(f"{anna.repo}/branch/step-5").status_code == 200
        assert anna.delete(f"{anna.repo}/branch/main").status_code == 422
        assert anna.post(f"{anna.repo}/tag/no", json={"tag": "x"}).status_code == 404
        assert anna.post(f"{anna.repo}/tag/main", json={"tag": "../x"}).status_code == 422

    def test_a_tag_whose_step_is_taken_is_taken_back(self, anna: Pusher) -> None:
        for seed, summary in ((0, "step 5"), (1, "Upload")):
            files = model(seed)
            weights = files.pop("model.safetensors")
            upload(anna, weights)
            operations = [file(name, content) for name, content in files.items()]
            answer = commit(anna, *operations, large("model.safetensors", sha(weights), len(weights)), summary=summary)
            assert answer.status_code == 200
        taken = anna.post(f"{anna.repo}/tag/main", json={"tag": "step-5"})
        assert (taken.status_code, "exists already" in taken.text) == (409, True)
        assert anna.post(f"{anna.repo}/tag/main", json={"tag": "step-6"}).status_code == 200
        with db.read_session() as session:
            run = runs.get_run(session, anna.run)
            assert [one.step for one in session.query(Checkpoint).filter_by(run_id=run.id)] == [5, 6]

    @pytest.mark.parametrize(
        ("card", "said"),
        [
            ("# Plain", ""),
            ("---\nlicense: mit\n---\n# Card", ""),
            ("---\n- a\n---\n", "names and values"),
            ("---\na: [\n---\n", "not valid YAML"),
            ("---\na: !!python/object/apply:os.system [ls]\n---\n", "not valid YAML"),
            ("---\n" + "a: b\n" * 50_000 + "---\n", "too long"),
        ],
    )
    def test_the_metadata_of_a_card(self, anna: Pusher, card: str, said: str) -> None:
        found = anna.post("/api/validate-yaml", json={"content": card, "repoType": "model"}).json()
        assert said in " ".join(one["message"] for one in found["errors"])
        assert bool(found["errors"]) == bool(said)


class TestXet:
    def test_a_token_sends_chunks_and_nothing_else_does(self, anna: Pusher, people: dict[str, str]) -> None:
        answer = anna.get(f"{anna.repo}/xet-write-token/main")
        token = answer.json()["accessToken"]
        assert answer.headers["x-xet-access-token"] == token
        assert path_of(answer.headers["x-xet-cas-url"]) == "/xet"
        own = {"authorization": f"Bearer {token}"}
        assert anna.get(f"/xet/v1/chunks/default-merkledb/{'a' * 64}", headers=own).status_code == 404
        refused = anna.post("/xet/v2/shards", content=b"junk", headers=own).json()
        assert (refused["type"], refused["message"]) == ("error", "The upload holds a shard that cannot be read.")
        for path in ("v1/shards", f"v1/xorbs/default/{'a' * 64}"):
            assert anna.post(f"/xet/{path}", content=b"junk", headers=own).status_code == 422, path
            assert anna.post(f"/xet/{path}", content=b"junk").status_code == 401  # her API key is another thing
        assert anna.post("/xet/v1/xorbs/default/..%2F..%2Fx", content=b"x", headers=own).status_code in (400, 404)
        assert anna.post(f"{anna.repo}/commit/main", headers=own).status_code == 401


class TestMetrics:
    def test_scalars_are_recorded_for_a_run_that_is_made(self, anna: Pusher) -> None:
        points = [{"step": step, "tokens_seen": step * 10, "values": {"train/loss": 3.0 - step}} for step in (1, 2)]
        assert anna.post("/api/v1/runs/fresh/metrics", json={"points": points}).json() == {"points": 2}
        body = '{"points": [{"step": 3, "values": {"train/loss": NaN, "train/lr": 1e-4}}]}'
        anna.post("/api/v1/runs/fresh/metrics", content=body, headers={"content-type": "application/json"})
        with db.read_session() as session:
            run = runs.get_run(session, "fresh")
            assert [point.value for point in runs.metric_series(session, run, "train/loss")] == [2.0, 1.0]

    @pytest.mark.parametrize(
        "points",
        [
            [],
            [{"step": -1, "values": {}}],
            [{"step": 2**63, "values": {}}],
            [{"step": 1, "values": {"../x\n": 1.0}}],
            [{"step": 1, "values": {"a": "x"}}],
            [{"step": 1, "values": {str(n): 1.0 for n in range(201)}}],
        ],
    )
    def test_what_is_no_scalar(self, anna: Pusher, points: list[Any]) -> None:
        assert anna.post("/api/v1/runs/fresh/metrics", json={"points": points}).status_code == 400
