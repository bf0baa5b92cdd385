"""How matched pairs rank among mismatched ones: one-of-two, AUC, accuracy, from a matrix of scores.

Knows numbers and names of videos: no network, no file.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

from looklisten.evaluation.statistics import jackknife_interval

BLOCK_ROWS = 256
"""Rows of a matrix of scores that are counted at a time."""


@dataclass(frozen=True, eq=False)
class ScoreMatrix:
    """The score of every frame with every sound; frame i and sound i are of one moment."""

    scores: Float[np.ndarray, "frames sounds"]
    """Above 0 means "yes, they correspond"."""
    videos: NDArray[Any]
    """The video of each moment. Pairs of one video that are not matched are left out."""
    groups: tuple[NDArray[Any], ...] = ()
    """What intervals are over: one or two names of each moment, by default its video.

    Two where moments share two kinds of files: the image file and the sound file of each.
    """

    @property
    def matched(self) -> Float[np.ndarray, " frames"]:
        """The scores of the matched pairs."""
        matched: Float[np.ndarray, " frames"] = self.scores.diagonal()
        return matched

    def mismatched(self) -> Float[np.ndarray, " pairs"]:
        """The scores of all frames with all sounds of other videos."""
        mismatched: Float[np.ndarray, " pairs"] = self.scores[self.videos[:, None] != self.videos]
        return mismatched

    def select(self, mask: NDArray[np.bool_]) -> "ScoreMatrix":
        """The moments for which `mask` is true."""
        groups = tuple(names[mask] for names in self.groups)
        return ScoreMatrix(self.scores[np.ix_(mask, mask)], self.videos[mask], groups)


@dataclass(frozen=True, eq=False)
class GroupCounts:
    """What each group of moments has a part in, such as each video."""

    right: Float[np.ndarray, " groups"]
    pairs: Float[np.ndarray, " groups"]


@dataclass(frozen=True, eq=False)
class Share:
    """A share of pairs, with what each group of moments adds to it, for an interval over groups.

    `share = right / pairs`; without a group it is `(right - the group's right) / (pairs - the
    group's pairs)`.
    """

    right: float
    pairs: float
    counts: tuple[GroupCounts, ...]
    """One: of the videos. Three: of the image files, the sound files, and the groups by both."""

    @property
    def value(self) -> float:
        """The share; NaN where there is no pair."""
        return self.right / self.pairs if self.pairs else float("nan")

    def without_each_group(self) -> list[NDArray[np.float64]]:
        """For each kind of groups, the share without each group; NaN where no pair is left."""
        return [self._without(counts) for counts in self.counts]

    def _without(self, counts: GroupCounts) -> Float[np.ndarray, " groups"]:
        pairs = self.pairs - counts.pairs
        share: Float[np.ndarray, " groups"] = np.full(len(pairs), np.nan)
        np.divide(self.right - counts.right, pairs, out=share, where=pairs > 0)
        return share

    def ci95(self) -> tuple[float, float]:
        """The 95 % interval over groups."""
        if not self.pairs:
            return float("nan"), float("nan")
        # Rounding may move a share of all pairs above 1.
        value = min(max(self.value, 0.0), 1.0)
        return jackknife_interval(value, self.without_each_group(), self.pairs)


def pooled(shares: Sequence[Share]) -> Share:
    """The share over the pairs of several parts of different videos, such as folds."""
    counts = []
    for parts in zip(*(share.counts for share in shares), strict=True):
        right = np.concatenate([part.right for part in parts])
        counts.append(GroupCounts(right, np.concatenate([part.pairs for part in parts])))
    return Share(
        sum(share.right for share in shares), sum(share.pairs for share in shares), tuple(counts)
    )


@dataclass(frozen=True, eq=False)
class Accuracy:
    """Right answers, where matched and mismatched pairs have the same weight."""

    matched: Share
    """Share of "yes" for matched pairs."""
    mismatched: Share
    """Share of "yes" for mismatched pairs."""

    @property
    def value(self) -> float:
        return (self.matched.value + 1 - self.mismatched.value) / 2

    def ci95(self) -> tuple[float, float]:
        """The 95 % interval over groups."""
        without = []
        for matched, mismatched in zip(
            self.matched.without_each_group(), self.mismatched.without_each_group(), strict=True
        ):
            without.append((matched + 1 - mismatched) / 2)
        return jackknife_interval(self.value, without, self.matched.pairs)


@dataclass(frozen=True, eq=False)
class Ranking:
    """The figures of a matrix of scores."""

    one_of_two: Share
    """How often a frame scores higher with its own sound than with a sound of another video, and a
    sound with its own frame than with a frame of another video. Equal scores count one half.
    """
    auc: Share
    """How often a matched pair scores higher than a mismatched one, over all of both."""
    accuracy: Accuracy


def rank(matrix: ScoreMatrix) -> Ranking:
    """The figures of a matrix of scores; NaN where there is one video only."""
    all_groups = _all_groups(matrix)
    matched = matrix.matched
    beaten = _PairSums(all_groups, len(matched))
    yes = _PairSums(all_groups, len(matched))
    for rows, scores, is_mismatched in _blocks(matrix):
        # Each pair is compared with the matched pair of its frame, and with that of its sound.
        wins = (_wins(matched[rows, None], scores) + _wins(matched[None], scores)) / 2
        beaten.add(rows, wins * is_mismatched)
        yes.add(rows, (scores > 0) & is_mismatched)
    return Ranking(
        one_of_two=beaten.share(),
        auc=_auc(matrix, all_groups),
        accuracy=Accuracy(
            matched=_share_of_moments(matched > 0, all_groups), mismatched=yes.share()
        ),
    )


class _Groups:
    """Sums over groups of moments, such as videos; `codes` numbers the group of each moment."""

    def __init__(self, codes: Int[np.ndarray, " moments"], videos: NDArray[Any]) -> None:
        self.codes = codes
        self.count = int(codes.max(initial=-1)) + 1
        self.moments = np.bincount(codes, minlength=self.count).astype(np.float64)
        _, video, video_moments = np.unique(videos, return_inverse=True, return_counts=True)
        others = len(codes) - video_moments[video]
        self.all_mismatched = float(others.sum())
        parts, sizes = np.unique(np.stack([codes, video]), axis=1, return_counts=True)
        # Of the pairs within a group, those of one video are not mismatched.
        within = self.moments**2 - np.bincount(parts[0], sizes**2.0, self.count)
        self.mismatched = 2 * self.sums(others) - within
        """Mismatched pairs whose frame or sound is of the group."""

    def sums(self, values: NDArray[Any]) -> Float[np.ndarray, " groups"]:
        """The sum of the values of each group's moments."""
        return np.bincount(self.codes, values, self.count)

    def sums_within(self, rows: slice, values: NDArray[Any]) -> Float[np.ndarray, " groups"]:
        """The sum, for each group, of the pairs whose frame and sound are both of it."""
        is_within = self.codes[rows, None] == self.codes
        codes = np.broadcast_to(self.codes, values.shape)[is_within]
        return np.bincount(codes, values[is_within], self.count)


def _all_groups(matrix: ScoreMatrix) -> list[_Groups]:
    """The kinds of groups of a matrix: videos, or two kinds of files and the groups by both."""
    kinds = list(matrix.groups) or [matrix.videos]
    all_codes = [np.unique(names, return_inverse=True)[1] for names in kinds]
    if len(all_codes) == 2:
        by_both = np.unique(np.stack(all_codes), axis=1, return_inverse=True)[1]
        all_codes.append(by_both.reshape(-1))
    return [_Groups(codes, matrix.videos) for codes in all_codes]


def _blocks(
    matrix: ScoreMatrix,
) -> Iterator[tuple[slice, Float[np.ndarray, "rows sounds"], NDArray[np.bool_]]]:
    """Some rows at a time: which, their scores, and which of their pairs are mismatched."""
    for start in range(0, len(matrix.scores), BLOCK_ROWS):
        rows = slice(start, start + BLOCK_ROWS)
        yield rows, matrix.scores[rows], matrix.videos[rows, None] != matrix.videos


class _PairSums:
    """Adds up a number of each mismatched pair, in all and for each group."""

    def __init__(self, all_groups: Sequence[_Groups], moments: int) -> None:
        self.all_groups = all_groups
        self.rows = np.zeros(moments)
        self.columns = np.zeros(moments)
        self.within = [np.zeros(groups.count) for groups in all_groups]

    def add(self, rows: slice, values: NDArray[Any]) -> None:
        """Some rows, `[rows, sounds]`; pairs that are not mismatched are 0."""
        self.rows[rows] = values.sum(1)
        self.columns += values.sum(0)
        for within, groups in zip(self.within, self.all_groups, strict=True):
            within += groups.sums_within(rows, values)

    @property
    def total(self) -> float:
        return float(self.rows.sum())

    def sums(self) -> list[NDArray[np.float64]]:
        """For each kind of groups, the sum over the pairs that each group has a part in."""
        sums = []
        for within, groups in zip(self.within, self.all_groups, strict=True):
            # A pair with both parts of one group is in its rows and in its columns.
            sums.append(groups.sums(self.rows) + groups.sums(self.columns) - within)
        return sums

    def share(self) -> Share:
        """The numbers as a share of mismatched pairs."""
        counts = []
        for sums, groups in zip(self.sums(), self.all_groups, strict=True):
            counts.append(GroupCounts(sums, groups.mismatched))
        return Share(self.total, self.all_groups[0].all_mismatched, tuple(counts))


def _share_of_moments(right: NDArray[Any], all_groups: Sequence[_Groups]) -> Share:
    counts = tuple(GroupCounts(groups.sums(right), groups.moments) for groups in all_groups)
    return Share(float(right.sum()), float(len(right)), counts)


def _wins(scores: NDArray[Any], others: NDArray[Any]) -> Float[np.ndarray, "rows sounds"]:
    """1 where the first is higher, one half where both are equal, else 0."""
    wins: Float[np.ndarray, "rows sounds"] = (
        (scores > others).astype(np.float64) + (scores >= others)
    ) / 2
    return wins


def _auc(matrix: ScoreMatrix, all_groups: Sequence[_Groups]) -> Share:
    """How often a matched pair scores higher than a mismatched one.

    Each comparison has three moments: that of the matched pair, and the frame's and the sound's of
    the mismatched one. A group has a part in it if any of the three is of the group.
    """
    matched = matrix.matched
    count = len(matched)
    order = np.sort(matched)
    # For each mismatched pair, how many matched ones score higher.
    higher_matched = _PairSums(all_groups, count)
    # How many mismatched scores have so many matched ones below them, and below or beside them.
    with_lower = np.zeros(count + 1)
    with_lower_or_equal = np.zeros(count + 1)
    for rows, scores, is_mismatched in _blocks(matrix):
        lower = np.searchsorted(order, scores, "left")
        lower_or_equal = np.searchsorted(order, scores, "right")
        higher_matched.add(rows, (count - (lower + lower_or_equal) / 2) * is_mismatched)
        with_lower += np.bincount(lower[is_mismatched], minlength=count + 1)
        with_lower_or_equal += np.bincount(lower_or_equal[is_mismatched], minlength=count + 1)
    # A mismatched score is below matched score number r if at most r of them are not above it.
    beaten = (np.cumsum(with_lower_or_equal) + np.cumsum(with_lower))[:count] / 2
    beaten_by_moment = beaten[np.searchsorted(order, matched, "left")]
    counts = []
    for sums, groups in zip(higher_matched.sums(), all_groups, strict=True):
        right = groups.sums(beaten_by_moment) + sums - _own_comparisons(matrix, groups)
        others = count - groups.moments
        pairs = groups.moments * groups.all_mismatched + others * groups.mismatched
        counts.append(GroupCounts(right, pairs))
    comparisons = float(count * all_groups[0].all_mismatched)
    return Share(higher_matched.total, comparisons, tuple(counts))


def _own_comparisons(matrix: ScoreMatrix, groups: _Groups) -> Float[np.ndarray, " groups"]:
    """The right comparisons in which both pairs have a part of the same group."""
    sums = np.zeros(groups.count)
    matched = matrix.matched
    for group in range(groups.count):
        is_own = groups.codes == group
        order = np.sort(matched[is_own])
        is_mismatched = matrix.videos[is_own, None] != matrix.videos
        own_frames = matrix.scores[is_own][is_mismatched]
        # The pairs of the own sounds with the own frames are among those already.
        own_sounds = matrix.scores[:, is_own][is_mismatched.T & ~is_own[:, None]]
        for scores in (own_frames, own_sounds):
            lower = np.searchsorted(order, scores, "left")
            lower_or_equal = np.searchsorted(order, scores, "right")
            sums[group] += len(order) * scores.size - (lower.sum() + lower_or_equal.sum()) / 2
    return sums
