"""Embeds files into .npz files of vectors, under OpenL3's names.

A file is read, embedded and written in batches, whatever its length. Knows paths and formats. Does
not know how a network is built.
"""

import logging
import os
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from looklisten.errors import LookListenError
from looklisten.interop.openl3.audio import audio_model, cut_windows, embed_rows
from looklisten.interop.openl3.errors import OpenL3Error
from looklisten.interop.openl3.images import center_squares, checked_frames, image_model
from looklisten.interop.openl3.networks import OpenL3Net
from looklisten.interop.openl3.reading import (
    read_openl3_frames,
    read_openl3_image,
    read_openl3_sound,
)
from looklisten.system.files import atomic_write, remove_abandoned_scratch
from looklisten.system.progress import Progress, no_progress

_log = logging.getLogger("looklisten")


@dataclass(frozen=True)
class OutputOptions:
    """How the files of vectors are named, and whether existing ones are written again."""

    suffix: str | None = None
    overwrite: bool = False
    verbose: bool = True
    progress: Progress = no_progress


@dataclass
class FilesResult:
    """Which files were written, which were skipped, and which inputs failed."""

    written: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    """OutputOptions that existed already."""
    failures: dict[str, str] = field(default_factory=dict)
    """The reason, by input."""


OutputFolders = Mapping[str, str | None]
"""The folder of the vectors, by input; None: the folder of the input."""


def get_output_path(filepath: str | Path, suffix: str, output_dir: str | Path | None = None) -> str:
    """`DIR/NAME_suffix`, or `DIR/NAME.npz` if the suffix begins with a dot.

    DIR is `output_dir`, by default the folder of the file.
    """
    name = Path(filepath).stem + (suffix if suffix.startswith(".") else f"_{suffix}")
    # Not by pathlib, because OpenL3 gives no `./` in front of a file in the working folder.
    folder = output_dir or os.path.dirname(filepath)  # noqa: PTH120
    return os.path.join(folder, name)  # noqa: PTH118


def process_audio_file(
    filepath: str | Path | list[str],
    output_dir: str | Path | None = None,
    suffix: str | None = None,
    model: OpenL3Net | None = None,
    input_repr: str | None = None,
    content_type: str = "music",
    embedding_size: int = 6144,
    center: bool = True,
    hop_size: float = 0.1,
    batch_size: int = 32,
    overwrite: bool = False,
    frontend: str = "kapre",
    verbose: bool = True,
) -> None:
    """Write vectors and times of sound files as `NAME[_suffix].npz`.

    The arrays are `embedding` and `timestamps`. Existing outputs are skipped unless `overwrite`.
    Raises OpenL3Error after all files if some failed.
    """
    net = audio_model(model, input_repr, content_type, embedding_size, frontend)
    inputs = _output_folders(filepath, output_dir)
    options = OutputOptions(suffix, overwrite, verbose)
    result = embed_audio(inputs, net, options, center, hop_size, batch_size, embedding_size)
    _raise_failures(result)


def process_image_file(
    filepath: str | Path | list[str],
    output_dir: str | Path | None = None,
    suffix: str | None = None,
    model: OpenL3Net | None = None,
    input_repr: str = "mel256",
    content_type: str = "music",
    embedding_size: int = 8192,
    batch_size: int = 32,
    overwrite: bool = False,
    verbose: bool = True,
) -> None:
    """Write the vector of each image file as `NAME[_suffix].npz`.

    The array is `embedding`; otherwise as `process_audio_file`.
    """
    net = image_model(model, input_repr, content_type, embedding_size)
    inputs = _output_folders(filepath, output_dir)
    options = OutputOptions(suffix, overwrite, verbose)
    _raise_failures(embed_images(inputs, net, options, batch_size, embedding_size))


def process_video_file(
    filepath: str | Path | list[str],
    output_dir: str | Path | None = None,
    suffix: str | None = None,
    audio_model: OpenL3Net | None = None,
    image_model: OpenL3Net | None = None,
    input_repr: str | None = None,
    content_type: str = "music",
    audio_embedding_size: int = 6144,
    audio_center: bool = True,
    audio_hop_size: float = 0.1,
    image_embedding_size: int = 8192,
    audio_batch_size: int = 32,
    image_batch_size: int = 32,
    audio_frontend: str = "kapre",
    overwrite: bool = False,
    verbose: bool = True,
) -> None:
    """Write vectors and times of the sound and of every frame of videos.

    The files are `NAME_audio[_suffix].npz` and `NAME_image[_suffix].npz`. The times of both are on
    the clock of the video. Otherwise as `process_audio_file`.
    """
    audio_net = _audio_model(
        audio_model, input_repr, content_type, audio_embedding_size, audio_frontend
    )
    image_net = _image_model(
        image_model, input_repr or "mel256", content_type, image_embedding_size
    )
    inputs = _output_folders(filepath, output_dir)
    options = OutputOptions(suffix, overwrite, verbose)
    audio_result = embed_audio(
        inputs,
        audio_net,
        options,
        audio_center,
        audio_hop_size,
        audio_batch_size,
        audio_embedding_size,
        "audio",
    )
    image_result = embed_frames(inputs, image_net, options, image_batch_size, image_embedding_size)
    _raise_failures(FilesResult(failures=audio_result.failures | image_result.failures))


# `process_video_file` has parameters of these names, as in OpenL3.
_audio_model = audio_model
_image_model = image_model


def embed_audio(
    inputs: OutputFolders,
    net: OpenL3Net,
    options: OutputOptions,
    center: bool,
    hop_size: float,
    batch_size: int,
    embedding_size: int = 6144,
    prefix: str = "",
) -> FilesResult:
    """Write vectors and times of the sound of each input; `prefix` goes before the suffix."""

    def write(path: str, out: Path) -> None:
        windows = cut_windows(read_openl3_sound(path), hop_size, center)
        vectors = embed_rows(net, windows, batch_size, embedding_size)
        _write_npz(out, vectors, lambda count: np.arange(count) * hop_size)

    return _write_each(inputs, options, prefix, write)


def embed_frames(
    inputs: OutputFolders,
    net: OpenL3Net,
    options: OutputOptions,
    batch_size: int,
    embedding_size: int = 8192,
) -> FilesResult:
    """Write vectors and times of every frame of each input."""

    def write(path: str, out: Path) -> None:
        times: list[float] = []

        def squares() -> Iterator[NDArray[np.float32]]:
            for pixels in read_openl3_frames(path, times):
                yield from center_squares(pixels[None] / np.float32(255))

        vectors = embed_rows(net, squares(), batch_size, embedding_size)
        _write_npz(out, vectors, lambda count: np.array(times[:count]))

    return _write_each(inputs, options, "image", write)


def embed_images(
    inputs: OutputFolders,
    net: OpenL3Net,
    options: OutputOptions,
    batch_size: int,
    embedding_size: int = 8192,
) -> FilesResult:
    """Write the vector of each image; `batch_size` images are embedded at a time."""
    # Images of several files fill one batch; each file's vector is written after its batch.
    squares: list[NDArray[np.float32]] = []
    outs: list[Path] = []

    def write_batch() -> None:
        vectors = chain.from_iterable(embed_rows(net, squares, batch_size, embedding_size))
        for out, vector in zip(outs, vectors, strict=True):
            _write_npz(out, [vector[None]])
        squares.clear()
        outs.clear()

    def write(path: str, out: Path) -> None:
        image = checked_frames(read_openl3_image(path))
        squares.append(next(center_squares(image)))
        outs.append(out)
        if len(outs) == batch_size:
            write_batch()

    result = _write_each(inputs, options, "", write)
    write_batch()
    return result


def _output_folders(
    filepath: str | Path | list[str], output_dir: str | Path | None
) -> OutputFolders:
    if isinstance(filepath, (list, tuple)):
        paths = [str(path) for path in filepath]
    else:
        paths = [str(filepath)]
    for path in paths:
        if not Path(path).is_file():
            raise OpenL3Error(f"there is no file {path}")
    return dict.fromkeys(paths, None if output_dir is None else str(output_dir))


def _write_each(
    inputs: OutputFolders,
    options: OutputOptions,
    prefix: str,
    write: Callable[[str, Path], None],
) -> FilesResult:
    """Call `write` for every input whose output does not exist; a failure stops no other input."""
    suffix = "_".join(filter(None, (prefix, options.suffix)))
    out_of_path = {
        path: Path(get_output_path(path, f"{suffix}.npz", folder))
        for path, folder in inputs.items()
    }
    path_of_out: dict[Path, str] = {}
    for path, out in out_of_path.items():
        if path_of_out.setdefault(out, path) != path:
            raise OpenL3Error(
                f"{path_of_out[out]} and {path} would both be written to {out}; "
                "give them to two calls, each with a suffix"
            )
    # A killed run leaves scratch files in the folders that it wrote to.
    for folder in {out.parent for out in path_of_out}:
        remove_abandoned_scratch(folder)
    result = FilesResult()
    for number, (path, out) in enumerate(out_of_path.items(), 1):
        if out.exists() and not options.overwrite:
            result.skipped.append(str(out))
            if options.verbose:
                _log.info("%s exists already; skipped", out)
        else:
            try:
                write(path, out)
                result.written.append(str(out))
            except (LookListenError, OSError) as error:
                result.failures[path] = str(error)
                _log.warning("%s", error)
        options.progress(number, len(out_of_path))
    return result


def _raise_failures(result: FilesResult) -> None:
    reasons = list(result.failures.values())
    if len(reasons) == 1:
        raise OpenL3Error(reasons[0])
    if reasons:
        raise OpenL3Error(
            f"{len(reasons)} files failed, and the others are done; the first: {reasons[0]}"
        )


def _write_npz(
    path: Path,
    batches: Iterable[NDArray[np.float32]],
    times_of: Callable[[int], NDArray[Any]] | None = None,
) -> None:
    """Write what `np.savez(path, embedding=…, timestamps=…)` writes; complete or absent.

    `times_of`: the times of so many vectors.
    """
    # The header of an array comes first and needs the number of rows, which only the end of the
    # input tells. So the vectors wait in a temporary file.
    with atomic_write(path) as scratch, tempfile.TemporaryFile(dir=scratch.parent) as spool:
        count = 0
        width = 0
        for batch in batches:
            spool.write(np.ascontiguousarray(batch, "<f4").tobytes())
            count += len(batch)
            width = batch.shape[1]
        spool.seek(0)
        with zipfile.ZipFile(scratch, "w") as archive:
            with archive.open("embedding.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array_header_1_0(
                    member, {"descr": "<f4", "fortran_order": False, "shape": (count, width)}
                )
                shutil.copyfileobj(spool, member, 2**20)
            if times_of:
                with archive.open("timestamps.npy", "w", force_zip64=True) as member:
                    np.lib.format.write_array(
                        member, np.asarray(times_of(count)), allow_pickle=False
                    )
