"""Finds the weight file of a published network: a file of the user, the cache, or a download.

Knows names and addresses. Does not read weights.
"""

import logging
import os
from pathlib import Path

from looklisten.interop.openl3.download import download_file, git_blob_id
from looklisten.interop.openl3.errors import OpenL3Error
from looklisten.interop.openl3.variants import BLOB_IDS, VERSION, Variant
from looklisten.system.cache import cache_folder, is_offline, writable_cache

PUBLISHER = "https://github.com/marl/openl3/raw/models/"
"""OpenL3's own setup.py downloads from here."""
MIRROR_VARIABLE = "LOOKLISTEN_OPENL3_MIRROR"
"""Environment variable: another address with the same files, or a folder with them.

The folder of an OpenL3 installation is such a folder.
"""

_log = logging.getLogger("looklisten")


def locate(network: Variant, weights: str | Path | None = None) -> Path:
    """The weight file of a published network.

    `weights`: a file, a folder or an address, instead of the mirror and the publisher. A downloaded
    file is checked against the published git blob id and kept in the user's cache. Raises
    OpenL3Error.
    """
    origin = str(weights or os.environ.get(MIRROR_VARIABLE) or PUBLISHER)
    if "://" not in origin:
        return _on_disk(network, Path(origin))
    if not origin.startswith(("http://", "https://")):
        raise OpenL3Error(
            f"{origin} is no address that weights can be downloaded from; "
            "give http://…, https://… or a folder"
        )
    name = f"{network.stem}-{VERSION}.h5.gz"
    blob_id = BLOB_IDS[network.stem]
    cached = cache_folder("openl3") / name
    # A disk error or another program may have changed the file since its download.
    if cached.exists():
        if git_blob_id(cached) == blob_id:
            return cached
        _log.warning("%s is damaged; downloading it again", cached)
        cached.unlink()
    url = origin.rstrip("/") + "/" + name
    if is_offline():
        raise OpenL3Error(
            f"the weights of openl3:{network.name} are not in the cache {cached.parent}, "
            "and LOOKLISTEN_OFFLINE forbids the network; "
            f"unset it once, or put {url} there by hand"
        )
    writable_cache("openl3")
    message = "downloading the weights of openl3:%s once (17 MB), from %s to %s (CC BY 4.0)"
    _log.info(message, network.name, url, cached.parent)
    download_file(url, cached, blob_id)
    return cached


def _on_disk(network: Variant, path: Path) -> Path:
    """`path` if it is a file, or the file in the folder `path` that is named as by OpenL3."""
    if path.is_file():
        return path
    names = []
    for version in ("", f"-{VERSION}"):
        names += [f"{network.stem}{version}.h5", f"{network.stem}{version}.h5.gz"]
    for name in names:
        if (path / name).is_file():
            return path / name
    problem = "holds no" if path.is_dir() else "does not exist, so neither does"
    raise OpenL3Error(f"{path} {problem} {' or '.join(names)}")
