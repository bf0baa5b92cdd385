"""The verb `units`."""

from pathlib import Path
from typing import Annotated

import tyro
from tyro.conf import Positional

from looklisten.app.command_line import check_writable_file
from looklisten.app.output import Result
from looklisten.app.terminal import Bar


def units(
    network: Annotated[Positional[str], tyro.conf.arg(metavar="RUN")],
    shards: Annotated[Positional[str], tyro.conf.arg(metavar="SHARDS")],
    /,
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = Path("gallery.html"),
    top: int = 5,
    per_clip: int = 1,
    split: str = "held-out",
    device: str = "auto",
) -> Result:
    """What each unit of both towers looks and listens for: a page of the clips that fire it most,
    with maps, sounds and classes.

    Args:
        network: Folder of a run, of one checkpoint or of a published network, or a name on the
            Hugging Face Hub (org/name).
        shards: Folder that `prepare` wrote; labels name the units, and none are needed.
        out: The page, one HTML file that needs nothing else.
        top: Clips shown of each unit, each of another video.
        per_clip: Moments of each clip that are looked at; the one that fires a unit most stands for
            its video.
        split: held-out, all, or a split's name.
        device: auto, cpu, cuda, mps.
    """
    from looklisten.app.pages.unit_page import write_unit_page
    from looklisten.data.shards import Shards
    from looklisten.evaluation.units.naming import units as run
    from looklisten.model.networks import open_network

    check_writable_file(out)
    opened, data = open_network(network, device), Shards(shards)
    model = opened.l3net
    clips = data.split(split, data.held_out_mask(opened.split.held_out_fraction))
    with Bar("units: clips") as bar:
        found = run(model, clips, top, per_clip, opened.seed, bar)
    with Bar("units: moments drawn") as bar:
        return found.as_dict() | write_unit_page(out, found, model, bar)
