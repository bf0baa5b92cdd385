"""Short trainings over a grid of settings, to choose some of them before a long one."""

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
from looklisten.model.config_checks import check_config
from looklisten.system.progress import Progress, no_progress
from looklisten.training.held_out import EVALUATED_PAIRS
from looklisten.training.loop import train

SHORT_NAMES = {"lr": "train.learning_rate", "batch": "train.batch_size"}

_log = logging.getLogger("looklisten")


@dataclass(frozen=True)
class SweepTrial:
    """One short run of a sweep. If its loss became no number, every value is NaN."""

    name: str
    loss: float
    """Over the last training batches."""
    accuracy: float
    held_out_accuracy: float


@dataclass(frozen=True)
class SweepResult:
    """All trials, and the settings of the best one.

    It has the highest held-out accuracy, and of equal ones the lowest loss.
    """

    trials: tuple[SweepTrial, ...]
    best_options: str
    """The options of `looklisten train` for the settings of the best trial."""
    steps: int

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class _Setting:
    """One value of one axis of the grid."""

    axis: str
    """The name of the axis, as written: `lr`."""
    text: str
    """The value, as written: `1e-4`."""
    section: str
    key: str
    value: Any


def sweep(
    shards: str | Path,
    config: Config,
    run: str | Path,
    over: Sequence[str],
    steps: int = 300,
    device: str = "auto",
    progress: Progress = no_progress,
    evaluated_pairs: int = EVALUATED_PAIRS,
) -> SweepResult:
    """The grid search of the paper: a run of `steps` steps for each combination of `over`.

    `over` has an entry such as `lr=1e-4,3e-4` for each axis of the grid. Each run is in
    `RUN/sweep/NAME`; a finished run is not trained again. Raises ConfigError for a setting or a
    value that does not exist, before the first run.
    """
    configs = _grid(config, over, steps)
    trials = []
    for number, (name, trial_config) in enumerate(configs.items()):
        # A value may be a path, whose slashes would make folders.
        folder = Path(run) / "sweep" / name.replace("/", "_")
        own_progress = progress_of_run(progress, number, len(configs), name)
        try:
            result = train(
                shards,
                trial_config,
                folder,
                device,
                own_progress,
                evaluated_pairs=evaluated_pairs,
            )
        except ConfigError as error:
            # A learning rate that is too high is a result. Any other error is one of the user's.
            if "the loss became" not in str(error):
                raise
            _log.warning("%s: %s", name, error)
            trials.append(SweepTrial(name, math.nan, math.nan, math.nan))
            continue
        if result.stopped_by:
            raise KeyboardInterrupt
        trials.append(SweepTrial(name, result.loss, result.accuracy, result.held_out_accuracy))
    best = _best(trials)
    return SweepResult(tuple(trials), _options(best.name), steps)


def _grid(config: Config, over: Sequence[str], steps: int) -> dict[str, Config]:
    """The config of each combination, by its name; raises ConfigError where one cannot be."""
    axes = [_read_axis(text) for text in over]
    configs = {}
    for combination in itertools.product(*axes):
        changed = config
        for setting in combination:
            changed = changed.changed(setting.section, **{setting.key: setting.value})
        # Every trial is measured and saved once, at its end.
        changed = changed.changed(
            "train", steps=steps, evaluate_every=steps, checkpoint_every=steps, probe_every=0
        )
        check_config(changed)
        name = " ".join(f"{setting.axis}={setting.text}" for setting in combination)
        configs[name] = changed
    return configs


def _best(trials: Sequence[SweepTrial]) -> SweepTrial:
    usable = [trial for trial in trials if math.isfinite(trial.loss)]
    if not usable:
        raise ConfigError(
            "the loss of every run of the sweep became not a number; "
            "sweep lower learning rates, or set train.precision to float32"
        )

    def rank(trial: SweepTrial) -> tuple[float, float]:
        # Without held-out videos there is no accuracy, and the loss alone decides.
        is_measured = math.isfinite(trial.held_out_accuracy)
        return (trial.held_out_accuracy if is_measured else 0.0, -trial.loss)

    return max(usable, key=rank)


def _options(name: str) -> str:
    """The options of `looklisten train` for a trial: `lr=1e-4` is `--train.learning-rate 1e-4`."""
    options = []
    for part in name.split(" "):
        axis, value = part.split("=")
        options.append(f"--{_full_name(axis).replace('_', '-')} {value}")
    return " ".join(options)


def progress_of_run(progress: Progress, number: int, runs: int, name: str) -> Progress:
    """The progress of run `number` of `runs` as a part of the progress of all."""

    def report(done: int, total: int, /, **facts: str) -> None:
        progress(number * total + done, runs * total, of=name, **facts)

    return report


def _read_axis(text: str) -> list[_Setting]:
    """`lr=1e-4,3e-4` as one setting for each value."""
    axis, _, values = text.partition("=")
    section, _, key = _full_name(axis).partition(".")
    if not values or section not in Config.model_fields:
        raise ConfigError(
            f"a sweep is a setting and its values, such as lr=1e-5,3e-5,1e-4 or "
            f"model.fusion=concat,distance; not {text!r}"
        )
    return [_Setting(axis, value, section, key, _read_value(value)) for value in values.split(",")]


def _full_name(axis: str) -> str:
    """The section and the key of an axis: `lr` is train.learning_rate, `seed` is train.seed."""
    return SHORT_NAMES.get(axis, axis if "." in axis else f"train.{axis}")


def _read_value(text: str) -> Any:
    """A value as TOML has it; what is not TOML is a string, so that it needs no quotes."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
