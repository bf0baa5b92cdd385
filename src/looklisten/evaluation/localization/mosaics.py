"""Mosaics: the frames of several videos in one image with the sound of one. Does the map find it?

They need no boxes. A map that does not depend on the sound is right as often as chance. Knows
shards and a network's maps.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from looklisten.data.shards import Shards
from looklisten.errors import ConfigError
from looklisten.evaluation.all_pairs import COMPARED_PER_CLIP
from looklisten.evaluation.held_out import clips_to_evaluate, network_of
from looklisten.evaluation.shared_files import NO_SHARED_FILES, SharedFiles, shared_files_of
from looklisten.evaluation.statistics import interval_over_members, mean_or_nan
from looklisten.inference.localization.localize import MAPS_PER_BATCH
from looklisten.inference.localization.methods import default_method, localize_moments
from looklisten.inference.localization.options import Method
from looklisten.inference.localization.records import HeatMap
from looklisten.inference.moments import Moment, moment_at, moment_starts, nearest_frame
from looklisten.media.frames import fit_square
from looklisten.media.levels import is_silent
from looklisten.model.l3net import L3Net
from looklisten.model.networks import Run
from looklisten.system.progress import Progress, no_progress

Tiles = Literal[2, 4]
"""Two tiles are side by side, four are in a square."""
TILES_PER_ROW = 2
DRAWS_PER_TRIAL = 10
"""So many silent sounds are drawn in a row before a mosaic is left out."""


@dataclass(frozen=True)
class MosaicResult:
    """Pointing in mosaics; the interval is over videos, or over the files they share."""

    mosaic: int
    """Tiles of a mosaic."""
    method: str
    pointing: float
    """Share of mosaics whose map is highest in the tile of the video that sounds.

    A constant map points nowhere.
    """
    pointing_ci95: tuple[float, float]
    chance: float
    trials: int
    videos: int

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, eq=False)
class MosaicAnswers:
    """Whether each map is highest in the right tile."""

    tiles: Tiles
    method: Method
    right: list[bool]
    videos: list[tuple[str, ...]]
    """The videos of each mosaic."""
    sounding: list[str]
    """The video that the sound of each mosaic is of."""

    def result(self, files: SharedFiles = NO_SHARED_FILES) -> MosaicResult:
        """The share of right answers; NaN where there is none.

        `files`: what the interval is over.
        """
        members = files.members(self.videos, [[video] for video in self.sounding])
        return MosaicResult(
            mosaic=self.tiles,
            method=self.method,
            pointing=mean_or_nan(self.right),
            pointing_ci95=interval_over_members(self.right, members),
            chance=1 / self.tiles,
            trials=len(self.right),
            videos=len(np.unique(self.videos)),
        )


@dataclass(frozen=True, eq=False)
class Mosaic:
    """One mosaic: the input of a network, and where the sounding video is in it."""

    moment: Moment
    """The sounding moment, with the mosaic in the place of its frame."""
    target: int
    """The number of its tile, row by row from the top left."""
    videos: tuple[str, ...]
    """The video of each tile."""


def mosaics(
    network: L3Net | Run,
    shards: Shards | str | Path,
    tiles: Tiles = 2,
    trials: int = 2000,
    per_clip: int = COMPARED_PER_CLIP,
    method: Method | None = None,
    seed: int = 0,
    progress: Progress = no_progress,
    files: str | Path | None = None,
) -> MosaicResult:
    """How often the map is highest in the right tile of a mosaic of different videos.

    A tile is a frame as the network sees it in evaluation: resized to `resize_pixels`, then made
    a square as `frame_fit` says. Moments are drawn among `per_clip` of each clip, and their place
    in the mosaic too. A silent second is not drawn as the sound.

    `network`, `shards`, `files`: as for `evaluate`. `method`: by default that of the network.

    Raises ConfigError for clips of fewer videos than tiles, and where all sound is silent.
    """
    answers = answer_mosaics(network, shards, tiles, trials, per_clip, method, seed, progress)
    if not answers.right:
        raise ConfigError("every sound that was drawn is silent, so there is no mosaic")
    return answers.result(shared_files_of(clips_to_evaluate(network, shards), files))


def answer_mosaics(
    network: L3Net | Run,
    shards: Shards | str | Path,
    tiles: Tiles = 2,
    trials: int = 2000,
    per_clip: int = COMPARED_PER_CLIP,
    method: Method | None = None,
    seed: int = 0,
    progress: Progress = no_progress,
) -> "MosaicAnswers":
    """The answers of `mosaics`, one by one; takes and raises what `mosaics` does."""
    model = network_of(network)
    clips = clips_to_evaluate(network, shards)
    answers = MosaicAnswers(tiles, method or default_method(model), [], [], [])
    for batch in _batches(draw_mosaics(model, clips, tiles, trials, per_clip, seed)):
        moments = [mosaic.moment for mosaic in batch]
        localizations = localize_moments(model.eval(), moments, answers.method)
        for mosaic, localization in zip(batch, localizations, strict=True):
            answers.right.append(tile_of_peak(localization.frame_map, tiles) == mosaic.target)
            answers.videos.append(mosaic.videos)
            answers.sounding.append(mosaic.videos[mosaic.target])
        progress(len(answers.right), trials)
    return answers


def draw_mosaics(
    model: L3Net, clips: Shards, tiles: Tiles, trials: int, per_clip: int, seed: int
) -> Iterator[Mosaic]:
    """At most `trials` mosaics of random moments; raises ConfigError for too few videos."""
    names = np.unique(clips.video_ids)
    if len(names) < tiles:
        raise ConfigError(
            f"a mosaic of {tiles} needs clips of as many videos; {clips.path} has {len(names)} of "
            "this split"
        )
    rng = np.random.default_rng(seed)
    for _ in range(trials):
        for _ in range(DRAWS_PER_TRIAL):
            target = int(rng.integers(tiles))
            chosen = rng.choice(names, tiles, replace=False)
            sounding = _draw_moment(model, clips, chosen[target], per_clip, rng)
            # Silence belongs to no tile more than to another.
            if not is_silent(sounding.waveform):
                break
        else:
            # A set that is nearly silent gets fewer trials instead of none.
            continue
        moments = [sounding] * tiles
        for tile, video in enumerate(chosen):
            if tile != target:
                moments[tile] = _draw_moment(model, clips, video, per_clip, rng)
        squares = []
        for moment in moments:
            config = model.config
            squares.append(fit_square(moment.vision_input, config.crop_pixels, config.frame_fit))
        image = join_tiles(squares)
        moment = replace(sounding, frame=image[..., :3], vision_input=image)
        yield Mosaic(moment, target, tuple(chosen.tolist()))


def _draw_moment(
    model: L3Net, clips: Shards, video: str, per_clip: int, rng: np.random.Generator
) -> Moment:
    """A random moment of a video."""
    clip = clips[int(rng.choice(np.flatnonzero(clips.video_ids == video)))]
    start = int(rng.choice(moment_starts(clip, per_clip)))
    return moment_at(clip, model.config, start, nearest_frame(clip, start))


def join_tiles(
    tiles: Sequence[UInt8[Tensor, "side side channels"]],
) -> UInt8[Tensor, "height width channels"]:
    """Two tiles side by side, or four in a square, row by row."""
    rows = []
    for first in range(0, len(tiles), TILES_PER_ROW):
        rows.append(torch.cat(list(tiles[first : first + TILES_PER_ROW]), dim=1))
    return torch.cat(rows)


def tile_of_peak(heat_map: HeatMap, tiles: Tiles) -> int | None:
    """The number of the tile in which a map is highest; None for a constant map.

    None also where the highest position lies across the border of two tiles.
    """
    if heat_map.values.max() == heat_map.values.min():
        return None
    right, down = heat_map.peak()
    rows = tiles // TILES_PER_ROW
    # This position shows both tiles, so neither answer would be right.
    if right * TILES_PER_ROW == 1 or (rows > 1 and down * rows == 1):
        return None
    return int(down * rows) * TILES_PER_ROW + int(right * TILES_PER_ROW)


def _batches(items: Iterator[Mosaic]) -> Iterator[list[Mosaic]]:
    batch: list[Mosaic] = []
    for item in items:
        batch.append(item)
        if len(batch) == MAPS_PER_BATCH:
            yield batch
            batch = []
    if batch:
        yield batch
