"""Weight files as Keras writes those of OpenL3, with seeded random weights."""

import gzip
import io
from pathlib import Path

import h5py
import numpy as np

CHANNELS = (64, 64, 128, 128, 256, 256, 512, 512)


def keras_layers(seed: int, channels: int) -> list[tuple[str, dict[str, np.ndarray]]]:
    """Layers in the order of Keras's file, those without weights among them; 1 channel is sound, 3
    are a picture.
    """
    rng = np.random.default_rng(seed)

    def norm(n: int) -> dict[str, np.ndarray]:
        gamma, beta, mean = rng.uniform(0.7, 1.3, n), rng.normal(0, 0.2, n), rng.normal(0, 0.3, n)
        return {
            "gamma:0": gamma,
            "beta:0": beta,
            "moving_mean:0": mean,
            "moving_variance:0": rng.uniform(0.5, 1.5, n),
        }

    layers: list[tuple[str, dict[str, np.ndarray]]] = [
        ("input_1", {}),
        ("batch_normalization", norm(channels)),
    ]
    for number, width in enumerate(CHANNELS):
        kernel = rng.standard_normal((3, 3, channels, width), np.float32) * np.float32(
            (2 / (9 * channels)) ** 0.5
        )
        layers.append(
            (f"conv2d_{number}", {"kernel:0": kernel, "bias:0": rng.normal(0, 0.05, width)})
        )
        if number < len(CHANNELS) - 1:
            layers += [
                (f"batch_normalization_{number + 1}", norm(width)),
                (f"activation_{number}", {}),
            ]
        channels = width
    return layers


def write_keras(path: Path, seed: int, channels: int) -> Path:
    """An .h5 or .h5.gz file."""
    buffer = io.BytesIO()
    layers = keras_layers(seed, channels)
    with h5py.File(buffer, "w") as file:
        file.attrs["layer_names"] = [name.encode() for name, _ in layers]
        for name, weights in layers:
            group = file.create_group(name)
            group.attrs["weight_names"] = [f"{name}/{weight}".encode() for weight in weights]
            for weight, value in weights.items():
                group.create_dataset(f"{name}/{weight}", data=value.astype(np.float32))
    data = buffer.getvalue()
    path.write_bytes(gzip.compress(data, 1) if path.suffix == ".gz" else data)
    return path
