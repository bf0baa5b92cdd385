"""The program that `decoder_process` starts: it runs functions by name and streams what they give.
Holds one job at a time.

`python -m looklisten.media.isolation.child`. Messages come on stdin and go on stdout. It ends when
stdin closes.
"""

import contextlib
import inspect
import os
import queue
import threading
import time
import traceback
from copy import copy
from dataclasses import fields
from pathlib import Path
from typing import Any, BinaryIO

from looklisten.errors import LookListenError
from looklisten.media.decode.records import DecodeReport
from looklisten.media.isolation.messages import find, read_message, write_message
from looklisten.media.isolation.process import (
    claim_stdout,
    ignore_interrupts,
    limit_memory,
    quiet_decoders,
)

BEAT_SECONDS = 1.0
"""How much of a video must be new before the program says that it gets on."""

LEAST_BYTES = 2**16
"""A job without a report gets on when it read so much more: over a second of most sounds, far more
than reading this number takes.
"""

Message = dict[str, Any]


def main() -> None:
    pipe = _Pipe()
    ignore_interrupts()
    inbox = _Inbox()
    threading.Thread(target=inbox.receive, daemon=True).start()
    quiet_decoders()
    beating = _Beating(pipe)
    threading.Thread(target=beating.beat, daemon=True).start()
    pipe.say({"beat": os.getpid()})
    while True:
        request = inbox.next()
        if "function" in request:  # anything else is for a job that is over
            _run(request, pipe, inbox, beating)


class _Pipe:
    """The way back to the parent, for the thread that works and the one that says how far it is."""

    def __init__(self) -> None:
        self._file, self._lock = claim_stdout(), threading.Lock()

    def say(self, message: Message) -> None:
        with self._lock:
            write_message(self._write, message)

    def _write(self, data: bytes | memoryview) -> None:
        rest = memoryview(data)
        while len(rest):
            rest = rest[self._file.write(rest) :]


class _Inbox:
    """What the parent sends: jobs, answers, and which job to stop."""

    def __init__(self) -> None:
        self._messages: queue.Queue[Message] = queue.Queue()
        self.stopped_job = 0

    def next(self) -> Message:
        return self._messages.get()

    def receive(self) -> None:
        with _claimed_stdin() as stdin:

            def read(size: int) -> bytearray:
                data = bytearray(stdin.read(size))
                if len(data) < size:
                    raise EOFError
                return data

            with contextlib.suppress(EOFError, OSError):
                while True:
                    message = read_message(read, functions=True)
                    self.stopped_job = message.get("stop", self.stopped_job)
                    self._messages.put(message)
        os._exit(0)  # the parent is gone


def _claimed_stdin() -> BinaryIO:
    """The way from the parent. Who opens standard input by name, `/dev/stdin`, finds nothing there."""
    stdin = os.fdopen(os.dup(0), "rb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    return stdin


class _Beating:
    """Says once a second that a job gets on.

    A job with a report gets on when its picture and sound reach a second further. Of one without,
    such as reading a whole sound, it is known how many bytes it read.
    """

    def __init__(self, pipe: _Pipe) -> None:
        self._pipe = pipe
        self.is_working = False
        self.report: DecodeReport | None = None
        self.items_sent = 0

    def beat(self) -> None:
        last = self._reached()
        while True:
            time.sleep(BEAT_SECONDS)
            now = self._reached()
            if self.is_working and (now >= last + BEAT_SECONDS or now < last):
                last = now
                self._pipe.say({"beat": 0})

    def _reached(self) -> float:
        report = self.report
        if report is not None:
            return report.video_end_seconds + report.audio_end_seconds + self.items_sent
        with contextlib.suppress(OSError, ValueError, IndexError):  # known on Linux alone
            return float(Path("/proc/self/io").read_text().split()[1]) / LEAST_BYTES
        return 0.0


class _Changes:
    """The fields of a job's `Report` that are new since somebody asked."""

    def __init__(self, report: DecodeReport) -> None:
        self.report = report
        self._before = self._now()

    def _now(self) -> Message:
        return {field.name: copy(getattr(self.report, field.name)) for field in fields(self.report)}

    def take(self) -> Message:
        now = self._now()
        changed = {name: value for name, value in now.items() if value != self._before[name]}
        self._before = now
        return changed


def _run(request: Message, pipe: _Pipe, inbox: _Inbox, beating: _Beating) -> None:
    changes = _Changes(request["report"]) if request["report"] else None
    beating.report = changes.report if changes else None
    beating.items_sent = 0
    beating.is_working = True

    def say(message: Message) -> None:
        pipe.say(message | {"report": changes.take()} if changes else message)

    try:
        if request["folder"] is not None:
            os.chdir(request["folder"])
        limit_memory(request["memory_megabytes"])
        keywords = {"report": changes.report} if changes else {}
        result = find(request["function"])(*request["arguments"], **keywords)
        value = (
            _streamed(result, request, say, inbox, beating)
            if inspect.isgenerator(result)
            else result
        )
        end: Message = {"value": value}
    except MemoryError:
        end = {"error": ["memory", []]}
    except LookListenError as error:
        end = {"error": [f"{type(error).__module__}:{type(error).__qualname__}", [str(error)]]}
    except OSError as error:
        end = {
            "error": ["system", [error.errno or 0, error.strerror or str(error), error.filename]]
        }
    except Exception as error:  # whatever a file does to a decoder
        end = {
            "error": ["other", [f"{type(error).__name__}: {error}"]],
            "trace": traceback.format_exc(),
        }
    beating.is_working = False
    say(end)


def _streamed(items: Any, request: Message, say: Any, inbox: _Inbox, beating: _Beating) -> Any:
    """Send what a generator yields until it ends, or the parent has enough; returns the generator's
    value.
    """
    answer, sent = None, 0
    with contextlib.closing(items):
        while inbox.stopped_job != request["number"]:
            try:
                item = items.send(answer)
            except StopIteration as stopped:
                return stopped.value
            say({"item": item})
            sent += 1
            beating.items_sent = sent
            if request["answers"] and sent > 1:
                answer = inbox.next().get("answer")
    return None


if __name__ == "__main__":
    main()
