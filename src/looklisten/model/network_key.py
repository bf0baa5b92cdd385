"""A hash that stands for a network: equal keys mean equal vectors.

Knows weights and settings. Does not know where a network was loaded from.
"""

import dataclasses
import hashlib
import json
from typing import Any

import torch
from torch import nn

from looklisten.model.l3net import L3Net


def network_key(network: Any, name: str = "") -> str:
    """The sha256 of a network's weights and of every setting that changes its vectors.

    The key is the same for a run, a published folder and a download with the same weights. A
    network without PyTorch weights is known by its class and `name` alone.
    """
    settings = json.dumps(_settings(network, name), sort_keys=True, default=str)
    digest = hashlib.sha256(settings.encode())
    if isinstance(network, nn.Module):
        for key, tensor in sorted(network.state_dict().items()):
            values = tensor.detach().cpu().contiguous()
            # The same bytes in other tensors, or of another type, are another network.
            digest.update(f"{key} {values.dtype} {list(values.shape)}".encode())
            # As bytes, because NumPy has no bfloat16. `reshape` because `view` to another item
            # size needs at least one axis, which a single number lacks.
            digest.update(values.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def _settings(network: Any, name: str) -> dict[str, Any]:
    """What changes the vectors but is not a weight."""
    if isinstance(network, L3Net):
        # Without defaults, so that a setting added later does not change the key of old networks.
        return network.config.model_dump(mode="json", exclude_defaults=True)
    settings: dict[str, Any] = {"class": type(network).__qualname__}
    if not isinstance(network, nn.Module):
        return settings | {"name": name}
    for key, value in vars(network).items():
        if key.startswith("_") or key == "training":
            continue
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            settings[key] = dataclasses.asdict(value)
        elif isinstance(value, (str, int, float)):
            settings[key] = value
    return settings
