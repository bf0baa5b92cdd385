"""What is asked of the network, over pairs that are re-made within the batch: correspondence, or
which of all it is.

Beside them, for comparison, what a clip's label is: the one place where a label can reach a weight.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.nn import functional

from looklisten.config import Config
from looklisten.model.l3net import CORRESPOND, AlignedFusion, Fusion, draw_weights

FIRST_SCALE = 1 / 0.07
"""Similarities are multiplied by it in the first softmax; learnt from there (CLIP, Radford et al.
2021, section 2.4).
"""
MAX_SCALE = 100.0
"""The scale is kept below, as there."""

Gather = Callable[[Tensor], Tensor]
"""From one's own rows to the rows of all processes, in the batch's order."""


def alone(rows: Tensor) -> Tensor:
    """The `Gather` of a process that has all rows."""
    return rows


@dataclass(frozen=True, eq=False)
class Outcome:
    """The loss to descend, and the accuracy: of yes and no, with positives and negatives of equal
    weight, or of naming the class.
    """

    loss: Float[Tensor, ""]
    accuracy: Float[Tensor, ""]


class Correspondence(nn.Module):
    """Cross-entropy of correspond / does not, positives and negatives weighing half each (paper,
    section 2).

    Negatives are the very rows of the positives paired otherwise, so that nothing but the
    correspondence can tell them apart.
    """

    def forward(
        self,
        fusion: Fusion,
        vision: Float[Tensor, "own *places width"],
        audio: Float[Tensor, "own *moments width"],
        positives: Bool[Tensor, "own all"],
        negatives: Bool[Tensor, "own all"],
        gather: Gather = alone,
    ) -> Outcome:
        """`vision` and `audio` are the fusion's projections of one's own rows; the masks are over
        own frames and all sounds.
        """
        return _halves(fusion.answer_all(vision, gather(audio)), positives, negatives)


class Contrast(nn.Module):
    """Symmetric InfoNCE: which sound of the batch belongs to a frame, and which frame to a sound;
    the temperature is learnt.

    (Oord et al. 2018; both directions and the learnt scale as in CLIP.) The yes and no of the
    fusion are learnt beside it, on similarities that it gets as they are: they change its threshold
    and nothing else.
    """

    def __init__(self) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(math.log(FIRST_SCALE)))

    def forward(
        self,
        fusion: AlignedFusion,
        vision: Float[Tensor, "own *places width"],
        audio: Float[Tensor, "own *moments width"],
        positives: Bool[Tensor, "own all"],
        negatives: Bool[Tensor, "own all"],
        gather: Gather = alone,
    ) -> Outcome:
        """`vision` and `audio` are unit vectors of one's own rows; everything but the positives
        stands against them.
        """
        all_vision, all_audio = gather(vision), gather(audio)
        scale, truth = self.log_scale.exp().clamp_max(MAX_SCALE), positives.int().argmax(1)
        of_sounds = fusion.compare(vision, all_audio)
        of_frames = (of_sounds if all_vision is vision else fusion.compare(all_vision, audio)).T
        to_sounds, to_frames = (
            functional.cross_entropy(scale * similar, truth) for similar in (of_sounds, of_frames)
        )
        decision = _halves(fusion.decide(of_sounds.detach()), positives, negatives)
        return Outcome(loss=(to_sounds + to_frames) / 2 + decision.loss, accuracy=decision.accuracy)


class Labels(nn.Module):
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
        draw_weights(self, config.model)

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
    ) -> Outcome:
        """`truth`: the place of each row's label among the classes. The loss is the sum of both
        sides', the accuracy their mean.
        """
        sides = [self.vision(vision).float(), self.audio(audio).float()]
        right = torch.stack([(side.argmax(-1) == truth).float().mean() for side in sides])
        return Outcome(
            loss=torch.stack([functional.cross_entropy(side, truth) for side in sides]).sum(),
            accuracy=right.mean(),
        )


def objective_of(config: Config) -> nn.Module:
    """What `config` asks, with the weights that only this question has."""
    if config.train.objective == "labels":
        return Labels(config)
    return Contrast() if config.train.objective == "contrastive" else Correspondence()


def chance_loss(objective: str, choices: int) -> float:
    """The loss of a network that knows nothing; `choices`: the rows that a sound is sought among,
    or the classes.
    """
    yes_or_no = math.log(2)
    if objective == "labels":
        return 2 * math.log(choices)
    return yes_or_no if objective == "avc" else math.log(choices) + yes_or_no


def _halves(
    logits: Float[Tensor, "own all 2"],
    positives: Bool[Tensor, "own all"],
    negatives: Bool[Tensor, "own all"],
) -> Outcome:
    yes, no = (
        _half(logits.float(), positives, CORRESPOND),
        _half(logits.float(), negatives, 1 - CORRESPOND),
    )
    return Outcome(loss=(yes.loss + no.loss) / 2, accuracy=(yes.accuracy + no.accuracy) / 2)


def _half(logits: Float[Tensor, "own all 2"], mask: Bool[Tensor, "own all"], truth: int) -> Outcome:
    """Mean loss and accuracy over the pairs of `mask`, whose answer is `truth`."""
    weights = mask.float() / mask.sum()
    losses = -functional.log_softmax(logits, dim=-1)[..., truth]
    right = logits[..., truth] > logits[..., 1 - truth]
    return Outcome(loss=(losses * weights).sum(), accuracy=(right * weights).sum())
