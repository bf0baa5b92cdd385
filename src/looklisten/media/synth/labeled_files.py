"""A user's labeled images or sounds: the class of each file, and its side of the split.

Reads names and tables, and the bytes of files to find copies; decodes nothing.
"""

import hashlib
import os
from collections import defaultdict
from collections.abc import Iterable, Set
from dataclasses import dataclass
from pathlib import Path

from looklisten.errors import ConfigError, SourceError
from looklisten.names import HELD_OUT_NAMES, TRAIN_NAMES, encode_name, printable
from looklisten.system.folders import find_files, unreadable_reason
from looklisten.tables import read_table

SPLIT_NAMES = TRAIN_NAMES | HELD_OUT_NAMES

FileFailure = dict[str, str]
"""A file that cannot be used: source, stage, reason."""


@dataclass(frozen=True)
class LabeledFile:
    """One image or sound and its class."""

    path: str
    label: str
    group: str = ""
    """Files of one group, such as a fold, stay on one side of the split; "": the file alone."""


def failure(path: str, stage: str, reason: str) -> FileFailure:
    """A line of `failures.jsonl`."""
    return {"source": encode_name(path), "stage": stage, "reason": reason}


def read_labeled_files(
    folder_or_table: Path, suffixes: Set[str]
) -> tuple[list[LabeledFile], list[FileFailure]]:
    """(labeled files in the order of their paths, files that cannot be used).

    A table (`.csv`, `.tsv`, `.parquet`) has the columns path, label (or class), and optionally
    split (or fold). In a folder the label is the name of the folder that a file is in; a folder
    above that is named train, val, test … gives the split. Of files with equal bytes only the first
    counts. Raises ConfigError if no file can be used.
    """
    if not folder_or_table.exists():
        raise ConfigError(
            f"{folder_or_table} does not exist; give a folder with one folder of files for each "
            "class, or a table with the columns path and label"
        )
    if folder_or_table.is_file():
        files, failures = _from_table(folder_or_table)
    else:
        files, failures = _from_folder(folder_or_table, suffixes)
    # Sorted first, so that it is always the same one of several copies that stays.
    files.sort(key=lambda file: file.path)
    files, unreadable = _without_copies(files)
    failures += unreadable
    if files:
        return files, failures
    if failures:
        first = failures[0]
        raise ConfigError(
            f"none of the {len(failures)} files of {folder_or_table} can be read; the first: "
            f"{printable(first['source'])}: {first['reason']}"
        )
    raise ConfigError(
        f"{folder_or_table} has no labeled files; expected FOLDER/CLASS/FILE with one of "
        f"{', '.join(sorted(suffixes))}, or a table with path and label"
    )


def _from_table(table_path: Path) -> tuple[list[LabeledFile], list[FileFailure]]:
    try:
        table = read_table(str(table_path), table_path.read_bytes())
    except SourceError as error:
        raise ConfigError(str(error)) from None
    label_column = _first_column(table.columns, "label", "class")
    group_column = _first_column(table.columns, "split", "fold")
    if "path" not in table.columns or not label_column:
        columns = sorted(filter(None, table.columns))
        listed = ", ".join(map(printable, columns)) or "none"
        raise ConfigError(
            f"the table {table_path} needs the columns path and label; it has {listed}"
        )
    files = []
    failures = []
    for row in table.rows:
        path = table_path.parent / row.text("path")
        group = row.text(group_column) if group_column else ""
        if path.is_file():
            files.append(LabeledFile(str(path), row.text(label_column), group))
        else:
            failures.append(failure(str(path), "find", "there is no such file"))
    return files, failures


def _first_column(columns: Iterable[str], *names: str) -> str:
    """The first of `names` that is a column, or ""."""
    return next((name for name in names if name in columns), "")


def _from_folder(folder: Path, suffixes: Set[str]) -> tuple[list[LabeledFile], list[FileFailure]]:
    contents = find_files(folder, suffixes.__contains__)
    top = os.path.abspath(folder)  # noqa: PTH100 (as `find_files` writes paths)
    files = []
    for file in contents.files:
        relative = Path(file.path).relative_to(top)
        # The empty text stands for the folder itself, the parent of a file directly in it.
        *above, label, _ = ["", *relative.parts]
        if not label:
            continue  # a file directly in the folder has no class
        splits = [name for name in above if name.lower() in SPLIT_NAMES]
        group = splits[0] if splits else ""
        files.append(LabeledFile(str(folder / relative), encode_name(label), group))
    failures = [failure(path, "find", reason) for path, reason in contents.problems]
    return files, failures


def _without_copies(files: list[LabeledFile]) -> tuple[list[LabeledFile], list[FileFailure]]:
    digests: set[bytes] = set()
    unique = []
    failures = []
    for file in files:
        try:
            with Path(file.path).open("rb") as opened:
                digest = hashlib.file_digest(opened, "sha256").digest()
        except OSError as error:
            failures.append(failure(file.path, "open", unreadable_reason(error)))
            continue
        # A copy might be on the other side of the split, and no file may be on both.
        if digest not in digests:
            digests.add(digest)
            unique.append(file)
    return unique, failures


def split_files(
    files: Iterable[LabeledFile], test_share: float
) -> dict[tuple[str, str], list[LabeledFile]]:
    """(label, "train" or "test") -> its files.

    Groups named like a split decide. Of other groups about `test_share` are test groups. Of files
    without a group, about `test_share` of each class are test files. Hashes choose, so that new
    files change the side of few others.
    """
    files = list(files)
    groups = {file.group for file in files} - {""}
    if all(group.lower() in SPLIT_NAMES for group in groups):
        test_groups = {group for group in groups if group.lower() in HELD_OUT_NAMES}
    else:
        test_groups = _first_by_hash(groups, test_share)
    names_by_label: dict[str, set[str]] = defaultdict(set)
    for file in files:
        if not file.group:
            names_by_label[file.label].add(Path(file.path).name)
    test_names = {}
    for label, names in names_by_label.items():
        test_names[label] = _first_by_hash(names, test_share)
    sides: dict[tuple[str, str], list[LabeledFile]] = defaultdict(list)
    for file in files:
        if file.group:
            is_test = file.group in test_groups
        else:
            is_test = Path(file.path).name in test_names[file.label]
        sides[file.label, "test" if is_test else "train"].append(file)
    return dict(sides)


def _first_by_hash(names: set[str], share: float) -> set[str]:
    """`share` of the names, chosen by their hashes."""
    ordered = sorted(names, key=lambda name: hashlib.sha256(os.fsencode(name)).hexdigest())
    return set(ordered[: round(share * len(ordered))])
