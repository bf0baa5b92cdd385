"""The interface of a backbone: what the rest of the package may know of a tower.

Knows tensors and settings, no architecture.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from looklisten.config import SIDES, ModelConfig, Side
from looklisten.errors import ConfigError
from looklisten.model.published_weights import PublishedWeights

# A string and not None, so that a layer can be written as JSON and compared easily.
LAST_MAP = ""
"""The `map_name` of a layer that is pooled from `TowerOutput.map`."""

MapPooling = Literal["maximum", "mean"]
"""How the values of a map become one number."""


@dataclass(frozen=True, eq=False)
class TowerOutput:
    """The result of one run of a tower."""

    map: Float[Tensor, "batch features rows columns"]
    """The last feature map: where each unit responds."""
    vector: Float[Tensor, "batch features"]
    """`map` pooled over all positions."""
    named_maps: Mapping[str, Float[Tensor, "batch channels map_rows map_columns"]] = field(
        default_factory=dict
    )
    """Other maps that a layer of the tower is pooled from."""
    pooling: MapPooling = "maximum"
    """How `map` becomes `vector`."""

    def map_of(self, layer: "Layer") -> Float[Tensor, "batch channels map_rows map_columns"]:
        """The map that `layer` is pooled from."""
        if layer.map_name == LAST_MAP:
            return self.map
        return self.named_maps[layer.map_name]


def pool(
    map_: Float[Tensor, "batch channels rows columns"],
    pooling: MapPooling = "maximum",
    grid: tuple[int, int] = (1, 1),
) -> Float[Tensor, "batch pooled"]:
    """The maxima or means of a map over the cells of a grid, flattened."""
    if grid == (1, 1):
        return map_.mean((2, 3)) if pooling == "mean" else map_.amax((2, 3))
    if pooling == "mean":
        return functional.adaptive_avg_pool2d(map_, grid).flatten(1)
    return functional.adaptive_max_pool2d(map_, grid).flatten(1)


@dataclass(frozen=True)
class Layer:
    """A map of a tower, pooled to a grid and flattened: a vector that can be an embedding."""

    channels: int
    grid: tuple[int, int] = (1, 1)
    """Rows and columns that the map is pooled to."""
    map_name: str = LAST_MAP
    """A name in `TowerOutput.named_maps`, or `LAST_MAP`."""
    pooling: MapPooling = "maximum"

    @property
    def width(self) -> int:
        """The length of the vector."""
        rows, columns = self.grid
        return self.channels * rows * columns


@runtime_checkable
class StreamingTower(Protocol):
    """A tower that reads a long spectrogram in strips, from left to right."""

    @property
    def lookahead_columns(self) -> int:
        """Input columns that a position of the map needs after its own first column."""

    def push(
        self, columns: Float[Tensor, "1 channels rows columns"]
    ) -> Float[Tensor, "1 features map_rows map_columns"]:
        """The columns of the map that these columns complete."""


@runtime_checkable
class FusedTower(Protocol):
    """A tower in the form in which it is fastest when it is not trained."""

    def __call__(self, x: Float[Tensor, "batch channels height width"]) -> TowerOutput:
        """What the tower gives in evaluation mode, up to rounding."""


class Backbone(ABC, nn.Module):
    """A tower: from a frame or a log-spectrogram to a map, a vector and named layers.

    A subclass sets the attributes in its constructor, whose arguments are those of `settings`.
    """

    sides: ClassVar[tuple[Side, ...]] = SIDES
    """The sides that it can be the tower of."""
    pooling: ClassVar[MapPooling] = "maximum"
    """How the last map becomes the vector."""
    published: ClassVar[PublishedWeights | None] = None
    """The weights that training begins with; None for a backbone that begins with random ones."""
    front_end: ClassVar[str] = ""
    """The front end that the published weights were trained with; empty: any fits."""
    weight_settings: ClassVar[tuple[str, ...]] = ()
    """Settings of `ModelConfig` that two networks must share to exchange the weights of a tower."""

    features: int
    """Channels of the last map."""
    stride: int
    """Columns of the input between two neighboring positions of the last map."""
    layers: Mapping[str, Layer]
    """The layers to choose from, the usual one first."""
    block_widths: tuple[int, ...] = ()
    """Channels of each map of `block_maps`; empty if the backbone has no such maps."""
    classes: int = 0
    """Classes that `class_scores` gives scores for."""
    peak_values_per_pixel: float
    """Values of the largest map for each pixel of the input. It bounds the memory of a batch."""

    @staticmethod
    def check(config: ModelConfig) -> None:
        """Raises ConfigError, one sentence, for settings that cannot be built. Optional."""

    @classmethod
    @abstractmethod
    def from_config(
        cls, config: ModelConfig, side: Side, in_channels: int, normalized_input: bool
    ) -> "Backbone":
        """The tower of `side` with new weights.

        `normalized_input`: begin with a batch-norm, for inputs far from mean 0 and deviation 1.
        """

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """The arguments of the constructor that build this tower again, as JSON can hold them."""

    @abstractmethod
    def forward(self, x: Float[Tensor, "batch channels height width"]) -> TowerOutput:
        """Map, vector and named maps of a batch of inputs."""

    def vector_layer(self) -> Layer:
        """The layer that is `TowerOutput.vector`."""
        return Layer(self.features, pooling=self.pooling)

    @abstractmethod
    def map_columns(self, columns: int) -> int:
        """How many columns the last map has for an input of `columns` columns."""

    def class_scores(
        self, vectors: Float[Tensor, "*batch features"]
    ) -> Float[Tensor, "*batch classes"]:
        """The score from 0 to 1 of each class that the published network knows, if `classes`."""
        raise NotImplementedError

    def block_maps(
        self, x: Float[Tensor, "batch channels height width"]
    ) -> Iterator[Float[Tensor, "batch channels map_rows map_columns"]]:
        """The map of each block, one after the other. Optional: see `block_widths`."""
        raise NotImplementedError

    def streaming(self, layer: Layer, dtype: torch.dtype) -> StreamingTower:  # noqa: ARG002
        """The tower in a form that reads a long spectrogram in strips. Optional.

        It computes in `dtype` and gives the map that `layer` is pooled from.
        """
        raise ConfigError(
            f"{type(self).__name__} cannot read a long spectrogram in strips; "
            f"omit dense, or choose the backbone vgg"
        )

    def fused(self, dtype: torch.dtype) -> FusedTower:  # noqa: ARG002
        """The tower in a faster form for inference, which computes in `dtype`. Optional.

        It keeps the present weights: later changes of the tower do not change it. It must not refer
        to the tower. By default it is the tower itself, which autocast lets compute in `dtype`.
        """
        return self

    def inflate_input(self, frames: int) -> None:
        """Change the initial weights for `frames` frames side by side in the channels. Optional.

        By default the weights stay as they were drawn.
        """


class FixedBackbone(Backbone):
    """A backbone of one architecture, as others published it: no config changes it.

    Its constructor has no arguments.
    """

    @classmethod
    def from_config(
        cls,
        config: ModelConfig,  # noqa: ARG003 (the interface of all backbones)
        side: Side,  # noqa: ARG003
        in_channels: int,  # noqa: ARG003
        normalized_input: bool,  # noqa: ARG003
    ) -> "FixedBackbone":
        return cls()

    def settings(self) -> dict[str, Any]:
        return {}
