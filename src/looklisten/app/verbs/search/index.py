"""The verb `index`: files -> an index of their moments."""

from pathlib import Path
from typing import Annotated

import tyro
from tyro.conf import Positional

from looklisten.app.command_line import DEFAULT_NETWORK, DeviceName, NetworkName, UsageError
from looklisten.app.output import Output
from looklisten.app.terminal import ProgressBar
from looklisten.data.options import Engine, LabelSource
from looklisten.search.options import IndexOptions
from looklisten.system.files import check_writable

_DEFAULTS = IndexOptions()


def run_index(
    sources: Annotated[Positional[tuple[str, ...]], tyro.conf.arg(metavar="SOURCES...")],
    /,
    db: Annotated[Path, tyro.conf.arg(metavar="DB")] = Path("index"),
    checkpoint: NetworkName = DEFAULT_NETWORK,
    labels: LabelSource = "table",
    device: DeviceName = "auto",
    engine: Engine = "local",
    task_index: int | None = None,
    num_tasks: int = 1,
    options: Annotated[IndexOptions, tyro.conf.arg(name="")] = _DEFAULTS,
) -> Output:
    """Index the moments of sounds, images and videos, so that `search` finds them.

    Run it again to add what is new or changed, and to remove what is gone.

    Args:
        sources: Files, folders, globs, text lists or tables with a column path; subfolders are
            searched too.
        db: Folder of the index.
        labels: From the table's column label, or from the name of the file's folder.
        engine: This machine (local), or a Ray cluster that is running (ray). There `--device cuda`
            gives each task one GPU.
        task_index: In a job array: which share of the files this call indexes, from 0. A last call
            without it takes the parts of all tasks in.
        num_tasks: In a job array: the number of shares. On a Ray cluster, instead of four for each
            core.
    """
    from looklisten.media.isolation.parent import warm_up

    # The decoder's process starts while PyTorch is imported, which saves its start time.
    warm_up()
    from looklisten.search.indexing.index import index

    if not sources:
        raise UsageError("index needs files or folders: looklisten index SOURCES... --db DB")
    # Without an index each task of the array would do the work of all.
    if num_tasks > 1 and task_index is None and engine == "local":
        raise UsageError(
            "--num-tasks needs --task-index: which share of the files this call indexes, from 0"
        )
    check_writable(db)
    with ProgressBar("index: files") as progress:
        result = index(
            sources,
            db,
            checkpoint,
            options,
            labels,
            device,
            progress,
            engine=engine,
            task_index=task_index,
            num_tasks=num_tasks,
        )
    return Output.of_inputs(result.as_dict(), result.db)
