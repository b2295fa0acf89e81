"""Sample files: every answer of one evaluation, as immutable columns in one Parquet file.

The columns keep what a metric needs, so that accuracy, normalised accuracy, probability and bits
per byte can all be computed again without a GPU. The same samples always give the same bytes.
"""

import hashlib
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from analysis.compare import Difference, paired_difference, paired_ratio_difference
from registry.errors import Invalid, NotFound

SCHEMA = pa.schema(
    [
        pa.field("item", pa.string(), nullable=False),
        pa.field("position", pa.int32(), nullable=False),
        pa.field("target", pa.int32()),
        pa.field("sum_logprob", pa.list_(pa.float32()), nullable=False),
        pa.field("num_tokens", pa.list_(pa.int32()), nullable=False),
        pa.field("num_bytes", pa.list_(pa.int32()), nullable=False),
        pa.field("prompt", pa.string()),
        pa.field("text", pa.string()),
        pa.field("finish_reason", pa.string()),
    ],
    metadata={"format": "grow-samples-1"},
)


class Sample(NamedTuple):
    """One item answered in one evaluation.

    A choice item has one entry a choice in the three lists and the right choice in `target`; a
    text whose likelihood is measured has one entry and no target; a free answer has `text`, and
    its length in the lists.
    """

    item: str
    """Hash of the item's content: the same item has the same key for every checkpoint."""
    position: int
    """Its place in the task."""
    target: int | None
    sum_logprob: list[float]
    """Natural logarithm, summed over the tokens."""
    num_tokens: list[int]
    num_bytes: list[int]
    prompt: str | None = None
    text: str | None = None
    finish_reason: str | None = None


class ProbeAnswer(NamedTuple):
    """A free answer, for the pages."""

    item: str
    prompt: str
    text: str
    finish_reason: str
    num_tokens: int


def write(folder: Path, name: str, samples: Sequence[Sample]) -> Path:
    """Write `<name>-<start of the digest>.parquet` and return its path.

    The digest is part of the name, so a file is never replaced by another content: a worker whose
    lease ran out cannot touch what the recorded evaluation points at.
    """
    columns = {field: [getattr(sample, field) for sample in samples] for field in Sample._fields}
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns, schema=SCHEMA), sink, compression="zstd", write_statistics=False)
    content = sink.getvalue().to_pybytes()
    path = folder / f"{name}-{hashlib.sha256(content).hexdigest()[:12]}.parquet"
    folder.mkdir(parents=True, exist_ok=True)
    _write_whole(path, content)
    return path


def _write_whole(path: Path, content: bytes) -> None:
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".tmp")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the new name survives a power cut too
    finally:
        os.close(folder)


def read(path: Path) -> list[Sample]:
    """The samples of a file, in the order of the items.

    Raises:
        NotFound: there is no such file.
        Invalid: it is no sample file.
    """
    if not path.is_file():
        raise NotFound("There is no sample file %(file)s.", file=path.name)
    try:
        rows = pq.read_table(path, columns=list(Sample._fields)).to_pylist()
    except (pa.ArrowInvalid, KeyError) as error:
        raise Invalid("%(file)s is no sample file: %(error)s", file=path.name, error=error) from error
    return [Sample(**row) for row in rows]


def probe_answers(path: Path) -> list[ProbeAnswer]:
    """The free answers of a probe evaluation."""
    return [
        ProbeAnswer(sample.item, sample.prompt or "", sample.text, sample.finish_reason or "", sample.num_tokens[0])
        for sample in read(path)
        if sample.text is not None
    ]


def compare(before: Path, after: Path) -> Difference | None:
    """After minus before over the items both have: accuracy, or bits per byte; None if they share none.

    This is the paired comparison; it sees smaller changes than two error bars side by side do.
    """
    earlier = {sample.item: sample for sample in read(before)}
    pairs = [(earlier[sample.item], sample) for sample in read(after) if sample.item in earlier and sample.sum_logprob]
    if not pairs:
        return None
    if pairs[0][0].target is not None:
        return paired_difference([is_right(one) for one, _ in pairs], [is_right(two) for _, two in pairs])
    sizes = [float(two.num_bytes[0]) for _, two in pairs]
    return paired_ratio_difference([_bits(one) for one, _ in pairs], [_bits(two) for _, two in pairs], sizes)


def is_right(sample: Sample) -> float:
    """1 where the right choice has the highest summed log-probability, as in lm-eval's `acc`."""
    return float(int(np.argmax(sample.sum_logprob)) == sample.target)


def _bits(sample: Sample) -> float:
    return -sample.sum_logprob[0] / float(np.log(2))
