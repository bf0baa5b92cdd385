"""How long a demo will take on this machine, from one training step and some videos.

Knows what the stages cost relative to these two, and runs no stage.
"""

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from looklisten.config import Config
from looklisten.data.pairs import PairBatch, PairChoices, pair_up
from looklisten.media.spectrogram import WINDOW_SAMPLES
from looklisten.media.synth.options import WorldOptions
from looklisten.media.synth.world import World
from looklisten.system.processes import cpu_count
from looklisten.training.learner import Learner

MEASURED_VIDEOS = 4
MEASURED_STEPS = 3

# Both from runs in benchmarks/RESULTS.md. The second is of runs that decoded each frame twice, so
# it is a little too high.
PREPARE_PER_SYNTH = 0.37
"""What it costs to prepare a video, as a share of what it costs to make one."""
MEASURING_STEPS_PER_VIDEO = 0.1
"""What evaluate, probe, localize and the report cost for each video, in training steps."""


@dataclass(frozen=True)
class DemoTime:
    """What a video and a step take here, and the stages that follow from them."""

    options: WorldOptions
    steps: int
    workers: int
    video_seconds: float
    """Of one core, to make one video."""
    step_seconds: float
    """To train on one batch."""

    @property
    def making_seconds(self) -> float:
        """Of synth and prepare."""
        per_video = self.video_seconds * (1 + PREPARE_PER_SYNTH)
        return self.options.videos * per_video / self.workers

    @property
    def training_seconds(self) -> float:
        return self.steps * self.step_seconds

    @property
    def measuring_seconds(self) -> float:
        """Of evaluate, probe, localize and the report."""
        return self.options.videos * MEASURING_STEPS_PER_VIDEO * self.step_seconds

    def sentence(self, has_videos: bool = False) -> str:
        """How long the demo takes; `has_videos`: synth and prepare are done."""
        parts = {"training": self.training_seconds, "measuring": self.measuring_seconds}
        if not has_videos:
            parts = {"making the videos": self.making_seconds} | parts
        listed = ", ".join(f"{_minutes(seconds)} for {name}" for name, seconds in parts.items())
        return (
            f"this takes about {_minutes(sum(parts.values()))} here: {listed} "
            f"(measured: a video takes {self.video_seconds:.2f} s of a core, "
            f"a training step {self.step_seconds:.2f} s)"
        )


def measure_demo_time(options: WorldOptions, config: Config, workers: int | None) -> DemoTime:
    """Make some videos and train some steps on noise, which takes a few seconds."""
    return DemoTime(
        options=options,
        steps=config.train.steps,
        workers=workers or cpu_count(),
        video_seconds=_video_seconds(options),
        step_seconds=_step_seconds(config),
    )


def _minutes(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min"


def _video_seconds(options: WorldOptions) -> float:
    world = World(options)
    with tempfile.TemporaryDirectory() as folder:
        # The first video loads the encoders.
        world.video(0).write(Path(folder) / "first.mp4")
        start_seconds = time.perf_counter()
        for index in range(MEASURED_VIDEOS):
            world.video(index).write(Path(folder) / f"{index}.mp4")
        return (time.perf_counter() - start_seconds) / MEASURED_VIDEOS


def _step_seconds(config: Config) -> float:
    # Compiling pays in a whole training only.
    learner = Learner(config.changed("train", compile="off"))
    batch = _noise_batch(config)
    # The first step allocates its memory.
    learner.step([batch], 1, config.train.learning_rate)
    start_seconds = time.perf_counter()
    for step in range(MEASURED_STEPS):
        # The loss is read, because a GPU computes it later.
        float(learner.step([batch], step + 2, config.train.learning_rate).loss)
    seconds = (time.perf_counter() - start_seconds) / MEASURED_STEPS
    learner.release()
    return seconds


def _noise_batch(config: Config) -> PairBatch:
    """A batch of noise in the sizes of the config."""
    rng = np.random.default_rng(0)
    rows = np.arange(config.train.batch_size)
    side = config.model.crop_pixels
    frame_shape = (len(rows), side, side, 3 * config.model.frames_per_pair)
    frames = torch.from_numpy(rng.integers(0, 256, frame_shape, np.uint8))
    waveforms = rng.integers(-(2**12), 2**12, (len(rows), WINDOW_SAMPLES), np.int16)
    middle = np.full(len(rows), 0.5)
    return PairBatch(
        frames=frames.permute(0, 3, 1, 2),
        waveforms=torch.from_numpy(waveforms),
        video_ids=tuple(map(str, rows)),
        labels=("",) * len(rows),
        choices=PairChoices(rows, rows, rows, middle, middle, rows.astype(bool)),
        rows=rows,
        pairing=pair_up(rows, rows.astype(str)),
    )
