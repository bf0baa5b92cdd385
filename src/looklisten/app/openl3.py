"""`looklisten openl3`: OpenL3's command line, flag by flag. argparse reads it, since tyro knows no
short flags of two letters.
"""

import logging
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from looklisten.app.terminal import Bar
from looklisten.errors import SourceError
from looklisten.media.formats import AUDIO_SUFFIXES, IMAGE_SUFFIXES, VIDEO_SUFFIXES

SUFFIXES_OF_MODALITY = {
    "audio": AUDIO_SUFFIXES,
    "image": IMAGE_SUFFIXES,
    "video": VIDEO_SUFFIXES,
}
"""What is taken from a folder; a file named by itself is tried whatever its name."""


def run(arguments: Sequence[str]) -> dict[str, Any]:
    """What the command line asks for: counts, and the sentences of inputs that failed; nothing when
    all is well and --quiet.
    """
    args = parser().parse_args(arguments)
    with _only_warnings(args.quiet):
        return _run(args)


@contextmanager
def _only_warnings(quiet: bool) -> Iterator[None]:
    """With `quiet`, no information is logged; afterwards the logger is as it was."""
    logger = logging.getLogger("looklisten")
    level = logger.level
    if quiet:
        logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)


def _run(args: Namespace) -> dict[str, Any]:
    sources = find(args.inputs, args.modality, args.output_dir)
    outcomes = _embed(args, sources)
    done = {
        name: sum(len(outcome[name]) for outcome in outcomes) for name in ("written", "skipped")
    }
    failures = {
        path: reason for outcome in outcomes for path, reason in outcome["failures"].items()
    }
    failed: dict[str, Any] = (
        {"failed": len(failures), "failures": failures} if failures else {"failed": 0}
    )
    if args.quiet:
        return failed if failures else {}
    return {"inputs": len(sources)} | done | failed


def _embed(args: Namespace, sources: dict[str, str | None]) -> list[dict[str, Any]]:
    from looklisten.interop.openl3 import files, models

    how = {"weights": args.weights, "device": args.device, "precision": args.precision}
    words = (args.input_repr, args.content_type)
    outcomes = []
    if args.modality in ("audio", "video"):
        with Bar("weights: MB", args.quiet) as bar:
            hears = models.load_audio_embedding_model(
                *words, args.audio_embedding_size, args.audio_frontend, progress=bar, **how
            )
        with Bar("openl3: sounds", args.quiet) as bar:
            outputs = files.Outputs(args.suffix, args.overwrite, not args.quiet, bar)
            word = "audio" if args.modality == "video" else ""
            heard = (not args.no_audio_centering, args.audio_hop_size, args.audio_batch_size)
            outcomes.append(files.embed_audio(sources, hears, outputs, *heard, word=word))
    if args.modality in ("image", "video"):
        with Bar("weights: MB", args.quiet) as bar:
            sees = models.load_image_embedding_model(
                *words, args.image_embedding_size, progress=bar, **how
            )
        with Bar(
            "openl3: pictures" if args.modality == "image" else "openl3: videos", args.quiet
        ) as bar:
            outputs = files.Outputs(args.suffix, args.overwrite, not args.quiet, bar)
            embed = files.embed_images if args.modality == "image" else files.embed_frames
            outcomes.append(embed(sources, sees, outputs, args.image_batch_size))
    return [asdict(outcome) for outcome in outcomes]


def find(inputs: Sequence[str], modality: str, output_dir: str | None) -> dict[str, str | None]:
    """The files that `inputs` name, each with the folder that its vectors go to.

    A folder is searched through, below too, and what lies below goes into folders of the same
    names. Raises SourceError.
    """
    found: dict[str, str | None] = {}
    for given in map(Path, inputs):
        if not given.exists():
            raise SourceError(f"there is no file or folder {given}")
        if given.is_file():
            found[str(given)] = output_dir
            continue
        inside = [
            path
            for path in sorted(given.rglob("*"))
            if path.suffix.lower() in SUFFIXES_OF_MODALITY[modality] and path.is_file()
        ]
        for path in inside:
            if not any(part.startswith(".") for part in path.relative_to(given).parts):
                found[str(path)] = (
                    None
                    if output_dir is None
                    else str(Path(output_dir) / path.parent.relative_to(given))
                )
    if not found:
        kinds = ", ".join(sorted(SUFFIXES_OF_MODALITY[modality])[:6])
        raise SourceError(
            f"{', '.join(inputs)} holds no {modality} file (looked for {kinds} … in it and below)"
        )
    return found


def parser() -> ArgumentParser:
    """OpenL3's flags, with its short forms and defaults; the last group is ours."""
    about = "Vectors of OpenL3's networks into .npz files, as OpenL3's own command writes them."
    flags = ArgumentParser("looklisten openl3", description=about)
    add = flags.add_argument
    add("modality", choices=["audio", "image", "video"], help="what the inputs are")
    add("inputs", nargs="+", metavar="INPUT", help="file, or folder (searched below too)")
    add("--output-dir", "-o", help="folder of the .npz files; by default that of the input")
    add("--suffix", "-x", help="written as NAME_SUFFIX.npz")
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
        help="times are the beginnings of the windows, not their middles",
    )
    add(
        "--audio-hop-size",
        "-t",
        type=_positive(float),
        default=0.1,
        metavar="SECONDS",
        help="between windows",
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
        help="length of a vector of a picture",
    )
    add(
        "--image-batch-size",
        "-ib",
        type=_positive(int),
        default=32,
        metavar="N",
        help="pictures at a time",
    )
    add(
        "--audio-frontend",
        "-af",
        choices=["kapre", "librosa"],
        default="kapre",
        help="whose spectrogram; both are computed here",
    )
    add("--overwrite", "-ow", action="store_true", help="compute anew what is there already")
    add("--quiet", "-q", action="store_true", help="say nothing but errors")
    ours = flags.add_argument_group("beyond OpenL3").add_argument
    ours(
        "--weights",
        metavar="PLACE",
        help="weight file, folder of such, or address; by default the published ones, fetched once",
    )
    ours("--device", default="auto", help="auto, cpu, cuda, mps")
    ours(
        "--precision",
        choices=["float32", "bfloat16", "auto"],
        default="float32",
        help="bfloat16 is faster, cosine above 0.999",
    )
    return flags


def _positive(kind: type) -> Callable[[str], Any]:
    def read(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = 0
        if not 0 < value < float("inf"):
            raise ArgumentTypeError(
                f"{text!r} is no {'whole ' if kind is int else ''}number above 0"
            )
        return value

    return read
