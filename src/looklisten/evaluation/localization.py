"""Does the map point at what sounds, and does it follow the sound? A network's methods beside rivals that do not hear.

Knows moments with boxes, from shards or from elsewhere. `map_scores` has the numbers, `map_contenders` the rivals.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice
from typing import Any, get_args

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from looklisten.data.shards import Box, Clip, Shards
from looklisten.errors import ConfigError, SourceError
from looklisten.evaluation.correspondence import interval
from looklisten.evaluation.map_contenders import Contender, network, read, rules, untrained_for
from looklisten.evaluation.map_scores import (
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
from looklisten.evaluation.marked import Kind, Marked, Question, questions
from looklisten.inference.embed import Moment, moments
from looklisten.inference.localize import HeatMap, Method
from looklisten.model.l3net import AlignedFusion, L3Net
from looklisten.runtime import Progress, silent

BOX_TOLERANCE_SECONDS = 0.2
"""A box counts for a frame when it is at most so far from it in time."""


@dataclass(frozen=True, eq=False)
class Answer:
    """A map that was given to a question, as it is, and what it counts."""

    question: Question
    values: Map
    weight: float

    @property
    def point(self) -> tuple[float, float] | None:
        """The strongest place, (x, y) in 0..1; a map that is the same everywhere has none."""
        return HeatMap(self.values, 0.0).peak() if self.values.max() > self.values.min() else None

    @property
    def peak(self) -> float:
        """How strong it is there, comparable from map to map."""
        return float(self.values.max()) * self.weight

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
    """Share of moments in which the strongest half of the picture and the boxes have a cIoU of at least 0.5."""
    auc: float
    average_precision: float
    """Of matched moments among silent and mismatched ones, by the map's peak; right is a cIoU of at least 0.5 at `threshold`."""
    max_f1: float
    followed: float
    """Swap test: share of frames whose map, given the sound of the silent thing, points at that."""
    followed_ci95: tuple[float, float]
    stayed: float
    """Swap test: share of those whose map still points at what sounded before."""
    elsewhere: float
    mismatched: float
    """Mean peak with a sound of what is not seen, over that with the frame's own sound; 1 of a map that does not hear."""
    silence: float
    """The same with digital silence."""
    threshold: float
    hears: bool


PLACES = ("pointing", "pointing_ci95", "with_silent", "on_silent", "ciou", "auc", "average_precision", "max_f1")
OTHER_SOUNDS = ("followed", "followed_ci95", "stayed", "elsewhere", "mismatched", "silence", "threshold")


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
        """`rows`: where maps point with the frame's own sound; `other_sounds`: what they do with another."""
        told = {
            part: [{name: _rounded(getattr(row, name)) for name in ("name", *names)} for row in self.rows]
            for part, names in (("rows", PLACES), ("other_sounds", OTHER_SOUNDS))
        }
        return {
            "moments": self.n,
            "videos": self.n_videos,
            "swaps": self.n_swaps,
            "best_that_does_not_hear": {"name": self.best_deaf.name, "pointing": _rounded(self.best_deaf.pointing)},
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
    progress: Progress = silent,
) -> LocalizationTable:
    """Maps by `methods` (by default all that the network can) over `per_clip` moments of the clips of `mask` that have boxes.

    Beside them: the same network untrained, the center, the largest object, the whole picture. `seed` draws the sounds that stand
    in for a frame's own, and the untrained network. Raises ConfigError when no clip has boxes of what sounds, or for a method that
    the network cannot.
    """
    return localization_of(model, marked_clips(model, shards, mask, per_clip), methods, seed, progress)


def localization_of(
    model: L3Net, items: Sequence[Marked], methods: Sequence[Method] = (), seed: int = 0, progress: Progress = silent
) -> LocalizationTable:
    """The same over any moments whose truth is known. Raises SourceError when none of them can be read."""
    model.eval()
    able = isinstance(model.fusion, AlignedFusion)
    chosen: list[Method] = list(methods) or [method for method in get_args(Method) if able or method != "similarity"]
    rival = untrained_for(model, items, seed)
    contenders = [network(model, method) for method in chosen]
    contenders += [network(rival, method, untrained=True) for method in chosen if method != "unit"]
    contenders += rules(items)
    failures: dict[str, str] = {}
    answers = answered(contenders, list(questions(items, seed)), failures, progress)
    first = answers[0]
    if not _of(first, "matched"):
        raise SourceError(f"none of {len(items)} moments can be read; the first: {next(iter(failures.values()), 'there is none')}")
    rows = [_row(one, given) for one, given in zip(contenders, answers, strict=True)]
    notes = [
        f"marking the whole picture has a cIoU of {rows[-1].ciou:.3f} here and an AUC of {rows[-1].auc:.3f}: read the others beside it"
    ]
    if not able:
        notes.append(f'similarity is left out: with fusion "{model.config.fusion}" picture and sound share no space')
    return LocalizationTable(
        rows=tuple(rows),
        n=len(_of(first, "matched")),
        n_videos=len({one.question.marked.video_id for one in first}),
        n_swaps=len(_of(first, "swapped")),
        failures=failures,
        notes=tuple(notes),
    )


def answered(
    contenders: Sequence[Contender], asked: Sequence[Question], failures: dict[str, str], progress: Progress = silent
) -> list[list[Answer]]:
    """What each contender answers, all in the same order; `failures` gets the videos that cannot be read, and why."""
    answers: list[list[Answer]] = [[] for _ in contenders]
    for batch in read(asked, failures):
        for one, given in zip(contenders, answers, strict=True):
            given += [Answer(question, *shown) for (question, _), shown in zip(batch, one.maps(batch), strict=True)]
        progress(len(answers[0]), len(asked))
    return answers


def _of(answers: Sequence[Answer], kind: Kind) -> list[Answer]:
    return [one for one in answers if one.question.kind == kind]


def _row(contender: Contender, answers: Sequence[Answer]) -> LocalizationRow:
    matched, swapped, mismatched, hush = (_of(answers, kind) for kind in ("matched", "swapped", "mismatched", "silence"))
    peak = _mean([one.peak for one in matched])
    threshold = (peak / 2 or np.inf) if contender.threshold is None else contender.threshold
    truths = [truth_map(one.question.target, one.question.marked.agree) for one in matched]
    overlaps = np.array([overlap(strongest_half(one.values), truth) for one, truth in zip(matched, truths, strict=True)])
    right = [
        overlap(grown(one.values) * one.weight >= threshold, truth) >= RIGHT_OVERLAP for one, truth in zip(matched, truths, strict=True)
    ]
    deaf = [*mismatched, *hush]
    precision, f1 = detection_scores(
        np.array([one.peak for one in (*matched, *deaf)]),
        np.array([True] * len(matched) + [False] * len(deaf)),
        np.array(right + [False] * len(deaf)),
    )
    hits = [one.points_at(one.question.target) for one in matched]
    beside = [one for one in matched if one.question.marked.silent]
    followed = [one.points_at(one.question.target) for one in swapped]
    stayed = [one.points_at(one.question.marked.sounding) and not moved for one, moved in zip(swapped, followed, strict=True)]
    return LocalizationRow(
        name=contender.name,
        pointing=_mean(hits),
        pointing_ci95=_interval(matched, hits),
        with_silent=_mean([one.points_at(one.question.target) for one in beside]),
        on_silent=_mean([one.points_at(one.question.marked.silent) for one in beside]),
        ciou=_mean(overlaps >= RIGHT_OVERLAP),
        auc=success_area(overlaps),
        average_precision=precision,
        max_f1=f1,
        followed=_mean(followed),
        followed_ci95=_interval(swapped, followed),
        stayed=_mean(stayed),
        elsewhere=1 - _mean(followed) - _mean(stayed),
        mismatched=_mean([one.peak for one in mismatched]) / peak if peak else float("nan"),
        silence=_mean([one.peak for one in hush]) / peak if peak else float("nan"),
        threshold=threshold,
        hears=contender.hears,
    )


def _mean(values: Sequence[float] | Float[np.ndarray, " n"] | NDArray[np.bool_]) -> float:
    return float(np.mean(values)) if len(values) else float("nan")


def _interval(answers: Sequence[Answer], values: Sequence[float]) -> tuple[float, float]:
    """Over videos, as moments of one video are no independent witnesses."""
    of_video: dict[str, list[float]] = {}
    for one, value in zip(answers, values, strict=True):
        of_video.setdefault(one.question.marked.video_id, []).append(value)
    return interval(np.array([np.mean(some) for some in of_video.values()])) if of_video else (float("nan"), float("nan"))


def boxes_at(clip: Clip, at_seconds: float) -> list[Box]:
    """The boxes nearest in time to a moment of the clip; none when the nearest is too far."""
    nearest = min((abs(box.at_seconds - at_seconds) for box in clip.boxes), default=np.inf)
    if nearest > BOX_TOLERANCE_SECONDS:
        return []
    return [box for box in clip.boxes if abs(box.at_seconds - at_seconds) <= nearest + 1e-6]


def marked_clips(model: L3Net, shards: Shards, mask: NDArray[np.bool_], per_clip: int = 2) -> list[Marked]:
    """`per_clip` moments of each clip that `mask` allows, where something that sounds has a box.

    Raises ConfigError when there is none.
    """

    def moment(clip: int, number: int) -> Moment:
        return next(islice(moments(shards[clip], model.config, per_clip), number, None))

    found = []
    for clip in map(int, np.flatnonzero(mask)):
        for number, one in enumerate(moments(shards[clip], model.config, per_clip)):
            boxes = boxes_at(one.clip, one.frame_seconds)
            sounding, mute = (tuple(box for box in boxes if box.sounding is sounds) for sounds in (True, False))
            if sounding:
                found.append(Marked(one.clip.video_id, sounding, mute, partial(moment, clip, number)))
    if not found:
        raise ConfigError(f"pointing needs held-out clips with boxes of what sounds; {shards.path} has none")
    return found


@dataclass(frozen=True)
class Pointing:
    """Share of frames in which the strongest place of the map lies in the box of what sounds; the interval over videos."""

    pointing: float
    center: float
    """The same for a map that always points at the middle of the frame."""
    n: int
    ci95: tuple[float, float]
    method: str
    with_silent: float
    """`pointing` where a silent object of another class is in the frame too; NaN when there is no such frame."""
    on_silent: float
    """Among those, how often the map points at the silent one."""
    n_with_silent: int

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def pointing(
    model: L3Net, shards: Shards, mask: NDArray[np.bool_], method: Method = "correspondence", per_clip: int = 2, progress: Progress = silent
) -> Pointing:
    """Pointing accuracy over `per_clip` frames of each clip that `mask` allows and whose sounding things have boxes.

    The first column of `localization`, for a quick look. Raises ConfigError when no clip has boxes.
    """
    items = marked_clips(model, shards, mask, per_clip)
    own = [Question("matched", one, one, one.sounding) for one in items]
    contenders = [network(model.eval(), method), next(rules(items))]
    row, center = (_row(one, given) for one, given in zip(contenders, answered(contenders, own, {}, progress), strict=True))
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
