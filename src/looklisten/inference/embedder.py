"""A network with its choices made, that turns a list of things into a matrix: `encode`, as users of sentence-transformers expect it.

`model` must know no file, so `encode` is not a method of the network.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor

from looklisten.errors import ConfigError
from looklisten.inference.embeddings import Embeddings, joined, unit
from looklisten.inference.encoder import Encoder, Precision, encoder_of
from looklisten.inference.intake import SideOrAuto, Source, parts
from looklisten.inference.streaming import BATCH_SIZE, HOP_SECONDS, How
from looklisten.model.checkpoint import load
from looklisten.model.l3net import L3Net
from looklisten.runtime import Progress, silent

Pooling = Literal["mean", "max", "middle"]


class Embedder:
    """`ll.Embedder("runs/mine").encode(["a.wav", "b.mp4", "c.jpg"])` gives `[3, features]`: one vector a thing.

    `model` is a network, or the folder of a run. Of a thing with several windows `pooling` takes the mean of their vectors, each
    feature's maximum, or the window in the middle. The other choices are those of `ll.embed`.
    """

    def __init__(
        self,
        model: L3Net | Encoder | str | Path,
        side: SideOrAuto = "auto",
        layer: str | None = None,
        pooling: Pooling = "mean",
        hop_seconds: float = HOP_SECONDS,
        center: bool = False,
        dense: bool = False,
        precision: Precision = "float32",
    ) -> None:
        if pooling not in POOLINGS:
            raise ConfigError(f"there is no pooling {pooling!r}; there are {', '.join(POOLINGS)}")
        self.encoder = encoder_of(load(model) if isinstance(model, (str, Path)) else model, precision)
        self._side, self._pool = side, POOLINGS[pooling]
        self._how = How(layer, hop_seconds, center, False, dense)

    def encode(
        self,
        inputs: Source | Sequence[Source],
        batch_size: int = BATCH_SIZE,
        sample_rate_hz: float | None = None,
        normalize_embeddings: bool = False,
        convert_to_tensor: bool = False,
        progress: Progress = silent,
    ) -> Float32[np.ndarray, "*n features"] | Float[Tensor, "*n features"]:
        """`[n, features]` in the order of `inputs` (files, arrays, tensors); of one thing that is in no list, `[features]`.

        Arrays of sound need `sample_rate_hz`, one for all. Raises SourceError for a thing that cannot be embedded, by its name.
        """
        many = isinstance(inputs, (list, tuple))
        things: Sequence[Any] = inputs if many else [inputs]  # type: ignore[assignment]
        if not things:
            raise ConfigError("there is nothing to encode: the list is empty")
        how = How(self._how.layer, self._how.hop_seconds, self._how.center, False, self._how.dense, batch_size)
        rows = []
        for done, thing in enumerate(things, 1):
            rows.append(self._pool(joined(parts(thing, self.encoder, how, self._side, sample_rate_hz))))
            progress(done, len(things))
        matrix = np.stack(rows)
        matrix = unit(matrix) if normalize_embeddings else matrix
        found = matrix if many else matrix[0]
        return torch.from_numpy(found) if convert_to_tensor else found

    @staticmethod
    def similarity(a: Float32[np.ndarray, "n features"], b: Float32[np.ndarray, "m features"]) -> Float32[np.ndarray, "n m"]:
        """Cosines of all rows of `a` with all of `b`."""
        cosines: Float32[np.ndarray, "n m"] = unit(a) @ unit(b).T
        return cosines


def _max(found: Embeddings) -> Float32[np.ndarray, " features"]:
    highest: Float32[np.ndarray, " features"] = found.vectors.max(axis=0)
    return highest


def _middle(found: Embeddings) -> Float32[np.ndarray, " features"]:
    middle: Float32[np.ndarray, " features"] = found.vectors[len(found) // 2]
    return middle


POOLINGS = {"mean": Embeddings.mean, "max": _max, "middle": _middle}
