"""`grow backup`, `grow restore` and `grow average`, as one types them."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from typer.testing import CliRunner

from grow import supervise
from grow.cli import app
from registry import checkpoints, db, joblog, store
from registry.models.base import READY, VERIFYING
from registry.settings import get_settings
from server.app import create_app
from tests.factories import make_checkpoint, make_run
from tests.server.seed import fill

run = CliRunner()
PAGES = ("/runs", "/runs/demo", "/runs/demo/checkpoints/500", "/runs/demo/tasks", "/news", "/api/v1/runs/demo/growth")
CHANGING = re.compile(r'csrf_token" value="[^"]+"|nonce-[^"\']+|<time[^>]*>[^<]*</time>|\d+ (seconds?|minutes?) ago')


@pytest.fixture
def seeded(grow_home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A site with a run; its checkpoints have files, small ones."""
    fill()
    assert get_settings().secret
    with db.transaction() as session:
        for checkpoint in checkpoints.list_checkpoints(session, states=(READY, VERIFYING)):
            folder = grow_home / "uploads" / str(checkpoint.id)
            folder.mkdir(parents=True)
            (folder / "config.json").write_text(f'{{"id": {checkpoint.id}}}')
            checkpoint.folder = f"{checkpoint.run.name}/{checkpoint.id}"
            manifest = store.seal(folder, get_settings().checkpoints_dir / checkpoint.folder, {})
            checkpoint.manifest, checkpoint.digest = manifest.as_json(), manifest.digest
    yield grow_home
    get_settings.cache_clear()


def pages() -> dict[str, str]:
    with TestClient(create_app(), headers={"accept": "text/html"}) as client:
        return {path: CHANGING.sub("", client.get(path).raise_for_status().text) for path in PAGES}


def test_a_restored_site_serves_the_same_pages(seeded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = pages()
    made = run.invoke(app, ["backup", str(tmp_path / "backups")])
    assert made.exit_code == 0, made.output
    assert "secret key" in " ".join(made.output.split())
    again = run.invoke(app, ["backup", str(tmp_path / "backups"), "--keep", "1"])
    assert "of which 0 (0.0 MB)" in " ".join(again.output.split())
    assert "Deleted old backups" in again.output
    checked = run.invoke(app, ["backup", "--check", str(tmp_path / "backups")])
    assert (checked.exit_code, "is whole and as it was written" in " ".join(checked.output.split())) == (0, True)

    monkeypatch.setenv("GROW_HOME", str(tmp_path / "unused"))  # put back afterwards, whatever the command sets
    done = run.invoke(app, ["restore", str(tmp_path / "backups"), "--into", str(tmp_path / "other")])
    assert done.exit_code == 0, done.output
    assert get_settings().home == tmp_path / "other"
    with db.read_session() as session:
        found = checkpoints.list_checkpoints(session)
    assert len(found) > 10
    for checkpoint in found:
        store.verify_files(checkpoints.path(checkpoint), store.read_manifest(checkpoints.path(checkpoint)))
    after = pages()
    for path in PAGES:
        assert after[path].splitlines() == before[path].splitlines(), path


def test_what_cannot_be_restored_is_told_in_a_sentence(
    seeded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "no whole backup" in run.invoke(app, ["restore", str(tmp_path)]).output
    run.invoke(app, ["backup", str(tmp_path / "backups")])
    refused = run.invoke(app, ["restore", str(tmp_path / "backups")])
    assert (refused.exit_code, "--force" in refused.output) == (1, True)
    monkeypatch.setattr("grow.backup.running_supervisor", lambda _settings: 1)
    stopped = run.invoke(app, ["restore", str(tmp_path / "backups"), "--force"])
    assert (stopped.exit_code, "grow down" in stopped.output) == (1, True)
    monkeypatch.setattr("grow.backup.running_supervisor", supervise.running_supervisor)
    shutil.rmtree(next(path for path in (tmp_path / "backups").iterdir() if path.name.startswith("2")) / "tables")
    assert "no whole backup" in " ".join(run.invoke(app, ["restore", str(tmp_path / "backups" / "x")]).output.split())
    assert run.invoke(app, ["backup", "--check", str(tmp_path / "backups")]).exit_code == 1
    assert supervise.running_supervisor(get_settings()) is None


def test_an_average_is_asked_for(database: Path) -> None:
    with db.transaction() as session:
        made = make_run(session)
        for step in range(3):
            make_checkpoint(session, made, step)
    said = run.invoke(app, ["average", "demo", "--last", "2", "--until", "1"])
    assert "demo@1-avg2 is asked for" in said.output
    with db.read_session() as session:
        [job] = joblog.list_jobs(session, kind=joblog.AVERAGE)
    assert job.args == {"last": 2, "until": 1}
    refused = run.invoke(app, ["average", "demo", "--last", "9"])
    assert (refused.exit_code, "needs as many" in refused.output) == (1, True)
