"""Checks of moments before they are stored: one sentence for what cannot be."""

import math
from collections.abc import Sequence
from typing import get_args

import numpy as np
from jaxtyping import Float32

from looklisten.config import SIDES, Side
from looklisten.errors import StoreError
from looklisten.names import printable
from looklisten.search.moments import IndexedMoment, Mark

_MARKS = frozenset(get_args(Mark))
LENGTH_TOLERANCE = 1e-3
"""How far the length of a vector may be from 1."""


def check_moments(moments: Sequence[IndexedMoment], width: int) -> None:
    """See that all moments can be stored. Raises StoreError for the first that cannot."""
    digests: dict[str, str] = {}
    ids: set[tuple[str, str]] = set()
    for moment in moments:
        problem = _problem(moment, width)
        if digests.setdefault(moment.source, moment.source_digest) != moment.source_digest:
            problem = "its source has two digests"
        if (moment.source, moment.moment_id) in ids:
            problem = f"its source has two moments with the id {printable(moment.moment_id)}"
        if problem:
            raise _error(moment, problem)
        ids.add((moment.source, moment.moment_id))
    for side in SIDES:
        _check_lengths(moments, side)


def check_query(query: Float32[np.ndarray, " _"], width: int) -> Float32[np.ndarray, " _"]:
    """The query with length 1. Raises StoreError when it cannot be compared."""
    if query.shape != (width,):
        raise StoreError(
            f"the query has {query.size} numbers, and the vectors of the index have {width}; "
            "use the network that made the index"
        )
    # In float64, where the square of no float32 overflows.
    length = float(np.linalg.norm(query.astype(np.float64)))
    if not math.isfinite(length) or length == 0:
        raise StoreError(f"the query is a vector of length {length:g}, which has no direction")
    unit: Float32[np.ndarray, " _"] = (query / length).astype(np.float32)
    return unit


def vector_of(moment: IndexedMoment, side: Side) -> Float32[np.ndarray, " width"] | None:
    """The vector of one side."""
    return moment.vision if side == "vision" else moment.audio


def _problem(moment: IndexedMoment, width: int) -> str | None:
    """Why this moment alone cannot be stored; None where it can."""
    texts = [moment.moment_id, moment.source, moment.source_digest, moment.video_id]
    texts += [moment.thumbnail or "", moment.label or "", *moment.tags]
    for text in texts:
        try:
            text.encode()
        except UnicodeEncodeError:
            return f"{printable(text)} is not Unicode text; use `names.encode_name`"
    unknown = set(moment.marks) - _MARKS
    if unknown:
        return f"the mark {printable(min(unknown))} is unknown"
    if not all(math.isfinite(number) for number in (moment.seconds, *moment.tags.values())):
        return "a time or a score is not a finite number"
    for side in SIDES:
        vector = vector_of(moment, side)
        if vector is not None and vector.shape != (width,):
            return f"its {side} vector has {vector.size} numbers and not {width}"
    return None


def _check_lengths(moments: Sequence[IndexedMoment], side: Side) -> None:
    present = []
    vectors = []
    for moment in moments:
        vector = vector_of(moment, side)
        if vector is not None:
            present.append(moment)
            vectors.append(vector)
    if not vectors:
        return
    lengths = np.linalg.norm(np.stack(vectors), axis=1)
    # `~ <=`, so that NaN is refused too.
    wrong_rows = np.flatnonzero(~(np.abs(lengths - 1) <= LENGTH_TOLERANCE))
    if len(wrong_rows):
        row = int(wrong_rows[0])
        raise _error(present[row], f"its {side} vector has the length {lengths[row]:g} and not 1")


def _error(moment: IndexedMoment, problem: str) -> StoreError:
    return StoreError(
        f"the moment at {moment.seconds:g} s of {printable(moment.source)} cannot be stored: "
        f"{problem}"
    )
