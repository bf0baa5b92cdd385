"""For each unit of the last layer (pool4) the moments that activate it most, with their heat maps.

There are two passes: one over all clips, which keeps no more than the strongest moments of each
unit, and one over those moments, which makes the maps. Knows no label.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, islice

import numpy as np
import torch
from jaxtyping import Float, Int

from looklisten.config import SIDES, ModelConfig, Side
from looklisten.data.shards import Shards
from looklisten.inference.localization.records import HeatMap
from looklisten.inference.moments import (
    MOMENTS_PER_BATCH,
    Moment,
    look_and_listen,
    moments,
    nth_moment,
)
from looklisten.model.l3net import L3Net
from looklisten.system.progress import Progress, no_progress


@dataclass(frozen=True, order=True)
class MomentAddress:
    """Which moment of which clip: number `moment` of the `per_clip` that `moments` gives."""

    clip: int
    """The number of the clip in the folder of shards."""
    moment: int
    per_clip: int

    def load(self, shards: Shards, config: ModelConfig) -> Moment:
        """The moment itself, for a network of `config`."""
        return nth_moment(shards.folder[self.clip], config, self.per_clip, self.moment)


@dataclass(frozen=True, eq=False)
class UnitActivation:
    """A moment that activates a unit: how strongly, and where in the frame or the spectrogram."""

    address: MomentAddress
    video_id: str
    at_seconds: float
    """From the start of the video: the time of the frame, or, of audio, the start of the second."""
    activation: float
    heat_map: HeatMap
    """The unit's channel of the last feature map, over the center crop of the frame or over the
    spectrogram. Its maximum is `activation`, or its mean for a backbone that pools by means.
    """


@dataclass(frozen=True, eq=False)
class VideoActivations:
    """How strongly one video activates each unit, and which moment of it does."""

    video_id: str
    activations: dict[Side, Float[np.ndarray, " units"]]
    moments: dict[Side, Int[np.ndarray, " units"]]
    """Number of the clip in the folder times `per_clip`, plus number of the moment."""


class StrongestVideos:
    """The `top` videos that activate each unit most; a video that does not activate it is none."""

    def __init__(self, units: int, top: int) -> None:
        self.activations: Float[np.ndarray, "units top"] = np.zeros((units, top), np.float32)
        self.moments: Int[np.ndarray, "units top"] = np.full((units, top), -1, np.int64)
        """As in `VideoActivations`; -1 for none."""

    def add(
        self, activations: Float[np.ndarray, " units"], moments: Int[np.ndarray, " units"]
    ) -> None:
        """Take one more video into account; of equal ones the first comes first."""
        values = np.column_stack([self.activations, activations])
        numbers = np.column_stack([self.moments, moments])
        # One column more than is kept: the weakest one goes.
        order = np.argsort(-values, axis=1, kind="stable")[:, :-1]
        self.activations = np.take_along_axis(values, order, 1)
        self.moments = np.take_along_axis(numbers, order, 1)


def video_activations(
    model: L3Net, clips: Shards, per_clip: int, progress: Progress = no_progress
) -> Iterator[VideoActivations]:
    """How strongly each video of `clips` activates each unit, with its strongest moment.

    Frames have a center crop, as in the evaluation of the vision tower. The model must be in
    evaluation mode.
    """
    # `groupby` needs the clips of a video next to each other, which `_by_video` sees to.
    vectors = _vectors(model, clips, per_clip, progress)
    for video, group in groupby(vectors, key=lambda row: row[0]):
        rows = list(group)
        moment_numbers = np.array([number for _, number, _ in rows])
        strongest: dict[Side, Float[np.ndarray, " units"]] = {}
        strongest_moments: dict[Side, Int[np.ndarray, " units"]] = {}
        for side in SIDES:
            values = np.stack([vectors_of_sides[side] for _, _, vectors_of_sides in rows])
            strongest[side] = values.max(0)
            strongest_moments[side] = moment_numbers[values.argmax(0)]
        yield VideoActivations(video, strongest, strongest_moments)


def _by_video(clips: Shards) -> Int[np.ndarray, " clips"]:
    """Numbers of clips, those of a video together; else in their order."""
    _, first, video = np.unique(clips.video_ids, return_index=True, return_inverse=True)
    return np.argsort(first[video], kind="stable")


def _vectors(
    model: L3Net, clips: Shards, per_clip: int, progress: Progress
) -> Iterator[tuple[str, int, dict[Side, Float[np.ndarray, " _units"]]]]:
    """Of each moment its video, its number (`VideoActivations`) and the vector of each side."""

    def numbered_moments() -> Iterator[tuple[str, int, Moment]]:
        for done, clip in enumerate(_by_video(clips).tolist(), 1):
            first_number = int(clips.folder_numbers[clip]) * per_clip
            for number, moment in enumerate(moments(clips[clip], model.config, per_clip)):
                yield str(clips.video_ids[clip]), first_number + number, moment
            progress(done, len(clips))

    remaining = numbered_moments()
    while batch := list(islice(remaining, MOMENTS_PER_BATCH)):
        with torch.inference_mode():
            outputs = look_and_listen(model, [moment for _, _, moment in batch])
        vision, audio = (output.vector.float().cpu().numpy() for output in outputs)
        for row, (video, number, _) in enumerate(batch):
            yield video, number, {"vision": vision[row], "audio": audio[row]}


def strongest_activations(
    model: L3Net,
    shards: Shards,
    strongest: dict[Side, StrongestVideos],
    per_clip: int,
    progress: Progress = no_progress,
) -> dict[Side, list[tuple[UnitActivation, ...]]]:
    """For each unit of each side its strongest moments with their maps, the strongest first.

    The network sees each moment once, for all units that it activates.
    """
    activations_of: dict[Side, list[list[UnitActivation | None]]] = {}
    # The units, with their ranks, that each moment is among the strongest of.
    units_of: dict[MomentAddress, list[tuple[Side, int, int]]] = {}
    for side in SIDES:
        numbers = strongest[side].moments
        activations_of[side] = [[None] * numbers.shape[1] for _ in numbers]
        # -1: fewer videos activate this unit.
        for unit, rank in zip(*np.nonzero(numbers >= 0), strict=True):
            clip, moment = divmod(int(numbers[unit, rank]), per_clip)
            address = MomentAddress(clip, moment, per_clip)
            units_of.setdefault(address, []).append((side, int(unit), int(rank)))
    # Sorted, so that moments of one clip are read together.
    addresses = sorted(units_of)
    for start in range(0, len(addresses), MOMENTS_PER_BATCH):
        batch = addresses[start : start + MOMENTS_PER_BATCH]
        for address, (moment_data, maps) in zip(batch, _maps(model, shards, batch), strict=True):
            for side, unit, rank in units_of[address]:
                activations_of[side][unit][rank] = _unit_activation(
                    side,
                    address,
                    moment_data,
                    float(strongest[side].activations[unit, rank]),
                    maps[side][unit],
                )
        progress(start + len(batch), len(addresses))
    result: dict[Side, list[tuple[UnitActivation, ...]]] = {side: [] for side in SIDES}
    for side in SIDES:
        for ranks in activations_of[side]:
            result[side].append(tuple(filter(None, ranks)))
    return result


def _unit_activation(
    side: Side,
    address: MomentAddress,
    moment: Moment,
    activation: float,
    values: Float[np.ndarray, "rows columns"],
) -> UnitActivation:
    clip_seconds = moment.frame_seconds if side == "vision" else moment.start_seconds
    at_seconds = moment.clip.start_seconds + clip_seconds
    # A copy, as `values` is one channel of a batch of maps that can be freed.
    heat_map = HeatMap(values.copy())
    return UnitActivation(address, moment.clip.video_id, at_seconds, activation, heat_map)


def _maps(
    model: L3Net, shards: Shards, addresses: Sequence[MomentAddress]
) -> Iterator[tuple[Moment, dict[Side, Float[np.ndarray, "_units _rows _columns"]]]]:
    """Moments with the last feature map of each side."""
    batch = []
    for address in addresses:
        batch.append(address.load(shards, model.config))
    with torch.inference_mode():
        outputs = look_and_listen(model, batch)
    vision_maps, audio_maps = (output.map.float().cpu().numpy() for output in outputs)
    for row, moment in enumerate(batch):
        yield moment, {"vision": vision_maps[row], "audio": audio_maps[row]}
