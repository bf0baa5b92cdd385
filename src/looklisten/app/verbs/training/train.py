"""The verb `train`: shards -> a run, or a short trial of settings."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import tyro
from tyro.conf import Positional

from looklisten.app.command_line import DeviceName, UsageError, Verb, parse, summary_of
from looklisten.app.output import INTERRUPTED, SUCCESS, Output
from looklisten.app.terminal import ProgressBar
from looklisten.config import Config
from looklisten.option_checks import check_at_least
from looklisten.system.files import check_writable

DEFAULT_RECIPE = "tiny"


def train_with(recipe: str) -> Callable[..., Output]:
    """The function of the verb, whose options have the values of `recipe` as defaults."""
    recipe_settings = Config.load(recipe)
    recipe_name = Path(recipe).stem

    def run_train(
        shards: Positional[str],
        /,
        # `option_value` reads --config before the other options, for their defaults.
        config: str = recipe,  # noqa: ARG001
        # torchrun reads these options as well and mistakes --run for its --run-path. Hence -o.
        run: Annotated[Path, tyro.conf.arg(aliases=["-o", "--out"])] = Path("runs") / recipe_name,
        device: DeviceName = "auto",
        resume: Literal["auto", "never", "other-data"] = "auto",
        overfit: int = 0,
        sweep: tuple[str, ...] = (),
        sweep_steps: int = 300,
        settings: Annotated[Config, tyro.conf.arg(name="")] = recipe_settings,
    ) -> Output:
        """Train L3-Net on shards, without labels; run it again to continue where it stopped.

        Under torchrun (`torchrun --nproc-per-node=4 -m looklisten train … -o RUN`) the processes
        share each batch.

        Args:
            shards: Folder that `prepare` wrote.
            config: Recipe: tiny, l3, ave, avol, contrastive, general, dense, baselines/direct
                (and others there), or a TOML file. Its values are the defaults of the options
                below.
            run: Folder of the run: config.toml, metrics.jsonl, tensorboard/, checkpoints/. Under
                torchrun use -o, because torchrun mistakes --run for its own --run-path.
            resume: Continue the run of the folder (auto); refuse a folder with a run (never); or
                continue on other shards, even if they train on videos that were held out before
                (other-data).
            overfit: Instead of a run: test for at most a minute whether the network can memorize
                this many videos.
            sweep: Instead of a run: a short run with each of these values, such as
                lr=1e-5,3e-5,1e-4 (lr is train.learning_rate). It says which is best. Several
                settings are tried in every combination.
            sweep_steps: Steps of each short run.
            settings: The recipe's settings; any of them can be changed here.
        """
        # `overfit` and `sweep` get other names here, because two options have theirs.
        from looklisten.training.loop import train
        from looklisten.training.overfit import overfit as memorize
        from looklisten.training.sweep import sweep as train_briefly

        check_at_least(0, overfit=overfit)
        check_at_least(1, sweep_steps=sweep_steps)
        if overfit and sweep:
            raise UsageError("--overfit and --sweep cannot be combined; use one at a time")
        if overfit:
            # This writes nothing, so the folder of the run is not checked.
            with ProgressBar("overfit: seconds") as progress:
                memorized = memorize(shards, settings, overfit, device, progress=progress)
            return Output(asdict(memorized))
        check_writable(run)
        if sweep:
            with ProgressBar("sweep: steps") as progress:
                table = train_briefly(shards, settings, run, sweep, sweep_steps, device, progress)
            return Output(table.as_dict())
        with ProgressBar("train: steps") as progress:
            result = train(shards, settings, run, device, progress, resume)
        if result.stopped_by:
            # Not 0, so that a job scheduler can see that the training is not finished.
            message = f"stopped by {result.stopped_by} and saved; run the same command to continue"
            return Output(asdict(result), INTERRUPTED, message)
        return Output(asdict(result), SUCCESS)

    return run_train


def run_with_recipe(arguments: Sequence[str]) -> Output:
    """Run the verb with the recipe that its option --config names."""
    recipe = option_value(arguments, "--config", DEFAULT_RECIPE)
    return parse("train", train_with(recipe), arguments)


def option_value(arguments: Sequence[str], option: str, default: str) -> str:
    """The value of one option, read before the others."""
    for index, argument in enumerate(arguments):
        if argument == option and index + 1 < len(arguments):
            return arguments[index + 1]
        if argument.startswith(f"{option}="):
            return argument.partition("=")[2]
    return default


TRAIN = Verb("train", summary_of(train_with(DEFAULT_RECIPE)), run_with_recipe, can_continue=True)
