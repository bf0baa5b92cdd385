"""The contrastive objective: which sound of the batch belongs to a frame, and the reverse."""

import math
from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from looklisten.config import Config, Side, TrainConfig
from looklisten.errors import ConfigError
from looklisten.model.fusions import Fusion
from looklisten.model.objectives.avc import avc_loss
from looklisten.model.objectives.objective import (
    Gather,
    LossAndAccuracy,
    Objective,
    TrainingBatch,
    own_rows,
)

INITIAL_SCALE = 1 / 0.07
"""Similarities are multiplied by the scale before the softmax.

It is learned from this value (CLIP, Radford et al. 2021, section 2.4).
"""
MAX_SCALE = 100.0
"""The scale stays below, as in CLIP."""
THRESHOLD_LR_MULTIPLIER = 10.0
"""A factor of the learning rate of the yes/no threshold (LOG.md, 2026-11-24).

Its two numbers have far to go, and nothing but themselves to disturb.
"""


class ContrastiveObjective(Objective):
    """Symmetric InfoNCE with a learned temperature (Oord et al. 2018; both directions as in CLIP).

    The yes/no decision of the fusion is learned separately, on similarities without gradient. It
    changes the threshold and nothing else.
    """

    def __init__(self, config: Config, features: Mapping[Side, int]) -> None:
        super().__init__(config, features)
        self.log_scale = nn.Parameter(torch.tensor(math.log(INITIAL_SCALE)))

    @staticmethod
    def check(config: Config) -> None:
        if config.train.negatives == "roll":
            raise ConfigError(
                'the objective "contrastive" compares with every other row: '
                'set train.negatives to "all" or "same-video"'
            )
        if config.model.fusion == "concat":
            raise ConfigError(
                'the objective "contrastive" needs one space for both sides: '
                'set model.fusion to "distance"'
            )

    @staticmethod
    def chance_loss(settings: TrainConfig) -> float:
        rows = settings.batch_size // settings.accumulate
        return math.log(rows) + math.log(2)

    def lr_multipliers(self) -> Mapping[str, float]:
        return {"fusion.fc3.": THRESHOLD_LR_MULTIPLIER}

    def forward(
        self,
        fusion: Fusion,
        vision: Float[Tensor, "own *positions vision_features"],
        audio: Float[Tensor, "own *times audio_features"],
        batch: TrainingBatch,
        gather: Gather = own_rows,
    ) -> LossAndAccuracy:
        """Everything in the batch but the positives counts as a negative."""
        vision, audio = fusion.project(vision, audio)
        all_vision, all_audio = gather(vision), gather(audio)
        scale = self.log_scale.exp().clamp_max(MAX_SCALE)
        positives, _ = batch.pairing.masks(self.compares_all)
        positive_count, _ = batch.pairing.mean_counts(self.compares_all)
        # A row has at most one positive, so the maximum of its mask is its index.
        positive = positives.int().argmax(1)
        # A row with an empty sound has none. Its frame and sound are negatives of other rows only.
        row_weights = positives.any(1) / positive_count

        to_sounds = fusion.part_similarities(vision, all_audio)
        # One process has all rows, and the similarities of both directions are the same.
        if all_vision is vision:
            to_frames = [part.T for part in to_sounds]
        else:
            to_frames = [part.T for part in fusion.part_similarities(all_vision, audio)]
        losses = []
        for part in (*to_sounds, *to_frames):
            row_losses = functional.cross_entropy(scale * part, positive, reduction="none")
            losses.append((row_losses * row_weights).sum())

        # Without a gradient the decision trains its threshold and leaves the network alone.
        similarity = fusion.decided_similarities(to_sounds, vision, all_audio)
        logits = fusion.similarity_logits(similarity)
        decision = avc_loss(logits, batch.pairing, self.compares_all)
        loss = torch.stack(losses).mean() + decision.loss
        return LossAndAccuracy(loss=loss, accuracy=decision.accuracy)
