"""Networks that were told the labels, to compare with: how well they name, and their classes
combined into a yes or no.

Knows what `train` with the objective "labels" leaves behind; trains nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from looklisten.data.shards import Shards
from looklisten.errors import ConfigError
from looklisten.evaluation.correspondence import (
    Answer,
    Negatives,
    Scores,
    looked_and_listened,
    pair_scores,
)
from looklisten.model.checkpoint import Checkpoint
from looklisten.model.fusions import correspondence_logit
from looklisten.model.l3net import L3Net
from looklisten.model.objectives.labels import LabelsObjective
from looklisten.system.progress import Progress, no_progress


@dataclass(frozen=True)
class Naming:
    """How often the class of a single frame and of a single second of sound is named right."""

    vision: float
    audio: float
    n: int

    def as_metrics(self) -> dict[str, float]:
        return {
            "held_out_accuracy": (self.vision + self.audio) / 2,
            "named_vision": self.vision,
            "named_audio": self.audio,
        }


@torch.inference_mode()
def naming(
    model: L3Net,
    heads: LabelsObjective,
    classes: Sequence[str],
    shards: Shards,
    mask: NDArray[np.bool_],
    rows: int = 1000,
    seed: int = 0,
    progress: Progress = no_progress,
) -> Naming:
    """Accuracies over at least `rows` moments of those clips of `mask` whose label is one of
    `classes`.
    """
    right: list[Tensor] = []
    for batch, *vectors in looked_and_listened(
        model, shards, mask & np.isin(shards.names, classes), rows, seed, progress
    ):
        truth = torch.tensor([classes.index(label) for label in batch.labels])
        right.append(
            torch.stack([scores.argmax(-1).cpu() == truth for scores in heads.scores(*vectors)])
        )
    vision, audio = torch.cat(right, dim=1).float().mean(1).tolist()
    return Naming(vision, audio, sum(answers.shape[1] for answers in right))


@dataclass(frozen=True, eq=False)
class DirectCombination:
    """Yes where the class scores of frame and sound agree enough: the dot product of both softmaxes
    against a threshold.

    (The paper's "supervised direct combination"; how it chose the threshold is untold. Here: the
    most right answers on validation videos, which are of the training side and were not trained
    on.)
    """

    answer: Answer
    threshold: float
    validation_accuracy: float
    """AVC accuracy at the threshold, on the very videos that it was chosen on."""


def direct_combination(
    saved: Checkpoint,
    model: L3Net,
    shards: Shards,
    pairs: int = 4000,
    seed: int = 0,
    progress: Progress = no_progress,
) -> DirectCombination:
    """The combination for `model`, which is that of `saved`, with its threshold chosen on the
    validation videos of its run.

    Raises ConfigError when the run learnt no labels, or kept no validation videos.
    """
    heads = saved.objective().to(next(model.parameters()).device)
    if not isinstance(heads, LabelsObjective):
        raise ConfigError(
            f'{saved.path} has no class scores to combine; train one with train.objective = "labels"'
        )

    def agreement(vision: Tensor, audio: Tensor) -> Tensor:
        ours, theirs = heads.scores(vision, audio)
        return (ours * theirs).sum(-1)

    threshold, accuracy = best_threshold(
        pair_scores(model, shards, validation_of(saved, shards), pairs, seed, progress, agreement)
    )
    return DirectCombination(
        lambda vision, audio: agreement(vision, audio).double() - threshold, threshold, accuracy
    )


def with_validated_threshold(
    saved: Checkpoint,
    model: L3Net,
    shards: Shards,
    pairs: int = 4000,
    seed: int = 0,
    progress: Progress = no_progress,
    negatives: Negatives = "any",
) -> Answer:
    """The network's own answer, its threshold moved to where it is right most often on the
    validation videos of its run.

    A network that has learnt its videos by heart has also learnt a threshold that strangers do not
    reach; choosing it on videos that were not trained on is what the direct combination does too.
    Raises ConfigError when the run kept none.
    """
    threshold, _ = best_threshold(
        pair_scores(
            model, shards, validation_of(saved, shards), pairs, seed, progress, None, negatives
        )
    )
    return lambda vision, audio: (
        correspondence_logit(model.fusion(vision, audio)).double() - threshold
    )


def validation_of(saved: Checkpoint, shards: Shards) -> NDArray[np.bool_]:
    """The clips that a run kept from training to choose thresholds on. Raises ConfigError when
    there are none.
    """
    settings = saved.config.train
    validation = shards.validation(
        settings.validation_fraction, shards.held_out(settings.held_out_fraction)
    )
    if not validation.any():
        raise ConfigError(
            f"{saved.path} kept no videos to choose a threshold on; train it with train.validation_fraction = 0.1"
        )
    return validation


def best_threshold(scores: Scores) -> tuple[float, float]:
    """The number above which a yes is most often right, half-way between two scores, and how often
    it is right then.
    """
    every = np.unique(np.concatenate([scores.positives, scores.negatives]).astype(np.float64))
    cuts = np.concatenate([[every[0] - 1], (every[:-1] + every[1:]) / 2, [every[-1] + 1]])
    yes, no = np.sort(scores.positives), np.sort(scores.negatives)
    right = (len(yes) - np.searchsorted(yes, cuts, "right")) + np.searchsorted(no, cuts, "right")
    best = int(right.argmax())
    return float(cuts[best]), float(right[best] / (len(yes) + len(no)))
