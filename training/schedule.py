"""The learning rate of a step, as a pure function: a resumed run needs no scheduler state."""

import math

from training.config import Schedule


def learning_rate(schedule: Schedule, *, step: int, max_steps: int, peak: float) -> float:
    """Learning rate of the step that follows `step` finished ones.

    WSD: MiniCPM (arXiv 2404.06395) - up, level, and down over the last `decay_fraction`, here in a straight line.
    """
    if step < schedule.warmup_steps:
        return peak * (step + 1) / schedule.warmup_steps
    if schedule.kind == "cosine":
        begin = schedule.warmup_steps
    else:
        begin = max(schedule.warmup_steps, round(max_steps * (1 - schedule.decay_fraction)))
    # The last step of the run, number max_steps - 1, gets exactly the final rate.
    progress = min(1.0, max(0.0, (step - begin + 1) / max(1, max_steps - begin)))
    shape = 0.5 * (1 + math.cos(math.pi * progress)) if schedule.kind == "cosine" else 1 - progress
    return peak * (schedule.final_fraction + (1 - schedule.final_fraction) * shape)
