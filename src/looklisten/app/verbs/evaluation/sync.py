"""The verb `sync`: a video -> by how much its sound is early or late."""

from pathlib import Path
from typing import Annotated

import tyro
from tyro.conf import Positional

from looklisten.app.command_line import DEFAULT_NETWORK, DeviceName, NetworkName
from looklisten.app.output import Output
from looklisten.app.terminal import ProgressBar
from looklisten.evaluation.sync.options import SyncOptions

_DEFAULTS = SyncOptions()


def run_sync(
    clip: Annotated[Positional[Path], tyro.conf.arg(metavar="CLIP")],
    /,
    checkpoint: NetworkName = DEFAULT_NETWORK,
    device: DeviceName = "auto",
    options: Annotated[SyncOptions, tyro.conf.arg(name="")] = _DEFAULTS,
) -> Output:
    """Tell by how much the sound of a video is early or late, or why nobody can tell.

    It needs a network that was trained with --train.negatives same-video.

    Args:
        clip: A video with frames and sound.
    """
    from looklisten.media.isolation.parent import warm_up

    # The decoder's process starts while PyTorch is imported, which saves its start time.
    warm_up()
    from looklisten.evaluation.sync.sync import sync

    with ProgressBar("sync: parts") as progress:
        result = sync(clip, checkpoint, options, device, progress)
    message = f"cannot tell: {result.reason}" if result.reason else ""
    return Output(result.as_dict(), message=message)
