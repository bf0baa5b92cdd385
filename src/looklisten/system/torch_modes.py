"""The modes of PyTorch that the code of a caller may have switched on."""

import contextlib
from collections.abc import Iterator

import torch

AUTOCAST_DEVICES = ("cpu", "cuda", "mps")


@contextlib.contextmanager
def own_torch_modes() -> Iterator[None]:
    """Compute with gradients and in the arithmetic of the tensors, as outside of all modes.

    So `torch.no_grad`, `torch.inference_mode` and `torch.autocast` around a call change nothing in
    it. As a decorator it does so for a function.
    """
    with contextlib.ExitStack() as modes:
        modes.enter_context(torch.inference_mode(False))
        modes.enter_context(torch.enable_grad())
        for device in AUTOCAST_DEVICES:
            if torch.is_autocast_enabled(device):
                modes.enter_context(torch.autocast(device, enabled=False))
        yield
