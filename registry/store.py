"""Checkpoint folders: sealing them, and checking what came from outside.

A folder is whole when its `manifest.json` is there: it is written last, then the folder is
renamed into place, and nothing in it ever changes again.
"""

import errno
import hashlib
import json
import os
import re
import shutil
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import structlog

from registry import architecture, blobs, jsonfiles, locks, remote, scan, tensors
from registry.errors import Conflict, Invalid, NotFound
from registry.filenames import ALLOWED_SUFFIXES as ALLOWED_SUFFIXES
from registry.filenames import check_file_name as check_file_name
from registry.filenames import check_twins, shown

log = structlog.get_logger(__name__)
MANIFEST = "manifest.json"
INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
ARCHITECTURE = "LlamaForCausalLM"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model")
CONFIGURATIONS = ("config.json", "generation_config.json", "tokenizer_config.json", "special_tokens_map.json")
"""Objects that whoever loads a checkpoint acts on."""
SHA256 = re.compile("[0-9a-f]{64}")
MAX_FILES = 500
MAX_TOKENIZER_BYTES = 256_000_000


@dataclass(frozen=True)
class Manifest:
    """What a checkpoint folder holds: each file's size and sha256, and the facts of its training."""

    files: dict[str, dict[str, Any]]
    facts: dict[str, Any]
    saved_bytes: int = field(default=0, compare=False)
    """Bytes of those files that were here already when it was sealed, and were not stored again."""

    @property
    def digest(self) -> str:
        """sha256 over the files' names, sizes and hashes: the checkpoint's identity."""
        return hashlib.sha256(json.dumps(self.files, sort_keys=True).encode()).hexdigest()

    @property
    def weights_digest(self) -> str:
        """sha256 over the hashes of the weight files: the same weights under another step share it."""
        hashes = sorted(entry["sha256"] for name, entry in self.files.items() if name.endswith(".safetensors"))
        return hashlib.sha256("".join(hashes).encode()).hexdigest()

    @property
    def size_bytes(self) -> int:
        """Bytes of all files together."""
        return sum(int(entry["size"]) for entry in self.files.values())

    def as_json(self) -> dict[str, Any]:
        """The content of `manifest.json`."""
        return {"format": 1, "files": self.files, "facts": self.facts}


def seal(
    folder: Path, destination: Path, facts: Mapping[str, Any], *, hashes: Mapping[str, str] | None = None
) -> Manifest:
    """Hash `folder`, share its files with other checkpoints, write its manifest last, and move it in one rename.

    Both must be on one file system. Sealing the same files twice is the same as once.

    Args:
        folder: gone afterwards.
        destination: where the checkpoint will be.
        facts: of its training, kept in the manifest.
        hashes: sha256 by file name, of those files whose bytes this process has hashed already while it received
            them; the rest is read here.

    Raises:
        Conflict: `destination` holds other files.
    """
    known, names = hashes or {}, list_files(folder)
    read = scan.sha256_of(folder / name for name in names if name not in known)
    files: dict[str, dict[str, Any]] = {
        name: {"size": (folder / name).stat().st_size, "sha256": known.get(name) or read[folder / name]}
        for name in names
    }
    saved = sum(entry["size"] for name, entry in files.items() if _keep(folder / name, entry["sha256"]))
    manifest = Manifest(files=files, facts=dict(facts), saved_bytes=saved)
    _write_synced(folder / MANIFEST, json.dumps(manifest.as_json(), indent=1, sort_keys=True))
    _sync(folder)
    destination.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.rename(folder, destination)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        return _already_there(folder, destination, manifest)
    _sync(destination.parent)
    return manifest


def _keep(file: Path, sha256: str) -> bool:
    _sync(file)
    return blobs.adopt(file, sha256)


def _already_there(folder: Path, destination: Path, manifest: Manifest) -> Manifest:
    if (destination / MANIFEST).exists():
        known = read_manifest(destination)
        if known.digest != manifest.digest:
            raise Conflict(
                "%(run)s/%(file)s exists already with other files.", run=destination.parent.name, file=destination.name
            )
        shutil.rmtree(folder)
        return known
    shutil.rmtree(destination)  # a half-written folder: without a manifest it never counted
    os.rename(folder, destination)
    return manifest


def ensure_local(folder: Path, manifest: Manifest) -> bool:
    """Bring a checkpoint's folder to this disk if it is not there, from the blob store; True where that was needed.

    Every byte is checked against the manifest. What an interruption leaves is gone on with.

    Raises:
        NotFound: it is neither here nor in a store.
        NoRoom: the disk has no room for it.
        Invalid: the store gives other bytes than were put there.
        Away: the store does not answer.
    """
    if (folder / MANIFEST).exists():
        return False
    if not remote.is_set():
        raise NotFound("The files of %(file)s are not on this disk, and no blob store is set.", file=folder.name)
    with locks.hold(f"{folder.parent.name}/{folder.name}"):
        if not (folder / MANIFEST).exists():
            _fetch(folder, manifest)
    return True


def _fetch(folder: Path, manifest: Manifest) -> None:
    holder = manifest.digest[:16]
    fetched = folder.with_name(f".{folder.name}.{holder}")
    for name, entry in manifest.files.items():
        blob = remote.fetch(entry["sha256"], entry["size"], holder)
        (fetched / name).parent.mkdir(parents=True, exist_ok=True)
        try:
            blobs.link(entry["sha256"], fetched / name)
        except OSError:  # a disk without hard links
            shutil.copyfile(blob, fetched / name)
    _write_synced(fetched / MANIFEST, json.dumps(manifest.as_json(), indent=1, sort_keys=True))
    shutil.rmtree(folder, ignore_errors=True)  # without a manifest it never counted
    os.rename(fetched, folder)
    _sync(folder.parent)
    log.info("Fetched a checkpoint from the blob store.", checkpoint=f"{folder.parent.name}/{folder.name}")


def send(folder: Path, manifest: Manifest) -> int:
    """Put a verified checkpoint's files into the blob store, if there is one; returns the bytes that it lacked.

    Raises:
        Away: the store did not take them.
    """
    if not remote.is_set():
        return 0
    sizes = {entry["sha256"]: (entry["size"], folder / name) for name, entry in manifest.files.items()}
    return sum(size for sha256, (size, file) in sizes.items() if remote.send(sha256, file))


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a sealed folder.

    Raises:
        Invalid: the folder is not whole.
    """
    try:
        content = jsonfiles.read(folder / MANIFEST)
    except FileNotFoundError:
        raise Invalid(
            "%(file)s has no %(manifest)s: it is half-written and does not count.", file=folder.name, manifest=MANIFEST
        ) from None
    try:
        return parse_manifest(content)
    except Invalid as error:
        raise Invalid("%(file)s: %(error)s", file=folder.name, error=error) from error


def parse_manifest(content: Any) -> Manifest:
    """What a `manifest.json` says.

    Raises:
        Invalid: it is not of that form, or names a file that may not be part of a checkpoint.
    """
    files, facts = (content.get("files"), content.get("facts")) if isinstance(content, dict) else (None, None)
    if not isinstance(files, dict) or not isinstance(facts, dict) or not all(map(_is_entry, files.values())):
        raise Invalid("The manifest is not of the form that this site writes.")
    for name in files:
        check_file_name(name)
    return Manifest(files=files, facts=facts)


def _is_entry(entry: Any) -> bool:
    size, sha256 = (entry.get("size"), entry.get("sha256")) if isinstance(entry, dict) else (None, None)
    return type(size) is int and size >= 0 and isinstance(sha256, str) and SHA256.fullmatch(sha256) is not None


def check_listing(folder: Path, manifest: Manifest) -> None:
    """Whether a folder has the files of its manifest in their sizes, and no other; reads none of them.

    Raises:
        Invalid: naming the first that is missing, extra or of another size.
    """
    names = set(list_files(folder))
    if missing := sorted(set(manifest.files) - names):
        raise Invalid("The file %(file)s is missing.", file=missing[0])
    if extra := sorted(names - set(manifest.files)):
        raise Invalid("The file %(file)s is not in the manifest.", file=shown(extra[0]))
    for name, entry in manifest.files.items():
        size = (folder / name).stat().st_size
        if size != entry["size"]:
            raise Invalid(
                "The file %(name)s has %(size)s bytes; the manifest says %(listed)s.",
                name=name,
                size=size,
                listed=entry["size"],
            )


def verify_files(folder: Path, manifest: Manifest) -> None:
    """Read every byte once: compare with the manifest, and look for numbers that are none in the weights.

    Raises:
        Invalid: naming the first file that is missing, extra or changed, or the first tensor with NaN or infinity.
        OSError: the disk failed.
    """
    check_listing(folder, manifest)
    headers = dict(tensors.read_headers(folder))

    def judge(path: Path, found: scan.Found) -> None:
        sha256 = manifest.files[path.relative_to(folder).as_posix()]["sha256"]
        if found.sha256 != sha256:
            blobs.discard(sha256)  # it may be these same bytes: whoever brings the right ones must not be given them
            raise Invalid("The file %(name)s does not have the sha256 that the manifest says.", name=path.name)
        if found.not_finite:
            raise Invalid("The tensor %(name)s holds NaN or infinite numbers.", name=found.not_finite[:80])

    paths = [folder / name for name in manifest.files]
    scan.read_all([(path, headers.get(path, {})) for path in paths], judge)


def file_sha256(path: Path) -> str:
    """Hex sha256 of a file."""
    return scan.read_through(path).sha256


def check_safetensors(path: Path) -> None:
    """Whether the header of a weight file tells the truth about it; reads the header only.

    Raises:
        Invalid: truncated, or lying.
    """
    tensors.read_header(path)


def check_folder(folder: Path) -> None:
    """Whether a folder looks like a LLaMA checkpoint that is safe to load; reads headers, but no weights.

    Raises:
        Invalid: a sentence for the person who made the folder.
    """
    names = list_files(folder)
    if len(names) > MAX_FILES:
        raise Invalid("A checkpoint has at most %(count)s files.", count=MAX_FILES)
    for name in names:
        check_file_name(name)
    check_twins(names)
    _check_config(folder)
    for name in CONFIGURATIONS:
        if name in names:
            _check_configuration(folder / name)
    _check_tokenizer(folder, names)
    _check_weights(folder, names)


def _check_config(folder: Path) -> None:
    architectures = architecture.read_config(folder).get("architectures")
    if architectures != [ARCHITECTURE]:
        raise Invalid(
            "The architecture is %(architectures)s; only %(served)s is served here.",
            architectures=str(architectures)[:80],
            served=ARCHITECTURE,
        )


def _check_configuration(path: Path) -> None:
    if jsonfiles.read_object(path).get("auto_map"):
        raise Invalid("%(file)s names code of its own (auto_map); checkpoints here bring no code.", file=path.name)


def _check_tokenizer(folder: Path, names: list[str]) -> None:
    present = [name for name in TOKENIZER_FILES if name in names]
    if not present:
        raise Invalid("There is no tokenizer: add tokenizer.json (or tokenizer.model) beside config.json.")
    for name in present:
        if (folder / name).stat().st_size > MAX_TOKENIZER_BYTES:
            raise Invalid(
                "%(file)s is larger than the %(limit)s bytes that such a file may have.",
                file=name,
                limit=f"{MAX_TOKENIZER_BYTES:,}",
            )


def _check_weights(folder: Path, names: list[str]) -> None:
    weights = [name for name in names if name.endswith(".safetensors")]
    if not weights:
        raise Invalid("There is no .safetensors file: save the weights with safe_serialization=True.")
    if nested := [name for name in weights if "/" in name]:
        raise Invalid("The weights %(file)s lie in a folder of their own; put them beside config.json.", file=nested[0])
    headers = {path.name: header for path, header in tensors.read_headers(folder)}
    if INDEX in names:
        _check_index(jsonfiles.read_object(folder / INDEX), headers)
    elif len(weights) > 1:
        raise Invalid("There are %(count)s .safetensors files and no %(index)s.", count=len(weights), index=INDEX)


def _check_index(index: Mapping[str, Any], headers: Mapping[str, Mapping[str, Any]]) -> None:
    listed = index.get("weight_map")
    if not isinstance(listed, dict) or not all(isinstance(name, str) for name in listed.values()):
        raise Invalid("%(index)s has no weight_map of tensors and files.", index=INDEX)
    for tensor, file in listed.items():
        if file not in headers:
            raise Invalid("%(index)s names the file '%(file)s', which is not there.", index=INDEX, file=shown(file))
        if tensor not in headers[file]:
            raise Invalid("%(index)s looks for %(name)s where it is not.", index=INDEX, name=shown(tensor)[:80])
    for file, header in headers.items():
        if unlisted := sorted(header.keys() - listed.keys()):
            raise Invalid(
                "%(file)s holds %(name)s, which %(index)s does not name.", index=INDEX, file=file, name=unlisted[0][:80]
            )


def list_files(folder: Path) -> list[str]:
    """Names of all files below a folder, except its manifest, in order.

    Raises:
        Invalid: there is something in it that is neither a file nor a folder.
    """
    names = []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        mode = path.lstat().st_mode
        if stat.S_ISLNK(mode):
            raise Invalid("'%(file)s' is a link; checkpoints hold files only.", file=shown(path.name))
        if not stat.S_ISREG(mode) and (not stat.S_ISDIR(mode) or name == MANIFEST):
            raise Invalid("'%(file)s' is no file; checkpoints hold files only.", file=shown(path.name))
        if stat.S_ISREG(mode) and name != MANIFEST:
            names.append(name)
    return names


def remove(folder: Path) -> None:
    """Delete a sealed folder, its manifest first: what is left of it half-way never counts as whole."""
    (folder / MANIFEST).unlink(missing_ok=True)
    _sync(folder)
    shutil.rmtree(folder)


def size_of(folder: Path) -> int:
    """Bytes of all files below a folder."""
    return sum((folder / name).stat().st_size for name in list_files(folder))


def _write_synced(path: Path, content: str) -> None:
    temporary = path.with_suffix(".tmp")
    with temporary.open("w") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
