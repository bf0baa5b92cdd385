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
        return ScoreMatrix(self.scores[np.ix_(mask, mask)], self.videos[mask])


@dataclass(frozen=True, eq=False)
class Share:
    """A share of pairs, with what each video adds to it, so that its interval is over videos.

    `share = right / pairs`; without video g it is `(right - right_with[g]) / (pairs -
    pairs_with[g])`.
    """

    right: float
    pairs: float
    right_with: Float[np.ndarray, " videos"]
    """How much of `right` video g has a part in."""
    pairs_with: Float[np.ndarray, " videos"]

    @property
    def value(self) -> float:
        """The share; NaN where there is no pair."""
        return self.right / self.pairs if self.pairs else float("nan")

    def without_each_video(self) -> Float[np.ndarray, " videos"]:
        """The share without each video in turn; NaN where no pair is left."""
        pairs = self.pairs - self.pairs_with
        share: Float[np.ndarray, " videos"] = np.full(len(pairs), np.nan)
        np.divide(self.right - self.right_with, pairs, out=share, where=pairs > 0)
        return share

    def ci95(self) -> tuple[float, float]:
        """The 95 % interval over videos."""
        if not self.pairs:
            return float("nan"), float("nan")
        # Rounding may move a share of all pairs above 1.
        value = min(max(self.value, 0.0), 1.0)
        return jackknife_interval(value, self.without_each_video(), self.pairs)


def pooled(shares: Sequence[Share]) -> Share:
    """The share over the pairs of several parts of different videos, such as folds."""
    return Share(
        sum(share.right for share in shares),
        sum(share.pairs for share in shares),
        np.concatenate([share.right_with for share in shares]),
        np.concatenate([share.pairs_with for share in shares]),
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
        """The 95 % interval over videos."""
        matched = self.matched.without_each_video()
        mismatched = self.mismatched.without_each_video()
        return jackknife_interval(self.value, (matched + 1 - mismatched) / 2, self.matched.pairs)


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
    video_names, codes = np.unique(matrix.videos, return_inverse=True)
    videos = _Videos(codes, len(video_names))
    matched = matrix.matched
    beaten_rows = np.zeros(len(matched))
    beaten_columns = np.zeros(len(matched))
    yes_rows = np.zeros(len(matched))
    yes_columns = np.zeros(len(matched))
    for rows, scores, is_mismatched in _blocks(matrix, videos):
        # Each pair is compared with the matched pair of its frame, and with that of its sound.
        beaten = (_wins(matched[rows, None], scores) + _wins(matched[None], scores)) / 2
        beaten[~is_mismatched] = 0
        beaten_rows[rows] = beaten.sum(1)
        beaten_columns += beaten.sum(0)
        yes = (scores > 0) & is_mismatched
        yes_rows[rows] = yes.sum(1)
        yes_columns += yes.sum(0)
    return Ranking(
        one_of_two=videos.share_of_mismatched(beaten_rows, beaten_columns),
        auc=_auc(matrix, videos),
        accuracy=Accuracy(
            matched=videos.share_of_moments(matched > 0),
            mismatched=videos.share_of_mismatched(yes_rows, yes_columns),
        ),
    )


class _Videos:
    """Sums over videos; `codes` numbers the video of each moment."""

    def __init__(self, codes: Int[np.ndarray, " moments"], count: int) -> None:
        self.codes = codes
        self.count = count
        self.moments = np.bincount(codes, minlength=count).astype(np.float64)
        # Of a video's frames with the sounds of others, and the reverse.
        others = len(codes) - self.moments
        self.mismatched_with = 2 * self.moments * others
        self.mismatched = float(self.moments @ others)

    def sums(self, values: NDArray[Any]) -> Float[np.ndarray, " videos"]:
        """The sum of the values of each video's moments."""
        return np.bincount(self.codes, values, self.count)

    def share_of_moments(self, right: NDArray[Any]) -> Share:
        """A share of moments, each of one video."""
        right_with = self.sums(right)
        return Share(float(right_with.sum()), float(self.moments.sum()), right_with, self.moments)

    def share_of_mismatched(self, rows: NDArray[Any], columns: NDArray[Any]) -> Share:
        """A share of mismatched pairs, from the sums of the rows and of the columns."""
        # No mismatched pair has frame and sound of one video, so none is counted twice.
        right_with = self.sums(rows) + self.sums(columns)
        return Share(float(rows.sum()), self.mismatched, right_with, self.mismatched_with)


def _blocks(
    matrix: ScoreMatrix, videos: _Videos
) -> Iterator[tuple[slice, Float[np.ndarray, "rows sounds"], NDArray[np.bool_]]]:
    """Some rows at a time: which, their scores, and which of their pairs are mismatched."""
    for start in range(0, len(matrix.scores), BLOCK_ROWS):
        rows = slice(start, start + BLOCK_ROWS)
        yield rows, matrix.scores[rows], videos.codes[rows, None] != videos.codes


def _wins(scores: NDArray[Any], others: NDArray[Any]) -> Float[np.ndarray, "rows sounds"]:
    """1 where the first is higher, one half where both are equal, else 0."""
    wins: Float[np.ndarray, "rows sounds"] = (
        (scores > others).astype(np.float64) + (scores >= others)
    ) / 2
    return wins


def _auc(matrix: ScoreMatrix, videos: _Videos) -> Share:
    """How often a matched pair scores higher than a mismatched one.

    Each comparison has the video of the matched pair and two of the mismatched one. The latter
    differ, and the first may be one of them.
    """
    matched = matrix.matched
    count = len(matched)
    order = np.sort(matched)
    row_sums = np.zeros(count)
    column_sums = np.zeros(count)
    # How many mismatched scores have so many matched ones below them, and below or beside them.
    with_lower = np.zeros(count + 1)
    with_lower_or_equal = np.zeros(count + 1)
    for rows, scores, is_mismatched in _blocks(matrix, videos):
        lower = np.searchsorted(order, scores, "left")
        lower_or_equal = np.searchsorted(order, scores, "right")
        higher = count - (lower + lower_or_equal) / 2
        higher[~is_mismatched] = 0
        row_sums[rows] = higher.sum(1)
        column_sums += higher.sum(0)
        with_lower += np.bincount(lower[is_mismatched], minlength=count + 1)
        with_lower_or_equal += np.bincount(lower_or_equal[is_mismatched], minlength=count + 1)
    # A mismatched score is below matched score number r if at most r of them are not above it.
    beaten = (np.cumsum(with_lower_or_equal) + np.cumsum(with_lower))[:count] / 2
    beaten_by_moment = beaten[np.searchsorted(order, matched, "left")]
    right_with = videos.sums(beaten_by_moment) + videos.sums(row_sums) + videos.sums(column_sums)
    right_with -= _own_comparisons(matrix, videos)
    own = videos.moments
    pairs = float(count * videos.mismatched)
    # Comparisons with the matched pair, or with the mismatched one, or with both of a video.
    pairs_with = own * videos.mismatched + (count - own) * videos.mismatched_with
    return Share(float(row_sums.sum()), pairs, right_with, pairs_with)


def _own_comparisons(matrix: ScoreMatrix, videos: _Videos) -> Float[np.ndarray, " videos"]:
    """The right comparisons in which both pairs have a part of the same video."""
    sums = np.zeros(videos.count)
    matched = matrix.matched
    for video in range(videos.count):
        is_own = videos.codes == video
        order = np.sort(matched[is_own])
        for scores in (matrix.scores[is_own][:, ~is_own], matrix.scores[:, is_own][~is_own]):
            lower = np.searchsorted(order, scores, "left")
            lower_or_equal = np.searchsorted(order, scores, "right")
            sums[video] += len(order) * scores.size - (lower.sum() + lower_or_equal.sum()) / 2
    return sums
