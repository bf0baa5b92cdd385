"""A user's own labeled sounds or images, listed by a table or by folders."""

from pathlib import Path

from looklisten.errors import SourceError
from looklisten.evaluation.sets.file_listing import (
    checked_files,
    files_in_class_folders,
    table_rows,
)
from looklisten.evaluation.sets.labeled_set import LabeledItem, LabeledSet
from looklisten.media.formats import AUDIO_SUFFIXES, IMAGE_SUFFIXES
from looklisten.names import normalize_split

TABLE_NAME = "labels.csv"
"""A folder with a file of this name is read by that table."""


def read_sounds(root: Path) -> list[LabeledItem]:
    """Sounds by a table, or by one folder for each class."""
    return _read(root, AUDIO_SUFFIXES)


def read_images(root: Path) -> list[LabeledItem]:
    """Images by a table, or by one folder for each class."""
    return _read(root, IMAGE_SUFFIXES)


def _read(root: Path, suffixes: frozenset[str]) -> list[LabeledItem]:
    table = root if root.is_file() else root / TABLE_NAME
    if table.is_file():
        return _files_of_table(table)
    return files_in_class_folders(root, suffixes)


def _files_of_table(table: Path) -> list[LabeledItem]:
    """Files of a table with the columns path, label or class, and optionally fold or split.

    Paths are relative to the folder of the table.
    """
    rows = table_rows(table, ("path",), ("label", "class"), ("fold", "split"))
    label_column = "label" if "label" in rows[0] else "class"
    # Both words are common, and a split is a fold that is not tested in turn.
    fold_column = next((column for column in ("fold", "split") if column in rows[0]), "")
    files = []
    for row in rows:
        fold = normalize_split(row[fold_column]) if fold_column else ""
        files.append(LabeledItem(row["path"], row[label_column], fold))
    # Folds made from names would put files of one fold of the owner on both sides.
    n_with_fold = sum(file.fold != "" for file in files)
    if 0 < n_with_fold < len(files):
        raise SourceError(
            f"{table}: some rows have a {fold_column} and others have none; "
            f"fill the column, or remove it so that folds are made from the names"
        )
    return checked_files(table.parent, files, table)


SOUNDS = LabeledSet(
    name="sounds",
    title="sounds",
    side="audio",
    read=read_sounds,
    expected="a table with path and label, or a folder with one folder of sounds for each class",
)

IMAGES = LabeledSet(
    name="images",
    title="images",
    side="vision",
    read=read_images,
    expected="a table with path and label, or a folder with one folder of images for each class",
)
