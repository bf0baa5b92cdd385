"""Fusions of one vector a side: the paper's, and unit vectors that are compared by distance."""

from collections.abc import Mapping
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from looklisten.config import Side
from looklisten.model.fusions.fusion import MIN_NORM, Fusion, in_float32

MIN_SQUARED_DISTANCE = 1e-6
"""Smaller squared distances are raised to this, because the gradient of a square root is infinite
at zero.
"""


class ConcatFusion(Fusion):
    """Both vectors side by side, fc1 and ReLU, fc2 to two logits (paper, figure 2)."""

    def __init__(self, features: Mapping[Side, int], width: int) -> None:
        super().__init__()
        self.side_features = [features["vision"], features["audio"]]
        self.fc1 = nn.Linear(sum(self.side_features), width)
        self.fc2 = nn.Linear(width, 2)

    def project(
        self, vision: Float[Tensor, "*n vision_features"], audio: Float[Tensor, "*m audio_features"]
    ) -> tuple[Float[Tensor, "*n width"], Float[Tensor, "*m width"]]:
        """What each side adds to fc1."""
        # A layer over (vision, audio) is a sum of one product for each side. So each product is
        # computed once per row, not once per pair.
        vision_weight, audio_weight = torch.split(self.fc1.weight, self.side_features, dim=1)
        vision_part = functional.linear(vision, vision_weight, self.fc1.bias)
        audio_part = functional.linear(audio, audio_weight)
        return vision_part, audio_part

    @in_float32
    def logits(
        self, vision: Float[Tensor, "*#pairs width"], audio: Float[Tensor, "*#pairs width"]
    ) -> Float[Tensor, "*all 2"]:
        return self.fc2(functional.relu(vision + audio))  # type: ignore[no-any-return]


class AlignedFusion(Fusion):
    """Base of the fusions that turn each side into unit vectors and compare only their similarity.

    The two sides meet in nothing but a similarity, so they learn one space.
    """

    shares_space = True
    initial_slope: ClassVar[float]
    initial_threshold: ClassVar[float]

    def __init__(self, features: Mapping[Side, int], width: int) -> None:
        super().__init__()
        self.width = width
        self.vision = nn.Sequential(
            nn.Linear(features["vision"], width), nn.ReLU(), nn.Linear(width, width)
        )
        self.audio = nn.Sequential(
            nn.Linear(features["audio"], width), nn.ReLU(), nn.Linear(width, width)
        )
        self.fc3 = nn.Linear(1, 2)

    @property
    def aligned_width(self) -> int:
        return self.width

    def initialize_answer(self) -> None:
        """Begin with "similar means yes"; both numbers are learned from there.

        From random values the network may learn vectors that are far apart where they correspond
        ("Objects that Sound", section 3.1).
        """
        slope = torch.tensor([-self.initial_slope, self.initial_slope])
        with torch.no_grad():
            self.fc3.weight.copy_(slope[:, None])
            self.fc3.bias.copy_(-slope * self.initial_threshold)

    def project(
        self, vision: Float[Tensor, "*n vision_features"], audio: Float[Tensor, "*m audio_features"]
    ) -> tuple[Float[Tensor, "*n width"], Float[Tensor, "*m width"]]:
        """Unit vectors of the shared space, in float32."""
        return self.aligned(vision, "vision"), self.aligned(audio, "audio")

    def aligned(
        self, features: Float[Tensor, "*n features"], side: Side
    ) -> Float[Tensor, "*n width"]:
        """Unit vectors of the shared space of one side, in float32."""
        layers = self.vision if side == "vision" else self.audio
        return functional.normalize(layers(features).float(), dim=-1, eps=MIN_NORM)


class DistanceFusion(AlignedFusion):
    """The distance of two unit vectors (AVE-Net, "Objects that Sound" 2018)."""

    aligns_vectors = True
    # The threshold is a distance of about that of unrelated vectors behind a ReLU.
    initial_slope, initial_threshold = -2.5, 1.2

    @in_float32
    def similarities(
        self, vision: Float[Tensor, "n width"], audio: Float[Tensor, "m width"]
    ) -> Float[Tensor, "n m"]:
        return vision @ audio.T

    @in_float32
    def similarity_logits(self, similarity: Float[Tensor, "*pairs"]) -> Float[Tensor, "*pairs 2"]:
        # The squared distance of two unit vectors is 2 - 2 * similarity.
        distance = (2 - 2 * similarity[..., None]).clamp_min(MIN_SQUARED_DISTANCE).sqrt()
        return self.fc3(distance)  # type: ignore[no-any-return]

    @in_float32
    def logits(
        self, vision: Float[Tensor, "*#pairs width"], audio: Float[Tensor, "*#pairs width"]
    ) -> Float[Tensor, "*all 2"]:
        return self.similarity_logits((vision * audio).sum(-1))

    def whole_frame_similarity(
        self, similarities: Float[Tensor, "*sounds frame_vectors"]
    ) -> Float[Tensor, "*sounds"]:
        # A whole frame is one vector here.
        return similarities[..., 0]
