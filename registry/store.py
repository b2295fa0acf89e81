"""Checkpoint folders: sealing them, and checking what came from outside.

A folder is whole when its `manifest.json` is there: it is written last, then the folder is
renamed into place, and nothing in it ever changes again.
"""

import hashlib
import json
import os
import shutil
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from registry.errors import Conflict, Invalid

MANIFEST = "manifest.json"
ARCHITECTURE = "LlamaForCausalLM"
ALLOWED_SUFFIXES = (".json", ".safetensors", ".model", ".txt", ".jinja", ".md")
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model")
MAX_HEADER_BYTES = 100_000_000
"""Limit of the safetensors format itself."""
DTYPE_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}


@dataclass(frozen=True)
class Manifest:
    """What a checkpoint folder holds: each file's size and sha256, and the facts of its training."""

    files: dict[str, dict[str, Any]]
    facts: dict[str, Any]

    @property
    def digest(self) -> str:
        """sha256 over the files' names, sizes and hashes: the checkpoint's identity."""
        return hashlib.sha256(json.dumps(self.files, sort_keys=True).encode()).hexdigest()

    @property
    def size_bytes(self) -> int:
        """Bytes of all files together."""
        return sum(int(entry["size"]) for entry in self.files.values())

    def as_json(self) -> dict[str, Any]:
        """The content of `manifest.json`."""
        return {"format": 1, "files": self.files, "facts": self.facts}


def seal(folder: Path, destination: Path, facts: Mapping[str, Any]) -> Manifest:
    """Hash `folder`, write its manifest last, and move it to `destination` in one rename.

    Both must be on one file system. Sealing the same files twice is the same as once.

    Raises:
        Conflict: `destination` holds other files.
    """
    files = {
        name: {"size": (folder / name).stat().st_size, "sha256": file_sha256(folder / name)} for name in _names(folder)
    }
    manifest = Manifest(files=files, facts=dict(facts))
    for name in files:
        _sync(folder / name)
    _write_synced(folder / MANIFEST, json.dumps(manifest.as_json(), indent=1, sort_keys=True))
    _sync(folder)
    destination.parent.mkdir(parents=True, exist_ok=True)
    if destination.exists():
        return _already_there(folder, destination, manifest)
    os.rename(folder, destination)
    _sync(destination.parent)
    return manifest


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


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a sealed folder.

    Raises:
        Invalid: the folder is not whole.
    """
    try:
        content = json.loads((folder / MANIFEST).read_text())
        return Manifest(files=content["files"], facts=content["facts"])
    except FileNotFoundError:
        raise Invalid(
            "%(file)s has no %(manifest)s: it is half-written and does not count.", file=folder.name, manifest=MANIFEST
        ) from None
    except (json.JSONDecodeError, KeyError, TypeError, UnicodeDecodeError) as error:
        raise Invalid(
            "%(file)s/%(manifest)s cannot be read: %(error)s.", file=folder.name, manifest=MANIFEST, error=error
        ) from error


def verify_files(folder: Path, manifest: Manifest) -> None:
    """Read every byte and compare with the manifest.

    Raises:
        Invalid: naming the first file that is missing, extra or changed.
    """
    names = set(_names(folder))
    if missing := sorted(set(manifest.files) - names):
        raise Invalid("The file %(file)s is missing.", file=missing[0])
    if extra := sorted(names - set(manifest.files)):
        raise Invalid("The file %(file)s is not in the manifest.", file=extra[0])
    for name, entry in manifest.files.items():
        size = (folder / name).stat().st_size
        if size != entry["size"]:
            raise Invalid(
                "The file %(name)s has %(size)s bytes; the manifest says %(listed)s.",
                name=name,
                size=size,
                listed=entry["size"],
            )
        if file_sha256(folder / name) != entry["sha256"]:
            raise Invalid("The file %(name)s does not have the sha256 that the manifest says.", name=name)


def file_sha256(path: Path) -> str:
    """Hex sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_folder(folder: Path) -> None:
    """Whether a folder looks like a LLaMA checkpoint that is safe to load; reads no weights.

    Raises:
        Invalid: a sentence for the person who made the folder.
    """
    names = [name for name in _names(folder) if name != MANIFEST]
    for name in names:
        check_file_name(name)
    _check_config(folder)
    weights = [name for name in names if name.endswith(".safetensors")]
    if not weights:
        raise Invalid("There is no .safetensors file: save the weights with safe_serialization=True.")
    if not any(name in TOKENIZER_FILES for name in names):
        raise Invalid("There is no tokenizer: add tokenizer.json (or tokenizer.model) beside config.json.")
    for name in weights:
        check_safetensors(folder / name)


def check_file_name(name: str) -> None:
    """Whether a file of that name may be part of a checkpoint.

    Raises:
        Invalid: its path leaves the folder, or its kind may hold code.
    """
    parts = name.replace("\\", "/").split("/")
    if name.startswith(("/", "\\")) or ":" in parts[0] or any(part in ("", ".", "..") for part in parts):
        raise Invalid("The path '%(name)s' leaves its folder.", name=name[:120])
    if any(ord(character) < 32 for character in name):
        raise Invalid("A file name holds control characters.")
    if not name.lower().endswith(ALLOWED_SUFFIXES):
        raise Invalid(
            "The file '%(name)s' is not accepted: formats such as pickle, .bin, .pt and .py can run code "
            "when they are loaded. Accepted: %(known)s.",
            name=name[:120],
            known=", ".join(ALLOWED_SUFFIXES),
        )


def _check_config(folder: Path) -> None:
    try:
        config = json.loads((folder / "config.json").read_text())
    except FileNotFoundError:
        raise Invalid("There is no config.json at the top of the folder.") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise Invalid("config.json is not valid JSON: %(error)s.", error=error) from error
    if not isinstance(config, dict):
        raise Invalid("config.json must hold an object.")
    architectures = config.get("architectures")
    if architectures != [ARCHITECTURE]:
        raise Invalid(
            "The architecture is %(architectures)s; only %(served)s is served here.",
            architectures=architectures,
            served=ARCHITECTURE,
        )
    if config.get("auto_map"):
        raise Invalid("config.json names code of its own (auto_map); checkpoints here bring no code.")


def check_safetensors(path: Path) -> None:
    """Whether the header tells the truth about the file; reads the header only.

    The format: 8 bytes little-endian header length, a JSON header, then the tensors' bytes,
    covering the rest of the file without a hole (github.com/huggingface/safetensors, "Format").

    Raises:
        Invalid: truncated, or lying.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else -1
        if not 2 <= length <= min(size - 8, MAX_HEADER_BYTES):
            raise Invalid(
                "%(file)s is truncated or not a safetensors file: its header does not fit into it.", file=path.name
            )
        raw = file.read(length)
    try:
        header = json.loads(raw)
        spans = sorted(_tensor_spans(path.name, header))
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise Invalid("%(file)s has a header that cannot be read: %(error)s.", file=path.name, error=error) from error
    position = 0
    for begin, end in spans:
        if begin != position:
            raise Invalid("%(file)s has a header that lies: its tensors overlap or leave holes.", file=path.name)
        position = end
    if position != size - 8 - length:
        raise Invalid(
            "%(file)s is truncated or has a header that lies: "
            "the tensors need %(position)s bytes, the file has %(found)s.",
            file=path.name,
            position=position,
            found=size - 8 - length,
        )


def _tensor_spans(file_name: str, header: Mapping[str, Any]) -> Iterator[tuple[int, int]]:
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        begin, end = (int(offset) for offset in entry["data_offsets"])
        count = 1
        for dimension in entry["shape"]:
            if not isinstance(dimension, int) or dimension < 0:
                raise Invalid(
                    "%(file)s has a header that lies: the shape of %(name)s is not a shape.",
                    file=file_name,
                    name=name[:80],
                )
            count *= dimension
        width = DTYPE_BYTES.get(entry["dtype"], 1 if str(entry["dtype"]).startswith("F8") else 0)
        if width == 0:
            raise Invalid(
                "%(file)s: the number format %(dtype)s of %(name)s is unknown.",
                file=file_name,
                dtype=str(entry["dtype"])[:20],
                name=name[:80],
            )
        if end - begin != count * width:
            raise Invalid(
                "%(file)s has a header that lies: %(name)s does not have the size of its shape.",
                file=file_name,
                name=name[:80],
            )
        yield begin, end


def _names(folder: Path) -> list[str]:
    names = []
    for path in sorted(folder.rglob("*")):
        if path.is_symlink():
            raise Invalid("'%(file)s' is a link; checkpoints hold files only.", file=path.name)
        if path.is_file() and path.relative_to(folder).as_posix() != MANIFEST:
            names.append(path.relative_to(folder).as_posix())
    return names


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
