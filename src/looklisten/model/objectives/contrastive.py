"""Symmetric InfoNCE."""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from looklisten.model.fusions import AlignedFusion
from looklisten.model.objectives.avc import _halves
from looklisten.model.objectives.objective import Gather, LossAndAccuracy, alone

FIRST_SCALE = 1 / 0.07
"""Similarities are multiplied by it in the first softmax; learnt from there (CLIP, Radford et al.
2021, section 2.4).
"""


MAX_SCALE = 100.0
"""The scale is kept below, as there."""


class ContrastiveObjective(nn.Module):
    """Symmetric InfoNCE: which sound of the batch belongs to a frame, and which frame to a sound;
    the temperature is learnt.

    (Oord et al. 2018; both directions and the learnt scale as in CLIP.) The yes and no of the
    fusion are learnt beside it, on similarities that it gets as they are: they change its threshold
    and nothing else.
    """

    def __init__(self) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(math.log(FIRST_SCALE)))

    def forward(
        self,
        fusion: AlignedFusion,
        vision: Float[Tensor, "own *places width"],
        audio: Float[Tensor, "own *moments width"],
        positives: Bool[Tensor, "own all"],
        negatives: Bool[Tensor, "own all"],
        gather: Gather = alone,
    ) -> LossAndAccuracy:
        """`vision` and `audio` are unit vectors of one's own rows; everything but the positives
        stands against them.
        """
        all_vision, all_audio = gather(vision), gather(audio)
        scale, truth = self.log_scale.exp().clamp_max(MAX_SCALE), positives.int().argmax(1)
        of_sounds = fusion.compare(vision, all_audio)
        of_frames = (of_sounds if all_vision is vision else fusion.compare(all_vision, audio)).T
        to_sounds, to_frames = (
            functional.cross_entropy(scale * similar, truth) for similar in (of_sounds, of_frames)
        )
        decision = _halves(fusion.decide(of_sounds.detach()), positives, negatives)
        return LossAndAccuracy(
            loss=(to_sounds + to_frames) / 2 + decision.loss, accuracy=decision.accuracy
        )
