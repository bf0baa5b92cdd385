"""Reads a published network: a folder with `config.json` and safetensors, which others load.

`interop/pretrained.py` writes such folders. Knows files; asks no server.
"""

import json
from pathlib import Path
from typing import Any

from looklisten.errors import CheckpointError
from looklisten.model.checkpoint import Checkpoint, read_checkpoint

LIBRARY = "looklisten"
CONFIG_NAME = "config.json"
NETWORK_FILES = ("model.safetensors", "full.safetensors")
"""Files that hold a complete network: `publish` writes the first, `export` the second."""


def is_published(folder: Path) -> bool:
    """Whether `folder` has a `config.json`, which a run and a checkpoint do not have."""
    return (folder / CONFIG_NAME).is_file()


def read_published_config(folder: Path) -> dict[str, Any]:
    """The folder's `config.json`.

    Raises CheckpointError when the file is damaged or was written by another library.
    """
    path = folder / CONFIG_NAME
    try:
        metadata = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged: {error}") from None
    if not isinstance(metadata, dict) or metadata.get("library_name") != LIBRARY:
        raise CheckpointError(
            f"{path} is of another library, not of looklisten; "
            "give a folder that `looklisten publish` wrote"
        )
    return metadata


def read_published(folder: Path) -> Checkpoint:
    """The network of a folder that `publish` wrote, or `export` with both towers.

    Raises CheckpointError when the folder is damaged or holds single towers only.
    """
    read_published_config(folder)
    for name in NETWORK_FILES:
        if (folder / name).is_file():
            return read_checkpoint(folder, CONFIG_NAME, name)
    raise CheckpointError(
        f"{folder} holds no whole network ({' or '.join(NETWORK_FILES)}). Its README.md says "
        "how to load a single tower; "
        f"`looklisten export RUN {folder} --side both` writes the network too"
    )
