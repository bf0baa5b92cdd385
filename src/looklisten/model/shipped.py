"""The networks that come with the package: a fusion, to towers that their authors publish.

Each is a checkpoint without towers. Those are read from the published files, which are downloaded
on first use.
"""

from importlib import resources
from pathlib import Path

from looklisten.model.checkpoint import Checkpoint, read_checkpoint

START = "start"
"""The network that knows the world from the first moment, and that `adapt` begins with."""
SHIPPED = (START,)
HEADS_FOLDER = "heads"
VIDEOS_FILE = "training_videos.txt"
"""Beside a checkpoint: the ids of the videos that its fusion was trained on, one a line."""


def is_shipped(name: str | Path) -> bool:
    """Whether `name` is that of a network of the package.

    A folder here of the same name is `./start`, or a `Path`.
    """
    # Otherwise any folder named so, of videos perhaps, would hide the network.
    return isinstance(name, str) and name in SHIPPED


def open_shipped(name: str) -> Checkpoint:
    """The checkpoint of a network that comes with the package.

    Raises CheckpointError for an installation whose files are missing or damaged.
    """
    return read_checkpoint(Path(str(resources.files("looklisten"))) / HEADS_FOLDER / name)


def shipped_training_videos(checkpoint: Path) -> frozenset[str]:
    """The ids of the videos that a network of the package was trained on; empty for any other."""
    file = checkpoint / VIDEOS_FILE
    if not file.is_file():
        return frozenset()
    return frozenset(file.read_text(encoding="utf-8").splitlines())
