"""Linear canonical correlation analysis of two sides with a ridge, for other benchmarks."""

import numpy as np
from numpy.typing import NDArray

RIDGES = (0.01, 0.1, 1.0, 10.0)
"""Added to each covariance, times its mean variance; chosen without the videos that are measured.
"""

FloatArray = NDArray[np.float64]


class CCA:
    """Of both sides the whitened directions that vary together most, weighted by correlation.

    Row i of `vision` and of `audio` is one moment.
    """

    def __init__(
        self, vision: FloatArray, audio: FloatArray, ridge: float, dimensions: int
    ) -> None:
        self._means, self._scales, whitened, maps = [], [], [], []
        for side in (vision, audio):
            mean, scale = side.mean(0), side.std(0) + 1e-6
            values = (side - mean) / scale
            variances, directions = np.linalg.eigh(values.T @ values / len(values))
            inverse = 1 / np.sqrt(variances.clip(0) + ridge * variances.mean())
            maps.append((directions * inverse) @ directions.T)
            whitened.append(values @ maps[-1])
            self._means.append(mean)
            self._scales.append(scale)
        left, correlations, right = np.linalg.svd(whitened[0].T @ whitened[1] / len(vision))
        weights = np.sqrt(correlations[:dimensions])
        count = len(weights)
        self._projections = [
            maps[0] @ left[:, :count] * weights,
            maps[1] @ right.T[:, :count] * weights,
        ]

    def projected(self, vision: FloatArray, audio: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Vectors of length 1 of both sides in their common space."""
        sides = []
        for number, side in enumerate((vision, audio)):
            values = (side - self._means[number]) / self._scales[number]
            projected = values @ self._projections[number]
            lengths = np.linalg.norm(projected, axis=1, keepdims=True)
            sides.append(projected / np.maximum(lengths, 1e-9))
        return sides[0], sides[1]
