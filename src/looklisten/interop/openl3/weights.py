"""OpenL3's weights on disk: reads Keras files, and writes and reads folders of safetensors.

Knows the order of Keras's layers and our names of them. Never a pickle.
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
from looklisten.interop.openl3.layers import CHANNELS
from looklisten.interop.openl3.variants import Variant, variant
from looklisten.model.networks import OPENL3_FILE
from looklisten.system.files import atomic_write, write_json

WEIGHTS_FILE = "model.safetensors"

_CONVS_AND_NORMS = [f"{kind}.{i}" for i in range(len(CHANNELS)) for kind in ("convs", "norms")]
LAYERS = ("input_norm", *_CONVS_AND_NORMS[:-1])
"""Our names of the layers that have weights, in Keras's order. The last convolution has no norm."""
NORM = ("weight", "bias", "running_mean", "running_var")
"""Our names of Keras's gamma, beta, moving mean and moving variance."""
CONV = ("weight", "bias")

TensorsByName = Mapping[str, Tensor]


def read_keras(path: Path) -> dict[str, Tensor]:
    """The weights in an `.h5` or `.h5.gz` file, under our names.

    Raises OpenL3Error when the file holds no network of OpenL3.
    """
    try:
        import h5py
    except ImportError:
        raise OpenL3Error(
            f"{path} is a Keras file, and reading those needs h5py: "
            "pip install 'looklisten[openl3]'"
        ) from None
    try:
        data = path.read_bytes()
        if path.suffix == ".gz":
            data = gzip.decompress(data)
        with h5py.File(io.BytesIO(data), "r") as file:
            layers = _keras_layers(file.get("model_weights", file))
    except FileNotFoundError:
        raise OpenL3Error(f"there is no weight file {path}") from None
    except (OSError, EOFError, KeyError, zlib.error) as error:
        raise OpenL3Error(
            f"{path} is no Keras weight file, or a damaged one ({error}); download it again"
        ) from None
    return _named(layers, path)


KerasLayer = tuple[str, list[NDArray[np.float32]]]
"""A layer's name and its arrays."""


def _keras_layers(group: Any) -> list[KerasLayer]:
    """The layers that have weights, in Keras's order, without the front end."""
    layers = []
    for layer_name in group.attrs["layer_names"]:
        name = _as_text(layer_name)
        layer = group[name]
        array_names = [_as_text(array) for array in layer.attrs.get("weight_names", ())]
        arrays = [np.array(layer[array], np.float32) for array in array_names]
        # Files of OpenL3 before 0.4 have the front end as a layer with weights.
        if arrays and "spectrogram" not in name:
            layers.append((name, arrays))
    return layers


def _as_text(name: Any) -> str:
    return name.decode() if isinstance(name, bytes) else str(name)


def _named(layers: list[KerasLayer], path: Path) -> dict[str, Tensor]:
    if len(layers) != len(LAYERS):
        raise OpenL3Error(
            f"{path} has {len(layers)} layers with weights; a network of OpenL3 has {len(LAYERS)}"
        )
    tensors: dict[str, Tensor] = {}
    for our_layer, (keras_layer, arrays) in zip(LAYERS, layers, strict=True):
        is_conv = our_layer.startswith("convs")
        names = CONV if is_conv else NORM
        if len(names) != len(arrays) or arrays[0].ndim != (4 if is_conv else 1):
            raise OpenL3Error(
                f"{path}: the layer {keras_layer} is not where a network of OpenL3 has {our_layer}"
            )
        for name, array in zip(names, arrays, strict=True):
            if array.ndim == 4:  # Keras has rows, columns, inputs, outputs
                array = array.transpose(3, 2, 0, 1).copy()
            tensors[f"{our_layer}.{name}"] = torch.from_numpy(array)
    return tensors


def input_channels(weights: TensorsByName) -> int:
    """The channels of the network's input: 1 for a spectrogram, 3 for an image."""
    return weights["convs.0.weight"].shape[1]


def write_folder(out: Path, weights: TensorsByName, network: Variant, source: str) -> None:
    """Write a folder that `read_folder` reads; it is complete or absent."""
    # Through bytes, so that their hash is known before anything is written.
    data = save({name: tensor.contiguous() for name, tensor in weights.items()})
    with atomic_write(out) as scratch:
        scratch.mkdir()
        (scratch / WEIGHTS_FILE).write_bytes(data)
        description = {
            "format": "OpenL3",
            "name": network.name,
            "side": network.side,
            "input_repr": network.input_repr,
            "content_type": network.content_type,
            "source": source,
            "sha256": hashlib.sha256(data).hexdigest(),
        }
        write_json(scratch / OPENL3_FILE, description)


def read_folder(folder: Path) -> tuple[Variant, dict[str, Tensor]]:
    """The network and the weights that `write_folder` wrote.

    Raises OpenL3Error when the folder is damaged.
    """
    try:
        description = json.loads((folder / OPENL3_FILE).read_text(encoding="utf-8"))
        network = variant(
            description["side"], description["input_repr"], description["content_type"]
        )
        data = (folder / WEIGHTS_FILE).read_bytes()
        if hashlib.sha256(data).hexdigest() != description["sha256"]:
            raise OpenL3Error(
                f"{folder / WEIGHTS_FILE} is damaged: its bytes are not those that were written; "
                "convert the weight file again"
            )
        return network, load(data)
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise OpenL3Error(
            f"{folder} cannot be read ({error}); convert the weight file again"
        ) from None
