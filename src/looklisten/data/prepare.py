"""Videos -> shards. Many worker processes, one pure function of a batch of sources, one merge.

The plan (which source goes into which batch) is written first and depends on the sources alone, never on the workers; each
batch makes its own shards and then its record. So any number of workers, and any interruption, give the same bytes. Paths
travel between processes, never frames. Knows decoding and shards, no network.
"""

import csv
import errno
import json
import os
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import simplejpeg
from numpy.typing import NDArray

from looklisten.data.shards import FORMAT_VERSION, Box, Clip, write_shards
from looklisten.errors import ConfigError, SourceError, TooShortError
from looklisten.media import SAMPLE_RATE_HZ
from looklisten.media.decode import Frame, Report, Sound, Wanted, decode
from looklisten.runtime import Progress, map_unordered, silent, sweep_aside, write_json, written_aside

_SUFFIXES = """
    3g2 3gp asf avi divx dv f4v flv m2t m2ts m2v m4v mj2 mkv mov mp4 mpe mpeg mpg mts mxf nut ogm ogv ps qt rm rmvb ts vob webm wmv
"""
VIDEO_SUFFIXES = frozenset(f".{suffix}" for suffix in _SUFFIXES.split())
"""What counts as a video in a folder; a file named by itself is tried whatever its name."""

MAX_BATCH_SOURCES = 64
MIN_BATCHES = 32
"""A small set is still cut into so many batches, so that every core has work and little is lost by an interruption."""


@dataclass(frozen=True)
class PrepareSettings:
    """How clips are cut and stored. Changing any of these changes the shards, so they are written into the index."""

    clip_seconds: float = 10.0
    min_clip_seconds: float = 1.0
    frames_per_second: float = 5.0
    shorter_side_pixels: int = 256
    jpeg_quality: int = 90
    shard_megabytes: int = 256

    def __post_init__(self) -> None:
        if not 0 < self.min_clip_seconds <= self.clip_seconds:
            raise ConfigError("min_clip_seconds must be above 0 and at most clip_seconds")
        if self.frames_per_second <= 0 or self.shorter_side_pixels < 1 or self.shard_megabytes < 1:
            raise ConfigError("frames_per_second, shorter_side_pixels and shard_megabytes must be above 0")
        if not 1 <= self.jpeg_quality <= 100:
            raise ConfigError(f"jpeg_quality {self.jpeg_quality} is not in 1..100")

    @property
    def wanted(self) -> Wanted:
        return Wanted(self.frames_per_second, self.shorter_side_pixels)


@dataclass(frozen=True)
class Source:
    """One input video. `video_id` is its path from the inputs' common folder, so that moving the folder changes nothing."""

    video_id: str
    bytes: int
    labels: tuple[str, ...] = ()
    split: str = ""


def find_sources(inputs: Sequence[str | Path]) -> tuple[Path, list[Source]]:
    """The videos that `inputs` name, in order of `video_id`, and the folder that the ids start from.

    An input is a video, a folder (searched recursively for video files) or a CSV table with a column `path` (from the
    table's folder) and, if wanted, `label` and `split`. Raises SourceError when one is not there or holds no video.
    """
    found: dict[Path, tuple[tuple[str, ...], str]] = {}
    for given in map(Path, inputs):
        if given.is_dir():
            videos = [f for f in given.rglob("*") if f.suffix.lower() in VIDEO_SUFFIXES and f.is_file() and not f.name.startswith(".")]
            if not videos:
                raise SourceError(
                    f"the folder {given} holds no video (looked for {', '.join(sorted(VIDEO_SUFFIXES)[:6])} … in it and below)"
                )
            found |= {video.absolute(): ((), "") for video in videos}
        elif not given.exists():
            raise SourceError(f"there is no file or folder {given}")
        elif given.suffix.lower() == ".csv":
            found |= _read_table(given)
        else:
            found[given.absolute()] = ((), "")
    root = Path(os.path.commonpath([path.parent for path in found]))
    sources = [Source(path.relative_to(root).as_posix(), path.stat().st_size, *about) for path, about in found.items()]
    return root, sorted(sources, key=lambda source: source.video_id)


def _read_table(table: Path) -> dict[Path, tuple[tuple[str, ...], str]]:
    rows = _rows(table, {"path"})
    found = {}
    for line, row in enumerate(rows, 2):
        video = (table.parent / row["path"]).absolute()
        if not video.is_file():
            raise SourceError(f"{table}, line {line}: there is no file {video}")
        found[video] = (tuple(filter(None, [row.get("label", "")])), row.get("split") or "")
    if not found:
        raise SourceError(f"the table {table} has no rows")
    return found


def _rows(table: Path, columns: set[str]) -> list[dict[str, str]]:
    try:
        with table.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except (UnicodeDecodeError, csv.Error, OSError) as error:
        raise SourceError(f"the table {table} cannot be read: {error}") from None
    if rows and not columns <= rows[0].keys():
        raise SourceError(f"the table {table} lacks the column {', '.join(sorted(columns - rows[0].keys()))}; it has {', '.join(rows[0])}")
    return rows


def read_boxes(table: Path) -> dict[str, list[Box]]:
    """Boxes of each video by its path in the table; times are seconds of the video."""
    boxes: dict[str, list[Box]] = defaultdict(list)
    for row in _rows(table, {"path", "time", "x0", "y0", "x1", "y1", "label", "sounding"}):
        x0, y0, x1, y1 = (float(row[c]) for c in ("x0", "y0", "x1", "y1"))
        boxes[row["path"]].append(Box(float(row["time"]), x0, y0, x1, y1, row["label"], row["sounding"] in ("1", "true", "True")))
    return boxes


def cut(path: Path, source: Source, settings: PrepareSettings, boxes: Sequence[Box] = (), report: Report | None = None) -> Iterator[Clip]:
    """The clips of one video: consecutive stretches of `clip_seconds` from where both streams exist to where one ends.

    A last stretch shorter than `min_clip_seconds` is left out. Holds one clip in memory. Raises SourceError when the file is
    no video with picture and sound, TooShortError when the two share less than `min_clip_seconds`.
    """
    report = report if report is not None else Report()
    cutter = _Cutter(source, settings, boxes, report)
    for event in decode(path, settings.wanted, report):
        cutter.add(event)
        while cutter.shared_seconds >= settings.clip_seconds:
            yield from cutter.take(settings.clip_seconds)
    shared = cutter.shared_seconds
    if shared >= settings.min_clip_seconds:
        yield from cutter.take(shared)
    if not cutter.made:
        hint = f"; FFmpeg says: {report.last_error}" if report.last_error else ""
        kind = SourceError if report.truncated or report.damaged_packets else TooShortError
        raise kind(f"{path}: picture and sound share {shared:.3f} s, a clip needs {settings.min_clip_seconds:g} s{hint}")


@dataclass
class _Cutter:
    """Frames and sound of one source that are not in a clip yet, both from `start_seconds` on once both have begun."""

    source: Source
    settings: PrepareSettings
    boxes: Sequence[Box]
    report: Report
    made: int = 0
    start_seconds: float | None = None
    frames: list[tuple[float, bytes]] = field(default_factory=list)
    sound: list[NDArray[np.float32]] = field(default_factory=list)
    samples: int = 0
    """The length of all of `sound`."""
    sound_start_seconds: float | None = None

    def add(self, event: Frame | Sound) -> None:
        if isinstance(event, Frame):
            jpeg = simplejpeg.encode_jpeg(event.pixels, self.settings.jpeg_quality, "RGB", "420", fastdct=False)
            self.frames.append((event.at_seconds, jpeg))
        else:
            self.sound_start_seconds = event.start_seconds if self.sound_start_seconds is None else self.sound_start_seconds
            self.sound.append(event.samples)
            self.samples += len(event.samples)
        if self.start_seconds is None:
            self._begin()

    def _begin(self) -> None:
        """Drop what one stream has before the other begins, to the sample."""
        if not self.frames or self.sound_start_seconds is None:
            return
        early = max(self.frames[0][0] - self.sound_start_seconds, 0.0)
        samples = int(np.ceil(early * SAMPLE_RATE_HZ - 1e-6))
        if self.samples >= samples:
            self._cut_sound(samples)
            self.start_seconds = start = self.sound_start_seconds + samples / SAMPLE_RATE_HZ
            self.frames = [(t, jpeg) for t, jpeg in self.frames if t >= start]

    def _cut_sound(self, samples: int) -> NDArray[np.float32]:
        """Take the first `samples` off the buffered sound."""
        whole = np.concatenate(self.sound) if self.sound else np.zeros(0, np.float32)
        self.sound, self.samples = [whole[samples:]], len(whole) - samples
        return whole[:samples]

    @property
    def shared_seconds(self) -> float:
        """For how long from the start both picture and sound are there."""
        if self.start_seconds is None:
            return 0.0
        return max(min(self.samples / SAMPLE_RATE_HZ, self.report.video_end_seconds - self.start_seconds), 0.0)

    def take(self, seconds: float) -> Iterator[Clip]:
        """Cut off the next `seconds`; none where the picture stood still for all of them, so that no frame begins there."""
        assert self.start_seconds is not None
        rate, begin = SAMPLE_RATE_HZ, self.start_seconds
        samples = int(seconds * rate + 1e-6)
        end = begin + samples / rate
        wave = self._cut_sound(samples)
        inside = [(t - begin, jpeg) for t, jpeg in self.frames if begin <= t < end]
        self.frames = [(t, jpeg) for t, jpeg in self.frames if t >= end]
        self.start_seconds = end
        if not inside:
            return
        self.made += 1
        marks = {"truncated": self.report.truncated, "damaged": self.report.damaged_packets > 0}
        yield Clip(
            key=f"{self.source.video_id}@{begin:.3f}",
            video_id=self.source.video_id,
            source=self.source.video_id,
            start_seconds=begin,
            frame_seconds=tuple(t for t, _ in inside),
            frames=tuple(jpeg for _, jpeg in inside),
            waveform=np.clip(np.rint(wave * 2.0**15), -(2**15), 2**15 - 1).astype(np.int16),
            sample_rate_hz=rate,
            labels=self.source.labels,
            split=self.source.split,
            boxes=tuple(replace(box, at_seconds=box.at_seconds - begin) for box in self.boxes if begin <= box.at_seconds < end),
            marks=tuple(mark for mark, is_so in marks.items() if is_so),
        )


@dataclass(frozen=True)
class Batch:
    """One task: sources that go into the same shards. Travels to a worker; holds paths and settings, no media."""

    number: int
    root: Path
    out: Path
    sources: tuple[Source, ...]
    boxes: dict[str, list[Box]]
    settings: PrepareSettings

    @property
    def record(self) -> Path:
        return _record(self.out, self.number)


def _record(out: Path, number: int) -> Path:
    return out / "progress" / f"{number:06d}.json"


def prepare_batch(batch: Batch) -> dict[str, Any]:
    """Cut the sources of one batch into its shards and write its record; a pure function of the batch."""
    av.logging.set_level(None)  # FFmpeg's log callback takes the interpreter lock; errors still carry their last line
    record: dict[str, Any] = {"clips": 0, "seconds": 0.0, "labels": {}, "failures": []}
    name, limit = f"clips-{batch.number:06d}", batch.settings.shard_megabytes * 2**20
    record["shards"] = write_shards(_counted(batch, record), batch.out, name, limit)
    write_json(batch.record, record)
    return record


def _counted(batch: Batch, record: dict[str, Any]) -> Iterator[Clip]:
    """The clips of a batch, counted in `record` as they pass, with a line for each source that gave nothing or broke off."""
    for source in batch.sources:
        report, recovered = Report(), 0.0
        try:
            for clip in cut(batch.root / source.video_id, source, batch.settings, batch.boxes.get(source.video_id, ()), report):
                recovered += clip.duration_seconds
                record["clips"] += 1
                record["seconds"] = round(record["seconds"] + clip.duration_seconds, 6)
                for label in clip.labels:
                    record["labels"][label] = record["labels"].get(label, 0) + 1
                yield clip
        except Exception as error:  # whatever a file does to the decoder costs this file only, the machine's troubles stop the work
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EMFILE, errno.ENOMEM):
                raise
            reason = str(error) if isinstance(error, SourceError) else f"{type(error).__name__}: {error}"
            failure = {
                "source": source.video_id,
                "status": "skipped" if isinstance(error, TooShortError) else "failed",
                "reason": reason.replace(f"{batch.root}{os.sep}", ""),
                "last_error": report.last_error,
                "seconds_recovered": round(recovered, 3),
            }
            record["failures"].append(failure)


def _plan(out: Path, root: Path, sources: Sequence[Source], settings: PrepareSettings) -> list[list[Source]]:
    """The batches, old ones as they were and new ones for sources not seen before; written before any work starts."""
    path = out / "progress" / "plan.json"
    batches: list[list[Source]] = []
    if path.exists():
        plan = json.loads(path.read_text(encoding="utf-8"))
        if plan["settings"] != asdict(settings):
            changed = [k for k, v in asdict(settings).items() if plan["settings"].get(k) != v]
            raise ConfigError(
                f"{out} was prepared with another {', '.join(changed)}; choose another folder, or delete this one to start over"
            )
        batches = [[Source(**row | {"labels": tuple(row["labels"])}) for row in rows] for rows in plan["batches"]]
    known = {source.video_id: source for batch in batches for source in batch}
    for source in sources:
        if source.video_id in known and known[source.video_id] != source:
            raise ConfigError(f"{source.video_id} is in {out} with another size, label or split; choose another folder, or delete this one")
    new = [source for source in sources if source.video_id not in known]
    size = min(max(len(new) // MIN_BATCHES, 1), MAX_BATCH_SOURCES)
    batches += [new[i : i + size] for i in range(0, len(new), size)]
    write_json(path, {"root": str(root), "settings": asdict(settings), "batches": [[asdict(s) for s in batch] for batch in batches]})
    return batches


def _is_done(out: Path, number: int) -> bool:
    try:
        record = json.loads(_record(out, number).read_text(encoding="utf-8"))
        return all((out / shard["name"]).stat().st_size == shard["bytes"] for shard in record["shards"])
    except (OSError, ValueError, KeyError):
        return False


def prepare(
    inputs: Sequence[str | Path],
    out: str | Path,
    settings: PrepareSettings | None = None,
    boxes: str | Path | None = None,
    workers: int | None = None,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Cut the videos that `inputs` name (see `find_sources`) into shards under `out`, and return what was done.

    Writes `clips-*.arrow`, `index.json` and `failures.jsonl`. Run again it keeps what is whole, redoes what is damaged and
    adds new videos. `boxes` is a CSV of known places: path, time, x0, y0, x1, y1, label, sounding.
    Raises SourceError when there is nothing to prepare or nothing could be, ConfigError when `out` holds other settings.
    Returns sources = prepared + skipped (whole, but too short) + failed; clips, hours; seconds of work and x_realtime of what
    this call decoded.
    """
    settings, out = settings or PrepareSettings(), Path(out)
    began = time.perf_counter()
    root, sources = find_sources(inputs)
    places = read_boxes(Path(boxes)) if boxes else {}
    sweep_aside(out)
    plan = _plan(out, root, sources, settings)
    tasks = [
        Batch(number, root, out, tuple(batch), {s.video_id: places[s.video_id] for s in batch if s.video_id in places}, settings)
        for number, batch in enumerate(plan)
        if not _is_done(out, number)
    ]
    decoded = sum(record["seconds"] for record in map_unordered(prepare_batch, tasks, workers, progress))
    summary = _merge(out, root, len(plan), sum(map(len, plan)), settings)
    if not summary["clips"]:
        first = json.loads((out / "failures.jsonl").read_text(encoding="utf-8").splitlines()[0])
        raise SourceError(
            f"none of the {summary['sources']} sources could be prepared; the first: {first['reason']} (all: {out / 'failures.jsonl'})"
        )
    seconds = time.perf_counter() - began
    return summary | {"seconds": round(seconds, 2), "x_realtime": round(decoded / seconds, 1), "path": str(out)}


def _merge(out: Path, root: Path, batches: int, sources: int, settings: PrepareSettings) -> dict[str, Any]:
    """One index and one list of failures out of the records of all batches."""
    records = [json.loads(_record(out, number).read_text(encoding="utf-8")) for number in range(batches)]
    failures = [failure for record in records for failure in record["failures"]]
    with written_aside(out / "failures.jsonl") as scratch:
        scratch.write_text("".join(json.dumps(failure, ensure_ascii=False) + "\n" for failure in failures), encoding="utf-8")
    labels: dict[str, int] = defaultdict(int)
    for record in records:
        for label, count in record["labels"].items():
            labels[label] += count
    skipped, failed = (sum(failure["status"] == status for failure in failures) for status in ("skipped", "failed"))
    summary = {
        "sources": sources,
        "prepared": sources - skipped - failed,
        "skipped": skipped,
        "failed": failed,
        "clips": sum(record["clips"] for record in records),
        "hours": round(sum(record["seconds"] for record in records) / 3600, 4),
    }
    index = {"format": FORMAT_VERSION, "root": str(root), "settings": asdict(settings), **summary, "labels": dict(sorted(labels.items()))}
    write_json(out / "index.json", index | {"shards": [shard for record in records for shard in record["shards"]]})
    return summary
