"""Means and 95 % intervals, where results share videos or files. Knows numbers and group names."""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike, NDArray

# Not scipy.stats, whose import takes longer than most that is computed here.
from scipy.special import stdtrit as student_t_quantile

Z95 = 1.959964
"""Standard deviations that hold 95 % of a normal distribution."""


def mean_or_nan(values: ArrayLike) -> float:
    """The mean of the values; NaN when there are none."""
    numbers = np.asarray(values, np.float64)
    return float(np.mean(numbers)) if len(numbers) else math.nan


def interval_or_nan(values: ArrayLike, groups: Sequence[ArrayLike]) -> tuple[float, float]:
    """`confidence_interval`; NaN for both ends when there are no values."""
    if not len(np.asarray(values)):
        return math.nan, math.nan
    return confidence_interval(values, groups)


def confidence_interval(
    values: ArrayLike,
    groups: Sequence[ArrayLike] = (),
    weights: Float[np.ndarray, " answers"] | None = None,
) -> tuple[float, float]:
    """The 95 % interval of the mean of `values` in 0..1, by Wilson's formula.

    The interval always has a width, and contains the mean. It is all of 0..1 where there is one
    group or no value. The formula needs a number of independent values. Values that share a video
    are not independent, so they count as fewer.

    `groups`: a name for each value, such as its video; values of one group are not independent. Two
        such lists where values share two kinds of files. The variance of the mean is then that
        between groups; for two kinds, the sum of both less that of the groups by both (Cameron,
        Gelbach and Miller 2011). The values count as that number of independent ones whose mean
        has this variance, at most all (Korn and Graubard 1998, who allow for few groups in the same
        way).
    """
    numbers = np.asarray(values, np.float64)
    if not len(numbers):
        return 0.0, 1.0
    shares = np.full(len(numbers), 1 / len(numbers))
    if weights is not None:
        shares = weights / weights.sum()
    mean = min(max(float(shares @ numbers), 0.0), 1.0)
    # Kish's effective size: without weights it is the number of values.
    effective_count = 1 / float(shares @ shares)
    if groups:
        names = list(map(np.asarray, groups))
        effective_count = _independent_count(
            mean, effective_count, shares * (numbers - mean), names
        )
    return wilson_interval(mean, effective_count)


def jackknife_interval(
    figure: float, without_group: Sequence[NDArray[np.float64]], count: float
) -> tuple[float, float]:
    """The 95 % interval of a figure in 0..1 that is no plain mean, such as an AUC.

    `without_group`: the figure without each group in turn, such as without each video. Three such
        lists where values share two kinds of files: without each file of the first kind, of the
        second, and without each group by both.
    `count`: how many values the figure is made of.

    The spread of these gives the variance (`jackknife_variance`); the rest is as in
    `confidence_interval`. All of 0..1 where the figure needs every group, or where there is one.
    """
    groups = min(map(len, without_group))
    if groups < 2 or not all(np.isfinite(figures).all() for figures in without_group):
        return 0.0, 1.0
    variance = jackknife_variance(without_group)
    return wilson_interval(figure, _count_with_variance(figure, variance, groups, count))


def jackknife_variance(without_group: Sequence[NDArray[np.float64]]) -> float:
    """The variance of a figure, from the figure without each group (Efron and Stein 1981).

    `without_group`: as for `jackknife_interval`; three lists are combined as in
    `confidence_interval`.
    """
    variances = []
    for figures in without_group:
        deviations = figures - figures.mean()
        variances.append(float(deviations @ deviations) * (len(figures) - 1) / len(figures))
    return _variance_of_kinds(variances)


def interval_over_members(values: ArrayLike, members: NDArray[np.generic]) -> tuple[float, float]:
    """The 95 % interval of the mean of values in 0..1 that each depend on several groups.

    `members`: the groups of each value, `[values, members]`, such as the videos of a mosaic. Values
    that share a group are not independent. The variance adds up all such pairs of values (Fafchamps
    and Gubert 2007); the rest is as in `confidence_interval`. NaN for both ends when there are no
    values.
    """
    numbers = np.asarray(values, np.float64)
    count, members_each = members.shape
    if not count:
        return math.nan, math.nan
    names, codes = np.unique(members, return_inverse=True)
    if len(names) < 2:
        return 0.0, 1.0
    mean = float(numbers.mean())
    deviations = (numbers - mean) / count
    sums: NDArray[np.float64] = np.zeros(len(names))
    for member_codes in codes.reshape(members.shape).T:
        sums += np.bincount(member_codes, deviations, len(names))
    # Each value is in the sum of each of its groups, and counts once.
    own = float(deviations @ deviations)
    variance = float(sums @ sums) * len(names) / (len(names) - 1) - (members_each - 1) * own
    return wilson_interval(mean, _count_with_variance(mean, max(variance, own), len(names), count))


def wilson_interval(mean: float, count: float) -> tuple[float, float]:
    """Wilson's interval of the mean of `count` independent values in 0..1."""
    if count <= 0:
        return 0.0, 1.0
    shrink = 1 + Z95**2 / count
    center = (mean + Z95**2 / (2 * count)) / shrink
    half_width = Z95 * math.sqrt(mean * (1 - mean) / count + Z95**2 / (4 * count**2)) / shrink
    # Rounding may not move the mean out of its interval.
    low = max(min(center - half_width, mean), 0.0)
    high = min(max(center + half_width, mean), 1.0)
    return low, high


def _independent_count(
    mean: float,
    count: float,
    deviations: NDArray[np.float64],
    names: Sequence[NDArray[np.generic]],
) -> float:
    """How many independent values have the variance that the mean has between groups."""
    codes = [np.unique(name, return_inverse=True)[1] for name in names]
    groups = min(int(code.max()) + 1 for code in codes)
    # One group says nothing of others.
    if groups < 2:
        return 0.0
    if len(codes) == 2:
        by_both = np.unique(np.stack(codes), axis=1, return_inverse=True)[1]
        codes.append(by_both.reshape(-1))
    variance = _variance_of_kinds([_variance(code, deviations) for code in codes])
    return _count_with_variance(mean, variance, groups, count)


def _variance_of_kinds(variances: Sequence[float]) -> float:
    """The variance between groups of one kind; or of two kinds, with that of the groups by both."""
    if len(variances) == 1:
        return variances[0]
    first, second, by_both = variances
    # The difference may be negative in a small sample, so each kind alone is the least.
    return max(first + second - by_both, first, second)


def _count_with_variance(mean: float, variance: float, groups: int, count: float) -> float:
    """How many independent values in 0..1 have a mean of this variance; at most `count`."""
    bernoulli_variance = mean * (1 - mean)
    if bernoulli_variance == 0:
        # All values are equal, so nothing varies: each group counts as one value.
        return min(float(groups), count)
    independent = count
    if variance > 0:
        independent = min(bernoulli_variance / variance, count)
    # The variance itself is estimated, the worse the fewer the groups.
    return independent * float(Z95 / student_t_quantile(groups - 1, 0.975)) ** 2


def _variance(codes: NDArray[np.generic], deviations: NDArray[np.float64]) -> float:
    """The variance of a weighted mean whose groups are independent; `deviations` are weighted."""
    sums = np.bincount(codes.astype(np.int64), deviations)
    return float(sums @ sums) * len(sums) / max(len(sums) - 1, 1)
