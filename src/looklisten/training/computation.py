"""How a step is computed: compiled or not, deterministic or not, on what hardware."""

import contextlib
import os
from collections.abc import Iterator

import torch

from looklisten.config import Config
from looklisten.system.devices import Choice
from looklisten.system.environment import processor_name

COMPILE_MIN_STEPS = 1000
"""Shorter runs end before torch.compile has won back the minute that it takes."""
CUBLAS_WORKSPACE = ":4096:8"
"""A setting with which NVIDIA's matrix product gives the same bits each time.

CUDA's documentation names two.
"""


def choose_compile(config: Config, device: str) -> Choice:
    """Whether torch.compile makes the towers' kernels, and why."""
    choice = config.train.compile
    if choice != "auto":
        return Choice(choice, "asked for")
    if not device.startswith("cuda"):
        return Choice("off", "on a CPU it measured 0.9 times as fast")
    if config.train.steps < COMPILE_MIN_STEPS:
        return Choice("off", f"fewer than {COMPILE_MIN_STEPS} steps")
    return Choice("on", "batch-norm and ReLU become one pass over memory")


def describe_computation(device: str) -> dict[str, str]:
    """Device, hardware, threads and version of PyTorch, of which the rounding depends."""
    device_type = torch.device(device).type
    on_gpu = device_type == "cuda"
    return {
        "device": device_type,
        "hardware": torch.cuda.get_device_name(device) if on_gpu else processor_name(),
        "threads": str(torch.get_num_threads()),
        "torch": torch.__version__,
    }


@contextlib.contextmanager
def deterministic_kernels(enabled: bool) -> Iterator[None]:
    """Ask CUDA for kernels that give the same bits each time, until the block ends.

    For an operation without such a kernel PyTorch warns and takes another one.
    """
    if not enabled:
        yield
        return
    algorithms_before = torch.are_deterministic_algorithms_enabled()
    warn_only_before = torch.is_deterministic_algorithms_warn_only_enabled()
    cudnn_before = torch.backends.cudnn.deterministic
    benchmark_before = torch.backends.cudnn.benchmark
    workspace_before = os.environ.get("CUBLAS_WORKSPACE_CONFIG")
    # cuBLAS reads it when it is first used, so it must be set before the first step.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", CUBLAS_WORKSPACE)
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(algorithms_before, warn_only=warn_only_before)
        torch.backends.cudnn.deterministic = cudnn_before
        torch.backends.cudnn.benchmark = benchmark_before
        if workspace_before is None:
            os.environ.pop("CUBLAS_WORKSPACE_CONFIG", None)
