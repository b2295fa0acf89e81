"""The Hugging Face Hub protocol, writing: who one is, repositories, commits, branches and tags."""

from typing import Annotated, Any

import yaml
from fastapi import APIRouter, Depends, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, Field

from registry import db, gitblobs, hub, hubcommits
from registry.errors import NotFound, RegistryError
from registry.hubcommits import EntryMissing, Stale
from registry.models import User
from server.deps import WriteSession
from server.hubapi import ndjson, signed
from server.hubapi.addresses import TargetInPath
from server.hubapi.errors import ENTRY, REVISION, HubError, HubRoute
from server.hubapi.pushers import OwnRun, Pusher, key_owner
from server.i18n import error_text, gettext

router = APIRouter(route_class=HubRoute, include_in_schema=False)

REPOS = ("/api/models/{namespace}/{run}", "/api/models/{run}")
MAX_PREUPLOAD = 1_000
MAX_CARD_CHARS = 1_000_000
MAX_METADATA_CHARS = 100_000


class RepoAsked(BaseModel):
    """The body of `create_repo`."""

    name: Annotated[str, Field(max_length=200)]
    organization: Annotated[str, Field(max_length=200)] | None = None
    type: str | None = None


class FileAsked(BaseModel):
    """A file that a client is about to send."""

    path: Annotated[str, Field(max_length=1_000)]
    size: Annotated[int, Field(ge=0)]


class FilesAsked(BaseModel):
    """The body of a preupload."""

    files: Annotated[list[FileAsked], Field(max_length=MAX_PREUPLOAD)]


class TagAsked(BaseModel):
    """The body of `create_tag`."""

    tag: Annotated[str, Field(max_length=200)]
    message: str | None = None


class BranchAsked(BaseModel):
    """The body of `create_branch`."""

    startingPoint: Annotated[str, Field(max_length=200)] | None = None


class CardAsked(BaseModel):
    """The body of validate-yaml: a README."""

    content: Annotated[str, Field(max_length=MAX_CARD_CHARS)]


@router.get("/api/whoami-v2")
def who_am_i(request: Request, user: Annotated[User, Depends(key_owner)]) -> dict[str, Any]:
    """Whose key it is, and whether it may push."""
    role = "write" if request.state.may_push and hub.may_push(user) else "read"
    token = {"displayName": "API key", "role": role}
    return {
        "type": "user",
        "id": str(user.id),
        "name": hub.namespace_of(user),
        "fullname": user.name,
        "email": None,
        "isPro": False,
        "orgs": [],
        "auth": {"type": "access_token", "accessToken": token},
    }


@router.post("/api/repos/create")
def create_repo(request: Request, asked: RepoAsked, user: Pusher, session: WriteSession) -> Response:
    """Make a run that can be pushed into; 409 with its address where it is there already."""
    if asked.type not in (None, "model"):
        raise HubError(400, gettext("Only models are kept here, no '%(kind)s'.", kind=asked.type[:40]))
    run, is_new = hubcommits.open_repo(session, asked.name, asked.organization or "", user)
    repo_id = hub.repo_id(session, run)
    content = {"url": f"{signed.base_url(request)}/{repo_id}", "name": repo_id, "id": str(run.id)}
    if is_new:
        return JSONResponse(content)
    message = gettext("The repository %(name)s is there already.", name=repo_id)
    return JSONResponse({**content, "error": message}, status_code=409)


def preupload(run: OwnRun, user: Pusher, asked: FilesAsked) -> Response:
    """How each file is to be sent: in the commit, as a large one before it, or not at all."""
    with db.read_session() as session:
        try:
            before = hub.resolve(session, run, hub.MAIN, own=True).files
        except NotFound:
            before = {}
    files, ignored = [], []
    for one in asked.files:
        is_kept = hubcommits.is_kept(one.path)
        if not is_kept:
            ignored.append(one.path)
        known = before.get(one.path)
        mode = "lfs" if gitblobs.is_large(one.path, one.size) else "regular"
        oid = (known.oid or known.sha256) if known is not None else None
        files.append({"path": one.path, "uploadMode": mode, "shouldIgnore": not is_kept, "oid": oid})
    # The client shows it, once for each topic; a header carries ASCII alone.
    names = ", ".join(name for name in ignored if name.isascii() and name.isprintable())[:300]
    note = f"not-kept; Not kept by this site, because such files can run code when they are loaded: {names}"
    return JSONResponse({"files": files}, headers={"X-HF-Warning": note} if ignored else {})


async def commit(request: Request, target: TargetInPath, run: OwnRun, user: Pusher) -> Response:
    """Commit; what is a whole model becomes a checkpoint."""
    if request.query_params.get("create_pr"):
        raise HubError(403, gettext("There are no pull requests here: push to a branch."))
    wanted = await ndjson.read_push(request.stream())
    try:
        made = await run_in_threadpool(hubcommits.push, run, target.revision, wanted, user)
    except Stale as error:
        raise HubError(412, error_text(error)) from error
    except EntryMissing as error:
        raise HubError(404, error_text(error), ENTRY) from error
    except NotFound as error:
        raise HubError(404, error_text(error), REVISION) from error
    with db.read_session() as session:
        repo_id = hub.repo_id(session, run)
    content = {"success": True, "commitOid": made.sha, "ignored": made.ignored, "hookOutput": ""}
    content["commitUrl"] = f"{signed.base_url(request)}/{repo_id}/commit/{made.sha}"
    content["checkpoint"] = made.checkpoint.label if made.checkpoint is not None else None
    return JSONResponse(content)


def create_tag(target: TargetInPath, run: OwnRun, user: Pusher, asked: TagAsked) -> Response:
    """Tag a revision; a commit that waited for its step becomes a checkpoint."""
    with db.transaction() as session:
        try:
            ref = hubcommits.tag(session, run, target.revision, asked.tag, asked.message or "", user)
        except NotFound as error:
            raise HubError(404, error_text(error), REVISION) from error
        found = hub.get_commit(session, run, ref.sha)
        waiting = found.id if found is not None and found.is_waiting and found.step is not None else None
    if waiting is not None:
        try:
            hubcommits.admit(waiting)
        except RegistryError:
            with db.transaction() as session:
                hubcommits.untag(session, run, asked.tag)
            raise
    return Response(status_code=200)


def create_branch(
    target: TargetInPath, run: OwnRun, user: Pusher, asked: BranchAsked, session: WriteSession
) -> Response:
    """Begin a branch."""
    try:
        hubcommits.branch(session, run, target.revision, asked.startingPoint or "", user)
    except NotFound as error:
        raise HubError(404, error_text(error), REVISION) from error
    return Response(status_code=200)


def delete_tag(target: TargetInPath, run: OwnRun, user: Pusher, session: WriteSession) -> Response:
    """Take a tag away."""
    return _delete(session, run, hub.TAG, target.revision, user)


def delete_branch(target: TargetInPath, run: OwnRun, user: Pusher, session: WriteSession) -> Response:
    """Take a branch away."""
    return _delete(session, run, hub.BRANCH, target.revision, user)


def _delete(session: WriteSession, run: OwnRun, kind: str, name: str, user: User) -> Response:
    try:
        hubcommits.delete_ref(session, run, kind, name, user)
    except NotFound as error:
        raise HubError(404, error_text(error), REVISION) from error
    return Response(status_code=200)


@router.post("/api/validate-yaml")
def validate_yaml(asked: CardAsked, _user: Annotated[User, Depends(key_owner)]) -> dict[str, list[dict[str, str]]]:
    """Whether the metadata of a card can be read."""
    parts = asked.content.split("---", 2)
    if not asked.content.startswith("---") or len(parts) < 3:
        return {"errors": [], "warnings": []}
    if len(parts[1]) > MAX_METADATA_CHARS:
        return {"errors": [{"message": gettext("The metadata at the top is too long.")}], "warnings": []}
    try:
        found = yaml.safe_load(parts[1])
    except (yaml.YAMLError, RecursionError) as error:
        message = gettext(
            "The metadata at the top is not valid YAML: %(error)s", error=" ".join(str(error).split())[:300]
        )
        return {"errors": [{"message": message}], "warnings": []}
    if found is not None and not isinstance(found, dict):
        return {"errors": [{"message": gettext("The metadata at the top must hold names and values.")}], "warnings": []}
    return {"errors": [], "warnings": []}


for _repo in REPOS:
    router.add_api_route(f"{_repo}/preupload/{{rest:path}}", preupload, methods=["POST"])
    router.add_api_route(f"{_repo}/commit/{{rest:path}}", commit, methods=["POST"])
    router.add_api_route(f"{_repo}/tag/{{rest:path}}", create_tag, methods=["POST"])
    router.add_api_route(f"{_repo}/tag/{{rest:path}}", delete_tag, methods=["DELETE"])
    router.add_api_route(f"{_repo}/branch/{{rest:path}}", create_branch, methods=["POST"])
    router.add_api_route(f"{_repo}/branch/{{rest:path}}", delete_branch, methods=["DELETE"])
