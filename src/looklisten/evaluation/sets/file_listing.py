"""Folders and tables -> the labeled files that they list, in a fixed order. Opens no media."""

from pathlib import Path

from looklisten.errors import SourceError
from looklisten.evaluation.sets.labeled_set import LabeledItem
from looklisten.names import encode_name, parse_split
from looklisten.system.folders import files_with_suffix
from looklisten.tables import as_records, read_table


def files_in_class_folders(root: Path, suffixes: frozenset[str]) -> list[LabeledItem]:
    """Files in a layout of `CLASS/.../FILE`, or of `SPLIT/CLASS/.../FILE`.

    The second layout is assumed if the name of every top folder is that of a split.
    """
    inside_folders = []
    in_splits = True
    for file in files_with_suffix(root, suffixes):
        path = file.relative_to(root)
        # A file at the top has no class.
        if len(path.parts) == 1:
            continue
        inside_folders.append(path)
        if len(path.parts) == 2 or not parse_split(path.parts[0]):
            in_splits = False
    files = []
    for path in inside_folders:
        label = path.parts[1] if in_splits else path.parts[0]
        fold = parse_split(path.parts[0]) if in_splits else ""
        files.append(LabeledItem(path.as_posix(), encode_name(label), fold))
    return files


def table_rows(
    table: Path,
    columns: tuple[str, ...],
    alternatives: tuple[str, ...] = (),
    optional: tuple[str, ...] = (),
) -> list[dict[str, str]]:
    """The rows of a table as text, by those of the columns named here that it has.

    The table must have all of `columns`, and one of `alternatives` if there are any. Other columns
    may hold anything. Raises SourceError if the table cannot be read or lacks a column.
    """
    advice = "use the table as its owner distributes it"
    try:
        content = read_table(str(table), table.read_bytes())
        rows = list(as_records(content, (*columns, *alternatives, *optional)))
    except OSError as error:
        raise SourceError(f"{table} cannot be read ({error}); {advice}") from None
    except SourceError as error:
        raise SourceError(f"{error}; {advice}") from None
    present = set(content.columns) if rows else set()
    missing = [column for column in columns if column not in present]
    if alternatives and not present & set(alternatives):
        missing.append(" or ".join(alternatives))
    if missing:
        columns_present = ", ".join(content.columns) if rows else "no rows"
        raise SourceError(
            f"{table} lacks the column {missing[0]}; it has {columns_present}; {advice}"
        )
    return rows


def checked_files(root: Path, files: list[LabeledItem], table: Path) -> list[LabeledItem]:
    """`files`, after a check that each exists. Raises SourceError if some do not."""
    missing = [file.path for file in files if not (root / file.path).is_file()]
    if missing:
        raise SourceError(
            f"{table} lists {len(files):,} files, but {len(missing):,} of them do not exist, "
            f"such as {root / missing[0]}; download the missing files"
        )
    return files
