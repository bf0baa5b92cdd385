"""The backbones that a config can name. A backbone is one file here and one row of `BACKBONES`."""

import torch

from looklisten.config import ModelConfig
from looklisten.errors import ConfigError, OptionError
from looklisten.model.backbones.backbone import Backbone, Layer, StreamingTower, TowerOutput
from looklisten.model.backbones.vgg import Vgg

__all__ = [
    "BACKBONES",
    "Backbone",
    "Layer",
    "StreamingTower",
    "TowerOutput",
    "feature_count",
    "find_backbone",
    "register_backbone",
]

BACKBONES: dict[str, type[Backbone]] = {"vgg": Vgg}
"""By the name that `model.backbone` has in a config."""


def register_backbone(name: str, backbone: type[Backbone]) -> None:
    """Let configs name `backbone`. Raises ConfigError when another class has the name."""
    if BACKBONES.get(name, backbone) is not backbone:
        raise ConfigError(f"there is a backbone {name!r} already; choose another name")
    BACKBONES[name] = backbone


def find_backbone(name: str) -> type[Backbone]:
    """The class of a backbone. Raises OptionError when no class has the name."""
    if name not in BACKBONES:
        raise OptionError(
            f"there is no backbone {name!r} (model.backbone); the backbones are "
            f"{', '.join(sorted(BACKBONES))}"
        )
    return BACKBONES[name]


def feature_count(config: ModelConfig) -> int:
    """The number of features that a tower of `config` gives."""
    # The device "meta" has shapes and no memory, so nothing is allocated or drawn.
    with torch.device("meta"):
        backbone = find_backbone(config.backbone)
        return backbone.from_config(config, "vision", 3 * config.frames_per_pair, False).features
