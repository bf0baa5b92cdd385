"""One file over HTTP into a folder: whole, and with the bytes that it must have, or absent. Goes on
where it broke off.

Knows addresses and git blob ids; not what is in the file.
"""

import contextlib
import hashlib
import http.client
import logging
import os
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from looklisten.interop.openl3.errors import OpenL3Error
from looklisten.system.progress import Progress, no_progress

ATTEMPTS = 4
PAUSE_SECONDS = 0.5
"""Before the second attempt; twice as long before each further one."""
TIMEOUT_SECONDS = 30.0
CHUNK_BYTES = 2**18

log = logging.getLogger(__name__)

_BROKEN = (OSError, http.client.HTTPException)
"""What a connection says when it breaks: URLError and timeouts are OSErrors."""


def git_blob_id(path: Path) -> str:
    """What git calls a file's content: the SHA-1 of "blob", its size, a zero and its bytes."""
    digest = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(2**20):
            digest.update(chunk)
    return digest.hexdigest()


def download(url: str, path: Path, blob_id: str, progress: Progress = no_progress) -> None:
    """Fetch `url` to `path`, which must have the git blob id.

    What came before a break is kept beside it as `.part`, for the next attempt or the next call. Of
    several processes one fetches and the others wait. Raises OpenL3Error, one sentence, when the
    connection keeps breaking or the bytes are others.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    with part.open("ab") as file, _alone(file):
        if path.exists():  # another process was faster
            part.unlink(missing_ok=True)
            return
        resumed = _fill(url, file, progress)
        if git_blob_id(part) != blob_id and resumed:
            log.info(
                "the half that an earlier attempt left does not fit; fetching %s from its beginning",
                url,
            )
            file.truncate(0)
            _fill(url, file, progress)
        found = git_blob_id(part)
        if found != blob_id:
            part.unlink()
            raise OpenL3Error(
                f"{url} gave a file that is not the published one (git blob {found[:12]}, not {blob_id[:12]}), and nothing of it was kept; "
                f"try again, or another LOOKLISTEN_OPENL3_MIRROR"
            )
        os.fsync(file.fileno())
        part.replace(path)


@contextlib.contextmanager
def _alone(file: BinaryIO) -> Iterator[None]:
    """One process at a time, where the system can say so; it ends with the file."""
    with contextlib.suppress(ImportError):
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX)
    yield


def _fill(url: str, file: BinaryIO, progress: Progress) -> bool:
    """Append to `file` until the whole of `url` is there; says whether it began with what an
    earlier call had left.
    """
    resumed = file.seek(0, os.SEEK_END) > 0
    for attempt in range(ATTEMPTS):
        try:
            return _append(url, file, progress) and resumed
        except urllib.error.HTTPError as error:
            error.close()
            if (
                error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE
            ):  # nothing is left to fetch
                return resumed
            if error.code < http.HTTPStatus.INTERNAL_SERVER_ERROR:
                raise OpenL3Error(
                    f"{url} cannot be fetched: the server says {error.code} {error.reason}"
                ) from None
            broken: Exception = error
        except _BROKEN as error:
            broken = error
        if attempt + 1 < ATTEMPTS:
            log.info("%s broke off (%s); going on", url, broken)
            time.sleep(PAUSE_SECONDS * 2**attempt)
    raise OpenL3Error(
        f"{url} cannot be fetched ({broken}); run the same again and it goes on from {file.tell():,} bytes, "
        f"or give the file by hand (docs/openl3.md)"
    )


def _append(url: str, file: BinaryIO, progress: Progress) -> bool:
    """One connection; False when the server would not go on from where the file ends and gave all
    of it.
    """
    there = file.seek(0, os.SEEK_END)
    headers = {"User-Agent": "looklisten"} | ({"Range": f"bytes={there}-"} if there else {})
    request = urllib.request.Request(url, headers=headers)  # noqa: S310 (the caller names http or https)
    with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer:  # noqa: S310
        continues: bool = answer.status == http.HTTPStatus.PARTIAL_CONTENT
        if not continues:
            file.truncate(0)
        start = there if continues else 0
        total = start + int(answer.headers.get("Content-Length") or 0)
        while chunk := answer.read(CHUNK_BYTES):
            file.write(chunk)
            file.flush()
            progress(file.tell() // 2**20, max(total // 2**20, 1))
    if file.tell() < total:
        raise ConnectionError(f"the connection ended after {file.tell():,} of {total:,} bytes")
    return continues
