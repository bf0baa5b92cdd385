"""The verb `table`: annotations of a public set -> a table for `prepare`."""

from pathlib import Path
from typing import Annotated, Literal

import tyro
from tyro.conf import Positional

from looklisten.app.output import Output
from looklisten.system.files import check_writable


def run_table(
    dataset: Positional[Literal["kinetics", "kinetics-sounds", "vggsound", "audioset"]],
    annotations: Annotated[Positional[Path], tyro.conf.arg(metavar="ANNOTATIONS")],
    videos: Annotated[Positional[Path], tyro.conf.arg(metavar="VIDEOS")],
    out: Annotated[Positional[Path], tyro.conf.arg(metavar="OUT.csv")],
    /,
    classes: Literal["kinetics-400", "paper"] = "kinetics-400",
    ontology: Path | None = None,
    whole_videos: bool = False,
) -> Output:
    """Turn the annotations of a public set and a folder of its videos into a table for prepare.

    Args:
        dataset: The set: kinetics (400, 600, 700), kinetics-sounds, vggsound, audioset.
        annotations: File that the set's owner distributes.
        videos: Folder of videos named by their YouTube id; its subfolders are searched too.
        out: Table to write: path, label, start_seconds, stop_seconds, video_id, split.
        classes: With kinetics-sounds: the 32 classes of Kinetics-400, or the 34 names of the paper.
        ontology: With audioset: ontology.json or class_labels_indices.csv, for readable labels.
        whole_videos: The files are whole videos, so the table states where each clip starts and
            stops.
    """
    from looklisten.data.public.table import table

    # OUT is a file, so it is its folder that is checked.
    check_writable(out.parent)
    return Output(table(dataset, annotations, videos, out, classes, ontology, whole_videos))
