"""What the download page of a checkpoint offers: its files, where else they lie, and lines to paste into a shell."""

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import quote

from registry import mirrors
from registry.models import Checkpoint, Mirror

PLAIN = re.compile(r"[A-Za-z0-9._/-]+")
"""Names that mean themselves to a shell and to curl's patterns."""


@dataclass(frozen=True)
class File:
    """A file, and where it can be had."""

    name: str
    size: int
    sha256: str
    href: str
    mirrors: Sequence[tuple[str, str]]
    """Labels and addresses."""


@dataclass(frozen=True)
class Snippet:
    """A line for a shell."""

    id: str
    title: str
    text: str


def files_of(checkpoint: Checkpoint, offered: Sequence[Mirror]) -> list[File]:
    """The files of a checkpoint by name."""
    return [
        File(
            name,
            int(entry["size"]),
            entry["sha256"],
            file_href(checkpoint, name),
            [(mirror.label, mirrors.file_url(mirror, checkpoint, name)) for mirror in offered],
        )
        for name, entry in sorted(checkpoint.manifest.get("files", {}).items())
    ]


def file_href(checkpoint: Checkpoint, name: str) -> str:
    """Address of a file on this site: it names the content, so what it gives never changes."""
    return f"/checkpoints/{checkpoint.digest}/files/{quote(name)}"


def sums(files: Sequence[File]) -> str:
    """The list that `sha256sum -c` reads; a backslash is doubled there, and the line begins with one."""
    lines = []
    for one in files:
        escaped = one.name.replace("\\", "\\\\")
        lines.append(f"{chr(92) if escaped != one.name else ''}{one.sha256}  {escaped}\n")
    return "".join(lines)


def addresses(base: str, files: Sequence[File]) -> str:
    """One address a line, for wget."""
    return "".join(f"{base}{one.href}\n" for one in files)


def aria2_input(base: str, files: Sequence[File]) -> str:
    """What `aria2c -i` reads: the addresses of a file on one line, tabs between them, then its name and its hash."""
    blocks = []
    for one in files:
        places = [f"{base}{one.href}", *(address for _, address in one.mirrors)]
        tabbed = "\t".join(places)
        blocks.append(f"{tabbed}\n  out={one.name}\n  checksum=sha-256={one.sha256}\n")
    return "".join(blocks)


def snippets(base: str, checkpoint: Checkpoint, repo_id: str, revision: str, files: Sequence[File]) -> list[Snippet]:
    """Ready lines; each goes on where an earlier try stopped."""
    lists = f"{base}/checkpoints/{checkpoint.digest}"
    folder = f"{checkpoint.run.name}-{revision}"
    return [
        Snippet("hf", "hf", f"HF_ENDPOINT={base} hf download {repo_id} --revision {revision} --local-dir {folder}"),
        Snippet("curl", "curl", _curl(base, folder, files)),
        Snippet("aria2", "aria2c", f"curl -fsS {lists}/aria2.txt | aria2c -c -x 4 -d {folder} -i -"),
        Snippet("wget", "wget", f"wget -qO- {lists}/urls.txt | wget -c -x -nH --cut-dirs=3 -P {folder} -i -"),
    ]


def verify_line(base: str, checkpoint: Checkpoint) -> str:
    """What checks the files in the folder where one stands."""
    return f"curl -fsS {base}/checkpoints/{checkpoint.digest}/SHA256SUMS | sha256sum -c"


def _curl(base: str, folder: str, files: Sequence[File]) -> str:
    names = [one.name for one in files]
    if len(names) > 1 and all(PLAIN.fullmatch(name) for name in names):
        start = files[0].href.removesuffix(quote(names[0]))
        return f'curl -fL -C - --create-dirs -o "{folder}/#1" "{base}{start}{{{",".join(names)}}}"'
    parts = [f"-o {shlex.quote(f'{folder}/{one.name}')} {shlex.quote(base + one.href)}" for one in files]
    return f"curl -gfL -C - --create-dirs {' '.join(parts)}"
