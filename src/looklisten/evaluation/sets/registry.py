"""All sets by name, and how a labeled set is opened and checked. Opens no media.

Knows that sets exist, not what any of them looks like: a set is a record in a file of its own.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from looklisten.errors import ConfigError, SourceError
from looklisten.evaluation.sets.dcase2013 import DCASE2013
from looklisten.evaluation.sets.esc import ESC10, ESC50
from looklisten.evaluation.sets.flickr_soundnet import FLICKR_SOUNDNET
from looklisten.evaluation.sets.folds import hashed_folds, tested_folds
from looklisten.evaluation.sets.imagenet import IMAGENET
from looklisten.evaluation.sets.labeled_set import LabeledFiles, LabeledItem, LabeledSet
from looklisten.evaluation.sets.localization_set import LocalizationSet
from looklisten.evaluation.sets.own_files import IMAGES, SOUNDS
from looklisten.evaluation.sets.urbansound8k import URBANSOUND8K
from looklisten.evaluation.sets.vggss import VGGSS

LABELED_SETS: dict[str, LabeledSet] = {
    ESC50.name: ESC50,
    ESC10.name: ESC10,
    DCASE2013.name: DCASE2013,
    URBANSOUND8K.name: URBANSOUND8K,
    SOUNDS.name: SOUNDS,
    IMAGENET.name: IMAGENET,
    IMAGES.name: IMAGES,
}
"""The sets that `looklisten probe` measures, by name."""

LOCALIZATION_SETS: dict[str, LocalizationSet] = {
    VGGSS.name: VGGSS,
    FLICKR_SOUNDNET.name: FLICKR_SOUNDNET,
}
"""The sets with boxes that `looklisten evaluate` measures, by name."""


def register_labeled_set(labeled_set: LabeledSet) -> None:
    """Make a labeled set known by its name. Raises ConfigError if the name is taken."""
    if labeled_set.name in LABELED_SETS:
        raise ConfigError(
            f"there already is a labeled set {labeled_set.name!r}; choose another name"
        )
    LABELED_SETS[labeled_set.name] = labeled_set


def open_labeled_set(name: str, path: str | Path, partial: bool = False) -> LabeledFiles:
    """The labeled set `name` at `path`, with its files, classes and folds.

    Raises ConfigError for an unknown name. Raises SourceError if the set is not at `path`, or if
    it is incomplete and `partial` is false.
    """
    if name not in LABELED_SETS:
        raise ConfigError(f"there is no labeled set {name!r}; choose {', '.join(LABELED_SETS)}")
    labeled_set = LABELED_SETS[name]
    root = Path(path)
    expectation = f"{labeled_set.title} is expected at {root} as {labeled_set.expected}"
    if not root.exists():
        raise SourceError(f"{expectation}; this path does not exist")
    files = labeled_set.read(root)
    if not files:
        raise SourceError(f"{expectation}; there is no such file")
    if not partial:
        _check_complete(labeled_set, files, expectation)
    labels = np.array([file.label for file in files])
    folds = np.array([file.fold for file in files])
    # Readers give folds to all files or to none.
    if "" in folds:
        folds = hashed_folds(files)
    # With `partial`, a fold of the protocol may be missing.
    chosen = labeled_set.tested or tested_folds(folds)
    tested = tuple(fold for fold in chosen if fold in folds)
    n_classes = len(np.unique(labels))
    n_folds = len(np.unique(folds))
    if n_classes < 2 or n_folds < 2 or not tested:
        raise SourceError(
            f"{expectation}; there are {n_classes} classes in {n_folds} folds, "
            f"but at least 2 of both are necessary"
        )
    return LabeledFiles(
        labeled_set=labeled_set,
        # The paths of a table are relative to its folder.
        root=root.parent if root.is_file() else root,
        paths=tuple(file.path for file in files),
        labels=labels,
        folds=folds,
        tested=tested,
    )


def _check_complete(
    labeled_set: LabeledSet, files: Sequence[LabeledItem], expectation: str
) -> None:
    """Raises SourceError if a file, a class or a fold of the set is missing."""
    # The size of a user's own set is not known.
    if not labeled_set.n_files:
        return
    n_classes = len({file.label for file in files})
    folds = {file.fold for file in files}
    missing_folds = [fold for fold in labeled_set.folds if fold not in folds]
    is_complete = len(files) == labeled_set.n_files and n_classes == labeled_set.n_classes
    if is_complete and not missing_folds:
        return
    lacks_fold = f", none of fold {missing_folds[0]}" if missing_folds else ""
    raise SourceError(
        f"{expectation}; there are {len(files):,} files of {labeled_set.n_files:,} "
        f"and {n_classes} classes of {labeled_set.n_classes}{lacks_fold}; "
        f"download the missing files, or measure these files with --partial, "
        f"which gives a figure that cannot be compared"
    )
