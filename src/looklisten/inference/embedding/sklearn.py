"""Embedding as a step of a scikit-learn pipeline. Nothing is fitted: the network does not change.

scikit-learn reads the parameters of a step from the signature of `__init__` and sets them one by
one. So here the fields of `EmbedOptions` are named once more, with its defaults.
"""

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float32
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin

from looklisten.config import Side
from looklisten.inference.embedding.embedder import Embedder
from looklisten.inference.embedding.many_sources import rows_of
from looklisten.inference.embedding.options import EmbedOptions, Pooling, Precision
from looklisten.inference.encoder import Encoder, choose_layer, vector_length
from looklisten.media.waveform import SampleRate
from looklisten.model.l3net import L3Net
from looklisten.model.shipped import START


class _EmbeddingStep(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """What both steps share. Parameters are stored unchanged, as `clone` and `set_params` need."""

    side: ClassVar[Side]
    model: L3Net | Encoder | str | Path
    pooling: Pooling

    def _options(self) -> EmbedOptions:
        raise NotImplementedError

    def fit(self, X: Any = None, y: Any = None) -> "_EmbeddingStep":  # noqa: ARG002 (scikit-learn's names)
        """Open the network; the data is ignored."""
        options = self._options()
        self.embedder_ = Embedder(self.model, self.side, self.pooling, options)
        encoder = self.embedder_.encoder
        layer = choose_layer(encoder, self.side, options.layer)
        self._n_features_out = vector_length(encoder, self.side, layer)
        return self

    def transform(self, X: Any) -> Float32[np.ndarray, "n features"]:
        """`[n, features]`: one row for each source of a collection, or for each row of a grid."""
        # Nothing is fitted, so a step works in pipelines that are only used to transform.
        if not hasattr(self, "embedder_"):
            self.fit()
        sources = list(rows_of(X))
        if not sources:
            return np.zeros((0, self._n_features_out), np.float32)
        options = self._options()
        sample_rate_hz = getattr(self, "sample_rate_hz", None)
        vectors = self.embedder_.encode(sources, options.batch_size, sample_rate_hz)
        return np.asarray(vectors)

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def __getstate__(self) -> dict[str, Any]:
        # A saved pipeline holds the parameters, not the opened network.
        state = dict(super().__getstate__())
        state.pop("embedder_", None)
        return state


class AudioEmbedder(_EmbeddingStep):
    """Files or arrays of sound -> one vector each; arrays need `sample_rate_hz`.

    Parameters are those of `ll.Embedder`.
    """

    side = "audio"

    def __init__(
        self,
        model: L3Net | Encoder | str | Path = START,
        layer: str | None = EmbedOptions.layer,
        pooling: Pooling = "mean",
        hop_seconds: float = EmbedOptions.hop_seconds,
        center: bool = EmbedOptions.center,
        dense: bool = EmbedOptions.dense,
        precision: Precision = EmbedOptions.precision,
        batch_size: int = EmbedOptions.batch_size,
        sample_rate_hz: SampleRate | None = None,
    ) -> None:
        self.model = model
        self.layer = layer
        self.pooling = pooling
        self.hop_seconds = hop_seconds
        self.center = center
        self.dense = dense
        self.precision = precision
        self.batch_size = batch_size
        self.sample_rate_hz = sample_rate_hz

    def _options(self) -> EmbedOptions:
        return EmbedOptions(
            layer=self.layer,
            hop_seconds=self.hop_seconds,
            center=self.center,
            dense=self.dense,
            precision=self.precision,
            batch_size=self.batch_size,
        )


class ImageEmbedder(_EmbeddingStep):
    """Images, as files or arrays `[height, width, 3]`, or videos -> one vector each.

    Parameters are those of `ll.Embedder`.
    """

    side = "vision"

    def __init__(
        self,
        model: L3Net | Encoder | str | Path = START,
        layer: str | None = EmbedOptions.layer,
        pooling: Pooling = "mean",
        hop_seconds: float = EmbedOptions.hop_seconds,
        precision: Precision = EmbedOptions.precision,
        batch_size: int = EmbedOptions.batch_size,
    ) -> None:
        self.model = model
        self.layer = layer
        self.pooling = pooling
        self.hop_seconds = hop_seconds
        self.precision = precision
        self.batch_size = batch_size

    def _options(self) -> EmbedOptions:
        return EmbedOptions(
            layer=self.layer,
            hop_seconds=self.hop_seconds,
            precision=self.precision,
            batch_size=self.batch_size,
        )
