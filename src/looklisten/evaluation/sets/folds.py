"""Folds for sets whose owner made none, and which folds are tested. Knows names of files only."""

import hashlib
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Int
from numpy.typing import NDArray

from looklisten.evaluation.sets.labeled_set import LabeledItem

HASHED_FOLDS = 5
"""The number of folds for a set whose owner made none."""


def rank_within_class(paths: Sequence[str], labels: Sequence[str]) -> Int[np.ndarray, " items"]:
    """The rank of each file within its class, ordered by the hash of its path.

    The same paths always have the same ranks, in whatever order they come.
    """

    def by_class_and_hash(item: int) -> tuple[str, bytes]:
        return labels[item], hashlib.sha256(os.fsencode(paths[item])).digest()

    # Hashes instead of names, because an order by name could follow a pattern in the numbering.
    ranks = np.empty(len(paths), dtype=np.int64)
    next_rank = dict.fromkeys(labels, 0)
    for item in sorted(range(len(paths)), key=by_class_and_hash):
        ranks[item] = next_rank[labels[item]]
        next_rank[labels[item]] += 1
    return ranks


def hashed_folds(files: Sequence[LabeledItem]) -> NDArray[Any]:
    """Folds "1" to "5" of equal size in each class, chosen by the hash of each path."""
    ranks = rank_within_class([file.path for file in files], [file.label for file in files])
    return (ranks % HASHED_FOLDS + 1).astype(str)


def tested_folds(folds: NDArray[Any]) -> tuple[str, ...]:
    """The split `test` next to a split `train`, else `val`, else all folds in turn."""
    # A split without training files cannot be tested.
    names = [str(fold) for fold in np.unique(folds)]
    for split in ("test", "val"):
        if "train" in names and split in names:
            return (split,)
    return tuple(names)
