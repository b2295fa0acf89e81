"""The mean of several checkpoints, one stretch of a tensor at a time: the memory it takes does not grow with them."""

import json
import shutil
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any, NamedTuple

import structlog
import torch
from safetensors import SafetensorError, safe_open

from registry import averages, checkpoints, db, events, quota, store
from registry.errors import Invalid
from registry.models import Checkpoint, Job
from registry.models.base import VERIFYING
from registry.settings import get_settings
from worker.runner import Report

STRETCH_ELEMENTS = 2**22
"""Numbers that are held at once, of the mean and of one parent: 16 MB each in float32."""
HARMLESS = frozenset({"_name_or_path", "transformers_version", "use_cache"})
"""What config.json may say differently: it changes no number."""
LEFT_OUT = (store.MANIFEST, "README.md")
"""What a parent has and its average has not: a card would speak of the parent."""

log = structlog.get_logger(__name__)


class Stored(NamedTuple):
    """A tensor in a safetensors file."""

    name: str
    dtype: str
    """As the header writes it: `F32`, `BF16`."""
    shape: tuple[int, ...]
    file: Path


def average(job: Job, report: Report) -> None:
    """Make the mean of the last `args["last"]` checkpoints up to the step `args["until"]`, and register it.

    The same parents give the same bytes: a job that is done twice registers one checkpoint.

    Raises:
        Invalid: the parents do not fit together.
        Conflict: a parent is gone, or other files stand in the average's place.
        NoRoom: the disk or the quota of the site is full.
        Cancelled: nobody wants it any more.
    """
    last, until = int(job.args["last"]), int(job.args["until"])
    with db.read_session() as session:
        assert job.checkpoint is not None  # `averages.plan` always names the newest parent
        run = job.checkpoint.run
        parents = averages.find_parents(session, run, last, until)
        quota.check(session, None, parents[-1].size_bytes)
    kind = averages.kind_of(last)
    relative = f"{run.name}/step-{until}-{kind}"
    destination = get_settings().checkpoints_dir / relative
    temporary = destination.with_name(f".average-{job.id}")
    shutil.rmtree(temporary, ignore_errors=True)  # of an attempt that was killed
    report(f"Averaging {', '.join(one.label for one in parents)}.", 0.0)
    try:
        folders = [checkpoints.ensure_local(checkpoints.path(one)) for one in parents]
        check_alike(parents, folders)
        write_mean(folders, temporary, report)
        newest, steps = parents[-1], [one.step for one in parents]
        facts = {"run": run.name, "step": until, "kind": kind, "precision": 16, "averaged_steps": steps}
        facts |= {"tokens_seen": newest.tokens_seen, "flops": newest.flops}
        manifest = store.seal(temporary, destination, facts)
    except OSError as error:
        raise quota.disk_full() if quota.is_full(error) else error from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    with db.transaction() as session:
        derivation = {"method": "mean", "last": last, "steps": steps, "digests": [one.digest for one in parents]}
        made = averages.register(
            session, run, parents, folder=relative, manifest=manifest, derivation=derivation, user_id=job.user_id
        )
    report(f"Registered {made.label}; it is verified and evaluated like any other.")
    place = {"run": run.name, "step": until, "checkpoint_id": made.id}
    events.publish_board("checkpoint", {**place, "state": VERIFYING})


def check_alike(parents: Sequence[Checkpoint], folders: Sequence[Path]) -> None:
    """Whether the mean of these checkpoints is a model: one architecture, one tokenizer, the same tensors.

    Raises:
        Invalid: naming the first thing in which two of them differ.
    """
    first, own = parents[-1], _described(folders[-1])
    config = _config(folders[-1])
    for parent, folder in zip(parents[:-1], folders[:-1], strict=True):
        pair = {"one": parent.label, "other": first.label}
        if parent.tokenizer != first.tokenizer:
            raise Invalid("%(one)s and %(other)s have different tokenizers: they cannot be averaged.", **pair)
        if found := _difference(_config(folder), config):
            raise Invalid(
                "%(one)s and %(other)s differ in %(name)s of config.json: they cannot be averaged.", **pair, name=found
            )
        described = _described(folder)
        if missing := sorted(described.keys() ^ own.keys()):
            raise Invalid("Only one of %(one)s and %(other)s has the tensor %(name)s.", **pair, name=missing[0])
        for name, tensor in own.items():
            other = described[name]
            if (tensor.dtype, tensor.shape) != (other.dtype, other.shape):
                raise Invalid(
                    "The tensor %(name)s is %(has)s in %(one)s and %(wants)s in %(other)s: they cannot be averaged.",
                    **pair,
                    name=name,
                    has=f"{other.dtype} {list(other.shape)}",
                    wants=f"{tensor.dtype} {list(tensor.shape)}",
                )


def write_mean(folders: Sequence[Path], destination: Path, report: Report) -> None:
    """Write the mean of the checkpoints in `folders` as a folder like the last of them.

    Raises:
        Invalid: a tensor of whole numbers is not the same in all of them.
        Cancelled: nobody wants it any more.
    """
    like = folders[-1]
    described = [_described(folder) for folder in folders]
    weights = {tensor.file for tensor in described[-1].values()}
    for source in sorted(path for path in like.rglob("*") if path.is_file()):
        place = source.relative_to(like)
        if place.as_posix() in LEFT_OUT:
            continue
        target = destination / place
        target.parent.mkdir(parents=True, exist_ok=True)
        if source not in weights:
            shutil.copyfile(source, target)
    done, total = 0, sum(file.stat().st_size for file in weights)
    for file in sorted(weights):
        with (destination / file.relative_to(like)).open("wb") as out:
            header, names = _header(file)
            out.write(header)
            for name in names:
                done += _write_tensor([one[name] for one in described], out, report)
                report.check()
        report(f"{file.name} is written.", min(1.0, done / total))


def _write_tensor(parents: Sequence[Stored], out: IO[bytes], report: Report) -> int:
    """The mean of one tensor in the dtype of its parents; returns how many bytes it has."""
    written = 0
    with ExitStack() as stack:
        name = parents[-1].name
        opened = [stack.enter_context(safe_open(str(one.file), framework="pt")) for one in parents]
        for rows in _stretches(parents[-1].shape):
            report.check()
            written += out.write(_raw(_mean(name, opened, rows)))
    return written


def _mean(name: str, opened: Sequence[Any], rows: slice | None) -> torch.Tensor:
    """Of a stretch of rows, summed in float32, in float64 where the parents are."""
    newest = _read(opened[-1], name, rows)
    if not newest.is_floating_point():
        if any(not torch.equal(_read(one, name, rows), newest) for one in opened[:-1]):
            raise Invalid("The tensor %(name)s holds whole numbers that differ: it has no mean.", name=name)
        return newest
    total = newest.to(torch.float64 if newest.dtype == torch.float64 else torch.float32)
    total = total.clone() if total is newest else total
    for one in opened[:-1]:
        total += _read(one, name, rows).to(total.dtype)
    return total.div_(len(opened)).to(newest.dtype)


def _read(opened: Any, name: str, rows: slice | None) -> torch.Tensor:
    found: torch.Tensor = opened.get_tensor(name) if rows is None else opened.get_slice(name)[rows]
    return found


def _stretches(shape: tuple[int, ...]) -> Iterator[slice | None]:
    """Rows of a tensor that are worked on at once; None for a scalar or an empty one: all of it."""
    if not shape or 0 in shape:
        yield None
        return
    width = 1
    for length in shape[1:]:
        width *= length
    step = max(1, STRETCH_ELEMENTS // width)
    for start in range(0, shape[0], step):
        yield slice(start, min(start + step, shape[0]))


def _raw(tensor: torch.Tensor) -> Any:
    """The bytes of a tensor, as safetensors keeps them: little-endian, in C order."""
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data


def _header(file: Path) -> tuple[bytes, list[str]]:
    """The beginning of a safetensors file up to its first tensor, and its tensors in the order of their bytes."""
    with file.open("rb") as opened:
        start = opened.read(8)
        raw = opened.read(struct.unpack("<Q", start)[0])
    entries = {name: entry for name, entry in json.loads(raw).items() if name != "__metadata__"}
    return start + raw, sorted(entries, key=lambda name: (entries[name]["data_offsets"], name))


def _described(folder: Path) -> dict[str, Stored]:
    """Every tensor of a folder, by name.

    Raises:
        Invalid: a file cannot be read, or is gone.
    """
    found: dict[str, Stored] = {}
    for file in sorted(folder.rglob("*.safetensors")):
        try:
            with safe_open(str(file), framework="pt") as tensors:
                for name in tensors.keys():  # noqa: SIM118 - a safetensors handle is no dict
                    part = tensors.get_slice(name)
                    found[name] = Stored(name, part.get_dtype(), tuple(part.get_shape()), file)
        except (SafetensorError, OSError) as error:
            raise Invalid("%(file)s cannot be read: %(error)s", file=file.name, error=error) from error
    if not found:
        raise Invalid("The folder %(folder)s holds no weights.", folder=folder.name)
    return found


def _config(folder: Path) -> Mapping[str, Any]:
    content: dict[str, Any] = json.loads((folder / "config.json").read_text())
    return content


def _difference(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """The first entry in which two configurations differ; empty where they fit together."""
    names = sorted((one.keys() | other.keys()) - HARMLESS)
    return next((name for name in names if one.get(name) != other.get(name)), "")
