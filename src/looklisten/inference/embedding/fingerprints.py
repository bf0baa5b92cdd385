"""Digests that tell whether vectors are still those of a source and of settings.

A file is done if these are equal, not because a file of its name exists. Knows files and their
dates, no format of vectors.
"""

import dataclasses
import hashlib
import json
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


def sha256_of_json(value: Any) -> str:
    """The digest of a value as JSON; equal values have equal digests."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class SourceStamp:
    """What is known of the content of a file. A field is None where it is unknown."""

    source_bytes: int | None
    """Size of the file."""
    source_modified_ns: int | None = None
    """When it was written: nanoseconds since 1970. Unknown for a remote file."""
    source_sha256: str | None = None
    """Digest of its content."""

    @staticmethod
    def of(path: Path, with_digest: bool = True) -> "SourceStamp":
        """The stamp of a file on this machine.

        Nothing is known of a file that cannot be read, or that is no regular file.
        """
        try:
            status = path.stat()
        except (OSError, ValueError):
            return SourceStamp(None)
        # Reading a pipe would take its content from whoever embeds it.
        if not stat.S_ISREG(status.st_mode):
            return SourceStamp(None)
        digest = _sha256_of_file(path) if with_digest else None
        return SourceStamp(status.st_size, status.st_mtime_ns, digest)

    @staticmethod
    def read(facts: Mapping[str, Any]) -> "SourceStamp":
        """The stamp that `asdict` was written of."""
        values = [facts.get(field.name) for field in dataclasses.fields(SourceStamp)]
        return SourceStamp(*values)

    def is_still(self, path: Path) -> bool:
        """Whether a file on this machine still has the content of this stamp."""
        now = SourceStamp.of(path, with_digest=False)
        if now.source_bytes is None or now.source_bytes != self.source_bytes:
            return False
        if now.source_modified_ns == self.source_modified_ns:
            return True
        # Only a file of the same size and another date is read: a copy has another date.
        if self.source_sha256 is None:
            return False
        return _sha256_of_file(path) == self.source_sha256


def _sha256_of_file(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None
