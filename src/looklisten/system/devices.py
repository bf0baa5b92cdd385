"""The device and the precision to compute with.

Automatic choices come back with their reason, so that the caller can show it.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from looklisten.errors import ConfigError

if TYPE_CHECKING:
    import torch


BFLOAT16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}
"""What Linux names processors by that multiply bfloat16; the last is ARM's."""


Network = TypeVar("Network", bound="torch.nn.Module")


@dataclass(frozen=True)
class Choice:
    """A decision and why it was taken."""

    value: str
    reason: str


def choose_device(wanted: str = "auto", number: int = 0) -> Choice:
    """The device to compute on: `wanted`, or the first of CUDA, Apple's MPS and the CPU that is
    there.

    `number` says which of several GPUs is this process's.
    """
    import torch

    if wanted.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigError(
            f"the device {wanted} was asked for, and PyTorch finds no NVIDIA GPU; leave the device away, or ask for cpu"
        )
    if wanted not in ("auto", "cuda"):
        return Choice(wanted, "asked for")
    if torch.cuda.is_available():
        return Choice(f"cuda:{number}" if number else "cuda", torch.cuda.get_device_name(number))
    if torch.backends.mps.is_available():
        return Choice("mps", "Apple GPU")
    return Choice("cpu", f"no GPU found, {torch.get_num_threads()} threads")


def choose_precision(device: str, wanted: str = "auto") -> Choice:
    """`bfloat16` where the device multiplies it in hardware, else `float32`."""
    import torch

    if wanted != "auto":
        return Choice(wanted, "asked for")
    if device.startswith("cuda"):
        fast = torch.cuda.get_device_capability()[0] >= 8
        return Choice(
            "bfloat16" if fast else "float32",
            "tensor cores multiply it" if fast else "older than Ampere",
        )
    if device == "cpu" and _cpu_multiplies_bfloat16():
        return Choice("bfloat16", "the processor multiplies it")
    return Choice("float32", "no bfloat16 arithmetic here")


def _cpu_multiplies_bfloat16() -> bool:
    try:
        return names_bfloat16(Path("/proc/cpuinfo").read_text())
    except OSError:
        return False


def names_bfloat16(cpuinfo: str) -> bool:
    """Whether a processor with these lines of /proc/cpuinfo multiplies bfloat16: `flags` on x86,
    `Features` on ARM.
    """
    for line in cpuinfo.splitlines():
        name, _, values = line.partition(":")
        if name.strip() in ("flags", "Features") and BFLOAT16_FLAGS & set(values.split()):
            return True
    return False


def to_device(network: "Network", device: str) -> "Network":
    """`network` on the device, channels-last: the layout in which convolution libraries are
    fastest, on CPU and GPU.
    """
    import torch

    network.to(device)
    if device != "mps":
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network
