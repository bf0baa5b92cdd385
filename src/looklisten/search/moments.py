"""The records of an index: a moment with what is known of it, and a moment that was found."""

import hashlib
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from jaxtyping import Float32

Mark = Literal["silent", "black", "still", "duplicate"]
"""What was measured in a moment. `duplicate`: like the moment before."""
MOMENT_ID_DIGITS = 32


@dataclass(frozen=True, eq=False)
class IndexedMoment:
    """One moment of a source, as a row of an index."""

    moment_id: str
    """The same for the same content and time; see `moment_id`."""
    source: str
    """The path as the user gave it, as text (`names.encode_name`)."""
    source_digest: str
    """A hash of the content of the source."""
    video_id: str
    seconds: float
    """The time from the start of the source."""
    thumbnail: str | None = None
    """The name of a file in the folder `thumbnails` of the index."""
    marks: tuple[Mark, ...] = ()
    label: str | None = None
    tags: Mapping[str, float] = field(default_factory=dict)
    """Names of published classes with their scores."""
    vision: Float32[np.ndarray, " width"] | None = None
    """The vector of the frame, of length 1; None where the frame is black."""
    audio: Float32[np.ndarray, " width"] | None = None
    """The vector of the sound, of length 1; None where it is silent."""


@dataclass(frozen=True, eq=False)
class FoundMoment:
    """A moment that a search found."""

    moment: IndexedMoment
    similarity: float
    """The cosine of the angle to the query; of a search by tag, the score of the tag."""


def moment_id(source_digest: str, seconds: float) -> str:
    """The id of a moment: the same for the same content and time, whatever the path."""
    milliseconds = round(seconds * 1000)
    digest = hashlib.sha256(f"{source_digest} {milliseconds}".encode())
    return digest.hexdigest()[:MOMENT_ID_DIGITS]


def row_id(moment: IndexedMoment) -> str:
    """The id of a row, as a UUID: that of the moment in its source.

    A copy of a file is another source, with moments of the same ids.
    """
    digest = hashlib.sha256(f"{moment.moment_id} {moment.source}".encode())
    return str(uuid.UUID(bytes=digest.digest()[:16]))
