"""Functions that read a user's file run in another process, so that a decoder that crashes or hangs
costs one file.

FFmpeg, Pillow and libjpeg are native code: what kills them kills the process that they run in,
without a word. So that is never the user's process. The program at the other end is
`decoder_child`; it is started on first use and kept.

Decisions:

- A job is a module-level function, run by name. What it returns or yields comes back as plain data
  (`messages`), never as a pickle.
- Each job has a process to itself. Threads that decode at once get one each; a few idle ones are
  kept for the next.
- The pipe is the brake: the other process decodes until the pipe is full, then it waits for whoever
  reads.
- A process that dies at once over a file, after it read others, is no proof against that file: it
  is tried again in a fresh one.
- A loop that is left early stops its job. Only a job that does not stop within `CLOSE_SECONDS`
  costs its process.
- A watchdog counts the time that somebody waits for a process in small steps. So a program that was
  suspended for an hour (Ctrl-Z, a closed laptop) does not find all its decoders "hung" when it goes
  on.
- After a fork the new process forgets the processes of its parent and starts its own.

Start-up is about 0.3 s (Python, numpy, PyAV; no PyTorch) once per program; `warm_up` hides it
behind other work.
"""

import atexit
import contextlib
import os
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextvars import ContextVar
from copy import copy
from dataclasses import fields
from pathlib import Path
from typing import Any

from looklisten.errors import ConfigError, DecoderLostError, LookListenError, SourceError
from looklisten.media.decode.records import DecodeReport
from looklisten.media.isolation.limits import WorkerLimits
from looklisten.media.isolation.messages import find, name_of, read_message, write_message
from looklisten.media.isolation.process import ChildProcess, WorkerLost
from looklisten.system.processes import cpu_count

PROGRAM = "looklisten.media.isolation.child"

START_SECONDS = 300.0
"""Python and PyAV come from a network drive on some machines, with every core busy; no file is to
blame for that.
"""

CLOSE_SECONDS = 2.0
"""A job that is to stop early gets so long to stop by itself."""

TICK_SECONDS = 0.25
"""The watchdog looks so often."""

PIPE_BYTES = 2**20
"""How far the other process may be ahead, beside the one item that it works on. The system's own
default is 64 kB.
"""

VARIABLES = {"MALLOC_ARENA_MAX": "4"}
"""glibc reserves 64 MB of addresses a thread, and FFmpeg starts a thread a core: on large machines
that alone met the limit.
"""

_limits: ContextVar[WorkerLimits | None] = ContextVar("limits", default=None)

Message = dict[str, Any]


@contextlib.contextmanager
def use_limits(limits: WorkerLimits) -> Iterator[None]:
    """What a file may cost that is read inside of the block, in this thread."""
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
    """What the generator function `function(*arguments)` yields in another process; the generator's
    value is what it returns.

    `source` is the file's name for sentences. With `report` the function is called with a keyword
    `report` too, and what it writes there arrives here, also when the loop is left early. With
    `answers` what is sent back (`send`) goes to the function, one item late: there `answer = yield
    item` gives the answer to the item before, and None at the first. So both processes work at
    once.

    Raises what the function raises, if it is an error of this package; DecoderLostError when the
    process crashed or hung; SourceError for all other errors.
    """
    return (yield from _Job(function, arguments, str(source), report, answers).items())


def call_isolated(function: Callable[..., Any], *arguments: Any, source: str | Path) -> Any:
    """What `function(*arguments)` returns in another process. Raises as `stream` does."""
    items = _Job(function, arguments, str(source), None, False).items()
    try:
        next(items)
    except StopIteration as stopped:
        return stopped.value
    raise TypeError(f"{name_of(function)} yields; use stream")


def warm_up() -> None:
    """Start a process now and do not wait for it: it is there when the first file is."""
    with contextlib.suppress(LookListenError):
        _processes.give_back(_processes.take())


class DecoderProcess(ChildProcess):
    """A process that does one job after the other."""

    def __init__(self) -> None:
        super().__init__(PROGRAM, variables=VARIABLES)
        self.jobs = 0
        self.is_busy = False
        self.was_stopped_for_hanging = False
        self._is_ready = False
        _widen(self.stdout.fileno())
        _widen(self.stdin.fileno())

    def send(self, message: Message, stall_seconds: float) -> None:
        """Raises WorkerLost when the process is gone, or did not take the message in time and was
        stopped.
        """
        try:
            with _processes.watchdog.waiting(self, stall_seconds):
                write_message(self.write, message)
        except (OSError, ValueError):
            raise self._lost(stall_seconds) from None

    def receive(self, stall_seconds: float) -> Message:
        """The next message. Raises WorkerLost when the process died, or said nothing for too long
        and was stopped.
        """
        try:
            with _processes.watchdog.waiting(self, stall_seconds):
                message: Message = read_message(self._read)
        except (OSError, ValueError, EOFError):
            raise self._lost(stall_seconds) from None
        return message

    def wait_until_ready(self) -> None:
        """Raises LookListenError when the process cannot run on this machine."""
        if self._is_ready:
            return
        try:
            self.receive(START_SECONDS)
        except WorkerLost as error:
            raise LookListenError(f"the process that decodes cannot run here: {error}") from None
        self._is_ready = True

    def _read(self, size: int) -> bytearray:
        data = bytearray(size)
        rest = memoryview(data)
        while len(rest):
            got = self.stdout.readinto(rest)  # type: ignore[attr-defined]
            if not got:
                raise EOFError
            rest = rest[got:]
        return data

    def _lost(self, stall_seconds: float) -> WorkerLost:
        if self.was_stopped_for_hanging:
            return WorkerLost(
                f"the decoder did not get on for {stall_seconds:g} s and was stopped", hung=True
            )
        self.kill()  # a process whose pipe is closed or that sends nonsense is of no use
        return WorkerLost(self.how_it_ended())


def _widen(pipe: int) -> None:
    with contextlib.suppress(ImportError, AttributeError, OSError):
        import fcntl

        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, PIPE_BYTES)


class _Watchdog:
    """Ends processes that somebody waits for too long. One thread, which sleeps while nobody waits."""

    def __init__(self) -> None:
        self._left_seconds: dict[DecoderProcess, float] = {}
        self._changed = threading.Condition(threading.RLock())
        self._thread: threading.Thread | None = None

    @contextlib.contextmanager
    def waiting(self, process: DecoderProcess, seconds: float) -> Iterator[None]:
        with self._changed:
            self._left_seconds[process] = seconds
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._watch, name="decoder watchdog", daemon=True
                )
                self._thread.start()
            elif len(self._left_seconds) == 1:
                self._changed.notify()
        try:
            yield
        finally:
            with self._changed:
                self._left_seconds.pop(process, None)

    def _watch(self) -> None:
        while True:
            with self._changed:
                while not self._left_seconds:
                    self._changed.wait()
            began = time.monotonic()
            time.sleep(TICK_SECONDS)
            # A longer tick means that this program itself did not run.
            passed = min(time.monotonic() - began, 2 * TICK_SECONDS)
            with self._changed:
                for process in list(self._left_seconds):
                    self._left_seconds[process] -= passed
                    if self._left_seconds[process] <= 0:
                        del self._left_seconds[process]
                        process.was_stopped_for_hanging = True
                        process.kill()


class _Processes:
    """The processes of this one: those that work and those that wait for work."""

    def __init__(self) -> None:
        self.watchdog = _Watchdog()
        self._idle: list[DecoderProcess] = []
        self._all: set[DecoderProcess] = set()
        self._lock = (
            threading.RLock()
        )  # a generator may be cleaned up, and so closed, at any moment

    def take(self) -> DecoderProcess:
        """A process that has nothing to do; a fresh one where there is none."""
        while True:
            with self._lock:
                process = self._idle.pop() if self._idle else None
            if process is None:
                break
            if process.is_running:
                return process
            self._drop(process)  # it was ended from outside while it waited
        try:
            process = DecoderProcess()
        except OSError as error:
            raise LookListenError(
                f"the process that decodes cannot be started here: {error}"
            ) from None
        with self._lock:
            self._all.add(process)
        return process

    def give_back(self, process: DecoderProcess, most_jobs: int = 512) -> None:
        """Keep a process for the next job, unless it is in the middle of one, has done many, or
        enough are waiting.
        """
        with self._lock:
            keep = (
                not process.is_busy
                and process.jobs < most_jobs
                and len(self._idle) < max(cpu_count(), 2)
            )
            if keep:
                self._idle.append(process)
        if not keep:
            self._drop(process)

    def _drop(self, process: DecoderProcess) -> None:
        with self._lock:
            self._all.discard(process)
        process.stop()

    def close(self) -> None:
        with self._lock:
            every, self._all, self._idle = self._all, set(), []
        for process in every:
            process.stop()

    def disown(self) -> None:
        # No lock: another thread of the parent may have held it when this process was forked off.
        for process in self._all:
            process.disown()


_processes = _Processes()
_of_parents: list[_Processes] = []
"""Kept, so that nothing of them is cleaned up in a process that they do not belong to."""


def _forget() -> None:
    global _processes
    _processes.disown()
    _of_parents.append(_processes)
    _processes = _Processes()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
atexit.register(lambda: _processes.close())


class _Job:
    """One function in another process, seen from here."""

    def __init__(
        self,
        function: Callable[..., Any],
        arguments: tuple[Any, ...],
        source: str,
        report: DecodeReport | None,
        answers: bool,
    ) -> None:
        self._source = source
        self._answers = answers
        self._limits = _limits.get() or WorkerLimits()
        self._mirror = _Mirror(report) if report is not None else None
        try:
            name = name_of(function)
        except TypeError as error:
            raise ConfigError(str(error)) from None
        self._request = {
            "function": name,
            "arguments": arguments,
            "report": report,
            "answers": answers,
            "folder": _current_folder(),
            "memory_megabytes": self._limits.memory_megabytes,
        }

    def items(self) -> Generator[Any, Any, Any]:
        try:
            process, message = self._first_message()
        except WorkerLost as error:
            raise self._crashed(error) from None
        try:
            while "item" in message:
                answer = yield message["item"]
                if self._answers:
                    process.send({"answer": answer}, self._limits.stall_seconds)
                message = self._next(process)
            # A process that met its limit of memory may have kept some.
            process.is_busy = message.get("error", [""])[0] == "memory"
            return self._result(message)
        except WorkerLost as error:
            raise self._crashed(error) from None
        except GeneratorExit:
            self._finish_early(process)
            raise
        finally:
            self._give_back(process)

    def _first_message(self) -> tuple[DecoderProcess, Message]:
        """The job begun, and what came first.

        An earlier file may have damaged the memory of its process without a sign. So a process that
        dies over another file at once is no proof against this one: it is tried again in a fresh
        process.
        """
        while True:
            process = self._begin()
            try:
                return process, self._next(process)
            except WorkerLost as error:
                self._give_back(process)
                if error.hung or process.jobs == 1:
                    raise
            except BaseException:
                self._give_back(process)
                raise

    def _give_back(self, process: DecoderProcess) -> None:
        # In a process that was forked off meanwhile nothing of this belongs to it.
        if process.owner_pid == os.getpid():
            _processes.give_back(process, self._limits.sources_per_worker)

    def _begin(self) -> DecoderProcess:
        while True:
            process = _processes.take()
            try:
                process.wait_until_ready()
                process.jobs += 1
                process.is_busy = True
                process.send(self._request | {"number": process.jobs}, self._limits.stall_seconds)
                return process
            except WorkerLost as error:  # it died while it waited for work
                self._give_back(process)
                if error.hung or process.jobs == 1:
                    raise
            except BaseException:
                process.is_busy = True
                self._give_back(process)
                raise

    def _next(self, process: DecoderProcess) -> Message:
        """The next message that is more than a sign of life."""
        if process.owner_pid != os.getpid():
            raise SourceError(
                f"{self._source} was being read when this process was forked off; open it again here"
            )
        while True:
            message = process.receive(self._limits.stall_seconds)
            if self._mirror and "report" in message:
                self._mirror.update(message["report"])
            if "beat" not in message:
                return message

    def _finish_early(self, process: DecoderProcess) -> None:
        """Have the other process stop this job, and take what it still has to say of it."""
        if process.owner_pid != os.getpid():
            return
        with contextlib.suppress(WorkerLost):
            process.send({"stop": process.jobs}, CLOSE_SECONDS)
            began = time.monotonic()
            while time.monotonic() - began < CLOSE_SECONDS:
                message = process.receive(CLOSE_SECONDS)
                if self._mirror and "report" in message:
                    self._mirror.update(message["report"])
                if "item" not in message and "beat" not in message:
                    process.is_busy = False
                    return

    def _result(self, message: Message) -> Any:
        if "value" in message:
            return message["value"]
        name, arguments = message["error"]
        if name == "memory":
            most = self._limits.memory_megabytes
            raise SourceError(
                f"{self._source}: it needs more than the {most} MB of memory that one source may take"
            )
        if name == "system":
            raise OSError(*arguments)
        kind = find(name) if name.startswith("looklisten.") else None
        if isinstance(kind, type) and issubclass(kind, LookListenError):
            raise kind(*arguments)
        error = SourceError(f"{self._source}: {' '.join(arguments)}")
        error.add_note(message.get("trace", ""))
        raise error

    def _crashed(self, error: WorkerLost) -> DecoderLostError:
        return DecoderLostError(f"{self._source}: {error}", error.hung)


def _current_folder() -> str | None:
    """Where relative paths start, which may not be where they started when the other process did;
    None when it was removed.
    """
    try:
        return str(Path.cwd())
    except OSError:
        return None


class _Mirror:
    """Brings what the other process wrote into its `Report` into this one's, whatever was written
    here meanwhile.

    Counts (whole numbers, and the numbers of a dict) grow here by what they grew there; sets gain
    what they gained there; everything else has the value that it has there.
    """

    def __init__(self, report: DecodeReport) -> None:
        self._report = report
        self._before = {field.name: copy(getattr(report, field.name)) for field in fields(report)}

    def update(self, changes: Message) -> None:
        for name, there in changes.items():
            here, before = getattr(self._report, name), self._before[name]
            if isinstance(there, dict):
                for key, value in there.items():
                    here[key] = here.get(key, 0) + (value - before.get(key, 0))
            elif isinstance(there, set):
                here |= there
            elif isinstance(there, int) and not isinstance(there, bool):
                setattr(self._report, name, here + (there - before))
            else:
                setattr(self._report, name, there)
            self._before[name] = copy(there)
