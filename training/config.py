"""What a training run is made of, as frozen dataclasses read from `training/configs/<name>.yaml`."""

import dataclasses
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

CONFIGS = Path(__file__).parent / "configs"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Model:
    """Shape of a LLaMA."""

    vocab_size: int
    hidden_size: int
    num_layers: int
    num_heads: int
    intermediate_size: int
    context_length: int
    tie_embeddings: bool = True
    rope_theta: float = 10_000.0
    norm_epsilon: float = 1e-5
    initial_std: float = 0.02


@dataclasses.dataclass(frozen=True, kw_only=True)
class SourceShare:
    """One source of `corpora` and how much of it is used."""

    name: str
    max_megabytes: float = 0.0
    """0 takes all of it."""
    optional: bool = False
    """Left out where its package is not installed."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Corpus:
    """The text, and how much of each language a batch holds."""

    sources: tuple[SourceShare, ...]
    mixture: Mapping[str, float]
    """Share of the sequences of each language: zh, en, code."""
    tokenizer_megabytes: float = 3.0
    """Text of each language that the tokenizer learns from."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Optimizer:
    """AdamW."""

    learning_rate: float
    weight_decay: float = 0.1
    beta1: float = 0.9
    beta2: float = 0.95
    epsilon: float = 1e-8
    max_grad_norm: float = 1.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Schedule:
    """How the learning rate moves over a run."""

    kind: str
    """`wsd` (warm up, stay, decay) or `cosine`."""
    warmup_steps: int
    decay_fraction: float = 0.2
    """Last part of the run in which WSD goes down; cosine does not use it."""
    final_fraction: float = 0.1
    """Learning rate of the last step, as a part of the highest."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Every:
    """A stretch of the checkpoint grid."""

    steps: int
    until: int = 0
    """0: to the end."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Checkpoints:
    """At which steps checkpoints are published, and how many optimizer states stay on disk."""

    first: tuple[int, ...]
    then: tuple[Every, ...]
    keep_states: int = 0
    """The newest N optimizer states stay; 0 keeps all."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Parallel:
    """How the run spreads over processes."""

    zero_stage: int
    micro_batch_size: int
    """Sequences that one process computes at once; the rest of the batch is accumulated."""
    activation_checkpointing: bool = False
    torch_threads: int = 0
    """CPU threads of each process, GROW_TRAINING_THREADS goes before it; 0 leaves the choice to torch."""
    num_nodes: int = 1
    gpus_per_node: int = 0
    """What the run is meant for; 0 is a processor. The launcher decides what it really gets."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """One training run."""

    name: str
    seed: int
    max_steps: int
    batch_size: int
    """Sequences of a step over all processes."""
    model: Model
    corpus: Corpus
    optimizer: Optimizer
    schedule: Schedule
    checkpoints: Checkpoints
    parallel: Parallel
    log_every: int = 10
    evaluate_every: int = 100
    evaluation_sequences: int = 16
    """Held-out sequences of each language behind a held-out loss."""

    @property
    def tokens_per_step(self) -> int:
        """Tokens that one step reads."""
        return self.batch_size * self.model.context_length

    def is_checkpoint_step(self, step: int) -> bool:
        """Whether the model after `step` steps is published; the last one always is."""
        if step == self.max_steps or step in self.checkpoints.first:
            return True
        last_of_first = max(self.checkpoints.first, default=0)
        if step <= last_of_first:
            return False
        for stretch in self.checkpoints.then:
            if not stretch.until or step <= stretch.until:
                return step % stretch.steps == 0
        return False

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as in the YAML."""
        return dataclasses.asdict(self)


def load(name_or_path: str) -> Config:
    """A config by its name in `training/configs`, or from a YAML file.

    Raises:
        ValueError: it does not exist, or a key or value in it is not understood.
    """
    path = Path(name_or_path) if name_or_path.endswith((".yaml", ".yml")) else CONFIGS / f"{name_or_path}.yaml"
    if not path.is_file():
        names = ", ".join(sorted(known.stem for known in CONFIGS.glob("*.yaml")))
        raise ValueError(f"There is no training config '{name_or_path}'. Configs: {names}.")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{path.name} is not valid YAML: {error}") from error
    return from_dict(content, default_name=path.stem)


def from_dict(content: Any, default_name: str = "custom") -> Config:
    """A checked config from plain values.

    Raises:
        ValueError: naming the key that is unknown, missing or of the wrong kind.
    """
    if isinstance(content, Mapping):
        content = {"name": default_name, **content}
    config: Config = _build(Config, content, "")
    check(config)
    return config


def _build(kind: Any, value: Any, where: str) -> Any:
    if not isinstance(value, Mapping):
        raise ValueError(f"{where or 'The config'} must be a mapping, not {value!r}.")
    fields = {field.name: field for field in dataclasses.fields(kind)}
    if unknown := sorted(set(value) - set(fields)):
        raise ValueError(f"Unknown key '{_join(where, unknown[0])}'. Known keys: {', '.join(fields)}.")
    required = [name for name, field in fields.items() if field.default is dataclasses.MISSING]
    if missing := [name for name in required if name not in value]:
        raise ValueError(f"The key '{_join(where, missing[0])}' is missing.")
    hints = typing.get_type_hints(kind)
    return kind(**{name: _convert(hints[name], entry, _join(where, name)) for name, entry in value.items()})


def _convert(kind: Any, value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(kind):
        return _build(kind, value, where)
    origin = typing.get_origin(kind)
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise ValueError(f"'{where}' must be a list, not {value!r}.")
        inner = typing.get_args(kind)[0]
        return tuple(_convert(inner, entry, f"{where}[{number}]") for number, entry in enumerate(value))
    if origin is not None and issubclass(origin, Mapping):
        if not isinstance(value, Mapping):
            raise ValueError(f"'{where}' must be a mapping, not {value!r}.")
        return {str(key): _convert(float, entry, f"{where}.{key}") for key, entry in value.items()}
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not kind:
        raise ValueError(f"'{where}' must be of the type {kind.__name__}, not {value!r}.")
    return value


def _join(where: str, name: str) -> str:
    return f"{where}.{name}" if where else str(name)


def check(config: Config) -> None:
    """Whether the values fit together.

    Raises:
        ValueError: naming the rule that is broken.
    """
    model, parallel = config.model, config.parallel
    rules = (
        (model.hidden_size % model.num_heads == 0, "model.hidden_size must be a multiple of model.num_heads"),
        (model.vocab_size >= 260, "model.vocab_size must be 260 or more: 256 bytes and the special tokens"),
        (parallel.zero_stage in (0, 1, 2, 3), "parallel.zero_stage must be 0, 1, 2 or 3"),
        (config.schedule.kind in ("wsd", "cosine"), "schedule.kind must be 'wsd' or 'cosine'"),
        (sum(config.corpus.mixture.values()) > 0, "corpus.mixture must hold a share above 0"),
        (min(config.corpus.mixture.values(), default=0) >= 0, "corpus.mixture must hold no negative share"),
        (parallel.micro_batch_size > 0, "parallel.micro_batch_size must be above 0"),
        (config.batch_size % parallel.micro_batch_size == 0, "batch_size must be a multiple of the micro batch size"),
        (config.max_steps > 0, "max_steps must be above 0"),
        (config.log_every > 0 and config.evaluate_every > 0, "log_every and evaluate_every must be above 0"),
        (all(stretch.steps > 0 for stretch in config.checkpoints.then), "checkpoints.then: steps must be above 0"),
    )
    for holds, rule in rules:
        if not holds:
            raise ValueError(f"Config '{config.name}': {rule}.")
