"""How well one side of a moment finds the other, in an index or among any vectors.

The query is one second of sound or one frame. The videos are ranked by their most similar moment,
and the rank of the query's own video counts. Where there are labels, so do the labels of the
nearest other videos. Knows vectors and their videos, no network.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

from looklisten.config import Side
from looklisten.errors import ConfigError
from looklisten.evaluation.shared_files import (
    NO_SHARED_FILES,
    SharedFiles,
    shared_files_of_sources,
)
from looklisten.evaluation.statistics import confidence_interval
from looklisten.search.moment_checks import vector_of
from looklisten.search.moments import IndexedMoment
from looklisten.search.opening import open_store

RECALL_AT = (1, 5, 10)
PRECISION_AT = 10
LEAST_RETRIEVAL_VIDEOS = 2
LEAST_LABELS = 2
QUERIES_AT_ONCE = 256


@dataclass(frozen=True)
class RecallAt:
    """How often the own video is among the `k` nearest, over all queries."""

    k: int
    recall: float
    ci95: tuple[float, float]
    chance: float


@dataclass(frozen=True)
class LabelPrecision:
    """How many of the `k` nearest other videos have the query's label, over queries with one."""

    k: int
    precision: float
    ci95: tuple[float, float]
    chance: float
    """The share of all other videos with that label."""


@dataclass(frozen=True)
class Retrieval:
    """The ranks of the own video, and the labels of the nearest, for all queries of a direction."""

    direction: str
    """`sound to picture` or `picture to sound`."""
    queries: int
    videos: int
    recalls: tuple[RecallAt, ...]
    median_rank: float
    median_rank_by_chance: float
    by_label: LabelPrecision | None = None
    """None where fewer than two labels are known, or where there are too few videos."""
    interval_over: str = "videos"
    """What the intervals are over: videos, or the files that composed videos share."""

    def as_dict(self) -> dict[str, Any]:
        """One line of a table."""
        line: dict[str, Any] = {
            "direction": self.direction,
            "queries": self.queries,
            "videos": self.videos,
        }
        for each in self.recalls:
            line[f"recall@{each.k}"] = round(each.recall, 4)
            line[f"recall@{each.k}_ci95"] = [round(end, 4) for end in each.ci95]
            line[f"recall@{each.k}_chance"] = round(each.chance, 4)
        line["median_rank"] = self.median_rank
        line["median_rank_by_chance"] = self.median_rank_by_chance
        if self.by_label:
            precision = f"label_precision@{self.by_label.k}"
            line[precision] = round(self.by_label.precision, 4)
            line[f"{precision}_ci95"] = [round(end, 4) for end in self.by_label.ci95]
            line[f"{precision}_chance"] = round(self.by_label.chance, 4)
        line["interval_over"] = self.interval_over
        return line


def retrieval(
    db: str | Path, where: str | None = None, files: str | Path | None = None
) -> tuple[Retrieval, Retrieval]:
    """Sound to picture and picture to sound, over the moments of an index that have both vectors.

    `where`: a filter, for the queries and for what they are compared with. `files`: the table of
    composed videos, whose intervals are over their files; by default the labels.csv beside them.
    Raises ConfigError where fewer than two videos are left.
    """
    moments = paired_moments(db, where, files)
    return retrieval_of_vectors(
        moments.sounds, moments.pictures, moments.videos, moments.labels, moments.shared_files
    )


@dataclass(frozen=True, eq=False)
class PairedMoments:
    """The moments of an index that have both vectors; row i of all is one moment."""

    sounds: Float[np.ndarray, "moments width"]
    pictures: Float[np.ndarray, "moments width"]
    videos: tuple[str, ...]
    labels: tuple[str, ...]
    """Empty where there is none."""
    shared_files: SharedFiles


def paired_moments(
    db: str | Path, where: str | None = None, files: str | Path | None = None
) -> PairedMoments:
    """The moments of an index that have both vectors and match a filter.

    `files`: as in `retrieval`. Raises ConfigError where they are of fewer than two videos.
    """
    with open_store(db) as store:
        moments = [
            moment
            for moment in store.moments(where)
            if moment.vision is not None and moment.audio is not None
        ]
    videos = tuple(moment.video_id for moment in moments)
    if len(set(videos)) < LEAST_RETRIEVAL_VIDEOS:
        raise ConfigError(
            f"{len(set(videos))} videos of {db} have pictures and sound here; "
            f"retrieval needs {LEAST_RETRIEVAL_VIDEOS}"
        )
    return PairedMoments(
        sounds=_matrix(moments, "audio"),
        pictures=_matrix(moments, "vision"),
        videos=videos,
        labels=tuple(moment.label or "" for moment in moments),
        shared_files=shared_files_of_sources(
            {moment.source: moment.video_id for moment in moments}, files
        ),
    )


def _matrix(moments: Sequence[IndexedMoment], side: Side) -> Float[np.ndarray, "moments width"]:
    vectors = [vector_of(moment, side) for moment in moments]
    return np.stack([vector for vector in vectors if vector is not None])


def retrieval_of_vectors(
    sounds: Float[np.ndarray, "moments width"],
    pictures: Float[np.ndarray, "moments width"],
    videos: Sequence[str],
    labels: Sequence[str],
    shared_files: SharedFiles = NO_SHARED_FILES,
) -> tuple[Retrieval, Retrieval]:
    """Sound to picture and picture to sound; row i of all is one moment of `videos[i]`.

    `labels`: of the moments, empty where there is none.
    """
    return (
        _retrieval("sound to picture", sounds, pictures, videos, labels, shared_files),
        _retrieval("picture to sound", pictures, sounds, videos, labels, shared_files),
    )


def _retrieval(
    direction: str,
    queries: Float[np.ndarray, "moments width"],
    targets: Float[np.ndarray, "moments width"],
    videos: Sequence[str],
    labels: Sequence[str],
    shared_files: SharedFiles,
) -> Retrieval:
    ranks = own_video_ranks(queries, targets, videos)
    groups = shared_files.groups(videos, videos)
    count = len(set(videos))
    recalls = []
    for k in RECALL_AT:
        is_near = (ranks <= k).astype(np.float64)
        interval = confidence_interval(is_near, groups)
        recalls.append(RecallAt(k, float(is_near.mean()), interval, min(k / count, 1.0)))
    return Retrieval(
        direction=direction,
        queries=len(ranks),
        videos=count,
        recalls=tuple(recalls),
        median_rank=float(np.median(ranks)),
        median_rank_by_chance=(count + 1) / 2,
        by_label=_label_precision(queries, targets, videos, labels, groups),
        interval_over=shared_files.interval_over,
    )


def own_video_ranks(
    queries: Float[np.ndarray, "moments width"],
    targets: Float[np.ndarray, "moments width"],
    videos: Sequence[str],
) -> Int[np.ndarray, " moments"]:
    """For each query the rank of its own video, from 1 on.

    A video counts with its most similar moment. Videos that are equally similar rank before the own
    one, so that equal vectors give no good figure.
    """
    _, codes = np.unique(np.array(videos), return_inverse=True)
    ranks = np.zeros(len(queries), np.int64)
    for rows, best in best_of_videos(queries, targets, codes):
        own = best[np.arange(len(best)), codes[rows]]
        ranks[rows] = (best >= own[:, None]).sum(1)
    return ranks


def _label_precision(
    queries: Float[np.ndarray, "moments width"],
    targets: Float[np.ndarray, "moments width"],
    videos: Sequence[str],
    labels: Sequence[str],
    groups: Sequence[NDArray[Any]],
) -> LabelPrecision | None:
    """How many of the nearest other videos have the label of the query."""
    label_of_video = dict(zip(videos, labels, strict=True))
    names, codes = np.unique(np.array(videos), return_inverse=True)
    video_labels = np.array([label_of_video[name] for name in names.tolist()])
    known = set(video_labels.tolist()) - {""}
    others = len(names) - 1
    if len(known) < LEAST_LABELS or others < PRECISION_AT:
        return None
    same_label = (video_labels[:, None] == video_labels) & ~np.eye(len(names), dtype=bool)
    shares = np.zeros(len(queries))
    for rows, best in best_of_videos(queries, targets, codes):
        # The own video is found by its own sound, so it says nothing of the others.
        best[np.arange(len(best)), codes[rows]] = -np.inf
        nearest = np.argpartition(-best, PRECISION_AT - 1, axis=1)[:, :PRECISION_AT]
        shares[rows] = np.take_along_axis(same_label[codes[rows]], nearest, 1).mean(1)
    has_label = video_labels[codes] != ""
    by_chance = same_label.sum(1)[codes[has_label]] / others
    return LabelPrecision(
        k=PRECISION_AT,
        precision=float(shares[has_label].mean()),
        ci95=confidence_interval(shares[has_label], [each[has_label] for each in groups]),
        chance=float(by_chance.mean()),
    )


def best_of_videos(
    queries: Float[np.ndarray, "moments width"],
    targets: Float[np.ndarray, "moments width"],
    codes: Int[np.ndarray, " moments"],
) -> Iterator[tuple[slice, Float[np.ndarray, "queries videos"]]]:
    """Some queries at a time, and how similar the most similar moment of each video is to them.

    `codes`: the number of the video of each moment, which is its column.
    """
    order = np.argsort(codes, kind="stable")
    starts = np.searchsorted(codes[order], np.arange(codes.max() + 1))
    # `reduceat` takes the maximum of each run of rows, so a video needs its rows side by side.
    sorted_targets: NDArray[np.float32] = targets[order]
    for first in range(0, len(queries), QUERIES_AT_ONCE):
        rows = slice(first, first + QUERIES_AT_ONCE)
        yield rows, np.maximum.reduceat(queries[rows] @ sorted_targets.T, starts, axis=1)
