"""Pushes by the Hub protocol as its routes make them, for tests."""

import json
import tempfile
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from registry import accounts, db, gitblobs, hubcommits, hubfiles
from registry.hub import File
from registry.hubcommits import Push
from registry.models import HubCommit, Run, User


def make_people() -> tuple[User, User]:
    """A publisher, and another one."""
    with db.transaction() as session:
        people = [accounts.register(session, name, "correct horse", role="publisher") for name in ("anna", "ben")]
        session.flush()
    return people[0], people[1]


def open_repo(name: str, user: User) -> Run:
    """A repository of somebody's."""
    with db.transaction() as session:
        run, _ = hubcommits.open_repo(session, name, "", user)
    return run


def model(seed: int = 0, tensor: str = "w", **more: bytes) -> dict[str, bytes]:
    """The files of a checkpoint; its weights are nonsense, which only a worker can tell."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        save_file({tensor: np.random.default_rng(seed).normal(size=8).astype(np.float32)}, path)
        weights = path.read_bytes()
    config = json.dumps({"architectures": ["LlamaForCausalLM"]}).encode()
    files = {"config.json": config, "model.safetensors": weights, "tokenizer.json": b"{}"}
    return files | {name.replace("__", "."): content for name, content in more.items()}


def keep(files: dict[str, bytes]) -> dict[str, File]:
    """Their contents as blobs."""
    return {name: _keep(name, content) for name, content in files.items()}


def _keep(name: str, content: bytes) -> File:
    sha256 = hubfiles.receive([content], len(content))
    oid = "" if gitblobs.is_large(name, len(content)) else gitblobs.oid_of(content)
    return File(len(content), sha256, oid)


def push(
    run: Run, user: User, files: dict[str, bytes], title: str = "Upload", *, branch: str = "main", parent: str = ""
) -> HubCommit:
    """One commit."""
    return hubcommits.push(run, branch, Push(title, parent=parent, files=keep(files)), user)
