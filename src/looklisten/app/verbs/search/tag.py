"""The verb `tag`: a few examples of own classes -> tags in an index."""

from pathlib import Path
from typing import Annotated

import tyro
from tyro.conf import Positional

from looklisten.app.command_line import NETWORK_HELP, DeviceName, UsageError
from looklisten.app.output import Output
from looklisten.app.terminal import ProgressBar


def run_tag(
    db: Annotated[Positional[Path], tyro.conf.arg(metavar="DB")],
    examples: Annotated[Positional[Path | None], tyro.conf.arg(metavar="EXAMPLES")] = None,
    /,
    name: str = "own",
    show_list: Annotated[bool, tyro.conf.arg(name="list")] = False,
    remove: str | None = None,
    checkpoint: Annotated[str | None, tyro.conf.arg(help=NETWORK_HELP)] = None,
    device: DeviceName = "auto",
) -> Output:
    """Tag the moments of an index with own classes, learned from a few files each.

    Args:
        db: Folder that `index` wrote.
        examples: Folder with a folder for each class, which holds sounds, images or videos.
        name: Name of this set of classes; several sets are side by side, and one of the same name
            is replaced.
        show_list: List the sets of classes.
        remove: Remove the set of this name, and its tags.
        checkpoint: The network that made the index; by default the one that it names.
    """
    from looklisten.training.own_classes import own_class_figures, remove_tags, tag_index

    if sum((examples is not None, show_list, remove is not None)) != 1:
        raise UsageError("tag needs examples: looklisten tag DB EXAMPLES; or --list, or --remove")
    if show_list:
        return Output({"sets": own_class_figures(db)})
    if remove is not None:
        return Output({"removed": remove, "moments": remove_tags(db, remove)})
    assert examples is not None
    with ProgressBar("tag: examples") as progress:
        result = tag_index(db, examples, name, checkpoint, device, progress)
    return Output(result.as_dict())
