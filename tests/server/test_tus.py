"""Uploads that go on where they stopped: the announcement, the tus protocol, and the end in a checkpoint."""

import asyncio
import base64
import hashlib
import io
import os
import resource
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import HTTPException
from sqlalchemy import func, select
from starlette.requests import ClientDisconnect, Request

from registry import checkpoints, db, joblog, keys, runs, uploads
from registry.models import AuditEntry, Checkpoint, Job, Upload, UploadFile, User
from registry.settings import get_settings
from server import tus
from server.routes import uploads as routes
from tests.browser.tiny import write_folder
from tests.factories import make_run
from tests.server.sending import Files, Sender, checksum
from tests.server.visitors import Visitor, member
from worker.jobs import WORK_OF_KIND
from worker.receive import sweep_uploads
from worker.runner import run_job

GOOD = {"config.json": 10, "model.safetensors": 10, "tokenizer.json": 10}
"""Sizes of files that can be a checkpoint."""


@pytest.fixture
def sender(database: Path, redis_url: str) -> Sender:
    """An administrator who uploads."""
    return Sender(member("keeper", role="admin"))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """The files of a checkpoint, in the folder that was picked."""
    folder = write_folder(tmp_path_factory.mktemp("tiny") / "model")
    return {f"model/{file.name}": file.read_bytes() for file in folder.iterdir()}


@pytest.fixture(autouse=True)
def desk(monkeypatch: pytest.MonkeyPatch) -> tus.Desk:
    """A server that has just started."""
    fresh = tus.Desk()
    monkeypatch.setattr(routes, "desk", fresh)
    return fresh


def packed(files: Files) -> bytes:
    """A zip of these files."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as opened:
        for name, data in files.items():
            opened.writestr(name, data)
    return content.getvalue()


def work() -> list[Job]:
    """A worker does every job that waits; returns all jobs."""
    with db.read_session() as session:
        waiting = [job.id for job in joblog.list_jobs(session) if job.status == "queued"]
    for job_id in waiting:
        run_job(job_id, "worker", WORK_OF_KIND)
    with db.read_session() as session:
        return list(joblog.list_jobs(session))


def nothing_is_left() -> bool:
    """Whether no file of an upload is anywhere, and no checkpoint came of it."""
    settings = get_settings()
    folders = (settings.uploads_dir, settings.checkpoints_dir, settings.blobs_dir)
    on_disk = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    with db.read_session() as session:
        rows = session.scalar(select(func.count(Checkpoint.id)))
    return not on_disk and not list(settings.uploads_dir.glob("*")) and rows == 0


class TestWhole:
    def test_a_folder_becomes_a_checkpoint(self, sender: Sender, tiny: Files) -> None:
        upload = sender.begin(tiny, tokens_seen="20,480", kind="chat")
        assert (upload["status"], upload["label"], upload["received"]) == ("receiving", "given@5-chat", 0)
        sender.send(upload, tiny)
        assert sender.state(upload)["status"] == "running"
        [job] = work()
        assert (job.status, job.kind, job.error) == ("finished", "unpack", "")
        state = sender.state(upload)
        assert state["status"] == "finished"
        assert sender.client.get(state["location"]).status_code == 200
        with db.read_session() as session:
            checkpoint = checkpoints.get_checkpoint(session, runs.get_run(session, "given"), 5)
            assert (checkpoint.kind, checkpoint.origin, checkpoint.tokens_seen) == ("chat", "upload", 20_480)
            assert checkpoint.user_id is not None
            digest = hashlib.sha256(tiny["model/model.safetensors"]).hexdigest()
            assert checkpoint.manifest["files"]["model.safetensors"]["sha256"] == digest
        assert not list(get_settings().uploads_dir.iterdir())

    def test_a_zip_does_too_and_is_hashed_while_it_is_unpacked(self, sender: Sender, tiny: Files) -> None:
        files = {"model.zip": packed(tiny)}
        upload = sender.begin(files)
        sender.send(upload, files)
        [job] = work()
        assert job.status == "finished", job.error
        with db.read_session() as session:
            checkpoint = session.scalars(select(Checkpoint)).one()
            digest = hashlib.sha256(tiny["model/model.safetensors"]).hexdigest()
            assert checkpoint.manifest["files"]["model.safetensors"]["sha256"] == digest

    def test_it_goes_on_after_the_server_started_anew(
        self, sender: Sender, tiny: Files, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        upload = sender.begin(tiny)
        [first] = [file for file in upload["files"] if file["name"].endswith(".safetensors")]
        content = tiny[first["name"]]
        sender.patch(first["url"], content[:1000])
        monkeypatch.setattr(routes, "desk", tus.Desk())
        assert sender.offset(first["url"]) == 1000
        again = sender.begin(tiny)  # the same announcement goes on with it
        assert again["id"] == upload["id"]
        assert again["received"] == 1000
        sender.send(again, tiny)
        with db.read_session() as session:
            hashed = {file.name: bool(file.sha256) for file in session.scalars(select(UploadFile))}
        assert hashed.pop(first["name"]) is False  # the hash so far was lost, so sealing reads the file
        assert all(hashed.values())
        [job] = work()
        assert job.status == "finished", job.error

    def test_it_is_admitted_once_though_the_last_chunk_comes_twice(self, sender: Sender, tiny: Files) -> None:
        upload = sender.begin(tiny)
        sender.send(upload, tiny)
        last = upload["files"][-1]
        assert sender.patch(last["url"], b"", last["size"]).status_code == 204
        assert sender.patch(last["url"], tiny[last["name"]][-5:], last["size"] - 5).status_code == 409
        assert len(work()) == 1
        assert sender.patch(last["url"], b"", last["size"]).status_code == 204
        with db.read_session() as session:
            assert session.scalar(select(func.count(Checkpoint.id))) == 1
            assert session.scalar(select(func.count(Job.id))) == 1

    def test_a_worker_that_died_after_admitting_leaves_one_checkpoint(self, sender: Sender, tiny: Files) -> None:
        upload = sender.begin(tiny)
        sender.send(upload, tiny)
        work()
        with db.transaction() as session:  # as if it had died before it could say so
            row = session.get_one(Upload, upload["id"])
            row.status, row.place, row.checkpoint_id = "running", "given@5-pretrained", None
            session.scalars(select(Job)).one().status = "queued"
        [job] = work()
        assert job.status == "finished", job.error
        assert sender.state(upload)["location"]


class TestAnnouncing:
    @pytest.mark.parametrize(
        ("fields", "status", "said"),
        [
            ({"run": ""}, 422, "Choose a run"),
            ({"run": "../up"}, 422, "cannot be a run"),
            ({"step": "-1"}, 422, "Step must be a whole number"),
            ({"step": "٣"}, 422, "Step must be a whole number"),
            ({"tokens_seen": "many"}, 422, "Tokens seen must be a whole number"),
            ({"kind": "other"}, 422, "no kind"),
            ({"step": "6"}, 409, "has a checkpoint at step 6 already"),
            ({"run": "ours"}, 409, "belongs to a training run"),
        ],
    )
    def test_a_place_that_cannot_be_is_refused(
        self, sender: Sender, tiny: Files, fields: dict[str, str], status: int, said: str
    ) -> None:
        with db.transaction() as session:
            make_run(session, "ours")
            make_run(session, "given").kind = "upload"
        with db.transaction() as session:
            run = runs.get_run(session, "given")
            session.add(Checkpoint(run_id=run.id, step=6, folder="given/step-6", digest="d", manifest={"files": {}}))
        answer = sender.announce({name: len(content) for name, content in tiny.items()}, **fields)
        assert answer.status_code == status
        assert said in answer.json()["detail"]
        assert not get_settings().uploads_dir.exists()

    @pytest.mark.parametrize(
        ("sizes", "said"),
        [
            ({}, "Choose the files"),
            (dict.fromkeys(GOOD, 0), "Choose the files"),
            ({"config.json": 1, "model.safetensors": 1}, "There is no tokenizer"),
            ({"config.json": 1, "tokenizer.json": 1}, "no .safetensors file"),
            ({"a/config.json": 1, "b/model.safetensors": 1, "tokenizer.json": 1}, "no config.json"),
            ({**GOOD, "pytorch_model.bin": 1}, "can run code"),
            ({**GOOD, "model.pkl": 1}, "can run code"),
            ({**GOOD, "x/../../evil.json": 1}, "leaves its folder"),
            ({**GOOD, "/etc/evil.json": 1}, "leaves its folder"),
            ({**GOOD, "C:\\evil.json": 1}, "leaves its folder"),
            ({**GOOD, "．．/evil.json": 1}, "leaves its folder"),
            ({**GOOD, "CONFIG.json": 1}, "came twice"),
            ({**GOOD, "ｃonfig.json": 1}, "came twice"),
            ({**GOOD, "exe\u202enosj.json": 1}, "cannot be seen"),
            ({**GOOD, "con\u200bfig.json": 1}, "cannot be seen"),
            ({**GOOD, "a\x00.json": 1}, "cannot be seen"),
            ({**GOOD, "config.json/x.json": 1}, "a file and a folder at once"),
            ({**GOOD, "n" * 300 + ".json": 1}, "too long"),
            ({**GOOD, "model.zip": 1}, "not both"),
            ({f"{n}.json": 1 for n in range(501)}, "at most 500 files"),
        ],
    )
    def test_files_that_can_be_no_checkpoint_are_refused_before_the_first_byte(
        self, sender: Sender, sizes: dict[str, int], said: str
    ) -> None:
        answer = sender.announce(sizes)
        assert answer.status_code == 422
        assert said in answer.json()["detail"]
        assert not get_settings().uploads_dir.exists()

    def test_what_file_managers_leave_is_passed_over(self, sender: Sender) -> None:
        upload = sender.announce({**GOOD, ".DS_Store": 1, "__MACOSX/x.bin": 1}).json()
        assert [file["name"] for file in upload["files"]] == list(GOOD)

    def test_more_than_the_site_or_the_disk_takes(self, sender: Sender, monkeypatch: pytest.MonkeyPatch) -> None:
        assert sender.announce({**GOOD, "model.safetensors": 2**45}).status_code == 507
        monkeypatch.setenv("GROW_MAX_UPLOAD_BYTES", str(2**49))
        get_settings.cache_clear()
        answer = sender.announce({**GOOD, "model.safetensors": 2**48})
        assert answer.status_code == 507
        assert "no room" in answer.json()["detail"]

    def test_two_uploads_of_one_step_at_once(self, sender: Sender, tiny: Files) -> None:
        sender.begin(tiny)
        other = Sender(member("other", role="admin"))
        answer = other.announce({name: len(content) for name, content in tiny.items()})
        assert answer.status_code == 409
        assert "on its way to given@5, by keeper" in answer.json()["detail"]
        assert sender.announce({**GOOD}).status_code == 409  # other files than those it was begun with
        assert other.announce({**GOOD}, step="6").status_code == 200

    def test_only_so_many_at_a_time(self, sender: Sender, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(uploads, "MAX_OPEN", 1)
        sender.announce(GOOD)
        assert sender.announce(GOOD, step="6").status_code == 403

    @pytest.mark.parametrize(
        "body", [b"{", b"[]", b'{"files": [{"name": 1}]}', b'{"files": [{"name": "x", "size": -1}]}']
    )
    def test_what_cannot_be_read(self, sender: Sender, body: bytes) -> None:
        assert sender.client.post("/api/uploads", content=body, headers=sender.headers()).status_code == 422

    def test_an_endless_list(self, sender: Sender) -> None:
        assert sender.client.post("/api/uploads", content=b" " * 600_000, headers=sender.headers()).status_code == 413


class TestWhoMay:
    def test_others_may_not(self, database: Path, tiny: Files) -> None:
        assert Sender(member("mei")).announce({"a.zip": 1}).status_code == 403
        assert Visitor().client.post("/api/uploads", json={}).status_code in (401, 403)

    def test_a_publisher_may_and_sees_only_their_own(self, sender: Sender, tiny: Files) -> None:
        others = sender.begin(tiny)
        publisher = Sender(member("press", role="publisher"))
        own = publisher.begin(tiny, step="6")
        url = others["files"][0]["url"]
        assert publisher.patch(url, b"x").status_code == 404
        assert publisher.client.head(url, headers=publisher.headers()).status_code == 404
        assert publisher.client.delete(url, headers=publisher.headers()).status_code == 404
        assert publisher.client.get(f"/api/uploads/{others['id']}").status_code == 404
        assert sender.offset(own["files"][0]["url"]) == 0  # an administrator sees all

    @pytest.mark.parametrize("spoil", [{"x_csrf_token": "made up"}, {"origin": "http://evil.example"}])
    def test_another_sites_page_may_not(self, sender: Sender, tiny: Files, spoil: dict[str, str]) -> None:
        upload = sender.begin(tiny)
        url = upload["files"][0]["url"]
        assert sender.patch(url, b"x", **spoil).status_code == 403
        assert sender.client.delete(url, headers=sender.headers(**spoil)).status_code == 403
        assert sender.client.post("/api/uploads", json={}, headers=sender.headers(**spoil)).status_code == 403
        assert sender.offset(url) == 0

    def test_a_program_with_an_api_key_sends_a_zip_by_the_protocol_alone(self, sender: Sender, tiny: Files) -> None:
        with db.transaction() as session:
            user = session.scalars(select(User)).one()
            token = keys.make(session, user, "push", (keys.PUSH,)).token
            weak = keys.make(session, user, "read", (keys.MODELS,)).token
        client = Visitor().client
        content = packed(tiny)
        metadata = {"filename": "m.zip", "run": "given", "step": "5"}
        encoded = ", ".join(f"{name} {base64.b64encode(value.encode()).decode()}" for name, value in metadata.items())
        headers = {"tus-resumable": "1.0.0", "upload-length": str(len(content)), "upload-metadata": encoded}

        def create(key: str) -> Any:
            return client.post("/api/uploads/files", headers={**headers, "authorization": f"Bearer {key}"})

        assert create("wrong").status_code == 401
        assert create(weak).status_code == 403
        made = create(token)
        assert made.status_code == 201
        assert made.headers["upload-expires"].endswith("GMT")
        sent = {
            "tus-resumable": "1.0.0",
            "authorization": f"Bearer {token}",
            "content-type": tus.CHUNK_TYPE,
            "upload-offset": "0",
            "x-http-method-override": "PATCH",
        }
        answer = client.post(made.headers["location"], content=content, headers=sent)
        assert (answer.status_code, answer.headers["upload-offset"]) == (204, str(len(content)))
        [job] = work()
        assert job.status == "finished", job.error


class TestProtocol:
    @pytest.fixture
    def url(self, sender: Sender) -> str:
        """An upload of one file of ten bytes."""
        return str(sender.announce({"m.zip": 10}).json()["files"][0]["url"])

    def test_it_says_what_it_speaks(self, sender: Sender, url: str) -> None:
        for address in ("/api/uploads/files", url):
            answer = sender.client.options(address)
            assert answer.status_code == 204
            assert answer.headers["tus-version"] == "1.0.0"
            assert answer.headers["tus-extension"] == "creation,termination,checksum,expiration"
            assert answer.headers["tus-checksum-algorithm"] == "sha256,sha1"
            assert int(answer.headers["tus-max-size"]) == get_settings().max_upload_bytes

    def test_a_head_tells_offset_length_and_expiry_and_is_never_cached(self, sender: Sender, url: str) -> None:
        assert sender.patch(url, b"1234").headers["upload-offset"] == "4"
        answer = sender.client.head(url, headers=sender.headers())
        assert (answer.headers["upload-offset"], answer.headers["upload-length"]) == ("4", "10")
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["tus-resumable"] == "1.0.0"
        assert answer.headers["upload-expires"].endswith("GMT")

    @pytest.mark.parametrize(
        ("headers", "status", "said"),
        [
            ({"tus_resumable": "0.2.2"}, 412, "1.0.0"),
            ({"content_type": "application/json"}, 415, "offset+octet-stream"),
            ({"upload_offset": "-1"}, 400, "Upload-Offset"),
            ({"upload_offset": "x"}, 400, "Upload-Offset"),
            ({"upload_offset": "3"}, 409, "goes on at byte 0"),
            ({"upload_checksum": "md5 AAAA"}, 400, "sha256, sha1"),
            ({"upload_checksum": "sha256 ???"}, 400, "Upload-Checksum"),
            ({"upload_checksum": "sha256 AAAA"}, 400, "Upload-Checksum"),
            ({"upload_checksum": checksum(b"other")}, 460, "does not have the checksum"),
            ({"upload_checksum": checksum(b"other", "sha1")}, 460, "does not have the checksum"),
        ],
    )
    def test_a_chunk_that_is_no_good_leaves_the_file_as_it_was(
        self, sender: Sender, url: str, headers: dict[str, str], status: int, said: str
    ) -> None:
        answer = sender.patch(url, b"12345", **{name: value for name, value in headers.items()})
        assert answer.status_code == status
        assert said.lower() in (answer.text + str(answer.headers)).lower()
        assert answer.headers["tus-resumable"] == "1.0.0"
        assert sender.offset(url) == 0
        assert sender.patch(url, b"12345", upload_checksum=checksum(b"12345", "sha1")).status_code == 204

    @pytest.mark.parametrize("is_told", [True, False])
    def test_more_bytes_than_announced(self, sender: Sender, url: str, is_told: bool) -> None:
        def pieces() -> Iterator[bytes]:
            yield b"x" * 20

        named = sender.headers(content_type=tus.CHUNK_TYPE, upload_offset="0")
        answer = sender.client.patch(url, content=b"x" * 20 if is_told else pieces(), headers=named)
        assert answer.status_code == 413
        assert sender.offset(url) == 0

    def test_an_upload_that_is_none(self, sender: Sender, database: Path) -> None:
        for name in ("0" * 32, "..%2f..%2fsecret_key", "x"):
            assert sender.patch(f"/api/uploads/files/{name}", b"x").status_code == 404
            assert sender.client.head(f"/api/uploads/files/{name}", headers=sender.headers()).status_code == 404

    @pytest.mark.parametrize(
        ("headers", "status"),
        [
            ({"upload_length": "x"}, 400),
            ({"upload_length": ""}, 400),
            ({"upload_metadata": "filename ???"}, 400),
            ({"upload_metadata": "filename bS56aXA=,filename bS56aXA="}, 400),
            ({"upload_metadata": "filename bS56aXA= x"}, 400),
            ({"upload_metadata": "x" * 9000}, 400),
            ({"upload_metadata": "filename bS5iaW4="}, 422),  # m.bin
            ({"upload_metadata": "filename bS56aXA="}, 422),  # no run
        ],
    )
    def test_a_creation_that_cannot_be(self, sender: Sender, headers: dict[str, str], status: int) -> None:
        named = sender.headers(**{"upload_length": "10", "upload_metadata": "filename bS56aXA=", **headers})
        assert sender.client.post("/api/uploads/files", headers=named).status_code == status

    def test_termination_ends_the_whole_upload(self, sender: Sender, tiny: Files) -> None:
        upload = sender.begin(tiny)
        url = upload["files"][0]["url"]
        sender.patch(url, tiny[upload["files"][0]["name"]][:10])
        assert sender.client.delete(url, headers=sender.headers()).status_code == 204
        assert sender.client.head(url, headers=sender.headers()).status_code == 404
        assert nothing_is_left()
        with db.read_session() as session:
            assert session.scalars(select(AuditEntry.action)).all()[-1] == "upload-cancelled"

    def test_cancelling_by_its_number_does_too_but_not_once_it_is_unpacked(self, sender: Sender, tiny: Files) -> None:
        upload = sender.begin(tiny)
        assert sender.client.delete(f"/api/uploads/{upload['id']}", headers=sender.headers()).status_code == 204
        assert nothing_is_left()
        again = sender.begin(tiny)
        sender.send(again, tiny)
        assert sender.client.delete(f"/api/uploads/{again['id']}", headers=sender.headers()).status_code == 409

    def test_what_nobody_continues_expires(self, sender: Sender, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("GROW_UPLOAD_DAYS", "0.0000001")
        get_settings.cache_clear()
        assert sender.patch(url, b"12345").status_code == 204  # sets the expiry anew
        assert sender.patch(url, b"12345", 5).status_code == 410
        assert sender.client.head(url, headers=sender.headers()).status_code == 410
        sweep_uploads()
        assert nothing_is_left()
        assert sender.client.head(url, headers=sender.headers()).status_code == 404

    def test_a_disk_that_lost_bytes_is_believed(self, sender: Sender, url: str) -> None:
        sender.patch(url, b"12345")
        [path] = [path for path in get_settings().uploads_dir.rglob("*") if path.is_file()]
        path.write_bytes(b"12")
        assert sender.offset(url) == 2
        assert sender.patch(url, b"345", 2).status_code == 204

    def test_a_disk_that_is_full_keeps_what_was_whole_and_says_so(self, sender: Sender, url: str) -> None:
        sender.patch(url, b"1234")
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        size = get_settings().home.joinpath("grow.db").stat().st_size
        upload = sender.announce({"big.zip": size + 2**25}, step="7").json()
        big = upload["files"][0]["url"]
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 2**24, hard))
        try:
            answer = sender.patch(big, b"x" * (size + 2**25))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert answer.status_code == 507
        assert "disk of this site is full" in answer.json()["detail"]
        assert (sender.offset(big), sender.offset(url)) == (0, 4)
        assert sorted(path.stat().st_size for path in get_settings().uploads_dir.rglob("*") if path.is_file()) == [0, 4]


def chunk_request(pieces: list[Any]) -> Request:
    """A request whose body is these pieces; an event among them is waited for."""

    async def receive() -> dict[str, object]:
        piece = pieces.pop(0)
        if isinstance(piece, asyncio.Event):
            await piece.wait()
            piece = pieces.pop(0)
        if piece is None:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": piece, "more_body": bool(pieces)}

    return Request({"type": "http", "method": "PATCH", "headers": []}, receive)


class TestDesk:
    """What happens on the wire, below the routes."""

    @pytest.fixture
    def anyio_backend(self) -> str:
        return "asyncio"

    @pytest.mark.anyio
    @pytest.mark.parametrize("is_checked", [True, False])
    async def test_a_line_that_breaks(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_checked: bool) -> None:
        monkeypatch.setattr(tus, "BATCH_BYTES", 10)
        counted: list[tus.Chunk] = []
        with pytest.raises(ClientDisconnect):
            await tus.Desk().receive(
                chunk_request([b"0123456789", b"0123456789", b"0123", None]),
                tmp_path / "f",
                "f",
                offset=0,
                size=100,
                checksum=tus.Checksum("sha1", b"x" * 20) if is_checked else None,
                count=counted.append,
            )
        # With a checksum a chunk counts whole or not at all.
        assert [chunk.after for chunk in counted] == ([] if is_checked else [20])
        assert (tmp_path / "f").stat().st_size == (0 if is_checked else 20)

    @pytest.mark.anyio
    async def test_a_newer_request_takes_over_from_one_whose_line_is_dead(self, tmp_path: Path) -> None:
        desk, never = tus.Desk(), asyncio.Event()

        async def send(pieces: list[Any]) -> int:
            async with desk.hold("f"):
                return await desk.receive(
                    chunk_request(pieces), tmp_path / "f", "f", offset=0, size=4, checksum=None, count=lambda _: None
                )

        older = asyncio.create_task(send([b"12", never, b"34"]))
        await asyncio.sleep(0.05)
        assert await send([b"abcd"]) == 4
        with pytest.raises(HTTPException) as caught:
            await older
        assert caught.value.status_code == 409
        assert (tmp_path / "f").read_bytes() == b"abcd"

    @pytest.mark.anyio
    async def test_another_process_is_waited_for(self, tmp_path: Path) -> None:
        writer = tus.Writer(tmp_path / "f", 0, None, None)
        try:
            with pytest.raises(HTTPException) as caught:
                await tus.Desk().receive(
                    chunk_request([b"1"]), tmp_path / "f", "f", offset=0, size=4, checksum=None, count=lambda _: None
                )
        finally:
            writer.close()
        assert caught.value.status_code == 423

    @pytest.mark.anyio
    async def test_a_silent_line_is_given_up(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(tus, "IDLE_SECONDS", 0.05)
        with pytest.raises(TimeoutError):
            await tus.Desk().receive(
                chunk_request([b"1", asyncio.Event(), b"2"]),
                tmp_path / "f",
                "f",
                offset=0,
                size=4,
                checksum=None,
                count=lambda _: None,
            )

    def test_hashers_are_few(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(tus, "MAX_HASHERS", 2)
        known = tus.Hashers()
        for name in "abc":
            known.keep(name, 5, hashlib.sha256())
        assert known.at("a", 5) is None
        assert known.at("c", 5) is not None
        assert known.at("c", 4) is None


def changed(name: str, content: bytes | Callable[[bytes], bytes]) -> Callable[[Files], Files]:
    """The files, one of them changed."""

    def change(files: Files) -> Files:
        new = content if isinstance(content, bytes) else content(files[name])
        return {**files, name: new}

    return change


BAD_CONTENT = {
    "weights that are a pickle": (changed("model/model.safetensors", b"\x80\x04\x95" * 100), "not a safetensors file"),
    "weights that are a zip": (changed("model/model.safetensors", b"PK\x03\x04" * 100), "not a safetensors file"),
    "weights that stop": (changed("model/model.safetensors", lambda content: content[:-100]), "truncated"),
    "a config that is none": (changed("model/config.json", b"{"), "not valid JSON"),
    "another architecture": (changed("model/config.json", b'{"architectures": ["GPT2LMHeadModel"]}'), "only LlamaFor"),
    "a zip that is none": (lambda _: {"m.zip": b"PK nonsense"}, "damaged"),
    "a zip that stops": (lambda files: {"m.zip": packed(files)[:-300]}, "damaged"),
    "a zip in a zip": (lambda files: {"m.zip": packed({**files, "model/more.zip": b"PK"})}, "another zip"),
    "a zip with code": (lambda files: {"m.zip": packed({**files, "model/modeling.py": b"x"})}, "can run code"),
    "a zip that leaves": (lambda files: {"m.zip": packed({**files, "../evil.json": b"{}"})}, "leaves its folder"),
    "a zip with twins": (lambda files: {"m.zip": packed({**files, "model/CONFIG.json": b"{}"})}, "came twice"),
}


class TestRefusal:
    @pytest.mark.parametrize("case", BAD_CONTENT)
    def test_bad_content_gets_a_sentence_and_leaves_nothing(self, sender: Sender, tiny: Files, case: str) -> None:
        spoil, said = BAD_CONTENT[case]
        files = spoil(tiny)
        upload = sender.begin(files)
        sender.send(upload, files)
        [job] = work()
        assert job.status == "failed"
        state = sender.state(upload)
        assert (state["status"], state["can_retry"]) == ("failed", False)
        assert said in state["error"]
        assert nothing_is_left()
        assert sender.begin(tiny)["id"] != upload["id"]  # the place is free again

    def test_the_reason_is_said_in_the_readers_language(self, sender: Sender, tiny: Files) -> None:
        files = BAD_CONTENT["weights that stop"][0](tiny)
        upload = sender.begin(files)
        sender.send(upload, files)
        work()
        answer = sender.client.get(f"/api/uploads/{upload['id']}", headers={"accept-language": "zh"})
        assert "model.safetensors" in answer.json()["error"]
        assert "truncated" not in answer.json()["error"]

    def test_a_full_disk_while_unpacking_keeps_the_files_for_another_try(
        self, sender: Sender, tiny: Files, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        files = {"m.zip": packed({**tiny, "model/model.safetensors": os.urandom(2**21)})}
        upload = sender.begin(files)
        sender.send(upload, files)
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        database = get_settings().home.joinpath("grow.db").stat().st_size
        resource.setrlimit(resource.RLIMIT_FSIZE, (min(2**21 - 1, database + 2**20), hard))
        try:
            work()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        state = sender.state(upload)
        assert (state["status"], state["can_retry"]) == ("failed", True)
        assert "disk of this site is full" in state["error"]
        kept = [path for path in get_settings().uploads_dir.rglob("*") if path.is_file()]
        assert [path.stat().st_size for path in kept] == [len(files["m.zip"])]
        again = sender.client.post(f"/api/uploads/{upload['id']}/retry", headers=sender.headers())
        assert again.json()["status"] == "running"
        work()
        assert "not a safetensors file" in sender.state(upload)["error"]
        assert nothing_is_left()

    def test_a_step_that_was_taken_meanwhile(self, sender: Sender, tiny: Files) -> None:
        upload = sender.begin(tiny)
        sender.send(upload, tiny)
        folder = get_settings().checkpoints_dir / "given/step-5"
        folder.mkdir(parents=True)
        (folder / "manifest.json").write_text('{"files": {}, "facts": {}}')
        work()
        state = sender.state(upload)
        assert state["status"] == "failed"
        assert "exists already with other files" in state["error"]
        shutil.rmtree(folder)
        assert not list(get_settings().uploads_dir.iterdir())

    def test_a_job_that_was_cancelled_can_be_begun_again(self, sender: Sender, tiny: Files) -> None:
        upload = sender.begin(tiny)
        sender.send(upload, tiny)
        with db.transaction() as session:
            joblog.cancel(session, session.scalars(select(Job)).one())
        sweep_uploads()
        assert sender.state(upload)["can_retry"] is True
        sender.client.post(f"/api/uploads/{upload['id']}/retry", headers=sender.headers())
        work()
        assert sender.state(upload)["status"] == "finished"


class TestPages:
    def test_unfinished_ones_are_listed_with_a_way_on_and_an_end(self, sender: Sender, tiny: Files) -> None:
        upload = sender.begin(tiny)
        page = sender.client.get("/admin/uploads").text
        assert f"/admin/upload?upload={upload['id']}" in page
        form = sender.client.get(f"/admin/upload?upload={upload['id']}")
        assert "given" in form.text
        assert form.status_code == 200
        sent = {"csrf_token": sender.token}
        assert sender.client.post(f"/admin/uploads/{upload['id']}/cancel", data=sent).status_code == 303
        assert nothing_is_left()
        assert sender.client.get(f"/admin/upload?upload={upload['id']}").status_code == 404

    def test_a_failed_one_says_why(self, sender: Sender, tiny: Files) -> None:
        files = {"m.zip": b"PK nonsense"}
        sender.send(sender.begin(files), files)
        work()
        assert "damaged" in sender.client.get("/admin/uploads/list").text
        assert sender.client.post("/admin/uploads/1/retry", data={"csrf_token": sender.token}).status_code == 409

    def test_a_publisher_sees_the_pages(self, database: Path) -> None:
        publisher = member("press", role="publisher")
        assert publisher.get("/admin/upload").status_code == 200
        assert publisher.get("/admin/uploads").status_code == 200
        assert member("mei").get("/admin/upload").status_code == 403
