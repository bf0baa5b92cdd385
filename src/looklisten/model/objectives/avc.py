"""Audio-visual correspondence."""

from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from looklisten.model.fusions import CORRESPOND, Fusion
from looklisten.model.objectives.objective import Gather, LossAndAccuracy, alone


class AvcObjective(nn.Module):
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
    ) -> LossAndAccuracy:
        """`vision` and `audio` are the fusion's projections of one's own rows; the masks are over
        own frames and all sounds.
        """
        return _halves(fusion.answer_all(vision, gather(audio)), positives, negatives)


def _halves(
    logits: Float[Tensor, "own all 2"],
    positives: Bool[Tensor, "own all"],
    negatives: Bool[Tensor, "own all"],
) -> LossAndAccuracy:
    yes, no = (
        _half(logits.float(), positives, CORRESPOND),
        _half(logits.float(), negatives, 1 - CORRESPOND),
    )
    return LossAndAccuracy(loss=(yes.loss + no.loss) / 2, accuracy=(yes.accuracy + no.accuracy) / 2)


def _half(
    logits: Float[Tensor, "own all 2"], mask: Bool[Tensor, "own all"], truth: int
) -> LossAndAccuracy:
    """Mean loss and accuracy over the pairs of `mask`, whose answer is `truth`."""
    weights = mask.float() / mask.sum()
    losses = -functional.log_softmax(logits, dim=-1)[..., truth]
    right = logits[..., truth] > logits[..., 1 - truth]
    return LossAndAccuracy(loss=(losses * weights).sum(), accuracy=(right * weights).sum())
