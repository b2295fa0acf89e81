"""Administration: news, and checkpoints that come by browser."""

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import func, select

from registry import checkpoints, db, evaluations, events, runs, tickets
from registry.models import Checkpoint, Post, Run
from registry.settings import get_settings
from tests.browser.tiny import write_folder, write_zip
from tests.factories import make_checkpoint, make_run, make_task
from tests.server.visitors import Visitor, member

Files = dict[str, bytes]


@pytest.fixture
def admin(database: Path) -> Visitor:
    """An administrator who is logged in."""
    return member("keeper", role="admin")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """The files of a checkpoint."""
    folder = write_folder(tmp_path_factory.mktemp("tiny") / "model")
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def upload(visitor: Visitor, files: Files, *, script: bool = False, **fields: str) -> httpx.Response:
    """Sends the upload form with one file a part."""
    sent = {"csrf_token": visitor.token("/account"), "run": "given", "step": "5", **fields}
    parts = [("files", (name, content)) for name, content in files.items()]
    headers = {"accept": "application/json"} if script else {}
    return visitor.client.post("/admin/upload", data=sent, files=parts, headers=headers)


def nothing_is_left() -> bool:
    """Whether neither disk nor database has a trace of an upload."""
    settings = get_settings()
    on_disk = [
        path
        for folder in (settings.uploads_dir, settings.checkpoints_dir)
        for path in folder.rglob("*")
        if path.is_file()
    ]
    with db.read_session() as session:
        rows = session.scalar(select(func.count(Checkpoint.id)).join(Run).where(Run.name == "given"))
    return not on_disk and not list(settings.uploads_dir.glob("*")) and rows == 0


class TestUpload:
    def test_files_become_a_checkpoint_with_its_evaluations(self, admin: Visitor, tiny: Files) -> None:
        with db.transaction() as session:
            make_task(session)
        answer = upload(admin, tiny, tokens_seen="20,480", kind="chat")
        assert answer.status_code == 303
        with db.read_session() as session:
            run = runs.get_run(session, "given")
            checkpoint = checkpoints.get_checkpoint(session, run, 5)
            assert (run.kind, checkpoint.kind, checkpoint.state) == ("upload", "chat", "verifying")
            assert checkpoint.tokens_seen == 20_480
            assert (checkpoints.path(checkpoint) / "manifest.json").exists()
            assert len(evaluations.for_checkpoint(session, checkpoint)) == 1
            assert tickets.num_queued(session) == 0  # nothing is evaluated before it is verified
        page = admin.get(answer.headers["location"])
        assert page.status_code == 200
        assert 'data-state="verifying"' in page.text
        assert not list(get_settings().uploads_dir.iterdir())

    def test_a_zip_does_too_and_a_script_is_told_where_to_look(
        self, admin: Visitor, tiny: Files, tmp_path: Path
    ) -> None:
        packed = write_zip(tmp_path / "x.zip", write_folder(tmp_path / "my-model"))
        answer = upload(admin, {"x.zip": packed.read_bytes()}, script=True)
        assert answer.status_code == 200
        assert admin.get(answer.json()["location"]).status_code == 200

    def test_the_browsers_folder_picker_sends_paths(self, admin: Visitor, tiny: Files) -> None:
        answer = upload(admin, {f"my-model/{name}": content for name, content in tiny.items()})
        assert answer.status_code == 303

    def test_open_pages_hear_of_it(self, admin: Visitor, tiny: Files, redis_url: str) -> None:
        upload(admin, tiny)
        [(_, fields)] = events.client().xrange(events.BOARD_KEY)
        assert json.loads(fields["data"])["state"] == "verifying"

    def test_a_step_that_is_taken_says_so(self, admin: Visitor, tiny: Files) -> None:
        upload(admin, tiny)
        again = upload(admin, {**tiny, "README.md": b"other"})
        assert again.status_code == 409
        assert "has a checkpoint at step 5 already" in again.text
        assert upload(admin, tiny, kind="chat").status_code == 303
        assert upload(admin, tiny, step="6").status_code == 303

    def test_a_training_runs_name_is_refused(self, admin: Visitor, tiny: Files) -> None:
        with db.transaction() as session:
            make_run(session, "given")
        answer = upload(admin, tiny)
        assert answer.status_code == 409
        assert "belongs to a training run" in answer.text
        assert nothing_is_left()


def without(name: str) -> Callable[[Files], Files]:
    """The files but one."""
    return lambda files: {key: content for key, content in files.items() if key != name}


def changed(name: str, change: Callable[[bytes], bytes]) -> Callable[[Files], Files]:
    """The files with one changed, or made up."""
    return lambda files: {**files, name: change(files.get(name, b""))}


def config(**fields: Any) -> Callable[[bytes], bytes]:
    """A changed config.json."""
    return lambda content: json.dumps({**json.loads(content), **fields}).encode()


def lying_header(content: bytes) -> bytes:
    """Weights whose header says that the tensors are larger than they are."""
    length = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + length])
    header["model.norm.weight"]["shape"] = [999_999]
    raw = json.dumps(header).encode()
    return struct.pack("<Q", len(raw)) + raw + content[8 + length :]


BAD_FILES = {
    "no config": (without("config.json"), "There is no config.json"),
    "no weights": (without("model.safetensors"), "no .safetensors file"),
    "no tokenizer": (without("tokenizer.json"), "no tokenizer"),
    "pickle": (changed("pytorch_model.bin", lambda _: b"x"), "can run code"),
    "python": (changed("modeling.py", lambda _: b"x"), "can run code"),
    "leaves its folder": (changed("../../evil.json", lambda _: b"{}"), "leaves its folder"),
    "absolute": (changed("/tmp/evil.json", lambda _: b"{}"), "leaves its folder"),
    "truncated weights": (changed("model.safetensors", lambda content: content[:-100]), "truncated"),
    "weights that are none": (changed("model.safetensors", lambda _: b"PK\x03\x04" * 100), "not a safetensors file"),
    "lying header": (changed("model.safetensors", lying_header), "lies"),
    "other architecture": (changed("config.json", config(architectures=["GPT2LMHeadModel"])), "only LlamaForCausalLM"),
    "own code": (changed("config.json", config(auto_map={"AutoModel": "x.Y"})), "auto_map"),
    "broken config": (changed("config.json", lambda _: b"{"), "not valid JSON"),
    "broken zip": (lambda _: {"x.zip": b"PK nonsense"}, "damaged"),
    "nothing": (lambda _: {}, "Choose the files"),
}


class TestRefusal:
    @pytest.mark.parametrize("case", BAD_FILES)
    def test_bad_files_get_a_sentence_and_leave_nothing(self, admin: Visitor, tiny: Files, case: str) -> None:
        spoil, said = BAD_FILES[case]
        files = spoil(tiny) or {"": b""}
        answer = upload(admin, files)
        assert answer.status_code == 422
        assert said in answer.text
        assert 'value="given"' in answer.text
        assert nothing_is_left()

    @pytest.mark.parametrize(
        ("fields", "said"),
        [
            ({"run": ""}, "Choose a run"),
            ({"run": "../up"}, "cannot be a run"),
            ({"run": "Großes"}, "cannot be a run"),
            ({"step": ""}, "Step must be a whole number"),
            ({"step": "-1"}, "Step must be a whole number"),
            ({"step": "9" * 30}, "Step must be a whole number"),
            ({"tokens_seen": "many"}, "Tokens seen must be a whole number"),
            ({"kind": "other"}, "no kind"),
        ],
    )
    def test_bad_fields_are_named(self, admin: Visitor, tiny: Files, fields: dict[str, str], said: str) -> None:
        answer = upload(admin, tiny, script=True, **fields)
        assert answer.status_code == 422
        assert said in answer.json()["error"]
        assert nothing_is_left()

    def test_too_large(self, admin: Visitor, tiny: Files, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("GROW_MAX_UPLOAD_BYTES", "5000")
        get_settings.cache_clear()
        assert upload(admin, tiny).status_code == 413
        assert nothing_is_left()

    def test_without_a_token(self, admin: Visitor, tiny: Files) -> None:
        assert upload(admin, tiny, csrf_token="made up").status_code == 403
        assert nothing_is_left()

    def test_from_another_site(self, admin: Visitor) -> None:
        answer = admin.client.post("/admin/upload", headers={"origin": "http://evil.example"})
        assert answer.status_code == 403

    def test_from_somebody_else(self, admin: Visitor, tiny: Files) -> None:
        assert upload(member("mei"), tiny).status_code == 403
        assert nothing_is_left()

    def test_something_that_is_no_form(self, admin: Visitor) -> None:
        assert admin.client.post("/admin/upload", content=b"{}").status_code == 422

    def test_a_failed_registration_leaves_no_folder(
        self, admin: Visitor, tiny: Files, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*_: object) -> None:
            raise RuntimeError("the database went away")

        monkeypatch.setattr(evaluations, "plan", fail)
        with pytest.raises(RuntimeError):
            upload(admin, tiny)
        assert nothing_is_left()


class TestOverview:
    def test_it_shows_the_queue_and_why_checkpoints_were_rejected(self, admin: Visitor) -> None:
        with db.transaction() as session:
            run = make_run(session)
            make_checkpoint(session, run, 1)
            checkpoints.mark_rejected(session, make_checkpoint(session, run, 2, ready=False), "It holds NaN.")
        page = admin.get("/admin").text
        assert "It holds NaN." in page
        assert "demo@1" in page
        assert "keeper" in page
        assert admin.get("/admin/overview").text.lstrip().startswith("<div")

    def test_an_unknown_upload_is_not_found(self, admin: Visitor) -> None:
        assert admin.get("/admin/uploads/99").status_code == 404


class TestNews:
    def test_it_is_published_pinned_and_taken_down(self, admin: Visitor) -> None:
        with db.transaction() as session:
            make_run(session)
        fields = {"title": "It speaks", "body": "**At last**", "run": "demo", "step": "1,500", "kind": "checkpoint"}
        assert admin.post("/admin/news", fields).status_code == 303
        with db.read_session() as session:
            post = session.scalars(select(Post)).one()
            assert (post.title, post.step, post.kind) == ("It speaks", 1500, "checkpoint")
        assert "It speaks" in admin.get("/admin/news").text
        assert admin.post(f"/admin/news/{post.id}/delete", {}).status_code == 303
        assert "It speaks" not in admin.get("/admin/news").text
        assert admin.post(f"/admin/news/{post.id}/delete", {}).status_code == 404

    @pytest.mark.parametrize(
        ("fields", "said"),
        [
            ({"title": " "}, "A title has 1 to 160"),
            ({"title": "x", "run": "nothing"}, "There is no run"),
            ({"title": "x", "run": "demo", "step": "soon"}, "whole number"),
            ({"title": "x", "kind": "gossip"}, "no kind of post"),
            ({"title": "x", "step": "5"}, "Choose the run to pin it to"),
        ],
    )
    def test_a_refused_one_keeps_its_text(self, admin: Visitor, fields: dict[str, str], said: str) -> None:
        with db.transaction() as session:
            make_run(session)
        answer = admin.post("/admin/news", {"body": "keep me", **fields})
        assert answer.status_code == 422
        assert said in answer.text
        assert "keep me" in answer.text

    def test_an_incident_can_be_pinned_by_tokens_from_the_training_page(self, admin: Visitor) -> None:
        with db.transaction() as session:
            runs.log_metrics(session, make_run(session), 90, 90 * 4096, {"train/loss": 5.0})
        link = "/admin/news?kind=incident&amp;run=demo&amp;step=90"
        assert link in admin.get("/runs/demo/training").text
        form = admin.get(link.replace("&amp;", "&")).text
        assert '<option value="incident" selected>' in form
        assert '<option value="demo" selected>' in form
        assert 'value="90"' in form
        fields = {"title": "It spiked", "run": "demo", "step": "410,000", "unit": "tokens", "kind": "incident"}
        assert admin.post("/admin/news", fields).status_code == 303
        with db.read_session() as session:
            assert session.scalars(select(Post)).one().step == 100
        assert "It spiked" in admin.get("/runs/demo/training").text

    def test_the_preview_is_harmless(self, admin: Visitor) -> None:
        fields = {"title": "<b>x</b>", "body": "**bold** <script>alert(1)</script> [a](javascript:alert(1))"}
        page = admin.post("/admin/news/preview", fields, htmx=True).text
        assert "<strong>bold</strong>" in page
        assert "<script>" not in page
        assert 'href="javascript' not in page

    def test_only_administrators_write(self, admin: Visitor) -> None:
        mei = member("mei")
        assert mei.post("/admin/news", {"title": "x"}).status_code == 403
        assert mei.post("/admin/news/preview", {"title": "x"}).status_code == 403
        assert mei.post("/admin/news/1/delete", {}).status_code == 403
