"""x"""

from collections.abc import Callable
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

Gather = Callable[[Tensor], Tensor]
"""From one's own rows to the rows of all processes, in the batch's order."""


def alone(rows: Tensor) -> Tensor:
    """The `Gather` of a process that has all rows."""
    return rows


@dataclass(frozen=True, eq=False)
class LossAndAccuracy:
    """The loss to descend, and the accuracy: of yes and no, with positives and negatives of equal
    weight, or of naming the class.
    """

    loss: Float[Tensor, ""]
    accuracy: Float[Tensor, ""]
