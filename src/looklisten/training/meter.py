"""Loss, accuracy and speed of a training, and a warning when the loss stays that of chance."""

import logging
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from looklisten.config import TrainConfig
from looklisten.data.pairs import PairChoices
from looklisten.errors import ConfigError
from looklisten.model.objectives import find_objective
from looklisten.model.objectives.objective import LossAndAccuracy
from looklisten.system.files import write_json
from looklisten.training.distributed import ProcessWorld
from looklisten.training.frozen_towers.batches import AnyBatch
from looklisten.training.metrics_log import read_metrics

PAIRS_PER_VIDEO = 2
"""A video gives a batch one positive pair and one negative: the unit of `pairs_per_second`."""
PLATEAU_STEPS = 400
"""After so many steps at the loss of chance a warning comes; the recipe tiny leaves it in 150."""
PLATEAU_SHARE = 0.985
"""A loss above this share of the loss of chance is no better than chance."""
PLATEAU_ADVICE = (
    "the loss has been that of chance (%.3f) for %d steps. Try, in this order: "
    "`looklisten inspect SHARDS --pairs 32` (can you tell which sound belongs to which frame?); "
    "`looklisten train SHARDS --overfit 16` (can the network memorize sixteen videos?); "
    "--sweep lr=1e-5,3e-5,1e-4,3e-4; --train.negatives all with --train.warmup-steps 100; "
    "a larger batch; more videos"
)

_log = logging.getLogger("looklisten")


@dataclass(frozen=True, eq=False)
class _StepRecord:
    """One step whose loss was not read yet."""

    step: int
    result: LossAndAccuracy
    video_ids: tuple[str, ...]
    choices: tuple[PairChoices, ...]
    """What each part of the batch was made of."""


class TrainingMeter:
    """Means over the steps since the last reading. A reading waits for the device.

    A resumed run begins with the last reading up to its `first_step`.
    """

    def __init__(
        self,
        batch_size: int,
        world: ProcessWorld,
        run: Path | None = None,
        first_step: int = 0,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._batch_size = batch_size
        self._world = world
        self._clock = clock
        # The losses stay on the device: reading each would make every step wait for it.
        self._steps: list[_StepRecord] = []
        self._waited_seconds = 0.0
        self._reading_began = clock()
        last = _last_reading(run, first_step) if run and first_step else {}
        self.loss = float(last.get("loss", math.nan))
        self.accuracy = float(last.get("accuracy", math.nan))
        self.pairs_per_second = float(last.get("pairs_per_second", 0.0))
        self.data_wait = float(last.get("data_wait", 0.0))

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the time of this block as that of waiting for a batch."""
        began = self._clock()
        yield
        self._waited_seconds += self._clock() - began

    def add(self, step: int, result: LossAndAccuracy, parts: Sequence[AnyBatch]) -> None:
        """Count a step."""
        video_ids = tuple(video_id for part in parts for video_id in part.video_ids)
        choices = tuple(part.choices for part in parts)
        self._steps.append(_StepRecord(step, result, video_ids, choices))

    def exclude(self, seconds: float) -> None:
        """Leave out time that was no training, so that it does not count into the speed."""
        self._reading_began += seconds

    def read(self, run: Path) -> dict[str, float]:
        """The means since the last reading, over all processes. Raises as `check_finite` does."""
        self.check_finite(run)
        losses = torch.stack([record.result.loss for record in self._steps])
        accuracies = torch.stack([record.result.accuracy for record in self._steps])
        own_means = [float(losses.mean()), float(accuracies.mean())]
        self.loss, self.accuracy = self._world.mean(own_means)

        now = self._clock()
        seconds = now - self._reading_began
        videos_per_second = len(self._steps) * self._batch_size / seconds
        self.pairs_per_second = PAIRS_PER_VIDEO * videos_per_second
        self.data_wait = self._waited_seconds / seconds
        self._steps = []
        self._waited_seconds = 0.0
        self._reading_began = now
        return {
            "loss": self.loss,
            "accuracy": self.accuracy,
            "videos_per_second": round(videos_per_second, 2),
            "pairs_per_second": round(self.pairs_per_second, 1),
            "data_wait": round(self.data_wait, 4),
        }

    def check_finite(self, run: Path) -> None:
        """Raises ConfigError at the first loss since the last reading that is not a number.

        The batch of that step is written into the folder `run`.
        """
        if not self._steps:
            return
        # One question to the device for all steps.
        losses = torch.stack([record.result.loss for record in self._steps])
        if bool(torch.isfinite(losses).all()):
            return
        finite = torch.isfinite(losses).tolist()
        record = self._steps[finite.index(False)]
        path = run / "not-a-number.json"
        loss = float(record.result.loss)
        rows = {"video_ids": list(record.video_ids)}
        for name in ("clips", "frames", "sound_starts"):
            values = [getattr(choices, name) for choices in record.choices]
            rows[name] = np.concatenate(values).tolist()
        write_json(path, {"step": record.step, "loss": str(loss), **rows})
        raise ConfigError(
            f"the loss became {loss} at step {record.step}; the videos, clips, frames and sounds "
            f"of its batch are in {path}; lower train.learning_rate or set train.precision to "
            f"float32, and run again: {run} resumes from its last checkpoint"
        )

    def progress_facts(self) -> dict[str, str]:
        """The last reading in words; nothing before the first."""
        if not math.isfinite(self.loss):
            return {}
        return {
            "loss": f"{self.loss:.3f}",
            "right": f"{self.accuracy:.3f}",
            "videos/s": _format_rate(self.pairs_per_second / PAIRS_PER_VIDEO),
            "pairs/s": _format_rate(self.pairs_per_second),
            "waiting for data": f"{self.data_wait:.1%}",
        }


def _last_reading(run: Path, first_step: int) -> dict[str, Any]:
    """The last line with a loss in the metrics of a run, up to `first_step`."""
    last: dict[str, Any] = {}
    for row in read_metrics(run):
        if "loss" in row and row["step"] <= first_step:
            last = row
    return last


def _format_rate(value: float) -> str:
    # Two digits, also where there is only one before the point.
    return f"{value:.1f}" if value < 10 else f"{value:.0f}"


class PlateauWarning:
    """Warns once when the loss stays that of chance after the warm-up."""

    def __init__(self, settings: TrainConfig) -> None:
        self._chance_loss = find_objective(settings.objective).chance_loss(settings)
        self._warmup_steps = settings.warmup_steps
        self._plateau: deque[int] = deque()
        """Steps of the readings since the loss was last better than chance."""
        self._has_warned = False

    def update(self, step: int, loss: float) -> None:
        """`loss`: the mean of the steps up to `step` since the last reading."""
        if self._has_warned or step <= self._warmup_steps:
            return
        if loss < PLATEAU_SHARE * self._chance_loss:
            self._plateau.clear()
            return
        self._plateau.append(step)
        steps = step - self._plateau[0]
        if steps >= PLATEAU_STEPS:
            _log.warning(PLATEAU_ADVICE, self._chance_loss, steps)
            self._has_warned = True
