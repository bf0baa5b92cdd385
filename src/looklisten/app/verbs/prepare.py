"""The verb `prepare`."""

from typing import Annotated, Literal

import tyro
from tyro.conf import Positional

from looklisten.app.command_line import UsageError, Workers
from looklisten.app.output import Output
from looklisten.app.terminal import ProgressBar


def run_prepare(
    paths: Annotated[Positional[tuple[str, ...]], tyro.conf.arg(metavar="VIDEOS... OUT")],
    /,
    labels: Literal["table", "folder"] = "table",
    boxes: str | None = None,
    skip: str = "",
    clip_seconds: float = 10.0,
    min_clip_seconds: float = 1.0,
    frames_per_second: float = 5.0,
    shorter_side_pixels: int = 256,
    jpeg_quality: int = 90,
    shard_megabytes: int = 256,
    max_megapixels: float = 40.0,
    max_hours: float = 24.0,
    stall_seconds: float = 120.0,
    memory_megabytes: int = 4096,
    engine: Literal["local", "ray"] = "local",
    task_index: int | None = None,
    num_tasks: int = 1,
    workers: Workers = None,
    again: bool = False,
) -> Output:
    """Cut videos into shards for training; run it again to finish or to add videos.

    Args:
        paths: Videos, folders, globs, text lists, or tables (CSV, TSV, Parquet) with a column path;
            then the folder of the shards. Each can be an address such as s3://bucket/videos.
        labels: From the table's column label, or from the name of the video's folder.
        boxes: Table of annotated boxes: path, time, x0, y0, x1, y1, label, sounding.
        skip: Leave out clips with one of these marks: silent, still, black, clipped, short,
            duplicate, damaged, out-of-phase, hdr (joined by commas).
        clip_seconds: Longest clip.
        min_clip_seconds: Shortest clip.
        frames_per_second: Frames stored per second, at their own timestamps.
        shorter_side_pixels: Frames are scaled down to this shorter side, never up.
        jpeg_quality: 1 to 100.
        shard_megabytes: Largest shard file.
        max_megapixels: A video with larger frames is refused.
        max_hours: A longer video is cut off at this length.
        stall_seconds: Give up a video if decoding does not advance by one second in this time.
        memory_megabytes: Memory that one worker can use for one video.
        engine: This machine (local), or a Ray cluster that is running (ray).
        task_index: In a job array: which share of the work this call does, from 0.
        num_tasks: In a job array: the number of shares.
        workers: Processes; by default one per core. With ray: tasks at a time.
        again: Prepare again all that failed and all that has changed. Without it, only what failed
            and has changed since.
    """
    from looklisten.data.options import PrepareOptions
    from looklisten.data.prepare import prepare
    from looklisten.media.isolation.limits import WorkerLimits

    if len(paths) < 2:
        raise UsageError(
            "prepare needs the videos and then the folder of the shards: "
            "looklisten prepare VIDEOS... OUT"
        )
    if num_tasks > 1 and task_index is None:
        raise UsageError(
            "--num-tasks needs --task-index: which share of the work this call does, from 0"
        )
    settings = PrepareOptions(
        clip_seconds=clip_seconds,
        min_clip_seconds=min_clip_seconds,
        frames_per_second=frames_per_second,
        shorter_side_pixels=shorter_side_pixels,
        jpeg_quality=jpeg_quality,
        shard_megabytes=shard_megabytes,
        skip=tuple(mark.strip() for mark in skip.split(",") if mark.strip()),
        max_megapixels=max_megapixels,
        max_hours=max_hours,
    )
    *inputs, out = paths
    limits = WorkerLimits(stall_seconds=stall_seconds, memory_megabytes=memory_megabytes)
    with ProgressBar("prepare: videos") as progress:
        summary = prepare(
            inputs,
            out,
            settings,
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
    return Output.of_inputs(summary)
