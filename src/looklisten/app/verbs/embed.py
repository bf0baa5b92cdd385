"""The verb `embed`."""

from pathlib import Path
from typing import Annotated, Literal

import tyro
from tyro.conf import Positional

from looklisten.app.command_line import UsageError
from looklisten.app.output import Result
from looklisten.app.terminal import Bar
from looklisten.system.files import check_writable


def embed(
    inputs: Annotated[Positional[tuple[str, ...]], tyro.conf.arg(metavar="INPUTS...")],
    /,
    checkpoint: str = "runs/tiny",
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
    retry_crashed: bool = False,
    stall_seconds: float = 120.0,
    memory_megabytes: int = 4096,
    device: str = "auto",
) -> Result:
    """Vectors of sounds, pictures and videos: a file of vectors and times for each. Run it again to
    finish or to add files.

    Args:
        inputs: Files, folders, globs, text lists or tables with a column path; folders are searched
            below too.
        checkpoint: Folder of a run or of one checkpoint.
        out: Folder for the vectors, in the structure of the inputs; a.wav gives a.wav.npz.
        modality: The sound (audio), the picture (image), both (video), or what a file has (auto).
        layer: pool4 (512 numbers), conv4_2 (6144 of sound, 8192 of pictures), aligned (128, of
            networks with fusion distance), texture (7680, of sound); by default pool4.
        hop_seconds: Seconds from one window of sound, or frame, to the next.
        center: Half a window of silence goes in front of a sound, so that windows have multiples of
            the hop in their middle.
        normalize: Vectors of length 1.
        align: Of videos: the sound's windows, and for each the frame nearest to its middle.
        dense: Sound in one run of the tower instead of one a window; fast for short hops, windows
            see beyond their borders.
        format: npz (arrays audio, vision and their start_seconds), parquet or jsonl (a row a
            vector).
        overwrite: Do again what is done.
        precision: Arithmetic; bfloat16 is faster where the processor has it.
        batch_size: Windows or frames computed at once on a GPU.
        retry_crashed: Open files again that crashed the decoder in an earlier run.
        stall_seconds: A file that does not get on by a second for so long is given up.
        memory_megabytes: What decoding may take for one file.
        device: auto, cpu, cuda, mps.
    """
    from looklisten.media.isolation.parent import warm_up

    warm_up()  # beside loading PyTorch, so that nobody waits for it
    from looklisten.inference.embedding.files import embed_files
    from looklisten.inference.embedding.options import EmbedFilesOptions, EmbedOptions
    from looklisten.interop.loading import load_with_step
    from looklisten.system.devices import choose_device

    if not inputs:
        raise UsageError("embed needs files or folders: looklisten embed INPUTS... -o OUT")
    check_writable(out)
    vectors = EmbedOptions(layer, hop_seconds, center, normalize, dense, batch_size, precision)
    options = EmbedFilesOptions(
        vectors, modality, align, format, overwrite, retry_crashed, stall_seconds, memory_megabytes
    )
    model, step = load_with_step(checkpoint)
    if hasattr(model, "to"):
        model = model.to(choose_device(device).value)
    with Bar("embed: files") as bar:
        return embed_files(inputs, model, out, options, checkpoint, step, bar)
