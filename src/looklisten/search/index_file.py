"""`index.json`: which network an index belongs to and, of the store `arrow`, its last commit."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, get_args

from looklisten.errors import StoreError
from looklisten.names import first_few, printable
from looklisten.search.store import StoreKind
from looklisten.system.files import write_json

INDEX_NAME = "index.json"
INDEX_VERSION = 1
"""Of the files of an index. A program reads only the versions that it knows."""


@dataclass(frozen=True)
class FragmentEntry:
    """One part of the store `arrow`, with the sources that were removed from it since."""

    name: str
    moments: int
    """Rows of the files, those of removed sources among them."""
    rows_bytes: int
    """The size of `rows.arrow`."""
    removed: tuple[str, ...] = ()


@dataclass(frozen=True)
class BucketTable:
    """The table of the store `lance` in an object store."""

    address: str
    """Such as `s3://bucket/path`, without any key."""
    index_id: str
    """That of the index, which the table has too; copies of its folder share it."""


@dataclass(frozen=True)
class IndexFile:
    """What `index.json` says."""

    store: StoreKind
    space_id: str
    width: int
    next_fragment: int = 1
    fragments: tuple[FragmentEntry, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What a store notes about itself, such as a measured recall."""
    table: BucketTable | None = None
    """Where the table of `lance` is; None: in the folder."""

    @classmethod
    def read(cls, db: Path) -> "IndexFile":
        """Raises StoreError, one sentence, when it is missing, damaged or of another version."""
        path = db / INDEX_NAME
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise StoreError(
                f"{printable(db)} holds no index; make one with `looklisten index`"
            ) from None
        except (OSError, ValueError) as error:
            raise damaged(db, path, str(error)) from None
        if not isinstance(values, dict):
            raise damaged(db, path, "it holds no JSON object")
        version = values.pop("version", None)
        if version != INDEX_VERSION:
            raise StoreError(
                f"{printable(db)} is an index of version {version}, and this program reads version "
                f"{INDEX_VERSION}; index again into another folder, or use the program that wrote "
                "it"
            )
        try:
            fragments = tuple(
                FragmentEntry(**{**entry, "removed": tuple(entry["removed"])})
                for entry in values.pop("fragments")
            )
            table = values.pop("table", None)
            bucket = BucketTable(**table) if table else None
            index_file = cls(fragments=fragments, table=bucket, **values)
            index_file._check()
        except (TypeError, KeyError, ValueError) as error:
            raise damaged(db, path, str(error)) from None
        return index_file

    def _check(self) -> None:
        """Raises ValueError for values that no program writes."""
        if self.store not in get_args(StoreKind):
            raise ValueError(f"the store {self.store!r} is unknown")
        numbers = [self.width, self.next_fragment]
        for entry in self.fragments:
            numbers += [entry.moments, entry.rows_bytes]
            # A name must not lead out of the folder of fragments.
            if not entry.name.isalnum():
                raise ValueError(f"{entry.name!r} names no fragment")
        if self.table and not all(isinstance(text, str) for text in asdict(self.table).values()):
            raise ValueError("the address of the table is no text")
        if not all(isinstance(number, int) and number > 0 for number in numbers):
            raise ValueError("a count is not a whole number above 0")

    def write(self, db: Path) -> None:
        """Replace `index.json`: this is the commit."""
        values = asdict(self)
        # Programs of before know no such field.
        if self.table is None:
            del values["table"]
        write_json(db / INDEX_NAME, {"version": INDEX_VERSION, **values})

    def with_facts(self, **facts: Any) -> "IndexFile":
        return replace(self, facts={**self.facts, **facts})

    def check_network(self, db: Path, space_id: str | None, width: int | None) -> None:
        """Raises StoreError when the vectors of the index are of another network."""
        if space_id is not None and space_id != self.space_id:
            raise StoreError(
                f"{printable(db)} was indexed with another network ({self.space_id}, not "
                f"{space_id}); give that network, or index into another folder"
            )
        if width is not None and width != self.width:
            raise StoreError(
                f"{printable(db)} holds vectors of {self.width} numbers, not of {width}; "
                "give the network that made it, or index into another folder"
            )


def damaged(db: Path, path: Path, reason: str) -> StoreError:
    """The sentence about a file of an index that cannot be read."""
    first_line = first_few(reason.splitlines()[:1] or ["unknown reason"])
    return StoreError(
        f"the index {printable(db)} is damaged: {printable(path.relative_to(db))} cannot be read "
        f"({first_line}); delete the folder and index again, or restore a copy of it"
    )
