"""Videos whose frames and sounds have one level each, and a network that compares levels by hand.

Every figure of such a network is known without a measurement.
"""

import numpy as np
import simplejpeg
import torch
from torch import nn
from torch.nn import functional

from conftest import small_config
from looklisten.data.clips import Clip
from looklisten.data.shards import Shards
from looklisten.model.backbones import TowerOutput
from looklisten.model.fusions.positions import SimilarityFusion
from looklisten.model.l3net import L3Net
from noise_shards import write_set

LOUDEST = 12_000
"""The samples of a sound of level 1."""
CELL_PIXELS = 16


class LevelFusion(SimilarityFusion):
    """A level of 0..1 becomes a direction of half a turn, on both sides."""

    def __init__(self, sharpness, positions):
        # Only the answer is a layer; the directions are a rule.
        nn.Module.__init__(self)
        self.sharpness, self.positions = sharpness, positions
        self.fc3 = nn.Linear(1, 2)
        self.initialize_answer()

    def aligned(self, features, side):
        angles = features[..., 0] * torch.pi
        return torch.stack([angles.cos(), angles.sin()], -1)


class LevelNetwork(L3Net):
    """Compares the brightness of each cell of a frame with the loudness of the sound."""

    def __init__(self):
        super().__init__(small_config().model)
        self.fusion = LevelFusion(sharpness=50.0, positions=9)

    def look(self, frames):
        gray = frames.float().mean(1, keepdim=True) / 255
        cells = functional.avg_pool2d(gray, CELL_PIXELS)
        return TowerOutput(cells, cells.amax((2, 3)))

    def listen(self, waveforms):
        loudness = waveforms.float().square().mean(1).sqrt()[:, None] / LOUDEST
        return TowerOutput(loudness[..., None, None], loudness)


def level_clip(
    video: str, frame_level: float, sound_level: float, seconds: float = 1.5, boxes=()
) -> Clip:
    """A clip of one gray and of one loudness."""
    pixels = np.full((64, 80, 3), round(255 * frame_level), np.uint8)
    jpeg = simplejpeg.encode_jpeg(pixels, quality=100)
    times = tuple(np.arange(0.1, seconds, 0.2).tolist())
    signs = np.resize([1, -1], round(seconds * 48_000))
    return Clip(
        key=f"{video}@0",
        video_id=video,
        source=f"{video}.mp4",
        start_seconds=0.0,
        frame_seconds=times,
        frames=(jpeg,) * len(times),
        waveform=(signs * LOUDEST * sound_level).astype(np.int16),
        sample_rate_hz=48_000,
        boxes=boxes,
    )


def level_shards(folder, levels) -> Shards:
    """Shards of one clip for each pair of levels, of its frames and of its sound."""
    clips = [level_clip(f"v{n:02d}", *pair) for n, pair in enumerate(levels)]
    return Shards(write_set(folder, [], [], clips))
