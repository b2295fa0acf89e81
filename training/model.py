"""The LLaMA of a config, and its random start."""

import contextlib
import hashlib
import math
from collections.abc import Iterator
from typing import Any

import deepspeed
import torch
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.initialization import no_init_weights

from training.config import Config


def build_model(config: Config, *, meta: bool = False, deepspeed_config: dict[str, Any] | None = None) -> Any:
    """A `LlamaForCausalLM` of the config's shape.

    `meta` makes only the shape, without memory. Under ZeRO 3 (`deepspeed_config` given) each
    process holds its part from the beginning: 13 billion parameters never stand in one place.
    """
    place: contextlib.AbstractContextManager[Any] = contextlib.nullcontext()
    if meta:
        place = torch.device("meta")
    elif deepspeed_config is not None and config.parallel.zero_stage == 3:
        place = deepspeed.zero.Init(config_dict_or_path=deepspeed_config)
    # `randomize` gives the start; transformers' own would trip over parameters that ZeRO 3 cut up.
    with place, no_init_weights():
        model = LlamaForCausalLM(llama_config(config))
    model.tie_weights()  # no_init_weights leaves this out too; without effect where config says untied
    if config.parallel.activation_checkpointing and not meta:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    return model


def llama_config(config: Config) -> LlamaConfig:
    """The shape as transformers writes it into config.json."""
    shape = config.model
    return LlamaConfig(
        vocab_size=shape.vocab_size,
        hidden_size=shape.hidden_size,
        num_hidden_layers=shape.num_layers,
        num_attention_heads=shape.num_heads,
        num_key_value_heads=shape.num_heads,
        intermediate_size=shape.intermediate_size,
        max_position_embeddings=shape.context_length,
        tie_word_embeddings=shape.tie_embeddings,
        rope_theta=shape.rope_theta,
        rms_norm_eps=shape.norm_epsilon,
        initializer_range=shape.initial_std,
        # The order of training.tokenizer's special tokens.
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=2,
        use_cache=False,
    )


def count_parameters(config: Config) -> int:
    """Parameters of the model; tied ones count once."""
    return sum(parameter.numel() for parameter in build_model(config, meta=True).parameters())


def training_flops(num_parameters: int, num_tokens: int) -> float:
    """Floating-point operations of training: 6 per parameter and token.

    Kaplan et al. 2020 (arXiv 2001.08361, section 2.1): 2 for the forward and 4 for the backward pass.
    """
    return 6.0 * num_parameters * num_tokens


def randomize(model: Any, config: Config) -> None:
    """Give every weight its start: a pure function of the seed and the weight's name.

    So one process, many, and parameters cut up by ZeRO 3 all begin at the same point. Layers that
    write into the residual stream start smaller by the square root of their number (GPT-2).
    """
    residual_std = config.model.initial_std / math.sqrt(2 * config.model.num_layers)
    for name, parameter in model.named_parameters():
        with _whole(parameter), torch.no_grad():
            if parameter.numel() == 0:
                continue  # another process fills it
            if parameter.dim() == 1:
                parameter.fill_(1.0)
                continue
            generator = torch.Generator().manual_seed(_name_seed(config.seed, name))
            std = residual_std if name.endswith(("o_proj.weight", "down_proj.weight")) else config.model.initial_std
            start = torch.empty(parameter.shape, dtype=torch.float32).normal_(0.0, std, generator=generator)
            parameter.copy_(start)


def _name_seed(seed: int, name: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:8], "big") >> 1


@contextlib.contextmanager
def _whole(parameter: Any) -> Iterator[None]:
    """Inside, `parameter` has all its values on process 0, whose changes reach the others' parts."""
    if not hasattr(parameter, "ds_id"):
        yield
        return
    with deepspeed.zero.GatheredParameters([parameter], modifier_rank=0):
        yield
