"""The program of a worker process: sources that arrive as messages -> the shards of a batch.

It runs as `python -m looklisten.data.workers.child`. Requests come on stdin and answers go to
stdout, one JSON object a line.
"""

import io
import json
import os
import queue
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from looklisten.data.clips import Clip
from looklisten.data.cutting import ClipCutter
from looklisten.data.options import PrepareOptions
from looklisten.data.shard_files import write_shards
from looklisten.data.workers.messages import (
    END,
    BatchRequest,
    SourceOutcome,
    SourceRequest,
    Status,
)
from looklisten.errors import LookListenError, SourceError, TooShortError
from looklisten.media.isolation.process import (
    claim_stdout,
    ignore_interrupts,
    limit_memory,
    quiet_decoders,
)
from looklisten.system.files import READING_MACHINE_ERRORS

CHECK_INTERVAL_SECONDS = 1.0
"""The worker checks its progress at this interval."""

REPORTED_ADVANCE_SECONDS = 1.0
"""It reports when so much more was decoded, seconds of video and of sound added up."""


def run_worker() -> None:
    """Write the shards of one batch after the other, until stdin closes."""
    # What libraries print must not get between the answers.
    pipe = _AnswerPipe(claim_stdout())
    ignore_interrupts()
    inbox: queue.Queue[dict[str, Any]] = queue.Queue()
    # A thread, so that the end of the parent ends this process even while a file hangs the decoder.
    threading.Thread(target=_receive_messages, args=(inbox,), daemon=True).start()
    quiet_decoders()
    # After the imports, so that the limit is for the files alone.
    limit_memory(int(sys.argv[1]))
    pipe.send({"ready": os.getpid()})
    sources = _Sources(pipe, inbox)
    threading.Thread(target=sources.report_progress, daemon=True).start()
    while True:
        request = BatchRequest.from_json(inbox.get())
        limit_bytes = request.options.shard_megabytes * 2**20
        try:
            clips = sources.clips(request.options)
            shards = write_shards(clips, Path(request.folder), request.shard_prefix, limit_bytes)
            pipe.send({"shards": shards})
        except OSError as error:
            file = str(error.filename or request.folder)
            pipe.send({"machine_error": [error.errno or 0, error.strerror or str(error), file]})
        except LookListenError as error:
            pipe.send({"refused": str(error)})


class _AnswerPipe:
    """The pipe to the parent; two threads write to it."""

    def __init__(self, file: io.FileIO) -> None:
        self._file = io.BufferedWriter(file)
        self._lock = threading.Lock()

    def send(self, answer: dict[str, Any]) -> None:
        with self._lock:
            self._file.write(json.dumps(answer).encode() + b"\n")
            self._file.flush()


def _receive_messages(inbox: "queue.Queue[dict[str, Any]]") -> None:
    with os.fdopen(0, "rb") as stdin:
        for line in stdin:
            inbox.put(json.loads(line))
    # `sys.exit` would end this thread only.
    os._exit(0)  # the parent is gone


class _Sources:
    """The sources of a batch, cut when their messages arrive."""

    def __init__(self, pipe: _AnswerPipe, inbox: "queue.Queue[dict[str, Any]]") -> None:
        self._pipe = pipe
        self._inbox = inbox
        self._cutter: ClipCutter | None = None
        """Of the source at work."""

    def clips(self, options: PrepareOptions) -> Iterator[Clip]:
        """The clips that go into the shards, of all sources up to the message `END`.

        After the clips of a source its outcome is sent. Raises OSError for an error of the machine.
        """
        while (message := self._inbox.get()) != END:
            request = SourceRequest.from_json(message)
            self._cutter = cutter = ClipCutter(request.source, options, request.boxes)
            written, dropped = _ClipCounts(), _ClipCounts()
            clips = cutter.cut(request.path, request.max_clips) if request.opens else ()
            error = None
            try:
                for clip in clips:
                    skipped_marks = [mark for mark in clip.marks if mark in options.skip]
                    if skipped_marks:
                        dropped.add(clip, skipped_marks)
                    else:
                        written.add(clip, clip.marks)
                        yield clip
            except Exception as raised:
                # Whatever a file does to the decoder costs this file only. Errors of the machine
                # stop the work.
                if isinstance(raised, OSError) and raised.errno in READING_MACHINE_ERRORS:
                    raise
                error = raised
            outcome = _outcome_of(request, cutter, written, dropped, error)
            self._pipe.send({"outcome": outcome.to_json()})

    def report_progress(self) -> None:
        """At every CHECK_INTERVAL_SECONDS: tell the number of clips, if there was progress.

        Runs in its own thread while the main thread decodes. If the decoder hangs, it sends
        nothing, and the parent stops the process after a timeout.
        """
        last_seconds = 0.0
        last_clips = 0
        while True:
            time.sleep(CHECK_INTERVAL_SECONDS)
            cutter = self._cutter
            if cutter is None:
                continue
            report = cutter.report
            seconds = report.video_end_seconds + report.audio_end_seconds
            # The report of the next source begins at 0 again.
            is_next_source = seconds < last_seconds
            is_further = seconds >= last_seconds + REPORTED_ADVANCE_SECONDS
            if is_further or is_next_source or cutter.clip_count != last_clips:
                last_seconds = seconds
                last_clips = cutter.clip_count
                self._pipe.send({"clips": cutter.clip_count})


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


def _outcome_of(
    request: SourceRequest,
    cutter: ClipCutter,
    written: _ClipCounts,
    dropped: _ClipCounts,
    error: Exception | None,
) -> SourceOutcome:
    """What became of a source. `error`: what decoding or cutting raised."""
    status, stage, reason = _status_of(request, cutter, error)
    if status == "prepared" and not written.clips:
        status = "skipped"
        reason = f"every clip of it is {' or '.join(dropped.marks)}"
    last_error = request.lost_worker or cutter.report.last_error
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
        lost_seconds=cutter.lost_seconds,
        source_marks=sorted(cutter.report.flags),
    )


def _status_of(
    request: SourceRequest, cutter: ClipCutter, error: Exception | None
) -> tuple[Status, str, str]:
    """(the status of a source, the stage where it failed, the reason)"""
    # The clips before the crash are kept, and the source still counts as failed.
    if request.lost_worker:
        return "failed", "worker", request.lost_worker
    if request.fetch_problem:
        return "failed", "fetch", request.fetch_problem
    if isinstance(error, TooShortError):
        return "skipped", "", str(error)
    if error:
        report = cutter.report
        has_begun = bool(report.video_end_seconds or report.audio_end_seconds)
        return "failed", "decode" if has_begun else "open", _reason_of(error)
    if cutter.stop_reason:
        return "failed", "decode", cutter.stop_reason
    return "prepared", "", ""


def _reason_of(error: Exception) -> str:
    """Why a source failed, as a sentence."""
    if isinstance(error, SourceError):
        return str(error)
    if isinstance(error, MemoryError):
        return f"it needs more than the {sys.argv[1]} MB of memory that one source may take"
    return f"{type(error).__name__}: {error}"


if __name__ == "__main__":
    run_worker()
