"""Downloads: the page of a checkpoint's files, the files, and the lists that programs read."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from fastapi import APIRouter, Path, Request, Response
from fastapi.responses import HTMLResponse, PlainTextResponse

from registry import checkpoints, hub, mirrors, shelf
from registry.errors import NotFound
from registry.models import Checkpoint
from registry.models.base import READY
from server import downloads, growth, render, stored
from server.deps import ReadSession, RunInPath
from server.downloads import File, Snippet

router = APIRouter(include_in_schema=False)
Step = Annotated[int, Path(ge=0, lt=10**18)]
Digest = Annotated[str, Path(pattern="^[0-9a-f]{64}$")]
IMMUTABLE = {"Cache-Control": stored.FOREVER}


@dataclass(frozen=True)
class FilesPage:
    """Context of checkpoints/files.html."""

    checkpoint: Checkpoint
    own_href: str
    files: Sequence[File]
    labels: Sequence[str]
    """Of the mirrors that have them too."""
    snippets: Sequence[Snippet]
    verify: str
    sums_href: str
    size_bytes: int
    """Of all files together."""


@router.get("/runs/{run}/checkpoints/{step}/files")
def show_files(
    request: Request,
    session: ReadSession,
    run: RunInPath,
    step: Step,
    kind: Literal["pretrained", "chat"] | None = None,
    precision: Literal["16", "8", "4"] | None = None,
) -> HTMLResponse:
    """Every file of a checkpoint, with sizes, hashes, mirrors, and lines for a shell."""
    checkpoint = checkpoints.get_checkpoint(session, run, step, kind, int(precision) if precision else None)
    checkpoints.check_files(checkpoint)
    if checkpoint.state != READY:
        raise NotFound("The files of %(checkpoint)s cannot be downloaded.", checkpoint=checkpoint.label)
    files = downloads.files_of(checkpoint, mirrors.offered(session))
    base = str(request.base_url).rstrip("/")
    repo_id, revision = hub.repo_id(session, run), shelf.revision_of(checkpoint)
    context = FilesPage(
        checkpoint=checkpoint,
        own_href=growth.checkpoint_href(checkpoint),
        files=files,
        labels=[label for label, _ in files[0].mirrors] if files else [],
        snippets=downloads.snippets(base, checkpoint, repo_id, revision, files),
        verify=downloads.verify_line(base, checkpoint),
        sums_href=f"/checkpoints/{checkpoint.digest}/SHA256SUMS",
        size_bytes=sum(one.size for one in files),
    )
    return render.page(request, "checkpoints/files.html", context)


@router.api_route("/checkpoints/{digest}/files/{name:path}", methods=["GET", "HEAD"])
def send_file(session: ReadSession, digest: Digest, name: str) -> Response:
    """A file, by the digest of its checkpoint: what stands here never changes."""
    checkpoint = shelf.by_digest(session, digest)
    entry = checkpoint.manifest.get("files", {}).get(name)
    if entry is None:
        raise NotFound("%(checkpoint)s has no file '%(name)s'.", checkpoint=checkpoint.label, name=name[:120])
    content = stored.Content(checkpoints.path(checkpoint) / name, entry["sha256"], int(entry["size"]))
    return stored.Stored(content, etag=content.sha256, headers=IMMUTABLE, name=name)


@router.api_route("/checkpoints/{digest}/SHA256SUMS", methods=["GET", "HEAD"])
def send_sums(session: ReadSession, digest: Digest) -> Response:
    """The hashes of a checkpoint's files, as `sha256sum -c` reads them."""
    files = downloads.files_of(shelf.by_digest(session, digest), [])
    return PlainTextResponse(downloads.sums(files), headers={**IMMUTABLE, "ETag": f'"{digest}"'})


@router.get("/checkpoints/{digest}/urls.txt")
def send_addresses(request: Request, session: ReadSession, digest: Digest) -> Response:
    """The addresses of a checkpoint's files, one a line."""
    files = downloads.files_of(shelf.by_digest(session, digest), [])
    return PlainTextResponse(downloads.addresses(str(request.base_url).rstrip("/"), files))


@router.get("/checkpoints/{digest}/aria2.txt")
def send_aria2(request: Request, session: ReadSession, digest: Digest) -> Response:
    """The same with mirrors and hashes, as `aria2c -i` reads them."""
    files = downloads.files_of(shelf.by_digest(session, digest), mirrors.offered(session))
    return PlainTextResponse(downloads.aria2_input(str(request.base_url).rstrip("/"), files))
