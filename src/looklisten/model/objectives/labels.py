"""Labels."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional

from looklisten.config import Config
from looklisten.model.initialization import initialize_weights
from looklisten.model.objectives.objective import LossAndAccuracy


class LabelsObjective(nn.Module):
    """Cross-entropy of the class of single frames and of single seconds: two fully-connected layers
    on each tower.

    (The paper's supervised baselines.) The sides share no weight, and Adam treats each weight for
    itself, so one run trains two networks apart.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        features, width, classes = (
            config.model.widths[-1],
            config.model.fusion_width,
            len(config.train.classes),
        )
        self.vision = nn.Sequential(
            nn.Linear(features, width), nn.ReLU(), nn.Linear(width, classes)
        )
        self.audio = nn.Sequential(nn.Linear(features, width), nn.ReLU(), nn.Linear(width, classes))
        initialize_weights(self, config.model)

    def scores(
        self, vision: Float[Tensor, "*n features"], audio: Float[Tensor, "*m features"]
    ) -> tuple[Float[Tensor, "*n classes"], Float[Tensor, "*m classes"]]:
        """The softmax of the classes, of vectors of either side."""
        return self.vision(vision).float().softmax(-1), self.audio(audio).float().softmax(-1)

    def forward(
        self,
        vision: Float[Tensor, "own features"],
        audio: Float[Tensor, "own features"],
        truth: Int64[Tensor, " own"],
    ) -> LossAndAccuracy:
        """`truth`: the place of each row's label among the classes. The loss is the sum of both
        sides', the accuracy their mean.
        """
        sides = [self.vision(vision).float(), self.audio(audio).float()]
        right = torch.stack([(side.argmax(-1) == truth).float().mean() for side in sides])
        return LossAndAccuracy(
            loss=torch.stack([functional.cross_entropy(side, truth) for side in sides]).sum(),
            accuracy=right.mean(),
        )
