"""Backbone."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True, eq=False)
class TowerOutput:
    """What a tower says, by name, so that nobody needs hooks."""

    conv4_2: Float[Tensor, "batch features rows columns"]
    """The last convolution, before batch-norm and ReLU: what the paper's evaluation pools."""
    map: Float[Tensor, "batch features rows columns"]
    """The same after batch-norm and ReLU: where each unit fires."""
    vector: Float[Tensor, "batch features"]
    """The maximum of `map` over all places (pool4)."""
