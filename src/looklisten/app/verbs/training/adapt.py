"""The verb `adapt`: fit a network to own footage, without labels."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro
from tyro.conf import Positional

from looklisten.app.command_line import DeviceName, NetworkName
from looklisten.app.output import Output
from looklisten.app.terminal import ProgressBar
from looklisten.training.frozen_towers.options import AdaptOptions

if TYPE_CHECKING:
    from looklisten.training.frozen_towers.adapt import AdaptResult

_DEFAULTS = AdaptOptions()
ENOUGH_MEASURED_VIDEOS = 10
"""Figures of fewer videos are said to mean little."""


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

    with ProgressBar("adapt: features, then steps") as progress:
        result = adapt(shards, checkpoint, run, options, device, progress)
    return Output(asdict(result), message=gain_in_words(result))


def gain_in_words(result: "AdaptResult") -> str:
    """What the figures do not say by themselves, in sentences, one a line."""
    sentences = []
    if result.stopped_early:
        waited = result.steps_taken - result.steps
        sentences.append(
            f"it stopped after step {result.steps_taken}: the {result.choosing_videos} videos that "
            f"choose when to stop got no better in {waited} steps"
        )
    if result.improved_to_the_end:
        sentences.append(
            "the videos that choose when to stop still got better at the last of the "
            f"{result.steps_taken} steps; more --steps may help"
        )
    if not result.is_better:
        sentences.append(
            f"{result.path} holds the network as it was: the measured videos got no better"
        )
    if result.measured_videos < ENOUGH_MEASURED_VIDEOS:
        sentences.append(
            f"the {result.measured_videos} measured videos are too few to tell what it gained; "
            f"prepare more videos, so that {ENOUGH_MEASURED_VIDEOS} or more are measured"
        )
    elif result.is_better and result.gain_ci95[0] <= 0:
        sentences.append(
            "the gain may be chance: its 95 % interval holds 0; measure on more videos"
        )
    return "\n".join(sentences)
