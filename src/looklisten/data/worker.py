"""Decoding in a separate process: if a file crashes the decoder, only that file is lost.

Both ends of the pipe are here. `Worker` is the parent's end. `run_worker` is the program at the
other end (`python -m looklisten.data.worker`). It ends by itself when its pipe closes, so a killed
parent leaves no orphans.
"""

import contextlib
import errno
import io
import json
import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

from looklisten.data.clips import Clip
from looklisten.data.cutting import CutReport, cut
from looklisten.data.options import PrepareOptions
from looklisten.data.shard_files import write_shards
from looklisten.data.worker_messages import BatchRequest, SourceOutcome, SourceRequest
from looklisten.errors import LookListenError, SourceError, TooShortError
from looklisten.media.isolation.limits import WorkerLimits
from looklisten.media.isolation.process import (
    ChildProcess,
    WorkerLost,
    claim_stdout,
    ignore_interrupts,
    limit_memory,
    quiet_decoders,
)

MACHINE_ERRORS = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EMFILE,
    errno.ENFILE,
    errno.EROFS,
    errno.EACCES,
}
"""Errors of the machine, such as a full disk. They stop the whole task."""

READING_MACHINE_ERRORS = MACHINE_ERRORS - {errno.EACCES}
"""Those of the machine while a source is read: EACCES then concerns this source only."""

CHECK_INTERVAL_SECONDS = 1.0
"""The worker checks its progress at this interval."""

REPORTED_ADVANCE_SECONDS = 1.0
"""It reports when so much more was decoded, seconds of video and of sound added up."""

END = {"end": True}
"""The message after the last source of a batch."""


class Worker:
    """A running worker process, which cuts one batch of sources after the other.

    For each batch call `begin`, `cut` for each of its sources, and `finish`. All three raise
    WorkerLost if the process died, or was silent for too long and was stopped; OSError if it met an
    error of the machine; LookListenError if it refused the work.
    """

    def __init__(self, limits: WorkerLimits) -> None:
        self.limits = limits
        self.sources = 0
        """How many sources it has worked on."""
        self._process = ChildProcess("looklisten.data.worker", str(limits.memory_megabytes))
        self._answers: queue.Queue[dict[str, Any] | None] = queue.Queue()
        """Answers in order; None after the last one, when the process has closed its pipe."""
        # A thread reads the pipe: `receive` needs a time limit, which a pipe does not have.
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()
        try:
            # A program that cannot start here is the fault of no file, so it is found out first.
            self._receive()  # "ready"
        except WorkerLost as error:
            self.stop()
            raise LookListenError(f"the process that decodes cannot run here: {error}") from None

    @property
    def pid(self) -> int:
        return self._process.pid

    def _listen(self) -> None:
        # The last line may be half a line, of a process that died while it wrote.
        with contextlib.suppress(ValueError), io.BufferedReader(self._process.stdout) as lines:  # type: ignore[type-var]
            for line in lines:
                self._answers.put(json.loads(line))
        self._answers.put(None)

    def begin(self, request: BatchRequest) -> None:
        """Begin with the shards of a batch."""
        self._send(request.to_json())

    def cut(self, request: SourceRequest, on_clips: Callable[[int], None]) -> SourceOutcome:
        """Cut one source into the shards. `on_clips` gets the number of its clips so far."""
        self._send(request.to_json())
        self.sources += 1
        while "outcome" not in (answer := self._receive()):
            on_clips(answer["clips"])
        return SourceOutcome.from_json(answer["outcome"])

    def finish(self) -> list[dict[str, Any]]:
        """Complete the shards; returns what the index says of each."""
        self._send(END)
        # Reports of progress may still come before the shards.
        while "shards" not in (answer := self._receive()):
            pass
        shards: list[dict[str, Any]] = answer["shards"]
        return shards

    def _send(self, message: dict[str, Any]) -> None:
        try:
            self._process.write(json.dumps(message).encode() + b"\n")
        except (OSError, ValueError):  # it ended, or another thread stopped it
            raise WorkerLost(self._process.how_it_ended()) from None

    def _receive(self) -> dict[str, Any]:
        """The next answer, within `limits.stall_seconds`."""
        try:
            answer = self._answers.get(timeout=self.limits.stall_seconds)
        except queue.Empty:
            self.stop()
            raise WorkerLost(
                f"the decoder did not advance for {self.limits.stall_seconds:g} s and was stopped",
                hung=True,
            ) from None
        if answer is None:
            raise WorkerLost(self._process.how_it_ended())
        if "machine_error" in answer:
            raise OSError(*answer["machine_error"])
        if "refused" in answer:
            raise LookListenError(answer["refused"])
        return answer

    def stop(self) -> None:
        """End the process. May be called again."""
        # The listener reads to the end of the pipe, so `stop` must not close it before.
        self._process.kill()
        self._listener.join()
        self._process.stop()


class WorkerPool:
    """Worker processes that threads share. `lend` gives one; `close` ends them all."""

    def __init__(self, limits: WorkerLimits) -> None:
        self.limits = limits
        self.closed = threading.Event()
        self._idle: list[Worker] = []
        self._all: set[Worker] = set()
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def lend(self) -> Iterator[Worker]:
        """A worker for one batch.

        Afterwards the next batch uses it again, unless an exception shows that its state is
        unknown, or it has worked on `limits.sources_per_worker` sources.
        """
        with self._lock:
            worker = self._idle.pop() if self._idle else None
        # Outside the lock, because a process takes a second to start.
        worker = worker or Worker(self.limits)
        with self._lock:
            self._all.add(worker)
        succeeded = False
        try:
            # `close` may have run while the process started, before `_all` held the worker.
            if self.closed.is_set():
                raise WorkerLost("the work was stopped")
            yield worker
            succeeded = True
        finally:
            with self._lock:
                is_fresh = worker.sources < self.limits.sources_per_worker
                if succeeded and is_fresh and not self.closed.is_set():
                    self._idle.append(worker)
                else:
                    self._all.discard(worker)
                    worker.stop()

    def close(self) -> None:
        with self._lock:
            self.closed.set()
            for worker in self._all:
                worker.stop()

    def __enter__(self) -> "WorkerPool":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


# The rest of this file runs in the worker process.


class _AnswerPipe:
    """The pipe to the parent; two threads write to it."""

    def __init__(self, file: io.FileIO) -> None:
        self._file = io.BufferedWriter(file)
        self._lock = threading.Lock()

    def send(self, answer: dict[str, Any]) -> None:
        with self._lock:
            self._file.write(json.dumps(answer).encode() + b"\n")
            self._file.flush()


def run_worker() -> None:
    """Read messages from stdin and answer on stdout until stdin closes."""
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
    writer = _BatchWriter(pipe, inbox)
    threading.Thread(target=writer.report_progress, daemon=True).start()
    while True:
        request = BatchRequest.from_json(inbox.get())
        try:
            writer.write(request)
        except OSError as error:
            file = str(error.filename or request.folder)
            pipe.send({"machine_error": [error.errno or 0, error.strerror or str(error), file]})
        except LookListenError as error:
            pipe.send({"refused": str(error)})


def _receive_messages(inbox: "queue.Queue[dict[str, Any]]") -> None:
    with os.fdopen(0, "rb") as stdin:
        for line in stdin:
            inbox.put(json.loads(line))
    # `sys.exit` would end this thread only.
    os._exit(0)  # the parent is gone


class _BatchWriter:
    """Sources that arrive as messages -> the shards of a batch."""

    def __init__(self, pipe: _AnswerPipe, inbox: "queue.Queue[dict[str, Any]]") -> None:
        self._pipe = pipe
        self._inbox = inbox
        self._report = CutReport()

    def report_progress(self) -> None:
        """At every CHECK_INTERVAL_SECONDS: tell the number of clips, if there was progress.

        Runs in its own thread while the main thread decodes. If the decoder hangs, it sends
        nothing, and the parent stops the process after a timeout.
        """
        last_seconds = 0.0
        last_clips = 0
        while True:
            time.sleep(CHECK_INTERVAL_SECONDS)
            report = self._report
            seconds = report.video_end_seconds + report.audio_end_seconds
            # The report of the next source begins at 0 again.
            is_next_source = seconds < last_seconds
            is_further = seconds >= last_seconds + REPORTED_ADVANCE_SECONDS
            if is_further or is_next_source or report.clips != last_clips:
                last_seconds = seconds
                last_clips = report.clips
                self._pipe.send({"clips": report.clips})

    def write(self, request: BatchRequest) -> None:
        """Write the shards of one batch. The following messages name its sources, up to `END`."""
        shards = write_shards(
            self._clips(request.options),
            Path(request.folder),
            request.shard_prefix,
            request.options.shard_megabytes * 2**20,
        )
        self._pipe.send({"shards": shards})

    def _clips(self, options: PrepareOptions) -> Iterator[Clip]:
        while (message := self._inbox.get()) != END:
            outcome = yield from self._cut(SourceRequest.from_json(message), options)
            self._pipe.send({"outcome": outcome.to_json()})

    def _cut(
        self, request: SourceRequest, options: PrepareOptions
    ) -> Generator[Clip, None, SourceOutcome]:
        """Yield the clips of one source that have no mark in `options.skip`; return the outcome."""
        report = CutReport()
        self._report = report
        outcome = SourceOutcome()
        try:
            clips = cut(
                request.path, request.source, options, request.boxes, report, request.max_clips
            )
            for clip in clips:
                skipped_marks = [mark for mark in clip.marks if mark in options.skip]
                _count(clip, skipped_marks, outcome)
                if not skipped_marks:
                    yield clip
        except TooShortError as error:
            outcome.status = "skipped"
            outcome.reason = str(error)
        except Exception as error:
            # Whatever a file does to the decoder costs this file only. Errors of the machine stop
            # the work.
            if isinstance(error, OSError) and error.errno in READING_MACHINE_ERRORS:
                raise
            has_begun = bool(report.video_end_seconds or report.audio_end_seconds)
            _set_failed(outcome, "decode" if has_begun else "open", _reason_of(error))
        else:
            if report.stop_reason:
                _set_failed(outcome, "decode", report.stop_reason)
            elif not outcome.clips:
                outcome.status = "skipped"
                outcome.reason = f"every clip of it is {' or '.join(outcome.dropped)}"
        outcome.lost_seconds = dict(report.lost_seconds)
        outcome.source_marks = sorted(report.flags)
        outcome.last_error = report.last_error
        return outcome


def _count(clip: Clip, skipped_marks: Sequence[str], outcome: SourceOutcome) -> None:
    """Count a clip in `outcome`: as dropped for its `skipped_marks`, or as kept without any."""
    if skipped_marks:
        _count_marks(skipped_marks, outcome.dropped)
        outcome.dropped_clips += 1
        outcome.dropped_seconds += clip.duration_seconds
    else:
        _count_marks(clip.marks, outcome.marks)
        outcome.clips += 1
        outcome.seconds += clip.duration_seconds


def _count_marks(marks: Sequence[str], counts: dict[str, int]) -> None:
    for mark in marks:
        counts[mark] = counts.get(mark, 0) + 1


def _set_failed(outcome: SourceOutcome, stage: str, reason: str) -> None:
    outcome.status = "failed"
    outcome.stage = stage
    outcome.reason = reason


def _reason_of(error: Exception) -> str:
    """Why a source failed, as a sentence."""
    if isinstance(error, SourceError):
        return str(error)
    if isinstance(error, MemoryError):
        return f"it needs more than the {sys.argv[1]} MB of memory that one source may take"
    return f"{type(error).__name__}: {error}"


if __name__ == "__main__":
    run_worker()
