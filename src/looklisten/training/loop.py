"""Training: shards and a config in, a run folder out. The loop is here; one step is in `learner`.

A run that is killed and resumed ends with the weights of a run that was never killed, to the bit.
This holds on the same kind of CPU, with the same numbers of threads and processes and the same
PyTorch. A run can be resumed with another number of processes; then the weights differ.
"""

import json
import logging
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from looklisten.config import Config, TrainConfig
from looklisten.data.inspection import training_warnings
from looklisten.data.shards import Shards
from looklisten.errors import ConfigError
from looklisten.model.checkpoint import Checkpoint, best_saved, step_of
from looklisten.model.config_checks import check_config, trains_on_features
from looklisten.model.objectives import find_objective
from looklisten.system.devices import choose_device
from looklisten.system.folder_lock import FolderLock
from looklisten.system.progress import Progress, no_progress
from looklisten.system.torch_modes import own_torch_modes
from looklisten.training.batches import (
    fit_batch_size,
    loader_threads,
    select_labeled,
    training_stream,
)
from looklisten.training.checkpointing import Checkpointer, Resume, open_run
from looklisten.training.computation import deterministic_kernels
from looklisten.training.distributed import ProcessWorld, process_world
from looklisten.training.frozen_towers.cache import FeatureCache, open_features
from looklisten.training.held_out import EVALUATED_PAIRS, HeldOutEvaluation
from looklisten.training.interruption import Interruption
from looklisten.training.learner import Learner
from looklisten.training.lock import training_lock
from looklisten.training.meter import PAIRS_PER_VIDEO, PlateauWarning, TrainingMeter
from looklisten.training.metrics_log import FileMetricsLog, NoMetricsLog
from looklisten.training.optimizers import learning_rate
from looklisten.training.provenance import TrainingData, training_data

_log = logging.getLogger("looklisten")


@dataclass(frozen=True)
class TrainResult:
    """The result of a training."""

    path: Path
    step: int
    loss: float
    accuracy: float
    """Training accuracy of the objective over the last batches."""
    held_out_accuracy: float
    """The same on held-out videos."""
    best_step: int
    """The checkpoint with the highest held-out accuracy: `checkpoints/best`; 0 if there is none."""
    best_accuracy: float
    pairs_per_second: float
    """Counts two pairs for each video, whatever `train.negatives` is."""
    videos_per_second: float
    data_wait: float
    """Share of the time that steps waited for their batch."""
    resumed_from: int
    stopped_by: str
    """The signal that ended the training early, after saving; empty when it came to its end."""


@own_torch_modes()
def train(
    shards: str | Path,
    config: Config | str,
    run: str | Path,
    device: str = "auto",
    progress: Progress = no_progress,
    resume: Resume = "auto",
    evaluated_pairs: int = EVALUATED_PAIRS,
) -> TrainResult:
    """Train on the videos of `shards` that are not held out, into the folder `run`, or resume it.

    `config`: a Config, or the name of a recipe or of a TOML file.

    Writes `config.toml`, `made.json`, `data.json`, `metrics.jsonl`, `tensorboard/` and
    `checkpoints/`. SIGTERM, SIGUSR1 and a first Ctrl-C end it after the step, with a checkpoint.
    Each accuracy on held-out videos is measured on `evaluated_pairs` pairs.

    Started by `torchrun` it is one of many processes that share each batch. All of them must see
    the same run folder.

    Raises ConfigError for settings that do not fit each other, when there are too few videos, when
    the loss is not a number, or when another process trains in `run`. Raises CheckpointError when
    `run` belongs to another config, when it holds checkpoints and `resume` is "never", or when
    `shards` would train on videos that were held out and `resume` is not "other-data".
    """
    config = Config.load(config) if isinstance(config, str) else config
    check_config(config)
    run, data = Path(run), Shards(shards)
    with (
        process_world(choose_device(device).value) as world,
        Interruption() as interruption,
        ExitStack() as cleanup,
    ):
        # Every process opens the shards itself, and all must come to the same split.
        clips, config = _split_clips(data, config, world)
        job = _start(run, data, clips, config, device, world, resume, cleanup)
        if world.is_first:
            _log_start(job)
        features = _features_of(job, progress)
        held_out = HeldOutEvaluation(
            data, clips.held_out, config.train.seed, evaluated_pairs, features
        )
        checkpointer = Checkpointer(run, job.lock, job.learner, held_out, job.saved)
        step, meter = _take_steps(job, features, checkpointer, interruption, progress)
        # The first process may still be saving. Every process waits for it here, so that each
        # finds the last checkpoint and returns the same result.
        held_out_accuracy, (best_accuracy, best) = world.broadcast_from_first(
            lambda: (checkpointer.held_out_accuracy, best_saved(run / "checkpoints"))
        )
    stopped_by = ""
    if step < config.train.steps:
        stopped_by = interruption.signal or "a signal to another process"
    return TrainResult(
        path=run,
        step=step,
        loss=meter.loss,
        accuracy=meter.accuracy,
        held_out_accuracy=held_out_accuracy,
        best_step=step_of(best) if best else 0,
        best_accuracy=best_accuracy,
        pairs_per_second=meter.pairs_per_second,
        videos_per_second=meter.pairs_per_second / PAIRS_PER_VIDEO,
        data_wait=meter.data_wait,
        resumed_from=job.first_step,
        stopped_by=stopped_by,
    )


@dataclass(frozen=True, eq=False)
class _SplitClips:
    """The clips of a training, as masks, `[clips]`."""

    trained_on: NDArray[np.bool_]
    held_out: NDArray[np.bool_]
    """Without clips that the objective cannot use, such as clips without a label for `labels`."""
    videos: TrainingData


@dataclass(frozen=True, eq=False)
class _Job:
    """A training that is ready for its next step."""

    run: Path
    data: Shards
    clips: _SplitClips
    config: Config
    learner: Learner
    lock: FolderLock
    saved: Checkpoint | None
    """The checkpoint that it continues from."""

    @property
    def first_step(self) -> int:
        """The number of steps that were taken before."""
        return self.saved.step if self.saved else 0


def _split_clips(data: Shards, config: Config, world: ProcessWorld) -> tuple[_SplitClips, Config]:
    """Which clips are trained on and which are held out, and the config that fits them."""
    settings = config.train
    held_out = data.held_out_mask(settings.held_out_fraction)
    validation = data.validation_mask(settings.validation_fraction, settings.held_out_fraction)
    trained_on, config = select_labeled(data, ~held_out & ~validation, config)
    videos = training_data(data, trained_on, held_out | validation)
    if not world.all_equal(json.dumps(videos.digests)):
        raise ConfigError(
            f"the processes of this run see different shards at {data.path}; "
            f"give all of them the same set"
        )
    held_out, config = select_labeled(data, held_out, config)
    config = fit_batch_size(config, len(videos.trained_on), world.ranks, data)
    world.check_batch(config.train)
    return _SplitClips(trained_on, held_out, videos), config


def _start(
    run: Path,
    data: Shards,
    clips: _SplitClips,
    config: Config,
    device: str,
    world: ProcessWorld,
    resume: Resume,
    cleanup: ExitStack,
) -> _Job:
    """Lock and open the folder of the run, and build the network or restore it."""
    lock = training_lock(run)
    cleanup.callback(lock.release)
    # Only the first process writes files. If it fails, all processes stop with the same error.
    saved = world.broadcast_from_first(
        lambda: open_run(
            run,
            lock,
            config,
            resume,
            data=data,
            trained_on=clips.trained_on,
            held_out=clips.held_out,
            videos=clips.videos,
        )
    )
    cleanup.enter_context(deterministic_kernels(config.train.deterministic))
    learner = Learner(config, device, world, saved.computation if saved else None)
    cleanup.callback(learner.release)
    # A resumed run loads all weights from its own checkpoint, even if it began with towers of
    # another run.
    if saved:
        learner.restore(saved.model().state_dict(), saved.optimizer())
    else:
        learner.initialize()
    return _Job(run, data, clips, config, learner, lock, saved)


def _features_of(job: _Job, progress: Progress) -> FeatureCache | None:
    """The features of frozen towers; the first process computes those that are missing."""
    settings, learner, world = job.config.train, job.learner, job.learner.world
    if not trains_on_features(job.config):
        return None

    def open_all() -> FeatureCache:
        rate = settings.cached_frames_per_second
        return open_features(learner.network, job.data, rate, progress)

    # The others wait, then open the files themselves. Nothing large is sent.
    if not world.is_alone:
        world.broadcast_from_first(lambda: bool(open_all()))
    features = open_all()
    if not job.saved:
        learner.begin_with_features(job.data.select(job.clips.trained_on), features)
    return features


def _take_steps(
    job: _Job,
    features: FeatureCache | None,
    checkpointer: Checkpointer,
    interruption: Interruption,
    progress: Progress,
) -> tuple[int, TrainingMeter]:
    """Train until the last step or a signal. Returns the number of the last step, and its meter."""
    settings, learner, world = job.config.train, job.learner, job.learner.world
    clips = job.data.select(job.clips.trained_on)
    stream = training_stream(clips, job.config, learner.network, features)
    on_gpu = learner.device.value.startswith("cuda")
    batches = stream.batches(
        job.first_step,
        settings.steps,
        loader_threads(world, on_gpu),
        world.rank,
        world.ranks,
        settings.accumulate,
        pin=on_gpu,
    )
    meter = TrainingMeter(settings.batch_size, world, job.run, job.first_step)
    plateau = PlateauWarning(settings)
    step = job.first_step
    with FileMetricsLog(job.run, step) if world.is_first else NoMetricsLog() as metrics_log:
        for step in range(job.first_step + 1, settings.steps + 1):
            with meter.waiting():
                parts = list(islice(batches, settings.accumulate))
            rate = learning_rate(settings, step, stream.steps_per_epoch)
            result = learner.step(parts, step, rate)
            meter.add(step, result, parts)
            # A signal may reach one process only, and all must end at the same step.
            was_stopped = world.any(bool(interruption.signal))
            is_last = step == settings.steps or was_stopped
            if step % settings.log_every == 0 or is_last:
                gradient_norm = float(learner.gradient_norm())
                means = meter.read(job.run)
                metrics_log.write(step, learning_rate=rate, gradient_norm=gradient_norm, **means)
                plateau.update(step, meter.loss)
            if world.is_first:
                measuring_seconds = checkpointer.after_step(
                    step,
                    is_last=is_last,
                    was_stopped=was_stopped,
                    metrics_log=metrics_log,
                    check_finite=meter.check_finite,
                )
                meter.exclude(measuring_seconds)
                facts = meter.progress_facts() | checkpointer.progress_facts()
                progress(step, settings.steps, **facts)
            if was_stopped:
                break
    return step, meter


def _log_start(job: _Job) -> None:
    """Log how the run is computed, and warn of what may be wrong with it."""
    learner, data, clips = job.learner, job.data, job.clips
    world, device, precision = learner.world, learner.device, learner.precision
    processes = f", {world.ranks} processes" if world.ranks > 1 else ""
    _log.info(
        "computing on %s (%s%s) in %s (%s)",
        device.value,
        device.reason,
        processes,
        precision.value,
        precision.reason,
    )
    _log.info("torch.compile is %s (%s)", learner.compiled.value, learner.compiled.reason)
    warnings = [
        *learner.warnings,
        *training_warnings(data, clips.trained_on),
        *_batch_norm_warnings(learner.config.train, world.ranks),
    ]
    for warning in warnings:
        _log.warning("%s", warning)
    if len(data.videos(clips.held_out)) < 2:
        _log.warning(
            "fewer than 2 videos are held out: "
            "the accuracy on videos not trained on is not measured"
        )
    if job.saved:
        _log.info("resumed %s from step %d", job.run, job.first_step)


def _batch_norm_warnings(settings: TrainConfig, ranks: int) -> list[str]:
    """A warning where most negatives, and no positives, mix statistics of two processes."""
    if ranks == 1 or settings.batch_norm == "sync" or not settings.gather_negatives:
        return []
    if not find_objective(settings.objective).trains_fusion:
        return []
    rows = settings.batch_size // settings.accumulate // ranks
    # A roll pairs the rows of each process among themselves.
    if settings.negatives == "roll" and rows > 1:
        return []
    return [
        "each positive pair is normalized with the batch-norm statistics of one process, most "
        f"negatives with those of two; with {rows} rows per process the network could tell them "
        "apart by this alone; set train.batch_norm to sync, or train.gather_negatives to false"
    ]
