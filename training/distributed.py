"""Joining the other processes of a run, one or many, on processors or GPUs."""

import os
from typing import Any

import deepspeed
import torch
import torch.distributed

from training.config import Config


def join() -> None:
    """Form the process group: from the launcher's environment, or of this process alone."""
    if torch.distributed.is_initialized():
        return
    on_gpu = torch.cuda.is_available()
    # DeepSpeed would compile its shared-memory collectives at the first start on a processor: half
    # a minute, and a C++ compiler that may not be there. Gloo does without them.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    if on_gpu:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    if "MASTER_ADDR" not in os.environ:  # no launcher started us
        os.environ.update(RANK="0", LOCAL_RANK="0", WORLD_SIZE="1", LOCAL_WORLD_SIZE="1")
        # A store in memory needs no port, which on a shared machine may be taken.
        torch.distributed.init_process_group(
            "nccl" if on_gpu else "gloo", store=torch.distributed.HashStore(), rank=0, world_size=1
        )
    deepspeed.init_distributed(dist_backend="nccl" if on_gpu else "gloo", auto_mpi_discovery=False, verbose=False)


def is_joined() -> bool:
    """Whether the process group is formed."""
    return bool(torch.distributed.is_initialized())


def leave() -> None:
    """Part from the other processes."""
    if is_joined():
        torch.distributed.destroy_process_group()


def device() -> Any:
    """Where this process computes."""
    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")


def multiplies_bf16() -> bool:
    """Whether the device multiplies bf16 by itself; a processor without AVX512-BF16 or AMX takes ten times as long."""
    if torch.cuda.is_available():
        return True
    has = torch.cpu.get_capabilities()
    return bool(has.get("avx512_bf16") or has.get("amx_bf16"))


def rank() -> int:
    """Number of this process in the run."""
    return int(torch.distributed.get_rank())


def world_size() -> int:
    """How many processes the run has."""
    return int(torch.distributed.get_world_size())


def barrier() -> None:
    """Wait for all."""
    torch.distributed.barrier()


def mean(values: list[float]) -> list[float]:
    """Average each value over the processes."""
    tensor = torch.tensor(values, dtype=torch.float64, device=device())
    torch.distributed.all_reduce(tensor)
    return [float(value) for value in tensor / world_size()]


def from_first(value: str) -> str:
    """What process 0 says, on every process."""
    box = [value]
    torch.distributed.broadcast_object_list(box, src=0, device=device())
    return box[0]


def set_threads(config: Config) -> None:
    """Processor threads of torch: GROW_TRAINING_THREADS, else the config's number, else torch's choice."""
    threads = int(os.environ.get("GROW_TRAINING_THREADS", "0")) or config.parallel.torch_threads
    if threads > 0:
        torch.set_num_threads(threads)
