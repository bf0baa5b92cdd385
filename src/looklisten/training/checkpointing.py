"""When a run is measured and saved, and how its folder is opened."""

import math
import time
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from looklisten.config import Config
from looklisten.data.shards import Shards
from looklisten.errors import CheckpointError
from looklisten.evaluation.correspondence import evaluate
from looklisten.evaluation.linear_probe.shards import can_probe, quick_probe
from looklisten.evaluation.supervised import class_accuracy
from looklisten.model.checkpoint import (
    Checkpoint,
    open_checkpoint,
    prune_checkpoints,
    save_checkpoint,
    saved_steps,
)
from looklisten.model.objectives.labels import LabelsObjective
from looklisten.system.files import atomic_write, remove_abandoned_scratch
from looklisten.training.held_out import EVALUATED_PAIRS
from looklisten.training.learner import Learner
from looklisten.training.lock import FolderLock
from looklisten.training.meter import TrainingMeter
from looklisten.training.metrics_log import NoMetricsLog
from looklisten.training.provenance import (
    TrainingData,
    continue_record,
    start_record,
)
from looklisten.training.run_facts import add_data_change, write_run_facts

Resume = Literal["auto", "never", "other-data"]
"""Go on where a folder's run stopped; refuse a folder that holds one; go on even where held-out
videos would be trained on.
"""


class Checkpointer:
    """Measures on held-out videos and saves, when it is time; in the first process alone, the
    others wait at the next step.
    """

    def __init__(
        self,
        run: Path,
        lock: FolderLock,
        learner: Learner,
        data: Shards,
        held_out: NDArray[np.bool_],
        saved: Checkpoint | None,
    ) -> None:
        self._run, self._lock, self._learner, self._data, self._held_out = (
            run,
            lock,
            learner,
            data,
            held_out,
        )
        self._settings = learner.config.train
        self._evaluates = len(set(data.video_ids[held_out])) >= 2
        self._probes = bool(self._settings.probe_every) and can_probe(data, held_out)
        self._saved_at, self._saved_step = time.monotonic(), saved.step if saved else 0
        self.held_out_accuracy = (
            saved.results.get("held_out_accuracy", math.nan) if saved else math.nan
        )

    def keep(
        self, step: int, last: bool, stopped: bool, meter: TrainingMeter, diary: NoMetricsLog
    ) -> float:
        """Returns the seconds that measuring took.

        `last`: no step follows; `stopped`: because of a signal, so there is time for saving only.
        """
        settings = self._settings
        began = time.perf_counter()
        results: dict[str, float] = {}
        if self._evaluates and not stopped and (step % settings.evaluate_every == 0 or last):
            results |= self._measured()
            self.held_out_accuracy = results["held_out_accuracy"]
        if self._probes and not stopped and step % settings.probe_every == 0:
            sides = quick_probe(self._learner.network, self._data, self._held_out, settings.seed)
            results |= {f"probe_{side}": accuracy for side, accuracy in sides.items()}
        if results:
            diary.write(step, **results)
        measuring_seconds = time.perf_counter() - began
        minutes = (time.monotonic() - self._saved_at) / 60
        due = (
            step % settings.checkpoint_every == 0
            or minutes >= settings.checkpoint_minutes
            or results
            or last
        )
        if due and step > self._saved_step:
            meter.check_finite(self._run)
            self._lock.check()
            checkpoints, learner = self._run / "checkpoints", self._learner
            network = learner.network.state_dict()
            save_checkpoint(
                checkpoints,
                step,
                learner.config,
                network,
                learner.moments(),
                results,
                learner.computing(),
            )
            prune_checkpoints(checkpoints, settings.keep_checkpoints)
            self._saved_at, self._saved_step = time.monotonic(), step
        return measuring_seconds

    def _measured(self) -> dict[str, float]:
        """The accuracy on held-out videos of what is asked."""
        network, objective, settings = (
            self._learner.network,
            self._learner.pretext.objective,
            self._settings,
        )
        if isinstance(objective, LabelsObjective):
            return class_accuracy(
                network,
                objective,
                settings.classes,
                self._data.select(self._held_out),
                EVALUATED_PAIRS // 2,
                settings.seed,
            ).as_metrics()
        return {
            "held_out_accuracy": evaluate(
                network, self._data.select(self._held_out), EVALUATED_PAIRS, settings.seed
            ).accuracy
        }

    def facts(self) -> dict[str, str]:
        return (
            {"held out": f"{self.held_out_accuracy:.3f}"}
            if math.isfinite(self.held_out_accuracy)
            else {}
        )


def _begin(
    run: Path,
    lock: FolderLock,
    config: Config,
    resume: Resume,
    data: Shards,
    allowed: NDArray[np.bool_],
    held_out: NDArray[np.bool_],
    read: TrainingData,
) -> Checkpoint | None:
    """Lock and tidy the folder of a run; its newest whole checkpoint, or None when it begins."""
    lock.acquire()
    remove_abandoned_scratch(run)
    remove_abandoned_scratch(run / "checkpoints")
    if not saved_steps(run / "checkpoints"):
        with atomic_write(run / "config.toml") as scratch:
            scratch.write_text(config.toml(), encoding="utf-8")
        write_run_facts(run, data, allowed, held_out)
        start_record(run, read)
        return None
    if resume == "never":
        raise CheckpointError(
            f"{run} holds checkpoints already; give another folder for a new run, or let it go on with --resume auto"
        )
    saved = open_checkpoint(run)
    differing = _differences(saved.config, config)
    if differing:
        raise CheckpointError(
            f"{run} was trained with another config: {'; '.join(differing[:3])}; "
            f"give another run folder, or the recipe {run / 'config.toml'}"
        )
    if continue_record(run, read, saved.step, resume == "other-data"):
        add_data_change(run, saved.step, data, allowed, held_out)
    return saved


FREE_TO_CHANGE = {
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
"""Settings of training that may differ on resuming. They change no step that was taken (with a
cosine schedule, `steps` does). The last three change the rounding of those to come.
"""


def _differences(saved: Config, asked: Config) -> list[str]:
    free = FREE_TO_CHANGE - ({"steps"} if saved.train.schedule == "cosine" else set())
    found = []
    for section in type(saved).model_fields:
        before, now = getattr(saved, section), getattr(asked, section)
        for key in type(before).model_fields:
            if getattr(before, key) != getattr(now, key) and not (
                section == "train" and key in free
            ):
                found.append(
                    f"{section}.{key} was {getattr(before, key)} and is {getattr(now, key)}"
                )
    return found
