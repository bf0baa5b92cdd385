"""The verb `embed`."""

from pathlib import Path
from typing import Annotated, Literal

import tyro
from tyro.conf import Positional

from looklisten.app.command_line import DeviceName, NetworkName, UsageError
from looklisten.app.output import Output
from looklisten.app.terminal import ProgressBar
from looklisten.system.files import check_writable


def run_embed(
    inputs: Annotated[Positional[tuple[str, ...]], tyro.conf.arg(metavar="INPUTS...")],
    /,
    checkpoint: NetworkName = "runs/tiny",
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = Path("embedded"),
    modality: Literal["auto", "audio", "image", "video"] = "auto",
    layer: str | None = None,
    hop_seconds: float = 0.5,
    center: bool = False,
    normalize: bool = False,
    align: bool = False,
    dense: bool = False,
    format: Literal["npz", "parquet", "jsonl"] = "npz",
    overwrite: bool = False,
    precision: Literal["float32", "bfloat16"] = "float32",
    batch_size: int = 32,
    again: bool = False,
    stall_seconds: float = 120.0,
    memory_megabytes: int = 4096,
    device: DeviceName = "auto",
) -> Output:
    """Write the vectors of sounds, images and videos into files; run it again to add files.

    Args:
        inputs: Files, folders, globs, text lists or tables with a column path; subfolders are
            searched too.
        out: Folder for the vectors, in the structure of the inputs; a.wav gives a.wav.npz.
        modality: The sound (audio), the image (image), both (video), or what a file has (auto).
        layer: pool4 (512 numbers), conv4_2 (6144 of sound, 8192 of images), aligned (128, of
            networks with fusion distance), texture (7680, of sound); by default pool4.
        hop_seconds: Seconds from one window of sound, or frame, to the next.
        center: Put half a window of silence before a sound, so that window k is centered at k hops.
        normalize: Vectors of length 1.
        align: Of videos: for each window of sound the frame nearest to its middle.
        dense: Compute sound in one run of the tower instead of one per window; fast for short hops.
            Windows then depend on the sound around them.
        format: npz (arrays audio, vision and their start_seconds), parquet or jsonl (one row per
            vector).
        overwrite: Embed files again that are done.
        precision: Arithmetic; bfloat16 is faster where the processor supports it.
        batch_size: Windows or frames computed at once on a GPU.
        again: Open files again that crashed the decoder in an earlier run.
        stall_seconds: Give up a file if decoding does not advance by one second in this time.
        memory_megabytes: Memory that decoding can use for one file.
    """
    from looklisten.media.isolation.parent import warm_up

    # The decoder's process starts while PyTorch is imported, which saves its start time.
    warm_up()
    from looklisten.inference.embedding.files import Plan, embed_files
    from looklisten.inference.embedding.stream import How
    from looklisten.media.isolation.limits import WorkerLimits
    from looklisten.model.networks import open_network

    if not inputs:
        raise UsageError("embed needs files or folders: looklisten embed INPUTS... -o OUT")
    check_writable(out)
    how = How(layer, hop_seconds, center, normalize, dense, batch_size)
    limits = WorkerLimits(stall_seconds=stall_seconds, memory_megabytes=memory_megabytes)
    network = open_network(checkpoint, device)
    plan = Plan(
        out,
        how,
        modality,
        align,
        format,
        overwrite,
        checkpoint,
        precision,
        network.step,
        again,
        limits,
    )
    with ProgressBar("embed: files") as progress:
        return Output.of_inputs(embed_files(inputs, network.network, plan, progress))
