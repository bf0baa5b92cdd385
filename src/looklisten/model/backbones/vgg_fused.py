"""The VGG backbone for inference: batch-norm and ReLU inside the convolutions.

Knows tensors only.
"""

from copy import deepcopy

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from looklisten.model.backbones.backbone import TowerOutput
from looklisten.model.backbones.vgg import Block, Vgg
from looklisten.model.fused_convolution import FusedConvolution
from looklisten.model.pooling import max_pooled


class FusedVgg:
    """A copy of `tower` for inference in `dtype`.

    It gives what the tower gives in evaluation mode, up to rounding.
    """

    def __init__(self, tower: Vgg, dtype: torch.dtype) -> None:
        # Copies, because training may change the modules of the tower later.
        self._input_norm = deepcopy(tower.input_norm).eval()
        self._pools = tower.pools
        self._convolutions: list[tuple[FusedConvolution, FusedConvolution]] = []
        last = len(tower.blocks) - 1
        for index, block in enumerate(tower.blocks):
            assert isinstance(block, Block)
            first = FusedConvolution(block.conv1, block.bn1, dtype)
            if index < last:
                second = FusedConvolution(block.conv2, block.bn2, dtype)
            else:
                # This convolution is a layer of its own, so batch-norm cannot be in its weights.
                second = FusedConvolution(block.conv2, None, dtype, activation="none")
                self._last_norm = deepcopy(block.bn2).eval()
            self._convolutions.append((first, second))

    def __call__(self, x: Float[Tensor, "batch channels height width"]) -> TowerOutput:
        x = self._input_norm(x)
        for index, (first, second) in enumerate(self._convolutions):
            if index:
                x = max_pooled(x, self._pools[index - 1])
            x = second(first(x))
        last_map = functional.relu_(self._last_norm(x))
        return TowerOutput(
            map=last_map, vector=torch.amax(last_map, dim=(2, 3)), named_maps={"conv4_2": x}
        )
