"""What vectors were made of: which choices, which bytes. So that "done" is no matter of a file's
name alone.

Knows digests and file dates; no format of vectors.
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
    """Of the JSON text that equal values have equal."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class SourceStamp:
    """The bytes that a file had: their number, when they were written (nanoseconds since 1970),
    their digest.

    None where nobody knows, as of a remote file's date.
    """

    source_bytes: int | None
    source_modified_ns: int | None = None
    source_sha256: str | None = None

    @staticmethod
    def of(path: Path, with_digest: bool = True) -> "SourceStamp":
        """Of a file of this machine; of what cannot be read, and of what is no regular file,
        nothing is known.
        """
        try:
            about = path.stat()
            if not stat.S_ISREG(about.st_mode):
                return SourceStamp(None)
            return SourceStamp(
                about.st_size, about.st_mtime_ns, _digest(path) if with_digest else None
            )
        except (OSError, ValueError):
            return SourceStamp(None)

    @staticmethod
    def read(facts: Mapping[str, Any]) -> "SourceStamp":
        """What `asdict` of a stamp was written as."""
        return SourceStamp(*(facts.get(field.name) for field in dataclasses.fields(SourceStamp)))

    def is_still(self, path: Path) -> bool:
        """Whether a file of this machine has the bytes that it had. Only one with another date and
        the same size is read.
        """
        now = SourceStamp.of(path, with_digest=False)
        if now.source_bytes is None or now.source_bytes != self.source_bytes:
            return False
        if now.source_modified_ns == self.source_modified_ns:
            return True
        return (
            self.source_sha256 is not None
            and SourceStamp.of(path).source_sha256 == self.source_sha256
        )


def _digest(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None
