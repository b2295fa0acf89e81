"""Runs as repositories: whose they are, and what the names of their revisions stand for."""

import pytest
from sqlalchemy.orm import Session

from registry import hub, hubhistory
from registry.errors import Invalid, NotFound, Refused
from registry.models import HubCommit, HubRef
from registry.models.base import VERIFYING
from tests.factories import make_checkpoint, make_run, make_user

SHA = "a" * 40


class TestRepositories:
    def test_a_run_is_found_by_its_name_and_under_its_namespace(self, session: Session) -> None:
        anna = make_user(session, "anna", role="publisher")
        run, is_new = hub.make_repo(session, "Tiny", "", anna)
        assert (run.name, is_new, hub.repo_id(session, run)) == ("tiny", True, "anna/tiny")
        for name in ("tiny", "anna/tiny", "Anna/Tiny"):
            assert hub.find_run(session, name).id == run.id
        with pytest.raises(NotFound, match="the run is called 'tiny'"):
            hub.find_run(session, "ben/tiny")
        assert hub.make_repo(session, "tiny", "anna", anna) == (run, False)

    def test_a_name_that_no_address_can_hold_becomes_a_number(self, session: Session) -> None:
        user = make_user(session, "安娜", role="publisher")
        assert hub.namespace_of(user) == f"user-{user.id}"

    def test_a_publisher_pushes_into_their_own_runs_only(self, session: Session) -> None:
        anna, ben = (make_user(session, name, role="publisher") for name in ("anna", "ben"))
        run, _ = hub.make_repo(session, "tiny", "", anna)
        trained = make_run(session, "trained")
        make_checkpoint(session, trained, 1)
        assert hub.owns(session, run, anna)
        assert not hub.owns(session, run, ben)
        assert not hub.owns(session, run, None)
        with pytest.raises(Refused, match="belongs to somebody else"):
            hub.make_repo(session, "tiny", "", ben)
        with pytest.raises(Refused, match="belongs to somebody else"):
            hub.make_repo(session, "trained", "", ben)
        with pytest.raises(Refused, match="is the repository anna/tiny"):
            hub.make_repo(session, "tiny", "ben", anna)
        keeper = make_user(session, "keeper", role="admin")
        assert hub.make_repo(session, "trained", "", keeper) == (trained, False)
        hub.check_owner(session, run, keeper)

    def test_a_member_pushes_nowhere(self, session: Session) -> None:
        with pytest.raises(Refused, match="Only administrators and publishers"):
            hub.make_repo(session, "tiny", "", make_user(session))

    @pytest.mark.parametrize(("name", "namespace"), [("../x", ""), ("a b", ""), ("x" * 70, ""), ("x", "a b")])
    def test_names_that_cannot_be(self, session: Session, name: str, namespace: str) -> None:
        with pytest.raises(Invalid):
            hub.make_repo(session, name, namespace, make_user(session, role="admin"))


class TestRevisions:
    def test_a_checkpoint_is_found_by_its_step_its_commit_and_as_main(self, session: Session) -> None:
        run = make_run(session)
        first, second = make_checkpoint(session, run, 1), make_checkpoint(session, run, 2)
        chat = make_checkpoint(session, run, 2, kind="chat")
        for name, checkpoint in (
            ("step-1", first),
            ("step-2", second),
            ("step-2-chat", chat),
            ("main", second),
            ("latest", second),
            (hub.derived_sha(first), first),
        ):
            assert hub.resolve(session, run, name).checkpoint == checkpoint, name
        found = hub.resolve(session, run, "step-1")
        assert found.sha == first.digest[:40]
        assert found.path("model.safetensors").parts[-2:] == ("step-1-pretrained", "model.safetensors")
        with pytest.raises(NotFound, match="no file 'x'"):
            found.path("x")

    @pytest.mark.parametrize("name", ["step-3", "nothing", "b" * 40, "step-1-4bit", "../x", ""])
    def test_what_is_not_there(self, session: Session, name: str) -> None:
        run = make_run(session)
        make_checkpoint(session, run, 1)
        with pytest.raises(NotFound):
            hub.resolve(session, run, name)

    def test_what_is_not_verified_is_shown_to_its_owner_alone(self, session: Session) -> None:
        run = make_run(session)
        checkpoint = make_checkpoint(session, run, 1, ready=False)
        tree = {"model.safetensors": {"size": 1, "sha256": "c" * 64, "oid": ""}}
        session.add(HubCommit(run_id=run.id, sha=SHA, parent="b" * 40, tree=tree, checkpoint=checkpoint))
        session.add(HubCommit(run_id=run.id, sha="b" * 40, tree={}))
        session.add(HubRef(run_id=run.id, kind="branch", name="main", sha=SHA))
        session.add(HubRef(run_id=run.id, kind="tag", name="v1", sha=SHA))
        session.add(HubRef(run_id=run.id, kind="tag", name="v0", sha="b" * 40))
        session.flush()
        assert checkpoint.state == VERIFYING
        assert hubhistory.names(session, run).tags == {"v0": "b" * 40}
        assert hub.resolve(session, run, "main", own=True).sha == SHA
        assert hub.resolve(session, run, "main").sha == "b" * 40
        for name in (SHA, "step-1", "v1"):
            with pytest.raises(NotFound):
                hub.resolve(session, run, name)

    def test_main_is_the_newest_checkpoint_however_it_came(self, session: Session) -> None:
        run = make_run(session)
        pushed, later = make_checkpoint(session, run, 1), make_checkpoint(session, run, 2, ready=False)
        session.add(HubCommit(run_id=run.id, sha=SHA, tree={}, checkpoint=pushed))
        session.add(HubRef(run_id=run.id, kind="branch", name="main", sha=SHA))
        session.flush()
        assert hub.resolve(session, run).sha == SHA
        later.state = "ready"
        session.flush()
        assert hub.resolve(session, run).sha == hub.derived_sha(later)
        assert hub.resolve(session, run, own=True).sha == hub.derived_sha(later)
