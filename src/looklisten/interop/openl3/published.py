"""Where the weights of a published network are: a file the user has, the cache, or the network
once. Knows names and places.
"""

import logging
import os
from pathlib import Path

from looklisten.interop.openl3.download import download, git_blob_id
from looklisten.interop.openl3.errors import OpenL3Error
from looklisten.interop.openl3.variants import BLOBS, VERSION, Variant
from looklisten.system.cache import cache_folder, writable_cache
from looklisten.system.progress import Progress, no_progress

HOME = "https://github.com/marl/openl3/raw/models/"
"""Where OpenL3's own setup.py fetches them from."""
MIRROR = "LOOKLISTEN_OPENL3_MIRROR"
"""Environment variable: another address with the same files, or a folder with them (such as that of
an OpenL3 installation).
"""
OFFLINE = "LOOKLISTEN_OFFLINE"
"""Environment variable: 1 forbids the network."""

log = logging.getLogger(__name__)


def locate(
    kind: Variant, weights: str | Path | None = None, progress: Progress = no_progress
) -> Path:
    """The weight file of a published network.

    `weights`: a file, a folder or an address that goes before the mirror and the publisher. What
        comes over the network is checked against the published git blob id and kept in the user's
        cache. Raises OpenL3Error, one sentence.
    """
    place = str(weights or os.environ.get(MIRROR) or HOME)
    if "://" not in place:
        return _on_disk(kind, Path(place))
    if not place.startswith(("http://", "https://")):
        raise OpenL3Error(
            f"{place} is no address that weights can be fetched from; give http://…, https://… or a folder"
        )
    name, blob_id = f"{kind.stem}-{VERSION}.h5.gz", BLOBS[kind.stem]
    kept = cache_folder("openl3") / name
    if kept.exists():
        if git_blob_id(kept) == blob_id:
            return kept
        log.warning("%s is damaged; fetching it anew", kept)
        kept.unlink()
    url = place.rstrip("/") + "/" + name
    if os.environ.get(OFFLINE, "0") not in ("", "0"):
        raise OpenL3Error(
            f"the weights of openl3:{kind.name} are not in the cache {kept.parent}, and {OFFLINE} forbids the network; "
            f"unset it once, or put {url} there by hand"
        )
    writable_cache("openl3")
    log.info(
        "fetching the weights of openl3:%s once, from %s to %s (CC BY 4.0)",
        kind.name,
        url,
        kept.parent,
    )
    download(url, kept, blob_id, progress)
    return kept


def _on_disk(kind: Variant, place: Path) -> Path:
    """A file itself, or the one in a folder that is named as OpenL3 names it."""
    if place.is_file():
        return place
    names = [
        f"{kind.stem}{version}.h5{packed}"
        for version in ("", f"-{VERSION}")
        for packed in ("", ".gz")
    ]
    for name in names:
        if (place / name).is_file():
            return place / name
    what = "holds no" if place.is_dir() else "is not there, so neither is"
    raise OpenL3Error(f"{place} {what} {' or '.join(names)}")
