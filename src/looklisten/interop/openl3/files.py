"""Files -> vectors in .npz files, under OpenL3's names. A file is read, embedded and written in
pieces, whatever its length.

Knows paths and formats; nothing of how a network is built.
"""

import logging
import os
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from looklisten.errors import LookListenError
from looklisten.interop.openl3.audio import audio_model, embedded, windows
from looklisten.interop.openl3.errors import OpenL3Error
from looklisten.interop.openl3.images import checked, image_model, squared
from looklisten.interop.openl3.networks import OpenL3Net
from looklisten.interop.openl3.reading import read_frames, read_picture, read_sound
from looklisten.system.files import atomic_write, remove_abandoned_scratch
from looklisten.system.progress import Progress, no_progress

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outputs:
    """Where vectors are written, and what is done with those that are there already."""

    suffix: str | None = None
    overwrite: bool = False
    verbose: bool = True
    progress: Progress = no_progress


@dataclass
class Outcome:
    """What became of the inputs."""

    written: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    """Outputs that were there already."""
    failures: dict[str, str] = field(default_factory=dict)
    """By input, a sentence."""


Sources = Mapping[str, str | None]
"""Inputs, each with the folder that its vectors go to; None: its own."""


def get_output_path(filepath: str | Path, suffix: str, output_dir: str | Path | None = None) -> str:
    """`DIR/NAME_suffix`, or `DIR/NAME.npz` where the suffix begins with a dot; DIR is that of the
    file by default.
    """
    name = Path(filepath).stem + (suffix if suffix.startswith(".") else f"_{suffix}")
    return os.path.join(output_dir or os.path.dirname(filepath), name)  # noqa: PTH118, PTH120 (OpenL3's own form: no ./ in front)


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
    """Write vectors and their times of sound files, of any format, as `NAME[_suffix].npz` with
    `embedding` and `timestamps`.

    Outputs that are there are skipped unless `overwrite`. All files are done before OpenL3Error
    names those that failed.
    """
    net = audio_model(model, input_repr, content_type, embedding_size, frontend)
    outputs = Outputs(suffix, overwrite, verbose)
    _complain(
        embed_audio(
            _sources(filepath, output_dir),
            net,
            outputs,
            center,
            hop_size,
            batch_size,
            embedding_size,
        )
    )


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
    """Write the vector of each picture file as `NAME[_suffix].npz` with `embedding`; otherwise as
    `process_audio_file`.
    """
    net = image_model(model, input_repr, content_type, embedding_size)
    _complain(
        embed_images(
            _sources(filepath, output_dir),
            net,
            Outputs(suffix, overwrite, verbose),
            batch_size,
            embedding_size,
        )
    )


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
    """Write vectors and times of sound and of every frame as `NAME_audio[_suffix].npz` and
    `NAME_image[_suffix].npz`.

    Both are on the file's own clock. Otherwise as `process_audio_file`.
    """
    hears = _audio_model(
        audio_model, input_repr, content_type, audio_embedding_size, audio_frontend
    )
    sees = _image_model(image_model, input_repr or "mel256", content_type, image_embedding_size)
    sources, outputs = _sources(filepath, output_dir), Outputs(suffix, overwrite, verbose)
    heard = embed_audio(
        sources,
        hears,
        outputs,
        audio_center,
        audio_hop_size,
        audio_batch_size,
        audio_embedding_size,
        "audio",
    )
    seen = embed_frames(sources, sees, outputs, image_batch_size, image_embedding_size)
    _complain(Outcome(failures=heard.failures | seen.failures))


_audio_model, _image_model = audio_model, image_model  # two arguments have these names in OpenL3


def embed_audio(
    sources: Sources,
    net: OpenL3Net,
    outputs: Outputs,
    center: bool,
    hop_size: float,
    batch_size: int,
    embedding_size: int = 6144,
    word: str = "",
) -> Outcome:
    """Vectors of the sound of each source; `word` goes before the suffix."""

    def write(path: str, out: Path) -> None:
        rows = embedded(
            net, windows(read_sound(path), hop_size, center), batch_size, embedding_size
        )
        _write_npz(out, rows, lambda count: np.arange(count) * hop_size)

    return _each(sources, outputs, word, write)


def embed_frames(
    sources: Sources, net: OpenL3Net, outputs: Outputs, batch_size: int, embedding_size: int = 8192
) -> Outcome:
    """Vectors of every frame of each source."""

    def write(path: str, out: Path) -> None:
        times: list[float] = []
        squares = chain.from_iterable(
            squared(pixels[None] / np.float32(255)) for pixels in read_frames(path, times)
        )
        _write_npz(
            out,
            embedded(net, squares, batch_size, embedding_size),
            lambda count: np.array(times[:count]),
        )

    return _each(sources, outputs, "image", write)


def embed_images(
    sources: Sources, net: OpenL3Net, outputs: Outputs, batch_size: int, embedding_size: int = 8192
) -> Outcome:
    """The vector of each picture; pictures are embedded `batch_size` at a time."""
    waiting: list[tuple[NDArray[np.float32], Path]] = []

    def flush() -> None:
        squares = (square for square, _ in waiting)
        for (_, out), vector in zip(
            waiting,
            chain.from_iterable(embedded(net, squares, batch_size, embedding_size)),
            strict=True,
        ):
            _write_npz(out, [vector[None]])
        waiting.clear()

    def write(path: str, out: Path) -> None:
        waiting.append((next(squared(checked(read_picture(path)))), out))
        if len(waiting) == batch_size:
            flush()

    outcome = _each(sources, outputs, "", write)
    flush()
    return outcome


def _sources(filepath: str | Path | list[str], output_dir: str | Path | None) -> Sources:
    paths = (
        [str(path) for path in filepath] if isinstance(filepath, (list, tuple)) else [str(filepath)]
    )
    for path in paths:
        if not Path(path).is_file():
            raise OpenL3Error(f"there is no file {path}")
    return dict.fromkeys(paths, None if output_dir is None else str(output_dir))


def _each(
    sources: Sources, outputs: Outputs, word: str, write: Callable[[str, Path], None]
) -> Outcome:
    """Call `write` for every source whose output is not there yet; one that fails does not stop the
    others.
    """
    suffix = "_".join(filter(None, (word, outputs.suffix)))
    planned = {
        path: Path(get_output_path(path, f"{suffix}.npz", folder))
        for path, folder in sources.items()
    }
    first_of: dict[Path, str] = {}
    for path, out in planned.items():
        if first_of.setdefault(out, path) != path:
            raise OpenL3Error(
                f"{first_of[out]} and {path} would both be written to {out}; give them to two calls, each with a suffix"
            )
    for folder in {out.parent for out in first_of}:
        remove_abandoned_scratch(folder)
    outcome = Outcome()
    for number, (path, out) in enumerate(planned.items(), 1):
        if out.exists() and not outputs.overwrite:
            outcome.skipped.append(str(out))
            if outputs.verbose:
                log.info("%s is there already; skipped", out)
        else:
            try:
                write(path, out)
                outcome.written.append(str(out))
            except (LookListenError, OSError) as error:
                outcome.failures[path] = str(error)
                log.warning("%s", error)
        outputs.progress(number, len(planned))
    return outcome


def _complain(outcome: Outcome) -> None:
    if outcome.failures:
        first = next(iter(outcome.failures.values()))
        count = len(outcome.failures)
        raise OpenL3Error(
            first
            if count == 1
            else f"{count} files failed, and the others are done; the first: {first}"
        )


def _write_npz(
    path: Path,
    rows: Iterable[NDArray[np.float32]],
    times: Callable[[int], NDArray[Any]] | None = None,
) -> None:
    """What `np.savez(path, embedding=…, timestamps=…)` writes, of vectors that come in pieces;
    whole or absent.
    """
    with atomic_write(path) as scratch, tempfile.TemporaryFile(dir=scratch.parent) as spool:
        count = width = 0
        for piece in rows:
            spool.write(np.ascontiguousarray(piece, "<f4").tobytes())
            count, width = count + len(piece), piece.shape[1]
        spool.seek(0)
        with zipfile.ZipFile(scratch, "w") as archive:
            with archive.open("embedding.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array_header_1_0(
                    member, {"descr": "<f4", "fortran_order": False, "shape": (count, width)}
                )
                shutil.copyfileobj(spool, member, 2**20)
            if times:
                with archive.open("timestamps.npy", "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, np.asarray(times(count)), allow_pickle=False)
