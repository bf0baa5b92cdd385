"""Decoding in a process of its own: a decoder that hangs, crashes or eats memory costs one file and
nothing else.

Both ends of one pipe are here: `Worker` is the end of who asks, `main` the program at the other
(`python -m looklisten.data.worker`). Messages are JSON lines that carry paths and counts, never
media. The program ends by itself when its pipe closes, so a killed parent leaves no orphans.
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
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

from looklisten.data.clips import Clip, VideoBox
from looklisten.data.cutting import CutReport, cut
from looklisten.data.options import PrepareOptions
from looklisten.data.shard_files import write_shards
from looklisten.data.sources import Source
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
"""Errors of writing that are the machine's fault and no file's: they stop the work."""

UNREADABLE = {errno.EACCES, errno.EPERM}
"""The same of reading a source: that source alone may not be read."""

BEAT_SECONDS = 1.0
"""How much of a video must be new before the worker says that it gets on."""

Message = dict[str, Any]


class Worker:
    """A running worker process. `ask` sends one message; `answers` come back one by one."""

    def __init__(self, limits: WorkerLimits) -> None:
        self.limits, self.sources = limits, 0
        self._process = ChildProcess("looklisten.data.worker", str(limits.memory_megabytes))
        self._answers: queue.Queue[Message | None] = queue.Queue()
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()
        try:
            self.answer()
        except WorkerLost as error:
            self.stop()
            raise LookListenError(f"the process that decodes cannot run here: {error}") from None

    @property
    def pid(self) -> int:
        return self._process.pid

    def _listen(self) -> None:
        # What may come is half a line of a process that died while writing.
        with contextlib.suppress(ValueError), io.BufferedReader(self._process.stdout) as lines:  # type: ignore[type-var]
            for line in lines:
                self._answers.put(json.loads(line))
        self._answers.put(None)

    def ask(self, message: Message) -> None:
        """Send one message. Raises WorkerLost when nobody is there."""
        try:
            self._process.write(json.dumps(message).encode() + b"\n")
        except (OSError, ValueError):  # gone, or stopped by another thread
            raise WorkerLost(self._process.how_it_ended()) from None

    def answer(self) -> Message:
        """The next message. Raises WorkerLost when the process died, or said nothing for too long
        and was stopped.
        """
        try:
            message = self._answers.get(timeout=self.limits.stall_seconds)
        except queue.Empty:
            self.stop()
            raise WorkerLost(
                f"the decoder did not advance for {self.limits.stall_seconds:g} s and was stopped",
                hung=True,
            ) from None
        if message is None:
            raise WorkerLost(self._process.how_it_ended())
        return message

    def stop(self) -> None:
        """End the process, whatever it does; may be called again."""
        self._process.kill()
        self._listener.join()  # it reads to the end of the pipe, which is there now
        self._process.stop()


class Workers:
    """Worker processes for threads to share: `lend` gives one, kept for the next who asks. `close`
    ends them all.
    """

    def __init__(self, limits: WorkerLimits) -> None:
        self.limits = limits
        self._idle: list[Worker] = []
        self._all: set[Worker] = set()
        self._lock = threading.Lock()
        self.closed = threading.Event()

    @contextlib.contextmanager
    def lend(self) -> Iterator[Worker]:
        """A worker; one that comes back broken, or has worked long enough, is ended and another
        takes its place.
        """
        with self._lock:
            worker = self._idle.pop() if self._idle else None
        worker = worker or Worker(self.limits)
        with self._lock:
            self._all.add(worker)
        whole = False
        try:
            if self.closed.is_set():
                raise WorkerLost("the work was stopped")
            yield worker
            whole = True
        finally:
            with self._lock:
                if (
                    whole
                    and worker.sources < self.limits.sources_per_worker
                    and not self.closed.is_set()
                ):
                    self._idle.append(worker)
                else:
                    self._all.discard(worker)
                    worker.stop()

    def close(self) -> None:
        with self._lock:
            self.closed.set()
            for worker in self._all:
                worker.stop()

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Pipe:
    """The way back to the parent, for the thread that works and the one that tells how far it is."""

    def __init__(self, file: io.FileIO) -> None:
        self._file, self._lock = io.BufferedWriter(file), threading.Lock()

    def say(self, message: Message) -> None:
        with self._lock:
            self._file.write(json.dumps(message).encode() + b"\n")
            self._file.flush()


def main() -> None:
    """Read messages from stdin and answer on stdout until stdin closes."""
    pipe = _Pipe(claim_stdout())
    ignore_interrupts()
    inbox: queue.Queue[Message] = queue.Queue()
    threading.Thread(target=_receive, args=(inbox,), daemon=True).start()
    quiet_decoders()
    limit_memory(int(sys.argv[1]))
    pipe.say({"ready": os.getpid()})
    cutter = _Cutter(pipe, inbox)
    threading.Thread(target=cutter.beat, daemon=True).start()
    while True:
        batch = inbox.get()
        try:
            cutter.work(batch)
        except OSError as error:
            pipe.say(
                {
                    "trouble": [
                        error.errno or 0,
                        error.strerror or str(error),
                        str(error.filename or batch["folder"]),
                    ]
                }
            )
        except LookListenError as error:
            pipe.say({"refused": str(error)})


def _receive(inbox: "queue.Queue[Message]") -> None:
    with os.fdopen(0, "rb") as stdin:
        for line in stdin:
            inbox.put(json.loads(line))
    os._exit(0)  # the parent is gone


class _Cutter:
    """The worker's side of a batch."""

    def __init__(self, pipe: _Pipe, inbox: "queue.Queue[Message]") -> None:
        self._pipe, self._inbox, self._report = pipe, inbox, CutReport()

    def beat(self) -> None:
        """Say once a second, as long as the video gets on, that it does and how many clips were
        cut.
        """
        last, clips = 0.0, 0
        while True:
            time.sleep(BEAT_SECONDS)
            report = self._report
            now = report.video_end_seconds + report.audio_end_seconds
            if now >= last + BEAT_SECONDS or now < last or report.clips != clips:
                last, clips = now, report.clips
                self._pipe.say({"clips": clips})

    def work(self, batch: Message) -> None:
        """One batch: its shards out of the sources that the following messages name, up to the
        message `end`.
        """
        settings = PrepareOptions(**batch["settings"] | {"skip": tuple(batch["settings"]["skip"])})
        limit_bytes = settings.shard_megabytes * 2**20
        self._pipe.say(
            {
                "shards": write_shards(
                    self._clips(settings), Path(batch["folder"]), batch["name"], limit_bytes
                )
            }
        )

    def _clips(self, settings: PrepareOptions) -> Iterator[Clip]:
        while not (message := self._inbox.get()).get("end"):
            outcome = yield from self._cut(message, settings)
            self._pipe.say({"outcome": outcome})

    def _cut(self, message: Message, settings: PrepareOptions) -> Generator[Clip, None, Message]:
        """The clips of one source that are wanted; returns what became of it."""
        source = Source(**message["source"] | {"labels": tuple(message["source"]["labels"])})
        boxes = [VideoBox(**box) for box in message["boxes"]]
        self._report = report = CutReport()
        outcome: Message = {
            "status": "prepared",
            "clips": 0,
            "seconds": 0.0,
            "marks": {},
            "dropped": {},
            "dropped_clips": 0,
        }
        outcome["dropped_seconds"] = 0.0
        try:
            for clip in cut(message["path"], source, settings, boxes, report, message["at_most"]):
                unwanted = [mark for mark in clip.marks if mark in settings.skip]
                for mark in unwanted or clip.marks:
                    counts = outcome["dropped" if unwanted else "marks"]
                    counts[mark] = counts.get(mark, 0) + 1
                outcome["dropped_seconds" if unwanted else "seconds"] += clip.duration_seconds
                outcome["dropped_clips" if unwanted else "clips"] += 1
                if not unwanted:
                    yield clip
        except TooShortError as error:
            outcome |= {"status": "skipped", "reason": str(error)}
        # whatever a file does to the decoder costs this file only, the machine's troubles stop the
        # work
        except Exception as error:
            if isinstance(error, OSError) and error.errno in MACHINE_ERRORS - UNREADABLE:
                raise
            began = bool(report.video_end_seconds or report.audio_end_seconds)
            reason = (
                str(error) if isinstance(error, SourceError) else f"{type(error).__name__}: {error}"
            )
            if isinstance(error, MemoryError):
                reason = (
                    f"it needs more than the {sys.argv[1]} MB of memory that one source may take"
                )
            outcome |= {
                "status": "failed",
                "stage": "decode" if began else "open",
                "reason": reason,
            }
        else:
            if report.stop_reason:
                outcome |= {"status": "failed", "stage": "decode", "reason": report.stop_reason}
            elif not outcome["clips"]:
                outcome |= {
                    "status": "skipped",
                    "reason": f"every clip of it is {' or '.join(outcome['dropped'])}",
                }
        outcome |= {"lost_seconds": dict(report.lost_seconds), "source_marks": sorted(report.flags)}
        return outcome | {"last_error": report.last_error}


if __name__ == "__main__":
    main()
