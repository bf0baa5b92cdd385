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
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from looklisten.data.clips import Clip
from looklisten.data.cutting import CutReport
from looklisten.data.options import PrepareOptions
from looklisten.data.shard_files import write_shards
from looklisten.data.workers.cut_source import cut_source
from looklisten.data.workers.messages import END, BatchRequest, SourceRequest
from looklisten.errors import LookListenError
from looklisten.media.decode.records import DecodeReport
from looklisten.media.isolation.process import (
    claim_stdout,
    ignore_interrupts,
    limit_memory,
    quiet_decoders,
)

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
        # Of the source at work: what the decoder reports, and what cutting reports.
        self._reports = (DecodeReport(), CutReport())

    def clips(self, options: PrepareOptions) -> Iterator[Clip]:
        """The clips that go into the shards, of all sources up to the message `END`."""
        while (message := self._inbox.get()) != END:
            self._reports = (DecodeReport(), CutReport())
            request = SourceRequest.from_json(message)
            outcome = yield from cut_source(request, options, *self._reports)
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
            report, cut_report = self._reports
            seconds = report.video_end_seconds + report.audio_end_seconds
            # The report of the next source begins at 0 again.
            is_next_source = seconds < last_seconds
            is_further = seconds >= last_seconds + REPORTED_ADVANCE_SECONDS
            if is_further or is_next_source or cut_report.clips != last_clips:
                last_seconds = seconds
                last_clips = cut_report.clips
                self._pipe.send({"clips": cut_report.clips})


if __name__ == "__main__":
    run_worker()
