"""The initial weights of a network."""

from collections.abc import Callable
from functools import partial

from torch import Tensor, nn

from looklisten.config import ModelConfig

INITIALIZATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "he-normal": partial(nn.init.kaiming_normal_, nonlinearity="relu"),
    "he-uniform": partial(nn.init.kaiming_uniform_, nonlinearity="relu"),
    "xavier-uniform": nn.init.xavier_uniform_,
}


def initialize_weights(network: nn.Module, config: ModelConfig) -> None:
    """Draw the weights of convolutions and fully-connected layers as `config` says; biases become
    zero.
    """
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            INITIALIZATIONS[config.initialization](module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
