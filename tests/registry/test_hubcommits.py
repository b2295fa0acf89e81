"""Pushes: what is committed, what becomes a checkpoint at which step, and what is refused without a trace."""

import datetime as dt
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import select

from registry import audit, blobs, checkpoints, db, hub, hubcommits
from registry.errors import Conflict, Invalid, NotFound
from registry.hub import File
from registry.hubcommits import EntryMissing, Push, Stale
from registry.models import Checkpoint, HubCommit, Run, User
from registry.models.base import utcnow
from registry.models.checkpoints import HUB
from registry.settings import get_settings
from tests.registry.hubs import keep, make_people, model, open_repo, push


@pytest.fixture
def anna(database: Path) -> User:
    return make_people()[0]


@pytest.fixture
def run(anna: User) -> Run:
    return open_repo("tiny", anna)


def labels() -> list[str]:
    with db.read_session() as session:
        return [one.label for one in session.scalars(select(Checkpoint).order_by(Checkpoint.id))]


def head(run: Run, name: str = "main") -> str:
    with db.read_session() as session:
        return hub.resolve(session, run, name, own=True).sha


class TestSteps:
    def test_a_message_names_the_step_and_the_state_the_tokens(self, run: Run, anna: User) -> None:
        state = json.dumps({"global_step": 3, "num_input_tokens_seen": 12_288}).encode()
        commit = push(run, anna, model(trainer_state__json=state), "Training in progress, step 500")
        assert commit.checkpoint is not None
        found = commit.checkpoint
        assert (found.label, found.tokens_seen, found.origin, found.user_id) == ("tiny@500", 12_288, HUB, anna.id)
        assert (checkpoints.path(found) / "model.safetensors").stat().st_nlink > 1  # the blob's bytes, not a copy

    def test_the_trainers_state_names_it_where_nothing_else_does(self, run: Run, anna: User) -> None:
        push(run, anna, model(trainer_state__json=b'{"global_step": 42}'))
        assert labels() == ["tiny@42"]

    @pytest.mark.parametrize(
        ("branch", "label", "tokens"),
        [
            ("step-8000", "tiny@8000", None),
            ("step1000-tokens4B", "tiny@1000", 4_000_000_000),
            ("step-7-chat", "tiny@7-chat", None),
        ],
    )
    def test_the_branch_comes_before_all_else(
        self, run: Run, anna: User, branch: str, label: str, tokens: int | None
    ) -> None:
        with db.transaction() as session:
            hubcommits.branch(session, run, branch, "", anna)
        commit = push(run, anna, model(trainer_state__json=b'{"global_step": 42}'), "step 3", branch=branch)
        assert labels() == [label]
        assert commit.checkpoint is not None
        assert commit.checkpoint.tokens_seen == tokens

    def test_a_tag_names_it_afterwards(self, run: Run, anna: User) -> None:
        commit = push(run, anna, model())
        assert labels() == []  # it waits
        with db.transaction() as session:
            hubcommits.tag(session, run, "main", "step-300-tokens5M", "", anna)
        hubcommits.admit(commit.id)
        assert labels() == ["tiny@300"]
        with db.read_session() as session:
            assert hub.resolve(session, run, "step-300-tokens5M", own=True).sha == commit.sha

    def test_without_any_name_it_gets_the_next_number_after_a_while(self, run: Run, anna: User) -> None:
        push(run, anna, model(), "step 10")
        commit = push(run, anna, model(1))
        with db.transaction() as session:
            assert hubcommits.due(session) == []
            session.get_one(HubCommit, commit.id).created_at = utcnow() - dt.timedelta(minutes=2)
        with db.read_session() as session:
            assert hubcommits.due(session) == [commit.id]
        hubcommits.admit_due(commit.id)
        hubcommits.admit_due(commit.id)  # a message that comes twice
        assert labels() == ["tiny@10", "tiny@11"]
        with db.read_session() as session:
            assert hubcommits.due(session) == []

    def test_a_tag_with_another_step_than_the_checkpoints_is_refused(self, run: Run, anna: User) -> None:
        push(run, anna, model(), "step 10")
        with db.transaction() as session, pytest.raises(Conflict, match="is the checkpoint tiny@10"):
            hubcommits.tag(session, run, "main", "step-11", "", anna)
        with db.transaction() as session:
            hubcommits.tag(session, run, "main", "step-10", "", anna)
            hubcommits.tag(session, run, "main", "v1.0", "", anna)


class TestCommits:
    def test_what_is_no_whole_model_is_a_commit_and_no_checkpoint(self, run: Run, anna: User) -> None:
        files = model()
        for name in files:
            push(run, anna, {name: files[name]}, f"Add {name}, step 5")
        assert labels() == ["tiny@5"]  # with the last of the three

    def test_a_card_changes_nothing_about_the_checkpoint(self, run: Run, anna: User) -> None:
        first = push(run, anna, model(), "step 5")
        second = push(run, anna, {"README.md": b"# Tiny"}, "End of training")
        assert second.checkpoint_id == first.checkpoint_id
        assert labels() == ["tiny@5"]
        with db.read_session() as session:
            found = hub.resolve(session, run, second.sha, own=True)
            assert found.path("README.md").read_bytes() == b"# Tiny"
            assert set(found.files) == {*model(), "README.md"}

    def test_the_same_push_twice_is_one(self, run: Run, anna: User) -> None:
        first = push(run, anna, model(), "step 5")
        assert push(run, anna, model(), "step 5").sha == first.sha
        with db.read_session() as session:
            assert len(session.scalars(select(HubCommit)).all()) == 2  # with the empty one at the beginning

    def test_a_push_in_several_commits_becomes_one_checkpoint(self, run: Run, anna: User) -> None:
        index = json.dumps({"weight_map": {"w": "a.safetensors", "v": "b.safetensors"}}).encode()

        def shards(seed: int) -> dict[str, bytes]:
            files, other = model(seed, "w"), model(seed, "v")
            weights = {"a.safetensors": files.pop("model.safetensors"), "b.safetensors": other["model.safetensors"]}
            return files | weights | {"model.safetensors.index.json": index}

        push(run, anna, shards(1), "step 5")
        mixed = push(run, anna, {"a.safetensors": shards(2)["a.safetensors"]}, "step 6")
        assert mixed.checkpoint is None  # half of it is step 5
        push(run, anna, {"b.safetensors": shards(3)["b.safetensors"]}, "step 6 (part 2)")
        assert labels() == ["tiny@5"]
        with db.read_session() as session:
            waiting = session.scalars(select(HubCommit).where(HubCommit.is_waiting)).all()
            assert [commit.title for commit in waiting] == ["step 6 (part 2)"]

    def test_files_and_folders_are_deleted(self, run: Run, anna: User) -> None:
        push(run, anna, {"a.json": b"{}", "folder/b.json": b"{}", "folder/c.json": b"{}", "d.json": b"{}"})
        commit = hubcommits.push(run, "main", Push("Delete", deleted=["folder/", "a.json"]), anna)
        assert set(commit.tree) == {"d.json"}
        with pytest.raises(EntryMissing, match="doesn't exist"):
            hubcommits.push(run, "main", Push("Delete", deleted=["nothing.json"]), anna)

    def test_a_run_that_was_trained_here_can_be_pushed_into(self, run: Run, anna: User) -> None:
        with db.transaction() as session:
            hubcommits.branch(session, run, "step-1", "", anna)
        push(run, anna, model(), branch="step-1")
        with db.transaction() as session:
            session.scalars(select(Checkpoint)).one().state = "ready"
        before = head(run)
        commit = push(run, anna, {"README.md": b"# Tiny"}, parent=before)
        assert commit.parent == before
        assert set(commit.tree) == {*model(), "README.md"}
        assert labels() == ["tiny@1"]

    def test_two_at_once_build_upon_each_other_unless_they_say_otherwise(self, run: Run, anna: User) -> None:
        start = head(run)

        def add(number: int, parent: str = "") -> str:
            try:
                return push(run, anna, {f"{number}.json": b"{}"}, parent=parent).sha
            except Stale:
                return ""

        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(add, range(8)))
        with db.read_session() as session:
            assert len(hub.resolve(session, run, own=True).files) == 8
        start = head(run)
        with ThreadPoolExecutor(4) as pool:
            outcomes = list(pool.map(lambda number: add(number, start), range(10, 14)))
        assert sum(bool(sha) for sha in outcomes) == 1

    def test_on_postgresql_too(
        self, own_postgres: str, database: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setenv("GROW_DATABASE_URL", own_postgres)
        get_settings.cache_clear()
        anna, _ = make_people()
        run = open_repo("tiny", anna)
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda number: push(run, anna, {f"{number}.json": b"{}"}), range(4)))
        push(run, anna, model(), "step 5")
        with db.read_session() as session:
            assert len(hub.resolve(session, run, own=True).files) == 7
        assert labels() == ["tiny@5"]


class TestRefusals:
    def refused(self, run: Run, anna: User, act: Callable[[], object], said: str) -> None:
        """It is refused, and everything is as it was."""
        before, known = head(run), labels()
        with pytest.raises((Invalid, Conflict), match=said):
            act()
        assert (head(run), labels()) == (before, known)
        assert list(get_settings().uploads_dir.glob("*")) == []

    @pytest.mark.parametrize(
        ("files", "said"),
        [
            ({"config.json": b'{"architectures": ["GPT2LMHeadModel"]}'}, "GPT2LMHeadModel"),
            ({"config.json": b"{"}, "not valid JSON"),
            ({"model.safetensors": b"\x80\x04pickle" * 10}, "truncated|header"),
            ({"config.json": b'{"architectures": ["LlamaForCausalLM"], "auto_map": {"AutoModel": "x"}}'}, "auto_map"),
        ],
    )
    def test_a_model_that_is_not_safe_to_load(self, run: Run, anna: User, files: dict[str, bytes], said: str) -> None:
        self.refused(run, anna, lambda: push(run, anna, model() | files, "step 5"), said)

    def test_other_files_at_a_taken_step(self, run: Run, anna: User) -> None:
        push(run, anna, model(), "step 5")
        self.refused(run, anna, lambda: push(run, anna, model(1), "step 5"), "exists already")
        with db.read_session() as session:
            assert [entry.action for entry in audit.list_entries(session, action="hub-refused").entries]

    def test_content_that_never_came_or_has_another_size(self, run: Run, anna: User) -> None:
        absent = Push("x", files={"a.json": File(2, "d" * 64)})
        self.refused(run, anna, lambda: hubcommits.push(run, "main", absent, anna), "was not uploaded")
        lying = keep({"a.json": b"{}"})["a.json"]._replace(size=3)
        wanted = Push("x", files={"a.json": lying})
        self.refused(run, anna, lambda: hubcommits.push(run, "main", wanted, anna), "has 2 bytes")

    @pytest.mark.parametrize("names", [("a.json", "A.json"), ("a.json", "a.json/b.json")])
    def test_names_that_no_folder_can_hold_together(self, run: Run, anna: User, names: tuple[str, str]) -> None:
        self.refused(run, anna, lambda: push(run, anna, dict.fromkeys(names, b"{}")), "differ by|is a file")

    def test_a_branch_that_has_moved_on(self, run: Run, anna: User) -> None:
        start = head(run)
        push(run, anna, {"a.json": b"{}"})
        self.refused(run, anna, lambda: push(run, anna, {"b.json": b"{}"}, parent=start), "has moved on")

    def test_a_branch_that_is_not_there(self, run: Run, anna: User) -> None:
        with pytest.raises(NotFound, match="no branch"):
            push(run, anna, model(), branch="step-1")

    @pytest.mark.parametrize("name", ["", "a b", "../x", "a..b", "x.lock", "-x", "a" * 40, "x" * 200, "a//b", "é"])
    def test_names_that_git_allows_in_no_branch(self, run: Run, anna: User, name: str) -> None:
        with db.transaction() as session, pytest.raises(Invalid):
            hubcommits.branch(session, run, name, "", anna)

    def test_a_commit_that_waits_and_cannot_be_taken_in_is_given_up_with_its_reason(self, run: Run, anna: User) -> None:
        commit = push(run, anna, model(1))
        for sha256 in {entry["sha256"] for entry in commit.tree.values()}:
            blobs.discard(sha256)
        hubcommits.admit_due(commit.id)
        with db.read_session() as session:
            assert not session.get_one(HubCommit, commit.id).is_waiting
            refusal = audit.list_entries(session, action="hub-refused").entries[0]
            assert "not stored here" in refusal.detail["reason"]

    def test_main_stays_and_a_deleted_tag_leaves_its_checkpoint(self, run: Run, anna: User) -> None:
        push(run, anna, model(), "step 5")
        with db.transaction() as session:
            hubcommits.tag(session, run, "main", "v1", "", anna)
            with pytest.raises(Conflict, match="is taken"):
                hubcommits.tag(session, run, "main", "v1", "", anna)
            hubcommits.delete_ref(session, run, hub.TAG, "v1", anna)
            with pytest.raises(NotFound):
                hubcommits.delete_ref(session, run, hub.TAG, "v1", anna)
            with pytest.raises(Invalid, match="cannot be deleted"):
                hubcommits.delete_ref(session, run, hub.BRANCH, "main", anna)
        assert labels() == ["tiny@5"]
