"""What is measured on held-out videos while a network trains."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from looklisten.data.shards import Shards
from looklisten.evaluation.correspondence import batch_size_for, evaluate
from looklisten.evaluation.linear_probe.shards import can_probe, quick_probe
from looklisten.evaluation.supervised import class_accuracy
from looklisten.model.fusions import correspondence_logit
from looklisten.model.l3net import L3Net
from looklisten.model.objectives import Objective
from looklisten.model.objectives.objective import ClassScores
from looklisten.training.frozen_towers.batches import FeatureStream
from looklisten.training.frozen_towers.cache import FeatureCache

EVALUATED_PAIRS = 2000
"""Pairs that an accuracy during training is measured on."""


@dataclass(frozen=True, eq=False)
class _NetworkOnHeldOut:
    """What an objective may measure (`HeldOutVideos`) of `network` on `clips`."""

    network: L3Net
    clips: Shards
    pairs: int
    seed: int
    features: FeatureCache | None

    def correspondence_accuracy(self) -> float:
        if self.features is not None:
            return accuracy_on_features(
                self.network, self.clips, self.features, self.pairs, self.seed
            )
        return evaluate(self.network, self.clips, self.pairs, self.seed).accuracy

    def class_metrics(self, scores: ClassScores, classes: Sequence[str]) -> dict[str, float]:
        rows = self.pairs // 2
        accuracy = class_accuracy(self.network, scores, classes, self.clips, rows, self.seed)
        return accuracy.as_metrics()


@torch.inference_mode()
def accuracy_on_features(
    network: L3Net, clips: Shards, features: FeatureCache, pairs: int, seed: int
) -> float:
    """The accuracy of at least `pairs` pairs, half of them positive, like that of `evaluate`."""
    videos = len(set(clips.video_ids))
    stream = FeatureStream(clips, batch_size_for(videos), seed, network, features)
    device = next(network.parameters()).device
    was_training = network.training
    network.eval()
    right = []
    for index in range(math.ceil(pairs / 2 / stream.batch_size)):
        batch = stream.batch(index)
        vision, audio = batch.vision.to(device), batch.audio.to(device)
        # All rows of a batch are of different videos.
        own = correspondence_logit(network.fusion(vision, audio))
        other = correspondence_logit(network.fusion(vision, audio.roll(1, 0)))
        right += [own > 0, other <= 0]
    network.train(was_training)
    return float(torch.cat(right).float().mean())


class HeldOutEvaluation:
    """Measures a network in training on held-out clips."""

    def __init__(
        self,
        data: Shards,
        held_out: NDArray[np.bool_],
        seed: int,
        pairs: int = EVALUATED_PAIRS,
        features: FeatureCache | None = None,
    ) -> None:
        """`held_out`: the mask of the clips, `[clips]`. A probe is fitted on the other clips.

        `features`: those of frozen towers; without them the towers run.
        """
        self._data = data
        self._held_out = held_out
        self._clips = data.select(held_out)
        self._seed = seed
        self._pairs = pairs
        self._features = features
        # A negative pair needs a second video.
        self.can_evaluate = len(data.videos(held_out)) >= 2
        self.can_probe = can_probe(data, held_out)

    def evaluate(self, network: L3Net, objective: Objective) -> dict[str, float]:
        """What the objective measures; with the key `held_out_accuracy`."""
        videos = _NetworkOnHeldOut(network, self._clips, self._pairs, self._seed, self._features)
        return objective.held_out_metrics(videos)

    def probe(self, network: L3Net) -> dict[str, float]:
        """The accuracy of a quick linear probe of each side."""
        accuracies = quick_probe(network, self._data, self._held_out, self._seed)
        return {f"probe_{side}": accuracy for side, accuracy in accuracies.items()}
