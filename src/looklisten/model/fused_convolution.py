"""A convolution with batch-norm and ReLU inside, for networks that are not trained any more.

Knows tensors only.
"""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_weights

from looklisten.model.winograd import WinogradConvolution

Activation = Literal["none", "relu", "relu6"]
"""What follows the batch-norm; `relu6` is ReLU with at most 6."""

ONEDNN_ACTIVATIONS: dict[Activation, tuple[str, list[float]]] = {
    "none": ("none", []),
    "relu": ("relu", []),
    "relu6": ("hardtanh", [0.0, 6.0]),
}
"""The name of each activation in oneDNN's operation, and its arguments."""
# PyTorch cannot tell whether a single channel is channels-last, and then a CPU takes ten times as
# long as for two channels.
MIN_CHANNELS = 2
"""Fewer input channels are filled up with zeros."""
MIN_ONEDNN_CHANNELS = 64
"""Input channels from which on oneDNN is called directly; with fewer, PyTorch's call starts faster.

Convolutions of 1 x 1 always call it: PyTorch chooses a slow operation for them
(benchmarks/RESULTS.md).
"""
# Measured: with fewer channels or positions the transforms cost more than they save
# (benchmarks/RESULTS.md).
MIN_WINOGRAD_CHANNELS = (64, 128)
"""Input and output channels from which on Winograd's method computes a convolution in float32."""
MIN_WINOGRAD_POSITIONS = 256
"""Positions of the map from which on it does."""


class FusedConvolution:
    """A convolution, the batch-norm after it and the activation as one step.

    It computes in `dtype`. It has its own copy of the weights, so it does not follow later changes.
    `norm` None means that no batch-norm follows. `padding` replaces that of `convolution`.
    """

    @torch.no_grad()
    def __init__(
        self,
        convolution: nn.Conv2d,
        norm: nn.BatchNorm2d | None,
        dtype: torch.dtype,
        activation: Activation = "relu",
        padding: tuple[int, int] | None = None,
    ) -> None:
        weight, bias = folded_weights(convolution, norm)
        self._groups = convolution.groups
        self.in_channels = max(convolution.in_channels, MIN_CHANNELS)
        if self._groups == 1:
            weight = with_zeros(weight, self.in_channels)
        self.stride = convolution.stride
        self._padding = list(padding or (int(side) for side in convolution.padding))
        self._activation = activation
        self._dtype = dtype
        self._bias = bias.detach().to(dtype, copy=True)
        # Channels-last is the fastest layout on every device but Apple's.
        is_apple = weight.device.type == "mps"
        self._layout = torch.contiguous_format if is_apple else torch.channels_last
        self._weight = weight.detach().to(dtype, copy=True, memory_format=self._layout)
        self._winograd = None
        if self._fits_winograd(convolution):
            self._winograd = WinogradConvolution(self._weight, self._bias, activation == "relu")
        is_large = self.in_channels >= MIN_ONEDNN_CHANNELS
        is_pointwise = convolution.kernel_size == (1, 1)
        self._is_onednn = (is_large or is_pointwise) and _onednn_computes(self._weight)
        self._reordered: tuple[torch.Size, Tensor] | None = None

    def __call__(
        self, x: Float[Tensor, "batch in rows columns"]
    ) -> Float[Tensor, "batch out new_rows new_columns"]:
        x = with_zeros(x, self.in_channels)
        x = x.to(self._dtype, memory_format=self._layout)
        if self._winograd is not None and x.shape[2] * x.shape[3] >= MIN_WINOGRAD_POSITIONS:
            return self._winograd(x)
        if self._is_onednn:
            name, arguments = ONEDNN_ACTIVATIONS[self._activation]
            y: Tensor = torch.ops.mkldnn._convolution_pointwise(
                x,
                self._weight_for(x.shape),
                self._bias,
                self._padding,
                list(self.stride),
                [1, 1],
                self._groups,
                name,
                arguments,
                "",
            )
            return y
        y = functional.conv2d(
            x, self._weight, self._bias, self.stride, tuple(self._padding), groups=self._groups
        )
        return _activated(y, self._activation)

    def _weight_for(self, shape: torch.Size) -> Tensor:
        """The weights in the order in which oneDNN reads them for inputs of this shape."""
        # Kept, so that they are not ordered at every call. In the order for another shape a
        # convolution can take 50 times as long.
        reordered = self._reordered
        if reordered is None or reordered[0] != shape:
            weight = torch.ops.mkldnn._reorder_convolution_weight(
                self._weight, self._padding, list(self.stride), [1, 1], self._groups, list(shape)
            )
            self._reordered = reordered = (shape, weight)
        return reordered[1]

    def _fits_winograd(self, convolution: nn.Conv2d) -> bool:
        out_channels, in_channels = self._weight.shape[:2]
        min_in_channels, min_out_channels = MIN_WINOGRAD_CHANNELS
        return (
            self._weight.device.type == "cpu"
            and self._dtype == torch.float32
            and self._groups == 1
            and self._activation != "relu6"
            and convolution.kernel_size == (3, 3)
            and convolution.stride == (1, 1)
            and self._padding == [1, 1]
            and in_channels >= min_in_channels
            and out_channels >= min_out_channels
        )


def _activated(x: Tensor, activation: Activation) -> Tensor:
    if activation == "relu":
        return functional.relu_(x)
    return x.clamp_(0, 6) if activation == "relu6" else x


def folded_weights(
    convolution: nn.Conv2d, norm: nn.BatchNorm2d | None
) -> tuple[Float[Tensor, "out in rows columns"], Float[Tensor, " out"]]:
    """Weight and bias of a convolution that computes what both modules do in evaluation mode."""
    weight = convolution.weight
    bias = weight.new_zeros(len(weight)) if convolution.bias is None else convolution.bias
    if norm is None:
        return weight, bias
    assert norm.running_mean is not None
    assert norm.running_var is not None
    return fuse_conv_bn_weights(
        weight, bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
    )


def with_zeros(
    x: Float[Tensor, "batch channels height width"], channels: int
) -> Float[Tensor, "batch more height width"]:
    """`x` with channels of zeros after its own, channels-last."""
    if x.shape[1] == channels:
        return x
    padded = functional.pad(x, (0, 0, 0, 0, 0, channels - x.shape[1]))
    return padded.contiguous(memory_format=torch.channels_last)


def _onednn_computes(weight: Tensor) -> bool:
    """Whether PyTorch's operation of oneDNN that has ReLU inside can be called."""
    if weight.device.type != "cpu" or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    if not hasattr(torch.ops.mkldnn, "_convolution_pointwise"):
        return False
    if weight.dtype == torch.bfloat16:
        # Without hardware for it, this operation refuses bfloat16.
        is_supported: bool = torch.ops.mkldnn._is_mkldnn_bf16_supported()
        return is_supported
    return True
