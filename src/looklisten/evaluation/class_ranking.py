"""How well each side of a moment ranks videos of its own class first: nDCG@30, four directions.

"Objects that Sound" (2018) measures retrieval so; there two classes are related by a tree of
classes, here a video is of the query's class or not. Knows vectors with videos and labels, no
network.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray

from looklisten.errors import ConfigError
from looklisten.evaluation.retrieval import best_of_videos, paired_moments
from looklisten.evaluation.shared_files import NO_SHARED_FILES, SharedFiles
from looklisten.evaluation.statistics import confidence_interval

RANKED_VIDEOS = 30
LEAST_CLASSES = 2
_SIDES = ("picture", "sound")


@dataclass(frozen=True)
class ClassRanking:
    """The nDCG of the `k` nearest other videos, the mean over all queries with a label."""

    direction: str
    """Such as `picture to sound`."""
    k: int
    queries: int
    videos: int
    ndcg: float
    """1 where videos of the query's class come first; the mean over queries."""
    ci95: tuple[float, float]
    chance: float
    """The mean over all orders of the other videos."""

    def as_dict(self) -> dict[str, Any]:
        """One line of a table."""
        return {
            "direction": self.direction,
            "queries": self.queries,
            "videos": self.videos,
            f"ndcg@{self.k}": round(self.ndcg, 4),
            f"ndcg@{self.k}_ci95": [round(end, 4) for end in self.ci95],
            f"ndcg@{self.k}_chance": round(self.chance, 4),
        }


def class_rankings(
    db: str | Path, where: str | None = None, files: str | Path | None = None
) -> tuple[ClassRanking, ...]:
    """nDCG@30 in four directions, over the labeled moments of an index that have both vectors.

    `where`, `files`: as in `retrieval`. Raises ConfigError where fewer than two classes, or no two
    videos of one class, are left.
    """
    moments = paired_moments(db, where, files)
    return class_rankings_of_vectors(
        moments.sounds, moments.pictures, moments.videos, moments.labels, moments.shared_files
    )


def class_rankings_of_vectors(
    sounds: Float[np.ndarray, "moments audio_width"],
    pictures: Float[np.ndarray, "moments vision_width"],
    videos: Sequence[str],
    labels: Sequence[str],
    shared_files: SharedFiles = NO_SHARED_FILES,
) -> tuple[ClassRanking, ...]:
    """nDCG@30 from picture and sound to picture and sound; row i is one moment of `videos[i]`.

    The vectors have the length 1. `labels`: of the moments; those without one are left out.
    `shared_files`: of composed videos, whose intervals are over their files. Across the sides only
    vectors of one width are compared. Raises ConfigError as `class_rankings` does.
    """
    has_label = np.array([bool(label) for label in labels])
    names = np.array(videos)[has_label]
    classes = np.array(labels)[has_label]
    groups = shared_files.groups(names.tolist(), names.tolist())
    same_class, codes = _same_class(names, classes)
    relevant = same_class.sum(1)
    is_query = relevant[codes] > 0
    if len(set(classes.tolist())) < LEAST_CLASSES or not is_query.any():
        raise ConfigError(
            "a ranking of classes needs two classes, and two videos of one; "
            f"{len(set(names.tolist()))} videos of {len(set(classes.tolist()))} classes are here"
        )
    discounts = 1 / np.log2(np.arange(2, RANKED_VIDEOS + 2))
    reachable = np.minimum(relevant, RANKED_VIDEOS)
    ideal = np.concatenate([[np.inf], np.cumsum(discounts)])[reachable]
    others = len(same_class) - 1
    by_chance = relevant / others * discounts[:others].sum() / ideal
    sides = {"picture": pictures[has_label], "sound": sounds[has_label]}
    rankings = []
    for query, target in ((query, target) for query in _SIDES for target in _SIDES):
        if sides[query].shape[1] != sides[target].shape[1]:
            continue
        values = _ndcg(sides[query], sides[target], codes, same_class, discounts, ideal)
        rankings.append(
            ClassRanking(
                direction=f"{query} to {target}",
                k=RANKED_VIDEOS,
                queries=int(is_query.sum()),
                videos=len(same_class),
                ndcg=float(values[is_query].mean()),
                ci95=confidence_interval(values[is_query], [group[is_query] for group in groups]),
                chance=float(by_chance[codes[is_query]].mean()),
            )
        )
    return tuple(rankings)


def _same_class(
    names: NDArray[Any], classes: NDArray[Any]
) -> tuple[Bool[np.ndarray, "videos videos"], Int[np.ndarray, " moments"]]:
    """Which other videos are of the class of each video, and the number of each moment's video."""
    videos, firsts, codes = np.unique(names, return_index=True, return_inverse=True)
    class_of_video = classes[firsts]
    same = class_of_video[:, None] == class_of_video
    return same & ~np.eye(len(videos), dtype=bool), codes.reshape(-1)


def _ndcg(
    queries: Float[np.ndarray, "moments width"],
    targets: Float[np.ndarray, "moments width"],
    codes: Int[np.ndarray, " moments"],
    same_class: Bool[np.ndarray, "videos videos"],
    discounts: Float[np.ndarray, " ranks"],
    ideal: Float[np.ndarray, " videos"],
) -> Float[np.ndarray, " moments"]:
    values = np.zeros(len(queries))
    for rows, best in best_of_videos(queries, targets, codes):
        own = codes[rows]
        # The own video is found by its own moment, which says nothing of its class.
        best[np.arange(len(best)), own] = -np.inf
        order = np.argsort(-best, axis=1, kind="stable")[
            :, : min(len(discounts), best.shape[1] - 1)
        ]
        is_same = np.take_along_axis(same_class[own], order, 1)
        values[rows] = is_same @ discounts[: order.shape[1]] / ideal[own]
    return values
