"""The backbones that a config can name. A backbone is one file here and one row of `BACKBONES`.

Families of networks of other projects have a row in `FAMILIES`, and are imported when one is named.
"""

import importlib
from collections.abc import Callable, Mapping

import torch

from looklisten.config import SIDES, ModelConfig, Side
from looklisten.errors import ConfigError, OptionError
from looklisten.model.backbones.backbone import (
    Backbone,
    FusedTower,
    Layer,
    StreamingTower,
    TowerOutput,
)
from looklisten.model.backbones.efficientnet import EfficientNetLite0
from looklisten.model.backbones.resnet import ResNet
from looklisten.model.backbones.vgg import Vgg
from looklisten.model.backbones.yamnet import Yamnet

__all__ = [
    "BACKBONES",
    "Backbone",
    "FusedTower",
    "Layer",
    "StreamingTower",
    "TowerOutput",
    "build_tower",
    "check_backbone",
    "feature_counts",
    "find_backbone",
    "register_backbone",
]

BACKBONES: dict[str, type[Backbone]] = {
    "vgg": Vgg,
    "resnet": ResNet,
    "efficientnet-lite0": EfficientNetLite0,
    "yamnet": Yamnet,
}
"""By the name that a config has for them."""
FAMILIES = {
    "openl3:": "looklisten.interop.openl3.backbone:openl3_backbone",
    "hf:": "looklisten.interop.hf.backbones:hf_backbone",
}
"""Functions that give the backbone of a name with this prefix.

They belong to `interop`, which is above `model`, and imports only point down.
"""
INPUTS: Mapping[Side, str] = {"vision": "frames", "audio": "sound"}
"""What each side takes in, for error messages."""


def register_backbone(name: str, backbone: type[Backbone]) -> None:
    """Let configs name `backbone`. Raises ConfigError when another class has the name."""
    if BACKBONES.get(name, backbone) is not backbone:
        raise ConfigError(f"there is a backbone {name!r} already; choose another name")
    BACKBONES[name] = backbone


def find_backbone(name: str) -> type[Backbone]:
    """The class of a backbone. Raises OptionError when no class has the name.

    Raises another LookListenError for a name that its family does not know.
    """
    for prefix, address in FAMILIES.items():
        if name.startswith(prefix):
            module, _, function = address.partition(":")
            find: Callable[[str], type[Backbone]]
            find = getattr(importlib.import_module(module), function)
            return find(name)
    if name not in BACKBONES:
        raise OptionError(
            f"there is no backbone {name!r} (model.backbone); the backbones are "
            f"{', '.join(sorted(BACKBONES))}, and names that begin with {' or '.join(FAMILIES)}"
        )
    return BACKBONES[name]


def check_backbone(config: ModelConfig, side: Side) -> type[Backbone]:
    """The class of the backbone of `side`, which fits the settings. Raises ConfigError else."""
    name = config.backbone_of(side)
    backbone = find_backbone(name)
    if side not in backbone.sides:
        (own_side,) = backbone.sides
        raise ConfigError(
            f"{name} is a backbone of {INPUTS[own_side]}, not of {INPUTS[side]}; "
            f"set model.{own_side}_backbone to it, "
            f"and leave model.backbone and model.{side}_backbone to others"
        )
    if side == "audio" and backbone.front_end not in ("", config.front_end):
        raise ConfigError(
            f"{name} was trained with the front end {backbone.front_end}, and model.front_end is "
            f'{config.front_end}; set model.front_end to "{backbone.front_end}"'
        )
    backbone.check(config)
    return backbone


def build_tower(config: ModelConfig, side: Side, normalized_input: bool = False) -> Backbone:
    """The tower of `side` that `config` names, with new weights. Raises ConfigError."""
    backbone = check_backbone(config, side)
    in_channels = 3 * config.frames_per_pair if side == "vision" else 1
    return backbone.from_config(config, side, in_channels, normalized_input)


def feature_counts(config: ModelConfig) -> Mapping[Side, int]:
    """The number of features that the tower of each side gives."""
    # The device "meta" has shapes and no memory, so nothing is allocated or drawn.
    with torch.device("meta"):
        return {side: build_tower(config, side).features for side in SIDES}
