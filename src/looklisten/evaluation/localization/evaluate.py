"""Does the map point at what sounds, and does it follow the sound? A network's methods beside
rivals that do not hear.

Knows moments with boxes, from shards or from elsewhere. `map_rows` and `map_scores` have the
numbers, `map_contenders` the rivals.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from looklisten.data.shards import Box, Clip, Shards
from looklisten.errors import ConfigError, SourceError
from looklisten.evaluation.localization.baselines import (
    Contender,
    network,
    read,
    rules,
    untrained_for,
)
from looklisten.evaluation.localization.questions import Marked, Question, questions
from looklisten.evaluation.localization.table import (
    Answer,
    LocalizationRow,
    of_kind,
    row_of,
)
from looklisten.inference.localization.localize import usual_method
from looklisten.inference.localization.options import Method
from looklisten.inference.moments import Moment, moments
from looklisten.model.fusions import AlignedFusion
from looklisten.model.l3net import L3Net
from looklisten.system.progress import Progress, no_progress

BOX_TOLERANCE_SECONDS = 0.2
"""A box counts for a frame when it is at most so far from it in time."""


PLACES = (
    "pointing",
    "pointing_ci95",
    "with_silent",
    "on_silent",
    "ciou",
    "auc",
    "average_precision",
    "max_f1",
    "pointing_precision",
)
OTHER_SOUNDS = (
    "followed",
    "followed_ci95",
    "stayed",
    "elsewhere",
    "mismatched",
    "silence",
    "threshold",
)


@dataclass(frozen=True)
class LocalizationTable:
    """Every contender over the same questions."""

    rows: tuple[LocalizationRow, ...]
    n: int
    """Moments."""
    n_videos: int
    n_swaps: int
    failures: dict[str, str]
    """Videos that could not be read, and why."""
    notes: tuple[str, ...]

    def row(self, name: str) -> LocalizationRow:
        """The row of a contender."""
        return next(row for row in self.rows if row.name == name)

    @property
    def best_deaf(self) -> LocalizationRow:
        """The row that points best of those that do not hear."""
        return max((row for row in self.rows if not row.hears), key=lambda row: row.pointing)

    def as_dict(self) -> dict[str, Any]:
        """`rows`: where maps point with the frame's own sound; `other_sounds`: what they do with
        another.
        """
        told = {
            part: [
                {name: _rounded(getattr(row, name)) for name in ("name", *names)}
                for row in self.rows
            ]
            for part, names in (("rows", PLACES), ("other_sounds", OTHER_SOUNDS))
        }
        return {
            "moments": self.n,
            "videos": self.n_videos,
            "swaps": self.n_swaps,
            "best_that_does_not_hear": {
                "name": self.best_deaf.name,
                "pointing": _rounded(self.best_deaf.pointing),
            },
            "failed": len(self.failures),
            "failures": [f"{video}: {why}" for video, why in self.failures.items()],
            "notes": list(self.notes),
            **told,
        }


def _rounded(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_rounded(one) for one in value]
    return round(value, 4) if isinstance(value, float) else value


def localization(
    model: L3Net,
    shards: Shards,
    mask: NDArray[np.bool_],
    methods: Sequence[Method] = (),
    per_clip: int = 2,
    seed: int = 0,
    progress: Progress = no_progress,
) -> LocalizationTable:
    """Maps by `methods` (by default all that the network can) over `per_clip` moments of the clips
    of `mask` that have boxes.

    Beside them: the same network untrained, the center, the largest object, the whole picture.
    `seed` draws the sounds that stand in for a frame's own, and the untrained network. Raises
    ConfigError when no clip has boxes of what sounds, or for a method that the network cannot.
    """
    return localization_of(
        model, marked_clips(model, shards, mask, per_clip), methods, seed, progress
    )


def localization_of(
    model: L3Net,
    items: Sequence[Marked],
    methods: Sequence[Method] = (),
    seed: int = 0,
    progress: Progress = no_progress,
) -> LocalizationTable:
    """The same over any moments whose truth is known. Raises SourceError when none of them can be
    read.
    """
    model.eval()
    able = isinstance(model.fusion, AlignedFusion)
    chosen: list[Method] = list(methods) or [
        method for method in get_args(Method) if able or method != "similarity"
    ]
    rival = untrained_for(model, items, seed)
    contenders = [network(model, method) for method in chosen]
    contenders += [network(rival, method, untrained=True) for method in chosen if method != "unit"]
    contenders += rules(items)
    failures: dict[str, str] = {}
    answers = answered(contenders, list(questions(items, seed)), failures, progress)
    first = answers[0]
    if not of_kind(first, "matched"):
        raise SourceError(
            f"none of {len(items)} moments can be read; the first: {next(iter(failures.values()), 'there is none')}"
        )
    rows = [
        row_of(one.name, given, one.threshold, one.hears)
        for one, given in zip(contenders, answers, strict=True)
    ]
    notes = [
        f"marking the whole picture has a cIoU of {rows[-1].ciou:.3f} here and an AUC of {rows[-1].auc:.3f}: read the others beside it"
    ]
    if not able:
        notes.append(
            f'similarity is left out: with fusion "{model.config.fusion}" picture and sound share no space'
        )
    return LocalizationTable(
        rows=tuple(rows),
        n=len(of_kind(first, "matched")),
        n_videos=len({one.question.marked.video_id for one in first}),
        n_swaps=len(of_kind(first, "swapped")),
        failures=failures,
        notes=tuple(notes),
    )


def answered(
    contenders: Sequence[Contender],
    asked: Sequence[Question],
    failures: dict[str, str],
    progress: Progress = no_progress,
) -> list[list[Answer]]:
    """What each contender answers, all in the same order; `failures` gets the videos that cannot be
    read, and why.
    """
    answers: list[list[Answer]] = [[] for _ in contenders]
    for batch in read(asked, failures):
        for one, given in zip(contenders, answers, strict=True):
            given += [
                Answer(question, *shown)
                for (question, _), shown in zip(batch, one.maps(batch), strict=True)
            ]
        progress(len(answers[0]), len(asked))
    return answers


def boxes_at(clip: Clip, at_seconds: float) -> list[Box]:
    """The boxes nearest in time to a moment of the clip; none when the nearest is too far."""
    nearest = min((abs(box.at_seconds - at_seconds) for box in clip.boxes), default=np.inf)
    if nearest > BOX_TOLERANCE_SECONDS:
        return []
    return [box for box in clip.boxes if abs(box.at_seconds - at_seconds) <= nearest + 1e-6]


def marked_clips(
    model: L3Net, shards: Shards, mask: NDArray[np.bool_], per_clip: int = 2
) -> list[Marked]:
    """`per_clip` moments of each clip that `mask` allows, where something that sounds has a box.

    Raises ConfigError when there is none.
    """

    def moment(clip: int, number: int) -> Moment:
        return next(islice(moments(shards[clip], model.config, per_clip), number, None))

    found = []
    for clip in map(int, np.flatnonzero(mask)):
        for number, one in enumerate(moments(shards[clip], model.config, per_clip)):
            boxes = boxes_at(one.clip, one.frame_seconds)
            sounding, mute = (
                tuple(box for box in boxes if box.sounding is sounds) for sounds in (True, False)
            )
            if sounding:
                found.append(
                    Marked(one.clip.video_id, sounding, mute, partial(moment, clip, number))
                )
    if not found:
        raise ConfigError(
            f"pointing needs held-out clips with boxes of what sounds; {shards.path} has none"
        )
    return found


@dataclass(frozen=True)
class Pointing:
    """Share of frames in which the strongest place of the map lies in the box of what sounds; the
    interval over videos.
    """

    pointing: float
    center: float
    """The same for a map that always points at the middle of the frame."""
    n: int
    ci95: tuple[float, float]
    method: str
    with_silent: float
    """`pointing` where a silent object of another class is in the frame too; NaN when there is no
    such frame.
    """
    on_silent: float
    """Among those, how often the map points at the silent one."""
    n_with_silent: int

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def pointing(
    model: L3Net,
    shards: Shards,
    mask: NDArray[np.bool_],
    method: Method | None = None,
    per_clip: int = 2,
    progress: Progress = no_progress,
) -> Pointing:
    """Pointing accuracy over `per_clip` frames of each clip that `mask` allows and whose sounding
    things have boxes.

    The first column of `localization`, for a quick look. Raises ConfigError when no clip has boxes.
    """
    items = marked_clips(model, shards, mask, per_clip)
    own = [Question("matched", one, one, one.sounding) for one in items]
    method = method or usual_method(model)
    contenders = [network(model.eval(), method), next(rules(items))]
    answers = answered(contenders, own, {}, progress)
    row, center = (
        row_of(one.name, given, one.threshold, one.hears)
        for one, given in zip(contenders, answers, strict=True)
    )
    return Pointing(
        pointing=row.pointing,
        center=center.pointing,
        n=len(items),
        ci95=row.pointing_ci95,
        method=method,
        with_silent=row.with_silent,
        on_silent=row.on_silent,
        n_with_silent=sum(bool(one.silent) for one in items),
    )
