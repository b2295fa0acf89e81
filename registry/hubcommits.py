"""Pushes by the Hub protocol: commits, branches, tags, and which commits become checkpoints.

A commit whose files are a whole model becomes a checkpoint. Its step is named by, in this order, a tag, the branch
(`step-8000`, `step1000-tokens4B`), the commit's message ("Training in progress, step 500") or `trainer_state.json`.
Where nothing names one, a tag may do so for `TAG_SECONDS`; then the commit gets the run's next number.
"""

import datetime as dt
import hashlib
import json
import os
import re
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import structlog
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from registry import audit, blobs, db, hub, hubfiles, intake, jsonfiles, quota, revisions, store
from registry.errors import Conflict, Invalid, NotFound, RegistryError
from registry.hub import File
from registry.models import Checkpoint, HubCommit, HubRef, Run, User
from registry.models.base import utcnow
from registry.models.checkpoints import HUB
from registry.settings import get_settings

TAG_SECONDS = 60.0
"""So long a tag may name the step of a commit that names none itself."""
FORGOTTEN_SECONDS = 900.0
"""A commit with a step that has been waiting for so long was left by a server that went down."""
MAX_FILES = 500
MAX_MESSAGE_CHARS = 10_000
MAX_STATE_BYTES = 64 * 2**20
REF_NAME = re.compile(r"(?!.*(\.\.|//|@\{|\.lock$|[./]$))[A-Za-z0-9][A-Za-z0-9._/-]{0,119}")
CONFIG, INDEX, STATE = "config.json", "model.safetensors.index.json", "trainer_state.json"
GIT_FILES = (".gitattributes", ".gitignore")
TEMPLATES = "additional_chat_templates/"
_PART = re.compile(r"\(part \d+\)$")

log = structlog.get_logger(__name__)


class EntryMissing(NotFound):
    """A file that is to be deleted is not there."""


class Stale(Conflict):
    """The branch has moved on from the commit that the push builds upon."""


@dataclass
class Push:
    """What a client asks to commit."""

    title: str
    message: str = ""
    parent: str = ""
    """The commit that it believes to be the newest; empty: whichever is."""
    files: dict[str, File] = field(default_factory=dict)
    deleted: list[str] = field(default_factory=list)
    """Paths; those of folders end with a slash."""
    ignored: list[str] = field(default_factory=list)


class _Model(NamedTuple):
    """A commit that is a whole model."""

    step: int | None
    tokens_seen: int | None
    kind: str
    is_partial: bool
    """Some weights are new and some are the last checkpoint's: the rest of a push in several commits is to come."""


def is_kept(name: str) -> bool:
    """Whether a file of that name is kept; others can run code when they are loaded, or are no part of a model.

    Raises:
        Invalid: the path leaves the repository.
    """
    try:
        store.check_file_name(name)
    except Invalid:
        if not name.rpartition("/")[2]:
            raise
        store.check_file_name(f"{name}.json")  # its path, whatever its kind
        return name in GIT_FILES
    return True


def open_repo(session: Session, name: str, namespace: str, user: User) -> tuple[Run, bool]:
    """Make a repository with its branch `main`; True where it is new. See `hub.make_repo`.

    Raises:
        Invalid: the name cannot be a run's.
        Refused: the run is somebody else's, or stands under another namespace.
    """
    run, is_new = hub.make_repo(session, name, namespace, user)
    if hub.get_ref(session, run, hub.MAIN) is None:
        try:
            sha = hub.resolve(session, run).sha
        except NotFound:
            first = HubCommit(run_id=run.id, title="initial commit", tree={}, user_id=user.id)
            first.sha = _sha(run, "", "initial commit", {})
            session.add(first)
            sha = first.sha
        session.add(HubRef(run_id=run.id, kind=hub.BRANCH, name=hub.MAIN, sha=sha))
        audit.note(session, user, "hub-repo", f"run:{run.id}")
        session.flush()
    return run, is_new


def push(run: Run, branch: str, wanted: Push, user: User) -> HubCommit:
    """Commit to a branch, and register the checkpoint where the commit is one; opens its own transactions.

    What cannot be registered is not committed either. A push that changes nothing gives the newest commit: clients
    repeat a push whose answer was lost.

    Raises:
        NotFound: there is no such branch.
        Stale: the branch has moved on.
        EntryMissing: what is to be deleted is not there.
        Invalid: content is missing or of another size, or it is a model that is not safe to load.
        NoRoom: a quota is used up.
        Conflict: the step holds other files.
    """
    with db.transaction() as session:
        ref = _lock(session, run, branch)
        commit, is_new = _commit(session, run, ref, wanted, user)
        if is_new and commit.is_waiting:
            _check_model(session, run, commit, user)
    if is_new and commit.is_waiting and commit.step is not None:
        _admit_or_withdraw(run, branch, commit, user)
    return commit


def tag(session: Session, run: Run, revision: str, name: str, message: str, user: User) -> HubRef:
    """Put a tag on a revision. Whoever called should then `admit` its commit: the tag may have named its step.

    Raises:
        Invalid: it cannot be a tag's name.
        NotFound: there is no such revision.
        Conflict: the name is taken, or the commit is a checkpoint at another step.
    """
    _check_ref_name(name)
    found = hub.resolve(session, run, revision, own=True)
    if hub.get_ref(session, run, name) is not None:
        raise Conflict("The name '%(name)s' is taken.", name=name)
    place = revisions.parse(name)
    if place is not None:
        _name_step(found, place, name)
    ref = HubRef(run_id=run.id, kind=hub.TAG, name=name, sha=found.sha, message=message[:MAX_MESSAGE_CHARS])
    session.add(ref)
    audit.note(session, user, "hub-tag", f"run:{run.id}", {"tag": name, "commit": found.sha})
    session.flush()
    return ref


def untag(session: Session, run: Run, name: str) -> None:
    """Take back a tag whose step could not be given to its commit."""
    ref = hub.get_ref(session, run, name, hub.TAG)
    if ref is None:
        return
    commit = hub.get_commit(session, run, ref.sha)
    if commit is not None and commit.is_waiting:
        commit.step = None
    session.delete(ref)


def branch(session: Session, run: Run, name: str, start: str, user: User) -> HubRef:
    """Begin a branch at a revision.

    Raises:
        Invalid: it cannot be a branch's name.
        NotFound: there is no such revision.
        Conflict: the name is taken.
    """
    _check_ref_name(name)
    if hub.get_ref(session, run, name) is not None:
        raise Conflict("The name '%(name)s' is taken.", name=name)
    found = hub.resolve(session, run, start or hub.MAIN, own=True)
    ref = HubRef(run_id=run.id, kind=hub.BRANCH, name=name, sha=found.sha)
    session.add(ref)
    audit.note(session, user, "hub-branch", f"run:{run.id}", {"branch": name, "commit": found.sha})
    session.flush()
    return ref


def delete_ref(session: Session, run: Run, kind: str, name: str, user: User) -> None:
    """Take a tag or a branch away; checkpoints stay.

    Raises:
        NotFound: there is none of that name.
        Invalid: it is `main`.
    """
    ref = hub.get_ref(session, run, name, kind)
    if ref is None:
        raise NotFound("There is no '%(name)s' to delete.", name=name[:120])
    if name == hub.MAIN:
        raise Invalid("The branch main cannot be deleted.")
    session.delete(ref)
    audit.note(session, user, f"hub-{kind}-deleted", f"run:{run.id}", {"name": name, "commit": ref.sha})
    session.flush()


def admit(commit_id: int) -> Checkpoint | None:
    """Register the checkpoint of a commit that waits for it; None where it does not wait. Opens its own transactions.

    Raises:
        Invalid: it is a model that is not safe to load.
        NoRoom: a quota is used up.
        Conflict: the step holds other files.
    """
    with db.transaction() as session:
        commit = session.get(HubCommit, commit_id)
        if commit is None or not commit.is_waiting:
            return None
        run, user = session.get_one(Run, commit.run_id), session.get(User, commit.user_id or 0)
        if commit.step is None:
            newest = select(func.max(Checkpoint.step)).where(
                Checkpoint.run_id == run.id, Checkpoint.kind == commit.kind
            )
            commit.step = (session.scalar(newest) or 0) + 1
    content = _lay_out(commit.tree)
    try:
        hashes = {name: commit.tree[name]["sha256"] for name in store.list_files(content)}
        checkpoint = intake.admit(
            content,
            run=run.name,
            step=commit.step,
            tokens_seen=commit.tokens_seen,
            kind=commit.kind,
            origin=HUB,
            user=user,
            hashes=hashes,
        )
    finally:
        shutil.rmtree(content, ignore_errors=True)
    with db.transaction() as session:
        row = session.get(HubCommit, commit_id)
        if row is not None:
            row.is_waiting, row.checkpoint_id = False, checkpoint.id
    return checkpoint


def due(session: Session) -> list[int]:
    """The commits that have waited long enough for somebody to name their step, or whose server went down."""
    now, found = utcnow(), []
    for commit in session.scalars(select(HubCommit).where(HubCommit.is_waiting).order_by(HubCommit.id)):
        patience = TAG_SECONDS if commit.step is None else FORGOTTEN_SECONDS
        if now - commit.created_at >= dt.timedelta(seconds=patience):
            found.append(commit.id)
    return found


def admit_due(commit_id: int) -> None:
    """Register a commit that is `due`; a refusal is written down, for nobody waits for it."""
    try:
        admit(commit_id)
    except RegistryError as error:
        log.warning("A commit cannot become a checkpoint.", commit=commit_id, reason=str(error))
        _give_up(commit_id, str(error))


def _give_up(commit_id: int, reason: str) -> None:
    with db.transaction() as session:
        row = session.get_one(HubCommit, commit_id)
        row.is_waiting = False
        user = session.get(User, row.user_id or 0)
        audit.note(session, user, "hub-refused", f"run:{row.run_id}", {"commit": row.sha, "reason": reason[:300]})


def _lock(session: Session, run: Run, branch: str) -> HubRef:
    """The branch, which nobody else moves until this transaction ends."""
    query = select(HubRef).where(HubRef.run_id == run.id, HubRef.name == branch, HubRef.kind == hub.BRANCH)
    ref = session.scalar(query.with_for_update())
    if ref is None:
        raise NotFound("There is no branch '%(name)s'; make it first.", name=branch[:120])
    return ref


def _commit(session: Session, run: Run, ref: HubRef, wanted: Push, user: User) -> tuple[HubCommit, bool]:
    """The commit on top of a branch, and whether it is new."""
    before = _base(session, run, ref)
    if wanted.parent and wanted.parent not in (ref.sha, before.sha):
        raise Stale("The branch '%(branch)s' has moved on to %(sha)s.", branch=ref.name, sha=before.sha)
    _take_up(before)
    tree = _apply(before.files, wanted)
    if before.commit is not None and tree == before.files:
        return before.commit, False
    model = _model_of(before, tree, ref.name, wanted)
    commit = HubCommit(run_id=run.id, parent=before.sha, title=wanted.title[:200], user_id=user.id, checkpoint=None)
    commit.message, commit.ignored = wanted.message[:MAX_MESSAGE_CHARS], wanted.ignored[:MAX_FILES]
    commit.tree = {name: entry._asdict() for name, entry in tree.items()}
    commit.sha = _sha(run, before.sha, wanted.title, commit.tree)
    if model is not None and before.checkpoint is not None and _weights(tree) == _weights(before.files):
        commit.checkpoint = before.checkpoint  # only what stands around the model has changed
    elif model is not None:
        commit.step = None if model.is_partial else model.step
        commit.tokens_seen, commit.kind, commit.is_waiting = model.tokens_seen, model.kind, True
        if model.is_partial and model.step is not None:
            log.info("A push in several commits is not whole yet.", run=run.name, step=model.step)
    if before.commit is not None and before.commit.is_waiting and _PART.search(wanted.title):
        before.commit.is_waiting = False  # this commit completes it
    session.add(commit)
    session.flush()
    ref.sha = commit.sha
    hubfiles.keep(run, {entry.sha256 for name, entry in tree.items() if not name.endswith(hub.WEIGHTS)})
    detail = {"commit": commit.sha, "branch": ref.name, "files": len(wanted.files), "ignored": wanted.ignored[:20]}
    audit.note(session, user, "hub-commit", f"run:{run.id}", detail)
    return commit, True


def _base(session: Session, run: Run, ref: HubRef) -> hub.Revision:
    """What a push to a branch builds upon: what its owner reads there, which of `main` may have come in another way."""
    try:
        return hub.resolve(session, run, ref.name if ref.name == hub.MAIN else ref.sha, own=True)
    except NotFound:  # the checkpoint that the branch began at was deleted since
        return hub.Revision(run, ref.sha, {}, None)


def _take_up(before: hub.Revision) -> None:
    """See that the files of a checkpoint which a push builds upon are blobs: older ones were not shared."""
    for name, entry in before.files.items() if before.commit is None else ():
        if not blobs.has(entry.sha256):
            link = hubfiles.folder("incoming") / uuid.uuid4().hex
            os.link(before.path(name), link)
            blobs.adopt(link, entry.sha256)
            link.unlink()


def _apply(before: Mapping[str, File], wanted: Push) -> dict[str, File]:
    tree = dict(before)
    for path in wanted.deleted:
        gone = [name for name in tree if name == path or (path.endswith("/") and name.startswith(path))]
        if not gone and path not in wanted.ignored:
            raise EntryMissing("A file with this name doesn't exist: '%(name)s'.", name=path[:120])
        for name in gone:
            del tree[name]
    for name, entry in wanted.files.items():
        if not blobs.has(entry.sha256):
            raise Invalid("The content of '%(name)s' was not uploaded, or is gone; upload it again.", name=name[:120])
        size = blobs.path(entry.sha256).stat().st_size
        if size != entry.size:
            raise Invalid(
                "'%(name)s' has %(size)s bytes; the commit says %(said)s.", name=name[:120], size=size, said=entry.size
            )
        tree[name] = entry
    if len(tree) > MAX_FILES:
        raise Invalid("A repository has at most %(limit)s files here.", limit=MAX_FILES)
    _check_names(tree)
    return dict(sorted(tree.items()))


def _check_names(tree: Mapping[str, File]) -> None:
    """No file may stand where a folder does, nor differ from another by capitals alone."""
    folded = {name.casefold() for name in tree}
    if len(folded) < len(tree):
        raise Invalid("Two files have names that differ by capital letters alone.")
    for name in tree:
        parents = name.split("/")[:-1]
        if any("/".join(parents[: depth + 1]).casefold() in folded for depth in range(len(parents))):
            raise Invalid("'%(name)s' stands in a folder that is a file.", name=name[:120])


def _model_of(before: hub.Revision, tree: Mapping[str, File], branch: str, wanted: Push) -> _Model | None:
    weights = _weights(tree)
    if CONFIG not in tree or not weights or not any(name in tree for name in store.TOKENIZER_FILES):
        return None
    if INDEX in tree and not _shards(tree[INDEX]) <= set(weights):
        return None
    state = _read_json(tree.get(STATE)) if STATE in wanted.files else {}
    place = revisions.parse(branch)
    step = place.step if place else revisions.in_message(wanted.title)
    step = step if step is not None else revisions.whole(state.get("global_step"))
    tokens = place.tokens_seen if place else None
    tokens = tokens if tokens is not None else revisions.whole(state.get("num_input_tokens_seen")) or None
    kind = "chat" if branch.endswith("-chat") else "pretrained"
    old = _weights(before.files)
    same = sum(old.get(name) == sha for name, sha in weights.items())
    return _Model(step, tokens, kind, is_partial=0 < same < len(weights))


def _weights(tree: Mapping[str, File]) -> dict[str, str]:
    """The weight files of the model itself, which lie at the top, with their hashes."""
    return {name: entry.sha256 for name, entry in tree.items() if "/" not in name and name.endswith(hub.WEIGHTS)}


def _shards(index: File) -> set[str]:
    found = _read_json(index).get("weight_map")
    return {str(name) for name in found.values()} if isinstance(found, dict) else set()


def _read_json(entry: File | None) -> dict[str, Any]:
    if entry is None or entry.size > MAX_STATE_BYTES:
        return {}
    try:
        found = jsonfiles.read(blobs.path(entry.sha256), max_bytes=MAX_STATE_BYTES)
    except Invalid:
        return {}  # what it is worth is `store.check_folder`'s matter; here it just says nothing
    return found if isinstance(found, dict) else {}


def _check_model(session: Session, run: Run, commit: HubCommit, user: User) -> None:
    """Refuse a model that cannot become a checkpoint before it is committed; reads no weights."""
    content = _lay_out(commit.tree)
    try:
        store.check_folder(content)
        quota.check(session, user, sum(path.stat().st_size for path in content.rglob("*") if path.is_file()))
    finally:
        shutil.rmtree(content, ignore_errors=True)


def _lay_out(tree: Mapping[str, Any]) -> Path:
    """A folder with what a checkpoint holds of a commit: links to the files at its top and to its chat templates."""
    content = get_settings().uploads_dir / uuid.uuid4().hex
    content.mkdir(parents=True)
    try:
        for name, entry in tree.items():
            if (name.startswith(TEMPLATES) or "/" not in name) and name not in (*GIT_FILES, store.MANIFEST):
                (content / name).parent.mkdir(exist_ok=True)
                blobs.link(entry["sha256"], content / name)
    except BaseException:
        shutil.rmtree(content, ignore_errors=True)
        raise
    return content


def _admit_or_withdraw(run: Run, branch: str, commit: HubCommit, user: User) -> None:
    try:
        checkpoint = admit(commit.id)
    except RegistryError as error:
        with db.transaction() as session:
            row, ref = session.get_one(HubCommit, commit.id), _lock(session, run, branch)
            if ref.sha == row.sha:
                ref.sha = row.parent
            session.delete(row)
            detail = {"commit": commit.sha, "reason": str(error)[:300]}
            audit.note(session, user, "hub-refused", f"run:{run.id}", detail)
        raise
    commit.is_waiting, commit.checkpoint = False, checkpoint
    commit.checkpoint_id = checkpoint.id if checkpoint is not None else None


def _name_step(found: hub.Revision, place: revisions.Place, name: str) -> None:
    commit = found.commit
    if found.checkpoint is not None and found.checkpoint.step != place.step:
        raise Conflict(
            "This commit is the checkpoint %(checkpoint)s; the tag '%(name)s' would name another step.",
            checkpoint=found.checkpoint.label,
            name=name,
        )
    if commit is not None and commit.is_waiting:
        commit.step = place.step
        commit.tokens_seen = place.tokens_seen if place.tokens_seen is not None else commit.tokens_seen
        commit.kind = "chat" if name.endswith("-chat") else commit.kind


def _check_ref_name(name: str) -> None:
    if not REF_NAME.fullmatch(name) or hub.SHA.fullmatch(name):
        raise Invalid("'%(name)s' cannot be the name of a branch or a tag.", name=name[:120])


def _sha(run: Run, parent: str, title: str, tree: Mapping[str, Any]) -> str:
    content = json.dumps([run.id, parent, title, tree, utcnow().isoformat(), uuid.uuid4().hex], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:40]
