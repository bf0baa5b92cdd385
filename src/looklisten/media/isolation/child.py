"""The program in which `isolation.parent` runs functions. It does one job at a time.

It is started as `python -m looklisten.media.isolation.child`. Messages come on stdin and go to
stdout (`isolation.messages`). It ends when stdin closes.
"""

import contextlib
import inspect
import os
import queue
import threading
import time
import traceback
from collections.abc import Callable, Generator
from copy import copy
from dataclasses import fields
from pathlib import Path
from typing import Any, BinaryIO

from looklisten.errors import LookListenError
from looklisten.media.decode.records import DecodeReport
from looklisten.media.isolation.jobs import (
    Answer,
    Failure,
    Heartbeat,
    Item,
    Request,
    Result,
    Stop,
)
from looklisten.media.isolation.messages import find, read_message, write_message
from looklisten.media.isolation.process import (
    claim_stdout,
    ignore_interrupts,
    limit_memory,
    quiet_decoders,
)

BEAT_SECONDS = 1.0
"""How often the program says that a job advances, and by how much it must have advanced."""

BYTES_PER_SECOND = 2**16
"""A job without a report advances by a second when it has read so much more.

That is over a second of most sounds, and far more than reading this number takes.
"""

Send = Callable[[Any], None]


def run_jobs() -> None:
    """Run jobs until the parent closes stdin."""
    pipe = _Pipe()
    ignore_interrupts()
    inbox = _Inbox()
    # In a thread of its own: a `Stop` must arrive while this thread works on the job.
    threading.Thread(target=inbox.receive, daemon=True).start()
    quiet_decoders()
    heart = _Heart(pipe)
    threading.Thread(target=heart.beat, daemon=True).start()
    pipe.send(Heartbeat())  # the parent waits for this: the program has started
    while True:
        request = inbox.next()
        # An answer or a stop that is read here belongs to a job that is over.
        if isinstance(request, Request):
            _run(request, pipe, inbox, heart)


class _Pipe:
    """The way back to the parent, shared by the thread that works and the one that beats."""

    def __init__(self) -> None:
        self._file = claim_stdout()
        self._lock = threading.Lock()

    def send(self, message: Any) -> None:
        with self._lock:
            write_message(self._write, message)

    def _write(self, data: bytes | memoryview) -> None:
        # An unbuffered write may write less than it was given.
        remaining = memoryview(data)
        while len(remaining):
            remaining = remaining[self._file.write(remaining) :]


class _Inbox:
    """What the parent sends: requests, answers, and which job to stop."""

    def __init__(self) -> None:
        self._messages: queue.Queue[Any] = queue.Queue()
        self.stopped_job = 0

    def next(self) -> Any:
        return self._messages.get()

    def receive(self) -> None:
        """Read messages until the pipe closes; then end the program."""
        with _claimed_stdin() as stdin:

            def read(size: int) -> bytearray:
                data = bytearray(stdin.read(size))
                if len(data) < size:
                    raise EOFError
                return data

            with contextlib.suppress(EOFError, OSError):
                while True:
                    message = read_message(read, functions=True)
                    if isinstance(message, Stop):
                        self.stopped_job = message.number
                    self._messages.put(message)
        os._exit(0)  # the parent is gone


def _claimed_stdin() -> BinaryIO:
    """The way from the parent. A job that opens `/dev/stdin` then finds an empty file there."""
    stdin = os.fdopen(os.dup(0), "rb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    return stdin


class _Heart:
    """Tells the parent once a second that the job advances.

    A job with a report advances when its video and sound advance by a second, or it sends an item.
    Of another job, such as reading a whole sound, the bytes that it has read are known.
    """

    def __init__(self, pipe: _Pipe) -> None:
        self._pipe = pipe
        self.is_working = False
        self.report: DecodeReport | None = None
        self.items_sent = 0

    def beat(self) -> None:
        """Run forever, in a thread of its own."""
        last = self._progress_seconds()
        while True:
            time.sleep(BEAT_SECONDS)
            now = self._progress_seconds()
            # Less than before: another job has begun.
            if self.is_working and (now >= last + BEAT_SECONDS or now < last):
                last = now
                self._pipe.send(Heartbeat())

    def _progress_seconds(self) -> float:
        report = self.report
        if report is not None:
            return report.video_end_seconds + report.audio_end_seconds + self.items_sent
        with contextlib.suppress(OSError, ValueError, IndexError):  # this file exists on Linux only
            # The first number counts the bytes that were read, also from the cache of the system.
            return float(Path("/proc/self/io").read_text().split()[1]) / BYTES_PER_SECOND
        return 0.0


class _ReportChanges:
    """The fields of a report that have changed since they were last taken."""

    def __init__(self, report: DecodeReport) -> None:
        self.report = report
        self._before = self._now()

    def _now(self) -> dict[str, Any]:
        # Copies, since sets and dicts are changed in place.
        return {field.name: copy(getattr(self.report, field.name)) for field in fields(self.report)}

    def take(self) -> dict[str, Any]:
        now = self._now()
        changed = {name: value for name, value in now.items() if value != self._before[name]}
        self._before = now
        return changed


def _run(request: Request, pipe: _Pipe, inbox: _Inbox, heart: _Heart) -> None:
    """Do one job and send its items and its end."""
    changes = _ReportChanges(request.report) if request.report else None
    heart.report = request.report
    heart.items_sent = 0
    heart.is_working = True

    def send(message: Item | Result | Failure) -> None:
        if changes:
            message.report_changes = changes.take()
        pipe.send(message)

    end: Result | Failure
    try:
        if request.folder is not None:
            # This process may have started when the parent was in another folder.
            os.chdir(request.folder)
        limit_memory(request.memory_megabytes)
        keywords = {"report": request.report} if request.report else {}
        value = find(request.function)(*request.arguments, **keywords)
        if inspect.isgenerator(value):
            value = _send_items(value, request, send, inbox, heart)
        end = Result(value)
    except MemoryError:
        end = Failure("memory", ())
    except LookListenError as error:
        # The class goes by its name, since a message never holds a pickle.
        name = f"{type(error).__module__}:{type(error).__qualname__}"
        end = Failure(name, (str(error),))
    except OSError as error:
        words = error.strerror or str(error)
        end = Failure("system", (error.errno or 0, words, error.filename))
    except Exception as error:  # a damaged file may raise anything in a decoder
        end = Failure("other", (f"{type(error).__name__}: {error}",), traceback.format_exc())
    heart.is_working = False
    send(end)


def _send_items(
    items: Generator[Any, Any, Any], request: Request, send: Send, inbox: _Inbox, heart: _Heart
) -> Any:
    """Send what a generator yields until it ends or is stopped; returns the generator's value."""
    answer = None
    # A generator that is stopped early closes its file here, before the next job.
    with contextlib.closing(items):
        while inbox.stopped_job != request.number:
            try:
                item = items.send(answer)
            except StopIteration as stopped:
                return stopped.value
            send(Item(item))
            heart.items_sent += 1
            # The answer to the first item is read after the second was sent, so that both processes
            # work at once.
            if request.has_answers and heart.items_sent > 1:
                answer = _next_answer(inbox)
    return None


def _next_answer(inbox: _Inbox) -> Any:
    message = inbox.next()
    return message.value if isinstance(message, Answer) else None


if __name__ == "__main__":
    run_jobs()
