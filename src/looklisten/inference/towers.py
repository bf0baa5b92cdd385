"""What a network sees and hears, computed by its towers in their fused form.

The forms are kept between calls, because making one takes as long as some rows. Knows tensors only.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, runtime_checkable
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Num
from torch import Tensor, nn

from looklisten.model.backbones import TowerOutput
from looklisten.model.l3net import L3Net

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
