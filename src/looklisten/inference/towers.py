"""A network in use: its towers in their fused form, and the layers that give vectors.

Each tower lists its own layers. Two more come from the network: `aligned`, from the fusion, and
`texture`, from all blocks of the audio tower. The fused forms are kept between calls, because
making one takes as long as some rows. Knows tensors only.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, runtime_checkable
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float, Num
from torch import Tensor, nn
from torch.nn import functional

from looklisten.config import Side
from looklisten.errors import ConfigError
from looklisten.model.backbones import Layer, TowerOutput
from looklisten.model.backbones.backbone import pool
from looklisten.model.l3net import L3Net

ALIGNED = "aligned"
"""The layer in the space that the vectors of sound and of frames share."""
TEXTURE = "texture"
"""The layer of sound with statistics of all blocks."""
TEXTURE_BANDS = 4
"""Parts of the frequency axis that a texture describes separately."""


def look(
    model: L3Net,
    frames: Num[Tensor, "batch channels height width"],
    dtype: torch.dtype = torch.float32,
) -> TowerOutput:
    """The same as `model.look` in evaluation mode, up to rounding, computed in `dtype`.

    A subclass of L3Net with its own `look` is asked itself, in its own arithmetic.
    """
    if type(model).look is not L3Net.look:
        return model.look(frames)
    return fused_form(model.vision, dtype)(model.normalize_frames(frames))


def listen(
    model: L3Net, waveforms: Num[Tensor, "batch samples"], dtype: torch.dtype = torch.float32
) -> TowerOutput:
    """The same as `model.listen` in evaluation mode, up to rounding, computed in `dtype`.

    A subclass of L3Net with its own `listen` is asked itself, in its own arithmetic.
    """
    if type(model).listen is not L3Net.listen:
        return model.listen(waveforms)
    # On a CPU one by one: so its values stay in the caches, and a spectrogram cannot depend on its
    # place in a batch.
    rows = 1 if waveforms.device.type == "cpu" else len(waveforms)
    spectrograms = [model.spectrogram(part) for part in torch.split(waveforms, rows)]
    return fused_form(model.audio, dtype)(torch.cat(spectrograms))


def layers_of(model: L3Net, side: Side) -> tuple[str, ...]:
    """The names of the layers of one side, the usual one first."""
    tower = model.tower(side)
    names = list(tower.layers)
    if model.fusion.aligns_vectors:
        names.append(ALIGNED)
    if side == "audio" and tower.block_widths:
        names.append(TEXTURE)
    return tuple(names)


def check_layer(model: L3Net, side: Side, layer: str) -> None:
    """Raises ConfigError, one sentence, when the network has no layer of this name and side.

    `texture` is refused too, because its vectors are not pooled from one map.
    """
    if layer == TEXTURE:
        raise ConfigError(
            "texture is a layer of single windows of sound: it cannot be used for frames, "
            "with dense, or in an ONNX file"
        )
    tower_layers = model.tower(side).layers
    if layer == ALIGNED and not model.fusion.aligns_vectors:
        reason = "whose two sides share no space"
        if model.fusion.shares_space:
            reason = "which has no single vector of a frame"
        raise ConfigError(
            f'this network was trained with fusion "{model.config.fusion}", {reason}; for aligned '
            f"vectors train one with the recipe general, contrastive or tiny"
        )
    if layer != ALIGNED and layer not in tower_layers:
        raise ConfigError(
            f"there is no layer {layer!r}; the layers are {', '.join(layers_of(model, side))}"
        )


def pooled_layer(model: L3Net, side: Side, layer: str) -> Layer:
    """The map and the grid that the vectors of a layer are pooled from.

    Raises ConfigError when the network has no such layer.
    """
    check_layer(model, side, layer)
    tower = model.tower(side)
    # The fusion aligns the vector of the last map.
    return tower.vector_layer() if layer == ALIGNED else tower.layers[layer]


def side_vectors(
    model: L3Net, output: TowerOutput, side: Side, layer: str
) -> Float[Tensor, "batch features"]:
    """One vector a row, float32, from the output of the tower of `side`.

    A layer of the tower is its map, pooled to a grid. `aligned` is the unit vector in the space
    that both sides share. `layer`: a name that `check_layer` accepts.
    """
    tower = model.tower(side)
    if layer == ALIGNED:
        if side == "vision":
            # Some fusions take the vector of a frame from all positions of its map.
            return model.fusion.aligned_frame(output)
        return model.fusion.aligned(output.vector.float(), side)
    pooled_from = tower.layers[layer]
    if pooled_from == tower.vector_layer():
        # The tower has pooled its last map over all positions already.
        return output.vector.float()
    return pool(output.map_of(pooled_from).float(), pooled_from.pooling, pooled_from.grid)


def vectors_from_pooled(
    model: L3Net, pooled: Float[Tensor, "batch pooled"], side: Side, layer: str
) -> Float[Tensor, "batch features"]:
    """The vectors of a layer from its pooled map: the same values, except for `aligned`."""
    if layer != ALIGNED:
        return pooled
    return model.fusion.aligned(pooled, side)


def layer_width(model: L3Net, side: Side, layer: str) -> int:
    """The length of the vectors of `side_vectors`, or of `texture`."""
    tower = model.tower(side)
    if layer == TEXTURE:
        # A mean and a deviation for each unit of each block, in each band.
        return 2 * TEXTURE_BANDS * sum(tower.block_widths)
    if layer == ALIGNED:
        return model.fusion.aligned_width
    return tower.layers[layer].width


def texture(
    model: L3Net, waveforms: Num[Tensor, "batch samples"]
) -> Float[Tensor, "batch features"]:
    """Mean and deviation over time of every unit of every block, in each frequency band; float32.

    The order is: block by block, means before deviations, unit by unit. Sounds such as rain or
    applause are recognized by such statistics of simple filters (McDermott and Simoncelli, "Sound
    texture perception via statistics of the auditory periphery", 2011). A maximum over time loses
    them.
    """
    statistics = []
    for block_map in model.audio.block_maps(model.spectrogram(waveforms)):
        columns = block_map.shape[3]
        bands = functional.adaptive_avg_pool2d(block_map, (TEXTURE_BANDS, columns)).float()
        deviation, mean = torch.std_mean(bands, dim=3, correction=0)
        statistics += [mean.flatten(1), deviation.flatten(1)]
    return torch.cat(statistics, 1)


WeightsState = tuple[tuple[tuple[int, int], ...], tuple[float, ...]]
"""The address and the version of each weight, and the norms. It changes with the weights."""


FormT = TypeVar("FormT")
FormT_co = TypeVar("FormT_co", covariant=True)


@runtime_checkable
class HasFusedForm(Protocol[FormT_co]):
    """A module with the method `fused`: a backbone, or a network of OpenL3."""

    def parameters(self) -> Iterator[nn.Parameter]: ...

    def buffers(self) -> Iterator[Tensor]: ...

    def fused(self, dtype: torch.dtype) -> FormT_co: ...


@dataclass(frozen=True, eq=False)
class _StoredForm:
    state: WeightsState
    form: Any


# Weak, so that a form is freed with its network.
_stored_forms: WeakKeyDictionary[HasFusedForm[Any], dict[torch.dtype, _StoredForm]] = (
    WeakKeyDictionary()
)


def fused_form(network: HasFusedForm[FormT], dtype: torch.dtype) -> FormT:
    """The fused form of `network` with its present weights."""
    state = _state(network)
    forms = _stored_forms.setdefault(network, {})
    stored = forms.get(dtype)
    if stored is not None and stored.state == state:
        stored_form: FormT = stored.form
        return stored_form
    form = network.fused(dtype)
    # A tower that is its own form would keep itself alive here.
    if form is not network:
        forms[dtype] = _StoredForm(state, form)
    return form


@torch.no_grad()
def _state(network: HasFusedForm[Any]) -> WeightsState:
    tensors = [*network.parameters(), *network.buffers()]
    # PyTorch counts the changes of a tensor, but not of one that was made in inference mode.
    addresses = [
        (tensor.data_ptr(), 0 if tensor.is_inference() else tensor._version) for tensor in tensors
    ]
    # Nor does it count those by an optimizer with `fused=True`. They change every value, and so
    # the norm.
    norms = torch._foreach_norm([tensor for tensor in tensors if tensor.is_floating_point()])
    return tuple(addresses), tuple(torch.stack(norms).tolist())
