"""Before a long run: short ones over a grid of settings, and whether a few videos can be learnt by
heart.
"""

import itertools
import logging
import math
import time
import tomllib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from looklisten.config import Config
from looklisten.data.shards import Shards
from looklisten.errors import ConfigError
from looklisten.system.progress import Progress, no_progress
from looklisten.training.learner import Learner
from looklisten.training.loop import Meter, fitted, labelled, learning_rate, train, training_stream

log = logging.getLogger("looklisten")

SHORT_NAMES = {"lr": "train.learning_rate", "batch": "train.batch_size"}
LEARNT_ACCURACY = 0.95
OVERFIT_SECONDS = 60.0
OVERFIT_LOOK = 10
"""Steps between looks at the accuracy."""


@dataclass(frozen=True)
class Trial:
    """One short run of a sweep. A run whose loss became no number has NaN everywhere."""

    name: str
    loss: float
    """Over the last training batches."""
    accuracy: float
    held_out_accuracy: float


@dataclass(frozen=True)
class Sweep:
    """All trials, and the settings of the one with the highest held-out accuracy (equal ones: the
    lowest loss).
    """

    trials: tuple[Trial, ...]
    take: str
    """The options of `looklisten train` that say so."""
    steps: int

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def sweep(
    shards: str | Path,
    config: Config,
    run: str | Path,
    over: Sequence[str],
    steps: int = 300,
    device: str = "auto",
    progress: Progress = no_progress,
) -> Sweep:
    """The grid search of the paper: a run of `steps` steps for each combination of `over`, such as
    `["lr=1e-4,3e-4"]`.

    Each lies in `RUN/sweep/NAME`, and is taken as it is when it is there already. Raises
    ConfigError for a setting or value that cannot be, before the first run.
    """
    axes = [_axis(one) for one in over]
    configs: dict[str, Config] = {}
    for values in itertools.product(*(axis[1] for axis in axes)):
        name = " ".join(
            f"{short}={value}" for (short, _), (_, value, _) in zip(axes, values, strict=True)
        )
        changed = config
        for section, _, setting in values:
            changed = changed.changed(section, **setting)
        configs[name] = changed.changed(
            "train", steps=steps, evaluate_every=steps, checkpoint_every=steps, probe_every=0
        )
    trials = []
    for number, (name, changed) in enumerate(configs.items()):
        try:
            told = within(progress, number, len(configs), name)
            found = train(
                shards, changed, Path(run) / "sweep" / name.replace("/", "_"), device, told
            )
            if found.stopped_by:
                raise KeyboardInterrupt
            trials.append(Trial(name, found.loss, found.accuracy, found.held_out_accuracy))
        except ConfigError as error:
            if "the loss became" not in str(error):
                raise
            log.warning("%s: %s", name, error)
            trials.append(Trial(name, math.nan, math.nan, math.nan))
    usable = [trial for trial in trials if math.isfinite(trial.loss)]
    if not usable:
        raise ConfigError(
            "every run of the sweep ended in no number; sweep lower learning rates, or set train.precision to float32"
        )
    best = max(
        usable,
        key=lambda trial: (
            trial.held_out_accuracy if math.isfinite(trial.held_out_accuracy) else 0.0,
            -trial.loss,
        ),
    )
    options = " ".join(
        f"--{_setting(key).replace('_', '-')} {value}"
        for key, value in (part.split("=") for part in best.name.split(" "))
    )
    return Sweep(tuple(trials), options, steps)


def within(progress: Progress, number: int, runs: int, name: str) -> Progress:
    """The progress of run `number` of `runs` as a part of the whole."""

    def told(done: int, total: int, /, **facts: str) -> None:
        progress(number * total + done, runs * total, of=name, **facts)

    return told


def _axis(text: str) -> tuple[str, list[tuple[str, str, dict[str, Any]]]]:
    """`lr=1e-4,3e-4` as its name and, for each value, (section, value as written, setting)."""
    short, _, values = text.partition("=")
    section, _, key = _setting(short).partition(".")
    if not values or section not in Config.model_fields:
        raise ConfigError(
            f"a sweep is a setting and its values, such as lr=1e-5,3e-5,1e-4 or model.fusion=concat,distance; not {text!r}"
        )
    return short, [(section, value, {key: _read(value)}) for value in values.split(",")]


def _setting(name: str) -> str:
    """The full name: `lr` is train.learning_rate, and what names no section is of `train`."""
    return SHORT_NAMES.get(name, name if "." in name else f"train.{name}")


def _read(value: str) -> Any:
    try:
        return tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return value


@dataclass(frozen=True)
class Overfit:
    """Whether a few videos could be learnt by heart."""

    learnt: bool
    accuracy: float
    """AVC over the last steps, on the very videos trained on."""
    loss: float
    videos: int
    steps: int
    seconds: float
    advice: str


def overfit(
    shards: str | Path,
    config: Config,
    videos: int = 16,
    device: str = "auto",
    seconds: float = OVERFIT_SECONDS,
    progress: Progress = no_progress,
) -> Overfit:
    """Train on `videos` videos alone, without augmentation, until their pairs are told apart or
    `seconds` have passed.

    Writes nothing. What cannot learn sixteen videos by heart will not learn sixteen thousand.
    """
    data = Shards(shards)
    chosen = sorted(set(data.video_ids))[:videos]
    allowed = np.isin(data.video_ids, chosen)
    allowed, config = labelled(data, allowed, config)
    config = fitted(
        config.changed("train", batch_size=videos, accumulate=1, compile="off"),
        len(set(data.video_ids[allowed])),
    )
    config = config.changed("augment", flip=False).changed(
        "train", schedule="constant", warmup_steps=min(config.train.warmup_steps, 20)
    )
    learner, stream = Learner(config, device), training_stream(data, allowed, config)
    learner.initialize()
    meter, began, step = Meter(config.train.batch_size, learner.world), time.monotonic(), 0
    for step, batch in enumerate(stream.batches(0, 10**9), 1):
        outcome = learner.step([batch], step, learning_rate(config.train, step), augmented=False)
        meter.add(step, outcome, [batch], 0.0)
        spent = time.monotonic() - began
        if step % OVERFIT_LOOK == 0:
            meter.read(Path.cwd())
            progress(min(int(spent), int(seconds)), int(seconds), **meter.facts())
        if (step % OVERFIT_LOOK == 0 and meter.accuracy >= LEARNT_ACCURACY) or spent > seconds:
            break
    if not math.isfinite(meter.loss):
        meter.read(Path.cwd())
    learnt = meter.accuracy >= LEARNT_ACCURACY
    return Overfit(
        learnt=learnt,
        accuracy=meter.accuracy,
        loss=meter.loss,
        videos=len(chosen),
        steps=step,
        seconds=round(time.monotonic() - began, 1),
        advice="the pairs can be learnt; train on all videos"
        if learnt
        else "look at the pairs (`looklisten inspect SHARDS --pairs 32`), and try another learning rate (--sweep lr=1e-4,3e-4,1e-3)",
    )
