"""The hardware table: memory by precision and context, the cards that fit, and what was measured here."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session

from analysis import memory
from analysis.memory import Load, Need, Shape
from registry import peaks
from registry.models import MemoryPeak
from server import architecture, devices
from server.devices import COMPUTER, CONSUMER, DATACENTER
from server.i18n import gettext
from server.render import number, size

PRECISIONS = (16, 8, 4)
BATCHES = (1, 4, 16, 64)
CONTEXTS = (512, 2_048, 8_192, 32_768, 131_072)
MAX_CONTEXTS = 4
CARD, PROCESSOR = "card", "processor"
ENGINE_BYTES = {CARD: 1.0e9, PROCESSOR: 0.63e9}
"""Without a model. On processors the transformers engine, measured by `benchmarks/memory.py`; on cards vLLM's CUDA
context, kernels and graphs: an assumption, for no card has been measured here."""
VLLM_ON_PROCESSOR = 1.7e9
"""The same of vLLM's process on a processor, by the same benchmark."""
KV_COPIES = {CARD: 1.0, PROCESSOR: 2.0}
MANY_SHOWN = 6


@dataclass(frozen=True)
class Cell:
    """One precision at one context."""

    context: int
    need: Need
    smallest: str
    """The smallest device that it fits on; empty where there is none."""

    @property
    def total(self) -> str:
        """The sum, finely enough to tell small models' precisions apart."""
        return f"{number(self.need.total / 1e9, 2)} GB"

    @property
    def parts(self) -> str:
        """What the sum is made of, in words."""
        return gettext(
            "weights %(weights)s, KV cache %(cache)s, activations %(activations)s, engine %(engine)s",
            weights=size(round(self.need.weights)),
            cache=size(round(self.need.kv_cache)),
            activations=size(round(self.need.activations)),
            engine=size(round(self.need.engine)),
        )


@dataclass(frozen=True)
class Row:
    """One precision."""

    bits: int
    cells: Sequence[Cell]
    fits: Mapping[str, Sequence[str]]
    """Names of the devices on which the longest context fits, by kind."""


@dataclass(frozen=True)
class Measured:
    """What an engine of this site held at most, beside what is computed for the same load."""

    engine: str
    device: str
    measured: int
    computed: int
    kv_tokens: int

    @property
    def ratio(self) -> str:
        """Computed over measured."""
        return number(self.computed / self.measured, 2)


@dataclass(frozen=True)
class Hardware:
    """The table of one checkpoint."""

    contexts: Sequence[int]
    rows: Sequence[Row]
    measured: Sequence[Measured]
    batch: int
    device: str


def hardware_of(session: Session, config: Mapping[str, Any], shape: Shape, batch: int, device: str) -> Hardware:
    """The table for so many answers at a time, on `card` or `processor`, with what was measured of each precision."""
    contexts = context_lengths(shape.context_length)
    group = architecture.group_size(config)
    rows = [_row(shape, bits, contexts, batch, device, group) for bits in PRECISIONS]
    measured = [
        _measured(shape, bits, group, peak)
        for bits in PRECISIONS
        for peak in peaks.of_architecture(session, memory.architecture_key(shape, bits))
    ]
    return Hardware(contexts, rows, measured, batch, device)


def context_lengths(limit: int) -> list[int]:
    """A few lengths up to the model's own, which is the last."""
    shorter = [context for context in CONTEXTS if context < limit] or [max(1, limit // 4), max(1, limit // 2)]
    return sorted({*shorter[-(MAX_CONTEXTS - 1) :], limit})


def need_of(shape: Shape, bits: int, context: int, batch: int, device: str, group: int) -> Need:
    """Bytes that answers of a length take."""
    load = Load(context, batch, kv_copies=KV_COPIES[device])
    return memory.estimate(shape, bits, load, engine=ENGINE_BYTES[device], group_size=group)


def _row(shape: Shape, bits: int, contexts: Sequence[int], batch: int, device: str, group: int) -> Row:
    needs = {context: need_of(shape, bits, context, batch, device, group) for context in contexts}
    kinds = (CONSUMER, DATACENTER) if device == CARD else (COMPUTER,)
    cells = [Cell(context, need, _smallest(kinds, bits, need.total)) for context, need in needs.items()]
    fits = {kind: _names(kind, bits, needs[contexts[-1]].total) for kind in kinds}
    return Row(bits, cells, fits)


def _smallest(kinds: Sequence[str], bits: int, num_bytes: float) -> str:
    found = [device for kind in kinds for device in devices.fitting(kind, bits, num_bytes)[:1]]
    best = min(found, key=lambda device: device.gibibytes, default=None)
    return f"{best.name} {best.gibibytes} GB" if best is not None else ""


def _names(kind: str, bits: int, num_bytes: float) -> list[str]:
    return [f"{device.name} {device.gibibytes} GB" for device in devices.fitting(kind, bits, num_bytes)]


def _measured(shape: Shape, bits: int, group: int, peak: MemoryPeak) -> Measured:
    """Computed for the load under which the peak was seen, not for the table's."""
    is_transformers = peak.engine.startswith("transformers")
    on_processor = ENGINE_BYTES[PROCESSOR] if is_transformers else VLLM_ON_PROCESSOR
    load = Load(
        peak.kv_tokens,
        number_bytes=memory.FP32 if peak.dtype == "float32" else memory.HALF,
        step_tokens=peak.step_tokens,
        kv_copies=2.0 if is_transformers else 1.0,
    )
    # On a card torch's own figure is recorded, which knows nothing of the CUDA context.
    engine = 0.0 if peak.device == "cuda" else on_processor
    need = memory.estimate(shape, bits, load, engine=engine, group_size=group)
    return Measured(f"{peak.engine}, {peak.dtype}", peak.device, peak.num_bytes, round(need.total), peak.kv_tokens)
