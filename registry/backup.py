"""Backup and restore of a site: its database, the files of its checkpoints, and the answers of its evaluations.

A folder of backups looks so:

    blobs/ab/<sha256>        every content, once, whatever backups hold it
    20261126T183200Z/        one backup: tables/<name>.jsonl.gz and manifest.json
    .20261126T183200Z.partial/  one that was interrupted: it never counts, and the next backup removes it

The rows come from one snapshot of the database, so the site goes on meanwhile. Files are immutable, and one that an
earlier backup holds is not copied again. `manifest.json` is written last, and the folder gets its name after that.
"""

import datetime as dt
import fcntl
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from registry import blobs, db, store, tabledump
from registry.errors import Conflict, Invalid
from registry.models import Checkpoint
from registry.models.base import READY, RETIRED, VERIFYING, utcnow
from registry.settings import get_settings
from registry.tabledump import Dumped

FORMAT = 1
MANIFEST, TABLES, BLOBS = "manifest.json", "tables", "blobs"
PARTIAL, DOOMED = ".partial", ".deleting"
ASIDE = "before-restore-"
SECRET = "secret_key"
ALWAYS = ("samples", "hub/kept")
TRAINING, CORPUS = "runs", "corpus"
"""What is left out unless it is asked for: states of training, from which a run goes on; the text it reads."""
HELD = (READY, VERIFYING)
PRIVATE = 0o700
CHUNK_BYTES = 2**20
_SITE = ("runs", "users", "checkpoints")
"""Tables of which a row shows that a database is in use."""

Say = Callable[[str], None]


@dataclass
class Backup:
    """What `manifest.json` of a backup says."""

    name: str
    created_at: str
    revision: str
    database: str
    """`sqlite` or `postgresql`; it can be restored into either."""
    tables: dict[str, Dumped]
    counters: dict[str, int]
    files: dict[str, dict[str, Any]]
    """Files by their path in `GROW_HOME`: sha256, size, and mtime_ns by which the next backup knows them."""
    contents: dict[str, int]
    """Sizes of the checkpoints' files, by sha256."""
    absent: list[str] = field(default_factory=list)
    """Checkpoints whose files were not on this disk: deleted by a rule meanwhile, or in another store."""
    damaged: list[str] = field(default_factory=list)
    """Checkpoints of which a file is not what its hash says, or is missing; the backup is whole but for them."""

    @property
    def wanted(self) -> dict[str, int]:
        """Size of every content that belongs to it, by sha256."""
        return {entry["sha256"]: entry["size"] for entry in self.files.values()} | self.contents

    @property
    def num_rows(self) -> int:
        """Rows of all tables."""
        return sum(table.rows for table in self.tables.values())


@dataclass
class Made:
    """What `create` did."""

    backup: Backup
    folder: Path
    num_new: int
    new_bytes: int
    pruned: Sequence[str]


@dataclass
class _Copying:
    """Contents that are being brought into a folder of backups."""

    root: Path
    is_link: bool
    num_new: int = 0
    new_bytes: int = 0

    def take(self, source: Path, sha256: str, size: int) -> None:
        """Keep a content, unless it is there.

        Raises:
            Invalid: the source is not what its hash says.
            FileNotFoundError: it has gone.
        """
        target = _blob(self.root, sha256)
        if target.exists() and target.stat().st_size == size:
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{uuid.uuid4().hex}")
        try:
            if not (self.is_link and _linked(source, temporary)) and _copy(source, temporary) != sha256:
                raise Invalid("The file %(file)s is damaged: its bytes are not what was kept.", file=source.name)
            os.replace(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)
        self.num_new, self.new_bytes = self.num_new + 1, self.new_bytes + size


def create(
    root: Path,
    *,
    keep: int = 0,
    with_training: bool = False,
    with_corpus: bool = False,
    with_secret: bool = True,
    is_link: bool = False,
    say: Say = lambda _sentence: None,
) -> Made:
    """Back the site up into a folder of backups, while it runs.

    Args:
        root: the folder; made where it is missing, for its owner alone.
        keep: the newest so many backups stay, older ones are deleted afterwards; 0 keeps all.
        with_training: the states from which training goes on too.
        with_corpus: the text that it reads too.
        with_secret: the key that signs forms and votes, as far as it is kept in the data folder.
        is_link: link files instead of copying them where the disk is the same one. Quick, but no help when it fails.
        say: called with a sentence now and then.

    Raises:
        Conflict: another backup is being made into that folder.
        Invalid: the folder lies inside of the data, or the database has no tables.
    """
    home = get_settings().home.resolve()
    if home == root.resolve() or home in root.resolve().parents:
        raise Invalid("A backup inside of GROW_HOME would be lost with it: choose a folder elsewhere.")
    root.mkdir(parents=True, exist_ok=True, mode=PRIVATE)
    with _alone(root):
        _sweep(root)
        name = _free_name(root)
        partial = root / f".{name}{PARTIAL}"
        for folder in (root / BLOBS, partial, partial / TABLES):
            folder.mkdir(exist_ok=True, mode=PRIVATE)
        copying = _Copying(root, is_link)
        say("Writing the rows of the database.")
        backup, wanted = _dump_rows(name, partial)
        say(f"{backup.num_rows} rows of {len(backup.tables)} tables are written.")
        _take_checkpoints(backup, wanted, copying, say)
        folders = [*ALWAYS, *[TRAINING] * with_training, *[CORPUS] * with_corpus]
        _take_files(backup, root, copying, [*folders, *[SECRET] * with_secret])
        _write_whole(partial / MANIFEST, json.dumps(_as_json(backup), indent=1))
        os.rename(partial, root / name)
        _sync(root)
        pruned = _prune(root, keep) if keep else []
    return Made(backup, root / name, copying.num_new, copying.new_bytes, pruned)


def list_backups(root: Path) -> list[Path]:
    """The whole backups of a folder, the oldest first."""
    return sorted(path for path in root.iterdir() if not path.name.startswith(".") and (path / MANIFEST).is_file())


def find(place: Path) -> Path:
    """A backup: the folder itself, or the newest one of a folder of backups.

    Raises:
        Invalid: there is none.
    """
    if (place / MANIFEST).is_file() and (place / TABLES).is_dir():
        return place
    found = list_backups(place) if place.is_dir() else []
    if not found:
        raise Invalid("There is no whole backup in %(folder)s.", folder=place)
    return found[-1]


def read(folder: Path) -> Backup:
    """What a backup says of itself.

    Raises:
        Invalid: it is not whole, or of a form that this program does not know.
    """
    try:
        content = json.loads((folder / MANIFEST).read_text())
        if content.pop("format") != FORMAT:
            raise Invalid(
                "The backup %(name)s is of another form: restore it with the program that made it.", name=folder.name
            )
        tables = {str(name): Dumped(*entry) for name, entry in content.pop("tables").items()}
        backup = Backup(**content, tables=tables)
        for path in backup.files:
            _check_path(path)
        for sha256 in backup.wanted:
            _check_hash(sha256)
    except FileNotFoundError:
        raise Invalid("%(folder)s is no whole backup: it has no manifest.", folder=folder) from None
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise Invalid("The manifest of %(name)s cannot be read: %(error)s", name=folder.name, error=error) from error
    return backup


def check(folder: Path) -> list[str]:
    """Read every byte of a backup; returns a sentence for each thing that is wrong.

    Raises:
        Invalid: it is no backup.
    """
    backup = read(folder)
    found = []
    for name, expected in backup.tables.items():
        found.append(tabledump.check(folder / TABLES / (name + tabledump.ENDING), expected))
    for sha256, size in sorted(backup.wanted.items()):
        found.append(_problem(_blob(folder.parent, sha256), sha256, size))
    return [sentence for sentence in found if sentence]


def is_used(home: Path) -> bool:
    """Whether there is a site where one is to be restored: its database has rows, or its folder has checkpoints."""
    folders = [home / name for name in ("checkpoints", "blobs", "samples")]
    if any(folder.is_dir() and any(folder.iterdir()) for folder in folders):
        return True
    if not get_settings().database_url and not (home / "grow.db").exists():
        return False
    with db.current_engine().connect().execution_options(write=False) as connection:
        return tabledump.has_rows(connection, _SITE)


def restore(
    place: Path,
    *,
    migrate: Callable[[str], None],
    is_forced: bool = False,
    say: Say = lambda _sentence: None,
) -> tuple[Backup, Path | None]:
    """Make the site of the settings what it was when a backup was made; returns where what was there has gone.

    Args:
        place: a backup, or a folder of them: the newest.
        migrate: brings the database to a revision, `head` for the newest.
        is_forced: also where there is a site. Its files step aside into a folder; a PostgreSQL database is emptied.
        say: called with a sentence now and then.

    Raises:
        Conflict: there is a site already.
        Invalid: the backup is damaged; nothing was changed then.
    """
    folder = find(place)
    backup = read(folder)
    home = get_settings().home
    if is_used(home) and not is_forced:
        raise Conflict("There is a site in %(home)s or in its database. --force puts it aside.", home=home)
    say(f"Reading the backup {backup.name}.")
    if problems := check(folder):
        raise Invalid("The backup is damaged, and nothing was restored: %(problem)s", problem=problems[0])
    aside = _put_aside(home)
    home.mkdir(parents=True, exist_ok=True, mode=PRIVATE)
    _restore_files(backup, folder.parent, home)
    say("Putting the rows into the database.")
    migrate(backup.revision)
    with db.migration_connection(db.current_engine()) as connection:
        tabledump.load(connection, folder / TABLES)
        tabledump.set_counters(connection, backup.counters)
    migrate("head")
    say("Putting the checkpoints together.")
    with db.transaction() as session:
        _restore_checkpoints(session, backup)
    return backup, aside


def _dump_rows(name: str, partial: Path) -> tuple[Backup, list[tuple[int, str, str, dict[str, Any]]]]:
    """The rows, and of each checkpoint that has files its id, label, folder and files."""
    engine = db.current_engine()
    with tabledump.snapshot(engine) as connection:
        backup = Backup(
            name=name,
            created_at=utcnow().isoformat(),
            revision=tabledump.revision(connection),
            database=engine.dialect.name,
            tables=tabledump.dump(connection, partial / TABLES),
            counters=tabledump.counters(connection),
            files={},
            contents={},
        )
        with Session(connection) as session:
            query = select(Checkpoint).where(Checkpoint.state.in_(HELD), Checkpoint.folder != "")
            rows = [
                (one.id, one.label, one.folder, dict(one.manifest.get("files", {}))) for one in session.scalars(query)
            ]
    for path in (partial / TABLES).iterdir():
        _sync(path)
    return backup, rows


def _take_checkpoints(
    backup: Backup, wanted: Sequence[tuple[int, str, str, dict[str, Any]]], copying: _Copying, say: Say
) -> None:
    settings = get_settings()
    for number, (checkpoint_id, label, folder, files) in enumerate(wanted, 1):
        try:
            for name, entry in files.items():
                blob = blobs.path(entry["sha256"])
                source = blob if blob.exists() else settings.checkpoints_dir / folder / name
                copying.take(source, entry["sha256"], entry["size"])
                backup.contents[entry["sha256"]] = entry["size"]
        except FileNotFoundError:
            is_expected = bool(settings.blob_store) or not _is_held(checkpoint_id)
            (backup.absent if is_expected else backup.damaged).append(label)
        except Invalid:
            backup.damaged.append(label)
        if number % 100 == 0:
            say(f"{number} of {len(wanted)} checkpoints are kept.")


def _is_held(checkpoint_id: int) -> bool:
    with db.read_session() as session:
        found = session.get(Checkpoint, checkpoint_id)
        return found is not None and found.state in HELD


def _take_files(backup: Backup, root: Path, copying: _Copying, folders: Sequence[str]) -> None:
    """Files that no manifest lists; those that the backup before has under the same size and time are not read."""
    home, known = get_settings().home, _newest_files(root)
    places = [home / name for name in folders]
    for path in [path for place in places for path in (place, *sorted(place.rglob("*"))) if path.is_file()]:
        name = path.relative_to(home).as_posix()
        try:
            found = path.stat()
            entry = known.get(name)
            if entry is None or (entry["size"], entry["mtime_ns"]) != (found.st_size, found.st_mtime_ns):
                entry = {"sha256": store.file_sha256(path), "size": found.st_size, "mtime_ns": found.st_mtime_ns}
            copying.take(path, entry["sha256"], entry["size"])
        except FileNotFoundError:
            continue  # a file that was deleted meanwhile is not of the snapshot's rows
        backup.files[name] = entry


def _newest_files(root: Path) -> Mapping[str, dict[str, Any]]:
    found = list_backups(root)
    return read(found[-1]).files if found else {}


def _restore_files(backup: Backup, root: Path, home: Path) -> None:
    for name, entry in backup.files.items():
        target = home / name
        target.parent.mkdir(parents=True, exist_ok=True)
        _copy_checked(_blob(root, entry["sha256"]), target, entry["sha256"])
        os.utime(target, ns=(entry["mtime_ns"], entry["mtime_ns"]))
        if name == SECRET:
            target.chmod(0o600)
    for sha256 in backup.contents:
        target = blobs.path(sha256)
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists():
            _copy_checked(_blob(root, sha256), target, sha256)
            target.chmod(blobs.READ_ONLY)


def _restore_checkpoints(session: Session, backup: Backup) -> None:
    """Put the folders together from links; what was not in the backup is retired, unless another store keeps it."""
    settings = get_settings()
    query = select(Checkpoint).where(Checkpoint.state.in_(HELD), Checkpoint.folder != "")
    for checkpoint in session.scalars(query).all():
        files = checkpoint.manifest.get("files", {})
        if any(entry["sha256"] not in backup.contents for entry in files.values()):
            if not settings.blob_store:
                checkpoint.state, checkpoint.folder = RETIRED, ""
                checkpoint.reason = "Its files were not in the backup from which this site was restored."
            continue
        _rebuild(settings.checkpoints_dir, checkpoint.folder, checkpoint.manifest)


def _rebuild(root: Path, folder: str, manifest: dict[str, Any]) -> None:
    """Put a checkpoint's folder together from the blobs, its manifest last."""
    for path in (folder, *manifest["files"]):
        _check_path(path)
    destination = root / folder
    for name, entry in manifest["files"].items():
        target = destination / name
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            blobs.link(entry["sha256"], target)
        except OSError:  # links cannot be made here
            _copy_checked(blobs.path(entry["sha256"]), target, entry["sha256"])
    _write_whole(destination / store.MANIFEST, json.dumps(manifest, indent=1, sort_keys=True))


def _put_aside(home: Path) -> Path | None:
    """Move everything in `home` into a folder of its own there; empty the database where it lies elsewhere."""
    aside = None
    db.current_engine().dispose()  # its files move
    present = sorted(home.iterdir()) if home.is_dir() else []
    children = [path for path in present if not path.name.startswith((ASIDE, "lost+found"))]
    if children:
        aside = home / f"{ASIDE}{_stamp()}"
        aside.mkdir(mode=PRIVATE)
        for path in children:
            os.rename(path, aside / path.name)
    if get_settings().database_url:
        with db.migration_connection(db.current_engine()) as connection:
            tabledump.drop_everything(connection)
    return aside


def _prune(root: Path, keep: int) -> list[str]:
    found = list_backups(root)
    old = found[:-keep]
    for folder in old:
        os.rename(folder, folder.with_name(f".{folder.name}{DOOMED}"))  # from here on it does not count
    for folder in old:
        shutil.rmtree(folder.with_name(f".{folder.name}{DOOMED}"))
    _drop_unused(root)
    return [folder.name for folder in old]


def _sweep(root: Path) -> None:
    """Remove what interrupted backups have left."""
    for path in root.iterdir():
        if path.is_dir() and path.name.startswith(".") and path.name.endswith((PARTIAL, DOOMED)):
            shutil.rmtree(path)


def _drop_unused(root: Path) -> None:
    used = {sha256 for folder in list_backups(root) for sha256 in read(folder).wanted}
    for folder in sorted((root / BLOBS).iterdir()) if (root / BLOBS).is_dir() else ():
        for blob in folder.iterdir():
            if blob.name not in used:
                blob.unlink()


@contextmanager
def _alone(root: Path) -> Iterator[None]:
    with (root / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Conflict("Another backup is being made into %(folder)s.", folder=root) from None
        yield


def _as_json(backup: Backup) -> dict[str, Any]:
    content = {key: value for key, value in vars(backup).items() if key != "tables"}
    return {"format": FORMAT, **content, "tables": {name: list(table) for name, table in backup.tables.items()}}


def _stamp() -> str:
    return dt.datetime.now(dt.UTC).strftime("%Y%m%dT%H%M%SZ")


def _free_name(root: Path) -> str:
    stamp, number = _stamp(), 1
    name = stamp
    while (root / name).exists():
        number += 1
        name = f"{stamp}-{number}"
    return name


def _blob(root: Path, sha256: str) -> Path:
    return root / BLOBS / sha256[:2] / sha256


def _problem(blob: Path, sha256: str, size: int) -> str:
    if not blob.is_file():
        return f"The content {sha256[:16]} is missing."
    is_right = blob.stat().st_size == size and store.file_sha256(blob) == sha256
    return "" if is_right else f"The content {sha256[:16]} is damaged."


def _copy_checked(source: Path, target: Path, sha256: str) -> None:
    temporary = target.with_name(f".{uuid.uuid4().hex}")
    if _copy(source, temporary) != sha256:
        temporary.unlink()
        raise Invalid("The content %(sha256)s is damaged.", sha256=sha256[:16])
    os.replace(temporary, target)


def _copy(source: Path, target: Path) -> str:
    """Copy a file to the disk; returns its sha256."""
    digest = hashlib.sha256()
    with source.open("rb") as read_from, target.open("wb") as write_to:
        while chunk := read_from.read(CHUNK_BYTES):
            digest.update(chunk)
            write_to.write(chunk)
        write_to.flush()
        os.fsync(write_to.fileno())
    return digest.hexdigest()


def _linked(source: Path, target: Path) -> bool:
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise
    except OSError:  # another disk, or one without links: it is copied instead
        return False
    return True


def _write_whole(path: Path, content: str) -> None:
    with path.open("w") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    _sync(path.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _check_path(path: str) -> None:
    parts = PurePosixPath(path).parts
    if not parts or path.startswith("/") or ".." in parts or "\\" in path:
        raise Invalid("The path '%(path)s' leaves the folder.", path=path[:120])


def _check_hash(sha256: str) -> None:
    if not store.SHA256.fullmatch(sha256):
        raise Invalid("'%(hash)s' is no sha256.", hash=sha256[:80])
