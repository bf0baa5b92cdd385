"""The networks that come with the package: a head, to towers that their authors publish.

A head is the fusion with its settings, in a folder as `publish` writes it. Its towers are read from
the published files, which are downloaded on first use. Knows files and weights.
"""

from dataclasses import replace
from importlib import resources
from pathlib import Path

from looklisten.errors import CheckpointError
from looklisten.model.checkpoint import Checkpoint, read_checkpoint
from looklisten.model.published_folder import CONFIG_NAME, HEAD_NAME

START = "start"
"""The network that knows the world from the first moment, and that `adapt` begins with."""
SHIPPED = (START,)
HEADS_FOLDER = "heads"


def is_shipped(name: str | Path) -> bool:
    """Whether `name` is that of a network of the package; a path of that name here wins."""
    return str(name) in SHIPPED and not Path(name).exists()


def open_shipped(name: str) -> Checkpoint:
    """The head of a network that comes with the package.

    Raises CheckpointError for an installation without its files.
    """
    folder = Path(str(resources.files("looklisten"))) / HEADS_FOLDER / name
    if not (folder / CONFIG_NAME).is_file():
        raise CheckpointError(
            f"this installation lacks the files of {name} ({folder}); install looklisten again"
        )
    return replace(read_checkpoint(folder, CONFIG_NAME, HEAD_NAME), has_published_towers=True)
