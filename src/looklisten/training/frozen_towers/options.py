"""How `adapt` fits a network to own footage.

Imports neither NumPy nor PyTorch, so that the command line can use it.
"""

import math
from dataclasses import dataclass

from looklisten.errors import OptionError

MAX_FRAMES_PER_SECOND = 100


@dataclass(frozen=True)
class AdaptOptions:
    """How a fusion is trained on the features of frozen towers, and on what it is measured."""

    steps: int = 600
    """At most so many steps; it stops earlier where the videos that choose when to stop get no
    better.
    """
    batch_size: int = 128
    """Videos of a batch; fewer where there are fewer."""
    learning_rate: float = 5e-4
    """Of the fusion. The towers stay as they are."""
    weight_decay: float = 1e-4
    """L2, added to the gradient."""
    frames_per_second: float = 1.0
    """Frames of a clip whose features are computed, each with two windows of sound."""
    measured_fraction: float = 0.2
    """The share of the videos that says how good it is before and after. Of 50 videos it is 10;
    fewer tell little.
    """
    chosen_fraction: float = 0.2
    """The share of the others that chooses when to stop."""
    seed: int = 0
    """Of the batches."""

    def __post_init__(self) -> None:
        for name in ("steps", "learning_rate", "frames_per_second"):
            # `not <`, so that NaN is refused too.
            if not 0 < getattr(self, name) < math.inf:
                raise OptionError(f"{name} must be above 0 and finite", name)
        if self.frames_per_second > MAX_FRAMES_PER_SECOND:
            raise OptionError(
                f"frames_per_second must be at most {MAX_FRAMES_PER_SECOND}", "frames_per_second"
            )
        if not 0 <= self.weight_decay < math.inf:
            raise OptionError("weight_decay must be at least 0 and finite", "weight_decay")
        for name in ("measured_fraction", "chosen_fraction"):
            if not 0 < getattr(self, name) < 1:
                raise OptionError(f"{name} must lie between 0 and 1", name)
        if self.batch_size < 2:
            raise OptionError("batch_size must be at least 2", "batch_size")
        if not 0 <= self.seed < 2**63:
            raise OptionError("seed must be from 0 to 2**63 - 1", "seed")
