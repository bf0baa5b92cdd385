"""Loss, accuracy and speed of a training, and a warning when the loss does not fall."""

import logging
import math
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from looklisten.config import TrainConfig
from looklisten.data.pairs import PairBatch, PairChoices
from looklisten.errors import ConfigError
from looklisten.model.objectives import chance_loss
from looklisten.model.objectives.objective import LossAndAccuracy
from looklisten.system.files import write_json
from looklisten.training.distributed import ProcessWorld
from looklisten.training.metrics_log import read_metrics

_log = logging.getLogger("looklisten")

PAIRS_A_VIDEO = 2
"""A video gives a batch one positive pair and one negative: the unit of `pairs_per_second`."""


PLATEAU_STEPS = 400
"""A loss that is where chance is for so many steps after the warm-up is stuck; the recipe tiny
leaves it progress_of_run 150.
"""


PLATEAU_SHARE = 0.985
"""Losses above this share of chance's are no better than it."""


PLATEAU_ADVICE = (
    "the loss has been that of guessing (%.3f) for %d steps. Try, in this order: `looklisten inspect SHARDS --pairs 32` (can you tell "
    "which sound belongs to which frame?); `looklisten train SHARDS --overfit 16` (can the network learn sixteen videos by heart?); "
    "--sweep lr=1e-5,3e-5,1e-4,3e-4; --train.negatives all with --train.warmup-steps 100; a larger batch; more videos"
)


Named = tuple[tuple[str, ...], PairChoices]
"""What a part of a batch was made of."""


class TrainingMeter:
    """Loss, accuracy and speed since the last look, which in a resumed run may be one before
    `first`; looking waits for the device.
    """

    def __init__(
        self,
        batch_size: int,
        world: ProcessWorld,
        run: Path | None = None,
        first: int = 0,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._batch_size, self._world, self._clock = batch_size, world, clock
        self._steps: list[tuple[int, LossAndAccuracy, list[Named]]] = []
        self._waited, self._since = 0.0, clock()
        before = (
            [row for row in read_metrics(run) if "loss" in row and row["step"] <= first]
            if run and first
            else []
        )
        last = before[-1] if before else {}
        self.loss, self.accuracy = (
            float(last.get(name, math.nan)) for name in ("loss", "accuracy")
        )
        self.pairs_per_second, self.data_wait = (
            float(last.get(name, 0.0)) for name in ("pairs_per_second", "data_wait")
        )

    def add(
        self, step: int, outcome: LossAndAccuracy, parts: list[PairBatch], waited_seconds: float
    ) -> None:
        self._steps.append((step, outcome, [(part.video_ids, part.choices) for part in parts]))
        self._waited += waited_seconds

    def leave_out(self, seconds: float) -> None:
        """Time that was no training does not count into the speed."""
        self._since += seconds

    def read(self, run: Path) -> dict[str, float]:
        """The means since the last reading, over all processes."""
        self.check_finite(run)
        own = (
            torch.stack([getattr(outcome, name) for _, outcome, _ in self._steps]).mean()
            for name in ("loss", "accuracy")
        )
        self.loss, self.accuracy = self._world.mean([float(value) for value in own])
        now = self._clock()
        videos_per_second = len(self._steps) * self._batch_size / (now - self._since)
        self.pairs_per_second = PAIRS_A_VIDEO * videos_per_second
        self.data_wait = self._waited / (now - self._since)
        self._steps, self._waited, self._since = [], 0.0, now
        speed = {
            "videos_per_second": round(videos_per_second, 2),
            "pairs_per_second": round(self.pairs_per_second, 1),
            "data_wait": round(self.data_wait, 4),
        }
        return {"loss": self.loss, "accuracy": self.accuracy, **speed}

    def check_finite(self, run: Path) -> None:
        """Raises ConfigError at the first loss since the last reading that is no number, its batch
        written out.
        """
        if not self._steps or bool(
            torch.isfinite(torch.stack([outcome.loss for _, outcome, _ in self._steps])).all()
        ):
            return
        step, outcome, parts = next(
            entry for entry in self._steps if not math.isfinite(float(entry[1].loss))
        )
        path = run / "not-a-number.json"
        rows = {
            "video_ids": [video for video_ids, _ in parts for video in video_ids],
            **{
                name: np.concatenate([getattr(choices, name) for _, choices in parts]).tolist()
                for name in ("clips", "frames", "sound_starts")
            },
        }
        write_json(path, {"step": step, "loss": str(float(outcome.loss)), **rows})
        raise ConfigError(
            f"the loss became {float(outcome.loss)} at step {step}; the videos, clips, frames and sounds of its batch are in {path}; lower "
            f"train.learning_rate or set train.precision to float32, and run again: {run} goes on from its last checkpoint"
        )

    def facts(self) -> dict[str, str]:
        """The last reading in words; nothing before the first."""
        if not math.isfinite(self.loss):
            return {}
        return {
            "loss": f"{self.loss:.3f}",
            "right": f"{self.accuracy:.3f}",
            "videos/s": _rate(self.pairs_per_second / PAIRS_A_VIDEO),
            "pairs/s": _rate(self.pairs_per_second),
            "waiting for data": f"{self.data_wait:.1%}",
        }


def _rate(value: float) -> str:
    """Two digits where a rate has only one before the point."""
    return f"{value:.1f}" if value < 10 else f"{value:.0f}"


class PlateauWarning:
    """Warns once when the loss stays where guessing puts it."""

    def __init__(self, settings: TrainConfig) -> None:
        choices = len(settings.classes) or settings.batch_size // settings.accumulate
        self._chance = chance_loss(settings.objective, choices)
        self._from = settings.warmup_steps
        self._seen: deque[tuple[int, float]] = deque()
        self._told = False

    def look(self, step: int, loss: float) -> None:
        """`loss`: the mean of the steps up to `step` since the last look."""
        if self._told or step <= self._from:
            return
        if loss < PLATEAU_SHARE * self._chance:
            self._seen.clear()
            return
        self._seen.append((step, loss))
        if step - self._seen[0][0] >= PLATEAU_STEPS:
            _log.warning(PLATEAU_ADVICE, self._chance, step - self._seen[0][0])
            self._told = True
