"""The verb `embed`: files of vectors of sounds, images and videos."""

from pathlib import Path
from typing import Annotated

import tyro
from tyro.conf import OmitArgPrefixes, Positional

from looklisten.app.command_line import DEFAULT_NETWORK, DeviceName, NetworkName, UsageError
from looklisten.app.output import Output
from looklisten.app.terminal import ProgressBar
from looklisten.inference.embedding.options import EmbedFilesOptions
from looklisten.system.files import check_writable

_DEFAULTS = EmbedFilesOptions()


def run_embed(
    inputs: Annotated[Positional[tuple[str, ...]], tyro.conf.arg(metavar="INPUTS...")],
    /,
    checkpoint: NetworkName = DEFAULT_NETWORK,
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = Path("embedded"),
    device: DeviceName = "auto",
    # One record is inside of the other; without prefixes the names of options do not show it.
    options: Annotated[OmitArgPrefixes[EmbedFilesOptions], tyro.conf.arg(name="")] = _DEFAULTS,
) -> Output:
    """Write the vectors of sounds, images and videos into files; run it again to add files.

    Args:
        inputs: Files, folders, globs, text lists or tables with a column path; subfolders are
            searched too.
        out: Folder for the vectors, in the structure of the inputs; a.wav gives a.wav.npz.
    """
    from looklisten.media.isolation.parent import warm_up

    # The decoder's process starts while PyTorch is imported, which saves its start time.
    warm_up()
    from looklisten.inference.embedding.files import embed_files
    from looklisten.model.networks import open_network

    if not inputs:
        raise UsageError("embed needs files or folders: looklisten embed INPUTS... -o OUT")
    check_writable(out)
    network = open_network(checkpoint, device)
    with ProgressBar("embed: files") as progress:
        summary = embed_files(
            inputs, network.network, out, options, checkpoint, network.step, progress
        )
    return Output.of_inputs(summary, out)
