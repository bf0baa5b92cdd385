"""The verb `adapt`: fit a network to own footage, without labels."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro
from tyro.conf import Positional

from looklisten.app.command_line import DeviceName, NetworkName
from looklisten.app.output import Output
from looklisten.app.terminal import ProgressBar
from looklisten.system.files import check_writable
from looklisten.training.frozen_towers.options import AdaptOptions

if TYPE_CHECKING:
    from looklisten.training.frozen_towers.adapt import AdaptResult

_DEFAULTS = AdaptOptions()


def run_adapt(
    shards: Positional[str],
    /,
    checkpoint: NetworkName = "start",
    run: Annotated[Path, tyro.conf.arg(aliases=["-o", "--out"])] = Path("runs") / "adapted",
    device: DeviceName = "auto",
    options: Annotated[AdaptOptions, tyro.conf.arg(name="")] = _DEFAULTS,
) -> Output:
    """Fit a network to your own footage in minutes, without labels: its fusion, not its towers.

    It says how often a frame's own sound beats another one before and after, on videos that it did
    not train on. A network that gets no better stays as it was.

    Args:
        shards: Folder that `prepare` wrote.
        checkpoint: The network to begin with.
        run: Folder of the run, which the other verbs take as a checkpoint.
    """
    from looklisten.training.frozen_towers.adapt import adapt

    check_writable(run)
    with ProgressBar("adapt: features, then steps") as progress:
        result = adapt(shards, checkpoint, run, options, device, progress)
    return Output(asdict(result), message=gain_in_words(result))


def gain_in_words(result: "AdaptResult") -> str:
    """What the figures do not say by themselves; "" for a gain that is no chance."""
    if not result.is_better:
        return f"{result.path} holds the network as it was: it got no better"
    if result.gain_ci95[0] <= 0:
        return "the gain may be chance: its 95 % interval holds 0; measure on more videos"
    return ""
