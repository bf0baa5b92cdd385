"""Moments with annotated boxes, and the questions about them: a frame with which sound?

Knows boxes and labels: no network, no heat map, no file.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np
from jaxtyping import Float

from looklisten.data.clips import Box
from looklisten.evaluation.localization.metrics import truth_map
from looklisten.inference.moments import Moment

QuestionKind = Literal["matched", "silence", "mismatched", "swapped"]


@dataclass(frozen=True, eq=False)
class AnnotatedMoment:
    """One moment of a video with boxes of sounding and silent objects; media are loaded later."""

    video_id: str
    sounding: tuple[Box, ...]
    silent: tuple[Box, ...]
    """Empty where a set annotates sounding objects only."""
    load: Callable[[], Moment]
    """Reads frame and sound. Raises SourceError when the file cannot be read."""
    min_annotators: int = 1
    """How many boxes over a position make it true.

    It is 1 where each box bounds one object, and 2 where each box is of another annotator.
    """

    @property
    def sounding_labels(self) -> frozenset[str]:
        """Empty where the set has no labels."""
        return _labels(self.sounding)

    @property
    def silent_labels(self) -> frozenset[str]:
        return _labels(self.silent)

    @cached_property
    def largest_box_map(self) -> Float[np.ndarray, "side side"]:
        """1 inside the largest of all boxes, else 0."""
        boxes = (*self.sounding, *self.silent)
        if not boxes:
            return truth_map([])
        largest = max(boxes, key=lambda box: (box.x1 - box.x0) * (box.y1 - box.y0))
        return truth_map([largest])


def _labels(boxes: Sequence[Box]) -> frozenset[str]:
    return frozenset(box.label for box in boxes if box.label)


@dataclass(frozen=True, eq=False)
class Question:
    """Where in the frame of one moment is the source of a sound?"""

    kind: QuestionKind
    of_frame: AnnotatedMoment
    of_sound: AnnotatedMoment | None
    """The moment that the sound is of; None for digital silence."""
    target: tuple[Box, ...]
    """Where the map should be highest; empty where no visible object makes the sound."""

    def moment(self, frame: Moment, sound: Moment) -> Moment:
        """The network's input: the moment `frame` with the sound of the moment `sound`."""
        waveform = sound.waveform if self.of_sound else np.zeros_like(frame.waveform)
        return replace(frame, waveform=waveform)


def questions(moments: Sequence[AnnotatedMoment], seed: int = 0) -> Iterator[Question]:
    """The questions about each moment in turn, one of each kind that is possible.

    `matched`: the frame's own sound.
    `silence`: digital silence.
    `mismatched`: a sound of another video whose labels are none of the frame's; where a set has no
        labels, of any other video.
    `swapped`: where sounding and silent objects have different labels, the sound of another video
        that has the label of the silent one.
    """
    rng = np.random.default_rng(seed)
    for moment in moments:
        yield Question("matched", moment, moment, moment.sounding)
        # Nothing in the frame makes the other sounds, so these questions have no target.
        yield Question("silence", moment, None, ())
        visible_labels = moment.sounding_labels | moment.silent_labels
        # The first in random order that fits is a uniform draw among those that fit.
        for other in _other_videos(moments, moment, rng):
            if not other.sounding_labels & visible_labels:
                yield Question("mismatched", moment, other, ())
                break
        if not _can_swap(moment):
            continue
        for other in _other_videos(moments, moment, rng):
            if other.sounding_labels == moment.silent_labels:
                yield Question("swapped", moment, other, moment.silent)
                break


def _can_swap(moment: AnnotatedMoment) -> bool:
    """Whether one silent label, and no sounding one of the same name, is in the frame."""
    sounding, silent = moment.sounding_labels, moment.silent_labels
    # A sound of one label could not tell which of several silent objects is meant.
    return len(silent) == 1 and bool(sounding) and not sounding & silent


def _other_videos(
    moments: Sequence[AnnotatedMoment], moment: AnnotatedMoment, rng: np.random.Generator
) -> Iterator[AnnotatedMoment]:
    """The moments of other videos in random order."""
    for number in rng.permutation(len(moments)).tolist():
        if moments[number].video_id != moment.video_id:
            yield moments[number]
