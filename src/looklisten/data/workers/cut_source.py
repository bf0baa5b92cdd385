"""One source -> the clips of it that go into shards, and what became of it.

Here, and for a file that could not be fetched in `batches`, the record of what became of a source
is made. Nobody changes it afterwards.
"""

import sys
from collections.abc import Generator, Iterable

from looklisten.data.clips import Clip
from looklisten.data.cutting import CutReport, cut
from looklisten.data.options import PrepareOptions
from looklisten.data.workers.messages import SourceOutcome, SourceRequest, Status
from looklisten.errors import SourceError, TooShortError
from looklisten.media.decode.records import DecodeReport
from looklisten.system.files import READING_MACHINE_ERRORS


def cut_source(
    request: SourceRequest, options: PrepareOptions, report: DecodeReport, cut_report: CutReport
) -> Generator[Clip, None, SourceOutcome]:
    """Yield the clips of one source that have no mark in `options.skip`; return the outcome.

    The decoder writes `report`, and cutting `cut_report`. Raises OSError for an error of the
    machine.
    """
    written = _ClipCounts()
    dropped = _ClipCounts()
    status: Status = "prepared"
    stage = reason = ""
    try:
        for clip in _all_clips(request, options, report, cut_report):
            skipped_marks = [mark for mark in clip.marks if mark in options.skip]
            if skipped_marks:
                dropped.add(clip, skipped_marks)
            else:
                written.add(clip, clip.marks)
                yield clip
        stop_reason = cut_report.stop_reason or report.stop_reason
        if stop_reason:
            status, stage, reason = "failed", "decode", stop_reason
        elif not written.clips:
            status = "skipped"
            reason = f"every clip of it is {' or '.join(dropped.marks)}"
    except TooShortError as error:
        status, reason = "skipped", str(error)
    except Exception as error:
        # Whatever a file does to the decoder costs this file only. Errors of the machine stop the
        # work.
        if isinstance(error, OSError) and error.errno in READING_MACHINE_ERRORS:
            raise
        has_begun = bool(report.video_end_seconds or report.audio_end_seconds)
        status, stage = "failed", "decode" if has_begun else "open"
        reason = _reason_of(error)
    last_error = report.last_error
    # The clips before the crash are kept, and the source still counts as failed.
    if request.lost_worker:
        status, stage = "failed", "worker"
        reason = last_error = request.lost_worker
    return SourceOutcome(
        status=status,
        stage=stage,
        reason=request.source.named_in(reason, request.path),
        last_error=request.source.named_in(last_error, request.path),
        clips=written.clips,
        seconds=written.seconds,
        marks=written.marks,
        dropped=dropped.marks,
        dropped_clips=dropped.clips,
        dropped_seconds=dropped.seconds,
        lost_seconds=report.lost_seconds | cut_report.lost_seconds,
        source_marks=sorted(report.flags),
    )


def _all_clips(
    request: SourceRequest, options: PrepareOptions, report: DecodeReport, cut_report: CutReport
) -> Iterable[Clip]:
    """The clips of the source, as many as it may have."""
    # A file that ended workers before its first clip is not opened again.
    if request.max_clips == 0:
        return ()
    return cut(
        request.path,
        request.source,
        options,
        request.boxes,
        report,
        request.max_clips,
        cut_report,
    )


class _ClipCounts:
    """Counts clips, their seconds, and how many of them have each mark."""

    def __init__(self) -> None:
        self.clips = 0
        self.seconds = 0.0
        self.marks: dict[str, int] = {}

    def add(self, clip: Clip, marks: Iterable[str]) -> None:
        self.clips += 1
        self.seconds += clip.duration_seconds
        for mark in marks:
            self.marks[mark] = self.marks.get(mark, 0) + 1


def _reason_of(error: Exception) -> str:
    """Why a source failed, as a sentence."""
    if isinstance(error, SourceError):
        return str(error)
    if isinstance(error, MemoryError):
        return f"it needs more than the {sys.argv[1]} MB of memory that one source may take"
    return f"{type(error).__name__}: {error}"
