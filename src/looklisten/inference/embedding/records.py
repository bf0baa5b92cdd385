"""The record that embedding gives: vectors with their times. Knows numbers, no network."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float32, Float64

from looklisten.config import Side


@dataclass(frozen=True, eq=False)
class Embeddings:
    """Vectors of one side of one source, in the order of time."""

    vectors: Float32[np.ndarray, "n features"]
    start_seconds: Float64[np.ndarray, " n"]
    """Where the window of each vector begins, on the source's clock: below zero where silence was
    put in front. Of frames, when each is shown; of pictures, 0.
    """
    source: str
    """The path, or what kind of array it was."""
    side: Side
    layer: str
    window_seconds: float
    """Half-open windows [start, start + this); 0 where a vector is of a picture."""
    centered: bool = False
    """Whether half a window of silence was put in front, so that the middles are multiples of the
    hop.
    """
    broken_off: str = ""
    """Why the source ended before its time; empty when it did not."""

    def __len__(self) -> int:
        return len(self.vectors)

    def __repr__(self) -> str:
        span = f", {self.start_seconds[0]:g} to {self.start_seconds[-1]:g} s" if len(self) else ""
        return f"Embeddings({self.source!r}, {self.side} {self.layer}, {len(self)} x {self.vectors.shape[1]}{span})"

    @property
    def middle_seconds(self) -> Float64[np.ndarray, " n"]:
        """The middle of each window."""
        return self.start_seconds + self.window_seconds / 2

    def mean(self) -> Float32[np.ndarray, " features"]:
        """One vector for the whole source."""
        average: Float32[np.ndarray, " features"] = self.vectors.mean(
            axis=0, dtype=np.float64
        ).astype(np.float32)
        return average


@dataclass(frozen=True, eq=False)
class AlignedEmbeddings:
    """Both sides of one video on the same times: row i of `vision` is the frame nearest to the
    middle of window i of `audio`.
    """

    audio: Embeddings
    vision: Embeddings
    frame_seconds: Float64[np.ndarray, " n"]
    """When each frame is really shown; `vision.start_seconds` are those of `audio`."""

    def __len__(self) -> int:
        return len(self.audio)


def unit(vectors: Float32[np.ndarray, "n features"]) -> Float32[np.ndarray, "n features"]:
    """Each over its length; a vector of zeros stays one."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    over: Float32[np.ndarray, "n features"] = vectors / np.maximum(
        lengths, np.finfo(np.float32).tiny
    )
    return over


PARTS_AT_A_TIME = 64


def joined(parts: Iterable[Embeddings]) -> Embeddings:
    """Neighbouring parts of one source as a whole.

    They are joined by the dozen as they come: thousands of small arrays that stay would lie between
    the large ones that are freed, and the memory of those would not be found again (ten hours of
    sound took 1.3 GB).
    """
    few: list[Embeddings] = []
    blocks: list[Embeddings] = []
    for part in parts:
        few.append(part)
        if len(few) == PARTS_AT_A_TIME:
            blocks.append(_concatenated(few))
            few = []
    return _concatenated([*blocks, *few])


def _concatenated(parts: list[Embeddings]) -> Embeddings:
    vectors, start_seconds = (
        np.concatenate([getattr(part, name) for part in parts])
        for name in ("vectors", "start_seconds")
    )
    return replace(parts[-1], vectors=vectors, start_seconds=start_seconds)
