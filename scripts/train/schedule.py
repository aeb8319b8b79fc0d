"""Learning rate as a pure function of the step."""

import math


def learning_rate(step: int, *, peak: float, warmup_steps: int, total_steps: int, quadratic: bool = True) -> float:
    """Return the learning rate of optimizer step `step`: warm-up, then cosine towards 0.

    Args:
        step: 0-based optimizer step, 0 <= step < total_steps.
        peak: largest value, reached at step `warmup_steps`.
        warmup_steps: steps of the rise; step 0 has rate 0, unless there is no warm-up.
        total_steps: step at which the cosine would reach 0.
        quadratic: rise with the square of the step instead of linearly.

    Raises:
        ValueError: `step` outside [0, total_steps) or warmup_steps >= total_steps.

    Source:
        the announcement ("32 warmup steps, applied quadratically"); axolotl 35130711d, `lr_quadratic_warmup`.
    """
    if not 0 <= step < total_steps or warmup_steps >= total_steps:
        raise ValueError(f"step {step}, warm-up {warmup_steps}, total {total_steps}")
    if step < warmup_steps:
        return peak * (step / warmup_steps) ** (2 if quadratic else 1)
    progress = (step - warmup_steps) / (total_steps - warmup_steps)
    return peak * max(0.0, (1.0 + math.cos(math.pi * progress)) / 2.0)
