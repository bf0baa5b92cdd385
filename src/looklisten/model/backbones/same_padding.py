"""Convolutions with the padding of TensorFlow, for networks that were trained with it."""

import copy

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from looklisten.model.fused_convolution import Activation, FusedConvolution


class SamePaddingConv2d(nn.Conv2d):
    """A convolution with TensorFlow's padding "SAME": the output has size / stride, rounded up.

    With a stride, the zeros of an even size are more at the end than at the beginning.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        stride: int = 1,
        groups: int = 1,
        bias: bool = False,
    ) -> None:
        # Without a stride the padding is symmetric, and the convolution pads by itself.
        padding = kernel // 2 if stride == 1 else 0
        super().__init__(
            in_channels, out_channels, kernel, stride, padding, groups=groups, bias=bias
        )

    def forward(
        self, x: Float[Tensor, "batch in rows columns"]
    ) -> Float[Tensor, "batch out map_rows map_columns"]:
        if self.stride[0] == 1:
            return super().forward(x)
        rows, columns = (
            same_padding(size, self.kernel_size[0], self.stride[0]) for size in x.shape[2:]
        )
        return super().forward(functional.pad(x, (*columns, *rows)))


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """How many zeros go before and after an axis of `size` values."""
    outputs = -(-size // stride)
    total = max((outputs - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


class FusedSameConvolution:
    """A `SamePaddingConv2d`, the batch-norm after it and the activation as one step.

    It computes in `dtype`, and has its own copy of the weights.
    """

    def __init__(
        self,
        convolution: SamePaddingConv2d,
        norm: nn.BatchNorm2d | None,
        dtype: torch.dtype,
        activation: Activation,
    ) -> None:
        self._convolution = copy.deepcopy(convolution)
        self._norm = copy.deepcopy(norm).eval() if norm is not None else None
        self._dtype = dtype
        self._activation = activation
        self._forms: dict[tuple[bool, bool], FusedConvolution] = {}

    def __call__(
        self, x: Float[Tensor, "batch in rows columns"]
    ) -> Float[Tensor, "batch out map_rows map_columns"]:
        has_stride = self._convolution.stride[0] == 2
        shifts = (has_stride and x.shape[2] % 2 == 0, has_stride and x.shape[3] % 2 == 0)
        if shifts not in self._forms:
            self._forms[shifts] = self._form(*shifts)
        return self._forms[shifts](x)

    def _form(self, shifts_rows: bool, shifts_columns: bool) -> FusedConvolution:
        """The convolution for maps whose rows, columns or both need unequal padding, or for others.

        With a stride of 2, an axis of even size gets one zero more after it than before it.
        Adding that zero would copy the whole map. With equal padding, a zero at the beginning of
        each filter has the same effect.
        """
        convolution = copy.deepcopy(self._convolution)
        zeros = (int(shifts_columns), 0, int(shifts_rows), 0)
        convolution.weight = nn.Parameter(functional.pad(convolution.weight, zeros))
        half = self._convolution.kernel_size[0] // 2
        return FusedConvolution(
            convolution, self._norm, self._dtype, self._activation, padding=(half, half)
        )
