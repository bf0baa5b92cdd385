"""The interface of an objective: what the rest of the package may know of what training minimizes.

Knows the features of a batch and a fusion; no files, no optimizer.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

from jaxtyping import Bool, Float
from torch import Tensor, nn

from looklisten.config import Config, Side, TrainConfig
from looklisten.errors import ConfigError
from looklisten.model.fusions import Fusion

Gather = Callable[[Tensor], Tensor]
"""From the rows of this process to the rows of all processes, in the order of the batch."""


def own_rows(rows: Tensor) -> Tensor:
    """The `Gather` of a process that compares its own rows only."""
    return rows


@dataclass(frozen=True, eq=False)
class LossAndAccuracy:
    """The result of an objective for one batch."""

    loss: Float[Tensor, ""]
    accuracy: Float[Tensor, ""]
    """Right answers; of positives and negatives, both have the same weight."""


@runtime_checkable
class BatchPairing(Protocol):
    """Which frames and sounds of a batch are compared."""

    def masks(self, everyone: bool) -> tuple[Bool[Tensor, "own all"], Bool[Tensor, "own all"]]:
        """Positives and negatives; `everyone`: all pairs of two videos are negatives.

        A row has one positive. It has none if its sound is an empty one, which belongs to no frame.
        """

    def mean_counts(self, everyone: bool) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """How many positives and negatives a process has in the mean over all processes."""


@runtime_checkable
class TrainingBatch(Protocol):
    """What an objective may ask of a batch."""

    @property
    def pairing(self) -> BatchPairing:
        """On the device of the features."""

    @property
    def labels(self) -> Sequence[str]:
        """The first label of each row's clip, or nothing."""


ClassScores = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""From vectors of vision and audio to the probabilities of the classes, side by side."""


@runtime_checkable
class HeldOutVideos(Protocol):
    """What an objective may measure on videos that training does not read."""

    def correspondence_accuracy(self) -> float:
        """The accuracy of the network's answers whether a frame and a sound correspond."""

    def class_metrics(self, scores: ClassScores, classes: Sequence[str]) -> dict[str, float]:
        """The accuracy of `scores` on clips whose label is one of `classes`."""


class Objective(ABC, nn.Module):
    """What training minimizes.

    The constructor takes the config and the number of features of each tower. Its own parameters
    are trained with the network and saved with the optimizer.
    """

    trains_fusion: ClassVar[bool] = True
    """Whether it compares pairs. If not, the fusion keeps its initial weights."""
    uses_labels: ClassVar[bool] = False
    """Whether it trains on labeled clips only, and has `class_scores`."""

    def __init__(self, config: Config, features: Mapping[Side, int]) -> None:  # noqa: ARG002
        super().__init__()
        self.config = config
        self.compares_all = config.train.negatives == "all"
        """Whether all pairs of two videos are negatives."""

    @staticmethod
    def check(config: Config) -> None:
        """Raises ConfigError, one sentence, for settings that the objective cannot work with."""

    @staticmethod
    @abstractmethod
    def chance_loss(settings: TrainConfig) -> float:
        """The loss of a network whose answers do not depend on its input."""

    @abstractmethod
    def forward(
        self,
        fusion: Fusion,
        vision: Float[Tensor, "own *positions vision_features"],
        audio: Float[Tensor, "own *times audio_features"],
        batch: TrainingBatch,
        gather: Gather = own_rows,
    ) -> LossAndAccuracy:
        """The loss of a batch, which has the right answers.

        `vision` and `audio` are what the fusion takes from the towers for the rows of this
        process.
        """

    def lr_multipliers(self) -> Mapping[str, float]:
        """Factors of the learning rate, by the beginning of a parameter's name.

        Names begin with `vision.`, `audio.`, `fusion.` or `objective.`.
        """
        return {}

    def held_out_metrics(self, videos: HeldOutVideos) -> dict[str, float]:
        """What is measured on held-out videos; `held_out_accuracy` chooses the best checkpoint."""
        return {"held_out_accuracy": videos.correspondence_accuracy()}

    def class_scores(
        self,
        vision: Float[Tensor, "*n vision_features"],  # noqa: ARG002 (the interface)
        audio: Float[Tensor, "*n audio_features"],  # noqa: ARG002
    ) -> tuple[Float[Tensor, "*n classes"], Float[Tensor, "*n classes"]]:
        """The probabilities of the classes, for vectors of each side.

        Raises ConfigError if the objective knows no classes.
        """
        raise ConfigError(
            'this network has no class scores; train one with train.objective = "labels"'
        )
