"""The command line of OpenL3, flag by flag, for the verb `openl3`.

argparse reads it, because tyro has no short flags of two letters.
"""

import logging
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from looklisten.app.terminal import ProgressBar
from looklisten.errors import SourceError
from looklisten.media.formats import AUDIO_SUFFIXES, IMAGE_SUFFIXES, VIDEO_SUFFIXES
from looklisten.system.files import check_writable
from looklisten.system.folders import files_with_suffix

SUFFIXES_OF_MODALITY = {
    "audio": AUDIO_SUFFIXES,
    "image": IMAGE_SUFFIXES,
    "video": VIDEO_SUFFIXES,
}
"""Files that are taken from a folder. A file that is named itself can have any suffix."""

SUFFIXES_IN_ERROR = 6


def embed_with_openl3(arguments: Sequence[str]) -> dict[str, Any]:
    """Run the command line: counts of inputs and outputs, and why inputs failed.

    With --quiet only failures are returned.
    """
    flags = parser().parse_args(arguments)
    with _warnings_only(flags.quiet):
        if flags.output_dir:
            # Before the work, and before a network is downloaded.
            check_writable(Path(flags.output_dir))
        sources = folders_by_file(flags.inputs, flags.modality, flags.output_dir)
        return _embed(flags, sources)


@contextmanager
def _warnings_only(quiet: bool) -> Iterator[None]:
    """With `quiet`, log no information inside of the block."""
    logger = logging.getLogger("looklisten")
    level = logger.level
    if quiet:
        logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        # The logger is the whole program's, which goes on after this call.
        logger.setLevel(level)


def _embed(flags: Namespace, sources: dict[str, str | None]) -> dict[str, Any]:
    """Embed the sound of the sources, their images, or (of videos) both."""
    written = skipped = 0
    failures: dict[str, str] = {}
    # Of a video both sides are embedded, as OpenL3 does, into two files.
    steps = {
        "audio": [_embed_sound],
        "image": [_embed_images],
        "video": [_embed_sound, _embed_images],
    }
    for step in steps[flags.modality]:
        outcome = step(flags, sources)
        written += len(outcome.written)
        skipped += len(outcome.skipped)
        failures |= outcome.failures
    result: dict[str, Any] = {}
    if not flags.quiet:
        result |= {"inputs": len(sources), "written": written, "skipped": skipped}
    if failures or not flags.quiet:
        result["failed"] = len(failures)
    if failures:
        result["failures"] = failures
    return result


def _embed_sound(flags: Namespace, sources: dict[str, str | None]) -> Any:
    # Imported only here, so that `--help` does not load PyTorch.
    from looklisten.interop.openl3 import files, models

    model = models.load_audio_embedding_model(
        flags.input_repr,
        flags.content_type,
        flags.audio_embedding_size,
        flags.audio_frontend,
        weights=flags.weights,
        device=flags.device,
        precision=flags.precision,
    )
    with ProgressBar("openl3: sounds", flags.quiet) as progress:
        return files.embed_audio(
            sources,
            model,
            files.OutputOptions(flags.suffix, flags.overwrite, not flags.quiet, progress),
            not flags.no_audio_centering,
            flags.audio_hop_size,
            flags.audio_batch_size,
            prefix="audio" if flags.modality == "video" else "",
        )


def _embed_images(flags: Namespace, sources: dict[str, str | None]) -> Any:
    from looklisten.interop.openl3 import files, models

    model = models.load_image_embedding_model(
        flags.input_repr,
        flags.content_type,
        flags.image_embedding_size,
        weights=flags.weights,
        device=flags.device,
        precision=flags.precision,
    )
    is_video = flags.modality == "video"
    embed = files.embed_frames if is_video else files.embed_images
    title = "openl3: videos" if is_video else "openl3: images"
    with ProgressBar(title, flags.quiet) as progress:
        outputs = files.OutputOptions(flags.suffix, flags.overwrite, not flags.quiet, progress)
        return embed(sources, model, outputs, flags.image_batch_size)


def folders_by_file(
    inputs: Sequence[str], modality: str, output_dir: str | None
) -> dict[str, str | None]:
    """The files that `inputs` name, each with the folder of its vectors (None: the file's own).

    The subfolders of a folder are searched too, and appear again in `output_dir`.
    Raises SourceError.
    """
    folders: dict[str, str | None] = {}
    for path in map(Path, inputs):
        # A typing error must not end as a set of vectors with a missing part.
        if not path.exists():
            raise SourceError(f"there is no file or folder {path}")
        if path.is_file():
            folders[str(path)] = output_dir
            continue
        for file in files_with_suffix(path, SUFFIXES_OF_MODALITY[modality]):
            subfolder = file.parent.relative_to(path)
            folders[str(file)] = None if output_dir is None else str(Path(output_dir) / subfolder)
    if not folders:
        suffixes = ", ".join(sorted(SUFFIXES_OF_MODALITY[modality])[:SUFFIXES_IN_ERROR])
        raise SourceError(
            f"{', '.join(inputs)} holds no {modality} file (looked for {suffixes} … in it and its "
            "subfolders)"
        )
    return folders


def parser() -> ArgumentParser:
    """OpenL3's flags, with its short forms and defaults; the last group is not OpenL3's."""
    # Names and defaults are OpenL3's, so that its command lines work unchanged.
    description = "Write the vectors of OpenL3's networks into .npz files, as OpenL3 writes them."
    flags = ArgumentParser("looklisten openl3", description=description)
    add = flags.add_argument
    add("modality", choices=["audio", "image", "video"], help="what the inputs are")
    add("inputs", nargs="+", metavar="INPUT", help="file, or folder (searched with subfolders)")
    add("--output-dir", "-o", help="folder of the .npz files; by default that of the input")
    add("--suffix", "-x", help="files are named NAME_SUFFIX.npz")
    add(
        "--input-repr",
        "-i",
        choices=["linear", "mel128", "mel256"],
        default="mel256",
        help="spectrogram of the network for sound",
    )
    add(
        "--content-type",
        "-c",
        choices=["music", "env"],
        default="music",
        help="what the network was trained on",
    )
    add(
        "--audio-embedding-size",
        "-as",
        type=int,
        choices=[6144, 512],
        default=6144,
        help="length of a vector of sound",
    )
    add(
        "--no-audio-centering",
        "-n",
        action="store_true",
        help="times are the starts of the windows, not their middles",
    )
    add(
        "--audio-hop-size",
        "-t",
        type=_positive(float),
        default=0.1,
        metavar="SECONDS",
        help="time from one window to the next",
    )
    add(
        "--audio-batch-size",
        "-ab",
        type=_positive(int),
        default=32,
        metavar="N",
        help="windows at a time",
    )
    add(
        "--image-embedding-size",
        "-is",
        type=int,
        choices=[8192, 512],
        default=8192,
        help="length of a vector of an image",
    )
    add(
        "--image-batch-size",
        "-ib",
        type=_positive(int),
        default=32,
        metavar="N",
        help="images at a time",
    )
    add(
        "--audio-frontend",
        "-af",
        choices=["kapre", "librosa"],
        default="kapre",
        help="whose spectrogram; looklisten computes both",
    )
    add("--overwrite", "-ow", action="store_true", help="compute files again that exist")
    add("--quiet", "-q", action="store_true", help="print errors only")
    add_own = flags.add_argument_group("not in OpenL3").add_argument
    add_own(
        "--weights",
        metavar="SOURCE",
        help="weight file, folder of weight files, or address; by default the published ones, "
        "downloaded once",
    )
    add_own("--device", default="auto", help="auto, cpu, cuda, mps")
    add_own(
        "--precision",
        choices=["float32", "bfloat16", "auto"],
        default="float32",
        help="bfloat16 is faster; its vectors have a cosine above 0.999 with those of float32",
    )
    return flags


def _positive(kind: type) -> Callable[[str], Any]:
    """A reader of numbers above 0, for argparse."""

    def read(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = 0
        # Written so that it refuses NaN too, with which every comparison is false.
        if not 0 < value < float("inf"):
            number = "whole number" if kind is int else "number"
            raise ArgumentTypeError(f"{text!r} is no {number} above 0")
        return value

    return read
