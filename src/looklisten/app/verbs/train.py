"""The verb `train`."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import tyro
from tyro.conf import Positional

from looklisten.app.command_line import UsageError
from looklisten.app.output import Result
from looklisten.app.terminal import Bar
from looklisten.config import Config
from looklisten.system.files import check_writable


def train_with(recipe: str) -> Callable[..., Result]:
    """The verb `train`, its options' defaults being those of `recipe`."""
    settings = Config.load(recipe)
    name = Path(recipe).stem

    def train(
        shards: Positional[str],
        /,
        config: str = recipe,  # noqa: ARG001 (read before the other options, for their defaults)
        # torchrun reads every option first and finds --run ambiguous, hence another name.
        run: Annotated[Path, tyro.conf.arg(aliases=["-o", "--out"])] = Path("runs") / name,
        device: str = "auto",
        resume: Literal["auto", "never", "other-data"] = "auto",
        overfit: int = 0,
        sweep: tuple[str, ...] = (),
        sweep_steps: int = 300,
        settings: Annotated[Config, tyro.conf.arg(name="")] = settings,
    ) -> Result:
        """Train L3-Net on shards, without a label. Run it again to go on where it stopped.

        Under torchrun (`torchrun --nproc-per-node=4 -m looklisten train … -o RUN`) the processes
        share each batch.

        Args:
            shards: Folder that `prepare` wrote.
            config: Recipe: tiny, l3, ave, avol, contrastive, similarity, dense, baselines/direct
                (and others there), or a TOML file. Its values are the defaults of the options
                below.
            run: Folder of the run: config.toml, metrics.jsonl, tensorboard/, checkpoints/. Under
                torchrun write -o, as it has a --run of its own.
            device: auto, cpu, cuda, cuda:1, mps.
            resume: Go on where the folder's run stopped (auto); refuse a folder that holds one
                (never); or go on even if the shards are others and train on videos that were held
                out before (other-data).
            overfit: Instead of a run: can so many videos be learnt by heart within a minute?
            sweep: Instead of a run: short ones with each of these values, such as lr=1e-5,3e-5,1e-4
                (lr is train.learning_rate; several settings make every combination), and which is
                best.
            sweep_steps: Steps of each short run.
            settings: What the recipe says; any of it can be changed here.
        """
        from looklisten.training.loop import train as run_training
        from looklisten.training.overfit import overfit as learn_by_heart
        from looklisten.training.sweep import sweep as run_sweep

        if not overfit:
            check_writable(run)
        if overfit and sweep:
            raise UsageError("--overfit and --sweep are two questions; ask one at a time")
        if overfit:
            with Bar("overfit: seconds") as bar:
                return asdict(learn_by_heart(shards, settings, overfit, device, progress=bar))
        if sweep:
            with Bar("sweep: steps") as bar:
                return run_sweep(shards, settings, run, sweep, sweep_steps, device, bar).as_dict()
        with Bar("train: steps") as bar:
            return asdict(run_training(shards, settings, run, device, bar, resume))

    return train
