"""The options of the verb `probe`. Imports neither torch nor numpy, so that `--help` is fast."""

from dataclasses import dataclass
from pathlib import Path

from looklisten.errors import OptionError
from looklisten.option_checks import check_at_least

PAPER_LAYER = "conv4_2"
"""The layer that the paper classifies."""


@dataclass(frozen=True)
class ProbeOptions:
    """How a linear probe is run; each default stands here and nowhere else."""

    compare: str = "all"
    """Baselines in the table: all, none, or names joined by commas: untrained, spectrogram (for
    sounds), colors (for images)."""
    layer: str | None = None
    """The layer whose vectors are classified. By default the paper's, conv4_2: 6144 numbers for a
    second of sound, 8192 for an image; of a network without it, its usual layer. pool4 has 512
    numbers. aligned is the space that both sides share. texture, for sounds only, describes how all
    units of all layers vary over time; it is not the paper's."""
    cache: str | Path | None = None
    """Folder for vectors, so that none is computed twice. The command line uses the user's cache by
    default; Python stores nothing by default."""
    partial: bool = False
    """Measure a set of which files are missing; such a figure cannot be compared."""
    untrained_seeds: int | None = None
    """How many untrained networks are measured, each with another seed; their row is the mean. By
    default 3 for sounds and 1 for images."""
    per_clip: int = 5
    """For shards only: how many moments of each clip are classified."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""

    def __post_init__(self) -> None:
        if self.untrained_seeds is not None and self.untrained_seeds < 1:
            raise OptionError(
                f"untrained_seeds {self.untrained_seeds} must be at least 1; "
                'to have no untrained network in the table, set compare to "none"',
                "untrained_seeds",
            )
        check_at_least(1, per_clip=self.per_clip)
