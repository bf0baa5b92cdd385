"""The verb `units`: a page of what each unit responds to."""

from pathlib import Path
from typing import Annotated

import tyro
from tyro.conf import Positional

from looklisten.app.command_line import NETWORK_HELP, DeviceName, check_writable_file
from looklisten.app.output import Output
from looklisten.app.terminal import ProgressBar


def run_units(
    network: Annotated[Positional[str], tyro.conf.arg(metavar="RUN", help=NETWORK_HELP)],
    shards: Annotated[Positional[str], tyro.conf.arg(metavar="SHARDS")],
    /,
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = Path("gallery.html"),
    top: int = 5,
    per_clip: int = 1,
    split: str | None = None,
    device: DeviceName = "auto",
) -> Output:
    """Write a page of the clips to which each unit responds most, with maps, sounds and classes.

    Args:
        shards: Folder that `prepare` wrote; with labels the units are named.
        out: The page, one HTML file without external parts.
        top: Clips per unit, each of another video.
        per_clip: Moments of each clip that are measured; a video counts with its strongest one.
        split: held-out, all, or the name of a split; by default the videos that the training held
            out, and all where it trained on none of these.
    """
    from looklisten.app.pages.unit_page import write_unit_page
    from looklisten.data.shards import Shards
    from looklisten.evaluation.held_out import clips_of_split
    from looklisten.evaluation.units.naming import units
    from looklisten.model.networks import open_network

    # Before the network runs, so that the error does not come after minutes of work.
    check_writable_file(out)
    run = open_network(network, device)
    # Nothing is measured of weights that no video has changed.
    if split is None and run.is_untrained:
        split = "all"
    clips = clips_of_split(run, Shards(shards), split)
    with ProgressBar("units: clips") as progress:
        result = units(run, clips, top, per_clip, progress=progress)
    with ProgressBar("units: moments drawn") as progress:
        page = write_unit_page(out, result, run.l3net, progress)
    return Output(run.named_facts | result.as_dict() | page)
