"""DCASE 2013 scenes: a public part and a test part with 100 recordings of 30 seconds each."""

import re
from pathlib import Path

from looklisten.evaluation.sets.labeled_set import (
    FROM_OLDER_TABLES,
    FROM_REVIEW,
    LabeledItem,
    LabeledSet,
    PublishedFigure,
)
from looklisten.media.formats import AUDIO_SUFFIXES
from looklisten.system.folders import files_with_suffix

_FOLDER_OF_FOLD = {"1": "scenes_stereo", "2": "scenes_stereo_testset"}
# Letters up to the number, so that `busystreet01` is not `bus`.
_SCENE_NAME = re.compile(r"([a-z]+?)[_-]?\d+")


def read_dcase2013(root: Path) -> list[LabeledItem]:
    """The challenge's two folders; the class is the name of the file without its number."""
    files = []
    for fold, folder in _FOLDER_OF_FOLD.items():
        for file in files_with_suffix(root / folder, AUDIO_SUFFIXES):
            scene_name = _SCENE_NAME.fullmatch(file.stem)
            if scene_name is None:
                continue
            files.append(LabeledItem(file.relative_to(root).as_posix(), scene_name[1], fold))
    return files


DCASE2013 = LabeledSet(
    name="dcase2013",
    title="DCASE 2013 scenes",
    side="audio",
    read=read_dcase2013,
    expected="scenes_stereo/bus01.wav … and scenes_stereo_testset/bus01.wav …",
    n_files=200,
    n_classes=10,
    folds=("1", "2"),
    # The paper fits on the public part and tests on the other.
    tested=("2",),
    # Two windows for each second, as in the paper.
    clip_seconds=30.0,
    windows=60,
    # Section 4.1, table 2 of the paper.
    published=(
        PublishedFigure("RG (Rakotomamonjy & Gasso)", 0.69, FROM_OLDER_TABLES),
        PublishedFigure("LTT (Li et al.)", 0.72, FROM_OLDER_TABLES),
        PublishedFigure("RNH (Roma et al.)", 0.77, FROM_OLDER_TABLES),
        PublishedFigure("ensemble of the challenge", 0.78, FROM_OLDER_TABLES),
        PublishedFigure("SoundNet (Aytar et al. 2016)", 0.88, FROM_REVIEW),
        PublishedFigure("L3-Net, random weights", 0.85, FROM_REVIEW),
        PublishedFigure("L3-Net", 0.93, FROM_REVIEW),
    ),
)
