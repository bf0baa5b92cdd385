"""Finds a file that others publish: a file of the user, the cache, or a download.

A download is complete and has the published bytes, or it is absent. Knows addresses and hashes of
files of weights; does not read the weights.
"""

import hashlib
import http.client
import importlib.util
import logging
import os
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from looklisten.errors import PublishedFileError
from looklisten.system.cache import cache_folder, is_offline, writable_cache
from looklisten.system.files import atomic_write, remove_abandoned_scratch

_log = logging.getLogger("looklisten")

GIT_BLOB = "git blob"
"""The kind of a hash that git gives the content of a file."""
TIMEOUT_SECONDS = 60.0
"""A download ends with an error when the server sends nothing for so long."""
SLOWEST_BYTES_PER_SECOND = 20_000
"""A download that is slower than this on the whole ends with an error: 15 minutes for 18 MB."""
MAX_SIZE_FACTOR = 2
"""A download ends with an error after so many times the size of the file."""
BLOCK_BYTES = 2**16


@dataclass(frozen=True)
class PublishedFile:
    """One file of a publisher, and how its bytes are known."""

    name: str
    title: str
    """What error messages and the log call its content."""
    address: str
    """Of the publisher: the folder that holds the file, ending in a slash."""
    digest: str
    """`sha256:` or `git blob:`, then the hash in hexadecimal."""
    size_mb: float
    license: str
    cache_name: str
    """The folder in the cache."""
    mirror_variable: str
    """Environment variable: another address with the same file, the file, or a folder with it."""
    local_names: tuple[str, ...] = ()
    """Other names that the file may have in a folder of the user."""
    installed_in: tuple[str, str] | None = None
    """A Python package that contains the file, and the path in it."""

    @property
    def names(self) -> tuple[str, ...]:
        """The names that the file may have in a folder of the user."""
        return (*self.local_names, self.name)


def locate_file(file: PublishedFile, origin: str | Path | None = None) -> Path:
    """The path of a published file, which is downloaded into the user's cache if needed.

    `origin`: a file, a folder or an address, instead of the mirror and the publisher. Without it
    and without a mirror, an installed package that contains the file is used first. The bytes of a
    download are checked; a file or folder of the user is taken as it is. Raises PublishedFileError,
    one sentence.
    """
    try:
        return _locate(file, origin)
    except PermissionError as error:
        raise PublishedFileError(
            f"{error.filename} cannot be read or written ({error.strerror}), and the weights of "
            f"{file.title} belong there; change its permissions, or set LOOKLISTEN_CACHE or "
            f"{file.mirror_variable} to a folder of your own"
        ) from None


def _locate(file: PublishedFile, origin: str | Path | None) -> Path:
    chosen = origin or os.environ.get(file.mirror_variable)
    installed = None if chosen else _installed(file)
    if installed:
        return installed
    chosen_origin = str(chosen or file.address)
    if "://" not in chosen_origin:
        return _on_disk(file, Path(chosen_origin))
    if not chosen_origin.lower().startswith(("http://", "https://")):
        raise PublishedFileError(
            f"{chosen_origin} is no address that weights can be downloaded from; "
            "give http://…, https://… or a folder"
        )
    cached = cache_folder(file.cache_name) / file.name
    if cached.is_dir():
        raise PublishedFileError(
            f"{cached} is a folder where a file should be; delete it and run the command again"
        )
    # A disk error or another program may have changed the file since its download.
    if cached.exists():
        if has_digest(cached, file.digest):
            return cached
        _log.warning("%s is damaged and must be downloaded again", cached)
    url = chosen_origin.rstrip("/") + "/" + file.name
    if is_offline():
        raise PublishedFileError(
            f"the weights of {file.title} are not in the cache {cached.parent}, "
            "and LOOKLISTEN_OFFLINE forbids the network; "
            f"unset it once, put {url} there by hand, "
            f"or set {file.mirror_variable} to a folder with it"
        )
    # Before the download: it raises where the cache cannot be written to.
    remove_abandoned_scratch(writable_cache(file.cache_name))
    # A warning, because a program that sets up no log shows nothing less.
    _log.warning(
        "downloading the weights of %s once (%.0f MB), from %s to %s (%s)",
        file.title,
        file.size_mb,
        url,
        cached.parent,
        file.license,
    )
    download_file(url, cached, file)
    return cached


def is_local(file: PublishedFile) -> bool:
    """Whether the file is on this machine; its bytes are not read."""
    mirror = os.environ.get(file.mirror_variable)
    if mirror and "://" not in mirror:
        return _find_on_disk(file, Path(mirror)) is not None
    if not mirror and _installed(file):
        return True
    return _is_file(cache_folder(file.cache_name) / file.name)


def _is_file(path: Path) -> bool:
    """False also in a folder that may not be entered, where `Path.is_file` raises an error."""
    return os.path.isfile(path)  # noqa: PTH113


def _installed(file: PublishedFile) -> Path | None:
    """The file in an installed package; None if there is none."""
    if file.installed_in is None:
        return None
    package, name = file.installed_in
    spec = importlib.util.find_spec(package)
    folders = spec.submodule_search_locations if spec else None
    paths = [Path(folder) / name for folder in folders or ()]
    return next((path for path in paths if path.is_file()), None)


def _find_on_disk(file: PublishedFile, path: Path) -> Path | None:
    """`path` if it is a file, or the file in the folder `path` that has one of its names."""
    candidates = (path, *(path / name for name in file.names))
    return next((candidate for candidate in candidates if _is_file(candidate)), None)


def _on_disk(file: PublishedFile, path: Path) -> Path:
    own_copy = _find_on_disk(file, path)
    if own_copy is not None:
        return own_copy
    problem = "holds no" if path.is_dir() else "does not exist, so neither does"
    next_step = f"give a folder with the weights of {file.title}"
    mirror = os.environ.get(file.mirror_variable)
    if mirror and path == Path(mirror):
        next_step = f"correct {file.mirror_variable}, or unset it to download the file"
    raise PublishedFileError(f"{path} {problem} {' or '.join(file.names)}; {next_step}")


def has_digest(path: Path, digest: str) -> bool:
    """Whether the bytes of a file have this hash, as `PublishedFile.digest` has it."""
    kind, _, _ = digest.partition(":")
    return file_digest(path, kind) == digest


def file_digest(path: Path, kind: str) -> str:
    """The hash of a file with its kind in front, as `PublishedFile.digest` has it."""
    hashed = hashlib.sha256()
    if kind == GIT_BLOB:
        # What git calls the content of a file: SHA-1 of "blob", its size, a zero and its bytes.
        # Git chose SHA-1; here it only finds damaged files.
        hashed = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    with path.open("rb") as handle:
        while chunk := handle.read(2**20):
            hashed.update(chunk)
    return f"{kind}:{hashed.hexdigest()}"


def download_file(
    url: str, path: Path, file: PublishedFile, timeout_seconds: float = TIMEOUT_SECONDS
) -> None:
    """Download `url` to `path`. Its bytes must then be those of `file`.

    Raises PublishedFileError if the download fails or its bytes are others. Then nothing is kept.
    """
    kind, _, expected = file.digest.partition(":")
    with atomic_write(path) as scratch:
        _download(url, scratch, file, timeout_seconds)
        received = file_digest(scratch, kind).removeprefix(f"{kind}:")
        if received != expected:
            raise PublishedFileError(
                f"{url} gave a file that is not the published one ({kind} {received[:12]}, "
                f"not {expected[:12]}), and nothing of it was kept; "
                f"try again, or another {file.mirror_variable}"
            )


def _download(url: str, path: Path, file: PublishedFile, timeout_seconds: float) -> None:
    expected_bytes = file.size_mb * 1e6
    allowed_bytes = MAX_SIZE_FACTOR * expected_bytes
    allowed_seconds = timeout_seconds + expected_bytes / SLOWEST_BYTES_PER_SECOND
    started = time.monotonic()
    try:
        # The caller has checked that it is an address of http or https.
        with (
            urllib.request.urlopen(url, timeout=timeout_seconds) as answer,  # noqa: S310
            path.open("wb") as target,
        ):
            # `read` would wait for a whole block, however slowly it comes.
            while block := answer.read1(BLOCK_BYTES):
                target.write(block)
                if target.tell() > allowed_bytes:
                    raise OSError(f"it sends more than {allowed_bytes / 1e6:g} MB")
                if time.monotonic() - started > allowed_seconds:
                    raise OSError(f"it sent {target.tell()} bytes in {allowed_seconds:.3g} s")
            promised = int(answer.headers.get("Content-Length") or target.tell())
            if target.tell() < promised:
                raise OSError(f"the connection ended after {target.tell()} of {promised} bytes")
    except urllib.error.HTTPError as error:
        error.close()
        raise PublishedFileError(
            f"{url} cannot be downloaded: the server says {error.code} {error.reason}; "
            f"run the same command again later, or set {file.mirror_variable} to a folder "
            f"with {' or '.join(file.names)}"
        ) from None
    # ValueError: an address that cannot be read.
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise PublishedFileError(
            f"{url} cannot be downloaded ({reason}); run the same command again, "
            f"or set {file.mirror_variable} to a folder with {' or '.join(file.names)}"
        ) from None
