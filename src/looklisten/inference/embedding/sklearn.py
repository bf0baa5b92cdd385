"""Embedding as a step of a scikit-learn pipeline. Nothing is fitted: the network stays as it is."""

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float32
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin

from looklisten.config import Side
from looklisten.inference.embedding.arguments import rows_of
from looklisten.inference.embedding.embedder import Embedder
from looklisten.inference.embedding.options import Pooling, Precision
from looklisten.inference.embedding.stream import BATCH_SIZE, HOP_SECONDS
from looklisten.inference.encoder import Encoder, choose_layer, vector_length
from looklisten.media.waveform import SampleRate
from looklisten.model.l3net import L3Net


class _Step(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """What both transformers share; parameters are kept as they are given, so that `clone` and
    `set_params` work.
    """

    side: ClassVar[Side]
    model: L3Net | Encoder | str | Path
    layer: str | None
    batch_size: int

    def _embedder(self) -> Embedder:
        raise NotImplementedError

    def fit(self, X: Any = None, y: Any = None) -> "_Step":  # noqa: ARG002 (scikit-learn's names)
        """Open the network; the data is not looked at."""
        self.embedder_ = self._embedder()
        encoder = self.embedder_.encoder
        self._n_features_out = vector_length(
            encoder, self.side, choose_layer(encoder, self.side, self.layer)
        )
        return self

    def transform(self, X: Any) -> Float32[np.ndarray, "n features"]:
        """`[n, features]`, a row for each thing of `X`: of a collection of files, arrays or
        pictures, or each row of a grid of numbers.
        """
        if not hasattr(self, "embedder_"):
            self.fit()
        things = list(rows_of(X))
        if not things:
            return np.zeros((0, self._n_features_out), np.float32)
        return np.asarray(
            self.embedder_.encode(things, self.batch_size, getattr(self, "sample_rate_hz", None))
        )

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def __getstate__(self) -> dict[str, Any]:
        """Without the opened network: a saved pipeline holds what it was given."""
        return {
            name: value for name, value in super().__getstate__().items() if name != "embedder_"
        }


class AudioEmbedder(_Step):
    """Files or arrays of sound -> one vector each. Arrays need `sample_rate_hz`. Parameters are
    those of `ll.Embedder`.
    """

    side = "audio"

    def __init__(
        self,
        model: L3Net | Encoder | str | Path = "runs/tiny",
        layer: str | None = None,
        pooling: Pooling = "mean",
        hop_seconds: float = HOP_SECONDS,
        center: bool = False,
        dense: bool = False,
        precision: Precision = "float32",
        batch_size: int = BATCH_SIZE,
        sample_rate_hz: SampleRate | None = None,
    ) -> None:
        self.model, self.layer, self.pooling, self.hop_seconds = model, layer, pooling, hop_seconds
        self.center, self.dense, self.precision = center, dense, precision
        self.batch_size, self.sample_rate_hz = batch_size, sample_rate_hz

    def _embedder(self) -> Embedder:
        return Embedder(
            self.model,
            "audio",
            self.layer,
            self.pooling,
            self.hop_seconds,
            self.center,
            self.dense,
            self.precision,
        )


class ImageEmbedder(_Step):
    """Pictures, as files or arrays `[height, width, 3]`, or videos -> one vector each. Parameters
    are those of `ll.Embedder`.
    """

    side = "vision"

    def __init__(
        self,
        model: L3Net | Encoder | str | Path = "runs/tiny",
        layer: str | None = None,
        pooling: Pooling = "mean",
        hop_seconds: float = HOP_SECONDS,
        precision: Precision = "float32",
        batch_size: int = BATCH_SIZE,
    ) -> None:
        self.model, self.layer, self.pooling, self.hop_seconds = model, layer, pooling, hop_seconds
        self.precision, self.batch_size = precision, batch_size

    def _embedder(self) -> Embedder:
        return Embedder(
            self.model,
            "vision",
            self.layer,
            self.pooling,
            self.hop_seconds,
            precision=self.precision,
        )
