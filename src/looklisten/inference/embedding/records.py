"""What embedding gives: vectors and their times. Knows numbers, no network and no file."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import Float32, Float64, Int64

from looklisten.config import Side
from looklisten.inference.embedding.options import EmbedOptions
from looklisten.media import SAMPLE_RATE_HZ
from looklisten.media.decode.records import AUDIO_HOLE, DecodeReport
from looklisten.media.spectrogram import WINDOW_SECONDS


@dataclass(frozen=True, eq=False)
class Embeddings:
    """Vectors of one side of one source, in the order of time."""

    vectors: Float32[np.ndarray, "n features"]
    start_seconds: Float64[np.ndarray, " n"]
    """Start of each window from the start of the source; below zero where silence was put before
    the sound. For a frame its time, for an image 0.
    """
    source: str
    """The path, or the kind of array."""
    side: Side
    layer: str
    window_seconds: float
    """Length of a window, which ends before start + length; 0 for frames and images."""
    centered: bool = False
    """Whether half a window of silence was put before the sound, so that the middles of windows
    are multiples of the hop.
    """
    stop_reason: str = ""
    """Why reading ended before the end of the source; empty if it did not."""
    lost_seconds: Mapping[str, float] = field(default_factory=dict)
    """Seconds of the source that decoding could not use, by reason."""

    def __len__(self) -> int:
        return len(self.vectors)

    def __repr__(self) -> str:
        shape = f"{len(self)} x {self.vectors.shape[1]}"
        times = ""
        if len(self):
            times = f", {self.start_seconds[0]:g} to {self.start_seconds[-1]:g} s"
        return f"Embeddings({self.source!r}, {self.side} {self.layer}, {shape}{times})"

    @property
    def middle_seconds(self) -> Float64[np.ndarray, " n"]:
        """The middle of each window."""
        return self.start_seconds + self.window_seconds / 2

    def with_losses(self, report: DecodeReport) -> "Embeddings":
        """The same, with what `report` says of the part of the source that is missing."""
        losses = dict(report.lost_seconds)
        if report.audio_hole_seconds:
            losses[AUDIO_HOLE] = report.audio_hole_seconds
        return replace(self, stop_reason=report.stop_reason, lost_seconds=losses)

    def mean(self) -> Float32[np.ndarray, " features"]:
        """One vector for the source."""
        # In float64, so that the mean of many windows does not depend on how they are summed.
        mean = self.vectors.mean(axis=0, dtype=np.float64)
        rounded: Float32[np.ndarray, " features"] = mean.astype(np.float32)
        return rounded


@dataclass(frozen=True, eq=False)
class AlignedEmbeddings:
    """Both sides of one video at the same times.

    Row i of `vision` is the frame nearest to the middle of window i of `audio`.
    """

    audio: Embeddings
    vision: Embeddings
    frame_seconds: Float64[np.ndarray, " n"]
    """Time of each frame; `vision.start_seconds` are the starts of the windows of `audio`."""

    def __len__(self) -> int:
        return len(self.audio)


def audio_embeddings(
    starts: Int64[np.ndarray, " n"],
    vectors: Float32[np.ndarray, "n features"],
    source: str,
    layer: str,
    options: EmbedOptions,
) -> Embeddings:
    """The record of windows of a sound, from the first sample and the vector of each."""
    return Embeddings(
        vectors=normalize_rows(vectors) if options.normalize else vectors,
        start_seconds=starts / SAMPLE_RATE_HZ,
        source=source,
        side="audio",
        layer=layer,
        window_seconds=WINDOW_SECONDS,
        centered=options.center,
    )


def normalize_rows(
    vectors: Float32[np.ndarray, "n features"],
) -> Float32[np.ndarray, "n features"]:
    """Vectors of length 1; a vector of zeros stays a vector of zeros."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    divisors = np.maximum(lengths, np.finfo(np.float32).tiny)
    normalized: Float32[np.ndarray, "n features"] = vectors / divisors
    return normalized


def concatenate(blocks: Iterable[Embeddings]) -> Embeddings:
    """Consecutive blocks of one source as one record; at least one block."""
    # Buffers that grow. Thousands of small arrays that stay in memory would lie between the large
    # ones that are freed, and the freed memory could not be used again: ten hours of sound took
    # 1.3 GB.
    vectors = bytearray()
    start_seconds = bytearray()
    for block in blocks:
        vectors += block.vectors.tobytes()
        start_seconds += block.start_seconds.tobytes()
    # The last block says whether the source ended before its end, and what was lost.
    width = block.vectors.shape[1]
    return replace(
        block,
        vectors=np.frombuffer(vectors, np.float32).reshape(-1, width),
        start_seconds=np.frombuffer(start_seconds, np.float64),
    )


def in_large_blocks(blocks: Iterable[Embeddings], min_rows: int) -> Iterator[Embeddings]:
    """The same vectors in blocks of at least `min_rows`, except for the last."""
    waiting: list[Embeddings] = []
    row_count = 0
    for block in blocks:
        waiting.append(block)
        row_count += len(block)
        if row_count >= min_rows:
            yield concatenate(waiting)
            waiting = []
            row_count = 0
    if waiting:
        yield concatenate(waiting)
