"""The verb `inspect`: a summary of shards, and a page of training pairs."""

from pathlib import Path
from typing import Annotated

import tyro
from tyro.conf import Positional

from looklisten.app.command_line import check_writable_file
from looklisten.app.output import Output
from looklisten.app.terminal import ProgressBar
from looklisten.config import Config
from looklisten.option_checks import check_at_least


def run_inspect(
    shards: Positional[str],
    /,
    pairs: int = 0,
    config: str = "tiny",
    seed: int = 0,
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = Path("pairs.html"),
) -> Output:
    """Summarize shards: clips, hours, images, labels, marks; with --pairs also a page of pairs.

    Args:
        shards: Folder that `prepare` wrote.
        pairs: Write a page with this many pairs as training sees and hears them, half of them
            positive; fewer with train.empty_sound_share.
        config: Recipe of the training that the pairs are from: tiny, l3, or a TOML file.
        seed: The seed of that training.
        out: The page.
    """
    from looklisten.app.pages.pair_page import write_pair_page
    from looklisten.data.inspection import inspect
    from looklisten.data.shards import Shards

    check_at_least(0, pairs=pairs)
    # The pairs depend on the recipe: it sets the crop, the front end and the size of a batch.
    training_config = Config.load(config).changed("train", seed=seed)
    if pairs:
        check_writable_file(out)
    with ProgressBar("inspect: image sizes") as progress:
        summary = inspect(shards, progress)
    if pairs:
        summary["pairs"] = write_pair_page(out, Shards(shards), training_config, pairs)
    return Output(summary)
