"""The file that a request is about: an upload, a file of the index, or one below `--allow-root`.

An upload is copied to a temporary file, which is removed when the request ends. No other path and
no address is ever opened.
"""

import asyncio
import contextlib
import re
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from fastapi import UploadFile

from looklisten.media.formats import MEDIA_SUFFIXES
from looklisten.names import printable
from looklisten.serving.refusals import RefusedError

NAME_CHARACTERS = 100
"""Of a file name of a client, so many characters are kept."""
NAME_BYTES = 200
"""At most so many bytes in UTF-8: file systems take 255, and some characters need four."""
COPIED_BYTES = 2**20


@dataclass(frozen=True)
class RequestedFile:
    """A file on this machine that a request may read."""

    path: Path
    name: str
    """What the client calls it."""


class RequestedFiles:
    """Opens the files of requests.

    `media_path` gives the path of a file of the index from its id, or raises RefusedError.
    """

    def __init__(
        self, folder: Path, allow_root: Path | None, media_path: Callable[[str], Path]
    ) -> None:
        self._folder = folder
        self._allow_root = allow_root.resolve() if allow_root else None
        self._media_path = media_path

    @contextlib.asynccontextmanager
    async def open(
        self, upload: UploadFile | None, media: str | None, path: str | None, field: str = "file"
    ) -> AsyncIterator[RequestedFile]:
        """The one file that is named; an upload exists until the block ends."""
        if sum(value is not None for value in (upload, media, path)) != 1:
            raise RefusedError(
                422, f"{field}: give one of an upload, the id of a medium, or a path"
            )
        if media is not None:
            indexed = self._media_path(media)
            yield RequestedFile(indexed, indexed.name)
        elif path is not None:
            yield self.below_root(path)
        else:
            assert upload is not None
            # A folder for each request, because all uploads get the same name.
            folder = Path(tempfile.mkdtemp(dir=self._folder))
            try:
                yield await self.save(upload, folder)
            finally:
                shutil.rmtree(folder, ignore_errors=True)

    async def save(self, upload: UploadFile, folder: Path) -> RequestedFile:
        """Copy an upload into a folder, under a name that is safe there."""
        name = safe_name(upload.filename or "")
        suffix = Path(name).suffix.lower()
        # A client's name may be anything. Its suffix stays, because decoders use it.
        target = folder / ("upload" + (suffix if suffix[1:] in _KNOWN_SUFFIXES else ""))
        await asyncio.to_thread(_copy, upload.file, target)
        return RequestedFile(target, printable(name))

    async def keep(self, file: RequestedFile, folder: Path) -> RequestedFile:
        """Move an upload into a folder that outlives its request; other files stay."""
        # A file of the index or of the allowed folder belongs to the user.
        if not file.path.is_relative_to(self._folder):
            return file
        target = folder / file.path.name
        await asyncio.to_thread(file.path.replace, target)
        return RequestedFile(target, file.name)

    def below_root(self, path: str) -> RequestedFile:
        """The file of this path below the allowed folder. Raises RefusedError for others."""
        root = self._allow_root
        if root is None:
            raise RefusedError(403, "this server opens no paths; upload the file")
        try:
            # Links are followed before the check, so that none leads out of the folder.
            real = (root / path).resolve()
            is_allowed = real.is_relative_to(root) and real.is_file()
        except (OSError, ValueError, RuntimeError):
            is_allowed = False
        if not is_allowed:
            raise RefusedError(403, "there is no such file in the folder that this server may read")
        return RequestedFile(real, real.name)


_KNOWN_SUFFIXES = {suffix.removeprefix(".") for suffix in MEDIA_SUFFIXES}


def safe_name(name: str) -> str:
    """The last part of a client's file name, with letters, digits and a few signs."""
    last = PurePosixPath(name.replace("\\", "/")).name
    cleaned = re.sub(r"[^\w.() -]", "_", last).strip(". ")
    last_bytes = cleaned[-NAME_CHARACTERS:].encode()[-NAME_BYTES:]
    # The first character may have been cut in two.
    return last_bytes.decode(errors="ignore").strip(". ") or "upload"


def _copy(upload: BinaryIO, target: Path) -> None:
    with target.open("wb") as file:
        shutil.copyfileobj(upload, file, COPIED_BYTES)
