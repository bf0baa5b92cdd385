"""What a user looks for -> vectors: a sound, a picture, a video, or one moment of a file.

Knows media and an encoder, no store.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from looklisten.config import SIDES, Side
from looklisten.errors import SourceError
from looklisten.inference.embedding.embed import is_file
from looklisten.names import encode_name, printable
from looklisten.search.indexing.moment_encoder import EncodedInput, MomentEncoder
from looklisten.search.indexing.source_reader import ReadMoment, read_moment, read_source
from looklisten.search.options import FindSide, QuerySide

SIDE_NAMES: dict[Side, str] = {"vision": "picture", "audio": "sound"}
"""What the command line calls the two sides."""
SIDES_OF: dict[str, tuple[Side, ...]] = {
    "sound": ("audio",),
    "picture": ("vision",),
    "both": SIDES,
    "auto": SIDES,
}
QUERY_EVERY_SECONDS = 1.0

Direction = tuple[Side, Side]
"""The side of the query and the side of the moments that are compared."""


@dataclass(frozen=True, eq=False)
class Query:
    """What is looked for."""

    name: str
    vectors: dict[Side, Float32[np.ndarray, " width"]]
    """Of each side the mean over the query, of length 1. A side is absent where the query lacks it,
    or holds only silence, noise or hum there. Of a text the vectors to compare each side with."""
    is_text: bool = False


def read_query(name: str | Path, encoder: MomentEncoder) -> Query:
    """The query that `name` means: a file, or `FILE@SECONDS` for one moment of it.

    Raises SourceError for a file that is not there or cannot be decoded.
    """
    path, at_seconds = split_moment(name)
    if not is_file(path):
        front, _, time = str(name).rpartition("@")
        if is_file(Path(front)):
            raise SourceError(
                f"{printable(time)!r} in {printable(name)} is no time; after @ stand seconds from "
                "the start of the file, such as 12.5"
            )
        raise SourceError(
            f"there is no file {printable(path)}; correct the path, or, to look for a name, "
            f"give --tag {printable(name)}"
        )
    if at_seconds is not None:
        moments = [read_moment(path, at_seconds, encoder)]
    else:
        content = read_source(path, encoder, QUERY_EVERY_SECONDS)
        moments = content.moments
    return query_of_moments(encode_name(str(name)), moments)


def query_of_moments(name: str, moments: Iterable[ReadMoment]) -> Query:
    """The query of a file that was read already."""
    moments = list(moments)
    inputs: dict[Side, list[EncodedInput]] = {"vision": _frames(moments), "audio": _sounds(moments)}
    vectors = {side: _mean(inputs[side]) for side in SIDES if inputs[side]}
    return Query(name, vectors)


def text_query(text: str, encoder: MomentEncoder) -> Query:
    """The query of a text. Raises ConfigError for a network without vectors of texts."""
    return Query(encode_name(text), encoder.encode_text(text), is_text=True)


def split_moment(name: str | Path) -> tuple[Path, float | None]:
    """The path and the time of `FILE@SECONDS`; no time where there is none, or a file of it all."""
    path = Path(name)
    front, at, seconds = str(name).rpartition("@")
    if not at or is_file(path):
        return path, None
    try:
        at_seconds = float(seconds)
    except ValueError:
        return path, None
    if not 0 <= at_seconds < float("inf"):
        return path, None
    return Path(front), at_seconds


def directions(query: Query, find: FindSide, by: QuerySide) -> list[Direction]:
    """Which side of the query is compared with which side of the moments; none where it has none.

    Like is compared with like where the query allows it; else the other side stands in.
    """
    if query.is_text:
        return [(side, side) for side in SIDES_OF[find] if side in query.vectors]
    allowed = SIDES_OF[by]
    sides = [side for side in query.vectors if side in allowed]
    pairs = []
    for target in SIDES_OF[find]:
        if sides:
            pairs.append((target if target in sides else sides[0], target))
    return pairs


def _frames(moments: Iterable[ReadMoment]) -> list[EncodedInput]:
    return [moment.frame for moment in moments if moment.frame]


def _sounds(moments: Iterable[ReadMoment]) -> list[EncodedInput]:
    return [moment.sound for moment in moments if moment.sound]


def _mean(inputs: list[EncodedInput]) -> Float32[np.ndarray, " width"]:
    total = np.stack([encoded.vector for encoded in inputs]).astype(np.float64).sum(0)
    length = max(float(np.linalg.norm(total)), 1e-12)
    mean: Float32[np.ndarray, " width"] = (total / length).astype(np.float32)
    return mean
