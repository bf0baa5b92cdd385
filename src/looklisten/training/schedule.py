"""The learning rate of each step."""

import math

from looklisten.config import TrainConfig


def learning_rate(config: TrainConfig, step: int, steps_per_epoch: int = 1) -> float:
    """The learning rate of a step, counted from 1.

    A linear climb, then constant, stairs, or half a cosine down to zero after the last step.
    """
    if step <= config.warmup_steps:
        return config.learning_rate * step / config.warmup_steps
    if config.schedule == "constant":
        return config.learning_rate
    if config.schedule == "stairs":
        stairs = (step - 1) // (steps_per_epoch * config.stair_epochs)
        return config.learning_rate * config.stair_factor**stairs
    done = (step - config.warmup_steps - 1) / max(config.steps - config.warmup_steps, 1)
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * done))
