"""A network with its choices made, that turns a list of things into a matrix: `encode`, as users of
sentence-transformers expect it.

`model` must know no file, so `encode` is not a method of the network.
"""

import os
from collections.abc import Iterable
from operator import length_hint
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor

from looklisten.errors import ConfigError, SourceError
from looklisten.inference.embedding.arguments import Source, many_sources
from looklisten.inference.embedding.inputs import parts
from looklisten.inference.embedding.options import Pooling, Precision, SideChoice
from looklisten.inference.embedding.records import Embeddings, joined, unit
from looklisten.inference.embedding.stream import BATCH_SIZE, HOP_SECONDS, How
from looklisten.inference.encoder import Encoder, encoder_of
from looklisten.media.waveform import SampleRate
from looklisten.model.l3net import L3Net
from looklisten.model.networks import load
from looklisten.system.progress import Progress, no_progress


class Embedder:
    """`ll.Embedder("runs/mine").encode(["a.wav", "b.mp4", "c.jpg"])` gives `[3, features]`: one
    vector a thing.

    `model` is a network, or the folder of a run. Of a thing with several windows `pooling` takes
    the mean of their vectors, each feature's maximum, or the window in the middle. The other
    choices are those of `ll.embed`.
    """

    def __init__(
        self,
        model: L3Net | Encoder | str | Path,
        side: SideChoice = "auto",
        layer: str | None = None,
        pooling: Pooling = "mean",
        hop_seconds: float = HOP_SECONDS,
        center: bool = False,
        dense: bool = False,
        precision: Precision = "float32",
    ) -> None:
        if pooling not in POOLINGS:
            raise ConfigError(f"there is no pooling {pooling!r}; there are {', '.join(POOLINGS)}")
        self.encoder = encoder_of(
            load(model) if isinstance(model, (str, Path)) else model, precision
        )
        self._side, self._pool = side, POOLINGS[pooling]
        self._how = How(layer, hop_seconds, center, False, dense)

    def encode(
        self,
        inputs: Source | Iterable[Source],
        batch_size: int = BATCH_SIZE,
        sample_rate_hz: SampleRate | None = None,
        normalize_embeddings: bool = False,
        convert_to_tensor: bool = False,
        progress: Progress = no_progress,
    ) -> Float32[np.ndarray, "*n features"] | Float[Tensor, "*n features"]:
        """`[n, features]` in the order of `inputs` (files, arrays, tensors); of one thing that is
        in no list, `[features]`.

        `inputs` may be any collection of things: a list, a column of a table, an array of paths, a
        set, a generator. Numbers in a row or a grid are one thing. Arrays of sound need
        `sample_rate_hz`, one for all. Raises SourceError for a thing that cannot be embedded, by
        its name or its number.
        """
        many = many_sources(inputs)
        things: Iterable[Any] = [inputs] if many is None else many
        total = length_hint(things)
        how = How(
            self._how.layer,
            self._how.hop_seconds,
            self._how.center,
            False,
            self._how.dense,
            batch_size,
        )
        rows = []
        for done, thing in enumerate(things, 1):
            try:
                rows.append(
                    self._pool(joined(parts(thing, self.encoder, how, self._side, sample_rate_hz)))
                )
            except SourceError as error:
                if many is None or isinstance(thing, (str, os.PathLike)):
                    raise
                raise SourceError(f"number {done} of what is to be encoded: {error}") from None
            progress(done, max(total, done))
        if not rows:
            raise ConfigError("there is nothing to encode: the list is empty")
        matrix = np.stack(rows)
        matrix = unit(matrix) if normalize_embeddings else matrix
        found = matrix[0] if many is None else matrix
        return torch.from_numpy(found) if convert_to_tensor else found

    @staticmethod
    def similarity(
        a: Float32[np.ndarray, "n features"], b: Float32[np.ndarray, "m features"]
    ) -> Float32[np.ndarray, "n m"]:
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
