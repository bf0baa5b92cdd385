"""The records of a labeled set: what it is, which files it has, and what others published on it.

Knows classes, folds and names of files. Reads no file.
"""

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from looklisten.config import Side


class LabeledItem(NamedTuple):
    """One file of a set with its class and its fold."""

    path: str
    """Below the set's folder, with forward slashes."""
    label: str
    fold: str
    """The fold or split that the owner put it in; empty if the owner made none."""


class PublishedFigure(NamedTuple):
    """The accuracy that others reported for one method."""

    method: str
    accuracy: float
    source: str
    """Where the figure comes from, and whether it was checked against the paper."""


# Values of `PublishedFigure.source` that several sets share.
FROM_REVIEW = "the paper, by way of a review"
FROM_OLDER_TABLES = "reprinted in the paper; SoundNet's table and the ESC-50 page"
NOT_CHECKED = "recalled, not checked against the paper"


@dataclass(frozen=True, kw_only=True)
class LabeledSet:
    """A labeled set and the protocol by which it is measured."""

    name: str
    """The word for it on the command line, such as `esc50`."""
    title: str
    """The name in sentences and tables, such as "ESC-50"."""
    side: Side
    """`audio` for sounds, `vision` for images."""
    read: Callable[[Path], list[LabeledItem]]
    """Lists the files of the set in a folder. It opens no media and returns a fixed order."""
    expected: str
    """Which files lie where; an error quotes it if the set is missing."""
    n_files: int = 0
    """The number of files in the complete set; 0 for any number."""
    n_classes: int = 0
    folds: tuple[str, ...] = ()
    """The folds of the complete set; empty for any folds."""
    tested: tuple[str, ...] = ()
    """The folds that are tested, each by a fit on the others; empty for all folds in turn."""
    clip_seconds: float = 1.0
    """Shorter sounds are repeated up to this length."""
    windows: int = 10
    """How many windows of one second are taken from each sound."""
    published: tuple[PublishedFigure, ...] = ()


@dataclass(frozen=True, eq=False)
class LabeledFiles:
    """A labeled set on disk: file i is `root / paths[i]`, of class `labels[i]`, in `folds[i]`."""

    labeled_set: LabeledSet
    root: Path
    paths: tuple[str, ...]
    labels: NDArray[Any]
    folds: NDArray[Any]
    tested: tuple[str, ...]
    """The folds that are tested, each by a fit on the others."""

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def side(self) -> Side:
        """`audio` for sounds, `vision` for images."""
        return self.labeled_set.side

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, sorted."""
        return tuple(map(str, np.unique(self.labels)))

    def fingerprint(self) -> str:
        """A hash of the names and sizes of all files."""
        # Sizes instead of contents: reading all files of ImageNet would take hours.
        digest = hashlib.sha256()
        for path in self.paths:
            size_bytes = (self.root / path).stat().st_size
            # A name may hold bytes that are not UTF-8.
            digest.update(os.fsencode(path) + f"\0{size_bytes}\n".encode())
        return digest.hexdigest()[:16]
