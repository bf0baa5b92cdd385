"""Labelled files of a user's own, pictures or sounds: what each shows, and on which side of the
split it is. Decodes none of them.
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Set
from dataclasses import dataclass
from pathlib import Path

from looklisten.errors import ConfigError, SourceError
from looklisten.names import HELD_OUT_NAMES, TRAIN_NAMES, printable
from looklisten.tables import read_table


@dataclass(frozen=True)
class Item:
    """One labelled file. `group`: what must not be torn apart by a split, such as a fold; empty:
    the file stands for itself.
    """

    path: str
    label: str
    group: str = ""


def read_items(where: Path, suffixes: Set[str]) -> list[Item]:
    """The labelled files of a table or a folder, in the order of their paths; of files with equal
    bytes only the first.

    A table (`.csv`, `.tsv`, `.parquet`) has the columns path, label (or class) and perhaps split
    (or fold). In a folder a file's label is the name of the folder it lies in, and a folder above
    that is named train, val, test … says its split. Raises ConfigError when there is nothing.
    """
    if not where.exists():
        raise ConfigError(
            f"{where} is not there; give a folder with one folder of files a class, or a table with columns path and label"
        )
    items = _of_table(where) if where.is_file() else _of_folder(where, suffixes)
    if not items:
        kinds = ", ".join(sorted(suffixes))
        raise ConfigError(
            f"{where} has no labelled files; expected FOLDER/CLASS/FILE with one of {kinds}, or a table with path and label"
        )
    return _without_copies(sorted(items, key=lambda item: item.path))


def _of_table(table: Path) -> list[Item]:
    try:
        read = read_table(str(table), table.read_bytes())
    except SourceError as error:
        raise ConfigError(str(error)) from None
    columns = set(read.columns)
    label, group = (
        next((c for c in names if c in columns), "")
        for names in (("label", "class"), ("split", "fold"))
    )
    if "path" not in columns or not label:
        listed = ", ".join(map(printable, sorted(filter(None, columns)))) or "none"
        raise ConfigError(f"the table {table} needs the columns path and label; it has {listed}")
    items = [
        Item(
            str(table.parent / row.text("path")), row.text(label), row.text(group) if group else ""
        )
        for row in read.rows
    ]
    lost = [item.path for item in items if not Path(item.path).is_file()]
    if lost:
        raise ConfigError(
            f"the table {table} names {len(lost)} files that are not there, the first is {lost[0]}"
        )
    return items


def _of_folder(folder: Path, suffixes: Set[str]) -> list[Item]:
    items = []
    for path in folder.rglob("*"):
        if path.suffix.lower() in suffixes and path.parent != folder:
            above = [
                part
                for part in path.relative_to(folder).parts[:-2]
                if part.lower() in TRAIN_NAMES | HELD_OUT_NAMES
            ]
            items.append(Item(str(path), path.parent.name, above[0] if above else ""))
    return items


def _without_copies(items: list[Item]) -> list[Item]:
    seen: set[str] = set()
    kept = []
    for item in items:
        digest = hashlib.sha256(Path(item.path).read_bytes()).hexdigest()
        if digest not in seen:
            seen.add(digest)
            kept.append(item)
    return kept


def split_items(items: Iterable[Item], test_share: float) -> dict[tuple[str, str], list[Item]]:
    """(label, "train" or "test") -> its files.

    Groups named like a split decide; other groups go whole, about `test_share` of them to the
    tests; files without a group go by themselves, class by class. Hashes choose, so that more files
    move few others.
    """
    items = list(items)
    groups = {item.group for item in items} - {""}
    if all(group.lower() in TRAIN_NAMES | HELD_OUT_NAMES for group in groups):
        in_test = {group for group in groups if group.lower() in HELD_OUT_NAMES}
    else:
        in_test = _first_by_hash(groups, test_share)
    alone: dict[str, set[str]] = defaultdict(set)
    for item in items:
        if not item.group:
            alone[item.label].add(Path(item.path).name)
    chosen = {label: _first_by_hash(names, test_share) for label, names in alone.items()}
    found: dict[tuple[str, str], list[Item]] = defaultdict(list)
    for item in items:
        test = item.group in in_test if item.group else Path(item.path).name in chosen[item.label]
        found[item.label, "test" if test else "train"].append(item)
    return dict(found)


def _first_by_hash(names: set[str], share: float) -> set[str]:
    order = sorted(names, key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    return set(order[: round(share * len(order))])
