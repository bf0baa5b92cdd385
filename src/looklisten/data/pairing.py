"""Which frames and sounds of a batch are compared, and which of the pairs correspond.

Knows rows and their videos, no media.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Pairing:
    """Which rows of one step may be paired; each process computes its own rows only."""

    rows: Int64[Tensor, " own"]
    """Positions of one's own rows among all rows."""
    partners: Int64[Tensor, " all"]
    """For each row, the one whose sound makes its negative."""
    videos: Int64[Tensor, " all"]
    """A number for each row's video."""
    has_recorded_sound: Bool[Tensor, " all"]
    """Whether the sound of a row is of its video. If not, it is an empty one, of no frame."""

    def masks(self, everyone: bool) -> tuple[Bool[Tensor, "own all"], Bool[Tensor, "own all"]]:
        """Which pairs of own frames and all sounds are positives, and which are negatives.

        `everyone`: all pairs of two videos are negatives; else the partners only. A frame and the
        empty sound of its row are a negative.
        """
        positions = torch.arange(len(self.videos), device=self.videos.device)
        same_row = self.rows[:, None] == positions
        if everyone:
            negatives = self.videos[self.rows, None] != self.videos
        else:
            negatives = self.partners[self.rows, None] == positions
        return same_row & self.has_recorded_sound, negatives | (same_row & ~self.has_recorded_sound)

    def mean_counts(self, everyone: bool) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """How many positives and negatives a process has in the mean over all processes.

        A mean that is divided by these counts is the same for any number of processes. `everyone`
        is that of `masks`. Where there are no pairs of a kind, the count is of one.
        """
        all_rows = torch.arange(len(self.videos), device=self.videos.device)
        positives, negatives = replace(self, rows=all_rows).masks(everyone)
        share = len(self.rows) / len(self.videos)
        # At least one, because a mean over no pairs is 0 and not 0 / 0.
        return positives.sum().clamp_min(1) * share, negatives.sum().clamp_min(1) * share

    def of_own_rows(self) -> "Pairing":
        """A pairing of one's own rows only, each with the next one."""
        positions = torch.arange(len(self.rows))
        return Pairing(
            positions,
            positions.roll(-1),
            self.videos[self.rows],
            self.has_recorded_sound[self.rows],
        )

    def to(self, device: torch.device) -> "Pairing":
        """A copy on a device."""
        return Pairing(*(part.to(device, non_blocking=True) for part in vars(self).values()))


def pair_up(rows: NDArray[np.int64], videos: NDArray[Any], distance: int = 1) -> Pairing:
    """Pair the rows of a batch: two same-video rows with each other, others in turn.

    Each of the others gets the sound of the one that lies `distance` further, and the last ones get
    those of the first. `videos`: the id or the number of each row's video.
    """
    video_numbers = np.unique(videos, return_inverse=True)[1]
    size = len(video_numbers)
    same_video_rows = 0
    while (
        same_video_rows + 1 < size
        and video_numbers[same_video_rows] == video_numbers[same_video_rows + 1]
    ):
        same_video_rows += 2
    # 0 and 1, 2 and 3 … are partners.
    partners = np.arange(size) ^ 1
    # The same frames and sounds in another order, so that neither side alone tells a negative.
    partners[same_video_rows:] = np.roll(np.arange(same_video_rows, size), -distance)
    # A single row after same-video rows has no other row of its kind.
    if same_video_rows == size - 1:
        partners[-1] = 0
    return Pairing(
        torch.from_numpy(rows),
        torch.from_numpy(partners),
        torch.from_numpy(video_numbers),
        torch.ones(size, dtype=torch.bool),
    )
