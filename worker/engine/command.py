"""The command line and the environment of the vLLM child."""

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from worker.engine.protocol import EngineError
from worker.engine.shape import ModelShape

EXTENSION = "worker.engine.extension.Extension"
MIDDLEWARE = "worker.engine.answers_app.Answers"
CPU_SEQUENCES = 64
CPU_BATCHED_TOKENS = 2_048
CPU_HEAD_WIDTHS = (32, 64, 80, 96, 112, 128, 160, 192, 224, 256, 512)
"""`get_supported_head_sizes` of vllm/v1/attention/backends/cpu_attn.py, 0.32.0."""
MIN_KV_BYTES = 64 * 2**20
MAX_KV_BYTES = 4 * 2**30


def check_servable(shape: ModelShape) -> None:
    """Refuse, before a child is started for it, what vLLM's processor kernels would die of at the first request.

    Raises:
        EngineError: the attention heads have a width without a kernel.
    """
    if not is_servable(shape):
        raise EngineError(
            f"The model's attention heads are {head_width(shape)} wide; vLLM on processors serves "
            f"{', '.join(map(str, CPU_HEAD_WIDTHS))}. A GPU, or GROW_ENGINE=transformers, can serve it."
        )


def is_servable(shape: ModelShape) -> bool:
    """Whether vLLM has kernels for this architecture here."""
    return has_gpu() or head_width(shape) in CPU_HEAD_WIDTHS


def head_width(shape: ModelShape) -> int:
    """Numbers in one attention head."""
    config = shape.config
    return int(config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"])


def child_command(python: str, folder: Path, socket: Path, shape: ModelShape) -> list[str]:
    """`vllm serve` does not start from the CPU rebuild, whose distribution has another name; the module does."""
    length = shape.context_length
    command = [
        *(python, "-m", "vllm.entrypoints.openai.api_server"),
        *("--uds", str(socket)),
        *("--model", str(folder)),
        *("--served-model-name", "current"),
        *("--dtype", "bfloat16"),
        *("--generation-config", "vllm"),
        *("--worker-extension-cls", EXTENSION),
        *("--middleware", MIDDLEWARE),
        "--disable-uvicorn-access-log",
        # How prompts are scored from the prefix cache; on the same socket as everything else.
        *("--enable-scale-out", "--enable-prompt-tokens-details"),
    ]
    overrides: dict[str, Any] = {}
    if not shape.is_quantized:
        # Rounded to bf16 a logit of 10 is off by up to 0.03; vLLM refuses this for quantized models.
        overrides["head_dtype"] = "float32"
    if shape.has_plain_rope:
        # Scoring sends one token more than the model reads, and vLLM always makes one more.
        length += 2
        overrides["max_position_embeddings"] = length
    if overrides:
        command += ["--hf-overrides", json.dumps(overrides)]
    command += ["--max-model-len", str(length)]
    if not has_gpu():
        command += ["--enforce-eager", "--max-num-seqs", str(CPU_SEQUENCES)]
        command += ["--max-num-batched-tokens", str(max(CPU_BATCHED_TOKENS, length))]
        command += ["--kv-cache-memory-bytes", str(kv_bytes(shape, length))]
    return command


def child_environment(environment: Mapping[str, str], threads: int) -> dict[str, str]:
    """This process's environment, offline, with the reload endpoints on and the threads limited."""
    root = str(Path(__file__).resolve().parents[2])
    paths = [root, *filter(None, environment.get("PYTHONPATH", "").split(":"))]
    changed = {
        "PYTHONPATH": ":".join(paths),  # the child imports the extension
        "PYTHONUNBUFFERED": "1",
        "HF_HUB_OFFLINE": "1",
        "VLLM_SERVER_DEV_MODE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "VLLM_CPU_INT4_W4A8": "0",  # 8-bit activations would change the scores of 4-bit checkpoints
    }
    if threads > 0:
        # Bound to cores it would fight with the trainer for the same ones.
        changed |= {"OMP_NUM_THREADS": str(threads), "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
        if not has_gpu():
            # Unbound, the model needs no process of its own: 9 s of processor time at the start
            # and 580 MB less, measured with 0.32.0.
            changed["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    return dict(environment) | changed


def extra_arguments(environment: Mapping[str, str]) -> list[str]:
    """What the operator adds to the command line (`GROW_VLLM_ARGS`), for instance `--tensor-parallel-size 2`."""
    return shlex.split(environment.get("GROW_VLLM_ARGS", ""))


def kv_bytes(shape: ModelShape, length: int) -> int:
    """KV cache for `CPU_SEQUENCES` whole contexts in bf16, within reason."""
    config = shape.config
    heads = int(config.get("num_key_value_heads") or config["num_attention_heads"])
    per_token = 2 * 2 * int(config["num_hidden_layers"]) * heads * head_width(shape)
    wanted = per_token * length * CPU_SEQUENCES
    return max(min(wanted, MAX_KV_BYTES), MIN_KV_BYTES, per_token * (length + 256))


def has_gpu() -> bool:
    """Whether an NVIDIA driver is loaded; importing torch only to ask would cost seconds."""
    return Path("/dev/nvidiactl").exists()
