"""OpenL3's networks as backbones: `openl3:audio-mel256-env` and the others, by their names.

Knows tensors, names and weight files.
"""

from functools import cache
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from looklisten.config import ModelConfig
from looklisten.errors import ConfigError
from looklisten.interop.openl3.errors import OpenL3Error
from looklisten.interop.openl3.layers import CHANNELS, POOL, FusedOpenL3, OpenL3Layers
from looklisten.interop.openl3.published import published_file
from looklisten.interop.openl3.variants import Variant, variant_named
from looklisten.interop.openl3.weights import read_keras
from looklisten.model.backbones.backbone import FixedBackbone, FusedTower, Layer, TowerOutput
from looklisten.model.backbones.vgg import CONV4_2_GRID
from looklisten.model.published_weights import PublishedWeights

OPENL3_STRIDE = 8
"""Three pools halve rows and columns."""


class OpenL3Tower(OpenL3Layers, FixedBackbone):
    """One tower of OpenL3: the last convolution, before batch-norm and ReLU, and its maximum.

    A subclass for each published network says which one it is.
    """

    network: Variant

    def __init__(self) -> None:
        side = self.network.side
        super().__init__(side)
        self.features = CHANNELS[-1]
        self.stride = OPENL3_STRIDE
        self.layers = {
            "pool4": Layer(self.features),
            "conv4_2": Layer(self.features, CONV4_2_GRID[side]),
        }
        self.peak_values_per_pixel = CHANNELS[0]

    @classmethod
    def check(cls, config: ModelConfig) -> None:
        if cls.network.side == "vision" and config.frames_per_pair != 1:
            raise ConfigError(
                f"openl3:{cls.network.name} takes one frame, and model.frames_per_pair is "
                f"{config.frames_per_pair}; set it to 1"
            )

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> TowerOutput:
        x = self.input_norm(x)
        last = len(self.convs) - 1
        for index, convolution in enumerate(self.convs):
            x = convolution(x)
            if index == last:
                break
            norm = self.norms[index]
            x = norm(functional.relu(x)) if index == self.late_norm else functional.relu(norm(x))
            if index % 2:
                x = functional.max_pool2d(x, POOL)
        return TowerOutput(x, x.amax((2, 3)))

    def fused(self, dtype: torch.dtype) -> FusedTower:
        layers = FusedOpenL3(self, dtype)

        def run(x: Float[Tensor, "batch channels height width"]) -> TowerOutput:
            last_map = layers(x)
            return TowerOutput(last_map, last_map.amax((2, 3)))

        return run

    def map_columns(self, columns: int) -> int:
        return columns // OPENL3_STRIDE


@cache
def openl3_backbone(name: str) -> type[OpenL3Tower]:
    """The backbone `openl3:audio-mel256-env`. Raises OpenL3Error for an unknown name."""
    network = variant_named(name)

    def read(path: Path) -> dict[str, Tensor]:
        return _read_state(path, tower)

    attributes = {
        "__doc__": OpenL3Tower.__doc__,
        "network": network,
        "sides": (network.side,),
        "front_end": network.input_repr if network.side == "audio" else "",
        "published": PublishedWeights(
            file=published_file(network),
            read=read,
            # Nobody computed it, so a checkpoint holds the weights of the tower.
            sha256="",
            trained_by="Cramer et al. (OpenL3, 2019)",
            trained_on=training_data_of(network),
        ),
    }
    tower: type[OpenL3Tower] = type("OpenL3Tower", (OpenL3Tower,), attributes)
    return tower


def training_data_of(network: Variant) -> str:
    """What a published network was trained on."""
    content = "music" if network.content_type == "music" else "sounds of the environment"
    return f"AudioSet's videos with {content}, without labels"


def _read_state(path: Path, tower: type[OpenL3Tower]) -> dict[str, Tensor]:
    """The state of a tower from a Keras file. Raises OpenL3Error for one that does not fit."""
    weights = read_keras(path)
    with torch.device("meta"):
        state = tower().state_dict()
    for name, expected in state.items():
        # Keras does not count batches.
        if name.endswith("num_batches_tracked"):
            weights[name] = torch.zeros((), dtype=torch.long)
        if weights[name].shape != expected.shape:
            raise OpenL3Error(
                f"{path} holds another network than openl3:{tower.network.name}: its {name} is "
                f"{list(weights[name].shape)}, not {list(expected.shape)}; give its own file"
            )
    return weights
