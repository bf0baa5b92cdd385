"""Audio-visual correspondence, the objective of the paper: does this sound belong to this frame?"""

import math

from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from looklisten.config import TrainConfig
from looklisten.model.fusions import CORRESPOND, Fusion
from looklisten.model.objectives.objective import (
    BatchPairing,
    Gather,
    LossAndAccuracy,
    Objective,
    TrainingBatch,
    own_rows,
)


class AvcObjective(Objective):
    """Cross-entropy of "does correspond" and "does not" (paper, section 2).

    Positives and negatives have half of the weight each. Negatives are the same rows as the
    positives, paired in another way. So only the correspondence can tell them apart. The exceptions
    are empty sounds: the sound alone gives their answer.
    """

    @staticmethod
    def chance_loss(settings: TrainConfig) -> float:  # noqa: ARG004
        return math.log(2)

    def forward(
        self,
        fusion: Fusion,
        vision: Float[Tensor, "own *positions vision_features"],
        audio: Float[Tensor, "own *times audio_features"],
        batch: TrainingBatch,
        gather: Gather = own_rows,
    ) -> LossAndAccuracy:
        # Only the sounds are gathered: each process answers for its own frames.
        vision, audio = fusion.project(vision, audio)
        logits = fusion.all_pairs_logits(vision, gather(audio))
        return avc_loss(logits, batch.pairing, self.compares_all)


def avc_loss(
    logits: Float[Tensor, "own all 2"],
    pairing: BatchPairing,
    compares_all: bool,
) -> LossAndAccuracy:
    """Cross-entropy and accuracy, of positives and negatives half each.

    `compares_all`: all pairs of two videos are negatives.
    """
    # bfloat16 has too few digits for a mean over many pairs.
    logits = logits.float()
    positives, negatives = pairing.masks(compares_all)
    positive_count, negative_count = pairing.mean_counts(compares_all)
    yes = _mean_over(logits, positives, positive_count, CORRESPOND)
    no = _mean_over(logits, negatives, negative_count, 1 - CORRESPOND)
    return LossAndAccuracy(loss=(yes.loss + no.loss) / 2, accuracy=(yes.accuracy + no.accuracy) / 2)


def _mean_over(
    logits: Float[Tensor, "own all 2"],
    mask: Bool[Tensor, "own all"],
    count: Float[Tensor, ""],
    answer: int,
) -> LossAndAccuracy:
    """Mean loss and accuracy over `count` pairs of `mask`, whose right answer is `answer`."""
    # Weights instead of a selection, because selecting rows would wait for the device.
    weights = mask.float() / count
    losses = -functional.log_softmax(logits, dim=-1)[..., answer]
    is_right = logits[..., answer] > logits[..., 1 - answer]
    return LossAndAccuracy(loss=(losses * weights).sum(), accuracy=(is_right * weights).sum())
