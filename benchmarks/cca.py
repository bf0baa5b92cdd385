"""Linear canonical correlation analysis of two sides with a ridge, for other benchmarks."""

import numpy as np
from numpy.typing import NDArray
from scipy.sparse.linalg import svds

RIDGES = (0.01, 0.1, 1.0, 10.0)
"""Added to each covariance, times its mean variance; chosen without the videos that are measured.
"""

FloatArray = NDArray[np.float64]


class CCA:
    """Of both sides the whitened directions that vary together most, weighted by correlation.

    Row i of `vision` and of `audio` is one moment. `fit` gives the projection for one ridge.
    """

    def __init__(self, vision: FloatArray, audio: FloatArray, dimensions: int) -> None:
        self._sides = [_Side(vision), _Side(audio)]
        self._dimensions = dimensions

    def fit(self, ridge: float) -> None:
        """Choose the directions for a ridge; what all ridges share is computed once."""
        vision, audio = self._sides
        for side in self._sides:
            side.whiten(ridge)
        shared = vision.whitened.T @ audio.whitened / len(vision.whitened)
        # A few directions of thousands: all of them would take a hundred times as long.
        count = min(self._dimensions, *(size - 1 for size in shared.shape))
        left, correlations, right = svds(shared, count, random_state=0)
        weights = np.sqrt(correlations)
        vision.choose(left, weights)
        audio.choose(right.T, weights)

    def projected(self, vision: FloatArray, audio: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Vectors of length 1 of both sides in their common space."""
        return self._sides[0].projected(vision), self._sides[1].projected(audio)


class _Side:
    """What the CCA knows of one side."""

    whitened: FloatArray
    _whitening: FloatArray
    _projection: FloatArray

    def __init__(self, rows: FloatArray) -> None:
        self._mean, self._scale = rows.mean(0), rows.std(0) + 1e-6
        self._values = self._standardized(rows)
        covariance = self._values.T @ self._values / len(rows)
        self._variances, self._directions = np.linalg.eigh(covariance)

    def whiten(self, ridge: float) -> None:
        inverse = 1 / np.sqrt(self._variances.clip(0) + ridge * self._variances.mean())
        self._whitening = (self._directions * inverse) @ self._directions.T
        self.whitened = self._values @ self._whitening

    def choose(self, directions: FloatArray, weights: FloatArray) -> None:
        self._projection = self._whitening @ directions * weights

    def projected(self, rows: FloatArray) -> FloatArray:
        projected = self._standardized(rows) @ self._projection
        lengths = np.linalg.norm(projected, axis=1, keepdims=True)
        unit: FloatArray = projected / np.maximum(lengths, 1e-9)
        return unit

    def _standardized(self, rows: FloatArray) -> FloatArray:
        standardized: FloatArray = (rows - self._mean) / self._scale
        return standardized
