"""Batches of features of frozen towers, drawn as training draws frames and seconds of sound."""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from looklisten.data.pairing import Pairing
from looklisten.data.pairs import (
    FULL_BATCH,
    BatchPart,
    FrameTransform,
    PairBatch,
    PairChoices,
    PairStream,
)
from looklisten.data.shards import Shards
from looklisten.model.l3net import L3Net
from looklisten.training.frozen_towers.cache import FeatureCache


@dataclass(frozen=True, eq=False)
class FeatureBatch:
    """Features of frames and sounds: row i of both is of one moment, as in `PairBatch`."""

    vision: Float[Tensor, "batch *positions vision_features"]
    audio: Float[Tensor, "batch *times audio_features"]
    video_ids: tuple[str, ...]
    labels: tuple[str, ...]
    choices: PairChoices
    rows: NDArray[np.int64]
    pairing: Pairing

    def pinned(self) -> "FeatureBatch":
        """A copy in page-locked memory, which a GPU can read without the CPU."""
        return replace(self, vision=self.vision.pin_memory(), audio=self.audio.pin_memory())


class FeatureStream(PairStream):
    """Batches of positives as `PairStream` draws them, from the frames and windows of a cache.

    In its choices, `frames` and `sound_starts` are rows of the cache.
    """

    def __init__(
        self, clips: Shards, batch_size: int, seed: int, network: L3Net, cache: FeatureCache
    ) -> None:
        config = network.config
        transform = FrameTransform(config.resize_pixels, config.crop_pixels, random=False)
        super().__init__(clips, batch_size, seed, transform)
        self._cache = cache

    def _moment(self, clip: int, chance: NDArray[np.float64]) -> tuple[int, int]:
        return self._cache.moment_rows(clip, chance)

    def batch(self, index: int, part: BatchPart = FULL_BATCH) -> FeatureBatch:  # type: ignore[override]
        """Batch `index` of the endless stream, or the part of it that a process computes."""
        all_choices = self.choose(*divmod(index, self.steps_per_epoch), part.parts)
        rows = part.rows(self.batch_size)
        choices = all_choices.take(rows)
        return FeatureBatch(
            vision=self._cache.vision.take(choices.frames),
            audio=self._cache.audio.take(choices.sound_starts),
            video_ids=self.shards.video_ids_of(choices.clips),
            labels=self.shards.first_labels_of(choices.clips),
            choices=choices,
            rows=rows,
            pairing=self._pairing(all_choices, part),
        )


AnyBatch = PairBatch | FeatureBatch
"""What a step trains on: frames and sounds, or the features of frozen towers."""
