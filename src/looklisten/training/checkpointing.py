"""When a run is measured and saved, and how its folder is opened."""

import logging
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from looklisten.config import Config
from looklisten.data.shards import Shards
from looklisten.errors import CheckpointError, ConfigError
from looklisten.model.checkpoint import (
    Checkpoint,
    open_checkpoint,
    prune_checkpoints,
    save_checkpoint,
    saved_steps,
)
from looklisten.system.files import atomic_write, remove_abandoned_scratch
from looklisten.system.folder_lock import FolderLock
from looklisten.training.held_out import HeldOutEvaluation
from looklisten.training.learner import Learner
from looklisten.training.metrics_log import MetricsLog
from looklisten.training.provenance import TrainingData, continue_record, start_record
from looklisten.training.run_facts import add_data_change, write_run_facts

Resume = Literal["auto", "never", "other-data"]
"""What to do with a folder that holds a run.

auto: resume it. never: refuse it. other-data: resume it, even to train on held-out videos.
"""

_log = logging.getLogger("looklisten")

CHANGEABLE_SETTINGS = {
    "steps",
    "evaluate_every",
    "probe_every",
    "checkpoint_every",
    "checkpoint_minutes",
    "keep_checkpoints",
    "log_every",
    "precision",
    "compile",
    "deterministic",
}
"""Settings of training that may differ when a run is resumed.

They change no step that was taken (with a cosine schedule, `steps` does). The last three change the
rounding of the steps to come.
"""


class Checkpointer:
    """Measures on held-out videos and saves, when it is time.

    It works in the first process alone; the others wait at their next step.
    """

    def __init__(
        self,
        run: Path,
        lock: FolderLock,
        learner: Learner,
        held_out: HeldOutEvaluation,
        saved: Checkpoint | None,
    ) -> None:
        self._run = run
        self._lock = lock
        self._learner = learner
        self._held_out = held_out
        self._settings = learner.config.train
        self._saved_at_seconds = time.monotonic()
        self._saved_step = 0
        self.held_out_accuracy = math.nan
        if saved:
            self._saved_step = saved.step
            self.held_out_accuracy = saved.results.get("held_out_accuracy", math.nan)

    def after_step(
        self,
        step: int,
        *,
        is_last: bool,
        was_stopped: bool,
        metrics_log: MetricsLog,
        check_finite: Callable[[Path], None],
    ) -> float:
        """Measure and save if it is time. Returns the seconds that measuring took.

        `was_stopped`: by a signal, so there is time for saving only. `check_finite` raises
        ConfigError when a loss that was not read yet is not a number.
        """
        began = time.perf_counter()
        results = {} if was_stopped else self._measure(step, is_last)
        if results:
            metrics_log.write(step, **results)
        measuring_seconds = time.perf_counter() - began
        if self._is_due(step, is_last, bool(results)):
            # Weights that became NaN would spoil the checkpoint.
            check_finite(self._run)
            self._save(step, results)
        return measuring_seconds

    def _measure(self, step: int, is_last: bool) -> dict[str, float]:
        settings, network = self._settings, self._learner.network
        results: dict[str, float] = {}
        if self._held_out.can_evaluate and (step % settings.evaluate_every == 0 or is_last):
            results |= self._held_out.evaluate(network, self._learner.module.objective)
            self.held_out_accuracy = results["held_out_accuracy"]
        is_probe_due = settings.probe_every and step % settings.probe_every == 0
        if is_probe_due and self._held_out.can_probe:
            results |= self._held_out.probe(network)
        return results

    def _is_due(self, step: int, is_last: bool, has_results: bool) -> bool:
        if step <= self._saved_step:
            return False
        minutes = (time.monotonic() - self._saved_at_seconds) / 60
        return (
            is_last
            or has_results
            or step % self._settings.checkpoint_every == 0
            or minutes >= self._settings.checkpoint_minutes
        )

    def _save(self, step: int, results: dict[str, float]) -> None:
        # Another process may have taken the folder over while this one was suspended.
        self._lock.check()
        learner, folder = self._learner, self._run / "checkpoints"
        save_checkpoint(
            folder,
            step,
            learner.config,
            learner.network.state_dict(),
            learner.optimizer_tensors(),
            results,
            learner.computation(),
        )
        prune_checkpoints(folder, self._settings.keep_checkpoints)
        self._saved_at_seconds = time.monotonic()
        self._saved_step = step

    def progress_facts(self) -> dict[str, str]:
        """The last accuracy on held-out videos in words; nothing before the first."""
        if not math.isfinite(self.held_out_accuracy):
            return {}
        return {"held out": f"{self.held_out_accuracy:.3f}"}


def open_run(
    run: Path,
    lock: FolderLock,
    config: Config,
    resume: Resume,
    *,
    data: Shards,
    trained_on: NDArray[np.bool_],
    held_out: NDArray[np.bool_],
    videos: TrainingData,
) -> Checkpoint | None:
    """Lock and tidy the folder of a run; its newest whole checkpoint, or None for a new run.

    `trained_on` and `held_out` are masks, `[clips]`. Raises ConfigError when another process trains
    in the folder, and when it is that of the shards. Raises CheckpointError when the run cannot
    be resumed with these settings, and when `adapt` wrote it.
    """
    if run.resolve() == data.path.resolve():
        raise ConfigError(f"{run} holds the shards; give another folder for the run")
    lock.acquire()
    remove_abandoned_scratch(run)
    remove_abandoned_scratch(run / "checkpoints")
    if not saved_steps(run / "checkpoints"):
        with atomic_write(run / "config.toml") as scratch:
            scratch.write_text(config.toml(), encoding="utf-8")
        write_run_facts(run, data, trained_on, held_out)
        start_record(run, videos)
        return None
    if resume == "never":
        raise CheckpointError(
            f"{run} holds checkpoints already; give another folder for a new run, "
            f"or resume it with --resume auto"
        )
    saved = open_checkpoint(run)
    if all(name.startswith("objective/") for name in saved.optimizer()):
        raise CheckpointError(
            f"{run} cannot be resumed, because `adapt` wrote it and keeps no state of an "
            f"optimizer; give another run folder, or `looklisten adapt --checkpoint {run}`"
        )
    differences = _differences(saved.config, config)
    if differences:
        raise CheckpointError(
            f"{run} was trained with another config: {'; '.join(differences[:3])}; "
            f"give another run folder, or the recipe {run / 'config.toml'}"
        )
    if saved.calibration is not None:
        _log.warning(
            "the calibration of %s is that of step %d; later checkpoints have none until "
            "`looklisten.calibrate` makes one",
            run,
            saved.step,
        )
    data_changed = continue_record(run, videos, saved.step, resume == "other-data")
    if data_changed:
        add_data_change(run, saved.step, data, trained_on, held_out)
    return saved


def _differences(saved: Config, config: Config) -> list[str]:
    """In words, the settings that differ and must not."""
    changeable = set(CHANGEABLE_SETTINGS)
    if saved.train.schedule == "cosine":
        # Each step of a cosine depends on the number of all steps.
        changeable.remove("steps")
    changeable_names = {f"train.{key}" for key in changeable}
    differences = saved.differences(config)
    return [differences[name] for name in differences if name not in changeable_names]
