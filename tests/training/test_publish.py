"""What training tells the registry, and what it does while the registry is away."""

import dataclasses
import json
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from registry import checkpoints, db, runs, store
from registry.errors import Conflict, Invalid, NotFound
from registry.models.base import VERIFYING
from registry.settings import get_settings
from training import config as configs
from training import publish
from training.loop import Facts

DEAD = "postgresql://nobody@127.0.0.1:1/grow?connect_timeout=1"


def make_publisher(patience: float = 0.2) -> publish.Publisher:
    return publish.Publisher(run="demo", config=configs.load("debug"), num_parameters=102_720, patience=patience)


def export(home: Path, step: int, content: str = "weights") -> Path:
    folder = home / "runs" / "demo" / "export" / f"step-{step}"
    folder.mkdir(parents=True)
    header = json.dumps({"__metadata__": {"content": content}}).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    return folder


def facts(step: int) -> Facts:
    return Facts(step=step, tokens_seen=step * 256, flops=step * 1e6, num_parameters=102_720)


def losses() -> dict[int, float]:
    with db.read_session() as session:
        return {p.step: p.value for p in runs.metric_series(session, runs.get_run(session, "demo"), "train/loss")}


def registered() -> list[int]:
    with db.read_session() as session:
        found = checkpoints.list_checkpoints(session, runs.get_run(session, "demo"), states=(VERIFYING,))
        return [checkpoint.step for checkpoint in found]


def status() -> str:
    with db.read_session() as session:
        return runs.get_run(session, "demo").status


@pytest.fixture
def use_database(database: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Point this process at another database: a server that goes away and comes back."""
    monkeypatch.setattr(publish, "STEP_PATIENCE_SECONDS", 0.2)

    def use(url: str) -> None:
        monkeypatch.setenv("GROW_DATABASE_URL", url)
        get_settings.cache_clear()

    return use


def test_a_run_carries_what_it_is_made_of(database: Path) -> None:
    make_publisher().begin()
    with db.read_session() as session:
        run = runs.get_run(session, "demo")
    assert (run.status, run.num_parameters, run.tokens_per_step, run.max_steps) == ("running", 102_720, 256, 20)
    config = dict(run.config)
    assert all(config.pop("licences").values()), "for the cards of its models"
    assert configs.from_dict(config) == configs.load("debug")
    assert run.git_revision == publish.git_revision()


def test_a_checkpoint_is_sealed_then_registered(database: Path) -> None:
    publisher = make_publisher()
    publisher.begin()
    publisher.on_checkpoint(export(database, 8), facts(8))
    folder = database / "checkpoints" / "demo" / "step-8"
    store.verify_files(folder, store.read_manifest(folder))
    with db.read_session() as session:
        checkpoint = checkpoints.get_checkpoint(session, runs.get_run(session, "demo"), 8)
    assert checkpoints.path(checkpoint) == folder
    assert (checkpoint.tokens_seen, checkpoint.flops, checkpoint.num_parameters) == (2048, 8e6, 102_720)
    assert publish.is_published("demo", 8)
    assert not publish.is_published("demo", 16)


def test_the_same_checkpoint_again_changes_nothing_and_another_is_refused(database: Path) -> None:
    publisher = make_publisher()
    publisher.begin()
    publisher.on_checkpoint(export(database, 8), facts(8))
    publisher.on_checkpoint(export(database, 8), facts(8))
    assert registered() == [8]
    with pytest.raises(Conflict, match="step-8"):
        publisher.on_checkpoint(export(database, 8, "other weights"), facts(8))


def test_each_end_has_its_status(database: Path) -> None:
    for end, expected in (("pause", "queued"), ("fail", "failed"), ("finish", "finished")):
        publisher = make_publisher()
        publisher.begin()
        assert status() == "running"
        getattr(publisher, end)()
        assert status() == expected


def test_training_outlives_the_database(database: Path, use_database: Callable[[str], None]) -> None:
    publisher = make_publisher()
    publisher.begin()
    publisher.on_metrics(1, 256, {"train/loss": 6.0})
    use_database(DEAD)
    publisher.on_metrics(2, 512, {"train/loss": 5.0})
    publisher.on_checkpoint(export(database, 2), facts(2))
    use_database("")
    assert losses() == {1: 6.0}
    publisher.on_metrics(3, 768, {"train/loss": 4.0})
    assert losses() == {1: 6.0, 2: 5.0, 3: 4.0}
    assert registered() == [2]


def test_the_next_process_delivers_what_the_last_could_not(database: Path, use_database: Callable[[str], None]) -> None:
    publisher = make_publisher()
    publisher.begin()
    use_database(DEAD)
    publisher.on_metrics(1, 256, {"train/loss": 6.0})
    publisher.on_checkpoint(export(database, 2), facts(2))
    use_database("")
    with publish.metrics_file(publish.run_folder("demo")).open("a") as file:
        file.write('{"step": 2, "tokens_se')  # killed in the middle of a line
    make_publisher().begin()
    assert losses() == {1: 6.0}
    assert registered() == [2]
    assert [metrics.step for metrics in publish.read_metrics("demo")] == [1]


def test_a_half_written_checkpoint_is_not_registered(database: Path) -> None:
    half = database / "checkpoints" / "demo" / "step-4"
    half.mkdir(parents=True)
    (half / "model.safetensors").write_text("torn")
    make_publisher().begin()
    assert registered() == []


def test_a_database_that_never_answers_is_an_error_at_the_start(
    database: Path, use_database: Callable[[str], None]
) -> None:
    use_database(DEAD)
    with pytest.raises(publish.OperationalError):
        make_publisher().begin()


def test_a_database_without_tables_is_a_sentence(grow_home: Path) -> None:
    with pytest.raises(Invalid, match="no tables yet"):
        make_publisher(patience=60).begin()


def test_a_name_that_cannot_be_an_address_is_refused_at_once(database: Path) -> None:
    publisher = publish.Publisher(run="../up", config=configs.load("debug"), num_parameters=1)
    with pytest.raises(Invalid, match="cannot be a run's name"):
        publisher.begin()


def test_metrics_are_on_disk_as_well(database: Path) -> None:
    publisher = make_publisher()
    publisher.begin()
    publisher.on_metrics(8, 2048, {"train/loss": 5.5})
    line = (database / "runs" / "demo" / "metrics.jsonl").read_text()
    assert json.loads(line) == {"step": 8, "tokens_seen": 2048, "values": {"train/loss": 5.5}}


def test_a_run_that_goes_on_further_has_its_new_length(database: Path) -> None:
    make_publisher().begin()
    longer = dataclasses.replace(configs.load("debug"), max_steps=99)
    publish.Publisher(run="demo", config=longer, num_parameters=102_720).begin()
    with db.read_session() as session:
        assert runs.get_run(session, "demo").max_steps == 99


class TestStepsDoneAgain:
    """After a resume from an earlier step, the first curve is kept beside the new one."""

    def superseded(self) -> dict[int, dict[int, float]]:
        with db.read_session() as session:
            found = runs.superseded_metrics(session, [runs.get_run(session, "demo")])
        return {
            attempt: {span.step: span.mean for span in spans["train/loss"]} for (_, attempt), spans in found.items()
        }

    def test_the_first_curve_is_kept(self, database: Path) -> None:
        first = make_publisher()
        first.begin()
        first.on_start(-1)
        for step in (1, 2, 3):
            first.on_metrics(step, step * 256, {"train/loss": 6.0 - step})
        second = make_publisher()
        second.begin()
        second.on_start(1)
        second.on_metrics(2, 512, {"train/loss": 4.5})
        assert losses() == {1: 5.0, 2: 4.5}
        assert self.superseded() == {1: {2: 4.0, 3: 3.0}}

    def test_a_start_where_it_ended_gives_nothing_up(self, database: Path) -> None:
        for after in (-1, 2):
            publisher = make_publisher()
            publisher.begin()
            publisher.on_start(after)
            publisher.on_metrics(after + 2, 512, {"train/loss": 4.0})
            publisher.on_metrics(after + 3, 768, {"train/loss": 3.0})
        assert self.superseded() == {}
        assert "rewind" not in (database / "runs" / "demo" / "metrics.jsonl").read_text()

    def test_both_curves_are_delivered_by_a_later_process(
        self, database: Path, use_database: Callable[[str], None]
    ) -> None:
        first = make_publisher()
        first.begin()
        for step in (1, 2, 3):
            first.on_metrics(step, step * 256, {"train/loss": 6.0 - step})
        second = make_publisher()
        second.begin()
        use_database(DEAD)
        second.on_start(1)
        second.on_metrics(2, 512, {"train/loss": 4.5})
        use_database("")
        assert losses() == {1: 5.0, 2: 4.0, 3: 3.0}
        third = make_publisher()
        third.begin()
        assert losses() == {1: 5.0, 2: 4.5}
        third.on_start(0)
        assert self.superseded() == {1: {2: 4.0, 3: 3.0}, 2: {1: 5.0, 2: 4.5}}


class TestOrigin:
    """A run that goes on from a step of another."""

    def make_child(self) -> publish.Publisher:
        origin = publish.Origin("demo", 8, is_rewind=True)
        return publish.Publisher(
            run="demo-2", config=configs.load("debug"), num_parameters=1, origin=origin, patience=0.2
        )

    def test_the_registry_knows_where_it_began(self, database: Path) -> None:
        make_publisher().begin()
        self.make_child().begin()
        with db.read_session() as session:
            parent, child = runs.get_run(session, "demo"), runs.get_run(session, "demo-2")
        assert (child.parent_run_id, child.parent_step, child.is_rewind) == (parent.id, 8, True)

    def test_an_unknown_origin_is_told(self, database: Path) -> None:
        with pytest.raises(NotFound, match="no run 'demo'"):
            self.make_child().begin()

    def test_the_checkpoint_it_begins_with_is_the_other_runs(self, database: Path) -> None:
        make_publisher().begin()
        child = self.make_child()
        child.begin()
        folder = export(database, 8)
        child.on_checkpoint(folder, facts(8))
        assert not folder.exists()
        assert not publish.is_published("demo-2", 8)
        child.on_checkpoint(export(database, 16), facts(16))
        assert publish.is_published("demo-2", 16)
