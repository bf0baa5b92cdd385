"""Training: shards and a config in, a run folder out. One visible loop; what a step is stands in
`learner`.

A run that was killed and resumed on the same kind of CPU ends with the weights of one that was not.
It goes on with another number of processes.
"""

import json
import logging
import math
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import FrameType, TracebackType
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from looklisten.config import Config, TrainConfig
from looklisten.data.inspection import training_warnings
from looklisten.data.pairs import Draws, PairBatch, PairStream, View
from looklisten.data.shards import Shards
from looklisten.errors import CheckpointError, ConfigError
from looklisten.evaluation.correspondence import evaluate
from looklisten.evaluation.linear_probe.shards import can_probe, quick_probe
from looklisten.evaluation.supervised import naming
from looklisten.model.checkpoint import (
    Checkpoint,
    best_saved,
    open_checkpoint,
    prune_checkpoints,
    save_checkpoint,
    saved_steps,
    step_of,
)
from looklisten.model.objectives import Labels, Outcome, chance_loss
from looklisten.system.devices import choose_device
from looklisten.system.files import atomic_write, remove_abandoned_scratch, write_json
from looklisten.system.processes import cpu_count
from looklisten.system.progress import Progress, no_progress
from looklisten.training.distributed import World, joined
from looklisten.training.learner import Learner, deterministic_kernels
from looklisten.training.lock import FolderLock
from looklisten.training.provenance import (
    TrainingData,
    continue_record,
    start_record,
    training_data,
)
from looklisten.training.runlog import NoLog, RunLog, add_change, read_metrics, write_made

log = logging.getLogger("looklisten")

Resume = Literal["auto", "never", "other-data"]
"""Go on where a folder's run stopped; refuse a folder that holds one; go on even where held-out
videos would be trained on.
"""

PAIRS_A_VIDEO = 2
"""A video gives a batch one positive pair and one negative: the unit of `pairs_per_second`."""
EVALUATED_PAIRS = 2000
MAX_LOADER_THREADS = 12
STUCK_STEPS = 400
"""A loss that is where chance is for so many steps after the warm-up is stuck; the recipe tiny
leaves it within 150.
"""
STUCK_SHARE = 0.985
"""Losses above this share of chance's are no better than it."""
STUCK_ADVICE = (
    "the loss has been that of guessing (%.3f) for %d steps. Try, in this order: `looklisten inspect SHARDS --pairs 32` (can you tell "
    "which sound belongs to which frame?); `looklisten train SHARDS --overfit 16` (can the network learn sixteen videos by heart?); "
    "--sweep lr=1e-5,3e-5,1e-4,3e-4; --train.negatives all with --train.warmup-steps 100; a larger batch; more videos"
)


@dataclass(frozen=True)
class Run:
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
) -> Run:
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
        joined(choose_device(device).value) as world,
        Interruption() as interruption,
        ExitStack() as cleanup,
    ):
        held_out = data.held_out(config.train.held_out_fraction)
        validation = data.validation(config.train.validation_fraction, held_out)
        allowed, config = labelled(data, ~held_out & ~validation, config)
        read = training_data(data, allowed, held_out | validation)
        if not world.agree(json.dumps(read.digests())):
            raise ConfigError(
                f"the processes of this run see different shards at {data.path}; give all of them the same set"
            )
        held_out, config = labelled(data, held_out, config)
        config = fitted(config, len(read.trained_on), world.ranks, data)
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
        stream = training_stream(data, allowed, config)
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
        keeper = Keeper(run, lock, learner, data, held_out, saved)
        meter, stuck = Meter(config.train.batch_size, world, run, first), Stuck(config.train)
        step = first
        with RunLog(run, first) if world.is_first else NoLog() as diary:
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
    return Run(
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


def labelled(
    data: Shards, allowed: NDArray[np.bool_], config: Config
) -> tuple[NDArray[np.bool_], Config]:
    """With the objective "labels": the clips of `allowed` whose label is a class, and the config
    with the classes; else both as they are.

    A config without classes gets those of the clips. Raises ConfigError when these are fewer than
    two.
    """
    if config.train.objective != "labels":
        return allowed, config
    classes = config.train.classes or tuple(sorted(set(data.names[allowed].tolist()) - {""}))
    if len(classes) < 2:
        raise ConfigError(
            f'the objective "labels" needs training clips of at least 2 labels; {data.path} has {len(classes)}'
        )
    return allowed & np.isin(data.names, classes), config.changed("train", classes=classes)


def learning_rate(config: TrainConfig, step: int, steps_per_epoch: int = 1) -> float:
    """The rate of a step, counted from 1: a linear climb, then constant, stairs, or half a cosine
    down to zero after the last step.
    """
    if step <= config.warmup_steps:
        return config.learning_rate * step / config.warmup_steps
    if config.schedule == "constant":
        return config.learning_rate
    if config.schedule == "stairs":
        return config.learning_rate * config.stair_factor ** (
            (step - 1) // (steps_per_epoch * config.stair_epochs)
        )
    done = (step - config.warmup_steps - 1) / max(config.steps - config.warmup_steps, 1)
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * done))


def training_stream(data: Shards, allowed: NDArray[np.bool_], config: Config) -> PairStream:
    """The positives of training: the clips that `allowed`, `[clips]`, names, frames cropped at
    random places and perhaps mirrored.
    """
    model, settings = config.model, config.train
    view = View(
        model.resize_pixels,
        model.crop_pixels,
        random=True,
        flip=config.augment.flip,
        frames=model.frames_per_pair,
    )
    share = settings.same_video_share if settings.negatives == "same-video" else 0.0
    # Each process's batch-norm marks its rows, so a negative must not be the pair that joins two
    # processes' rows.
    within_process = settings.batch_norm == "local" and settings.negatives == "roll"
    return PairStream(
        data,
        allowed,
        settings.batch_size,
        settings.seed,
        view,
        share,
        settings.same_video_steps,
        within_process,
    )


class Keeper:
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

    def keep(self, step: int, last: bool, stopped: bool, meter: "Meter", diary: NoLog) -> float:
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
        if isinstance(objective, Labels):
            return naming(
                network,
                objective,
                settings.classes,
                self._data,
                self._held_out,
                EVALUATED_PAIRS // 2,
                settings.seed,
            ).as_metrics()
        return {
            "held_out_accuracy": evaluate(
                network, self._data, self._held_out, EVALUATED_PAIRS, settings.seed
            ).accuracy
        }

    def facts(self) -> dict[str, str]:
        return (
            {"held out": f"{self.held_out_accuracy:.3f}"}
            if math.isfinite(self.held_out_accuracy)
            else {}
        )


Named = tuple[tuple[str, ...], Draws]
"""What a part of a batch was made of."""


class Meter:
    """Loss, accuracy and speed since the last look, which in a resumed run may be one before
    `first`; looking waits for the device.
    """

    def __init__(
        self,
        batch_size: int,
        world: World,
        run: Path | None = None,
        first: int = 0,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._batch_size, self._world, self._clock = batch_size, world, clock
        self._steps: list[tuple[int, Outcome, list[Named]]] = []
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
        self, step: int, outcome: Outcome, parts: list[PairBatch], waited_seconds: float
    ) -> None:
        self._steps.append((step, outcome, [(part.video_ids, part.draws) for part in parts]))
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
                name: np.concatenate([getattr(draws, name) for _, draws in parts]).tolist()
                for name in ("clips", "frames", "starts")
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


class Stuck:
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
        if loss < STUCK_SHARE * self._chance:
            self._seen.clear()
            return
        self._seen.append((step, loss))
        if step - self._seen[0][0] >= STUCK_STEPS:
            log.warning(STUCK_ADVICE, self._chance, step - self._seen[0][0])
            self._told = True


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


def _loader_threads(world: World, on_gpu: bool) -> int:
    """A GPU's step hides the decoding of many cores; a CPU's step wants the cores itself."""
    return max(2, min(cpu_count() // world.local_ranks, MAX_LOADER_THREADS)) if on_gpu else 2


def fitted(config: Config, videos: int, ranks: int = 1, data: Shards | None = None) -> Config:
    """The config with a batch that the videos can fill, and that `ranks` processes can share; every
    row is another video.

    Raises ConfigError when there are too few videos.
    """
    if videos < 2:
        raise ConfigError(
            f"training needs at least 2 videos beside the held-out ones, and there are {videos}; "
            f"{(data and _splits_of(data)) or 'prepare more videos'}"
        )
    if videos >= config.train.batch_size:
        return config
    unit = math.lcm(ranks, 2 if config.train.negatives == "same-video" else 1)
    fitting = videos // unit * unit
    if fitting < 2:
        raise ConfigError(
            f"{ranks} processes need a multiple of {unit} videos to share a batch, and there are {videos} to train on"
        )
    reason = f" and shared in multiples of {unit}" if fitting < videos else ""
    log.warning(
        "only %d videos to train on: the batch is lowered from %d to %d%s",
        videos,
        config.train.batch_size,
        fitting,
        reason,
    )
    return config.changed("train", batch_size=fitting, accumulate=1)


def _splits_of(data: Shards) -> str:
    """What to do where the shards name splits; nothing where they name none."""
    names = [name for name in np.unique(data.splits).tolist() if name]
    if not names:
        return ""
    counts = [f"{name} ({len(set(data.video_ids[data.splits == name]))} videos)" for name in names]
    return f"the splits of {data.path} are {', '.join(counts)}, and `train` is the split that is trained on"


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
        write_made(run, data, allowed, held_out)
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
        add_change(run, saved.step, data, allowed, held_out)
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
