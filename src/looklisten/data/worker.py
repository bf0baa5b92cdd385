"""Decoding in a process of its own: a decoder that hangs, crashes or eats memory costs one file and nothing else.

Both ends of one pipe are here: `Worker` is the end of who asks, `main` the program at the other (`python -m
looklisten.data.worker`). Messages are JSON lines that carry paths and counts, never media. The program ends by itself when
its pipe closes, so a killed parent leaves no orphans.
"""

import contextlib
import errno
import json
import logging
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from looklisten.data.cutting import PrepareSettings, cut
from looklisten.data.shards import Box, Clip, write_shards
from looklisten.data.sources import Source
from looklisten.errors import LookListenError, SourceError, TooShortError
from looklisten.media.decode import Report

MACHINE_TROUBLE = {errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.EROFS, errno.EACCES}
"""Errors of writing that are the machine's fault and no file's: they stop the work."""

UNREADABLE = {errno.EACCES, errno.EPERM}
"""The same of reading a source: that source alone may not be read."""

BEAT_SECONDS = 1.0
"""How much of a video must be new before the worker says that it gets on."""

Message = dict[str, Any]


@dataclass(frozen=True)
class Isolation:
    """What one source may cost. Limits of the machine, so not part of what the shards depend on."""

    stall_seconds: float = 120.0
    """A source that does not get on by a second of video for so long is given up."""
    memory_megabytes: int = 4096
    """What a worker may take beyond what it starts with."""
    sources_per_worker: int = 512
    """Then a fresh process takes over."""


class WorkerLost(Exception):  # noqa: N818 (an event, not a mistake)
    """The process is gone, or was stopped because it hung; `str(error)` says how."""

    def __init__(self, how: str, hung: bool = False) -> None:
        super().__init__(how)
        self.hung = hung


class Worker:
    """A running worker process. `ask` sends one message; `answers` come back one by one."""

    def __init__(self, limits: Isolation) -> None:
        self.limits, self.sources = limits, 0
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 (lives as long as the process)
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        self._process = subprocess.Popen(  # noqa: S603 (this program itself)
            [sys.executable, "-m", "looklisten.data.worker", str(limits.memory_megabytes)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=environment,
        )
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
        assert self._process.stdout
        with contextlib.suppress(ValueError):  # half a line of a process that died while writing
            for line in self._process.stdout:
                self._answers.put(json.loads(line))
        self._answers.put(None)

    def ask(self, message: Message) -> None:
        """Send one message. Raises WorkerLost when nobody is there."""
        assert self._process.stdin
        try:
            self._process.stdin.write(json.dumps(message).encode() + b"\n")
            self._process.stdin.flush()
        except (OSError, ValueError):  # gone, or stopped by another thread
            raise WorkerLost(self._how_it_ended()) from None

    def answer(self) -> Message:
        """The next message. Raises WorkerLost when the process died, or said nothing for too long and was stopped."""
        try:
            message = self._answers.get(timeout=self.limits.stall_seconds)
        except queue.Empty:
            self.stop()
            raise WorkerLost(f"the decoder did not get on for {self.limits.stall_seconds:g} s and was stopped", hung=True) from None
        if message is None:
            raise WorkerLost(self._how_it_ended())
        return message

    def _how_it_ended(self) -> str:
        code, said = self._process.wait(), []
        with contextlib.suppress(ValueError):  # closed already
            self._log.seek(0)
            said = self._log.read().decode("utf-8", "replace").strip().splitlines()
        with contextlib.suppress(ValueError):
            if code < 0:
                return f"the decoder crashed its process ({signal.Signals(-code).name})"
        return f"the decoder ended its process with code {code}{f': {said[-1]}' if said else ''}"

    def stop(self) -> None:
        """End the process, whatever it does; may be called again."""
        self._process.kill()
        self._process.wait()
        self._listener.join()
        for file in (self._process.stdin, self._process.stdout, self._log):
            if file:
                with contextlib.suppress(OSError):
                    file.close()


class Workers:
    """Worker processes for threads to share: `lend` gives one, kept for the next who asks. `close` ends them all."""

    def __init__(self, limits: Isolation) -> None:
        self.limits = limits
        self._idle: list[Worker] = []
        self._all: set[Worker] = set()
        self._lock = threading.Lock()
        self.closed = threading.Event()

    @contextlib.contextmanager
    def lend(self) -> Iterator[Worker]:
        """A worker; one that comes back broken, or has worked long enough, is ended and another takes its place."""
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
                if whole and worker.sources < self.limits.sources_per_worker and not self.closed.is_set():
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

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._lock = file, threading.Lock()

    def say(self, message: Message) -> None:
        with self._lock:
            self._file.write(json.dumps(message).encode() + b"\n")
            self._file.flush()


def main() -> None:
    """Read messages from stdin and answer on stdout until stdin closes."""
    # Nothing that a library prints may get between the answers: the pipe moves aside, and what was stdout becomes stderr.
    pipe = _Pipe(os.fdopen(os.dup(1), "wb"))
    os.dup2(2, 1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    inbox: queue.Queue[Message] = queue.Queue()
    threading.Thread(target=_receive, args=(inbox,), daemon=True).start()

    import av

    logging.getLogger("libav").addHandler(logging.NullHandler())
    logging.getLogger("libav").propagate = False
    av.logging.set_level(av.logging.ERROR)  # errors then carry FFmpeg's own last line
    _limit_memory(int(sys.argv[1]))
    pipe.say({"ready": os.getpid()})
    cutter = _Cutter(pipe, inbox)
    threading.Thread(target=cutter.beat, daemon=True).start()
    while True:
        batch = inbox.get()
        try:
            cutter.work(batch)
        except OSError as error:
            pipe.say({"trouble": [error.errno or 0, error.strerror or str(error), str(error.filename or batch["folder"])]})
        except LookListenError as error:
            pipe.say({"refused": str(error)})


def _receive(inbox: "queue.Queue[Message]") -> None:
    with os.fdopen(0, "rb") as stdin:
        for line in stdin:
            inbox.put(json.loads(line))
    os._exit(0)  # the parent is gone


def _limit_memory(megabytes: int) -> None:
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (now + megabytes * 2**20,) * 2)


class _Cutter:
    """The worker's side of a batch."""

    def __init__(self, pipe: _Pipe, inbox: "queue.Queue[Message]") -> None:
        self._pipe, self._inbox, self._report = pipe, inbox, Report()

    def beat(self) -> None:
        """Say once a second, as long as the video gets on, that it does and how many clips were cut."""
        last, clips = 0.0, 0
        while True:
            time.sleep(BEAT_SECONDS)
            report = self._report
            now = report.video_end_seconds + report.audio_end_seconds
            if now >= last + BEAT_SECONDS or now < last or report.clips != clips:
                last, clips = now, report.clips
                self._pipe.say({"clips": clips})

    def work(self, batch: Message) -> None:
        """One batch: its shards out of the sources that the following messages name, up to the message `end`."""
        settings = PrepareSettings(**batch["settings"] | {"skip": tuple(batch["settings"]["skip"])})
        limit_bytes = settings.shard_megabytes * 2**20
        self._pipe.say({"shards": write_shards(self._clips(settings), Path(batch["folder"]), batch["name"], limit_bytes)})

    def _clips(self, settings: PrepareSettings) -> Iterator[Clip]:
        while not (message := self._inbox.get()).get("end"):
            outcome = yield from self._cut(message, settings)
            self._pipe.say({"outcome": outcome})

    def _cut(self, message: Message, settings: PrepareSettings) -> Generator[Clip, None, Message]:
        """The clips of one source that are wanted; returns what became of it."""
        source = Source(**message["source"] | {"labels": tuple(message["source"]["labels"])})
        boxes = [Box(**box) for box in message["boxes"]]
        self._report = report = Report()
        outcome: Message = {"status": "prepared", "clips": 0, "seconds": 0.0, "marks": {}, "dropped": {}, "dropped_clips": 0}
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
        except Exception as error:  # whatever a file does to the decoder costs this file only, the machine's troubles stop the work
            if isinstance(error, OSError) and error.errno in MACHINE_TROUBLE - UNREADABLE:
                raise
            began = bool(report.video_end_seconds or report.audio_end_seconds)
            reason = str(error) if isinstance(error, SourceError) else f"{type(error).__name__}: {error}"
            if isinstance(error, MemoryError):
                reason = f"it needs more than the {sys.argv[1]} MB of memory that one source may take"
            outcome |= {"status": "failed", "stage": "decode" if began else "open", "reason": reason}
        else:
            if report.broken_off:
                outcome |= {"status": "failed", "stage": "decode", "reason": report.broken_off}
            elif not outcome["clips"]:
                outcome |= {"status": "skipped", "reason": f"every clip of it is {' or '.join(outcome['dropped'])}"}
        outcome |= {"lost_seconds": dict(report.lost_seconds), "source_marks": sorted(report.marks)}
        return outcome | {"last_error": report.last_error}


if __name__ == "__main__":
    main()
