"""For each unit of the last layer (pool4) the moments that fire it most, and where in the frame or
in the spectrogram it fires.

Two passes: one over all clips, which keeps no more than the strongest moments of each unit, and one
over those moments alone, which makes the maps. Knows no label.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, islice

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from looklisten.config import ModelConfig, Side
from looklisten.data.shards import Shards
from looklisten.inference.localization.localize import HeatMap
from looklisten.inference.moments import BATCH, Moment, look_and_listen, moments
from looklisten.model.l3net import L3Net
from looklisten.system.progress import Progress, no_progress

SIDES: tuple[Side, Side] = ("vision", "audio")
"""In the order in which the network takes them."""


@dataclass(frozen=True, order=True)
class Place:
    """One moment of a set of shards: number `moment` of the `per_clip` that `embed.moments` gives
    of clip number `clip`.
    """

    clip: int
    moment: int
    per_clip: int

    def read(self, shards: Shards, config: ModelConfig) -> Moment:
        """The moment itself, for a network of `config`."""
        return next(islice(moments(shards[self.clip], config, self.per_clip), self.moment, None))


@dataclass(frozen=True, eq=False)
class Firing:
    """A moment that fires a unit: how strongly, and where."""

    place: Place
    video_id: str
    at_seconds: float
    """Of vision the frame's, of audio the start of the second; from the start of the source."""
    activation: float
    heat: HeatMap
    """The unit's slice of the last map, over the central square of the frame or over the
    spectrogram; `activation` is its maximum.
    """


@dataclass(frozen=True, eq=False)
class Peaks:
    """How strongly one video fires each unit, and which of its moments, by its place in the walk,
    does.
    """

    video_id: str
    activations: dict[Side, Float[np.ndarray, " units"]]
    places: dict[Side, Int[np.ndarray, " units"]]


class Strongest:
    """The `top` strongest videos of each unit among those it was told of; what does not fire a unit
    is none.
    """

    def __init__(self, units: int, top: int) -> None:
        self.activations: Float[np.ndarray, "units top"] = np.zeros((units, top), np.float32)
        self.places: Int[np.ndarray, "units top"] = np.full((units, top), -1, np.int64)

    def add(
        self, activations: Float[np.ndarray, " units"], places: Int[np.ndarray, " units"]
    ) -> None:
        """One more video. Of equal ones the first stays before the later."""
        values = np.concatenate([self.activations, activations[:, None]], 1)
        numbers = np.concatenate([self.places, places[:, None]], 1)
        order = np.argsort(-values, axis=1, kind="stable")[:, :-1]
        self.activations, self.places = (
            np.take_along_axis(values, order, 1),
            np.take_along_axis(numbers, order, 1),
        )


def peaks(
    model: L3Net,
    shards: Shards,
    mask: Bool[np.ndarray, " clips"],
    per_clip: int,
    progress: Progress = no_progress,
) -> Iterator[Peaks]:
    """Video by video, over the clips that `mask` allows; a unit's moment is the one of the video
    that fires it most.

    Frames are centrally cropped, as the vision tower was trained. A place is `clip * per_clip +
    moment`. The model must be in evaluation mode.
    """
    for video, group in groupby(
        _vectors(model, shards, _by_video(shards, mask), per_clip, progress), key=lambda row: row[0]
    ):
        rows = list(group)
        places = np.array([place for _, place, _ in rows])
        values = {
            side: np.stack([vectors[number] for _, _, vectors in rows])
            for number, side in enumerate(SIDES)
        }
        best = {side: values[side].argmax(0) for side in SIDES}
        yield Peaks(
            video,
            {side: values[side].max(0) for side in SIDES},
            {side: places[best[side]] for side in SIDES},
        )


def _by_video(shards: Shards, mask: Bool[np.ndarray, " clips"]) -> Int[np.ndarray, " allowed"]:
    """The clips of `mask`, those of a video together, else as they lie."""
    clips = np.flatnonzero(mask)
    _, first, video = np.unique(shards.video_ids[clips], return_index=True, return_inverse=True)
    return clips[np.argsort(first[video], kind="stable")]


def _vectors(
    model: L3Net,
    shards: Shards,
    clips: Int[np.ndarray, " allowed"],
    per_clip: int,
    progress: Progress,
) -> Iterator[tuple[str, int, Float[np.ndarray, "2 units"]]]:
    """Of each moment its video, its place and the vectors of both sides."""

    def walk() -> Iterator[tuple[str, int, Moment]]:
        for done, clip in enumerate(clips.tolist(), 1):
            for number, moment in enumerate(moments(shards[clip], model.config, per_clip)):
                yield str(shards.video_ids[clip]), clip * per_clip + number, moment
            progress(done, len(clips))

    walked = walk()
    while batch := list(islice(walked, BATCH)):
        with torch.inference_mode():
            towers = look_and_listen(model, [moment for _, _, moment in batch])
        vectors = np.stack([tower.vector.float().cpu().numpy() for tower in towers], 1)
        yield from (
            (video, place, pair) for (video, place, _), pair in zip(batch, vectors, strict=True)
        )


def firings(
    model: L3Net,
    shards: Shards,
    strongest: dict[Side, Strongest],
    per_clip: int,
    progress: Progress = no_progress,
) -> dict[Side, list[tuple[Firing, ...]]]:
    """For each unit of each side its strongest moments with their maps, the strongest first; each
    moment is looked at once.
    """
    found: dict[Side, list[list[Firing | None]]] = {}
    asked: dict[Place, list[tuple[Side, int, int]]] = {}
    for side in SIDES:
        places = strongest[side].places
        found[side] = [[None] * places.shape[1] for _ in places]
        for unit, rank in zip(*np.nonzero(places >= 0), strict=True):
            place = Place(*divmod(int(places[unit, rank]), per_clip), per_clip)
            asked.setdefault(place, []).append((side, int(unit), int(rank)))
    order = sorted(asked)
    for start in range(0, len(order), BATCH):
        batch = order[start : start + BATCH]
        for place, (moment, maps) in zip(batch, _mapped(model, shards, batch), strict=True):
            for side, unit, rank in asked[place]:
                found[side][unit][rank] = _firing(
                    side,
                    place,
                    moment,
                    float(strongest[side].activations[unit, rank]),
                    maps[side][unit],
                )
        progress(start + len(batch), len(order))
    return {
        side: [tuple(one for one in row if one is not None) for row in found[side]]
        for side in SIDES
    }


def _firing(
    side: Side,
    place: Place,
    moment: Moment,
    activation: float,
    values: Float[np.ndarray, "rows columns"],
) -> Firing:
    at_seconds = moment.clip.start_seconds + (
        moment.frame_seconds if side == "vision" else moment.start_seconds
    )
    return Firing(
        place, moment.clip.video_id, at_seconds, activation, HeatMap(values.copy(), at_seconds)
    )


def _mapped(
    model: L3Net, shards: Shards, places: Sequence[Place]
) -> Iterator[tuple[Moment, dict[Side, Float[np.ndarray, "units _rows _columns"]]]]:
    """Moments with the last map of each side."""
    read = [place.read(shards, model.config) for place in places]
    with torch.inference_mode():
        towers = look_and_listen(model, read)
    maps = [tower.map.float().cpu().numpy() for tower in towers]
    for row, moment in enumerate(read):
        yield moment, {side: maps[number][row] for number, side in enumerate(SIDES)}
