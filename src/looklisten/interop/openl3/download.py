"""Downloads one file over HTTP: complete and with the expected bytes, or absent.

Knows addresses and git blob ids. Does not know what is in the file.
"""

import hashlib
import http.client
import urllib.error
from pathlib import Path

import torch

from looklisten.interop.openl3.errors import OpenL3Error
from looklisten.system.files import atomic_write


def git_blob_id(path: Path) -> str:
    """What git calls the content of a file: SHA-1 of "blob", its size, a zero and its bytes."""
    # Git chose SHA-1; here it only finds damaged files.
    digest = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(2**20):
            digest.update(chunk)
    return digest.hexdigest()


def download_file(url: str, path: Path, blob_id: str) -> None:
    """Download `url` to `path`, which must then have the git blob id `blob_id`.

    Raises OpenL3Error if the download fails or its bytes are others. Then nothing is kept.
    """
    with atomic_write(path) as scratch:
        _download(url, scratch)
        received_id = git_blob_id(scratch)
        # The check also finds a connection that ended early, which PyTorch does not report.
        if received_id != blob_id:
            raise OpenL3Error(
                f"{url} gave a file that is not the published one (git blob {received_id[:12]}, "
                f"not {blob_id[:12]}), and nothing of it was kept; "
                "try again, or another LOOKLISTEN_OPENL3_MIRROR"
            )


def _download(url: str, path: Path) -> None:
    try:
        torch.hub.download_url_to_file(url, str(path), progress=False)
    except urllib.error.HTTPError as error:
        error.close()
        raise OpenL3Error(
            f"{url} cannot be downloaded: the server says {error.code} {error.reason}"
        ) from None
    except (OSError, http.client.HTTPException) as error:
        raise OpenL3Error(
            f"{url} cannot be downloaded ({error}); run the same command again, "
            "or give the file by hand (docs/openl3.md)"
        ) from None
