"""The verb `prepare`: videos -> shards."""

from dataclasses import replace
from typing import Annotated

import tyro
from tyro.conf import Positional

from looklisten.app.command_line import UsageError, WorkerCount
from looklisten.app.output import Output
from looklisten.app.terminal import ProgressBar
from looklisten.data.options import Engine, LabelSource, PrepareOptions
from looklisten.media.isolation.limits import WorkerLimits

_DEFAULTS = PrepareOptions()
_DEFAULT_LIMITS = WorkerLimits()


def run_prepare(
    paths: Annotated[Positional[tuple[str, ...]], tyro.conf.arg(metavar="VIDEOS... OUT")],
    /,
    labels: LabelSource = "table",
    boxes: str | None = None,
    engine: Engine = "local",
    task_index: int | None = None,
    num_tasks: int = 1,
    workers: WorkerCount = None,
    again: bool = False,
    options: Annotated[PrepareOptions, tyro.conf.arg(name="")] = _DEFAULTS,
    limits: Annotated[WorkerLimits, tyro.conf.arg(name="")] = _DEFAULT_LIMITS,
) -> Output:
    """Cut videos into shards for training; run it again to finish or to add videos.

    Args:
        paths: Videos, folders, globs, text lists, or tables (CSV, TSV, Parquet) with a column path;
            then the folder of the shards. Each can be an address such as s3://bucket/videos.
        labels: From the table's column label, or from the name of the video's folder.
        boxes: Table of annotated boxes: path, time, x0, y0, x1, y1, label, sounding.
        engine: This machine (local), or a Ray cluster that is running (ray). On a cluster --workers
            is the number of tasks at a time.
        task_index: In a job array: which share of the work this call does, from 0.
        num_tasks: In a job array: the number of shares.
        again: Prepare again all that failed and all that has changed. Without it, only what failed
            and has changed since.
        options: How clips are cut and stored.
        limits: What one video can cost.
    """
    from looklisten.data.prepare import prepare

    if len(paths) < 2:
        raise UsageError(
            "prepare needs the videos and then the folder of the shards: "
            "looklisten prepare VIDEOS... OUT"
        )
    # Without an index each task of the array would do the work of all.
    if num_tasks > 1 and task_index is None:
        raise UsageError(
            "--num-tasks needs --task-index: which share of the work this call does, from 0"
        )
    # No option marks the output, as with `cp`: it is the last of the paths.
    *inputs, out = paths
    with ProgressBar("prepare: videos") as progress:
        summary = prepare(
            inputs,
            out,
            options,
            boxes,
            workers,
            progress,
            labels=labels,
            limits=limits,
            engine=engine,
            task_index=task_index,
            num_tasks=num_tasks,
            again=again,
        )
    output = Output.of_inputs(summary, out)
    if not summary["skipped"]:
        return output
    skipped = f"inputs without a clip are in {out}/skipped.jsonl with the reason"
    return replace(output, message="; ".join(filter(None, [output.message, skipped])))
