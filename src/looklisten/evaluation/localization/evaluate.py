"""Do heat maps point at the sounding object, and do they follow the sound?

A network's methods are compared with baselines that do not use the sound. Works on moments with
boxes, from shards or from elsewhere. `table` and `metrics` compute the figures, `baselines` defines
the baselines.
"""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np

from looklisten.data.clips import Box, Clip
from looklisten.data.shards import Shards
from looklisten.errors import ConfigError, SourceError
from looklisten.evaluation.held_out import clips_to_evaluate, network_of
from looklisten.evaluation.localization.baselines import (
    MapPredictor,
    fixed_rules,
    load_questions,
    network_predictor,
    untrained_for,
)
from looklisten.evaluation.localization.questions import AnnotatedMoment, Question, questions
from looklisten.evaluation.localization.table import (
    LocalizationRow,
    MapAnswer,
    answers_of_kind,
    table_row,
)
from looklisten.evaluation.shared_files import NO_SHARED_FILES, SharedFiles, shared_files_of
from looklisten.inference.localization.methods import default_method
from looklisten.inference.localization.options import Method
from looklisten.inference.moments import Moment, moment_at, moment_starts, nearest_frame
from looklisten.media import SAMPLE_RATE_HZ
from looklisten.media.spectrogram import WINDOW_SAMPLES, WINDOW_SECONDS
from looklisten.model.l3net import L3Net
from looklisten.model.networks import Run
from looklisten.option_checks import check_at_least
from looklisten.system.progress import Progress, no_progress

BOX_TOLERANCE_SECONDS = 0.2
"""A box is used for a frame if their times differ by at most this much."""


POSITION_COLUMNS = (
    "name",
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
OTHER_SOUND_COLUMNS = (
    "name",
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
    """The results of every method and baseline on the same questions."""

    rows: tuple[LocalizationRow, ...]
    n: int
    """Moments."""
    n_videos: int
    n_swaps: int
    failures: dict[str, str]
    """Videos that could not be read, and why."""
    notes: tuple[str, ...]

    def row(self, name: str) -> LocalizationRow:
        """The row of a method or baseline."""
        return next(row for row in self.rows if row.name == name)

    @property
    def best_without_sound(self) -> LocalizationRow:
        """The row that points best among those that do not use the sound."""
        without_sound = [row for row in self.rows if not row.uses_sound]
        return max(without_sound, key=lambda row: row.pointing)

    def as_dict(self) -> dict[str, Any]:
        """The table as plain values.

        `rows`: where maps point with the frame's own sound.
        `other_sounds`: what they do with other sounds.
        """
        best = self.best_without_sound
        return {
            "moments": self.n,
            "videos": self.n_videos,
            "swaps": self.n_swaps,
            "best_without_sound": {"name": best.name, "pointing": _rounded(best.pointing)},
            "failed": len(self.failures),
            "failures": [f"{video}: {reason}" for video, reason in self.failures.items()],
            "notes": list(self.notes),
            "rows": self._columns(POSITION_COLUMNS),
            "other_sounds": self._columns(OTHER_SOUND_COLUMNS),
        }

    def _columns(self, names: Sequence[str]) -> list[dict[str, Any]]:
        """Some columns of all rows."""
        rows = []
        for row in self.rows:
            rows.append({name: _rounded(getattr(row, name)) for name in names})
        return rows


def _rounded(value: Any) -> Any:
    # More digits than the intervals justify would only make a table hard to read.
    if isinstance(value, tuple):
        return [_rounded(number) for number in value]
    return round(value, 4) if isinstance(value, float) else value


def localization(
    network: L3Net | Run,
    shards: Shards | str | Path,
    methods: Sequence[Method] = (),
    per_clip: int = 2,
    seed: int = 0,
    progress: Progress = no_progress,
    files: str | Path | None = None,
) -> LocalizationTable:
    """Evaluate every method and baseline on up to `per_clip` moments of each clip that has boxes.

    The baselines are the untrained network, the center, the largest object and the whole image.

    `network`: an opened run, or a plain network.
    `shards`: a folder or its shards, for the held-out videos of the run; or a selection of clips
        (`Shards.select`), which is taken as it is.
    `methods`: by default all that the network has.
    `seed`: draws the other sounds and the untrained network.
    `files`: as for correspondence: a table of the files that videos were composed of.

    Raises ConfigError when no clip has boxes of sounding objects, and for a method that the network
    does not have.
    """
    check_at_least(1, per_clip=per_clip)
    check_at_least(0, seed=seed)
    model = network_of(network)
    clips = clips_to_evaluate(network, shards)
    annotated = annotated_moments(model, clips, per_clip)
    shared_files = shared_files_of(clips, files)
    return localization_table(model, annotated, methods, seed, progress, shared_files)


def localization_table(
    model: L3Net,
    annotated: Sequence[AnnotatedMoment],
    methods: Sequence[Method] = (),
    seed: int = 0,
    progress: Progress = no_progress,
    files: SharedFiles = NO_SHARED_FILES,
) -> LocalizationTable:
    """Like `localization`, of any annotated moments. `files`: what intervals are over.

    Raises SourceError when none of them can be read.
    """
    model.eval()
    # A position can be compared with a sound only if the fusion has a shared vector space.
    has_similarity = model.fusion.shares_space
    notes = []
    if not methods:
        methods = list(get_args(Method))
        if not has_similarity:
            methods.remove("similarity")
            notes.append(
                f'similarity is left out: with fusion "{model.config.fusion}" '
                "image and sound have no shared vector space"
            )
    untrained = untrained_for(model, annotated, seed)
    predictors = [network_predictor(model, method) for method in methods]
    for method in methods:
        if method != "unit":
            predictors.append(network_predictor(untrained, method, untrained=True))
    return compare_predictors(predictors, annotated, seed, progress, notes, files)


def compare_predictors(
    predictors: Sequence[MapPredictor],
    annotated: Sequence[AnnotatedMoment],
    seed: int = 0,
    progress: Progress = no_progress,
    notes: Sequence[str] = (),
    files: SharedFiles = NO_SHARED_FILES,
) -> LocalizationTable:
    """The table of some predictors and of the fixed rules; `notes` are added to its own note.

    `files`: what intervals are over.

    Raises SourceError when no moment can be read.
    """
    all_predictors = [*predictors, *fixed_rules(annotated)]
    failures: dict[str, str] = {}
    answers = answer_questions(all_predictors, list(questions(annotated, seed)), failures, progress)
    # All predictors have answers to the same questions.
    first_answers = answers[0]
    matched = answers_of_kind(first_answers, "matched")
    if not matched:
        first_failure = next(iter(failures.values()), "there is none")
        raise SourceError(
            f"none of {len(annotated)} moments can be read; the first: {first_failure}"
        )
    rows = _rows(all_predictors, answers, files)
    whole_image = rows[-1]
    # Objects often fill much of an image, so a map of all of it is a strong baseline.
    whole_image_note = (
        f"a map of the whole image has a cIoU of {whole_image.ciou:.3f} here "
        f"and an AUC of {whole_image.auc:.3f}: compare the others with it"
    )
    return LocalizationTable(
        rows=tuple(rows),
        n=len(matched),
        n_videos=len({answer.question.of_frame.video_id for answer in first_answers}),
        n_swaps=len(answers_of_kind(first_answers, "swapped")),
        failures=failures,
        notes=(whole_image_note, *notes),
    )


def _rows(
    predictors: Sequence[MapPredictor],
    answers: Sequence[Sequence[MapAnswer]],
    files: SharedFiles,
) -> list[LocalizationRow]:
    rows = []
    for predictor, own_answers in zip(predictors, answers, strict=True):
        rows.append(
            table_row(predictor.name, own_answers, predictor.threshold, predictor.uses_sound, files)
        )
    return rows


def answer_questions(
    predictors: Sequence[MapPredictor],
    all_questions: Sequence[Question],
    failures: dict[str, str],
    progress: Progress = no_progress,
) -> list[list[MapAnswer]]:
    """The answers of each predictor, all in the same order.

    `failures` gets the videos that cannot be read, and why.
    """
    answers: list[list[MapAnswer]] = [[] for _ in predictors]
    for batch in load_questions(all_questions, failures):
        for predictor, own_answers in zip(predictors, answers, strict=True):
            for (question, _), (values, weight) in zip(
                batch, predictor.predict(batch), strict=True
            ):
                own_answers.append(MapAnswer(question, values, weight))
        progress(len(answers[0]), len(all_questions))
    return answers


def boxes_at(clip: Clip, clip_seconds: float) -> list[Box]:
    """The boxes nearest in time to a moment of the clip; none when the nearest is too far."""
    # All boxes of one frame are at the same time, but for rounding.
    times = np.array([box.clip_seconds for box in clip.boxes])
    distances = np.abs(times - clip_seconds)
    if distances.min(initial=np.inf) > BOX_TOLERANCE_SECONDS:
        return []
    is_nearest = distances <= distances.min() + 1e-6
    return list(itertools.compress(clip.boxes, is_nearest))


def _by_sound(boxes: Sequence[Box]) -> tuple[tuple[Box, ...], tuple[Box, ...]]:
    """The boxes of sounding objects, and those of silent ones."""
    sounding: list[Box] = []
    silent: list[Box] = []
    for box in boxes:
        (sounding if box.sounding else silent).append(box)
    return tuple(sounding), tuple(silent)


def annotated_moments(model: L3Net, clips: Shards, per_clip: int = 2) -> list[AnnotatedMoment]:
    """Up to `per_clip` moments of each clip, where a sounding object has a box.

    They are evenly spread, as those of `moments`. Where none of these has a box, they are at the
    times of the clip's boxes. Raises ConfigError when there is none.
    """

    def load(clip: int, start: int, frame: int) -> Moment:
        return moment_at(clips[clip], model.config, start, frame)

    annotated = []
    for clip_number, clip in enumerate(clips):
        for start, frame in _annotated_seconds(clip, per_clip):
            boxes = boxes_at(clip, clip.frame_seconds[frame])
            sounding_boxes, silent_boxes = _by_sound(boxes)
            # Only the address is kept: the images of all moments would not fit into memory.
            load_moment = partial(load, clip_number, start, frame)
            annotated.append(
                AnnotatedMoment(clip.video_id, sounding_boxes, silent_boxes, load_moment)
            )
    if not annotated:
        raise ConfigError(
            f"pointing needs held-out clips with boxes of sounding objects; {clips.path} has none"
        )
    return annotated


def _annotated_seconds(clip: Clip, count: int) -> list[tuple[int, int]]:
    """The first sample of each second, and the number of its frame, where a box is sounding."""

    def with_box(seconds: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
        chosen = []
        for start, frame in seconds:
            if any(box.sounding for box in boxes_at(clip, clip.frame_seconds[frame])):
                chosen.append((start, frame))
        return chosen

    starts = moment_starts(clip, count)
    if spread := with_box((start, nearest_frame(clip, start)) for start in starts):
        return spread
    # People often draw boxes at one time of a clip, which spread moments miss.
    times = sorted({box.clip_seconds for box in clip.boxes if box.sounding})
    spacing = max(len(times) // count, 1)
    return with_box(_second_around(clip, time) for time in times[::spacing][:count])


def _second_around(clip: Clip, clip_seconds: float) -> tuple[int, int]:
    """The first sample of the second around a time, and the number of the nearest frame."""
    frame = int(np.abs(np.array(clip.frame_seconds) - clip_seconds).argmin())
    middle_start = round((clip_seconds - WINDOW_SECONDS / 2) * SAMPLE_RATE_HZ)
    start = int(np.clip(middle_start, 0, len(clip.waveform) - WINDOW_SAMPLES))
    return start, frame


@dataclass(frozen=True)
class Pointing:
    """Share of frames in which the map is highest inside the box of the sounding object."""

    pointing: float
    center: float
    """The same for a map that always points at the center of the frame."""
    n: int
    ci95: tuple[float, float]
    """Over videos."""
    method: str
    with_silent: float
    """`pointing` over the frames that also show a silent object.

    NaN when there is no such frame.
    """
    on_silent: float
    """Among those, how often the map points at the silent object."""
    n_with_silent: int

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def pointing(
    network: L3Net | Run,
    shards: Shards | str | Path,
    method: Method | None = None,
    per_clip: int = 2,
    progress: Progress = no_progress,
) -> Pointing:
    """Pointing accuracy over `per_clip` frames of each clip whose sounding objects have boxes.

    This is the first column of `localization`, for a quick look. It takes `network` and `shards` as
    `localization` does.

    Raises ConfigError when no clip has boxes of sounding objects.
    """
    methods = [method or default_method(network_of(network))]
    (result,) = pointing_of_each(network, shards, methods, per_clip, progress)
    return result


def pointing_of_each(
    network: L3Net | Run,
    shards: Shards | str | Path,
    methods: Sequence[Method],
    per_clip: int = 2,
    progress: Progress = no_progress,
) -> list[Pointing]:
    """The `pointing` of each method, over the same frames, which are decoded once."""
    model = network_of(network).eval()
    clips = clips_to_evaluate(network, shards)
    annotated = annotated_moments(model, clips, per_clip)
    predictors = [network_predictor(model, method) for method in methods]
    return pointing_of(predictors, annotated, progress, shared_files_of(clips))


def pointing_of(
    predictors: Sequence[MapPredictor],
    annotated: Sequence[AnnotatedMoment],
    progress: Progress = no_progress,
    files: SharedFiles = NO_SHARED_FILES,
) -> list[Pointing]:
    """The pointing accuracy of each predictor of maps over annotated moments.

    `files`: what intervals are over.
    """
    own_sounds = [Question("matched", moment, moment, moment.sounding) for moment in annotated]
    with_center = [*predictors, next(fixed_rules(annotated))]
    answers = answer_questions(with_center, own_sounds, {}, progress)
    *rows, center = _rows(with_center, answers, files)
    # Moments that cannot be read have no answer.
    answered = [answer.question.of_frame for answer in answers[0]]
    results = []
    for row in rows:
        results.append(
            Pointing(
                pointing=row.pointing,
                center=center.pointing,
                n=len(answered),
                ci95=row.pointing_ci95,
                method=row.name,
                with_silent=row.with_silent,
                on_silent=row.on_silent,
                n_with_silent=sum(bool(moment.silent) for moment in answered),
            )
        )
    return results
