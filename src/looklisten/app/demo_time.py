"""How long a demo will take on this machine, from one training step and some videos.

Knows what the stages cost relative to these two, and runs no stage.
"""

import itertools
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from looklisten.config import Config
from looklisten.data.pairing import pair_up
from looklisten.data.pairs import NO_EMPTY_SOUND, PairBatch, PairChoices
from looklisten.data.shards import Shards
from looklisten.media.spectrogram import WINDOW_SAMPLES
from looklisten.media.synth.options import WorldOptions
from looklisten.media.synth.world import World
from looklisten.system.processes import cpu_count
from looklisten.training.batches import training_stream
from looklisten.training.frozen_towers.batches import AnyBatch
from looklisten.training.learner import Learner

MEASURED_VIDEOS = 4
UNMEASURED_STEPS = 2
"""The first steps allocate memory, and the first batches are waited for."""
MEASURED_STEPS = 8

# From runs in benchmarks/RESULTS.md, and of reading in LOG.md. The last is of runs that probed more
# moments and localized with two methods, so it is a little too high.
LOADING_PER_STEP = 0.1
"""What it costs to read a batch while a CPU trains, as a share of a step without reading."""
PREPARE_PER_SYNTH = 0.37
"""What it costs to prepare a video, as a share of what it costs to make one."""
MEASURING_STEPS_PER_VIDEO = 0.1
"""What evaluate, probe, localize, search and the report cost for each video, in training steps."""


@dataclass(frozen=True)
class DemoTime:
    """What a video and a step take here, and the stages that follow from them."""

    options: WorldOptions
    steps: int
    workers: int
    video_seconds: float | None
    """Of one core, to make one video; None where all are made."""
    step_seconds: float
    """To train on one batch."""

    @property
    def making_seconds(self) -> float:
        """Of synth and prepare."""
        if self.video_seconds is None:
            return 0.0
        per_video = self.video_seconds * (1 + PREPARE_PER_SYNTH)
        return self.options.videos * per_video / self.workers

    @property
    def training_seconds(self) -> float:
        return self.steps * self.step_seconds

    @property
    def measuring_seconds(self) -> float:
        """Of evaluate, probe, localize, search and the report."""
        return self.options.videos * MEASURING_STEPS_PER_VIDEO * self.step_seconds

    def sentence(self) -> str:
        """How long the rest of the demo takes."""
        parts = {
            "making the videos": self.making_seconds,
            "training": self.training_seconds,
            "measuring": self.measuring_seconds,
        }
        listed = [f"{_minutes(seconds)} for {name}" for name, seconds in parts.items() if seconds]
        measured = [f"a training step takes {self.step_seconds:.2f} s"]
        if self.video_seconds is not None:
            measured.append(f"a video {self.video_seconds:.2f} s of a core")
        return (
            f"about {_minutes(sum(parts.values()))} from here, if no other work disturbs: "
            f"{', '.join(listed)} (measured: {', '.join(measured)})"
        )


def measure_demo_time(
    options: WorldOptions, config: Config, workers: int | None, shards: Shards | None = None
) -> DemoTime:
    """Make some videos and train some steps, which takes a few seconds.

    `shards`: the prepared videos, where they are made; training is then measured on them, else on
    noise.
    """
    return DemoTime(
        options=options,
        steps=config.train.steps,
        workers=workers or cpu_count(),
        video_seconds=None if shards else _video_seconds(options),
        step_seconds=_step_seconds(config, shards),
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


def _step_seconds(config: Config, shards: Shards | None) -> float:
    # Compiling pays in a whole training only.
    config = config.changed("train", compile="off")
    if shards is None:
        noise = itertools.repeat([noise_batch(config, config.train.batch_size)])
        return _seconds_of_steps(config, noise) * (1 + LOADING_PER_STEP)
    clips = shards.select(~shards.held_out_mask(config.train.held_out_fraction))
    videos = len(set(clips.video_ids.tolist()))
    config = config.changed(
        "train",
        batch_size=min(videos, config.train.batch_size),
        steps=UNMEASURED_STEPS + MEASURED_STEPS,
    )
    return _seconds_of_steps(config, _batches_of(clips, config))


def _batches_of(clips: Shards, config: Config) -> Iterator[Sequence[AnyBatch]]:
    """Batches as training reads them, by threads that run beside the steps."""
    steps, parts = config.train.steps, config.train.accumulate
    batches = training_stream(clips, config).batches(0, steps, parts=parts)
    while batch := list(itertools.islice(batches, parts)):
        yield batch


def _seconds_of_steps(config: Config, batches: Iterator[Sequence[AnyBatch]]) -> float:
    """The mean time of a step."""
    learner = Learner(config)
    start_seconds = 0.0
    for step in range(1, UNMEASURED_STEPS + MEASURED_STEPS + 1):
        # The loss is read, because a GPU computes it later.
        float(learner.step(next(batches), step, config.train.learning_rate).loss)
        if step == UNMEASURED_STEPS:
            start_seconds = time.perf_counter()
    seconds = (time.perf_counter() - start_seconds) / MEASURED_STEPS
    learner.release()
    return seconds


def noise_batch(config: Config, videos: int) -> PairBatch:
    """A batch of noise, of `videos` different videos, for measuring a step without shards."""
    rng = np.random.default_rng(0)
    rows = np.arange(videos)
    side = config.model.crop_pixels
    frame_shape = (len(rows), side, side, 3 * config.model.frames_per_pair)
    frames = torch.from_numpy(rng.integers(0, 256, frame_shape, np.uint8))
    waveforms = rng.integers(-(2**12), 2**12, (len(rows), WINDOW_SAMPLES), np.int16)
    middle = np.full(len(rows), 0.5)
    no_empty_sounds = np.full(len(rows), NO_EMPTY_SOUND)
    return PairBatch(
        frames=frames.permute(0, 3, 1, 2),
        waveforms=torch.from_numpy(waveforms),
        video_ids=tuple(map(str, rows)),
        labels=("",) * len(rows),
        choices=PairChoices(rows, rows, rows, middle, middle, rows.astype(bool), no_empty_sounds),
        rows=rows,
        pairing=pair_up(rows, rows.astype(str)),
    )
