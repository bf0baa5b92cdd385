"""How `adapt` fits a network to own footage.

Imports neither NumPy nor PyTorch, so that the command line can use it.
"""

from dataclasses import dataclass

from looklisten.errors import ConfigError


@dataclass(frozen=True)
class AdaptOptions:
    """How a fusion is trained on the features of frozen towers, and on what it is measured."""

    steps: int = 600
    """At most so many steps; it stops earlier where held-out pairs get no better."""
    batch_size: int = 128
    """Videos of a batch; fewer where there are fewer."""
    learning_rate: float = 5e-4
    """Of the fusion. The towers stay as they are."""
    weight_decay: float = 1e-4
    """L2, added to the gradient."""
    frames_per_second: float = 1.0
    """Frames of a clip whose features are computed, each with two windows of sound."""
    measured_fraction: float = 0.2
    """The share of the videos that says how good it is before and after."""
    chosen_fraction: float = 0.2
    """The share of the others that chooses when to stop."""
    seed: int = 0
    """Of the batches."""

    def __post_init__(self) -> None:
        for name in ("steps", "learning_rate", "frames_per_second"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"{name} must be above 0")
        for name in ("measured_fraction", "chosen_fraction"):
            if not 0 < getattr(self, name) < 1:
                raise ConfigError(f"{name} must lie between 0 and 1")
        if self.batch_size < 2:
            raise ConfigError("batch_size must be at least 2")
