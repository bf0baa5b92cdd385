"""What was answered to questions -> one row of a table. Knows maps, their questions and
`map_scores`: no network, no file.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from looklisten.data.shards import Box
from looklisten.evaluation.intervals import interval
from looklisten.evaluation.localization.metrics import (
    RIGHT_OVERLAP,
    Map,
    detection_scores,
    grown,
    held,
    overlap,
    strongest_half,
    success_area,
    truth_map,
)
from looklisten.evaluation.localization.questions import Kind, Question
from looklisten.inference.localization.records import HeatMap


@dataclass(frozen=True, eq=False)
class Answer:
    """A map that was given to a question, as it is, and what it counts."""

    question: Question
    values: Map
    weight: float

    @property
    def point(self) -> tuple[float, float] | None:
        """The strongest place, (x, y) in 0..1; a map that is the same everywhere has none."""
        return HeatMap(self.values).peak() if self.values.max() > self.values.min() else None

    @property
    def peak(self) -> float:
        """How strong it is there, comparable from map to map."""
        return float(self.values.max()) * self.weight

    @property
    def truth(self) -> Float[np.ndarray, "side side"]:
        """What each pixel of the target counts."""
        return truth_map(self.question.target, self.question.marked.agree)

    def points_at(self, boxes: Sequence[Box]) -> bool:
        """Whether the strongest place lies in one of the boxes, or in those of enough annotators."""
        return held(boxes, self.point, self.question.marked.agree)


@dataclass(frozen=True)
class LocalizationRow:
    """One contender. What nothing was asked about is NaN; intervals are over videos."""

    name: str
    pointing: float
    """Share of moments in which the strongest place lies in the box of what sounds."""
    pointing_ci95: tuple[float, float]
    with_silent: float
    """`pointing` where a silent thing is in the frame too."""
    on_silent: float
    """Among those, how often the map points at the silent one."""
    ciou: float
    """Share of moments in which the strongest half of the picture and the boxes have a cIoU of at
    least 0.5.
    """
    auc: float
    average_precision: float
    """Of matched moments among silent and mismatched ones, by the map's peak; right is a cIoU of at
    least 0.5 at `threshold`.
    """
    max_f1: float
    pointing_precision: float
    """The average precision where right is that the strongest place lies in the box: of things too
    small for that overlap.
    """
    followed: float
    """Swap test: share of frames whose map, given the sound of the silent thing, points at that."""
    followed_ci95: tuple[float, float]
    stayed: float
    """Swap test: share of those whose map still points at what sounded before."""
    elsewhere: float
    mismatched: float
    """Mean peak with a sound of what is not seen, over that with the frame's own sound; 1 of a map
    that does not hear.
    """
    silence: float
    """The same with digital silence."""
    threshold: float
    hears: bool


def row_of(
    name: str, answers: Sequence[Answer], threshold: float | None, hears: bool
) -> LocalizationRow:
    """The row of who gave `answers`; without a `threshold` a map says yes to a place at half the
    mean peak of its matched maps.
    """
    matched, hush, mismatched, swapped = (
        of_kind(answers, kind) for kind in ("matched", "silence", "mismatched", "swapped")
    )
    peak = _mean([one.peak for one in matched])
    threshold = (peak / 2 or np.inf) if threshold is None else threshold
    return LocalizationRow(
        name=name,
        **_places(matched),
        **_finds(matched, [*mismatched, *hush], threshold),
        **_swaps(swapped),
        mismatched=_mean([one.peak for one in mismatched]) / peak if peak else float("nan"),
        silence=_mean([one.peak for one in hush]) / peak if peak else float("nan"),
        threshold=threshold,
        hears=hears,
    )


def of_kind(answers: Sequence[Answer], kind: Kind) -> list[Answer]:
    """Those to one kind of question."""
    return [one for one in answers if one.question.kind == kind]


def _places(matched: Sequence[Answer]) -> dict[str, Any]:
    """Where maps are strongest with the frame's own sound."""
    hits = [one.points_at(one.question.target) for one in matched]
    beside = [one for one in matched if one.question.marked.silent]
    overlaps = np.array([overlap(strongest_half(one.values), one.truth) for one in matched])
    return {
        "pointing": _mean(hits),
        "pointing_ci95": _interval(matched, hits),
        "with_silent": _mean([one.points_at(one.question.target) for one in beside]),
        "on_silent": _mean([one.points_at(one.question.marked.silent) for one in beside]),
        "ciou": _mean(overlaps >= RIGHT_OVERLAP),
        "auc": success_area(overlaps),
    }


def _finds(matched: Sequence[Answer], others: Sequence[Answer], threshold: float) -> dict[str, Any]:
    """Whether maps are surer and right where something seen sounds."""
    confidence = np.array([one.peak for one in (*matched, *others)])
    sounds = np.arange(len(confidence)) < len(matched)
    right, hits = np.zeros_like(sounds), np.zeros_like(sounds)
    right[: len(matched)] = [
        overlap(grown(one.values) * one.weight >= threshold, one.truth) >= RIGHT_OVERLAP
        for one in matched
    ]
    hits[: len(matched)] = [one.points_at(one.question.target) for one in matched]
    precision, f1 = detection_scores(confidence, sounds, right)
    return {
        "average_precision": precision,
        "max_f1": f1,
        "pointing_precision": detection_scores(confidence, sounds, hits)[0],
    }


def _swaps(swapped: Sequence[Answer]) -> dict[str, Any]:
    """Where maps go with the sound of the silent thing."""
    followed = [one.points_at(one.question.target) for one in swapped]
    stayed = [
        one.points_at(one.question.marked.sounding) and not moved
        for one, moved in zip(swapped, followed, strict=True)
    ]
    elsewhere = [not (moved or kept) for moved, kept in zip(followed, stayed, strict=True)]
    return {
        "followed": _mean(followed),
        "followed_ci95": _interval(swapped, followed),
        "stayed": _mean(stayed),
        "elsewhere": _mean(elsewhere),
    }


def _mean(values: Sequence[float] | Float[np.ndarray, " n"] | NDArray[np.bool_]) -> float:
    return float(np.mean(values)) if len(values) else float("nan")


def _interval(answers: Sequence[Answer], values: Sequence[float]) -> tuple[float, float]:
    """Over videos, as moments of one video are no independent witnesses."""
    if not answers:
        return float("nan"), float("nan")
    return interval(values, [[one.question.marked.video_id for one in answers]])
