"""How each owner lays out a labelled set: a folder or table -> its files with class and fold, in a
fixed order. Opens no media.
"""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from looklisten.errors import SourceError
from looklisten.names import normalize_split, parse_split
from looklisten.tables import as_records, read_table

SOUND_SUFFIXES = frozenset(
    (".wav", ".ogg", ".mp3", ".flac", ".m4a", ".aac", ".opus", ".aif", ".aiff", ".wma")
)
PICTURE_SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm")
)
TABLE = "labels.csv"
"""A folder with a file of this name is read by it."""

_ESC_NAME = re.compile(r"([1-5])-\d+-[A-Z]\d*(-\d+)?")
_SCENE_NAME = re.compile(r"([a-z]+?)[_-]?\d+")
_DCASE_FOLDERS = {"1": "scenes_stereo", "2": "scenes_stereo_testset"}


class Item(NamedTuple):
    """One file: its path below the set's folder, its class, and its fold or split, empty where the
    owner made none.
    """

    path: str
    label: str
    fold: str


def esc50(root: Path) -> list[Item]:
    """ESC-50 (Piczak 2015): the repository's `meta/esc50.csv` and `audio/`, or a folder a class as
    it was laid out before.
    """
    table = root / "meta" / "esc50.csv"
    if not table.is_file():
        return _esc_folders(root)
    rows = _rows(table, ("filename", "fold", "category"))
    return _present(
        root,
        [Item(f"audio/{row['filename']}", row["category"], row["fold"]) for row in rows],
        table,
    )


def esc10(root: Path) -> list[Item]:
    """ESC-10: the part of ESC-50 that its table marks `esc10`, or the older set of its own, a
    folder a class.
    """
    table = root / "meta" / "esc50.csv"
    if not table.is_file():
        return _esc_folders(root)
    rows = _rows(table, ("filename", "fold", "category", "esc10"))
    marked = [row for row in rows if row["esc10"].strip().lower() == "true"]
    return _present(
        root,
        [Item(f"audio/{row['filename']}", row["category"], row["fold"]) for row in marked],
        table,
    )


def _esc_folders(root: Path) -> list[Item]:
    """`001 - Dog bark/1-100032-A.ogg`: the class is the folder's name without its number, the fold
    is the first number of the file's.
    """
    found = []
    for file in _files(root, SOUND_SUFFIXES):
        if (named := _ESC_NAME.fullmatch(file.stem)) and file.parent != root:
            found.append(
                Item(
                    file.relative_to(root).as_posix(),
                    re.sub(r"^\d+ - ", "", file.parent.name),
                    named[1],
                )
            )
    return found


def dcase2013(root: Path) -> list[Item]:
    """The scenes of DCASE 2013 as the challenge hands them out: `scenes_stereo` (public, fold 1)
    and `scenes_stereo_testset` (fold 2).

    The class is the file's name without its number. The paper fits on the first and measures on the
    second, 100 clips each.
    """
    found = []
    for fold, folder in _DCASE_FOLDERS.items():
        for file in _files(root / folder, SOUND_SUFFIXES):
            if named := _SCENE_NAME.fullmatch(file.stem):
                found.append(Item(file.relative_to(root).as_posix(), named[1], fold))
    return found


def urbansound8k(root: Path) -> list[Item]:
    """UrbanSound8K (Salamon et al. 2014): `metadata/UrbanSound8K.csv` and ten folders of `audio/`."""
    table = root / "metadata" / "UrbanSound8K.csv"
    if not table.is_file():
        return []
    rows = _rows(table, ("slice_file_name", "fold", "class"))
    return _present(
        root,
        [
            Item(f"audio/fold{row['fold']}/{row['slice_file_name']}", row["class"], row["fold"])
            for row in rows
        ],
        table,
    )


def imagenet(root: Path) -> list[Item]:
    """ImageNet (ILSVRC 2012): `train` and `val`, in each a folder a synset (the validation pictures
    sorted into them).
    """
    return [item for item in _folders(root, PICTURE_SUFFIXES) if item.fold in ("train", "val")]


def sounds(root: Path) -> list[Item]:
    """Sounds by a table or by folders."""
    return _table_or_folders(root, SOUND_SUFFIXES)


def images(root: Path) -> list[Item]:
    """Pictures by a table or by folders."""
    return _table_or_folders(root, PICTURE_SUFFIXES)


def _table_or_folders(root: Path, suffixes: frozenset[str]) -> list[Item]:
    table = root if root.is_file() else root / TABLE
    return _table(table) if table.is_file() else _folders(root, suffixes)


def _table(table: Path) -> list[Item]:
    """A CSV file with the columns path, label (or class) and perhaps fold (or split); paths start
    at its folder.
    """
    rows = _rows(table, ("path",), ("label", "class"))
    label = "label" if "label" in rows[0] else "class"
    fold = next((column for column in ("fold", "split") if column in rows[0]), "")
    items = [
        Item(row["path"], row[label], normalize_split(row[fold]) if fold else "") for row in rows
    ]
    if fold and any(item.fold for item in items) and not all(item.fold for item in items):
        raise SourceError(
            f"{table}: some lines tell a {fold} and some do not; fill the column, or leave it out and folds are dealt"
        )
    return _present(table.parent, items, table)


def _folders(root: Path, suffixes: frozenset[str]) -> list[Item]:
    """`CLASS/…/FILE`, or `SPLIT/CLASS/…/FILE` where every top folder is named like a split."""
    found = []
    for file in _files(root, suffixes):
        inside = file.relative_to(root)
        if len(inside.parts) > 1:
            found.append((inside.as_posix(), inside.parts))
    if found and all(parse_split(parts[0]) and len(parts) > 2 for _, parts in found):
        return [Item(path, parts[1], parse_split(parts[0])) for path, parts in found]
    return [Item(path, parts[0], "") for path, parts in found]


def _files(folder: Path, suffixes: frozenset[str]) -> Iterator[Path]:
    """Files of these suffixes in and below a folder, in the order of their names; those that begin
    with a dot are nobody's.
    """
    for file in sorted(folder.rglob("*")):
        if file.suffix.lower() in suffixes and not file.name.startswith("."):
            yield file


def _rows(
    table: Path, columns: tuple[str, ...], either: tuple[str, ...] = ()
) -> list[dict[str, str]]:
    try:
        rows = list(as_records(read_table(str(table), table.read_bytes())))
    except OSError as error:
        raise SourceError(
            f"{table} cannot be read ({error}); give the table as its owner distributes it"
        ) from None
    except SourceError as error:
        raise SourceError(f"{error}; give the table as its owner distributes it") from None
    has = rows[0].keys() if rows else set()
    lacking = [column for column in columns if column not in has] + (
        [" or ".join(either)] if either and not has & set(either) else []
    )
    if lacking:
        raise SourceError(
            f"{table} lacks the column {lacking[0]}, has {', '.join(has) or 'no line'}; give the table as its owner distributes it"
        )
    return rows


def _present(root: Path, items: list[Item], table: Path) -> list[Item]:
    """The items, all of whose files are there. Raises SourceError, one sentence, when some are not."""
    gone = [item.path for item in items if not (root / item.path).is_file()]
    if gone:
        raise SourceError(
            f"{table} names {len(items):,} files, and {len(gone):,} of them are not there, the first {root / gone[0]}; fetch the rest"
        )
    return items


Reader = Callable[[Path], list[Item]]
