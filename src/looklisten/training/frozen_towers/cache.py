"""Features of frozen towers, computed once and kept beside the shards.

Frozen towers give the same features at every step. So the features of some frames and windows of
each clip are computed once, and training reads them instead of pixels and samples. A folder of
features is named by a key of all that they depend on. It holds files of a fixed number of rows;
each is complete or absent, so an interrupted computation continues where it stopped. A damaged file
is computed again.
"""

import hashlib
import json
import logging
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from looklisten.config import Side
from looklisten.data.shards import Shards
from looklisten.errors import ConfigError
from looklisten.inference.towers import listen, look
from looklisten.media import SAMPLE_RATE_HZ
from looklisten.media.frames import decode_jpeg, fit_square, neighbor_frames, stack
from looklisten.media.spectrogram import WINDOW_SAMPLES, check_holds_window
from looklisten.model.l3net import L3Net
from looklisten.model.network_key import network_key
from looklisten.system.cache import writable_cache
from looklisten.system.files import check_writable, remove_abandoned_scratch
from looklisten.system.progress import Progress, no_progress
from looklisten.system.torch_modes import own_torch_modes
from looklisten.training.frozen_towers.feature_files import ROWS_PER_FILE, FeatureFiles

FEATURES_FOLDER = "features"
"""The folder beside the shards that holds folders of features."""
ROWS_PER_BATCH = 32
"""Fixed, because other batch sizes may round in another way."""
WINDOWS_PER_FRAME = 2
"""A frame has so many windows to be paired with, as far as the clip allows."""
FUSION_SETTINGS = {
    "fusion_width",
    "fusion_dropout",
    "class_groups",
    "class_group_share",
    "sharpness",
    "initialization",
}
"""Settings of the network that do not change the features."""

_log = logging.getLogger("looklisten")


@dataclass(frozen=True, eq=False)
class FeatureRows:
    """Which frames and windows have features, sorted by clip; clips are numbered in the folder."""

    frame_clips: NDArray[np.int64]
    frames: NDArray[np.int64]
    """Numbers of stored frames within their clips."""
    frame_seconds: NDArray[np.float64]
    window_clips: NDArray[np.int64]
    window_starts: NDArray[np.int64]
    """First sample of each window, within its clip."""


def feature_rows(shards: Shards, frames_per_second: float) -> FeatureRows:
    """`frames_per_second` frames of every clip of the folder, and the windows around them."""
    frame_clips, frames, seconds, window_clips, window_starts = [], [], [], [], []
    folder = shards.folder
    for clip in range(len(folder)):
        times = folder.frame_seconds(clip)
        samples = folder.samples(clip)
        check_holds_window(samples)
        count = max(round(samples / SAMPLE_RATE_HZ * frames_per_second), 1)
        wanted_seconds = (np.arange(count) + 0.5) / frames_per_second
        # A clip may store fewer frames than are asked for.
        nearest = np.unique(np.abs(times[None] - wanted_seconds[:, None]).argmin(1))
        frame_clips.append(np.full(len(nearest), clip))
        frames.append(nearest)
        seconds.append(times[nearest])
        room = samples - WINDOW_SAMPLES
        # At least one a second, so that every frame lies in a window.
        windows_per_second = max(frames_per_second * WINDOWS_PER_FRAME, 1.0)
        steps = int(np.ceil(room / SAMPLE_RATE_HZ * windows_per_second))
        starts = np.linspace(0, room, steps + 1).round().astype(np.int64)
        window_clips.append(np.full(len(starts), clip))
        window_starts.append(starts)
    return FeatureRows(
        frame_clips=np.concatenate(frame_clips),
        frames=np.concatenate(frames),
        frame_seconds=np.concatenate(seconds),
        window_clips=np.concatenate(window_clips),
        window_starts=np.concatenate(window_starts),
    )


@dataclass(frozen=True, eq=False)
class FeatureCache:
    """What the fusion of a network with frozen towers compares: of frames and of windows."""

    folder: Path
    rows: FeatureRows
    vision: FeatureFiles
    audio: FeatureFiles

    def moment_rows(self, clip: int, chance: NDArray[np.float64]) -> tuple[int, int]:
        """A frame of a clip and a window that holds it, as rows; `chance` in [0, 1), `[2]`."""
        first, stop = np.searchsorted(self.rows.frame_clips, [clip, clip + 1])
        frame_row = int(first + int(chance[0] * (stop - first)))
        windows = self._windows_around(clip, float(self.rows.frame_seconds[frame_row]))
        return frame_row, int(windows[int(chance[1] * len(windows))])

    def spread_over(self, clips: Shards, count: int) -> tuple[Tensor, Tensor]:
        """Features of up to `count` frames and windows of `clips`, evenly spread."""
        taken = []
        for files, row_clips in (
            (self.vision, self.rows.frame_clips),
            (self.audio, self.rows.window_clips),
        ):
            rows = np.flatnonzero(np.isin(row_clips, clips.folder_numbers))
            spread = np.linspace(0, len(rows) - 1, min(count, len(rows))).round().astype(int)
            taken.append(files.take(rows[spread]))
        return taken[0], taken[1]

    def nearest_window(self, frame_row: int) -> int:
        """The row of the window whose middle is nearest to a frame."""
        clip = int(self.rows.frame_clips[frame_row])
        first, stop = np.searchsorted(self.rows.window_clips, [clip, clip + 1])
        middles = (self.rows.window_starts[first:stop] + WINDOW_SAMPLES / 2) / SAMPLE_RATE_HZ
        return int(first + np.abs(middles - self.rows.frame_seconds[frame_row]).argmin())

    def _windows_around(self, clip: int, seconds: float) -> NDArray[np.int64]:
        first, stop = np.searchsorted(self.rows.window_clips, [clip, clip + 1])
        starts = self.rows.window_starts[first:stop]
        sample = seconds * SAMPLE_RATE_HZ
        inside = (starts <= sample) & (sample < starts + WINDOW_SAMPLES)
        rows: NDArray[np.int64] = first + np.flatnonzero(inside)
        return rows


def open_features(
    network: L3Net,
    shards: Shards,
    frames_per_second: float,
    progress: Progress = no_progress,
) -> FeatureCache:
    """The features of a folder of shards; those that are missing are computed.

    So are damaged ones. Frames have no random change. The modes of PyTorch that the caller is in,
    such as autocast, change nothing. Raises ConfigError when there is no room, and for towers whose
    features float16 cannot hold.
    """
    rows = feature_rows(shards, frames_per_second)
    folder = _features_folder(shards) / features_key(network, shards, frames_per_second)[:32]
    cache = FeatureCache(
        folder,
        rows,
        FeatureFiles(folder, "vision", len(rows.frames)),
        FeatureFiles(folder, "audio", len(rows.window_starts)),
    )
    for scratch_place in (folder, folder.parent):
        remove_abandoned_scratch(scratch_place)
    missing = {files: files.missing() for files in (cache.vision, cache.audio)}
    if any(missing.values()):
        with own_torch_modes():
            _check_room(network, cache)
            _compute(network, shards.folder, cache, missing, progress)
    return cache


def features_key(network: L3Net, shards: Shards, frames_per_second: float) -> str:
    """A hash of everything that the features depend on: towers, settings, shards and rows."""
    config = network.config.model_dump(mode="json", exclude_defaults=True)
    # So that fusions of other settings share the same files.
    for name in FUSION_SETTINGS:
        config.pop(name, None)
    facts = {
        "vision": network_key(network.vision),
        "audio": network_key(network.audio),
        "config": config,
        "shards": [shard["sha256"] for shard in shards.manifest["shards"]],
        "rows": [frames_per_second, WINDOWS_PER_FRAME, ROWS_PER_FILE],
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _features_folder(shards: Shards) -> Path:
    """Beside the shards, or in the cache where that folder cannot be written to."""
    beside = shards.path / FEATURES_FOLDER
    try:
        check_writable(beside)
    except ConfigError:
        return writable_cache(FEATURES_FOLDER)
    return beside


def _check_room(network: L3Net, cache: FeatureCache) -> None:
    """Say how large the features become. Raises ConfigError when the disk has no room for them."""
    vision, audio = _one_row(network)
    bytes_needed = np.dtype(np.float16).itemsize * (
        cache.vision.rows * vision.numel() + cache.audio.rows * audio.numel()
    )
    cache.folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(cache.folder).free
    megabytes = bytes_needed / 1e6
    _log.info(
        "the features of %d frames and %d windows take %.0f MB in %s; they are computed once",
        cache.vision.rows,
        cache.audio.rows,
        megabytes,
        cache.folder,
    )
    if bytes_needed > free:
        raise ConfigError(
            f"the features take {megabytes:.0f} MB, and {cache.folder} has {free / 1e6:.0f} MB "
            "free; make room, or lower train.cached_frames_per_second"
        )


@torch.inference_mode()
def _one_row(network: L3Net) -> tuple[Tensor, Tensor]:
    """The features of a black frame and of silence, for their shapes."""
    config, device = network.config, next(network.parameters()).device
    pixels = config.crop_pixels
    frame = torch.zeros(1, 3 * config.frames_per_pair, pixels, pixels, dtype=torch.uint8)
    silence = torch.zeros(1, WINDOW_SAMPLES, dtype=torch.int16)
    network.eval()
    vision = look(network, frame.to(device))
    return network.fusion.features(vision, listen(network, silence.to(device)))


def _compute(
    network: L3Net,
    folder: Shards,
    cache: FeatureCache,
    missing: Mapping[FeatureFiles, list[int]],
    progress: Progress,
) -> None:
    readers: Mapping[Side, Callable[[range], Tensor]] = {
        "vision": lambda rows: _vision_features(network, folder, cache.rows, rows),
        "audio": lambda rows: _audio_features(network, folder, cache.rows, rows),
    }
    total = done = cache.vision.rows + cache.audio.rows
    for files, numbers in missing.items():
        done -= sum(len(files.rows_of(number)) for number in numbers)
    was_training = network.training
    network.eval()
    for files, numbers in missing.items():
        for number in numbers:
            parts = []
            for rows in _batches(files.rows_of(number)):
                features = readers[files.side](rows)
                parts.append(_as_stored(features, network, files.side))
                done += len(rows)
                progress(done, total)
            files.write(number, np.concatenate(parts))
    network.train(was_training)


def _as_stored(features: Tensor, network: L3Net, side: Side) -> NDArray[np.float16]:
    """Features as they are in a file. Raises ConfigError for values that it cannot hold."""
    # float16, because the disk limits how much footage can be cached.
    stored: NDArray[np.float16] = features.cpu().half().numpy()
    if np.isfinite(stored).all():
        return stored
    tower = f"the {side} tower ({network.config.backbone_of(side)})"
    if not features.isfinite().all():
        raise ConfigError(
            f"{tower} gives features that are infinite or no numbers; its weights are damaged or "
            "do not fit it: take another network"
        )
    raise ConfigError(
        f"{tower} gives features up to {float(features.abs().max()):.3g}, and those that are kept "
        f"must be below {np.finfo(np.float16).max:.0f}; take another network, or `train` with "
        "train.cached_frames_per_second 0, which keeps none"
    )


def _batches(rows: range) -> Iterator[range]:
    for start in range(rows.start, rows.stop, ROWS_PER_BATCH):
        yield range(start, min(start + ROWS_PER_BATCH, rows.stop))


@torch.inference_mode()
def _vision_features(network: L3Net, folder: Shards, rows: FeatureRows, batch: range) -> Tensor:
    config = network.config
    squares = []
    for row in batch:
        clip = int(rows.frame_clips[row])
        stored = len(folder.frame_seconds(clip))
        squares_of_row = []
        for frame in neighbor_frames(int(rows.frames[row]), stored, config.frames_per_pair):
            pixels = decode_jpeg(folder.jpeg(clip, frame), config.resize_pixels)
            squares_of_row.append(fit_square(pixels, config.crop_pixels, config.frame_fit))
        squares.append(torch.cat(squares_of_row, dim=2))
    frames = stack(squares).to(next(network.parameters()).device)
    return network.fusion.vision_features(look(network, frames))


@torch.inference_mode()
def _audio_features(network: L3Net, folder: Shards, rows: FeatureRows, batch: range) -> Tensor:
    waveforms = []
    for row in batch:
        start = int(rows.window_starts[row])
        samples = folder.waveform(int(rows.window_clips[row]))
        waveforms.append(samples[start : start + WINDOW_SAMPLES])
    sound = torch.from_numpy(np.stack(waveforms)).to(next(network.parameters()).device)
    return network.fusion.audio_features(listen(network, sound))
