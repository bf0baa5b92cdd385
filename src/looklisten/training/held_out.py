"""What is measured on held-out videos while a network trains."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from looklisten.data.shards import Shards
from looklisten.evaluation.correspondence import evaluate
from looklisten.evaluation.linear_probe.shards import can_probe, quick_probe
from looklisten.evaluation.supervised import class_accuracy
from looklisten.model.l3net import L3Net
from looklisten.model.objectives import Objective
from looklisten.model.objectives.objective import ClassScores

EVALUATED_PAIRS = 2000
"""Pairs that an accuracy during training is measured on."""


@dataclass(frozen=True, eq=False)
class _NetworkOnHeldOut:
    """What an objective may measure (`HeldOutVideos`) of `network` on `clips`."""

    network: L3Net
    clips: Shards
    pairs: int
    seed: int

    def correspondence_accuracy(self) -> float:
        return evaluate(self.network, self.clips, self.pairs, self.seed).accuracy

    def class_metrics(self, scores: ClassScores, classes: Sequence[str]) -> dict[str, float]:
        rows = self.pairs // 2
        accuracy = class_accuracy(self.network, scores, classes, self.clips, rows, self.seed)
        return accuracy.as_metrics()


class HeldOutEvaluation:
    """Measures a network in training on held-out clips."""

    def __init__(
        self, data: Shards, held_out: NDArray[np.bool_], seed: int, pairs: int = EVALUATED_PAIRS
    ) -> None:
        """`held_out`: the mask of the clips, `[clips]`. A probe is fitted on the other clips."""
        self._data = data
        self._held_out = held_out
        self._clips = data.select(held_out)
        self._seed = seed
        self._pairs = pairs
        # A negative pair needs a second video.
        self.can_evaluate = len(data.videos(held_out)) >= 2
        self.can_probe = can_probe(data, held_out)

    def evaluate(self, network: L3Net, objective: Objective) -> dict[str, float]:
        """What the objective measures; with the key `held_out_accuracy`."""
        videos = _NetworkOnHeldOut(network, self._clips, self._pairs, self._seed)
        return objective.held_out_metrics(videos)

    def probe(self, network: L3Net) -> dict[str, float]:
        """The accuracy of a quick linear probe of each side."""
        accuracies = quick_probe(network, self._data, self._held_out, self._seed)
        return {f"probe_{side}": accuracy for side, accuracy in accuracies.items()}
