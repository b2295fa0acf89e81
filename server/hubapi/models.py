"""Runs as the Hub protocol describes models, and the revisions they have."""

import datetime as dt
from collections.abc import Sequence
from typing import Any

from sqlalchemy.orm import Session

from registry import hub, hubhistory
from registry.errors import NotFound
from registry.hub import Revision
from registry.models import Run
from registry.settings import get_settings
from registry.shelf import Model
from server.hubapi.trees import Entry

TAGS = ["transformers", "safetensors", "llama", "text-generation"]
PLAIN = {
    "private": False,
    "gated": False,
    "disabled": False,
    "pipeline_tag": "text-generation",
    "library_name": "transformers",
    "tags": TAGS,
}


def listed(model: Model) -> dict[str, Any]:
    """A model in a list."""
    name = f"{model.namespace}/{model.run}" if model.namespace else model.run
    told = {"id": name, "modelId": name, "author": model.namespace or None}
    return {**told, **PLAIN, "createdAt": moment(model.created_at), "lastModified": moment(model.last_at)}


def described(
    session: Session, run: Run, revision: Revision | None, files: Sequence[Entry], *, blobs: bool
) -> dict[str, Any]:
    """A model at a revision; without one, nothing of it may be read yet."""
    name = hub.repo_id(session, run)
    told = {
        "id": name,
        "modelId": name,
        "author": name.rpartition("/")[0] or None,
        **PLAIN,
        "createdAt": moment(run.created_at),
        "lastModified": moment(_made_at(revision) or run.heartbeat_at),
        "siblings": [one.sibling(blobs=blobs) for one in files],
        "usedStorage": sum(one.size for one in files),
    }
    return {**told, "sha": revision.sha} if revision is not None else told


def refs(session: Session, run: Run) -> dict[str, Any]:
    """The names of a run's revisions."""
    found = hubhistory.names(session, run)
    try:
        branches = {hub.MAIN: hub.resolve(session, run).sha, **found.branches}
    except NotFound:  # nothing is ready yet
        branches = found.branches
    return {
        "branches": _refs("heads", branches),
        "tags": _refs("tags", found.tags),
        "converts": [],
        "pullRequests": [],
    }


def commits(session: Session, run: Run, revision: Revision) -> list[dict[str, Any]]:
    """The commits up to a revision, the newest first."""
    found = hubhistory.commits(session, run)
    begin = next((place for place, commit in enumerate(found) if commit.sha == revision.sha), 0)
    author = {"user": hub.repo_id(session, run).rpartition("/")[0] or get_settings().site_name}
    return [
        {
            "id": commit.sha,
            "title": commit.title,
            "message": commit.message,
            "authors": [author],
            "date": moment(commit.created_at),
        }
        for commit in found[begin:]
    ]


def last_commit(revision: Revision) -> dict[str, str]:
    """What a list of files tells of the commit that wrote them: a checkpoint is written at once."""
    title = revision.commit.title if revision.commit is not None else ""
    step = f"step-{revision.checkpoint.step}" if revision.checkpoint is not None else ""
    made_at = _made_at(revision) or revision.run.created_at
    return {"id": revision.sha, "title": title or step, "date": moment(made_at)}


def moment(value: dt.datetime) -> str:
    """As the Hub writes times: `2026-11-26T18:03:07.000Z`."""
    return value.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{value.microsecond // 1000:03}Z"


def _made_at(revision: Revision | None) -> dt.datetime | None:
    if revision is None:
        return None
    made = revision.commit or revision.checkpoint
    return made.created_at if made is not None else None


def _refs(folder: str, shas: dict[str, str]) -> list[dict[str, str]]:
    return [{"name": name, "ref": f"refs/{folder}/{name}", "targetCommit": sha} for name, sha in shas.items()]
