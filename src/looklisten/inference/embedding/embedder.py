"""A network with its options, which turns a list of sources into a matrix.

`Embedder.encode` has the arguments that users of sentence-transformers know. It is not a method of
the network, since `model` knows no file.
"""

import os
from collections.abc import Callable, Iterable
from dataclasses import replace
from operator import length_hint
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor

from looklisten.errors import ConfigError, OptionError, SourceError
from looklisten.inference.embedding.embed import Embeddable, embed
from looklisten.inference.embedding.many_sources import items_of
from looklisten.inference.embedding.options import EmbedChoices, EmbedOptions, Pooling, SideChoice
from looklisten.inference.embedding.records import Embeddings, normalize_rows
from looklisten.inference.encoder import Encoder, encoder_of
from looklisten.media.waveform import SampleRate
from looklisten.model.l3net import L3Net
from looklisten.model.networks import load
from looklisten.system.progress import Progress, no_progress


class Embedder:
    """One vector for each source.

        ll.Embedder("runs/mine").encode(["a.wav", "b.mp4", "c.jpg"])  # [3, features]

    `model` is a network or the folder of a run. `pooling` makes one vector of the windows of a
    source. `choices` are fields of `EmbedOptions`; they go before `options`.
    """

    def __init__(
        self,
        model: L3Net | Encoder | str | Path,
        side: SideChoice = "auto",
        pooling: Pooling = "mean",
        options: EmbedOptions | None = None,
        **choices: Unpack[EmbedChoices],
    ) -> None:
        if pooling not in POOLINGS:
            raise OptionError(f"there is no pooling {pooling!r}; there are {', '.join(POOLINGS)}")
        self._options = replace(options or EmbedOptions(), **choices)
        if isinstance(model, (str, Path)):
            model = load(model)
        self.encoder = encoder_of(model, self._options.precision)
        self._side = side
        self._pool = POOLINGS[pooling]

    def encode(
        self,
        inputs: Embeddable | Iterable[Embeddable],
        batch_size: int | None = None,
        sample_rate_hz: SampleRate | None = None,
        normalize_embeddings: bool | None = None,
        convert_to_tensor: bool = False,
        progress: Progress = no_progress,
    ) -> Float32[np.ndarray, "*n features"] | Float[Tensor, "*n features"]:
        """`[n, features]` in the order of `inputs`; `[features]` of a source that is in no list.

        `inputs` may be any collection of files, arrays and tensors: a list, a column of a table, an
        array of paths, a set, a generator. Numbers in a row or a grid are one source. Arrays of
        sound need `sample_rate_hz`, one for all. Raises SourceError for a source that cannot be
        embedded, with its name or its number.
        """
        options = self._options
        if batch_size is not None:
            options = replace(options, batch_size=batch_size)
        # Vectors are normalized after pooling. Normalizing windows before would change their mean.
        is_normalized = options.normalize if normalize_embeddings is None else normalize_embeddings
        options = replace(options, normalize=False)
        items = items_of(inputs)
        sources: Iterable[Any] = [inputs] if items is None else items
        # A generator does not know its length; then the total grows with the count.
        total = length_hint(sources)
        rows = []
        for number, source in enumerate(sources, 1):
            try:
                embeddings = embed(
                    source, self.encoder, self._side, sample_rate_hz, options=options
                )
                rows.append(self._pool(embeddings))
            except SourceError as error:
                if items is None or isinstance(source, (str, os.PathLike)):
                    raise
                # An array has no name.
                raise SourceError(f"number {number} of the inputs: {error}") from None
            progress(number, max(total, number))
        if not rows:
            raise ConfigError("there is nothing to encode: the list is empty")
        matrix = np.stack(rows)
        if is_normalized:
            matrix = normalize_rows(matrix)
        result = matrix[0] if items is None else matrix
        return torch.from_numpy(result) if convert_to_tensor else result

    @staticmethod
    def similarity(
        a: Float32[np.ndarray, "n features"], b: Float32[np.ndarray, "m features"]
    ) -> Float32[np.ndarray, "n m"]:
        """Cosines of all rows of `a` with all rows of `b`."""
        cosines: Float32[np.ndarray, "n m"] = normalize_rows(a) @ normalize_rows(b).T
        return cosines


def _maximum(embeddings: Embeddings) -> Float32[np.ndarray, " features"]:
    maximum: Float32[np.ndarray, " features"] = embeddings.vectors.max(axis=0)
    return maximum


def _middle(embeddings: Embeddings) -> Float32[np.ndarray, " features"]:
    middle: Float32[np.ndarray, " features"] = embeddings.vectors[len(embeddings) // 2]
    return middle


POOLINGS: dict[Pooling, Callable[[Embeddings], Float32[np.ndarray, " features"]]] = {
    "mean": Embeddings.mean,
    "max": _maximum,
    "middle": _middle,
}
