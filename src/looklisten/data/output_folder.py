"""A folder of results, on this machine or anywhere that fsspec writes: files in it are whole or
absent.

Knows bytes and names; not what is in them.
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

from looklisten.errors import ConfigError, ShardError
from looklisten.names import printable
from looklisten.system.cache import writable_cache
from looklisten.system.files import atomic_write, json_bytes, remove_abandoned_scratch


class OutputFolder:
    """`out` is a path or an address such as `s3://bucket/set`; names are relative to it. An object
    store's upload is whole by itself.
    """

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
                f"{out} cannot be written to; give a folder, or a bucket such as s3://bucket/set"
            )

    def __str__(self) -> str:
        return printable(self.address)

    def _at(self, name: str) -> str:
        return f"{self._top}/{name}"

    def read(self, name: str) -> bytes | None:
        """The content of a file; None when it is not there."""
        try:
            if self.folder is not None:
                return (self.folder / name).read_bytes()
            data: bytes = self._system.cat_file(self._at(name))
        except FileNotFoundError:
            return None
        return data

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        with contextlib.suppress(FileNotFoundError):
            if self.folder is not None:
                (self.folder / name).unlink()
            else:
                self._system.rm_file(self._at(name))

    def read_json(self, name: str) -> Any:
        """A JSON file; None when it is not there or damaged."""
        data = self.read(name)
        with contextlib.suppress(ValueError):
            return None if data is None else json.loads(data)

    def write(self, name: str, data: bytes) -> None:
        """One file, whole or absent."""
        if self.folder is None:
            self._system.pipe_file(self._at(name), data)
            return
        with atomic_write(self.folder / name) as scratch:
            scratch.write_bytes(data)

    def write_json(self, name: str, value: object) -> None:
        """`value` as indented JSON, the same bytes for the same value."""
        self.write(name, json_bytes(value, indent=1))

    def write_lines(self, name: str, rows: list[dict[str, Any]]) -> None:
        """JSON lines."""
        self.write(name, b"".join(map(json_bytes, rows)))

    def sizes(self, folder: str = "") -> dict[str, int]:
        """The files of a folder in one request: name to bytes."""
        try:
            if self.folder is not None:
                with os.scandir(self.folder / folder) as entries:
                    return {
                        entry.name: entry.stat().st_size for entry in entries if entry.is_file()
                    }
            found = self._system.ls(self._at(folder).rstrip("/"), detail=True, refresh=True)
        except FileNotFoundError:
            return {}
        return {
            about["name"].rpartition("/")[2]: about["size"]
            for about in found
            if about["type"] == "file"
        }

    @contextlib.contextmanager
    def filling(self) -> Iterator[Path]:
        """A folder of this machine; what lies in it at the end is in the store."""
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
            yield self.folder
            return
        with TemporaryDirectory(prefix="looklisten-") as scratch:
            yield Path(scratch)
            for file in sorted(Path(scratch).iterdir()):
                self._system.put_file(str(file), self._at(file.name))

    def sweep(self) -> None:
        """Remove what killed runs left half written."""
        if self.folder is not None:
            for folder in (self.folder, self.folder / "progress"):
                remove_abandoned_scratch(folder)


def local_copy(address: str) -> Path:
    """The shards of a remote set as files of this machine, for memory-mapping; fetched once, kept
    in the user's cache.
    """
    store = OutputFolder(address)
    index = store.read("index.json")
    if index is None:
        raise ShardError(
            f"{address} has no index.json, so it is no finished set of shards; make one with `looklisten prepare`"
        )
    folder = writable_cache(hashlib.sha256(address.encode()).hexdigest()[:16])
    with atomic_write(folder / "index.json") as scratch:
        scratch.write_bytes(index)
    for shard in json.loads(index)["shards"]:
        here = folder / shard["name"]
        if not here.exists() or here.stat().st_size != shard["bytes"]:
            with atomic_write(here) as scratch:
                store._system.get_file(store._at(shard["name"]), str(scratch))
    return folder
