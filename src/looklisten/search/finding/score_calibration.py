"""From a similarity to a score from 0 to 1, fitted to the moments of the index itself.

A frame and a sound of one moment belong together, and so do two moments of one video. Pairs of
different videos mostly do not. So an index needs no label to know which similarities mean
something, for each side of a query and each side of a moment. Knows vectors, no network and no
file.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from looklisten.config import SIDES, Side
from looklisten.search.filters import text_literal
from looklisten.search.finding.query import Direction
from looklisten.search.moments import IndexedMoment
from looklisten.search.store import VectorStore

MOST_SOURCES = 400
"""So many sources of an index are used, chosen by their digests."""
MOMENTS_PER_SOURCE = 20
LEAST_VIDEOS = 8
"""With fewer there is no calibration of the index."""
LEAST_DISTANCE_SECONDS = 2.0
"""Between two moments of one video that are compared: neighbors are too easy."""
OTHERS_PER_MOMENT = 8


@dataclass(frozen=True)
class ScoreCurve:
    """The score is `sigmoid(slope * (similarity - middle))`.

    It is the share of pairs with that similarity that belong together, where half of all do.
    """

    slope: float
    middle: float
    pairs: int
    """Pairs that belong together, on which it was fitted."""

    def score(self, similarity: float) -> float:
        return float(1 / (1 + np.exp(-self.slope * (similarity - self.middle))))


def fit_curves(store: VectorStore, seed: int = 0) -> dict[Direction, ScoreCurve]:
    """The curve of each direction for which the index has enough videos."""
    moments = _sample(store)
    videos = np.array([moment.video_id for moment in moments])
    if len(set(videos.tolist())) < LEAST_VIDEOS:
        return {}
    seconds = np.array([moment.seconds for moment in moments])
    generator = np.random.default_rng(seed)
    curves = {}
    for query_side in SIDES:
        for target_side in SIDES:
            pairs = _pairs(moments, videos, seconds, (query_side, target_side), generator)
            curve = _fit(*pairs)
            if curve is not None:
                curves[query_side, target_side] = curve
    return curves


def _sample(store: VectorStore) -> list[IndexedMoment]:
    """Some moments of some sources, spread over each."""
    # The order of digests is like a random one, but the same in every run.
    by_digest = sorted(store.sources().items(), key=lambda item: item[1])
    sample = []
    for source, _ in by_digest[:MOST_SOURCES]:
        rows = store.moments(f"source = {text_literal(source)}")
        # Stores give rows in any order, and the sample must not depend on it.
        moments = sorted(rows, key=lambda each: each.seconds)
        step = max(len(moments) // MOMENTS_PER_SOURCE, 1)
        sample += moments[::step][:MOMENTS_PER_SOURCE]
    return sample


def _vectors(moments: Sequence[IndexedMoment], side: Side) -> Float[np.ndarray, "n width"]:
    """A row for each moment; of NaN without a vector."""
    width = max(
        (len(vector) for m in moments if (vector := _vector(m, side)) is not None), default=1
    )
    rows = np.full((len(moments), width), np.nan, np.float32)
    for row, moment in zip(rows, moments, strict=True):
        vector = _vector(moment, side)
        if vector is not None:
            row[:] = vector
    return rows


def _vector(moment: IndexedMoment, side: Side) -> NDArray[np.float32] | None:
    return moment.vision if side == "vision" else moment.audio


def _pairs(
    moments: Sequence[IndexedMoment],
    videos: NDArray[Any],
    seconds: NDArray[np.float64],
    direction: Direction,
    generator: np.random.Generator,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The similarities of pairs that belong together, and of pairs of different videos."""
    query_side, target_side = direction
    queries, targets = _vectors(moments, query_side), _vectors(moments, target_side)
    if queries.shape[1] != targets.shape[1]:
        return np.zeros(0, np.float32), np.zeros(0, np.float32)
    together, apart = [], []
    for number in range(len(moments)):
        own = videos == videos[number]
        if query_side == target_side:
            is_far = np.abs(seconds - seconds[number]) >= LEAST_DISTANCE_SECONDS
            candidates = np.flatnonzero(own & is_far)
            partners = generator.permutation(candidates)[:1]
        else:
            partners = np.array([number])
        others = generator.integers(0, len(moments), OTHERS_PER_MOMENT)
        together.append(targets[partners] @ queries[number])
        apart.append(targets[others[videos[others] != videos[number]]] @ queries[number])
    matched, mismatched = np.concatenate(together), np.concatenate(apart)
    return matched[np.isfinite(matched)], mismatched[np.isfinite(mismatched)]


def _fit(matched: NDArray[np.float32], mismatched: NDArray[np.float32]) -> ScoreCurve | None:
    if min(len(matched), len(mismatched)) < LEAST_VIDEOS:
        return None
    similarities = np.concatenate([matched, mismatched])[:, None]
    answers = np.repeat([1, 0], [len(matched), len(mismatched)])
    # Balanced, so that a score does not depend on how many pairs of each kind were sampled.
    regression = LogisticRegression(class_weight="balanced", C=1e4).fit(similarities, answers)
    slope, intercept = float(regression.coef_[0, 0]), float(regression.intercept_[0])
    if slope <= 0:
        # The vectors of this direction say nothing.
        return None
    return ScoreCurve(round(slope, 4), round(-intercept / slope, 4), len(matched))


def curves_as_json(curves: Mapping[Direction, ScoreCurve]) -> dict[str, Any]:
    """The curves as JSON can hold them."""
    return {
        f"{query} to {target}": {
            "slope": curve.slope,
            "middle": curve.middle,
            "pairs": curve.pairs,
        }
        for (query, target), curve in curves.items()
    }


def curves_of_json(values: Mapping[str, Any]) -> dict[Direction, ScoreCurve]:
    """The curves that `curves_as_json` gave."""
    curves = {}
    for query in SIDES:
        for target in SIDES:
            line = values.get(f"{query} to {target}")
            if line is not None:
                curves[query, target] = ScoreCurve(**line)
    return curves
