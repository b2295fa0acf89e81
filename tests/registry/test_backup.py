"""Backup and restore: from either database into either, while the site writes, and never half."""

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import delete, func, select

from grow.prepare import migrate as migrate_to
from registry import audit, backup, chats, checkpoints, columns, db, retention, store, tabledump
from registry.errors import Conflict, Invalid
from registry.models import AuditEntry, Checkpoint, Turn
from registry.models.base import READY, RETIRED
from registry.settings import get_settings
from tests.factories import finish_evaluation, make_run, make_task, make_user

Use = Callable[[Path, str], None]


@pytest.fixture
def use(grow_home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Use]:
    """Makes a data folder and a database the site of this process."""

    def choose(home: Path, url: str) -> None:
        monkeypatch.setenv("GROW_HOME", str(home))
        monkeypatch.setenv("GROW_DATABASE_URL", url)
        get_settings.cache_clear()

    yield choose
    db.get_engine.cache_clear()


@pytest.fixture
def site(database: Path) -> Path:
    """A site in SQLite, with two checkpoints."""
    fill()
    return database


def fill() -> None:
    settings = get_settings()
    with db.transaction() as session:
        run, task, user = make_run(session), make_task(session), make_user(session, "ada")
        for step in range(2):
            checkpoint = _publish(session, run, step)
            finish_evaluation(session, checkpoint, task, 0.5 + step / 10)
            columns.write(session, checkpoint.id)
        chat = chats.open_chat(session, user, checkpoint)
        first = Turn(chat_id=chat.id, position=0, prompt="你好 \u2028 'x'", tokens=[["a", -0.5, []]])
        session.add(first)
        session.flush()
        session.add(Turn(chat_id=chat.id, parent_id=first.id, position=1, prompt="more", tokens=None))
        last = Turn(chat_id=chat.id, position=2, prompt="taken back")
        session.add(last)
        session.flush()
        session.execute(delete(Turn).where(Turn.id == last.id))
    (settings.samples_dir / "1").mkdir(parents=True)
    (settings.samples_dir / "1" / "1-abc.parquet").write_bytes(b"answers")
    assert settings.secret


def _publish(session, run, step) -> Checkpoint:
    folder = get_settings().uploads_dir / str(step)
    (folder / "sub").mkdir(parents=True)
    (folder / "config.json").write_text('{"shared": true}')
    (folder / "sub" / "tokenizer.json").write_text(f"[{step}]" * 1000)
    relative = f"{run.name}/step-{step}"
    manifest = store.seal(folder, get_settings().checkpoints_dir / relative, {"tokens_seen": step})
    checkpoint = checkpoints.register(session, run, step=step, folder=relative, manifest=manifest)
    checkpoints.mark_ready(session, checkpoint, 1)
    return checkpoint


def state() -> tuple[dict[str, tabledump.Dumped], dict[str, int]]:
    """Hashes of all rows, and the counters."""
    folder = get_settings().home / "state"
    folder.mkdir()
    with tabledump.snapshot(db.current_engine()) as connection:
        found = tabledump.dump(connection, folder), tabledump.counters(connection)
    shutil.rmtree(folder)
    return found


def check_files() -> None:
    """Every checkpoint's folder is what its manifest says, and shares its content with the blobs."""
    with db.read_session() as session:
        found = checkpoints.list_checkpoints(session)
    assert found
    for checkpoint in found:
        manifest = store.read_manifest(checkpoints.path(checkpoint))
        assert manifest.digest == checkpoint.digest
        store.verify_files(checkpoints.path(checkpoint), manifest)
        for name, entry in manifest.files.items():
            blob = get_settings().blobs_dir / entry["sha256"][:2] / entry["sha256"]
            assert blob.samefile(checkpoints.path(checkpoint) / name)


@pytest.mark.parametrize("source", ["sqlite", "postgres"])
@pytest.mark.parametrize("target", ["sqlite", "postgres"])
def test_a_site_comes_back_as_it_was_from_either_database_into_either(
    source: str, target: str, use: Use, tmp_path: Path, own_postgres: str
) -> None:
    urls = {"sqlite": "", "postgres": own_postgres}
    use(tmp_path / "first", urls[source])
    if source == "sqlite":
        (tmp_path / "first").mkdir()
        migrate_to()
    fill()
    rows, last = state()
    made = backup.create(tmp_path / "backups")
    assert made.backup.database == {"sqlite": "sqlite", "postgres": "postgresql"}[source]
    assert backup.check(made.folder) == []

    use(tmp_path / "second", urls[target])
    backup.restore(tmp_path / "backups", migrate=migrate_to, is_forced=source == target == "postgres")
    assert state()[0] == rows
    check_files()
    settings = get_settings()
    assert (settings.samples_dir / "1" / "1-abc.parquet").read_bytes() == b"answers"
    assert (settings.home / "secret_key").read_text() == (tmp_path / "first" / "secret_key").read_text()
    assert (settings.home / "secret_key").stat().st_mode & 0o077 == 0
    with db.transaction() as session:
        chat_id = session.scalar(select(Turn.chat_id).limit(1))
        turn = Turn(chat_id=chat_id, position=3, prompt="after")
        session.add(turn)
        session.flush()
        assert turn.id > last["turns"]  # the id of a deleted row is not given again
        make_user(session, "new")


def test_a_backup_is_of_one_moment_while_others_write(site: Path, tmp_path: Path, monkeypatch) -> None:
    stop, wrote, may_end = threading.Event(), threading.Event(), threading.Event()

    def write() -> None:
        while not stop.is_set():
            with db.transaction() as session:  # always in pairs
                audit.note(session, None, "one")
                audit.note(session, None, "other")
            wrote.set()

    dump = tabledump._dump

    def dump_slowly(connection, table, path):
        wrote.clear()
        if may_end.wait(0) or wrote.wait(10):  # somebody writes between any two tables
            return dump(connection, table, path)
        raise AssertionError("Nobody could write while the backup ran.")

    monkeypatch.setattr(tabledump, "_dump", dump_slowly)
    writer = threading.Thread(target=write)
    writer.start()
    try:
        backup.create(tmp_path / "backups")
    finally:
        stop.set()
        writer.join()
    monkeypatch.undo()
    os.environ["GROW_HOME"] = str(tmp_path / "second")
    get_settings.cache_clear()
    backup.restore(tmp_path / "backups", migrate=migrate_to)
    with db.read_session() as session:
        count = select(AuditEntry.action, func.count()).where(AuditEntry.action.in_(("one", "other")))
        counts = dict(session.execute(count.group_by(AuditEntry.action)).all())
    assert counts.get("one") == counts.get("other")


INTERRUPTED = """
import os, signal
from pathlib import Path
from registry import backup
{patch} = lambda *_a, **_k: os.kill(os.getpid(), signal.SIGKILL)
backup.create(Path({root!r}))
"""


@pytest.mark.parametrize("patch", ["backup._take_checkpoints", "backup._write_whole", "backup.os.rename"])
def test_an_interrupted_backup_is_never_taken_for_whole(site: Path, tmp_path: Path, patch: str) -> None:
    root = tmp_path / "backups"
    killed = subprocess.run(
        [sys.executable, "-c", INTERRUPTED.format(patch=patch, root=str(root))], env=dict(os.environ), check=False
    )
    assert killed.returncode < 0
    assert list(root.glob(".*.partial"))
    with pytest.raises(Invalid, match="no whole backup"):
        backup.find(root)
    made = backup.create(root)
    assert backup.list_backups(root) == [made.folder]
    assert not list(root.glob(".*.partial"))
    assert backup.check(made.folder) == []


def test_a_second_backup_copies_only_what_is_new_and_old_ones_go(site: Path, tmp_path: Path) -> None:
    root = tmp_path / "backups"
    first = backup.create(root)
    assert first.num_new == 5  # two of each checkpoint, one of them shared; a sample; the key
    assert backup.create(root).num_new == 0
    (site / "samples" / "1" / "2-def.parquet").write_bytes(b"more")
    (site / "samples" / "1" / "1-abc.parquet").unlink()
    third = backup.create(root, keep=1)
    assert third.num_new == 1
    assert len(third.pruned) == 2
    assert backup.list_backups(root) == [third.folder]
    assert len([path for path in (root / "blobs").rglob("*") if path.is_file()]) == 5
    assert backup.check(third.folder) == []


def test_links_are_made_only_when_asked_for(site: Path, tmp_path: Path) -> None:
    for name, is_link in (("copies", False), ("links", True)):
        backup.create(tmp_path / name, is_link=is_link)
        [shared, *_] = (tmp_path / name / "blobs").rglob("*")
        files = [path for path in (tmp_path / name / "blobs").rglob("*") if path.is_file()]
        assert any(path.stat().st_nlink > 1 for path in files) is is_link, shared


def test_what_is_damaged_is_found_and_never_restored(site: Path, tmp_path: Path, use: Use) -> None:
    made = backup.create(tmp_path / "backups")
    [blob] = [
        path
        for path in (tmp_path / "backups" / "blobs").rglob("*")
        if path.is_file() and path.read_bytes() == b"answers"
    ]
    blob.chmod(0o600)
    blob.write_bytes(b"Answers")
    table = made.folder / "tables" / "turns.jsonl.gz"
    content = table.read_bytes()
    table.write_bytes(content[:-9])
    assert sorted(sentence.partition(" ")[0] for sentence in backup.check(made.folder)) == ["The", "turns.jsonl.gz"]
    use(tmp_path / "second", "")
    with pytest.raises(Invalid, match="nothing was restored"):
        backup.restore(made.folder, migrate=migrate_to)
    assert not (tmp_path / "second").exists()


def test_a_damaged_checkpoint_does_not_keep_the_rest_from_being_saved(site: Path, tmp_path: Path) -> None:
    with db.read_session() as session:
        path = checkpoints.path(checkpoints.by_label(session, "demo@1")) / "sub" / "tokenizer.json"
    path.chmod(0o600)
    content = path.read_bytes()
    path.write_bytes(content[::-1])
    made = backup.create(tmp_path / "backups")
    assert (made.backup.damaged, made.backup.absent) == (["demo@1"], [])
    assert backup.check(made.folder) == []


def test_a_checkpoint_that_a_rule_deletes_meanwhile_is_retired_in_the_restored_site(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, use: Use
) -> None:
    take = backup._take_checkpoints

    def delete_first(*arguments):
        with db.transaction() as session:
            gone = checkpoints.by_label(session, "demo@0")
            gone.state = RETIRED
        retention.delete_files(gone)
        shutil.rmtree(get_settings().blobs_dir)
        take(*arguments)

    monkeypatch.setattr(backup, "_take_checkpoints", delete_first)
    made = backup.create(tmp_path / "backups")
    assert (made.backup.absent, made.backup.damaged) == (["demo@0"], [])
    use(tmp_path / "second", "")
    backup.restore(made.folder, migrate=migrate_to)
    with db.read_session() as session:
        states = [checkpoints.by_label(session, f"demo@{step}").state for step in range(2)]
    assert states == [RETIRED, READY]
    check_files()


def test_a_site_that_is_there_is_put_aside_only_by_force(site: Path, tmp_path: Path) -> None:
    made = backup.create(tmp_path / "backups")
    with pytest.raises(Conflict, match="--force"):
        backup.restore(made.folder, migrate=migrate_to)
    with db.transaction() as session:
        make_user(session, "late")
    _, aside = backup.restore(made.folder, migrate=migrate_to, is_forced=True)
    assert aside is not None
    assert (aside / "grow.db").exists()
    with db.read_session() as session:
        assert session.scalar(select(func.count()).select_from(AuditEntry)) is not None
        names = {name for (name,) in session.connection().exec_driver_sql("SELECT name FROM users")}
    assert names == {"ada"}
    check_files()


def _change(**changes: object) -> Callable[[dict[str, object]], None]:
    return lambda content: content.update(changes)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (_change(files={"../x": {"sha256": "0" * 64, "size": 1, "mtime_ns": 0}}), "leaves the folder"),
        (_change(files={"/etc/x": {"sha256": "0" * 64, "size": 1, "mtime_ns": 0}}), "leaves the folder"),
        (_change(contents={"../../x": 1}), "is no sha256"),
        (_change(format=99), "another form"),
        (_change(surplus=1), "cannot be read"),
        (_change(tables={"turns": [1]}), "cannot be read"),
        (lambda content: content.pop("revision"), "cannot be read"),
    ],
)
def test_a_manifest_that_lies_is_refused(site: Path, tmp_path: Path, change, sentence: str) -> None:
    made = backup.create(tmp_path / "backups")
    path = made.folder / "manifest.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(Invalid, match=sentence):
        backup.restore(made.folder, migrate=migrate_to, is_forced=True)
    check_files()


def test_a_backup_goes_neither_into_the_data_nor_beside_another_that_is_being_made(site: Path, tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="inside of GROW_HOME"):
        backup.create(site / "backups")
    (tmp_path / "backups").mkdir()
    with backup._alone(tmp_path / "backups"), pytest.raises(Conflict, match="Another backup"):
        backup.create(tmp_path / "backups")


def test_the_key_and_states_of_training_are_in_it_as_one_asks(site: Path, tmp_path: Path) -> None:
    (site / "runs" / "demo").mkdir(parents=True)
    (site / "runs" / "demo" / "metrics.jsonl").write_text("{}")
    made = backup.create(tmp_path / "one", with_secret=False, with_training=True)
    assert "secret_key" not in made.backup.files
    assert "runs/demo/metrics.jsonl" in made.backup.files
    assert "runs/demo/metrics.jsonl" not in backup.create(tmp_path / "other").backup.files


def test_a_backup_of_older_tables_is_brought_to_the_newest(tmp_path: Path, use: Use) -> None:
    use(tmp_path / "first", "")
    (tmp_path / "first").mkdir()
    migrate_to("0011")
    with db.migration_connection(db.current_engine()) as connection:
        connection.exec_driver_sql(
            "INSERT INTO runs (name, kind, status, config, git_revision, is_rewind, created_at, heartbeat_at) VALUES "
            "('old', 'training', 'finished', '{}', '', 0, '2026-01-01 00:00:00', '2026-01-01 00:00:00')"
        )
    made = backup.create(tmp_path / "backups")
    assert made.backup.revision == "0011"
    use(tmp_path / "second", "")
    backup.restore(made.folder, migrate=migrate_to)
    with tabledump.snapshot(db.current_engine()) as connection:
        assert tabledump.revision(connection) != "0011"
        assert tabledump.has_rows(connection, ("runs",))
