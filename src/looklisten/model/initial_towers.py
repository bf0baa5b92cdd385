"""What the towers of a new run begin with: random weights, published ones, or those of a run."""

from pathlib import Path

from torch import Tensor

from looklisten.config import SIDES, Config, Side
from looklisten.errors import CheckpointError
from looklisten.model.backbones import find_backbone
from looklisten.model.checkpoint import open_checkpoint
from looklisten.model.class_groups import begin_class_groups
from looklisten.model.l3net import L3Net

SCRATCH = "scratch"
"""`train.vision_from` and `train.audio_from`: keep the random weights."""


def begin_towers(network: L3Net, config: Config) -> None:
    """Give each tower of a new network the weights that it begins with, as `config.train` says.

    Raises CheckpointError when a tower of a run does not fit, and PublishedFileError when published
    weights cannot be had.
    """
    for side in SIDES:
        weights = initial_weights(side, config)
        if weights is not None:
            network.tower(side).load_state_dict(weights)
    begin_class_groups(network)


def begin_published_towers(network: L3Net) -> None:
    """Give each tower the published weights of its backbone, if it has some.

    Raises PublishedFileError when they cannot be had.
    """
    begin_towers(network, Config(model=network.config))


def initial_weights(side: Side, config: Config) -> dict[str, Tensor] | None:
    """The weights that the tower of one side begins with; None for random ones."""
    source = config.train.vision_from if side == "vision" else config.train.audio_from
    published = find_backbone(config.model.backbone_of(side)).published
    if source == SCRATCH:
        return None
    if published is not None and (not source or Path(source).is_file()):
        return published.load(source or None)
    return tower_weights(source, side, config) if source else None


def tower_weights(path: str, side: Side, config: Config) -> dict[str, Tensor]:
    """The weights of one tower of a checkpoint.

    Raises CheckpointError when a network of `config` cannot use them.
    """
    saved = open_checkpoint(path)
    tower = saved.model().tower(side)
    saved_name, own_name = saved.config.model.backbone_of(side), config.model.backbone_of(side)
    if saved_name != own_name:
        raise CheckpointError(
            f"the {side} tower of {path} cannot be taken over: its backbone is {saved_name}, "
            f"here it is {own_name}; set model.{side}_backbone to the same"
        )
    # Weights mean the same only for the same kind of input.
    input_settings = {"vision": ("frames_per_pair",), "audio": ("front_end", "window")}[side]
    for name in (*tower.weight_settings, *input_settings):
        saved_value = getattr(saved.config.model, name)
        value = getattr(config.model, name)
        if saved_value != value:
            raise CheckpointError(
                f"the {side} tower of {path} cannot be taken over: its model.{name} is "
                f"{saved_value}, here it is {value}; set it to the same"
            )
    return tower.state_dict()
