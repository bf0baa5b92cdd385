"""The initial weights of convolutions and fully-connected layers."""

from collections.abc import Callable
from functools import partial

from torch import Tensor, nn

from looklisten.config import ModelConfig

INITIALIZATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "he-normal": partial(nn.init.kaiming_normal_, nonlinearity="relu"),
    "he-uniform": partial(nn.init.kaiming_uniform_, nonlinearity="relu"),
    "xavier-uniform": nn.init.xavier_uniform_,
}


def initialize_weights(module: nn.Module, config: ModelConfig) -> None:
    """Draw the weights of all layers in `module` as `config` says; biases become zero."""
    for layer in module.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            INITIALIZATIONS[config.initialization](layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
