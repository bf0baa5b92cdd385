"""The verb `baselines`."""

from pathlib import Path
from typing import Annotated

import tyro
from tyro.conf import Positional

from looklisten.app.command_line import UsageError
from looklisten.app.output import Result
from looklisten.app.terminal import Bar
from looklisten.config import Config
from looklisten.system.files import check_writable


def baselines(
    shards: Positional[str],
    /,
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = Path("runs/baselines"),
    config: str = "tiny",
    steps: int | None = None,
    seeds: str = "0,1,2",
    pairs: int = 4000,
    teacher: Path | None = None,
    device: str = "auto",
) -> Result:
    """The paper's correspondence table on labelled shards: supervised baselines, a fixed teacher,
    L3-Net. Run again it goes on.

    Args:
        shards: Labelled shards (`prepare` of a table with a column label).
        out: Folder of the table: results.json, and seed-N/ with a run for each row.
        config: Recipe of all rows: network, batch, rate, steps.
        steps: Steps of each run; by default the recipe's.
        seeds: Joined by commas; each trains every row once.
        pairs: At least so many held-out pairs, half of them positive, the same for all rows.
        teacher: Checkpoint whose vision tower is the fixed teacher; by default the supervised one.
        device: auto, cpu, cuda, mps.
    """
    from looklisten.training.baselines import baselines as run

    if not all(seed.strip().isdecimal() for seed in seeds.split(",")):
        raise UsageError(
            f"--seeds are whole numbers joined by commas, such as 0,1,2; not {seeds!r}"
        )
    settings = Config.load(config)
    check_writable(out)
    if steps is not None:
        settings = settings.changed("train", steps=steps)
    with Bar("baselines: steps") as bar:
        return run(
            shards,
            out,
            settings,
            [int(seed) for seed in seeds.split(",")],
            pairs,
            teacher,
            device,
            bar,
        ).as_dict()
