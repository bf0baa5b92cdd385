"""The device and the precision to compute with.

Automatic choices come back with their reason, so that the caller can show it.
"""

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from looklisten.errors import ConfigError

if TYPE_CHECKING:
    import torch


BFLOAT16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}
"""How Linux marks processors that multiply bfloat16; the last one is of ARM."""


Network = TypeVar("Network", bound="torch.nn.Module")


@dataclass(frozen=True)
class Choice:
    """A decision and why it was taken."""

    value: str
    reason: str


def choose_device(requested: str = "auto", number: int = 0) -> Choice:
    """The device to compute on: `requested`, or the first available of CUDA, MPS and CPU.

    `number`: which of several GPUs belongs to this process. Raises ConfigError if CUDA is requested
    and not available.
    """
    import torch

    if requested.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigError(
            f"the device {requested} was requested, but PyTorch finds no NVIDIA GPU; "
            "omit the device, or request cpu"
        )
    if requested not in ("auto", "cuda"):
        return Choice(requested, "asked for")
    if torch.cuda.is_available():
        return Choice(f"cuda:{number}" if number else "cuda", torch.cuda.get_device_name(number))
    if torch.backends.mps.is_available():
        return Choice("mps", "Apple GPU")
    return Choice("cpu", f"no GPU found, {torch.get_num_threads()} threads")


def choose_precision(device: str, requested: str = "auto") -> Choice:
    """The arithmetic of a network: `bfloat16` if the hardware multiplies it, else `float32`."""
    import torch

    if requested != "auto":
        return Choice(requested, "asked for")
    if device.startswith("cuda"):
        # Ampere, the first generation whose tensor cores multiply bfloat16, has capability 8.
        if torch.cuda.get_device_capability()[0] >= 8:
            return Choice("bfloat16", "tensor cores multiply it")
        return Choice("float32", "older than Ampere")
    if device == "cpu" and _cpu_multiplies_bfloat16():
        return Choice("bfloat16", "the processor multiplies it")
    return Choice("float32", "no bfloat16 arithmetic here")


def _cpu_multiplies_bfloat16() -> bool:
    try:
        return names_bfloat16(Path("/proc/cpuinfo").read_text())
    except OSError:
        return False


def names_bfloat16(cpuinfo: str) -> bool:
    """Whether a processor with these lines of /proc/cpuinfo multiplies bfloat16."""
    for line in cpuinfo.splitlines():
        name, _, values = line.partition(":")
        # The line is called `flags` on x86 and `Features` on ARM.
        if name.strip() in ("flags", "Features") and BFLOAT16_FLAGS & set(values.split()):
            return True
    return False


@contextlib.contextmanager
def float32_by_default() -> Iterator[None]:
    """New tensors are float32 in the block, whatever the program has set as PyTorch's default."""
    import torch

    before = torch.get_default_dtype()
    # The default is that of all threads, so it is left alone where it is right.
    if before == torch.float32:
        yield
        return
    torch.set_default_dtype(torch.float32)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


# Two threads that move one network at once would free weights that the other one reads.
_moving = threading.Lock()


def to_device(network: "Network", device: str) -> "Network":
    """Move `network` to the device, in the layout in which its convolutions are fastest.

    A network that is so already is not touched, so that other threads can go on reading it.
    """
    import torch

    with _moving:
        # Of an empty tensor, because it has the number of the GPU that `cuda` means.
        target = torch.empty(0, device=device).device
        if any(tensor.device != target for tensor in _tensors(network)):
            network.to(device)
        # Channels-last is the fastest layout on CPU and GPU, except Apple's.
        if target.type != "mps" and not all(map(_is_channels_last, _tensors(network))):
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network


def _tensors(network: "Network") -> "list[torch.Tensor]":
    return [*network.parameters(), *network.buffers()]


def _is_channels_last(tensor: "torch.Tensor") -> bool:
    import torch

    # Only tensors of four axes have this layout.
    return tensor.dim() != 4 or tensor.is_contiguous(memory_format=torch.channels_last)
