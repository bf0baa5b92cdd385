"""The verb `inspect`."""

from pathlib import Path
from typing import Annotated

import tyro
from tyro.conf import Positional

from looklisten.app.command_line import check_writable_file
from looklisten.app.output import Result
from looklisten.app.terminal import Bar
from looklisten.config import Config


def inspect(
    shards: Positional[str],
    /,
    pairs: int = 0,
    config: str = "tiny",
    seed: int = 0,
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = Path("pairs.html"),
) -> Result:
    """What a prepared set holds: clips, hours, pictures, labels, marks; with --pairs also a page of
    pairs as training sees them.

    Args:
        shards: Folder that `prepare` wrote.
        pairs: Show so many pairs on a page to look at and listen to, half of them positive.
        config: Recipe of the training whose pairs are shown: tiny, l3, or a TOML file.
        seed: The training's seed, which draws the pairs.
        out: The page.
    """
    from looklisten.data.inspection import inspect as run

    settings = Config.load(config)
    if pairs:
        check_writable_file(out)
    with Bar("inspect: picture sizes") as bar:
        summary = run(shards, bar)
    if not pairs:
        return summary
    from looklisten.app.pages.pair_page import write_pair_page
    from looklisten.data.shards import Shards

    return summary | {
        "pairs": write_pair_page(out, Shards(shards), settings.changed("train", seed=seed), pairs)
    }
