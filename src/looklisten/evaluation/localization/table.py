"""One row of the localization table from the maps that answer the questions.

Knows maps, their questions and `metrics`: no network, no file.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from looklisten.data.clips import Box
from looklisten.evaluation.localization.metrics import (
    CIOU_THRESHOLD,
    Map,
    above_median_mask,
    ciou,
    detection_scores,
    point_in_boxes,
    resize_map,
    success_auc,
    truth_map,
)
from looklisten.evaluation.localization.questions import Question, QuestionKind
from looklisten.evaluation.shared_files import NO_SHARED_FILES, SharedFiles
from looklisten.evaluation.statistics import interval_or_nan, mean_or_nan
from looklisten.inference.localization.records import HeatMap


@dataclass(frozen=True, eq=False)
class MapAnswer:
    """The heat map for a question, as it is, and its weight."""

    question: Question
    values: Map
    weight: float

    @property
    def point(self) -> tuple[float, float] | None:
        """The highest position, (x, y) in 0..1; a constant map has none."""
        if self.values.max() == self.values.min():
            return None
        return HeatMap(self.values).peak()

    @property
    def peak(self) -> float:
        """The highest value times the weight, which can be compared between maps."""
        return float(self.values.max()) * self.weight

    @property
    def truth(self) -> Float[np.ndarray, "side side"]:
        """The weight of each pixel of the target."""
        return truth_map(self.question.target, self.question.of_frame.min_annotators)

    def points_at(self, boxes: Sequence[Box]) -> bool:
        """Whether the highest position lies in a box, or in the boxes of enough annotators."""
        return point_in_boxes(boxes, self.point, self.question.of_frame.min_annotators)

    @property
    def points_at_target(self) -> bool:
        return self.points_at(self.question.target)


@dataclass(frozen=True)
class LocalizationRow:
    """The results of one predictor; NaN where there was no question.

    Intervals are over videos, or over the files that they were composed of.
    """

    name: str
    pointing: float
    """Share of moments in which the highest position lies in the box of the sounding object."""
    pointing_ci95: tuple[float, float]
    with_silent: float
    """`pointing` where a silent object is in the frame too."""
    on_silent: float
    """Among those, how often the map points at the silent object."""
    ciou: float
    """Share of moments with a cIoU of at least 0.5, where the mask is above the median."""
    auc: float
    average_precision: float
    """Of matched moments among silent and mismatched ones, ranked by the peak of the map.

    A map is right where its mask at `threshold` has a cIoU of at least 0.5.
    """
    max_f1: float
    pointing_precision: float
    """The average precision where a map is right when it points at the target.

    For objects that are too small for that cIoU.
    """
    followed: float
    """Swap test: share of frames whose map, with the sound of the silent object, points at it."""
    followed_ci95: tuple[float, float]
    stayed: float
    """Swap test: share of frames whose map still points at the object that sounded before."""
    elsewhere: float
    mismatched: float
    """Mean peak with a sound of no visible object, by that with the frame's own sound.

    It is 1 for a map that does not depend on the sound.
    """
    silence: float
    """The same with digital silence."""
    threshold: float
    uses_sound: bool


def table_row(
    name: str,
    answers: Sequence[MapAnswer],
    threshold: float | None,
    uses_sound: bool,
    files: SharedFiles = NO_SHARED_FILES,
) -> LocalizationRow:
    """The row of the predictor that gave `answers`.

    `threshold`: by default half the mean peak of the maps of matched questions.
    `files`: what intervals are over.
    """
    matched = answers_of_kind(answers, "matched")
    silence = answers_of_kind(answers, "silence")
    mismatched = answers_of_kind(answers, "mismatched")
    swapped = answers_of_kind(answers, "swapped")
    peak = _mean_peak(matched)
    if threshold is None:
        # Where all maps are dark, none may say yes.
        threshold = peak / 2 or np.inf
    return LocalizationRow(
        name=name,
        **_position_columns(matched, files),
        **_detection_columns(matched, [*mismatched, *silence], threshold),
        **_swap_columns(swapped, files),
        mismatched=_mean_peak(mismatched) / peak if peak else float("nan"),
        silence=_mean_peak(silence) / peak if peak else float("nan"),
        threshold=threshold,
        uses_sound=uses_sound,
    )


def answers_of_kind(answers: Sequence[MapAnswer], kind: QuestionKind) -> list[MapAnswer]:
    """The answers to one kind of question."""
    return [answer for answer in answers if answer.question.kind == kind]


def _mean_peak(answers: Sequence[MapAnswer]) -> float:
    return mean_or_nan([answer.peak for answer in answers])


def _position_columns(matched: Sequence[MapAnswer], files: SharedFiles) -> dict[str, Any]:
    """Where maps are highest with the frame's own sound."""
    on_target = []
    on_target_with_silent = []
    on_silent = []
    moment_cious = []
    for answer in matched:
        on_target.append(answer.points_at_target)
        silent_boxes = answer.question.of_frame.silent
        if silent_boxes:
            on_target_with_silent.append(answer.points_at_target)
            on_silent.append(answer.points_at(silent_boxes))
        # The mask does not depend on the weight, which only scales a map.
        moment_cious.append(ciou(above_median_mask(answer.values), answer.truth))
    cious = np.array(moment_cious)
    return {
        "pointing": mean_or_nan(on_target),
        "pointing_ci95": _interval(matched, on_target, files),
        "with_silent": mean_or_nan(on_target_with_silent),
        "on_silent": mean_or_nan(on_silent),
        "ciou": mean_or_nan(cious >= CIOU_THRESHOLD),
        "auc": success_auc(cious),
    }


def _detection_columns(
    matched: Sequence[MapAnswer], others: Sequence[MapAnswer], threshold: float
) -> dict[str, Any]:
    """Whether maps have higher peaks, and are right, where a visible object makes the sound."""
    confidence = np.array([answer.peak for answer in (*matched, *others)])
    # The others have no target, so no map of theirs is right.
    sounds = np.arange(len(confidence)) < len(matched)
    ciou_right = np.zeros_like(sounds)
    pointing_right = np.zeros_like(sounds)
    for number, answer in enumerate(matched):
        mask = resize_map(answer.values) * answer.weight >= threshold
        ciou_right[number] = ciou(mask, answer.truth) >= CIOU_THRESHOLD
        pointing_right[number] = answer.points_at_target
    average_precision, max_f1 = detection_scores(confidence, sounds, ciou_right)
    pointing_precision, _ = detection_scores(confidence, sounds, pointing_right)
    return {
        "average_precision": average_precision,
        "max_f1": max_f1,
        "pointing_precision": pointing_precision,
    }


def _swap_columns(swapped: Sequence[MapAnswer], files: SharedFiles) -> dict[str, Any]:
    """Where maps are highest with the sound of the silent object."""
    followed = []
    stayed = []
    elsewhere = []
    for answer in swapped:
        on_target = answer.points_at_target
        # A position in both boxes counts as followed.
        on_former = answer.points_at(answer.question.of_frame.sounding) and not on_target
        followed.append(on_target)
        stayed.append(on_former)
        elsewhere.append(not on_target and not on_former)
    return {
        "followed": mean_or_nan(followed),
        "followed_ci95": _interval(swapped, followed, files),
        "stayed": mean_or_nan(stayed),
        "elsewhere": mean_or_nan(elsewhere),
    }


def _interval(
    answers: Sequence[MapAnswer], values: Sequence[float], files: SharedFiles
) -> tuple[float, float]:
    frame_videos: list[str] = []
    sound_videos: list[str] = []
    for answer in answers:
        of_frame = answer.question.of_frame
        of_sound = answer.question.of_sound or of_frame
        frame_videos.append(of_frame.video_id)
        sound_videos.append(of_sound.video_id)
    return interval_or_nan(values, files.groups(frame_videos, sound_videos))
