"""The fusion `general`: positions, whole frames and seconds of sound in one space.

It is for towers that learned before. Knows tensors only.
"""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from looklisten.config import Side
from looklisten.model.backbones import TowerOutput
from looklisten.model.fusions import MIN_NORM, PositionFusion, in_float32


class Standardized(nn.Module):
    """Features with mean 0 and deviation 1 over those that it was fitted to; unchanged before."""

    mean: Float[Tensor, " features"]
    scale: Float[Tensor, " features"]

    def __init__(self, features: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("scale", torch.ones(features))

    @torch.no_grad()
    def fit(self, rows: Float[Tensor, "rows features"]) -> None:
        """Take mean and deviation from `rows`; features that never vary stay small."""
        deviation = rows.std(0)
        self.mean.copy_(rows.mean(0))
        self.scale.copy_(1 / (deviation + 0.1 * deviation.mean()).clamp_min(MIN_NORM))

    def forward(self, features: Float[Tensor, "*n features"]) -> Float[Tensor, "*n features"]:
        return (features - self.mean) * self.scale


class GeneralFusion(PositionFusion):
    """The second of sound with the best position of the frame, and with the whole frame.

    One linear layer a side gives unit vectors of positions, whole frames and seconds, all of one
    space. So one network scores, points, searches and embeds. The last row of a frame's features
    is the vector of its tower, the others are the positions of its map.
    """

    aligns_vectors = True

    def __init__(
        self,
        features: Mapping[Side, int],
        width: int,
        sharpness: float,
        positions: int,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(features, width, sharpness, positions)
        # Towers that learned before need no hidden layer, and few videos spoil one (LOG.md).
        self.vision = _linear_side(features["vision"], width, dropout)
        self.audio = _linear_side(features["audio"], width, dropout)

    def fit_inputs(
        self,
        vision: Float[Tensor, "n rows vision_features"],
        audio: Float[Tensor, "m 1 audio_features"],
    ) -> None:
        """Standardize the features of each side by those of some frames and seconds."""
        for layers, features in ((self.vision, vision), (self.audio, audio)):
            standardized = layers[0]
            assert isinstance(standardized, Standardized)
            standardized.fit(features.flatten(0, 1))

    def vision_features(self, vision: TowerOutput) -> Float[Tensor, "n rows features"]:
        return torch.cat([super().vision_features(vision), vision.vector[:, None]], 1)

    def audio_features(self, audio: TowerOutput) -> Float[Tensor, "m 1 features"]:
        return audio.vector[:, None]

    @in_float32
    def part_similarities(
        self, vision: Float[Tensor, "n rows width"], audio: Float[Tensor, "m 1 width"]
    ) -> Sequence[Float[Tensor, "n m"]]:
        """Of every frame with every sound: by the best position, and as a whole."""
        by_position = super().similarities(vision[:, :-1], audio)
        return by_position, vision[:, -1] @ audio[:, 0].T

    def similarities(
        self, vision: Float[Tensor, "n rows width"], audio: Float[Tensor, "m 1 width"]
    ) -> Float[Tensor, "n m"]:
        by_position, as_whole = self.part_similarities(vision, audio)
        return (by_position + as_whole) / 2

    @in_float32
    def logits(
        self, vision: Float[Tensor, "*n rows width"], audio: Float[Tensor, "*n 1 width"]
    ) -> Float[Tensor, "*n 2"]:
        similarity = (vision @ audio.transpose(-1, -2))[..., 0]
        return self.similarity_logits(self.with_whole_frame(similarity))

    def with_whole_frame(
        self, similarities: Float[Tensor, "*sounds frame_vectors"]
    ) -> Float[Tensor, "*sounds"]:
        by_position = super().with_whole_frame(similarities[..., :-1])
        return (by_position + similarities[..., -1]) / 2


def _linear_side(features: int, width: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(Standardized(features), nn.Dropout(dropout), nn.Linear(features, width))
