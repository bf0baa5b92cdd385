"""UrbanSound8K (Salamon et al. 2014): ten folds of city sounds of at most four seconds."""

from pathlib import Path

from looklisten.evaluation.sets.file_listing import checked_files, table_rows
from looklisten.evaluation.sets.labeled_set import (
    NOT_CHECKED,
    LabeledItem,
    LabeledSet,
    PublishedFigure,
)


def read_urbansound8k(root: Path) -> list[LabeledItem]:
    """The table `metadata/UrbanSound8K.csv` and the ten folders in `audio/`."""
    table = root / "metadata" / "UrbanSound8K.csv"
    # Nothing found is reported with the expected layout by the caller.
    if not table.is_file():
        return []
    files = []
    for row in table_rows(table, ("slice_file_name", "fold", "class")):
        path = f"audio/fold{row['fold']}/{row['slice_file_name']}"
        files.append(LabeledItem(path, row["class"], row["fold"]))
    return checked_files(root, files, table)


URBANSOUND8K = LabeledSet(
    name="urbansound8k",
    title="UrbanSound8K",
    side="audio",
    read=read_urbansound8k,
    expected="metadata/UrbanSound8K.csv and audio/fold1/*.wav … audio/fold10/*.wav",
    n_files=8732,
    n_classes=10,
    folds=("1", "2", "3", "4", "5", "6", "7", "8", "9", "10"),
    clip_seconds=4.0,
    windows=8,
    # A multi-layer classifier was used there, which is not this protocol.
    published=(PublishedFigure("OpenL3, mel256, music (Cramer et al. 2019)", 0.782, NOT_CHECKED),),
)
