"""What is asked of the network: audio-visual correspondence over pairs re-made within the batch."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from looklisten.model.l3net import CORRESPOND, Fusion


@dataclass(frozen=True, eq=False)
class Outcome:
    """The loss to descend, and the accuracy of its yes and no, with positives and negatives of equal weight."""

    loss: Float[Tensor, ""]
    accuracy: Float[Tensor, ""]


def avc(fusion: Fusion, vision: Float[Tensor, "batch features"], audio: Float[Tensor, "batch features"], negatives: str) -> Outcome:
    """Cross-entropy of correspond / does not, positives and negatives weighing half each (paper, section 2).

    Row i of both sides belongs together; rows are of different videos. Negatives are the same rows paired otherwise, so that
    nothing but the correspondence can tell them from positives: `roll` pairs frame i with sound i + 1, `all` with every other.
    """
    batch = len(vision)
    if negatives == "roll":
        frames = torch.arange(batch, device=vision.device)
        sounds = frames.roll(-1)
    else:
        frames, sounds = (~torch.eye(batch, dtype=torch.bool, device=vision.device)).nonzero(as_tuple=True)
    positive = fusion(vision, audio).float()
    negative = fusion(vision[frames], audio[sounds]).float()
    answers = ((positive, CORRESPOND), (negative, 1 - CORRESPOND))
    losses = [functional.cross_entropy(logits, torch.full_like(logits[:, 0], truth, dtype=torch.long)) for logits, truth in answers]
    right = [(logits.argmax(1) == truth).float().mean() for logits, truth in answers]
    return Outcome(loss=(losses[0] + losses[1]) / 2, accuracy=(right[0] + right[1]) / 2)
