"""Quantize one checkpoint folder, and see whether the result still is the model: a process of its own.

    python -m worker.quantizing REQUEST.json

GPTQModel patches libraries, starts threads and keeps memory; none of it reaches the worker. What is done is written,
a JSON object a line, into the file that the request names: `line` and `progress` as it goes, then `result` or `error`.
The libraries talk on standard output and error, which the worker keeps in a log.
"""

import dataclasses
import json
import os
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

WORKERS_AT_LEAST = 2
"""GPTQModel refuses to start its pool with fewer."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
    """What is to be done."""

    source: str
    target: str
    """A folder that is made here."""
    events: str
    bits: int
    group_size: int
    shares: dict[str, float]
    """Sources of calibration text, and how much of it each gives."""
    threads: int
    device: str
    """`cpu`, or a device of torch."""
    scoring_dtype: str
    max_loss: float
    """Nats a token that it may lose before it counts as broken."""


class Reporter:
    """Appends to the file that the worker reads."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def __call__(self, line: str = "", progress: float | None = None) -> None:
        """Say how far it is."""
        self.put({"line": line, "progress": progress})

    def put(self, content: dict[str, Any]) -> None:
        """Write an object as one line."""
        with self._file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(content, ensure_ascii=False) + "\n")


class QuantizingError(Exception):
    """It cannot be done, or came out broken, in a sentence for whoever asked."""


def main(arguments: list[str]) -> None:
    """Do what the file in the only argument asks for."""
    place = Path(arguments[0]).absolute()
    request = Request(**json.loads(place.read_text(encoding="utf-8")))
    request = dataclasses.replace(
        request,
        source=str(Path(request.source).absolute()),
        target=str(Path(request.target).absolute()),
        events=str(Path(request.events).absolute()),
    )
    os.chdir(place.parent)  # GPTQModel writes a folder `logs` into the current one
    # Read when the libraries are imported.
    os.environ["GPTQMODEL_CPU_WORKERS"] = str(max(WORKERS_AT_LEAST, request.threads))
    os.environ["OMP_NUM_THREADS"] = str(request.threads)
    if request.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    os.environ["HF_HUB_OFFLINE"] = "1"
    report = Reporter(Path(request.events))
    try:
        report.put({"result": quantize(request, report)})
    except QuantizingError as error:
        report.put({"error": str(error)})
        sys.exit(1)


def quantize(request: Request, report: Reporter) -> dict[str, Any]:
    """Write the quantized folder and give what is to be kept of how it was made.

    Raises:
        QuantizingError: the model that came out is broken.
    """
    # Heavy, and only after the environment is set.
    from worker import calibration, quantcheck  # noqa: PLC0415
    from worker.engine.tokenizer import load_tokenizer  # noqa: PLC0415

    began = time.monotonic()
    source, target = Path(request.source), Path(request.target)
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    report("Reading the text that it is measured on.", 0.02)
    texts = calibration.texts(load_tokenizer(source), int(config["max_position_embeddings"]), request.shares)
    made: dict[str, Any] = {"calibration": None, "versions": {"torch": version("torch")}}
    if request.bits == 4:
        from worker.gptq import write_gptq  # noqa: PLC0415

        report(f"GPTQ with {len(texts.calibration)} sequences of {texts.num_tokens:,} tokens together.", 0.1)
        write_gptq(source, target, texts.calibration, request.group_size, request.device)
        made["calibration"] = {"sources": texts.sources, "tokens": texts.num_tokens}
        made["versions"]["gptqmodel"] = version("gptqmodel")
    else:
        from worker.w8a8 import write_w8a8  # noqa: PLC0415

        report("Rounding the weights to int8, with a scale a channel.", 0.1)
        write_w8a8(source, target)
        made["versions"]["compressed-tensors"] = version("compressed-tensors")
    made["quantizing_seconds"] = round(time.monotonic() - began, 1)
    report(f"Quantized in {made['quantizing_seconds']} s; now asking both what they think of the same text.", 0.8)
    found = quantcheck.compare(source, target, texts.checks, dtype=request.scoring_dtype, threads=request.threads)
    if reason := found.why_broken(request.max_loss):
        raise QuantizingError(reason)
    made["check"] = found.as_json()
    report(f"It loses {found.loss:.4f} nats a token of {found.before:.4f} ({found.tokens:,} tokens).", 0.95)
    return made


if __name__ == "__main__":
    main(sys.argv[1:])
