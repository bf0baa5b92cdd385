"""Moments whose truth is known, and what is asked about them: the same frame with its own sound,
another's, or none.

Knows boxes and labels: no network, no map, no file of anybody's.
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

Kind = Literal["matched", "silence", "mismatched", "swapped"]


@dataclass(frozen=True, eq=False)
class Marked:
    """One moment of a video with the boxes of what sounds in it and of what is silent; picture and
    sound are read when asked for.
    """

    video_id: str
    sounding: tuple[Box, ...]
    silent: tuple[Box, ...]
    """Empty where a set tells of sounding things alone."""
    read: Callable[[], Moment]
    """Raises SourceError when the file cannot be read."""
    agree: int = 1
    """So many boxes over a place make it true: 1 where each box is one thing, 2 where each is one
    annotator's.
    """

    @property
    def heard(self) -> frozenset[str]:
        """Labels of what sounds; empty where nobody told."""
        return _labels(self.sounding)

    @property
    def mute(self) -> frozenset[str]:
        """Labels of what stands by in silence."""
        return _labels(self.silent)

    @cached_property
    def largest(self) -> Float[np.ndarray, "side side"]:
        """The largest box of all, painted."""
        boxes = (*self.sounding, *self.silent)
        return (
            truth_map([max(boxes, key=lambda box: (box.x1 - box.x0) * (box.y1 - box.y0))])
            if boxes
            else truth_map([])
        )


def _labels(boxes: Sequence[Box]) -> frozenset[str]:
    return frozenset(box.label for box in boxes if box.label)


@dataclass(frozen=True, eq=False)
class Question:
    """The frame of `marked` with a sound: where is what sounds?"""

    kind: Kind
    marked: Marked
    sound: Marked | None
    """Whose sound it is; None for digital silence."""
    target: tuple[Box, ...]
    """Where the map should be strongest; empty where nothing seen sounds."""

    def moment(self, of_frame: Moment, of_sound: Moment) -> Moment:
        """What the network is asked, given the moments of `marked` and of `sound`."""
        return replace(
            of_frame, waveform=of_sound.waveform if self.sound else np.zeros_like(of_frame.waveform)
        )


def questions(items: Sequence[Marked], seed: int = 0) -> Iterator[Question]:
    """Of each moment in turn: its own sound, silence, a sound of what is not seen, and the sound of
    the silent thing beside.

    `mismatched`: a sound of another video whose labels are none of the frame's; where a set has no
        labels, of any other video.
    `swapped`: where sounding and silent things are of different labels, the sound of another video
        that has the silent one's.
    """
    rng = np.random.default_rng(seed)
    for one in items:
        yield Question("matched", one, one, one.sounding)
        yield Question("silence", one, None, ())
        seen = one.heard | one.mute
        elsewhere = next(
            (other for other in _others(items, one, rng) if not other.heard & seen), None
        )
        if elsewhere:
            yield Question("mismatched", one, elsewhere, ())
        if len(one.mute) != 1 or not one.heard or one.heard & one.mute:
            continue
        beside = next(
            (other for other in _others(items, one, rng) if other.heard == one.mute), None
        )
        if beside:
            yield Question("swapped", one, beside, one.silent)


def _others(items: Sequence[Marked], one: Marked, rng: np.random.Generator) -> Iterator[Marked]:
    """The moments of other videos in an order of chance."""
    return (
        items[int(number)]
        for number in rng.permutation(len(items))
        if items[int(number)].video_id != one.video_id
    )
