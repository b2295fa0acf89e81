"""Folders that a trainer writes: pushed once, when they are whole, whatever happens in between."""

import json
from pathlib import Path

import pytest

from grow import folders
from grow.folders import Place
from grow.remote import Away, read_site
from grow.watch import STATE_FILE, Watcher
from registry.errors import Invalid, Refused
from tests.registry.hubs import model


def write(folder: Path, seed: int = 0, **more: bytes) -> Path:
    """A checkpoint as a trainer writes it, with what does not belong to the model."""
    folder.mkdir(parents=True)
    for name, content in {**model(seed), "optimizer.pt": b"\x80", "training_args.bin": b"\x80", **more}.items():
        (folder / name.replace("__", ".")).write_bytes(content)
    return folder


class Site:
    """Takes pushes, or refuses them."""

    def __init__(self) -> None:
        self.pushed: list[tuple[str, Place]] = []
        self.said: list[str] = []
        self.error: Exception | None = None

    def push(self, folder: Path, place: Place) -> str:
        if self.error is not None:
            raise self.error
        self.pushed.append((folder.name, place))
        return f"run@{place.step}"

    def watch(self, root: Path, times: int = 2) -> None:
        """A watcher from its start, that looks so many times."""
        watcher = Watcher(root, self.push, self.said.append, settle_seconds=0.0)
        for _ in range(times):
            watcher.poll()


@pytest.fixture
def site() -> Site:
    return Site()


def test_each_folder_is_pushed_once_in_order_also_by_the_next_watcher(site: Site, tmp_path: Path) -> None:
    for step in (1000, 500):
        write(tmp_path / f"checkpoint-{step}", step)
    site.watch(tmp_path, 1)
    assert site.pushed == []  # it may still be written
    for _ in range(2):
        site.watch(tmp_path, 3)
    assert site.pushed == [("checkpoint-500", Place(500, None)), ("checkpoint-1000", Place(1000, None))]
    write(tmp_path / "step2000-tokens1M")
    site.watch(tmp_path)
    assert site.pushed[2:] == [("step2000-tokens1M", Place(2000, 1_000_000))]


def test_a_folder_that_is_being_written_waits_until_it_is_whole(site: Site, tmp_path: Path) -> None:
    folder = write(tmp_path / "checkpoint-5")
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1])
    write(tmp_path / "tmp-checkpoint-6")
    site.watch(tmp_path, 3)
    assert site.pushed == []
    weights.write_bytes(whole)
    site.watch(tmp_path)
    assert [name for name, _ in site.pushed] == ["checkpoint-5"]


def test_shards_are_waited_for(site: Site, tmp_path: Path) -> None:
    folder = write(tmp_path / "checkpoint-5")
    index = {"weight_map": {"w": "model.safetensors", "v": "other.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    site.watch(tmp_path, 3)
    assert site.pushed == []
    (folder / "other.safetensors").write_bytes(model(1, "v")["model.safetensors"])
    site.watch(tmp_path)
    assert len(site.pushed) == 1


def test_the_trainers_state_says_the_step_where_the_name_does_not(site: Site, tmp_path: Path) -> None:
    write(tmp_path / "last", trainer_state__json=b'{"global_step": 7, "num_input_tokens_seen": 700}')
    write(tmp_path / "final", 1)
    site.watch(tmp_path, 3)
    assert site.pushed == [("last", Place(7, 700))]
    assert [sentence for sentence in site.said if "final" in sentence] == [
        "final: neither its name nor trainer_state.json says the step; it is left alone."
    ]


def test_while_the_site_is_away_it_is_tried_again_and_a_refusal_is_final(site: Site, tmp_path: Path) -> None:
    write(tmp_path / "checkpoint-5")
    site.error = Away("The site cannot be reached.")
    site.watch(tmp_path, 4)
    assert site.said == ["checkpoint-5: The site cannot be reached. It is tried again."]
    site.error = Refused("The step is taken.")
    site.watch(tmp_path, 4)
    site.error = None
    site.watch(tmp_path, 4)
    assert site.pushed == []
    (tmp_path / "checkpoint-5" / "config.json").write_text('{"architectures": ["LlamaForCausalLM"], "a": 1}')
    site.watch(tmp_path)
    assert len(site.pushed) == 1  # other files are another try


def test_a_notebook_that_cannot_be_read_is_not_taken_for_an_empty_one(site: Site, tmp_path: Path) -> None:
    (tmp_path / STATE_FILE).write_text("{")
    with pytest.raises(Invalid, match="Delete it to push everything again"):
        site.watch(tmp_path)


def test_what_belongs_to_a_checkpoint(tmp_path: Path) -> None:
    folder = write(tmp_path / "a", rng_state_0__pth=b"\x80")
    (folder / "runs").mkdir()
    (folder / "runs" / "events.json").write_text("{}")
    assert set(folders.files(folder)) == set(model())
    (folder / "tokenizer.json").unlink()
    assert "tokenizer.json" in folders.files(folder, write(tmp_path / "b", 1))
    with pytest.raises(Invalid, match="not a folder"):
        folders.files(tmp_path / "nothing")


def test_a_key_is_read_from_a_file_or_from_the_environment(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("grow_x\n")
    assert read_site("http://site/", tmp_path / "key") == ("http://site", "grow_x")
    assert read_site("http://site", None, "grow_y").token == "grow_y"
    with pytest.raises(Invalid, match="--token-file"):
        read_site("http://site", None)
    with pytest.raises(Invalid, match="cannot be read"):
        read_site("http://site", tmp_path / "no")
