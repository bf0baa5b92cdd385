"""Runs functions that read a user's file in another process.

FFmpeg, Pillow and libjpeg are native code. What crashes them ends the process that they run in,
without a message. So a file that crashes or hangs a decoder must not be read in the user's process.
The program in the other process is `isolation.child`. It is started on first use and reused.

Decisions:

- A job is a module-level function, run by its name. What it returns or yields comes back as plain
  data (`isolation.messages`), never as a pickle.
- Each job has a process to itself. Threads that decode at once get one each; a few idle processes
  are reused.
- The pipe limits how far the other process runs ahead: it decodes until the pipe is full.
- A process that read other files and then dies at the start of a file does not prove that this file
  is bad: an earlier file may have damaged its memory. The file is tried again in a new process.
- A loop that is left early stops its job. Only a job that does not stop within CLOSE_SECONDS costs
  its process.
- A watchdog counts in small steps how long somebody waits for a process. So a program that was
  suspended for an hour (Ctrl-Z, a closed laptop) does not find all its decoders "hung" afterwards.
- After a fork, the new process forgets the processes of its parent and starts its own.

A process starts in about 0.3 s (Python, NumPy and PyAV without PyTorch). `warm_up` hides that
behind other work.
"""

import contextlib
import os
import time
from collections.abc import Callable, Generator, Iterator
from contextvars import ContextVar
from copy import copy
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from looklisten.errors import ConfigError, DecoderLostError, LookListenError, SourceError
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
from looklisten.media.isolation.limits import WorkerLimits
from looklisten.media.isolation.messages import find, name_of
from looklisten.media.isolation.pool import DecoderProcess, return_process, take_process
from looklisten.media.isolation.process import WorkerLost

CLOSE_SECONDS = 2.0
"""How long a job that is to stop early may take to stop by itself."""

# A context variable, since each thread may read files under limits of its own.
_limits: ContextVar[WorkerLimits | None] = ContextVar("limits", default=None)


@contextlib.contextmanager
def use_limits(limits: WorkerLimits) -> Iterator[None]:
    """Use these limits for the files that this thread reads inside the block."""
    before = _limits.set(limits)
    try:
        yield
    finally:
        _limits.reset(before)


def stream_isolated(
    function: Callable[..., Any],
    *arguments: Any,
    source: str | Path,
    report: DecodeReport | None = None,
    answers: bool = False,
) -> Generator[Any, Any, Any]:
    """Yield what the generator function `function(*arguments)` yields in another process.

    source: the file's name, for sentences.
    report: the function takes it as the keyword `report`. What it writes there arrives here, also
        when the loop is left early.
    answers: whether values that are sent to this generator go to the function. They arrive there
        one item late: `answer = yield item` gives the answer to the item before, and None at
        first. So both processes work at once.

    Returns the value of the generator. Raises what the function raises, if that is an error of
    this package; DecoderLostError when the process crashed or hung; SourceError for other errors.
    """
    return (yield from _Job(function, arguments, str(source), report, answers).items())


def call_isolated(function: Callable[..., Any], *arguments: Any, source: str | Path) -> Any:
    """What `function(*arguments)` returns in another process. Raises as `stream_isolated` does."""
    items = _Job(function, arguments, str(source), None, False).items()
    try:
        next(items)
    except StopIteration as stopped:
        return stopped.value
    raise TypeError(f"{name_of(function)} yields; use stream_isolated")


def warm_up() -> None:
    """Start a process without waiting for it, so that it is ready for the first file."""
    with contextlib.suppress(LookListenError):
        # An error is left to the first file, which meets it again and reports it.
        return_process(take_process())


class _Job:
    """One function that runs in another process."""

    def __init__(
        self,
        function: Callable[..., Any],
        arguments: tuple[Any, ...],
        source: str,
        report: DecodeReport | None,
        answers: bool,
    ) -> None:
        self._source = source
        self._limits = _limits.get() or WorkerLimits()
        self._mirror = _Mirror(report) if report is not None else None
        try:
            name = name_of(function)
        except TypeError as error:
            raise ConfigError(str(error)) from None
        self._request = Request(
            number=0,
            function=name,
            arguments=arguments,
            report=report,
            has_answers=answers,
            folder=_current_folder(),
            memory_megabytes=self._limits.memory_megabytes,
        )

    def items(self) -> Generator[Any, Any, Any]:
        """What the function yields; returns what it returns."""
        try:
            process, message = self._first_message()
        except WorkerLost as error:
            raise self._crashed(error) from None
        try:
            while isinstance(message, Item):
                answer = yield message.value
                if self._request.has_answers:
                    process.send(Answer(answer), self._limits.stall_seconds)
                message = self._next(process)
            # A process that met its limit of memory may still hold some: it is not used again.
            process.is_busy = isinstance(message, Failure) and message.kind == "memory"
            return self._result(message)
        except WorkerLost as error:
            raise self._crashed(error) from None
        except GeneratorExit:
            self._finish_early(process)
            raise
        finally:
            self._give_back(process)

    def _first_message(self) -> tuple[DecoderProcess, Item | Result | Failure]:
        """The process that does the job, and its first message."""
        while True:
            process = self._begin()
            try:
                return process, self._next(process)
            except WorkerLost as error:
                self._give_back(process)
                # See the decisions above: after other files, a crash does not prove anything.
                # PyAV 18.1, for example, frees a channel order twice and dies in a later call.
                if error.hung or process.jobs == 1:
                    raise
            except BaseException:
                self._give_back(process)
                raise

    def _give_back(self, process: DecoderProcess) -> None:
        return_process(process, self._limits.sources_per_worker)

    def _begin(self) -> DecoderProcess:
        """A process that has taken the request."""
        while True:
            process = take_process()
            try:
                process.wait_until_ready()
                process.jobs += 1
                process.is_busy = True
                request = replace(self._request, number=process.jobs)
                process.send(request, self._limits.stall_seconds)
                return process
            except WorkerLost as error:  # it died while it was idle
                self._give_back(process)
                # A new process was never idle, so another one may fail too, without end.
                if error.hung or process.jobs == 1:
                    raise
            except BaseException:
                # The request may have been sent in part, so the process is not used again.
                process.is_busy = True
                self._give_back(process)
                raise

    def _next(self, process: DecoderProcess) -> Item | Result | Failure:
        """The next message that is no heartbeat."""
        if process.owner_pid != os.getpid():
            raise SourceError(
                f"{self._source} was being read when this process was forked off; "
                "open it again here"
            )
        while True:
            message = process.receive(self._limits.stall_seconds)
            if not isinstance(message, Heartbeat):
                self._note_changes(message)
                return message

    def _note_changes(self, message: Item | Result | Failure) -> None:
        if self._mirror:
            self._mirror.update(message.report_changes)

    def _finish_early(self, process: DecoderProcess) -> None:
        """Stop the job in the other process, and read what it still sends."""
        # In a program that was forked off meanwhile, the process belongs to its parent.
        if process.owner_pid != os.getpid():
            return
        with contextlib.suppress(WorkerLost):
            # With the number of the job, which may be over when the message arrives.
            process.send(Stop(process.jobs), CLOSE_SECONDS)
            began = time.monotonic()
            while time.monotonic() - began < CLOSE_SECONDS:
                message = process.receive(CLOSE_SECONDS)
                if isinstance(message, Heartbeat):
                    continue
                self._note_changes(message)
                if not isinstance(message, Item):
                    # The job has ended by itself, so its process can take another one.
                    process.is_busy = False
                    return

    def _result(self, message: Result | Failure) -> Any:
        """The value of a result. Raises the error of a failure."""
        if isinstance(message, Result):
            return message.value
        if message.kind == "memory":
            raise SourceError(
                f"{self._source}: it needs more than the {self._limits.memory_megabytes} MB of "
                "memory that one source may take"
            )
        if message.kind == "system":
            raise OSError(*message.arguments)
        error_class = find(message.kind) if message.kind.startswith("looklisten.") else None
        if isinstance(error_class, type) and issubclass(error_class, LookListenError):
            raise error_class(*message.arguments)
        error = SourceError(f"{self._source}: {' '.join(message.arguments)}")
        # The traceback here ends at the pipe; that of the other process leads to the line.
        error.add_note(message.trace)
        raise error

    def _crashed(self, error: WorkerLost) -> DecoderLostError:
        return DecoderLostError(f"{self._source}: {error}", error.hung)


def _current_folder() -> str | None:
    """The folder where relative paths start; None when it was removed."""
    # The other process may have started when this program was in another folder.
    try:
        return str(Path.cwd())
    except OSError:
        return None


class _Mirror:
    """Brings changes of the other process's report into this process's one.

    Both sides may write. Counts (whole numbers, and the numbers of a dict) grow here by what they
    grew there; sets gain what they gained there; other fields take the value that they have there.
    """

    def __init__(self, report: DecodeReport) -> None:
        self._report = report
        self._before = {field.name: copy(getattr(report, field.name)) for field in fields(report)}

    def update(self, changes: dict[str, Any]) -> None:
        """Apply the fields that have changed there."""
        for name, there in changes.items():
            here = getattr(self._report, name)
            before = self._before[name]
            if isinstance(there, dict):
                for key, value in there.items():
                    here[key] = here.get(key, 0) + (value - before.get(key, 0))
            elif isinstance(there, set):
                here |= there
            elif isinstance(there, int) and not isinstance(there, bool):
                # To Python a bool is an int, but it is no count.
                setattr(self._report, name, here + (there - before))
            else:
                setattr(self._report, name, there)
            self._before[name] = copy(there)
