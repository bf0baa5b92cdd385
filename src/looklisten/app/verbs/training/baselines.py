"""The verb `baselines`: the paper's correspondence table."""

from pathlib import Path
from typing import Annotated

import tyro
from tyro.conf import Positional

from looklisten.app.command_line import DeviceName, UsageError
from looklisten.app.output import Output
from looklisten.app.terminal import ProgressBar
from looklisten.config import Config
from looklisten.option_checks import check_at_least
from looklisten.system.files import check_writable


def run_baselines(
    shards: Positional[str],
    /,
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = Path("runs/baselines"),
    config: str = "tiny",
    steps: int | None = None,
    seeds: str = "0,1,2",
    pairs: int = 4000,
    teacher: Path | None = None,
    device: DeviceName = "auto",
) -> Output:
    """Measure the paper's correspondence table: supervised baselines, a fixed teacher, L3-Net.

    Run it again to continue where it stopped.

    Args:
        shards: Labeled shards (`prepare` of a table with a column label).
        out: Folder of the table: results.json, and seed-N/ with one run per row.
        config: Recipe of all rows: network, batch size, learning rate, steps.
        steps: Steps of each run; by default the recipe's.
        seeds: Seeds joined by commas; every row is trained once with each.
        pairs: Evaluate at least this many held-out pairs, half of them positive, the same for all
            rows.
        teacher: Checkpoint whose vision tower is the fixed teacher; by default the supervised one.
    """
    from looklisten.training.baselines import baselines

    check_at_least(1, steps=steps, pairs=pairs)
    # Wrong options must be reported before the first of many trainings.
    seed_numbers = _numbers(seeds)
    recipe = Config.load(config)
    check_writable(out)
    if steps is not None:
        recipe = recipe.changed("train", steps=steps)
    with ProgressBar("baselines: steps") as progress:
        table = baselines(shards, out, recipe, seed_numbers, pairs, teacher, device, progress)
    return Output(table.as_dict())


def _numbers(seeds: str) -> list[int]:
    words = [word.strip() for word in seeds.split(",")]
    if not all(word.isdecimal() for word in words):
        raise UsageError(
            f"--seeds are whole numbers joined by commas, such as 0,1,2; not {seeds!r}"
        )
    return [int(word) for word in words]
