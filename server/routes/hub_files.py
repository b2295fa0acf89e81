"""Reading by the Hugging Face Hub protocol: models, revisions, lists of files, and the files."""

import json
from typing import Annotated, Any
from urllib.parse import parse_qs

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import JSONResponse
from sqlalchemy.orm import Session

from registry import hub, shelf
from registry.errors import NotFound
from registry.hub import Revision
from registry.models import Run
from server import stored
from server.deps import ReadSession
from server.hubapi import models, pages, repos, trees
from server.hubapi.addresses import RepoId, TargetInPath
from server.hubapi.errors import ENTRY, HubError, HubRoute
from server.i18n import gettext

router = APIRouter(route_class=HubRoute, include_in_schema=False)
MAX_PATHS = 1_000
MAX_BODY_BYTES = 1_000_000
EXPANDED_PAGE = 50
API = ("/api/models/{run}", "/api/models/{namespace}/{run}")


def find(request: Request, session: Session, repo_id: str, name: str) -> tuple[Run, Revision]:
    """The run and the revision that a request names; their owner sees more, see `repos.find_revision`."""
    run = repos.find_run(session, repo_id)
    return run, repos.find_revision(session, run, name, repos.asker(session, request))


@router.get("/api/models")
def list_models(
    request: Request,
    session: ReadSession,
    search: Annotated[str, Query(max_length=120)] = "",
    author: Annotated[str, Query(max_length=120)] = "",
) -> Response:
    """The runs of which something can be downloaded, the one that got a checkpoint last first."""
    found = [models.listed(one) for one in shelf.models(session, search) if author in ("", one.namespace)]
    return pages.paged(request, found)


def show_model(request: Request, session: ReadSession, repo_id: RepoId, blobs: bool = False) -> Response:
    """A model as it is now; one of which nothing may be read yet is there, and has no files."""
    run = repos.find_run(session, repo_id)
    try:
        revision = hub.resolve(session, run, own=hub.owns(session, run, repos.asker(session, request)))
    except NotFound:
        return JSONResponse(models.described(session, run, None, [], blobs=blobs))
    files = trees.entries(session, revision)
    return JSONResponse(models.described(session, run, revision, files, blobs=blobs))


def show_revision(
    request: Request, session: ReadSession, repo_id: RepoId, target: TargetInPath, blobs: bool = False
) -> Response:
    """A model at a revision: what `from_pretrained` and `snapshot_download` ask first."""
    run, revision = find(request, session, repo_id, _whole(target))
    files = trees.entries(session, revision)
    told = models.described(session, run, revision, files, blobs=blobs)
    return JSONResponse(told, headers=_commit_header(revision))


def list_tree(
    request: Request,
    session: ReadSession,
    repo_id: RepoId,
    target: TargetInPath,
    recursive: bool = False,
    expand: bool = False,
) -> Response:
    """The files and folders of a revision, below a path."""
    _, revision = find(request, session, repo_id, target.revision)
    folder = target.path.strip("/")
    found = trees.listing(trees.entries(session, revision), folder, recursive=recursive)
    if not found and folder:
        raise _no_entry(revision, folder)
    if expand:
        found = [{**one, "lastCommit": models.last_commit(revision)} for one in found]
    answer = pages.paged(request, found, EXPANDED_PAGE if expand else pages.MAX_ITEMS)
    answer.headers.update(_commit_header(revision))
    return answer


def list_refs(session: ReadSession, repo_id: RepoId) -> Response:
    """The names of a model's revisions."""
    return JSONResponse(models.refs(session, repos.find_run(session, repo_id)))


def list_commits(request: Request, session: ReadSession, repo_id: RepoId, target: TargetInPath) -> Response:
    """The commits up to a revision, the newest first."""
    run, revision = find(request, session, repo_id, _whole(target))
    return pages.paged(request, models.commits(session, run, revision))


async def asked_paths(request: Request) -> list[str]:
    """The paths that a form or JSON asks about.

    Raises:
        HubError: 400 or 413 for a body that says nothing of that kind.
    """
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > MAX_BODY_BYTES:
            raise HubError(413, gettext("That is more than a list of paths."))
    try:
        if request.headers.get("content-type", "").startswith("application/json"):
            paths: Any = json.loads(body)["paths"]
        else:
            paths = parse_qs(body.decode(), max_num_fields=MAX_PATHS + 2)["paths"]
        paths = [paths] if isinstance(paths, str) else paths
    except (ValueError, KeyError, TypeError, RecursionError):
        paths = None
    if not isinstance(paths, list) or len(paths) > MAX_PATHS or not all(isinstance(path, str) for path in paths):
        message = gettext("Send a list 'paths' of at most %(limit)s file names.", limit=MAX_PATHS)
        raise HubError(400, message)
    return paths


def show_paths(
    request: Request,
    session: ReadSession,
    repo_id: RepoId,
    target: TargetInPath,
    paths: Annotated[list[str], Depends(asked_paths)],
) -> Response:
    """What a revision has under the given paths; what it has not is left out."""
    _, revision = find(request, session, repo_id, _whole(target))
    files = trees.entries(session, revision)
    asked = dict.fromkeys(path.strip("/") for path in paths)
    by_path = {one.path: one.told() for one in files}
    folders = {path for path in asked if path not in by_path and any(one.path.startswith(f"{path}/") for one in files)}
    by_path |= {path: trees.folder_told(path, files) for path in folders}
    return JSONResponse([by_path[path] for path in asked if path in by_path])


def send_file(request: Request, session: ReadSession, repo_id: RepoId, target: TargetInPath) -> Response:
    """A file of a revision, or where it is asked with HEAD, all but its content."""
    run = repos.find_run(session, repo_id)
    user = repos.asker(session, request)
    revision = repos.find_revision(session, run, target.revision, user)
    found = trees.entries(session, revision, [target.path])
    if not found:
        raise _no_entry(revision, target.path)
    entry = found[0]
    headers = _commit_header(revision)
    if entry.is_large:
        headers |= {"X-Linked-Etag": f'"{entry.sha256}"', "X-Linked-Size": str(entry.size)}
    if user is not None:
        headers["Cache-Control"] = "private, no-cache"
    elif target.revision == revision.sha:
        headers["Cache-Control"] = stored.FOREVER
    content = stored.Content(revision.place(entry.path), entry.sha256, entry.size)
    return stored.Stored(content, etag=entry.etag, headers=headers, name=entry.path)


def _whole(target: TargetInPath) -> str:
    """A revision at an address where no path follows; slashes belong to it."""
    return f"{target.revision}/{target.path}" if target.path else target.revision


def _commit_header(revision: Revision) -> dict[str, str]:
    return {"X-Repo-Commit": revision.sha}


def _no_entry(revision: Revision, path: str) -> HubError:
    message = gettext("The revision has no file '%(name)s'.", name=path[:120])
    return HubError(404, message, ENTRY, _commit_header(revision))


for prefix in API:
    router.add_api_route(f"{prefix}/refs", list_refs, methods=["GET"])
    router.add_api_route(f"{prefix}/revision/{{rest:path}}", show_revision, methods=["GET"])
    router.add_api_route(f"{prefix}/tree/{{rest:path}}", list_tree, methods=["GET"])
    router.add_api_route(f"{prefix}/commits/{{rest:path}}", list_commits, methods=["GET"])
    router.add_api_route(f"{prefix}/paths-info/{{rest:path}}", show_paths, methods=["POST"])
    router.add_api_route(prefix, show_model, methods=["GET"])
for prefix in ("/{run}", "/{namespace}/{run}"):
    router.add_api_route(f"{prefix}/resolve/{{rest:path}}", send_file, methods=["GET", "HEAD"])
