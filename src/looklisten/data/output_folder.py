"""A folder of results, on this machine or anywhere that fsspec writes.

Each file in it is complete or absent. `OutputFolder` reads and writes bytes and JSON. `local_copy`
copies a remote set of shards to this machine.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import fsspec

from looklisten.data.clip_columns import COLUMNS_FILE
from looklisten.errors import ConfigError, ShardError
from looklisten.names import printable
from looklisten.system.cache import writable_cache
from looklisten.system.files import atomic_write, json_bytes, remove_abandoned_scratch


class OutputFolder:
    """`out` is a path or an address such as `s3://bucket/set`; names are relative to it."""

    def __init__(self, out: str | Path) -> None:
        self.address = str(out)
        self.folder = None if "://" in self.address else Path(out)
        self._system: Any = None
        self._top = ""
        try:
            if self.folder is None:
                self._system, self._top = fsspec.url_to_fs(self.address)
        except (ImportError, ValueError) as error:
            raise ConfigError(f"{out} cannot be written to: {error}") from None
        if self.address.startswith(("http://", "https://")):
            raise ConfigError(
                f"{out} cannot be written to; use a folder, or a bucket such as s3://bucket/set"
            )

    def __str__(self) -> str:
        return printable(self.address)

    def _full_name(self, name: str) -> str:
        return f"{self._top}/{name}"

    def read(self, name: str) -> bytes | None:
        """The content of a file; None if it does not exist."""
        try:
            if self.folder is not None:
                return (self.folder / name).read_bytes()
            data: bytes = self._system.cat_file(self._full_name(name))
        except FileNotFoundError:
            return None
        return data

    def remove(self, name: str) -> None:
        """Remove a file, if it exists."""
        with contextlib.suppress(FileNotFoundError):
            if self.folder is not None:
                (self.folder / name).unlink()
            else:
                self._system.rm_file(self._full_name(name))

    def read_json(self, name: str) -> Any:
        """The value in a JSON file; None if the file does not exist or is damaged."""
        data = self.read(name)
        # A damaged record counts as absent: its batch is then made again.
        with contextlib.suppress(ValueError):
            return None if data is None else json.loads(data)

    def write(self, name: str, data: bytes) -> None:
        """Write one file, which is then complete or absent."""
        if self.folder is None:
            # The upload of an object store is atomic by itself.
            self._system.pipe_file(self._full_name(name), data)
            return
        with atomic_write(self.folder / name) as scratch:
            scratch.write_bytes(data)

    def write_json(self, name: str, value: object) -> None:
        """Write `value` as indented JSON; the same value gives the same bytes."""
        self.write(name, json_bytes(value, indent=1))

    def write_lines(self, name: str, rows: list[dict[str, Any]]) -> None:
        """Write one line of JSON for each row."""
        self.write(name, b"".join(map(json_bytes, rows)))

    def sizes(self, folder: str = "") -> dict[str, int]:
        """The files of a folder, in one request: name -> bytes."""
        try:
            if self.folder is not None:
                return _local_sizes(self.folder / folder)
            address = self._full_name(folder).rstrip("/")
            # fsspec remembers listings, but other machines write into this folder.
            entries = self._system.ls(address, detail=True, refresh=True)
        except FileNotFoundError:
            return {}
        sizes = {}
        for entry in entries:
            if entry["type"] == "file":
                sizes[entry["name"].rpartition("/")[2]] = entry["size"]
        return sizes

    @contextlib.contextmanager
    def filling(self) -> Iterator[Path]:
        """Yield a local folder. When the block ends, its files are in the output folder."""
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
            yield self.folder
            return
        with TemporaryDirectory(prefix="looklisten-") as scratch:
            yield Path(scratch)
            for file in sorted(Path(scratch).iterdir()):
                self._system.put_file(str(file), self._full_name(file.name))

    def fetch(self, name: str, target: Path) -> None:
        """Copy a remote file to a local path."""
        self._system.get_file(self._full_name(name), str(target))

    def sweep(self) -> None:
        """Remove temporary files that killed runs left."""
        if self.folder is not None:
            for folder in (self.folder, self.folder / "progress"):
                remove_abandoned_scratch(folder)


def _local_sizes(folder: Path) -> dict[str, int]:
    sizes = {}
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_file():
                sizes[entry.name] = entry.stat().st_size
    return sizes


def local_copy(address: str) -> Path:
    """Copy the shards of a remote set into the user's cache. A shard of the right size is not
    copied again.

    Training maps shards into memory, which needs local files.
    """
    remote = OutputFolder(address)
    index = remote.read("index.json")
    if index is None:
        raise ShardError(
            f"{address} has no index.json, so it is no finished set of shards; "
            "make one with `looklisten prepare`"
        )
    # A hash, because no folder's name can hold the slashes of an address.
    folder = writable_cache(hashlib.sha256(address.encode()).hexdigest()[:16])
    with atomic_write(folder / "index.json") as scratch:
        scratch.write_bytes(index)
    for shard in json.loads(index)["shards"]:
        file = folder / shard["name"]
        # Complete shards stay, so that an interrupted fetch continues where it was.
        if not file.exists() or file.stat().st_size != shard["bytes"]:
            with atomic_write(file) as scratch:
                remote.fetch(shard["name"], scratch)
    # It is small beside the shards, and may be another one with the same size.
    with contextlib.suppress(FileNotFoundError), atomic_write(folder / COLUMNS_FILE) as scratch:
        remote.fetch(COLUMNS_FILE, scratch)
    return folder
