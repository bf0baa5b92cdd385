"""ESC-50 and ESC-10 (Piczak 2015): five folds of environmental sounds of five seconds."""

import re
from pathlib import Path

from looklisten.evaluation.sets.file_listing import checked_files, table_rows
from looklisten.evaluation.sets.labeled_set import (
    FROM_OLDER_TABLES,
    FROM_REVIEW,
    LabeledItem,
    LabeledSet,
    PublishedFigure,
)
from looklisten.media.formats import AUDIO_SUFFIXES
from looklisten.system.folders import files_with_suffix

_FOLDS = ("1", "2", "3", "4", "5")
# Fold, id on Freesound, take, and perhaps the number of the class.
_CLIP_NAME = re.compile(r"([1-5])-\d+-[A-Z]\d*(-\d+)?")
_FROM_ESC_PAGE = "the ESC-50 page"


def read_esc50(root: Path) -> list[LabeledItem]:
    """The repository's `meta/esc50.csv` and `audio/`, or the older layout with class folders."""
    return _files_of_table(root, only_esc10=False)


def read_esc10(root: Path) -> list[LabeledItem]:
    """The rows of ESC-50 with `esc10` set, or the older distribution of ESC-10 alone."""
    return _files_of_table(root, only_esc10=True)


def _files_of_table(root: Path, only_esc10: bool) -> list[LabeledItem]:
    table = root / "meta" / "esc50.csv"
    if not table.is_file():
        return _files_of_class_folders(root)
    columns = ("filename", "fold", "category")
    rows = table_rows(table, (*columns, "esc10") if only_esc10 else columns)
    files = []
    for row in rows:
        if only_esc10 and row["esc10"].strip().lower() != "true":
            continue
        files.append(LabeledItem(f"audio/{row['filename']}", row["category"], row["fold"]))
    return checked_files(root, files, table)


def _files_of_class_folders(root: Path) -> list[LabeledItem]:
    """Files such as `001 - Dog bark/1-100032-A.ogg`: class and fold stand in the names."""
    files = []
    for file in files_with_suffix(root, AUDIO_SUFFIXES):
        clip_name = _CLIP_NAME.fullmatch(file.stem)
        if clip_name is None or file.parent == root:
            continue
        # Folders were once numbered: `001 - Dog bark`.
        label = re.sub(r"^\d+ - ", "", file.parent.name)
        fold = clip_name[1]
        files.append(LabeledItem(file.relative_to(root).as_posix(), label, fold))
    return files


ESC50 = LabeledSet(
    name="esc50",
    title="ESC-50",
    side="audio",
    read=read_esc50,
    expected="audio/*.wav and meta/esc50.csv, "
    "or one folder for each class with files such as 1-100032-A.ogg",
    n_files=2000,
    n_classes=50,
    folds=_FOLDS,
    clip_seconds=5.0,
    windows=10,
    # Section 4.1, table 2 of the paper.
    published=(
        PublishedFigure("SVM on MFCC (Piczak 2015)", 0.396, FROM_OLDER_TABLES),
        PublishedFigure("convolutional autoencoder (Aytar et al. 2016)", 0.399, FROM_OLDER_TABLES),
        PublishedFigure("random forest (Piczak 2015)", 0.443, FROM_OLDER_TABLES),
        PublishedFigure("ConvNet (Piczak 2015)", 0.645, FROM_OLDER_TABLES),
        PublishedFigure("SoundNet (Aytar et al. 2016)", 0.742, FROM_REVIEW),
        PublishedFigure("L3-Net, random weights", 0.625, FROM_REVIEW),
        PublishedFigure("L3-Net", 0.793, FROM_REVIEW),
        PublishedFigure("people", 0.813, FROM_REVIEW),
    ),
)

ESC10 = LabeledSet(
    name="esc10",
    title="ESC-10",
    side="audio",
    read=read_esc10,
    expected="ESC-50's audio/*.wav and meta/esc50.csv, "
    "or one folder for each class with files such as 1-100032-A.ogg",
    n_files=400,
    n_classes=10,
    folds=_FOLDS,
    clip_seconds=5.0,
    windows=10,
    published=(
        PublishedFigure("random forest on MFCC (Piczak 2015)", 0.727, _FROM_ESC_PAGE),
        PublishedFigure("SoundNet (Aytar et al. 2016)", 0.922, _FROM_ESC_PAGE),
        PublishedFigure("people", 0.957, _FROM_ESC_PAGE),
    ),
)
