"""The command line, as one types it."""

import json
import socket
import struct
from pathlib import Path

import pytest
from typer.testing import CliRunner

from grow.cli import app
from registry import accounts, checkpoints, curves, evaluations, events, runs, suites
from registry.db import read_session, transaction
from registry.models.base import VERIFYING
from tests.factories import make_checkpoint, make_run, make_task

run = CliRunner()


def hf_folder(path: Path) -> Path:
    """A folder that passes the first look; its weights are nonsense, which only a worker can tell."""
    path.mkdir()
    header = json.dumps({"w": {"dtype": "BF16", "shape": [1], "data_offsets": [0, 2]}}).encode()
    (path / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + b"\0\0")
    (path / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}')
    (path / "tokenizer.json").write_text("{}")
    return path


def test_the_stable_commands_are_all_there() -> None:
    said = run.invoke(app, ["--help"]).output
    for name in (
        "demo",
        "up",
        "down",
        "train",
        "worker",
        "push",
        "evaluate",
        "rescore",
        "import",
        "doctor",
        "admin",
        "chat",
    ):
        assert f" {name} " in said
    assert "create-user" in run.invoke(app, ["admin", "--help"]).output


def test_chat_becomes_the_program_that_talks(monkeypatch: pytest.MonkeyPatch) -> None:
    become: list[list[str]] = []
    monkeypatch.setattr("grow.cli._become", become.append)
    options = ["--terminal", "--site", "https://grow.example", "--no-browser", "--", "-odd@1"]
    assert run.invoke(app, ["chat", *options]).exit_code == 0
    [command] = become
    assert command[1:3] == ["-m", "worker.chat"]
    assert command[-2:] == ["--", "-odd@1"]
    assert command[command.index("--site") + 1] == "https://grow.example"
    assert {"--terminal", "--no-browser"} <= set(command)


def test_migrate_makes_tables_and_tasks(grow_home: Path) -> None:
    assert run.invoke(app, ["migrate"]).exit_code == 0
    assert run.invoke(app, ["migrate"]).exit_code == 0
    with read_session() as session:
        assert runs.list_runs(session) == []


class TestCreateUser:
    def test_shows_a_generated_password_once_and_it_works(self, database: Path) -> None:
        said = run.invoke(app, ["admin", "create-user", "ada"]).output
        password = said.split("with ")[1].split("  ")[0].strip()
        with read_session() as session:
            assert accounts.authenticate(session, "ada", password).is_admin

    def test_reads_a_password_from_a_file_and_does_not_repeat_it(self, database: Path, tmp_path: Path) -> None:
        (tmp_path / "secret").write_text("correct horse\n")
        command = ["admin", "create-user", "bob", "--member", "--password-file", str(tmp_path / "secret")]
        said = run.invoke(app, command).output
        assert "correct horse" not in said
        with read_session() as session:
            assert not accounts.authenticate(session, "bob", "correct horse").is_admin

    def test_a_bad_name_is_a_sentence_not_a_traceback(self, database: Path) -> None:
        result = run.invoke(app, ["admin", "create-user", "x"])
        assert result.exit_code == 1
        assert "2 to 40 characters" in result.output


class TestPush:
    def test_registers_a_copy_and_plans_its_evaluations(self, database: Path, tmp_path: Path) -> None:
        folder = hf_folder(tmp_path / "model")
        run.invoke(app, ["migrate"])
        command = ["push", str(folder), "--run", "guest", "--step", "7", "--tokens", "100"]
        result = run.invoke(app, command)
        assert "guest@7 is registered" in result.output
        with read_session() as session:
            checkpoint = checkpoints.get_checkpoint(session, runs.get_run(session, "guest"), 7)
            assert (checkpoint.state, checkpoint.tokens_seen) == (VERIFYING, 100)
            assert checkpoints.path(checkpoint).is_dir()
            assert len(evaluations.for_checkpoint(session, checkpoint)) > 0
        assert folder.is_dir()
        assert run.invoke(app, command).exit_code == 0  # the same again is the same checkpoint

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            (["--run", "A B", "--step", "1"], "cannot be a run's name"),
            (["--run", "guest", "--step", "1", "--kind", "odd"], "no kind 'odd'"),
        ],
    )
    def test_says_what_is_wrong(self, database: Path, tmp_path: Path, options: list[str], said: str) -> None:
        result = run.invoke(app, ["push", str(hf_folder(tmp_path / "model")), *options])
        assert result.exit_code == 1
        assert said in " ".join(result.output.split())

    def test_a_refused_folder_leaves_nothing_behind(self, database: Path, tmp_path: Path) -> None:
        folder = hf_folder(tmp_path / "model")
        (folder / "evil.pkl").write_bytes(b"")
        assert run.invoke(app, ["push", str(folder), "--run", "guest", "--step", "1"]).exit_code == 1
        assert not (database / "checkpoints").exists()
        with read_session() as session:
            assert runs.list_runs(session) == []


def test_down_says_when_nothing_runs(grow_home: Path) -> None:
    assert "Nothing runs" in run.invoke(app, ["down"]).output


def test_doctor_names_the_remedy(grow_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = run.invoke(app, ["doctor"])
    assert result.exit_code == (1 if "FAIL" in result.output else 0)
    assert "Python 3" in result.output
    assert "No database yet" in result.output
    assert "The broker does not answer" in result.output  # the fixture's address, where nobody listens


def test_a_hosts_worker_is_alive_only_while_it_gives_signs(redis_url: str) -> None:
    assert run.invoke(app, ["worker-alive"]).exit_code == 1
    events.worker_beat("elsewhere:1", "idle")
    assert run.invoke(app, ["worker-alive"]).exit_code == 1
    events.worker_beat(f"{socket.gethostname()}:1", "idle")
    assert run.invoke(app, ["worker-alive"]).exit_code == 0


class TestEvaluate:
    @pytest.fixture
    def site(self, database: Path) -> Path:
        with transaction() as session:
            make_task(session, "panel_task")
            make_task(session, "full_task", schedule="milestone")
            for step in (10, 20):
                make_checkpoint(session, make_run(session), step)
        return database

    def test_queues_a_suite_for_every_checkpoint_of_a_run(self, site: Path) -> None:
        assert "4 evaluations are queued" in run.invoke(app, ["evaluate", "demo", "--suite", "test"]).output
        assert "0 evaluations are queued" in run.invoke(app, ["evaluate", "demo", "--suite", "test"]).output

    def test_queues_a_task_of_the_lm_eval_library_for_one_step(self, site: Path) -> None:
        assert "1 evaluations are queued" in run.invoke(app, ["evaluate", "demo@20", "--task", "arc_easy"]).output
        with read_session() as session:
            task = suites.get_task(session, "arc_easy")
            assert (task.suite.name, task.schedule) == ("lm-eval", "asked")

    @pytest.mark.parametrize(
        ("arguments", "sentence"),
        [
            (["demo"], "Name what to run"),
            (["demo", "--suite", "nope"], "There is no suite 'nope' that can be run here. Suites: test."),
            (["demo@x", "--suite", "test"], "'x' is no step"),
            (["demo@99", "--suite", "test"], "no checkpoint at step 99"),
            (["nope", "--suite", "test"], "nope"),
        ],
    )
    def test_a_wrong_name_is_a_sentence(self, site: Path, arguments: list[str], sentence: str) -> None:
        result = run.invoke(app, ["evaluate", *arguments])
        assert result.exit_code == 1
        assert sentence in result.output.replace("\n", " ")


class TestImport:
    def test_results_of_lm_eval_come_onto_the_curves_once(self, database: Path, tmp_path: Path) -> None:
        content = {
            "results": {"piqa": {"alias": "piqa", "acc,none": 0.6, "acc_stderr,none": 0.01}},
            "versions": {"piqa": 1.0},
            "n-samples": {"piqa": {"original": 1838, "effective": 1838}},
            "config": {"model": "hf"},
        }
        file = tmp_path / "results_2026-11-25T00-00-00.000000.json"
        file.write_text(json.dumps(content))
        command = ["import", str(file), "--run", "elsewhere", "--step", "5", "--tokens", "1000"]
        assert "1 results of elsewhere@5 are on the curves." in run.invoke(app, command).output
        assert "0 results of elsewhere@5 are on the curves; 1 were here already." in run.invoke(app, command).output
        with read_session() as session:
            owner = runs.get_run(session, "elsewhere")
            [point] = curves.growth_series(session, owner, suites.get_task(session, "piqa")).points
            assert (point.value, point.is_imported, point.x) == (0.6, True, 1000)

    def test_what_is_no_result_is_a_sentence(self, database: Path, tmp_path: Path) -> None:
        (tmp_path / "results_x.json").write_text("not json")
        result = run.invoke(app, ["import", str(tmp_path), "--run", "elsewhere", "--step", "5"])
        assert result.exit_code == 1
        with read_session() as session:
            assert runs.list_runs(session) == []
