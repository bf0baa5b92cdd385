"""The verb `units`."""

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
    split: str = "held-out",
    device: DeviceName = "auto",
) -> Output:
    """Write a page of the clips to which each unit responds most, with maps, sounds and classes.

    Args:
        shards: Folder that `prepare` wrote; with labels the units are named.
        out: The page, one HTML file without external parts.
        top: Clips per unit, each of another video.
        per_clip: Moments of each clip that are measured; a video counts with its strongest one.
        split: held-out, all, or the name of a split.
    """
    from looklisten.app.pages.unit_page import write_unit_page
    from looklisten.data.shards import Shards
    from looklisten.evaluation.units.naming import units
    from looklisten.model.networks import open_network

    check_writable_file(out)
    opened = open_network(network, device)
    all_clips = Shards(shards)
    model = opened.l3net
    clips = all_clips.split(split, opened.split.held_out_fraction)
    with ProgressBar("units: clips") as progress:
        result = units(model, clips, top, per_clip, opened.seed, progress)
    with ProgressBar("units: moments drawn") as progress:
        page = write_unit_page(out, result, model, progress)
    return Output(result.as_dict() | page)
