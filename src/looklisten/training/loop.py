"""Training: shards and a config in, a run folder out."""

import json
import logging
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import FrameType, TracebackType

import numpy as np
from numpy.typing import NDArray

from looklisten.config import Config, TrainConfig
from looklisten.data.inspection import training_warnings
from looklisten.data.pairs import PairBatch
from looklisten.data.shards import Shards
from looklisten.errors import ConfigError
from looklisten.model.checkpoint import (
    Checkpoint,
    best_saved,
    step_of,
)
from looklisten.system.devices import choose_device
from looklisten.system.processes import cpu_count
from looklisten.system.progress import Progress, no_progress
from looklisten.training.batches import fit_batch_size, select_labeled, training_stream
from looklisten.training.checkpointing import Checkpointer, Resume, _begin
from looklisten.training.distributed import ProcessWorld, process_world
from looklisten.training.learner import Learner, deterministic_kernels
from looklisten.training.lock import FolderLock
from looklisten.training.meter import PAIRS_A_VIDEO, PlateauWarning, TrainingMeter
from looklisten.training.metrics_log import MetricsLog, NoMetricsLog
from looklisten.training.provenance import (
    training_data,
)
from looklisten.training.schedule import learning_rate

log = logging.getLogger("looklisten")


MAX_LOADER_THREADS = 12


@dataclass(frozen=True)
class TrainResult:
    """What training leaves behind."""

    path: Path
    step: int
    loss: float
    accuracy: float
    """AVC on the last training batches; with the objective "labels", here and below: how often a
    class was named right.
    """
    held_out_accuracy: float
    best_step: int
    """The checkpoint with the highest held-out accuracy: `checkpoints/best`; 0 when none was
    measured.
    """
    best_accuracy: float
    pairs_per_second: float
    """One positive and one negative for each video, whatever `train.negatives` says: twice the
    videos a second.
    """
    videos_per_second: float
    data_wait: float
    """Share of the time that steps waited for their batch."""
    resumed_from: int
    stopped_by: str
    """The signal that ended it early, after saving; empty when it came to its end."""


def train(
    shards: str | Path,
    config: Config,
    run: str | Path,
    device: str = "auto",
    progress: Progress = no_progress,
    resume: Resume = "auto",
) -> TrainResult:
    """Train L3-Net on the videos of `shards` that are not held out, into the folder `run`; go on
    where `run` stopped.

    Writes `config.toml`, `made.json`, `data.json`, `metrics.jsonl`, `tensorboard/` and
    `checkpoints/`. SIGTERM, SIGUSR1 and a first Ctrl-C end it after the step, with a checkpoint.
    Started by `torchrun` it is one of many processes that share each batch; the run folder must
    then be one they all see. Raises ConfigError when there are too few videos, when the loss is no
    number any more, or when another process trains in `run`. Raises CheckpointError when `run`
    belongs to another config, when it holds checkpoints at all and `resume` is "never", or when
    `shards` would train on videos that were held out from `run` and `resume` is not "other-data".
    """
    run, data = Path(run), Shards(shards)
    with (
        process_world(choose_device(device).value) as world,
        Interruption() as interruption,
        ExitStack() as cleanup,
    ):
        held_out = data.held_out_mask(config.train.held_out_fraction)
        validation = data.validation_mask(
            config.train.validation_fraction, config.train.held_out_fraction
        )
        allowed, config = select_labeled(data, ~held_out & ~validation, config)
        read = training_data(data, allowed, held_out | validation)
        if not world.agree(json.dumps(read.digests())):
            raise ConfigError(
                f"the processes of this run see different shards at {data.path}; give all of them the same set"
            )
        held_out, config = select_labeled(data, held_out, config)
        config = fit_batch_size(config, len(read.trained_on), world.ranks, data)
        world.check_batch(config.train)
        lock = FolderLock(run)
        cleanup.callback(lock.release)
        saved = world.told(lambda: _begin(run, lock, config, resume, data, allowed, held_out, read))
        cleanup.enter_context(deterministic_kernels(config.train.deterministic))
        learner = Learner(config, device, world, saved.computing if saved else None)
        first = saved.step if saved else 0
        if saved:
            learner.restore(saved.model().state_dict(), saved.optimizer())
        else:
            learner.initialize()
        if world.is_first:
            _say_how(learner, data, allowed, held_out, saved)
        stream = training_stream(data.select(allowed), config)
        on_gpu = learner.device.value.startswith("cuda")
        batches = stream.batches(
            first,
            config.train.steps,
            _loader_threads(world, on_gpu),
            world.rank,
            world.ranks,
            config.train.accumulate,
            pin=on_gpu,
        )
        keeper = Checkpointer(run, lock, learner, data, held_out, saved)
        meter, stuck = (
            TrainingMeter(config.train.batch_size, world, run, first),
            PlateauWarning(config.train),
        )
        step = first
        with MetricsLog(run, first) if world.is_first else NoMetricsLog() as diary:
            for step, (parts, waited) in enumerate(
                _timed(batches, config.train.accumulate), first + 1
            ):
                rate = learning_rate(config.train, step, stream.steps_per_epoch)
                outcome = learner.step(parts, step, rate)
                meter.add(step, outcome, parts, waited)
                stop = world.any(bool(interruption.signal))
                last = step == config.train.steps or stop
                if step % config.train.log_every == 0 or last:
                    diary.write(
                        step,
                        learning_rate=rate,
                        gradient_norm=float(learner.gradient_norm()),
                        **meter.read(run),
                    )
                    stuck.look(step, meter.loss)
                if world.is_first:
                    meter.leave_out(keeper.keep(step, last, stop, meter, diary))
                    progress(step, config.train.steps, **meter.facts(), **keeper.facts())
                if stop:
                    break
        # Asked of the first process, which may still be saving: whoever returns finds the last
        # checkpoint there, and says the same of it.
        held_out_accuracy, (best_accuracy, best) = world.told(
            lambda: (keeper.held_out_accuracy, best_saved(run / "checkpoints"))
        )
    return TrainResult(
        path=run,
        step=step,
        loss=meter.loss,
        accuracy=meter.accuracy,
        held_out_accuracy=held_out_accuracy,
        best_step=step_of(best) if best else 0,
        best_accuracy=best_accuracy,
        pairs_per_second=meter.pairs_per_second,
        videos_per_second=meter.pairs_per_second / PAIRS_A_VIDEO,
        data_wait=meter.data_wait,
        resumed_from=first,
        stopped_by=(interruption.signal or "a signal to another process")
        if step < config.train.steps
        else "",
    )


class Interruption:
    """Notes the first signal that asks for an end, so that the loop can save and leave; a second
    Ctrl-C ends at once.
    """

    SIGNALS = tuple(name for name in ("SIGTERM", "SIGUSR1", "SIGINT") if hasattr(signal, name))

    def __init__(self) -> None:
        self.signal = ""
        self._before: dict[int, object] = {}

    def __enter__(self) -> "Interruption":
        if threading.current_thread() is threading.main_thread():
            heeded = [
                number
                for name in self.SIGNALS
                if signal.getsignal(number := getattr(signal, name)) != signal.SIG_IGN
            ]
            self._before = {number: signal.signal(number, self._note) for number in heeded}
        return self

    def _note(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 (the interface of the system)
        if self.signal and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = signal.Signals(number).name

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]


def _timed(batches: Iterator[PairBatch], parts: int) -> Iterator[tuple[list[PairBatch], float]]:
    """Each batch, as its parts, with the seconds that were waited for it."""
    while True:
        asked = time.perf_counter()
        batch = list(islice(batches, parts))
        if not batch:
            return
        yield batch, time.perf_counter() - asked


def _loader_threads(world: ProcessWorld, on_gpu: bool) -> int:
    """A GPU's step hides the decoding of many cores; a CPU's step wants the cores itself."""
    return max(2, min(cpu_count() // world.local_ranks, MAX_LOADER_THREADS)) if on_gpu else 2


def _say_how(
    learner: Learner,
    data: Shards,
    allowed: NDArray[np.bool_],
    held_out: NDArray[np.bool_],
    saved: Checkpoint | None,
) -> None:
    world, device, precision, compiled = (
        learner.world,
        learner.device,
        learner.precision,
        learner.compiled,
    )
    others = f", {world.ranks} processes" if world.ranks > 1 else ""
    log.info(
        "computing on %s (%s%s) in %s (%s)",
        device.value,
        device.reason,
        others,
        precision.value,
        precision.reason,
    )
    log.info("torch.compile is %s (%s)", compiled.value, compiled.reason)
    for sentence in [
        *learner.changes,
        *training_warnings(data, allowed),
        *_batch_norm_warnings(learner.config.train, world.ranks),
    ]:
        log.warning("%s", sentence)
    if len(set(data.video_ids[held_out])) < 2:
        log.warning(
            "fewer than 2 videos are held out: the accuracy on videos not trained on is not measured"
        )
    if saved:
        log.info("resumed %s from step %d", saved.path.parent.parent, saved.step)


def _batch_norm_warnings(settings: TrainConfig, ranks: int) -> list[str]:
    """What to say where a positive pair shares a process's batch-norm statistics and a negative
    pair does not.
    """
    rows = settings.batch_size // settings.accumulate // ranks
    asks_pairs = settings.objective != "labels" and settings.gather_negatives
    if (
        ranks == 1
        or settings.batch_norm == "sync"
        or not asks_pairs
        or (settings.negatives == "roll" and rows > 1)
    ):
        return []
    return [
        f"both sides of a positive pair share the batch-norm statistics of one process, and those of most negatives do not, which tells "
        f"them apart a little at {rows} rows a process; set train.batch_norm to sync, or train.gather_negatives to false"
    ]
