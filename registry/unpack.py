"""What somebody sent, made into a folder of files with suspicion: names, archives, links, bombs.

Nothing here loads weights or trusts a size that was merely claimed.
"""

import hashlib
import io
import os
import shutil
import stat
import struct
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from registry import quota, store
from registry.errors import Invalid
from registry.settings import get_settings

CHUNK_BYTES = 2**20
MAX_FILES = 500
MAX_NAME_CHARS = 200
MAX_RATIO = 100
"""Weights hardly compress; above this, and above `RATIO_FROM_BYTES`, an archive is a bomb."""
RATIO_FROM_BYTES = 64 * 2**20
MAX_DIRECTORY_BYTES = 4 * 2**20
"""Of a zip's own list of files: one of millions would fill the memory before it could be counted."""
IGNORED_NAMES = (".DS_Store", ".gitattributes", ".gitignore", "Thumbs.db")
"""What file managers and git leave in folders: neither kept nor a reason to refuse."""
HIDDEN_KINDS = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
"""Unicode categories of characters that are not seen, or turn what is seen around."""

Progress = Callable[[int], None]
"""Is told how many bytes were done since the last time; may raise to stop."""


class TooLarge(Invalid):
    """More bytes than the site accepts."""


def is_ignored(name: str) -> bool:
    """Whether a file is neither kept nor a reason to refuse the rest."""
    parts = name.replace("\\", "/").split("/")
    return parts[-1] in IGNORED_NAMES or parts[0] == "__MACOSX"


def is_zip(name: str) -> bool:
    """Whether a file is an archive by its name."""
    return name.lower().endswith(".zip")


def check_size(size: int) -> None:
    """Whether the site takes that many bytes.

    Raises:
        TooLarge: it does not.
    """
    if size > get_settings().max_upload_bytes:
        raise too_large()


def too_large() -> TooLarge:
    """The refusal of more than `Settings.max_upload_bytes`."""
    limit = get_settings().max_upload_bytes
    return TooLarge("The upload is too large: at most %(limit)s bytes are accepted.", limit=f"{limit:,}")


def check_names(names: Sequence[str]) -> None:
    """Whether files of these names may lie in one folder.

    Raises:
        Invalid: naming the first that leaves it, may hold code, hides characters, or is another one's twin.
    """
    if len(names) > MAX_FILES:
        raise Invalid("A checkpoint has at most %(count)s files.", count=MAX_FILES)
    seen: set[str] = set()
    folders: set[str] = set()
    for name in names:
        key = check_name(name)
        if key in seen:
            raise Invalid("The file '%(name)s' came twice.", name=name[:120])
        seen.add(key)
        folders.update(key[:at] for at, letter in enumerate(key) if letter == "/")
    if both := sorted(seen & folders):
        raise Invalid("'%(name)s' is a file and a folder at once.", name=both[0][:120])


def check_name(name: str) -> str:
    """Whether a file of that name may be kept; returns what its twins would share with it.

    Raises:
        Invalid: it may not.
    """
    if len(name) > MAX_NAME_CHARS:
        raise Invalid("The name '%(name)s…' is too long.", name=name[:60])
    if any(unicodedata.category(letter) in HIDDEN_KINDS for letter in name):
        raise Invalid("The name %(name)s holds characters that cannot be seen.", name=ascii(name[:120]))
    store.check_file_name(name)
    plain = unicodedata.normalize("NFKC", name)
    if plain != name:
        store.check_file_name(plain)  # dots and slashes in other widths
    return plain.casefold()


def check_listing(names: Iterable[str]) -> None:
    """Whether files of these names can be a checkpoint at all, before any of them is here.

    Raises:
        Invalid: naming what is missing.
    """
    inner = list(inner_names(list(names)).values())
    if "config.json" not in inner:
        raise Invalid("There is no config.json at the top of the folder.")
    if not any(name.endswith(".safetensors") for name in inner):
        raise Invalid("There is no .safetensors file: save the weights with safe_serialization=True.")
    if not any(name in store.TOKENIZER_FILES for name in inner):
        raise Invalid("There is no tokenizer: add tokenizer.json (or tokenizer.model) beside config.json.")


def inner_names(names: Sequence[str]) -> dict[str, str]:
    """Each name as it is kept: picked folders mostly are one folder that holds everything, which is left out."""
    tops = {name.split("/")[0] for name in names}
    if len(tops) == 1 and all("/" in name for name in names):
        return {name: name.split("/", 1)[1] for name in names}
    return {name: name for name in names}


def gather(files: Iterable[tuple[str, Path]], content: Path) -> None:
    """Make `content` a folder of hard links to files that were received, so that a second try finds them again."""
    content.mkdir()
    found = dict(files)
    for name, inner in inner_names(list(found)).items():
        target = content / inner
        target.parent.mkdir(parents=True, exist_ok=True)
        os.link(found[name], target)


def extract(archive: Path, content: Path, progress: Progress = lambda _: None) -> dict[str, str]:
    """Unpack a zip into the new folder `content`; returns the sha256 of each file, taken on its way.

    Raises:
        Invalid: it is damaged, or cannot be trusted.
        OSError: the disk is full.
    """
    content.mkdir()
    try:
        with _CarefulFile(archive) as file, zipfile.ZipFile(file) as opened:
            entries = _checked_entries(opened, archive.stat().st_size)
            inner = inner_names([entry.filename for entry in entries])
            return {
                inner[entry.filename]: _extract_entry(opened, entry, content / inner[entry.filename], progress)
                for entry in entries
            }
    except OSError as error:
        if quota.is_full(error):  # no fault of the zip
            raise
        raise _damaged(error) from error
    except (zipfile.BadZipFile, zlib.error, struct.error, NotImplementedError, EOFError, ValueError) as error:
        raise _damaged(error) from error


def _damaged(error: Exception) -> Invalid:
    return Invalid("The zip is damaged or cannot be read: %(error)s", error=error)


class _CarefulFile(io.FileIO):
    """Keeps `zipfile` from reading a list of files of any length into memory: it takes that in one read."""

    def read(self, size: int | None = -1, /) -> bytes:
        """At most `MAX_DIRECTORY_BYTES`, which no part of an honest archive is asked for beyond.

        Raises:
            Invalid: more was asked for.
        """
        wanted = MAX_DIRECTORY_BYTES + 1 if size is None or size < 0 else size
        data = super().read(min(wanted, MAX_DIRECTORY_BYTES + 1)) or b""
        if len(data) > MAX_DIRECTORY_BYTES:
            raise Invalid("A checkpoint has at most %(count)s files.", count=MAX_FILES)
        return data


def _checked_entries(opened: zipfile.ZipFile, packed_size: int) -> list[zipfile.ZipInfo]:
    entries = [entry for entry in opened.infolist() if not entry.is_dir() and not is_ignored(entry.filename)]
    for entry in entries:
        _check_entry(entry)
    check_names([entry.filename for entry in entries])
    size = sum(entry.file_size for entry in entries)
    check_size(size)
    if size > RATIO_FROM_BYTES and size > MAX_RATIO * packed_size:
        raise Invalid("The zip unpacks to more than a hundred times its size: that is no checkpoint.")
    return entries


def _check_entry(entry: zipfile.ZipInfo) -> None:
    mode = entry.external_attr >> 16
    if mode and stat.S_IFMT(mode) not in (0, stat.S_IFREG):
        raise Invalid("'%(name)s' is a link; checkpoints hold files only.", name=entry.filename[:120])
    if entry.flag_bits & 0x1:
        raise Invalid("The zip is encrypted.")
    if is_zip(entry.filename):
        raise Invalid("The zip holds another zip, '%(name)s'; pack the files themselves.", name=entry.filename[:120])


def _extract_entry(opened: zipfile.ZipFile, entry: zipfile.ZipInfo, path: Path, progress: Progress) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    written, digest = 0, hashlib.sha256()
    with opened.open(entry) as source, path.open("xb") as target:
        while chunk := source.read(CHUNK_BYTES):
            written += len(chunk)
            if written > entry.file_size:  # the directory of a zip is only a claim
                raise Invalid("'%(name)s' in the zip is larger than it says.", name=entry.filename[:120])
            digest.update(chunk)
            target.write(chunk)
            progress(len(chunk))
    if written < entry.file_size:
        raise Invalid("'%(name)s' in the zip is smaller than it says.", name=entry.filename[:120])
    return digest.hexdigest()


def remove(folder: Path) -> None:
    """Delete a folder and all in it; one that is gone is gone.

    Raises:
        OSError: it cannot be deleted.
    """
    try:
        shutil.rmtree(folder)
    except FileNotFoundError:
        if folder.exists():
            raise
