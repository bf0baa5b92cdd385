"""Fusions that compare the sound with every position of the frame, so that they locate it."""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from looklisten.config import Side
from looklisten.model.backbones import TowerOutput
from looklisten.model.fusions.fusion import MIN_NORM, in_float32
from looklisten.model.fusions.vectors import AlignedFusion

USUAL_POSITION_MOMENTUM = 0.1
"""The weight of each training batch in the moving average, as in batch-norm."""


class PositionFusion(AlignedFusion):
    """Base of the fusions that compare the sound with every position of the frame.

    Every position of the vision tower's map has a unit vector. A soft maximum over the positions
    decides (multiple-instance learning, as in AVOL-Net, "Objects that Sound" 2018). In AVOL-Net the
    vectors have any length. Here the length is 1, so that a similarity means the same for every
    sound.

    The soft maximum is log(sum over positions of exp(sharpness x similarity) / positions) /
    sharpness. `positions` is always the number of positions of a training frame. A wide frame has
    more positions. Those with low similarity then hardly change the result.
    """

    # Soft, because with a hard maximum only one position of a frame learns from a pair. Then the
    # network learned nothing in the first 200 to 500 steps (LOG.md, 2026-11-24).

    compares_positions = True
    initial_slope, initial_threshold = 5.0, 0.5

    def __init__(
        self, features: Mapping[Side, int], width: int, sharpness: float, positions: int
    ) -> None:
        super().__init__(features, width)
        self.sharpness = sharpness
        self.positions = positions

    def vision_features(self, vision: TowerOutput) -> Float[Tensor, "n positions features"]:
        return vision.map.flatten(2).transpose(1, 2)

    def audio_features(self, audio: TowerOutput) -> Float[Tensor, "m times features"]:
        """The vectors of the sound that are compared with every position."""
        raise NotImplementedError

    @in_float32
    def similarities(
        self, vision: Float[Tensor, "n positions width"], audio: Float[Tensor, "m times width"]
    ) -> Float[Tensor, "n m"]:
        """The soft maximum over the positions for each time of the sound, averaged over times."""
        # The vectors are multiplied by the sharpness, not their many more similarities.
        scaled = torch.einsum("npw,mtw->npmt", self.sharpness * vision, audio)
        return self._soft_maximum(scaled, 1).mean(2)

    @in_float32
    def similarity_logits(self, similarity: Float[Tensor, "*pairs"]) -> Float[Tensor, "*pairs 2"]:
        return self.fc3(similarity[..., None])  # type: ignore[no-any-return]

    @in_float32
    def logits(
        self, vision: Float[Tensor, "*n positions width"], audio: Float[Tensor, "*n times width"]
    ) -> Float[Tensor, "*n 2"]:
        scaled = self.sharpness * vision @ audio.transpose(-1, -2)
        return self.similarity_logits(self._soft_maximum(scaled, -2).mean(-1))

    @in_float32
    def all_pairs_logits(
        self, vision: Float[Tensor, "n positions width"], audio: Float[Tensor, "m times width"]
    ) -> Float[Tensor, "n m 2"]:
        return self.similarity_logits(self.similarities(vision, audio))

    def whole_frame_similarity(
        self, similarities: Float[Tensor, "*sounds frame_vectors"]
    ) -> Float[Tensor, "*sounds"]:
        """The soft maximum over the positions of the frame, as in training."""
        return self._soft_maximum(self.sharpness * similarities, -1)

    def _soft_maximum(
        self, scaled: Float[Tensor, "*volume"], dimension: int
    ) -> Float[Tensor, "*remaining"]:
        """The soft maximum of similarities that are already multiplied by `sharpness`."""
        # No similarity is above 1, so exp(scaled - sharpness) cannot overflow.
        summed = (scaled - self.sharpness).exp_().sum(dimension).float()
        # The subtracted sharpness is added again: sharpness / sharpness = 1.
        return (summed / self.positions).log() / self.sharpness + 1


class SimilarityFusion(PositionFusion):
    """Compares the whole second of sound with the most similar position.

    So does AVOL-Net ("Objects that Sound", section 4). For search a frame also has one vector, a
    weighted mean over its positions. Most positions show background, so a position that is less
    similar to the usual position of training frames has a higher weight. This vector has no loss of
    its own: with one, no figure gained more than 0.5 points (LOG.md, 2026-11-28).
    """

    aligns_vectors = True
    usual_position: Float[Tensor, " width"]
    """The moving average of the vectors of all positions of training frames."""

    def __init__(
        self, features: Mapping[Side, int], width: int, sharpness: float, positions: int
    ) -> None:
        super().__init__(features, width, sharpness, positions)
        self.register_buffer("usual_position", torch.zeros(width))
        self.register_load_state_dict_pre_hook(_add_usual_position)  # type: ignore[no-untyped-call]

    def audio_features(self, audio: TowerOutput) -> Float[Tensor, "m times features"]:
        return audio.vector[:, None]

    def project(
        self, vision: Float[Tensor, "*n vision_features"], audio: Float[Tensor, "*m audio_features"]
    ) -> tuple[Float[Tensor, "*n width"], Float[Tensor, "*m width"]]:
        """Unit vectors of the shared space. In training they also move `usual_position`."""
        vision_vectors, audio_vectors = super().project(vision, audio)
        if self.training:
            mean = vision_vectors.detach().flatten(0, -2).mean(0)
            if self.gather is not None:
                # The same in all processes, because the vectors of their frames are compared.
                mean = self.gather(mean[None]).mean(0)
            self.usual_position.lerp_(mean, USUAL_POSITION_MOMENTUM)
        return vision_vectors, audio_vectors

    @in_float32
    def aligned_frame(self, vision: TowerOutput) -> Float[Tensor, "n width"]:
        return self._whole_frames(self.aligned(self.vision_features(vision), "vision"))

    def _whole_frames(
        self, positions: Float[Tensor, "n positions width"]
    ) -> Float[Tensor, "n width"]:
        """Unit vectors of frames, from those of their positions.

        Of the weights that were tried, the squared distance from the usual position had the best
        precision from sound to picture (LOG.md, 2026-11-28).
        """
        usual = functional.normalize(self.usual_position, dim=-1, eps=MIN_NORM)
        distances = 1 - positions @ usual
        weighted = positions * distances.square()[..., None]
        return functional.normalize(weighted.mean(-2), dim=-1, eps=MIN_NORM)


def _add_usual_position(
    fusion: nn.Module, tensors: dict[str, Tensor], prefix: str, *_: object
) -> None:
    """Let checkpoints of older versions load: with zeros all positions have the same weight."""
    tensors.setdefault(f"{prefix}usual_position", fusion.get_buffer("usual_position"))


class DenseFusion(PositionFusion):
    """Compares each time of the sound with its most similar position, and averages over the second.

    It localizes in the frame and in time (after DenseAV, Hamilton et al. 2024).
    """

    def audio_features(self, audio: TowerOutput) -> Float[Tensor, "m times features"]:
        return audio.map.amax(2).transpose(1, 2)
