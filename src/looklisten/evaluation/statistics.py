"""How far a measured share may be off: 95 % intervals where answers share videos or files. Knows
numbers and names of groups.
"""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike, NDArray
from scipy.stats import t as student  # type: ignore[import-untyped]

Z95 = 1.959964
"""Standard deviations that hold 95 % of a normal distribution."""


def interval(
    values: ArrayLike,
    groups: Sequence[ArrayLike] = (),
    weights: Float[np.ndarray, " answers"] | None = None,
) -> tuple[float, float]:
    """The 95 % interval of the mean of `values` in 0..1: Wilson's, for so many independent answers
    as these are worth.

    `groups` says which answers are no independent witnesses: one name an answer, such as its video;
    or two such lists, where answers share two kinds of files. The variance of the mean then is that
    between groups (of two kinds: the sum of both less that of the groups by both; Cameron, Gelbach
    and Miller 2011), and the answers are worth as many independent ones as have that variance,
    never more than there are (Korn and Graubard 1998, who allow for few groups as is done here).
    The interval always has a width and contains the mean. It is all of 0..1 where there is one
    group or no answer.
    """
    found = np.asarray(values, np.float64)
    if not len(found):
        return 0.0, 1.0
    shares = np.full(len(found), 1 / len(found)) if weights is None else weights / weights.sum()
    mean = min(max(float(shares @ found), 0.0), 1.0)
    answers = 1 / float(shares @ shares)
    names = [np.asarray(group) for group in groups]
    return wilson(mean, _worth(mean, answers, shares * (found - mean), names) if names else answers)


def wilson(mean: float, answers: float) -> tuple[float, float]:
    """Wilson's interval of a share that `answers` independent answers gave."""
    if answers <= 0:
        return 0.0, 1.0
    shrink = 1 + Z95**2 / answers
    center = (mean + Z95**2 / (2 * answers)) / shrink
    half = Z95 * math.sqrt(mean * (1 - mean) / answers + Z95**2 / (4 * answers**2)) / shrink
    return max(min(center - half, mean), 0.0), min(max(center + half, mean), 1.0)


def _worth(
    mean: float,
    answers: float,
    deviations: NDArray[np.float64],
    names: Sequence[NDArray[np.generic]],
) -> float:
    """How many independent answers have the variance that the mean has between groups."""
    codes = [np.unique(name, return_inverse=True)[1] for name in names]
    groups = min(int(code.max()) + 1 for code in codes)
    if groups < 2:
        return 0.0
    variances = [_variance(code, deviations) for code in codes]
    variance = variances[0]
    if len(codes) == 2:
        by_both = np.unique(np.stack(codes), axis=1, return_inverse=True)[1].reshape(-1)
        variance = max(sum(variances) - _variance(by_both, deviations), *variances)
    spread = mean * (1 - mean)
    if spread == 0:
        # All answers are alike, so nothing varies: each group counts as one answer.
        return min(float(groups), answers)
    worth = min(spread / variance, answers) if variance > 0 else answers
    # The variance itself is estimated, the worse the fewer the groups.
    return worth * float(Z95 / student.ppf(0.975, groups - 1)) ** 2


def _variance(codes: NDArray[np.generic], deviations: NDArray[np.float64]) -> float:
    """Of a weighted mean whose groups are independent; `deviations` are weighted."""
    sums = np.bincount(codes.astype(np.int64), deviations)
    return float(sums @ sums) * len(sums) / max(len(sums) - 1, 1)
