"""Runs as repositories of the Hugging Face Hub protocol: whose they are, and what their revisions hold."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from sqlalchemy import select
from sqlalchemy.orm import Session

from registry import aliases, blobs, checkpoints, runs
from registry.errors import Invalid, NotFound, Refused
from registry.models import Checkpoint, HubCommit, HubRef, HubRepo, Run, User
from registry.models.base import READY
from registry.shelf import Item

MAIN = "main"
BRANCH, TAG = "branch", "tag"
PUSHERS = ("admin", "publisher")
NAMESPACE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
SHA = re.compile(r"[0-9a-f]{40}")
STEP = re.compile(r"step-(?P<step>\d{1,18})(-(?P<kind>chat|avg\d{1,2}))?(-(?P<bits>8|4)bit)?")
MAX_WALK = 200
"""So many commits back a branch is looked through for one that may be shown."""
WEIGHTS = ".safetensors"


class File(NamedTuple):
    """One file of a revision."""

    size: int
    sha256: str
    oid: str = ""
    """sha1 of the git blob; empty for a file that the protocol calls large, whose ETag is the sha256."""


@dataclass(frozen=True)
class Revision:
    """What a name of a run's revision stands for: immutable content under `sha`."""

    run: Run
    sha: str
    files: Mapping[str, File]
    checkpoint: Checkpoint | None
    """None: a commit that is no whole model, or one that is not registered yet."""
    commit: HubCommit | None = None
    """None: a checkpoint that came in another way; its `sha` is derived from its digest."""

    def place(self, name: str) -> Path:
        """Where a file of it lies, or would lie; nothing is fetched."""
        if self.checkpoint is not None and name in self.checkpoint.manifest.get("files", {}):
            return checkpoints.path(self.checkpoint) / name
        return blobs.path(self.files[name].sha256)

    def path(self, name: str) -> Path:
        """Where a file lies.

        Raises:
            NotFound: the revision has no such file.
        """
        if name not in self.files:
            raise NotFound("There is no file '%(name)s' in this revision.", name=name[:120])
        if self.checkpoint is not None and name in self.checkpoint.manifest.get("files", {}):
            return checkpoints.ensure_file(self.checkpoint, name)
        return blobs.path(self.files[name].sha256)


def derived_sha(checkpoint: Checkpoint | Item) -> str:
    """The commit of a checkpoint that did not come by a commit: forty hexadecimal digits of its digest."""
    return checkpoint.digest[:40]


def find_run(session: Session, repo_id: str) -> Run:
    """The run that a repository's id names, as `run` or `namespace/run`; capital letters count as small ones.

    Raises:
        NotFound: there is none, or it stands under another namespace.
    """
    namespace, _, name = repo_id.rpartition("/")
    run = runs.get_run(session, name.lower())
    repo = session.get(HubRepo, run.id)
    if namespace and (repo is None or repo.namespace.lower() != namespace.lower()):
        raise NotFound("There is no repository '%(name)s'; the run is called '%(run)s'.", name=repo_id, run=run.name)
    return run


def repo_id(session: Session, run: Run) -> str:
    """The full id of a run: with its namespace where it has one."""
    repo = session.get(HubRepo, run.id)
    return f"{repo.namespace}/{run.name}" if repo is not None and repo.namespace else run.name


def may_push(user: User) -> bool:
    """Whether somebody may bring checkpoints in."""
    return user.role in PUSHERS


def owns(session: Session, run: Run, user: User | None) -> bool:
    """Whether somebody may push into a run: administrators into all, publishers into their own."""
    if user is None or not may_push(user):
        return False
    if user.is_admin:
        return True
    repo = session.get(HubRepo, run.id)
    return repo is not None and repo.user_id == user.id


def check_owner(session: Session, run: Run, user: User) -> None:
    """Whether somebody may push into a run.

    Raises:
        Refused: it is not theirs.
    """
    if not may_push(user):
        raise Refused("Only administrators and publishers may bring checkpoints in.")
    if not owns(session, run, user):
        raise Refused("The run '%(run)s' belongs to somebody else. Choose another name.", run=run.name)


def namespace_of(user: User) -> str:
    """What stands before the names of the repositories that somebody makes."""
    return user.name if NAMESPACE.fullmatch(user.name) else f"user-{user.id}"


def resolve(session: Session, run: Run, name: str = MAIN, *, own: bool = False) -> Revision:
    """What a revision's name stands for: a commit, a branch, a tag, `step-8000[-chat][-4bit]`, an alias.

    Whoever owns the repository (`own`) sees what was pushed at once; everybody else sees what was verified.

    Raises:
        NotFound: the run has no such revision, or none that may be shown.
    """
    found = _by_sha(session, run, name, own=own) if SHA.fullmatch(name) else None
    if found is None and name == MAIN:
        found = _main(session, run, own=own)
    if found is None and (ref := get_ref(session, run, name)) is not None:
        found = _walk(session, run, ref, own=own)
    if found is None and (match := STEP.fullmatch(name)) is not None:
        kind, bits = match["kind"] or "pretrained", int(match["bits"] or 16)
        checkpoint = checkpoints.get_checkpoint(session, run, int(match["step"]), kind, bits)
        checkpoints.check_files(checkpoint)
        found = _of_checkpoint(session, checkpoint) if checkpoint.state == READY else None
    if found is None and name != MAIN:
        found = _of_checkpoint(session, aliases.resolve(session, run, name))
    if found is None:
        raise NotFound("The run '%(run)s' has no checkpoint that is ready yet.", run=run.name)
    return found


def get_ref(session: Session, run: Run, name: str, kind: str = "") -> HubRef | None:
    """The branch or tag of that name."""
    query = select(HubRef).where(HubRef.run_id == run.id, HubRef.name == name)
    return session.scalar(query.where(HubRef.kind == kind) if kind else query)


def list_refs(session: Session, run: Run) -> list[HubRef]:
    """The branches and tags that were made, by name."""
    return list(session.scalars(select(HubRef).where(HubRef.run_id == run.id).order_by(HubRef.name)))


def get_commit(session: Session, run: Run, sha: str) -> HubCommit | None:
    """The commit of that name."""
    return session.scalar(select(HubCommit).where(HubCommit.run_id == run.id, HubCommit.sha == sha))


def is_shown(commit: HubCommit) -> bool:
    """Whether everybody may read a commit: no weights are in it, or they were verified."""
    if commit.checkpoint is not None:
        return commit.checkpoint.state == READY
    return not any(name.endswith(WEIGHTS) for name in commit.tree)


def make_repo(session: Session, name: str, namespace: str, user: User) -> tuple[Run, bool]:
    """A repository for pushes into the run of that name, which is made if it is new; True where it is.

    Raises:
        Invalid: the name cannot be a run's.
        Refused: the run is somebody else's, or stands under another namespace.
    """
    name = name.lower()
    if namespace and not NAMESPACE.fullmatch(namespace):
        raise Invalid("'%(name)s' cannot be a namespace.", name=namespace[:80])
    if not may_push(user):
        raise Refused("Only administrators and publishers may bring checkpoints in.")
    is_new = not any(run.name == name for run in runs.list_runs(session))
    run = runs.find_or_create(session, name)
    repo = session.get(HubRepo, run.id)
    if repo is None:
        if not is_new and not user.is_admin and not _is_theirs(session, run, user):
            raise Refused("The run '%(run)s' belongs to somebody else. Choose another name.", run=run.name)
        repo = HubRepo(run_id=run.id, user_id=user.id, namespace=namespace or namespace_of(user))
        session.add(repo)
        session.flush()
        return run, is_new
    check_owner(session, run, user)
    if namespace and namespace.lower() != repo.namespace.lower():
        raise Refused(
            "The run '%(run)s' is the repository %(name)s.", run=run.name, name=f"{repo.namespace}/{run.name}"
        )
    return run, False


def _is_theirs(session: Session, run: Run, user: User) -> bool:
    owners = set(session.scalars(select(Checkpoint.user_id).where(Checkpoint.run_id == run.id).distinct()))
    return owners <= {user.id}


def _main(session: Session, run: Run, *, own: bool) -> Revision | None:
    newest = aliases.latest(session, run)
    ref = get_ref(session, run, MAIN)
    pushed = _walk(session, run, ref, own=own) if ref is not None else None
    if pushed is None or newest is None:
        return pushed or (_of_checkpoint(session, newest) if newest is not None else None)
    if _is_newer(pushed, newest, own=own):
        return pushed
    return _of_checkpoint(session, newest)


def _is_newer(pushed: Revision, newest: Checkpoint, *, own: bool) -> bool:
    """Whether what was pushed to `main` is what one means by it, or a checkpoint that came in another way."""
    if pushed.checkpoint is not None:
        return pushed.checkpoint.step >= newest.step
    return own and any(name.endswith(WEIGHTS) for name in pushed.files)  # not registered yet


def _walk(session: Session, run: Run, ref: HubRef, *, own: bool) -> Revision | None:
    sha = ref.sha
    for _ in range(MAX_WALK):
        found = _by_sha(session, run, sha, own=own)
        if found is not None:
            return found
        commit = get_commit(session, run, sha)
        if commit is None or ref.kind == TAG:
            return None
        sha = commit.parent
    return None


def _by_sha(session: Session, run: Run, sha: str, *, own: bool) -> Revision | None:
    commit = get_commit(session, run, sha)
    if commit is not None:
        return _of_commit(run, commit) if own or is_shown(commit) else None
    query = select(Checkpoint).where(Checkpoint.run_id == run.id, Checkpoint.state == READY)
    checkpoint = session.scalar(query.where(Checkpoint.digest.startswith(sha)).order_by(Checkpoint.id).limit(1))
    return _of_checkpoint(session, checkpoint) if sha and checkpoint is not None else None


def _of_commit(run: Run, commit: HubCommit) -> Revision:
    files = {name: File(**entry) for name, entry in commit.tree.items()}
    return Revision(run, commit.sha, files, commit.checkpoint, commit)


def _of_checkpoint(session: Session, checkpoint: Checkpoint) -> Revision:
    entries = checkpoint.manifest.get("files", {})
    files = {name: File(int(entry["size"]), entry["sha256"]) for name, entry in entries.items()}
    return Revision(checkpoint.run, derived_sha(checkpoint), files, checkpoint)
