"""Groups of classes that are often seen and heard together, such as dogs and barks.

A published tower of pictures knows the classes of ImageNet, one of sound those of AudioSet. Which
of them belong together, no tower knows. This table says it, so that a network can tell what belongs
together before it has seen a video.
"""

from dataclasses import dataclass
from importlib import resources

import torch
from jaxtyping import Float
from torch import Tensor

from looklisten.config import SIDES, ModelConfig, Side
from looklisten.errors import ConfigError
from looklisten.model.fusions import Fusion
from looklisten.model.fusions.linear import LinearFusion
from looklisten.model.l3net import L3Net
from looklisten.model.tower_classes import NAMES_FOLDER, TowerClasses, tower_classes

GROUPS_FILE = "groups.txt"


@dataclass(frozen=True)
class ClassGroup:
    """Classes of pictures and of sounds that belong together, by their number in each tower.

    A group of silence or noise has no pictures.
    """

    name: str
    vision: tuple[int, ...]
    audio: tuple[int, ...]

    def classes(self, side: Side) -> tuple[int, ...]:
        return self.vision if side == "vision" else self.audio


def class_groups() -> list[ClassGroup]:
    """The groups of the package, in their order."""
    file = resources.files("looklisten.model") / NAMES_FOLDER / GROUPS_FILE
    groups = []
    for line in file.read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            continue
        name, pictures, sounds = line.split("; ")
        groups.append(ClassGroup(name, _numbers(pictures), _numbers(sounds)))
    return groups


def _numbers(text: str) -> tuple[int, ...]:
    """The numbers of a list such as `3, 5-8`, or none."""
    numbers: list[int] = []
    for part in filter(None, text.split(", ")):
        first, _, last = part.partition("-")
        numbers += range(int(first), int(last or first) + 1)
    return tuple(numbers)


def begin_class_groups(network: L3Net) -> None:
    """Give the fusion of a network the groups, if its config asks for them.

    Raises ConfigError where a tower does not have exactly its published weights, because only those
    know the classes.
    """
    if not network.config.class_groups:
        return
    fusion = _fusion_with_groups(network.fusion, network.config)
    groups = class_groups()
    for side in SIDES:
        classes = tower_classes(network.tower(side))
        if classes is None:
            raise ConfigError(
                f"model.class_groups needs the classes of a published {side} tower, and this one "
                "has other weights; set model.class_groups to 0"
            )
        members = [group.classes(side) for group in groups]
        fusion.set_groups(side, _group_rows(side, members, classes))


def _fusion_with_groups(fusion: Fusion, config: ModelConfig) -> LinearFusion:
    count = len(class_groups())
    if config.class_groups != count:
        raise ConfigError(
            f"model.class_groups is {config.class_groups}, and this version knows {count} groups; "
            f"set it to {count}, or to 0 for none"
        )
    assert isinstance(fusion, LinearFusion), "the config check allows no other fusion"
    return fusion


def _group_rows(
    side: Side, members: list[tuple[int, ...]], classes: TowerClasses
) -> Float[Tensor, "groups inputs"]:
    """For each group, the weights of the numbers whose sum says how present it is."""
    shares = torch.zeros(len(members), len(classes.names), dtype=torch.float32)
    for row, numbers in enumerate(members):
        if numbers:
            shares[row, list(numbers)] = 1 / len(numbers)
    if side == "vision":
        # How far the mean logit of the group lies above that of all classes.
        return shares @ (classes.weight - classes.weight.mean(0))
    # The mean logarithm of the scores. Logits would let a class with a score near 0 outvote one
    # that is heard.
    return shares
