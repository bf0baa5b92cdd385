"""OpenL3's weights on disk: Keras HDF5 files, which are read, and folders of safetensors and JSON,
which are written and read.

Never a pickle. Knows the order of Keras's layers and the names of ours.
"""

import gzip
import hashlib
import io
import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from looklisten.interop.openl3.errors import OpenL3Error
from looklisten.interop.openl3.networks import CHANNELS
from looklisten.interop.openl3.variants import Variant, variant
from looklisten.model.networks import OPENL3_FILE
from looklisten.system.files import atomic_write, write_json

WEIGHTS = "model.safetensors"

LAYERS = (
    "input_norm",
    *(f"{kind}.{i}" for i in range(len(CHANNELS)) for kind in ("convs", "norms")),
)[: 2 * len(CHANNELS)]
"""Our names in the order of Keras's layers that have weights: every convolution but the last has a
batch-norm behind it.
"""
NORM = ("weight", "bias", "running_mean", "running_var")
"""Keras's gamma, beta, moving mean and moving variance."""
CONV = ("weight", "bias")

Weights = Mapping[str, Tensor]


def read_keras(path: Path) -> dict[str, Tensor]:
    """The weights in an `.h5` or `.h5.gz` file, under our names; raises OpenL3Error, one sentence,
    when it holds no OpenL3 network.
    """
    try:
        import h5py
    except ImportError:
        raise OpenL3Error(
            f"{path} is a Keras file, and reading those needs h5py: pip install 'looklisten[openl3]'"
        ) from None
    try:
        data = path.read_bytes()
        with h5py.File(
            io.BytesIO(gzip.decompress(data) if path.suffix == ".gz" else data), "r"
        ) as file:
            layers = _layers(file.get("model_weights", file))
    except FileNotFoundError:
        raise OpenL3Error(f"there is no weight file {path}") from None
    except (OSError, EOFError, KeyError, zlib.error) as error:
        raise OpenL3Error(
            f"{path} is no Keras weight file, or a damaged one ({error}); fetch it again"
        ) from None
    return _named(layers, path)


def _layers(group: Any) -> list[tuple[str, list[NDArray[np.float32]]]]:
    """Name and weights of each layer that has some, in Keras's order; before OpenL3 0.4 the first
    one is the front end's.
    """
    layers = []
    for name in map(_text, group.attrs["layer_names"]):
        weights = [
            np.array(group[name][_text(weight)], np.float32)
            for weight in group[name].attrs.get("weight_names", ())
        ]
        if weights and "spectrogram" not in name:
            layers.append((name, weights))
    return layers


def _text(name: Any) -> str:
    return name.decode() if isinstance(name, bytes) else str(name)


def _named(layers: list[tuple[str, list[NDArray[np.float32]]]], path: Path) -> dict[str, Tensor]:
    if len(layers) != len(LAYERS):
        raise OpenL3Error(
            f"{path} has {len(layers)} layers with weights; a network of OpenL3 has {len(LAYERS)}"
        )
    tensors: dict[str, Tensor] = {}
    for ours, (theirs, weights) in zip(LAYERS, layers, strict=True):
        names = CONV if ours.startswith("convs") else NORM
        if len(names) != len(weights) or weights[0].ndim != (4 if names is CONV else 1):
            raise OpenL3Error(
                f"{path}: the layer {theirs} is not where a network of OpenL3 has {ours}"
            )
        for name, value in zip(names, weights, strict=True):
            tensors[f"{ours}.{name}"] = torch.from_numpy(
                value.transpose(3, 2, 0, 1).copy() if value.ndim == 4 else value
            )
    return tensors


def channels_in(weights: Weights) -> int:
    """1 where the network hears, 3 where it sees."""
    return weights["convs.0.weight"].shape[1]


def write_folder(out: Path, weights: Weights, kind: Variant, source: str) -> None:
    """A folder that `read_folder` reads; whole or absent."""
    data = save({name: tensor.contiguous() for name, tensor in weights.items()})
    with atomic_write(out) as scratch:
        scratch.mkdir()
        (scratch / WEIGHTS).write_bytes(data)
        about = {
            "format": "OpenL3",
            "name": kind.name,
            "side": kind.side,
            "input_repr": kind.input_repr,
            "content_type": kind.content_type,
            "source": source,
            "sha256": hashlib.sha256(data).hexdigest(),
        }
        write_json(scratch / OPENL3_FILE, about)


def read_folder(folder: Path) -> tuple[Variant, dict[str, Tensor]]:
    """What `write_folder` wrote; raises OpenL3Error, one sentence, when it is damaged."""
    try:
        about = json.loads((folder / OPENL3_FILE).read_text(encoding="utf-8"))
        kind = variant(about["side"], about["input_repr"], about["content_type"])
        data = (folder / WEIGHTS).read_bytes()
        if hashlib.sha256(data).hexdigest() != about["sha256"]:
            raise OpenL3Error(
                f"{folder / WEIGHTS} is damaged: its bytes are not those that were written; convert the weight file again"
            )
        return kind, load(data)
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise OpenL3Error(
            f"{folder} cannot be read ({error}); convert the weight file again"
        ) from None
