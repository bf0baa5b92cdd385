"""Before a long run: short ones over a grid of settings."""

import itertools
import logging
import math
import tomllib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from looklisten.config import Config
from looklisten.errors import ConfigError
from looklisten.system.progress import Progress, no_progress
from looklisten.training.loop import train

log = logging.getLogger("looklisten")


SHORT_NAMES = {"lr": "train.learning_rate", "batch": "train.batch_size"}


@dataclass(frozen=True)
class SweepTrial:
    """One short run of a sweep. A run whose loss became no number has NaN everywhere."""

    name: str
    loss: float
    """Over the last training batches."""
    accuracy: float
    held_out_accuracy: float


@dataclass(frozen=True)
class SweepResult:
    """All trials, and the settings of the one with the highest held-out accuracy (equal ones: the
    lowest loss).
    """

    trials: tuple[SweepTrial, ...]
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
) -> SweepResult:
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
            told = progress_of_run(progress, number, len(configs), name)
            found = train(
                shards, changed, Path(run) / "sweep" / name.replace("/", "_"), device, told
            )
            if found.stopped_by:
                raise KeyboardInterrupt
            trials.append(SweepTrial(name, found.loss, found.accuracy, found.held_out_accuracy))
        except ConfigError as error:
            if "the loss became" not in str(error):
                raise
            log.warning("%s: %s", name, error)
            trials.append(SweepTrial(name, math.nan, math.nan, math.nan))
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
    return SweepResult(tuple(trials), options, steps)


def progress_of_run(progress: Progress, number: int, runs: int, name: str) -> Progress:
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
