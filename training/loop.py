"""The training loop. It knows text, a model and DeepSpeed; where results go, its `Observer` decides.

All that a step reads follows from the config and the number of finished steps: the samples
(`order`), the learning rate (`schedule`), the random start (`model.randomize`). So a run that was
killed goes on from its last complete state exactly as if nothing had happened.
"""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import deepspeed
import numpy as np
import structlog
import torch

from training import distributed, export, state
from training.config import Config
from training.corpus import PackedCorpus
from training.model import build_model, count_parameters, randomize, training_flops
from training.order import SampleOrder
from training.schedule import learning_rate

__all__ = ["Facts", "NotFinite", "Observer", "Trainer", "build_model"]

log = structlog.get_logger(__name__)


class NotFinite(RuntimeError):
    """The loss is no number any more; going on would only spread it."""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What there is to know about the model after `step` steps."""

    step: int
    tokens_seen: int
    flops: float
    num_parameters: int


class Observer(Protocol):
    """Is told what happens; only process 0 calls it."""

    def on_start(self, after: int) -> None:
        """The next step is the one after `after`; what was told of later ones will be done again. -1: from nothing."""

    def on_metrics(self, step: int, tokens_seen: int, values: Mapping[str, float]) -> None:
        """Scalars of a step."""

    def on_checkpoint(self, folder: Path, facts: Facts) -> None:
        """A finished Hugging Face folder, to be moved away."""


@dataclass(kw_only=True)
class Window:
    """What was measured since the last log line; saved with a state, so that no step is lost or counted twice."""

    losses: list[float] = field(default_factory=list)
    grad_norms: list[float] = field(default_factory=list)


class Trainer:
    """One process's share of a run."""

    def __init__(self, config: Config, corpus: PackedCorpus, run_folder: Path, observer: Observer) -> None:
        self.config = config
        self.corpus = corpus
        self.run_folder = run_folder
        self.observer = observer
        self.step = 0
        self.num_parameters = count_parameters(config)
        self._window = Window()
        self._order = SampleOrder(seed=config.seed, num_windows=corpus.num_windows(), mixture=config.corpus.mixture)
        self.dtype = _choose_dtype(config, self.states)
        self.engine, self.optimizer = _start_engine(config, self.dtype)
        self._clock = time.monotonic()
        self._clock_step = 0

    @property
    def states(self) -> Path:
        """Where this run's states are."""
        return self.run_folder / "state"

    @property
    def is_finished(self) -> bool:
        """Whether all steps are done."""
        return self.step >= self.config.max_steps

    def facts(self) -> Facts:
        """The facts of the model as it is now."""
        tokens_seen = self.step * self.config.tokens_per_step
        return Facts(
            step=self.step,
            tokens_seen=tokens_seen,
            flops=training_flops(self.num_parameters, tokens_seen),
            num_parameters=self.num_parameters,
        )

    def run(self, should_stop: Callable[[], bool]) -> bool:
        """Train to the last step, or until `should_stop`; returns whether the last step is done.

        Raises:
            NotFinite: the loss became NaN or infinite.
        """
        self._resume()
        self._clock, self._clock_step = time.monotonic(), self.step
        stop = False
        while not stop and not self.is_finished:
            stop = self._train_step(should_stop)
            self._log()
            if self.config.is_checkpoint_step(self.step):
                self._evaluate()
                self._save_state()
                self._publish()
            elif self.step % self.config.evaluate_every == 0:
                self._evaluate()
        if stop and not self.config.is_checkpoint_step(self.step):
            self._save_state()
        return self.is_finished

    def _resume(self) -> None:
        """Go on from the last complete state, or publish the random start."""
        if distributed.rank() == 0:
            state.remove_incomplete(self.states)
        distributed.barrier()
        steps = state.complete_steps(self.states)
        if steps:
            self._load_state(steps[-1])
            log.info("Going on from a saved state.", step=self.step)
        if distributed.rank() == 0:
            self.observer.on_start(self.step if steps else -1)
        if not steps:
            self._evaluate()
            self._save_state()
        # Also after a resume: the process may have died between saving and publishing.
        if self.config.is_checkpoint_step(self.step):
            self._publish()

    def _train_step(self, should_stop: Callable[[], bool]) -> bool:
        """One optimizer step over the whole batch; returns whether any process was asked to stop."""
        rate = learning_rate(
            self.config.schedule,
            step=self.step,
            max_steps=self.config.max_steps,
            peak=self.config.optimizer.learning_rate,
        )
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        micro = self.config.parallel.micro_batch_size
        own = self.config.batch_size // distributed.world_size()
        first = self.step * self.config.batch_size + distributed.rank() * own
        total = 0.0
        for start in range(first, first + own, micro):
            tokens = self._batch(range(start, start + micro))
            loss = self.engine(input_ids=tokens, labels=tokens).loss
            total += float(loss.detach()) * micro / own
            last = start + micro >= first + own
            self.engine.backward(loss)
            if last:
                # One small exchange a step: everybody then stops, or fails, after the same step.
                mean_loss, stop = distributed.mean([total, float(should_stop())])
                self._require_finite(mean_loss)
            self.engine.step()
        self.step += 1
        self._window.losses.append(mean_loss)
        self._window.grad_norms.append(float(self.engine.get_global_grad_norm() or 0.0))
        return stop > 0

    def _require_finite(self, loss: float) -> None:
        if not math.isfinite(loss):
            raise NotFinite(
                f"The loss of step {self.step + 1} is {loss}. The last complete state is untouched; "
                "try a lower learning rate under another run name, or look at the text of this step."
            )

    def _batch(self, samples: range) -> torch.Tensor:
        places = [self._order.place(sample) for sample in samples]
        windows = np.stack([self.corpus.window(place.language, place.window) for place in places])
        return torch.from_numpy(windows).to(distributed.device())

    def _log(self) -> None:
        if self.step % self.config.log_every and not self.is_finished:
            return
        now = time.monotonic()
        seconds, steps = max(now - self._clock, 1e-9), self.step - self._clock_step
        values = {
            "train/loss": float(np.mean(self._window.losses)),
            "train/grad_norm": float(np.mean(self._window.grad_norms)),
            "train/learning_rate": float(self.optimizer.param_groups[0]["lr"]),
            "train/tokens_per_second": steps * self.config.tokens_per_step / seconds,
        }
        read = self._read_since(self.step - len(self._window.losses))
        self._window = Window()
        if distributed.rank() == 0:
            shown = {name.removeprefix("train/"): float(f"{value:.4g}") for name, value in values.items()}
            log.info("Trained.", step=self.step, of=self.config.max_steps, **shown)
        self._tell(values | read)
        self._clock, self._clock_step = time.monotonic(), self.step

    def _read_since(self, step: int) -> dict[str, float]:
        """Tokens of each language that all processes have read since a step: the mixture as it was."""
        samples = range(step * self.config.batch_size, self.step * self.config.batch_size)
        length = self.config.model.context_length
        return {f"data/tokens_{name}": float(count * length) for name, count in self._order.tally(samples).items()}

    def _tell(self, values: Mapping[str, float]) -> None:
        if distributed.rank() == 0:
            self.observer.on_metrics(self.step, self.step * self.config.tokens_per_step, values)

    def _evaluate(self) -> None:
        """Held-out loss of each language. Every process reads the same windows: ZeRO 3 needs all in each forward."""
        began = time.monotonic()
        self.engine.eval()
        values = {}
        with torch.no_grad():
            for language in self.corpus.num_windows():
                windows = self.corpus.held_out_windows(language, self.config.evaluation_sequences)
                losses = []
                for window in windows:
                    tokens = torch.from_numpy(window[None]).to(distributed.device())
                    losses.append(float(self.engine(input_ids=tokens, labels=tokens).loss))
                values[f"heldout/loss_{language}"] = float(np.mean(losses))
        self.engine.train()
        self._tell(values)
        self._clock += time.monotonic() - began  # tokens/s is about training

    def _save_state(self) -> None:
        began = time.monotonic()
        folder = self.states / state.tag(self.step)
        if distributed.rank() == 0 and folder.exists():
            state.remove(folder)
        distributed.barrier()
        client = {"step": self.step, "losses": self._window.losses, "grad_norms": self._window.grad_norms}
        self.engine.save_checkpoint(str(self.states), tag=state.tag(self.step), client_state=client, save_latest=False)
        distributed.barrier()
        if distributed.rank() == 0:
            facts = {
                "step": self.step,
                "world_size": distributed.world_size(),
                "zero_stage": self.config.parallel.zero_stage,
                "corpus": self.corpus.fingerprint,
                "dtype": self.dtype,
            }
            state.mark_complete(folder, facts)
            self._drop_old_states()
        distributed.barrier()
        self._clock += time.monotonic() - began

    def _drop_old_states(self) -> None:
        steps = state.complete_steps(self.states)
        keep = self.config.checkpoints.keep_states
        old = set(steps[:-keep]) if keep else set()
        # A state saved because of a signal was only a bookmark.
        old |= {step for step in steps[:-1] if not self.config.is_checkpoint_step(step)}
        for step in sorted(old):
            state.remove(self.states / state.tag(step))

    def _load_state(self, step: int) -> None:
        folder = self.states / state.tag(step)
        facts = state.read_mark(folder)
        for name, now in (("world_size", distributed.world_size()), ("zero_stage", self.config.parallel.zero_stage)):
            if facts[name] != now:
                raise ValueError(
                    f"The state of step {step} was saved with {name} {facts[name]}, now it is {now}. Start with the "
                    "same number, or convert the state with DeepSpeed's ds_to_universal first."
                )
        path, client = self.engine.load_checkpoint(str(self.states), tag=state.tag(step))
        if path is None:
            raise ValueError(f"DeepSpeed could not read the state in {folder}.")
        self.step = int(client["step"])
        self._window = Window(losses=list(client["losses"]), grad_norms=list(client["grad_norms"]))

    def _publish(self) -> None:
        began = time.monotonic()
        folder = self.run_folder / "export" / state.tag(self.step)
        export.write_checkpoint(self.engine.module, self.corpus.tokenizer_folder, folder)
        if distributed.rank() == 0:
            self.observer.on_checkpoint(folder, self.facts())
        distributed.barrier()
        self._clock += time.monotonic() - began


def _choose_dtype(config: Config, states: Path) -> str:
    """`bfloat16` where the device multiplies it, else `float32`; a run that stands keeps what it began with.

    Checkpoints are published in bf16 either way. DeepSpeed tells the norm of fp32 gradients only under ZeRO.
    """
    if steps := state.complete_steps(states):
        return str(state.read_mark(states / state.tag(steps[-1])).get("dtype", "bfloat16"))
    return "bfloat16" if distributed.multiplies_bf16() or not config.parallel.zero_stage else "float32"


def deepspeed_config(config: Config, dtype: str = "bfloat16") -> dict[str, Any]:
    """What DeepSpeed is told.

    Raises:
        ValueError: the batch cannot be shared out over the processes there are.
    """
    processes, micro = distributed.world_size(), config.parallel.micro_batch_size
    if config.batch_size % (processes * micro):
        raise ValueError(
            f"A batch of {config.batch_size} sequences cannot be shared by {processes} processes "
            f"that compute {micro} at once."
        )
    return {
        "train_batch_size": config.batch_size,
        "train_micro_batch_size_per_gpu": micro,
        "gradient_accumulation_steps": config.batch_size // (processes * micro),
        "bf16": {"enabled": dtype == "bfloat16"},
        "zero_optimization": {"stage": config.parallel.zero_stage},
        "gradient_clipping": config.optimizer.max_grad_norm,
        # torch's AdamW: DeepSpeed's own would be compiled at the first start.
        "zero_allow_untested_optimizer": True,
        "steps_per_print": 10**12,
    }


def _start_engine(config: Config, dtype: str) -> tuple[Any, Any]:
    settings = deepspeed_config(config, dtype)
    model = build_model(config, deepspeed_config=settings)
    frequencies = rotary_frequencies(config)
    randomize(model, config)
    engine, optimizer, _, _ = deepspeed.initialize(
        model=model, optimizer=_make_optimizer(model, config), config=settings
    )
    # zero.Init rounds these to bf16, so that far positions turn by a wrong angle; whoever loads the
    # checkpoint computes them in fp32 and would be another model.
    rotary = engine.module.model.rotary_emb
    rotary.inv_freq = frequencies.to(distributed.device())
    rotary.original_inv_freq = rotary.inv_freq.clone()
    # DeepSpeed makes the moments by a trial step, which AdamW counts.
    for moments in optimizer.optimizer.state.values():
        if isinstance(moments.get("step"), torch.Tensor):
            moments["step"].zero_()
    return engine, optimizer


def rotary_frequencies(config: Config) -> torch.Tensor:
    """Angle per position of each pair of dimensions, in fp32, as transformers computes it."""
    size = config.model.hidden_size // config.model.num_heads
    exponents = torch.arange(0, size, 2, dtype=torch.int64).float() / size
    return 1.0 / (config.model.rope_theta**exponents)


def _make_optimizer(model: Any, config: Config) -> torch.optim.AdamW:
    """AdamW that decays matrices only. Its rate is 0 until the first step sets it: the trial step changes nothing."""
    settings = config.optimizer
    matrices: list[torch.nn.Parameter] = []
    vectors: list[torch.nn.Parameter] = []
    for parameter in model.parameters():
        # ZeRO 3 keeps the true shape beside its flat part.
        (matrices if len(getattr(parameter, "ds_shape", parameter.shape)) > 1 else vectors).append(parameter)
    return torch.optim.AdamW(
        [
            {"params": matrices, "weight_decay": settings.weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ],
        lr=0.0,
        betas=(settings.beta1, settings.beta2),
        eps=settings.epsilon,
    )
