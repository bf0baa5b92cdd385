"""ImageNet (ILSVRC 2012): 1.3 million images of 1,000 classes, tested on the validation split."""

from pathlib import Path

from looklisten.evaluation.sets.file_listing import files_in_class_folders
from looklisten.evaluation.sets.labeled_set import (
    FROM_REVIEW,
    NOT_CHECKED,
    LabeledItem,
    LabeledSet,
    PublishedFigure,
)
from looklisten.media.formats import IMAGE_SUFFIXES

_FOLDS = ("train", "val")


def read_imagenet(root: Path) -> list[LabeledItem]:
    """The folders `train` and `val`, each with one folder for each synset.

    The owner distributes the validation images in one folder; they must be sorted by synset.
    """
    # Distributions also have a folder `test`, whose labels are not public.
    files = files_in_class_folders(root, IMAGE_SUFFIXES)
    return [file for file in files if file.fold in _FOLDS]


IMAGENET = LabeledSet(
    name="imagenet",
    title="ImageNet",
    side="vision",
    read=read_imagenet,
    expected="train/n01440764/*.JPEG … and val/n01440764/*.JPEG …",
    # 1,281,167 training and 50,000 validation images.
    n_files=1_331_167,
    n_classes=1000,
    folds=_FOLDS,
    tested=("val",),
    # Section 4.2, table 3 of the paper.
    published=(
        PublishedFigure("random weights (AlexNet)", 0.183, NOT_CHECKED),
        PublishedFigure("Pathak et al. 2016", 0.223, NOT_CHECKED),
        PublishedFigure("Krähenbühl et al. 2016", 0.245, NOT_CHECKED),
        PublishedFigure("Donahue et al. 2017", 0.322, NOT_CHECKED),
        PublishedFigure("Doersch et al. 2015", 0.317, FROM_REVIEW),
        PublishedFigure("Zhang et al. 2016", 0.326, FROM_REVIEW),
        PublishedFigure("Noroozi & Favaro 2016", 0.347, FROM_REVIEW),
        PublishedFigure("L3-Net, random weights", 0.129, FROM_REVIEW),
        PublishedFigure("L3-Net", 0.323, FROM_REVIEW),
    ),
)
