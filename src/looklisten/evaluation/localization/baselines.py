"""What predicts heat maps: a network by each method, the untrained network, and fixed rules.

Knows no truth but that of the rule "largest object", and no score.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from looklisten.errors import SourceError
from looklisten.evaluation.localization.metrics import Map
from looklisten.evaluation.localization.questions import AnnotatedMoment, Question
from looklisten.evaluation.untrained import FramesAndSounds, untrained_network
from looklisten.inference.localization.localize import MAPS_PER_BATCH
from looklisten.inference.localization.methods import localize_moments
from looklisten.inference.localization.options import Method
from looklisten.inference.moments import Moment
from looklisten.media.frames import stack
from looklisten.model.l3net import L3Net

CALIBRATION_MOMENTS = 256
"""Moments that batch-norm statistics of the untrained network are set from."""
CENTER_CELLS = 33

AskedMoment = tuple[Question, Moment]
"""A question, and the input of the network."""
WeightedMap = tuple[Map, float]
"""A map as it is, and its weight: 0 makes it dark."""


@dataclass(frozen=True, eq=False)
class MapPredictor:
    """Predicts a heat map for each question."""

    name: str
    predict: Callable[[Sequence[AskedMoment]], list[WeightedMap]]
    threshold: float | None = None
    """The value above which a map says "the source is here".

    None is half the mean peak of the maps of matched questions.
    """
    uses_sound: bool = False


def network_predictor(model: L3Net, method: Method, untrained: bool = False) -> MapPredictor:
    """A network by one of its methods."""

    def predict(batch: Sequence[AskedMoment]) -> list[WeightedMap]:
        maps = []
        for result in localize_moments(model, [moment for _, moment in batch], method):
            maps.append((result.frame_map.values, result.weight))
        return maps

    return MapPredictor(
        f"untrained, {method}" if untrained else method,
        predict,
        # The values of `similarity` are probabilities.
        threshold=0.5 if method == "similarity" else None,
        uses_sound=method != "unit" and not untrained,
    )


def fixed_rules(moments: Sequence[AnnotatedMoment]) -> Iterator[MapPredictor]:
    """The center of the image; its largest object, where silent ones are annotated; all of it."""
    from_center = np.linspace(-1, 1, CENTER_CELLS, dtype=np.float32)
    # A cone: pointing needs the center alone, the cIoU of half the image needs an order.
    distance = np.hypot(from_center[:, None], from_center[None])
    center_map = 1 - distance / np.float32(2**0.5)
    constant_map = np.ones((1, 1), np.float32)
    yield MapPredictor("center", lambda batch: [(center_map, 1.0)] * len(batch))
    if any(moment.silent for moment in moments):
        yield MapPredictor("largest object", _largest_objects)
    yield MapPredictor("whole image", lambda batch: [(constant_map, 1.0)] * len(batch))


def _largest_objects(batch: Sequence[AskedMoment]) -> list[WeightedMap]:
    return [(question.of_frame.largest_box_map, 1.0) for question, _ in batch]


def untrained_for(model: L3Net, moments: Sequence[AnnotatedMoment], seed: int) -> L3Net:
    """A network of the same shape with initial weights, as strong as it can be.

    Its batch-norm statistics are set from moments that it will predict maps for. Moments that
    cannot be read are left out.
    """
    numbers = np.random.default_rng(seed).permutation(len(moments))[:CALIBRATION_MOMENTS]
    own_sounds = []
    for number in numbers.tolist():
        own_sounds.append(Question("matched", moments[number], moments[number], ()))
    device = next(model.parameters()).device
    return untrained_network(model.config, seed, device, _inputs(own_sounds))


def _inputs(all_questions: Iterable[Question]) -> Iterator[FramesAndSounds]:
    for batch in load_questions(all_questions, failures={}):
        frames = stack([moment.vision_input for _, moment in batch])
        waveforms = np.stack([moment.waveform for _, moment in batch])
        yield frames, torch.from_numpy(waveforms)


def load_questions(
    all_questions: Iterable[Question], failures: dict[str, str]
) -> Iterator[list[AskedMoment]]:
    """The questions with their moments, in batches of frames of one size.

    `failures` gets the videos that cannot be read, and why. A frame with several questions in a row
    is read once.
    """
    waiting: dict[tuple[int, ...], list[AskedMoment]] = {}
    annotated: AnnotatedMoment | None = None
    frame: Moment | None = None
    for question in all_questions:
        if question.of_frame is not annotated:
            annotated = question.of_frame
            frame = _load(annotated, failures)
        sound = frame
        if question.of_sound is not None and question.of_sound is not annotated:
            sound = _load(question.of_sound, failures)
        if frame is None or sound is None:
            continue
        size = tuple(frame.frame.shape)
        # Images of different shapes cannot be in one tensor.
        waiting.setdefault(size, []).append((question, question.moment(frame, sound)))
        if len(waiting[size]) == MAPS_PER_BATCH:
            yield waiting.pop(size)
    # Of each size the last batch, which is not full.
    yield from waiting.values()


def _load(annotated: AnnotatedMoment, failures: dict[str, str]) -> Moment | None:
    try:
        return annotated.load()
    except SourceError as error:
        # One bad file does not stop the measurement of the others.
        failures.setdefault(annotated.video_id, str(error))
        return None
