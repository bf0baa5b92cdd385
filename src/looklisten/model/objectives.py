"""What is asked of the network: audio-visual correspondence over pairs re-made within the batch."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from looklisten.model.l3net import CORRESPOND


@dataclass(frozen=True, eq=False)
class Outcome:
    """The loss to descend, and the accuracy of its yes and no, with positives and negatives of equal weight."""

    loss: Float[Tensor, ""]
    accuracy: Float[Tensor, ""]


def avc(fusion: nn.Module, vision: Float[Tensor, "batch features"], audio: Float[Tensor, "batch features"], negatives: str) -> Outcome:
    """Cross-entropy of correspond / does not, positives and negatives weighing half each (paper, section 2).

    Row i of both sides belongs together; rows are of different videos. Negatives are the same rows paired otherwise, so that
    nothing but the correspondence can tell them from positives: `roll` pairs frame i with sound i + 1, `all` with every other.
    """
    same = torch.eye(len(vision), dtype=torch.bool, device=vision.device)
    other = same.roll(1, dims=1) if negatives == "roll" else ~same
    logits = fusion(vision[:, None], audio[None]).float()
    positive = _half(logits, same, CORRESPOND)
    negative = _half(logits, other, 1 - CORRESPOND)
    return Outcome(loss=(positive.loss + negative.loss) / 2, accuracy=(positive.accuracy + negative.accuracy) / 2)


def _half(logits: Float[Tensor, "batch batch 2"], mask: Bool[Tensor, "batch batch"], truth: int) -> Outcome:
    """Mean loss and accuracy over the pairs of `mask`, whose answer is `truth`."""
    weights = mask.float() / mask.sum()
    losses = -functional.log_softmax(logits, dim=-1)[..., truth]
    right = logits[..., truth] > logits[..., 1 - truth]
    return Outcome(loss=(losses * weights).sum(), accuracy=(right * weights).sum())
