"""Networks that were trained with labels, as a baseline: class accuracy and correspondence.

Knows what `train` with the objective "labels" saves; trains nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from looklisten.data.shards import Shards
from looklisten.errors import ConfigError
from looklisten.evaluation.comparison import PairComparison
from looklisten.evaluation.correspondence import (
    DEFAULT_PAIRS,
    Negatives,
    PairScorer,
    PairScores,
    fusion_inputs,
    fusion_scorer,
    score_pairs,
)
from looklisten.model.l3net import L3Net
from looklisten.model.networks import Run
from looklisten.model.objectives.objective import ClassScores
from looklisten.system.progress import Progress, no_progress


@dataclass(frozen=True)
class ClassAccuracy:
    """How often the class of a single frame, and of a single second of sound, is right."""

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
def class_accuracy(
    model: L3Net,
    class_scores: ClassScores,
    classes: Sequence[str],
    clips: Shards,
    rows: int = 1000,
    seed: int = 0,
    progress: Progress = no_progress,
) -> ClassAccuracy:
    """Accuracies over at least `rows` moments of the clips whose label is one of `classes`."""
    clips_of_classes = clips.select(np.isin(clips.names, classes))
    right_vision: list[Tensor] = []
    right_audio: list[Tensor] = []
    for batch, vision, audio in fusion_inputs(model, clips_of_classes, rows, seed, progress):
        # On the CPU, as the scores are few and labels are words.
        truth = torch.tensor([classes.index(label) for label in batch.labels])
        vision_scores, audio_scores = class_scores(vision, audio)
        right_vision.append(vision_scores.argmax(-1).cpu() == truth)
        right_audio.append(audio_scores.argmax(-1).cpu() == truth)
    return ClassAccuracy(
        vision=torch.cat(right_vision).float().mean().item(),
        audio=torch.cat(right_audio).float().mean().item(),
        n=sum(len(right) for right in right_vision),
    )


@dataclass(frozen=True, eq=False)
class DirectCombination:
    """Yes where the class scores of frame and sound agree: their dot product against a threshold.

    This is the paper's "supervised direct combination". The paper does not state how it chose the
    threshold. Here it is the one with the most right decisions on the validation videos of the run,
    which were not trained on.
    """

    scorer: PairScorer
    comparison: PairComparison
    """The same for every frame with every sound."""
    threshold: float
    validation_accuracy: float
    """Correspondence accuracy at the threshold, on the videos that it was chosen on."""


def direct_combination(
    run: Run,
    model: L3Net,
    shards: Shards,
    pairs: int = DEFAULT_PAIRS,
    seed: int = 0,
    progress: Progress = no_progress,
) -> DirectCombination:
    """The combination for `model`, which is that of `run`.

    Raises ConfigError when the run learned no labels, or has no validation videos.
    """
    objective = run.objective().to(next(model.parameters()).device)
    if not objective.uses_labels:
        raise ConfigError(
            f'{run.name} has no class scores to combine; train one with train.objective = "labels"'
        )

    def agreement(vision: Tensor, audio: Tensor) -> Tensor:
        vision_classes, audio_classes = objective.class_scores(vision, audio)
        return (vision_classes * audio_classes).sum(-1)

    clips = validation_clips(run, shards)
    threshold, accuracy = best_threshold(
        score_pairs(model, clips, pairs, seed, progress, agreement)
    )
    comparison = PairComparison(
        project=lambda vision, audio: objective.class_scores(*model.fusion.features(vision, audio)),
        compare=lambda vision, audio: (vision @ audio.T).double() - threshold,
    )
    return DirectCombination(_above(threshold, agreement), comparison, threshold, accuracy)


def validation_threshold(
    run: Run,
    model: L3Net,
    shards: Shards,
    pairs: int = DEFAULT_PAIRS,
    seed: int = 0,
    progress: Progress = no_progress,
    negatives: Negatives = "any",
) -> float:
    """The best threshold of the network's own scores on the validation videos of its run.

    A network that memorized its training videos sets its threshold too high for new ones.
    `direct_combination` chooses its threshold on the same videos.

    Raises ConfigError when the run has no validation videos.
    """
    clips = validation_clips(run, shards)
    scores = score_pairs(model, clips, pairs, seed, progress, None, negatives)
    threshold, _ = best_threshold(scores)
    return threshold


def scorer_above(model: L3Net, threshold: float) -> PairScorer:
    """The network's own scores less a threshold."""
    return _above(threshold, fusion_scorer(model))


def _above(threshold: float, scorer: PairScorer) -> PairScorer:
    # In double precision, as no score may round to the threshold.
    return lambda vision, audio: scorer(vision, audio).double() - threshold


def validation_clips(run: Run, shards: Shards) -> Shards:
    """The clips that a run chooses thresholds on. Raises ConfigError when there are none."""
    clips = shards.validation(run)
    if not len(clips):
        raise ConfigError(
            f"{run.name} has no validation videos to choose a threshold on; "
            "train it with train.validation_fraction = 0.1"
        )
    return clips


def best_threshold(scores: PairScores) -> tuple[float, float]:
    """The threshold with the most right decisions, and their share.

    It lies half-way between two scores. A score above it is a yes.
    """
    values = np.unique(np.concatenate([scores.positives, scores.negatives]).astype(np.float64))
    # Between two neighboring scores every threshold has the same decisions.
    half_ways = (values[:-1] + values[1:]) / 2
    thresholds = np.concatenate([[values[0] - 1], half_ways, [values[-1] + 1]])
    # In sorted scores, a binary search counts those above all thresholds at once.
    positives = np.sort(scores.positives)
    negatives = np.sort(scores.negatives)
    positives_right = len(positives) - np.searchsorted(positives, thresholds, "right")
    negatives_right = np.searchsorted(negatives, thresholds, "right")
    right = positives_right + negatives_right
    best = int(right.argmax())
    return float(thresholds[best]), float(right[best] / (len(positives) + len(negatives)))
