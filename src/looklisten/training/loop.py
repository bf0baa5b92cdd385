"""Training: shards and a config in, a run folder out. One visible loop.

A step is a pure function of (weights, optimizer, config, shards, step): pairs and augmentation are drawn from the seed and
the step, so a run that was killed and resumed ends with the weights of one that was not.
"""

import logging
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from looklisten.config import AugmentConfig, Config, TrainConfig
from looklisten.data.pairs import PairBatch, PairStream, View
from looklisten.data.shards import Shards
from looklisten.errors import CheckpointError, ConfigError
from looklisten.evaluation.correspondence import evaluate
from looklisten.media import frames as frames_
from looklisten.media import spectrogram
from looklisten.model.checkpoint import open_checkpoint, save_checkpoint, saved_steps
from looklisten.model.l3net import L3Net
from looklisten.model.objectives import avc
from looklisten.runtime import Progress, choose_device, choose_precision, silent, sweep_aside, to_device, written_aside
from looklisten.training.runlog import RunLog

log = logging.getLogger("looklisten")


@dataclass(frozen=True)
class Run:
    """What training leaves behind."""

    path: Path
    step: int
    loss: float
    accuracy: float
    """AVC on the last training batches."""
    held_out_accuracy: float
    pairs_per_second: float
    data_wait: float
    """Share of the time that steps waited for their batch."""
    resumed_from: int


def train(
    shards: str | Path,
    config: Config,
    run: str | Path,
    device: str = "auto",
    progress: Progress = silent,
) -> Run:
    """Train L3-Net on the videos of `shards` that are not held out, into the folder `run`; go on where `run` stopped.

    Writes `config.toml`, `metrics.jsonl`, `tensorboard/` and `checkpoints/`. Raises ConfigError when there are too few videos,
    CheckpointError when `run` belongs to another config.
    """
    run, data = Path(run), Shards(shards)
    held_out = data.held_out(config.train.held_out_fraction)
    config = fitted(config, len(set(data.video_ids[~held_out])))
    can_evaluate = len(set(data.video_ids[held_out])) >= 2
    if not can_evaluate:
        log.warning("fewer than 2 videos are held out: the accuracy on videos not trained on is not measured")
    where, how = choose_device(device), choose_precision(choose_device(device).value, config.train.precision)
    log.info("computing on %s (%s) in %s (%s)", where.value, where.reason, how.value, how.reason)

    torch.manual_seed(config.train.seed)
    model = to_device(L3Net(config.model), where.value)
    optimizer = torch.optim.Adam(model.parameters(), config.train.learning_rate, weight_decay=config.train.weight_decay, fused=True)
    names = [name for name, _ in model.named_parameters()]
    first = _resume(run, config, model, optimizer, names)
    model.train()

    stream = training_stream(data, ~held_out, config)
    batches = _timed(stream.batches(first, config.train.steps))
    meter, held_out_accuracy, checkpoints = Meter(2 * config.train.batch_size), math.nan, run / "checkpoints"
    with RunLog(run, first) as diary:
        for step, (batch, waited) in enumerate(batches, first + 1):
            rate = learning_rate(config.train, step)
            for group in optimizer.param_groups:
                group["lr"] = rate
            frames, waveforms = augment(batch, config, step, where.value)
            with torch.autocast(torch.device(where.value).type, torch.bfloat16, enabled=how.value == "bfloat16"):
                vision, audio = model.look(frames).vector, model.listen(waveforms).vector
                outcome = avc(model.fusion, vision, audio, config.train.negatives)
            optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(outcome.loss)
            optimizer.step()

            meter.add(outcome.loss.detach(), outcome.accuracy, waited)
            last = step == config.train.steps
            if step % config.train.log_every == 0 or last:
                diary.write(step, learning_rate=rate, **meter.read())
                _check_finite(meter.loss, step, batch, run)
            if can_evaluate and (step % config.train.evaluate_every == 0 or last):
                held_out_accuracy = evaluate(model, data, held_out, pairs=2000, seed=config.train.seed).accuracy
                diary.write(step, held_out_accuracy=held_out_accuracy)
            if step % config.train.checkpoint_every == 0 or last:
                moments = _moments(optimizer, names)
                results = {"held_out_accuracy": held_out_accuracy} if math.isfinite(held_out_accuracy) else {}
                save_checkpoint(checkpoints, step, config, model.state_dict(), moments, results)
                for old in saved_steps(checkpoints)[: -config.train.keep_checkpoints]:
                    _remove(old)
            shown = {"held out": f"{held_out_accuracy:.3f}"} if math.isfinite(held_out_accuracy) else {}
            progress(step, config.train.steps, **meter.facts(), **shown)
    final = open_checkpoint(run)
    return Run(
        path=run,
        step=final.step,
        loss=meter.loss,
        accuracy=meter.accuracy,
        held_out_accuracy=final.results.get("held_out_accuracy", math.nan),
        pairs_per_second=meter.pairs_per_second,
        data_wait=meter.data_wait,
        resumed_from=first,
    )


def learning_rate(config: TrainConfig, step: int) -> float:
    """The rate of a step, counted from 1: a linear climb, then constant or half a cosine down to zero after the last step."""
    if step <= config.warmup_steps:
        return config.learning_rate * step / config.warmup_steps
    if config.schedule == "constant":
        return config.learning_rate
    done = (step - config.warmup_steps - 1) / max(config.steps - config.warmup_steps, 1)
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * done))


def training_stream(data: Shards, allowed: NDArray[np.bool_], config: Config) -> PairStream:
    """The positives of training: the clips that `allowed`, `[clips]`, names, frames cropped at random places and perhaps mirrored."""
    view = View(config.model.resize_pixels, config.model.crop_pixels, random=True, flip=config.augment.flip)
    return PairStream(data, allowed, config.train.batch_size, config.train.seed, view)


def augment(batch: PairBatch, config: Config, step: int, device: str) -> tuple[Tensor, Tensor]:
    """Frames in 0..1 with brightness and saturation changed, waveforms in -1..1 with their gain changed, on the device.

    Drawn from the seed and the step alone, each frame and each sound for itself.
    """
    settings: AugmentConfig = config.augment
    generator = torch.Generator().manual_seed((config.train.seed << 32) + step)
    chance = (torch.rand(3, len(batch.video_ids), generator=generator) * 2 - 1).to(device)
    frames = frames_.to_unit(batch.frames.to(device, non_blocking=True))
    frames = frames_.jitter(frames, settings.brightness * chance[0], 1 + settings.saturation * chance[1])
    waveforms = spectrogram.to_unit(batch.waveforms.to(device, non_blocking=True))
    return frames, waveforms * (1 + settings.gain * chance[2])[:, None]


class Meter:
    """Loss, accuracy and speed since the last look; looking is what waits for the device."""

    def __init__(self, pairs_per_step: int) -> None:
        self._pairs_per_step = pairs_per_step
        self._losses: list[Tensor] = []
        self._accuracies: list[Tensor] = []
        self._waited, self._since = 0.0, time.perf_counter()
        self.loss = self.accuracy = math.nan
        self.pairs_per_second = self.data_wait = 0.0

    def add(self, loss: Tensor, accuracy: Tensor, waited_seconds: float) -> None:
        self._losses.append(loss)
        self._accuracies.append(accuracy)
        self._waited += waited_seconds

    def read(self) -> dict[str, float]:
        """The means since the last reading."""
        steps = len(self._losses)
        self.loss = float(torch.stack(self._losses).mean())
        self.accuracy = float(torch.stack(self._accuracies).mean())
        now = time.perf_counter()
        self.pairs_per_second = steps * self._pairs_per_step / (now - self._since)
        self.data_wait = self._waited / (now - self._since)
        self._losses, self._accuracies, self._waited, self._since = [], [], 0.0, now
        speed = {"pairs_per_second": round(self.pairs_per_second, 1), "data_wait": round(self.data_wait, 4)}
        return {"loss": self.loss, "accuracy": self.accuracy, **speed}

    def facts(self) -> dict[str, str]:
        """The last reading in words; nothing before the first."""
        if not math.isfinite(self.loss):
            return {}
        return {
            "loss": f"{self.loss:.3f}",
            "avc": f"{self.accuracy:.3f}",
            "pairs/s": f"{self.pairs_per_second:.0f}",
            "waiting for data": f"{self.data_wait:.1%}",
        }


def _timed(batches: Iterator[PairBatch]) -> Iterator[tuple[PairBatch, float]]:
    """Each batch with the seconds that were waited for it."""
    while True:
        asked = time.perf_counter()
        batch = next(batches, None)
        if batch is None:
            return
        yield batch, time.perf_counter() - asked


def fitted(config: Config, videos: int) -> Config:
    """The config with a batch that the videos can fill; every row of a batch is another video."""
    if videos < 2:
        raise ConfigError(f"training needs at least 2 videos beside the held-out ones, and there are {videos}; prepare more videos")
    if videos >= config.train.batch_size:
        return config
    log.warning("only %d videos to train on: the batch is lowered from %d to %d", videos, config.train.batch_size, videos)
    return config.model_copy(update={"train": config.train.model_copy(update={"batch_size": videos})})


def _check_finite(loss: float, step: int, batch: PairBatch, run: Path) -> None:
    if not math.isfinite(loss):
        raise ConfigError(
            f"the loss became {loss} by step {step} (last batch: {', '.join(batch.video_ids[:4])} …); lower train.learning_rate "
            f"or set train.precision to float32, and run again: {run} goes on from its last checkpoint"
        )


def _resume(run: Path, config: Config, model: L3Net, optimizer: torch.optim.Optimizer, names: list[str]) -> int:
    """Fill `model` and `optimizer` from the newest whole checkpoint of `run` and return its step; 0 when there is none."""
    sweep_aside(run)
    sweep_aside(run / "checkpoints")
    if not saved_steps(run / "checkpoints"):
        with written_aside(run / "config.toml") as scratch:
            scratch.write_text(config.toml(), encoding="utf-8")
        return 0
    saved = open_checkpoint(run)
    differing = _differences(saved.config, config)
    if differing:
        raise CheckpointError(
            f"{run} was trained with another config: {'; '.join(differing[:3])}; "
            f"give another run folder, or the recipe {run / 'config.toml'}"
        )
    model.load_state_dict(saved.model().state_dict())
    _restore(optimizer, names, saved.optimizer())
    log.info("resumed %s from step %d", run, saved.step)
    return saved.step


FREE_TO_CHANGE = {"steps", "evaluate_every", "checkpoint_every", "keep_checkpoints", "log_every"}
"""Settings of training that may differ on resuming: they change no step that was taken (with a cosine schedule, `steps` does)."""


def _differences(saved: Config, asked: Config) -> list[str]:
    free = FREE_TO_CHANGE - ({"steps"} if saved.train.schedule == "cosine" else set())
    found = []
    for section in type(saved).model_fields:
        before, now = getattr(saved, section), getattr(asked, section)
        for key in type(before).model_fields:
            if getattr(before, key) != getattr(now, key) and not (section == "train" and key in free):
                found.append(f"{section}.{key} was {getattr(before, key)} and is {getattr(now, key)}")
    return found


def _moments(optimizer: torch.optim.Optimizer, names: list[str]) -> dict[str, Tensor]:
    state = optimizer.state_dict()["state"]
    return {f"{names[index]}/{key}": value for index, values in state.items() for key, value in values.items()}


def _restore(optimizer: torch.optim.Optimizer, names: list[str], moments: dict[str, Tensor]) -> None:
    index = {name: i for i, name in enumerate(names)}
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in moments.items():
        name, _, moment = key.rpartition("/")
        parameter = parameters[index[name]]
        if value.shape == parameter.shape:
            # The fused step walks parameter and moment side by side in memory, so both must lie in the same layout.
            value = torch.empty_like(parameter).copy_(value)
        state.setdefault(index[name], {})[moment] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _remove(folder: Path) -> None:
    """Remove a checkpoint so that a crash half-way leaves no folder that looks whole: its JSON goes first."""
    (folder / "checkpoint.json").unlink()
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()
