"""Labelled sets on disk, as their owners distribute them: which file is of which class and in which
fold. Opens no media.

A set is a row of `SETS`: whose layout is read by which function of `layouts`, and what must be
there for it to be whole.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Int
from numpy.typing import NDArray

from looklisten.config import Side
from looklisten.errors import SourceError
from looklisten.evaluation.sets import layouts
from looklisten.evaluation.sets.layouts import Item
from looklisten.evaluation.sets.published import PUBLISHED, Published

SetName = Literal["esc50", "esc10", "dcase2013", "urbansound8k", "sounds", "imagenet", "images"]

FOLDS = 5
"""Of a set whose owner made none."""
WINDOWS_PER_SECOND = 2
"""Sub-clips of a clip: 10 of 5 s, 60 of 30 s (paper, section 4.1)."""


@dataclass(frozen=True)
class Layout:
    """A public set: how it is read, and what the whole of it is."""

    title: str
    side: Side
    read: Callable[[Path], list[Item]]
    expected: str
    """What lies where, for the sentence that says what is missing."""
    clips: int = 0
    """How many there are in the whole set; 0: any number."""
    classes: int = 0
    folds: tuple[str, ...] = ()
    tested: tuple[str, ...] = ()
    """The folds that are measured, each by what was fitted on the others; none: all in turn."""
    clip_seconds: float = 1.0
    """Shorter clips are looped up to it."""
    windows: int = 10


_FIVE = ("1", "2", "3", "4", "5")
_TEN = tuple(str(number) for number in range(1, 11))

SETS: dict[str, Layout] = {
    "esc50": Layout(
        "ESC-50", "audio", layouts.esc50, "audio/*.wav and meta/esc50.csv, or one folder a class with files like 1-100032-A.ogg",
        2000, 50, _FIVE, (), 5.0, 10,
    ),
    "esc10": Layout(
        "ESC-10", "audio", layouts.esc10, "ESC-50's audio/*.wav and meta/esc50.csv, or one folder a class with files like 1-100032-A.ogg",
        400, 10, _FIVE, (), 5.0, 10,
    ),
    "dcase2013": Layout(
        "DCASE 2013 scenes", "audio", layouts.dcase2013, "scenes_stereo/bus01.wav … and scenes_stereo_testset/bus01.wav …",
        200, 10, ("1", "2"), ("2",), 30.0, 60,
    ),
    "urbansound8k": Layout(
        "UrbanSound8K", "audio", layouts.urbansound8k, "metadata/UrbanSound8K.csv and audio/fold1/*.wav … audio/fold10/*.wav",
        8732, 10, _TEN, (), 4.0, 8,
    ),
    "sounds": Layout("sounds", "audio", layouts.sounds, "a table with path and label, or a folder with one folder of sounds a class"),
    "imagenet": Layout(
        "ImageNet", "vision", layouts.imagenet, "train/n01440764/*.JPEG … and val/n01440764/*.JPEG …",
        1_331_167, 1000, ("train", "val"), ("val",),
    ),
    "images": Layout("pictures", "vision", layouts.images, "a table with path and label, or a folder with one folder of pictures a class"),
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Benchmark:
    """A labelled set: item i is the file `root / paths[i]`, of class `labels[i]`, in fold
    `folds[i]`.
    """

    name: str
    title: str
    side: Side
    root: Path
    paths: tuple[str, ...]
    labels: NDArray[Any]
    folds: NDArray[Any]
    tested: tuple[str, ...]
    """The folds that are measured, each by what was fitted on the others."""
    clip_seconds: float
    """Sounds shorter than this are looped."""
    windows: int
    """Seconds that are cut out of a sound, equally spaced."""
    published: tuple[Published, ...]

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(map(str, np.unique(self.labels)))

    def key(self) -> str:
        """A hash of the files' names and sizes."""
        digest = hashlib.sha256()
        for path in self.paths:
            digest.update(f"{path}\0{(self.root / path).stat().st_size}\n".encode())
        return digest.hexdigest()[:16]


def open_benchmark(name: SetName, path: str | Path, partial: bool = False) -> Benchmark:
    """The set `name` at `path`. Raises SourceError, one sentence, when it is not there or, unless
    `partial`, not whole.
    """
    layout, root = SETS[name], Path(path)
    where = f"{layout.title} is expected at {root} as {layout.expected}"
    if not root.exists():
        raise SourceError(f"{where}; nothing is there")
    items = layout.read(root)
    if not items:
        raise SourceError(f"{where}; no such file was found there")
    root = root.parent if root.is_file() else root
    labels, folds = (
        np.array([getattr(item, field) for item in items]) for field in ("label", "fold")
    )
    _check_whole(layout, where, items, partial)
    if "" in folds:
        folds = dealt_folds(items)
    tested = tuple(fold for fold in layout.tested or _tested(folds) if fold in folds)
    if len(np.unique(labels)) < 2 or not tested or len(np.unique(folds)) < 2:
        raise SourceError(
            f"{where}; there are {len(np.unique(labels))} classes in {len(np.unique(folds))} folds, and measuring takes at least 2 of both"
        )
    return Benchmark(
        name=name,
        title=layout.title,
        side=layout.side,
        root=root,
        paths=tuple(item.path for item in items),
        labels=labels,
        folds=folds,
        tested=tested,
        clip_seconds=layout.clip_seconds,
        windows=layout.windows,
        published=PUBLISHED.get(name, ()),
    )


def _check_whole(layout: Layout, where: str, items: Sequence[Item], partial: bool) -> None:
    classes = len({item.label for item in items})
    lacking = [fold for fold in layout.folds if fold not in {item.fold for item in items}]
    if (
        partial
        or not layout.clips
        or (len(items), classes, lacking) == (layout.clips, layout.classes, [])
    ):
        return
    raise SourceError(
        f"{where}; there are {len(items):,} files of {layout.clips:,} and {classes} classes of {layout.classes}"
        f"{f', none of fold {lacking[0]}' if lacking else ''}; fetch the rest, or measure what is there with --partial, "
        f"which is no figure to compare"
    )


def _tested(folds: NDArray[Any]) -> tuple[str, ...]:
    """Where the owner made splits, the test split, or the validation split where there is none;
    else all folds in turn.
    """
    names = [str(fold) for fold in np.unique(folds)]
    for split in ("test", "val"):
        if "train" in names and split in names:
            return (split,)
    return tuple(names)


def turns(paths: Sequence[str], labels: Sequence[str]) -> Int[np.ndarray, " items"]:
    """The place of each file among those of its class, in the order of their names' hashes: the
    same for the same names.
    """
    order = sorted(
        range(len(paths)), key=lambda i: (labels[i], hashlib.sha256(paths[i].encode()).digest())
    )
    places, seen = np.empty(len(paths), dtype=np.int64), dict.fromkeys(labels, 0)
    for i in order:
        places[i] = seen[labels[i]]
        seen[labels[i]] += 1
    return places


def dealt_folds(items: Sequence[Item]) -> NDArray[Any]:
    """Five folds: the files of each class dealt in turn."""
    return (
        turns([item.path for item in items], [item.label for item in items]) % FOLDS + 1
    ).astype(str)
