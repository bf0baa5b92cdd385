"""Convolutions with the padding of TensorFlow, for networks that were trained with it."""

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional


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
    """Zeros before and after an axis of so many values."""
    outputs = -(-size // stride)
    total = max((outputs - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2
