"""The supervised objective: the class of single frames and of single seconds, for comparison.

This is the one file through which a label can reach a weight.
"""

import math
from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from looklisten.config import Config, Side, TrainConfig
from looklisten.errors import ConfigError
from looklisten.model.fusions import POSITION_FUSIONS, Fusion
from looklisten.model.initialization import initialize_weights
from looklisten.model.objectives.objective import (
    Gather,
    HeldOutVideos,
    LossAndAccuracy,
    Objective,
    TrainingBatch,
    own_rows,
)


class LabelsObjective(Objective):
    """Cross-entropy of the class, by two fully-connected layers on each tower.

    These are the paper's supervised baselines. The sides share no weight, and Adam treats each
    weight by itself, so one run trains two separate networks.
    """

    trains_fusion = False
    uses_labels = True

    def __init__(self, config: Config, features: Mapping[Side, int]) -> None:
        super().__init__(config, features)
        width, classes = config.model.fusion_width, len(config.train.classes)
        self.vision = nn.Sequential(
            nn.Linear(features["vision"], width), nn.ReLU(), nn.Linear(width, classes)
        )
        self.audio = nn.Sequential(
            nn.Linear(features["audio"], width), nn.ReLU(), nn.Linear(width, classes)
        )
        initialize_weights(self, config.model)

    @staticmethod
    def check(config: Config) -> None:
        if config.model.fusion in (*POSITION_FUSIONS, "linear"):
            raise ConfigError(
                f'the objective "labels" classifies whole frames, and fusion '
                f'"{config.model.fusion}" compares positions: set model.fusion to "concat"'
            )
        if config.train.empty_sound_share:
            raise ConfigError(
                'the objective "labels" has a class for every sound, and an empty sound has none: '
                "set train.empty_sound_share to 0"
            )

    @staticmethod
    def chance_loss(settings: TrainConfig) -> float:
        # The loss is the sum of both sides.
        return 2 * math.log(len(settings.classes))

    def forward(
        self,
        fusion: Fusion,  # noqa: ARG002 (the interface of all objectives)
        vision: Float[Tensor, "own vision_features"],
        audio: Float[Tensor, "own audio_features"],
        batch: TrainingBatch,
        gather: Gather = own_rows,  # noqa: ARG002
    ) -> LossAndAccuracy:
        """The loss is the sum of both sides' losses, the accuracy the mean of both."""
        names = self.config.train.classes
        classes = torch.tensor([names.index(label) for label in batch.labels], device=vision.device)
        losses, accuracies = [], []
        for logits in (self.vision(vision).float(), self.audio(audio).float()):
            losses.append(functional.cross_entropy(logits, classes))
            accuracies.append((logits.argmax(-1) == classes).float().mean())
        return LossAndAccuracy(
            loss=torch.stack(losses).sum(), accuracy=torch.stack(accuracies).mean()
        )

    def class_scores(
        self, vision: Float[Tensor, "*n vision_features"], audio: Float[Tensor, "*m audio_features"]
    ) -> tuple[Float[Tensor, "*n classes"], Float[Tensor, "*m classes"]]:
        return self.vision(vision).float().softmax(-1), self.audio(audio).float().softmax(-1)

    def held_out_metrics(self, videos: HeldOutVideos) -> dict[str, float]:
        return videos.class_metrics(self.class_scores, self.config.train.classes)
