"""Finds the weight file of a published network: a file of the user, the cache, or a download.

Knows names and addresses. Does not read weights.
"""

from pathlib import Path

from looklisten.errors import PublishedFileError
from looklisten.interop.openl3.errors import OpenL3Error
from looklisten.interop.openl3.variants import BLOB_IDS, VERSION, Variant
from looklisten.system.published_files import GIT_BLOB, PublishedFile, locate_file

PUBLISHER = "https://github.com/marl/openl3/raw/models/"
"""OpenL3's own setup.py downloads from here."""
MIRROR_VARIABLE = "LOOKLISTEN_OPENL3_MIRROR"
"""Environment variable: another address with the same files, or a folder with them.

The folder of an OpenL3 installation is such a folder.
"""


def published_file(network: Variant) -> PublishedFile:
    """The file with the weights of a published network."""
    return PublishedFile(
        name=f"{network.stem}-{VERSION}.h5.gz",
        title=f"openl3:{network.name}",
        address=PUBLISHER,
        digest=f"{GIT_BLOB}:{BLOB_IDS[network.stem]}",
        size_mb=17,
        license="CC BY 4.0",
        cache_name="openl3",
        mirror_variable=MIRROR_VARIABLE,
        local_names=(
            f"{network.stem}.h5",
            f"{network.stem}.h5.gz",
            f"{network.stem}-{VERSION}.h5",
        ),
    )


def locate(network: Variant, weights: str | Path | None = None) -> Path:
    """The weight file of a published network.

    `weights`: a file, a folder or an address, instead of the mirror and the publisher. A downloaded
    file is checked against the published git blob id and kept in the user's cache. Raises
    OpenL3Error.
    """
    try:
        return locate_file(published_file(network), weights)
    except PublishedFileError as error:
        raise OpenL3Error(str(error)) from None
