"""The decoder processes of this program: one per job at a time, reused when idle.

A watchdog ends a process that somebody waits for too long.
"""

import atexit
import contextlib
import os
import threading
import time
from collections.abc import Iterator

from looklisten.errors import LookListenError
from looklisten.media.isolation.jobs import Answer, Failure, Heartbeat, Item, Request, Result, Stop
from looklisten.media.isolation.messages import read_message, write_message
from looklisten.media.isolation.process import ChildProcess, WorkerLost
from looklisten.system.processes import cpu_count

PROGRAM = "looklisten.media.isolation.child"

START_SECONDS = 300.0
"""How long a process may take to start.

On some machines Python and PyAV come from a network drive, with every core busy. A slow start is
not blamed on the file that waits for it.
"""

TICK_SECONDS = 0.25
"""How often the watchdog looks."""

PIPE_BYTES = 2**20
"""The size of the buffer of each pipe. The process decodes on until its pipe is full.

The system's default is 64 kB, less than a frame.
"""

ENVIRONMENT = {"MALLOC_ARENA_MAX": "4"}
"""Environment variables that the process gets besides those of this program.

glibc reserves 64 MB of addresses per thread, and FFmpeg starts a thread per core. On large machines
that alone exceeded the memory limit.
"""


class DecoderProcess(ChildProcess):
    """A process that does one job after the other."""

    def __init__(self) -> None:
        super().__init__(PROGRAM, variables=ENVIRONMENT)
        self.jobs = 0
        """How many jobs it was given; `isolation.parent` counts them."""
        self.is_busy = False
        """Whether it cannot take another job; `isolation.parent` sets it."""
        self.was_stopped_for_hanging = False
        self._is_ready = False
        _widen_pipe(self.stdout.fileno())
        _widen_pipe(self.stdin.fileno())

    def send(self, message: Request | Answer | Stop, stall_seconds: float) -> None:
        """Send a message.

        Raises WorkerLost when the process has ended, or was stopped because it did not take the
        message in time.
        """
        try:
            with _processes.watchdog.waiting(self, stall_seconds):
                write_message(self.write, message)
        except (OSError, ValueError):
            # ValueError: this program has closed the pipe.
            raise self._lost(stall_seconds) from None

    def receive(self, stall_seconds: float) -> Heartbeat | Item | Result | Failure:
        """The next message.

        Raises WorkerLost when the process has died, or was stopped because it sent nothing in time.
        """
        try:
            with _processes.watchdog.waiting(self, stall_seconds):
                message: Heartbeat | Item | Result | Failure = read_message(self._read)
        except (OSError, ValueError, EOFError):
            # ValueError: the bytes are no message, or this program has closed the pipe.
            raise self._lost(stall_seconds) from None
        return message

    def wait_until_ready(self) -> None:
        """Wait until the process has started.

        Raises LookListenError when it cannot run on this machine.
        """
        # Not in `__init__`, so that `isolation.parent.warm_up` starts a process without waiting.
        if self._is_ready:
            return
        try:
            self.receive(START_SECONDS)  # its first message tells only that it runs
        except WorkerLost as error:
            raise LookListenError(f"the process that decodes cannot run here: {error}") from None
        self._is_ready = True

    def _read(self, size: int) -> bytearray:
        data = bytearray(size)
        unread = memoryview(data)
        while len(unread):
            count = self.stdout.readinto(unread)  # type: ignore[attr-defined]
            if not count:
                raise EOFError
            unread = unread[count:]
        return data

    def _lost(self, stall_seconds: float) -> WorkerLost:
        if self.was_stopped_for_hanging:
            return WorkerLost(
                f"the decoder did not advance for {stall_seconds:g} s and was stopped", hung=True
            )
        # A process whose pipe is closed, or that sends nonsense, is of no use.
        self.kill()
        return WorkerLost(self.how_it_ended())


def _widen_pipe(pipe: int) -> None:
    with contextlib.suppress(ImportError, AttributeError, OSError):  # Linux alone has it
        import fcntl

        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, PIPE_BYTES)


class _Watchdog:
    """Ends processes that somebody waits for too long. Its thread sleeps while nobody waits."""

    def __init__(self) -> None:
        self._left_seconds: dict[DecoderProcess, float] = {}
        self._changed = threading.Condition(threading.RLock())
        self._thread: threading.Thread | None = None

    @contextlib.contextmanager
    def waiting(self, process: DecoderProcess, seconds: float) -> Iterator[None]:
        """End the process if the block takes longer than this."""
        with self._changed:
            self._left_seconds[process] = seconds
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._watch, name="decoder watchdog", daemon=True
                )
                self._thread.start()
            elif len(self._left_seconds) == 1:
                # The first entry wakes the thread. With more entries it is awake.
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
            # A tick is much longer if this program was suspended. That time must not count.
            passed = min(time.monotonic() - began, 2 * TICK_SECONDS)
            with self._changed:
                self._subtract(passed)

    def _subtract(self, passed_seconds: float) -> None:
        for process in list(self._left_seconds):
            self._left_seconds[process] -= passed_seconds
            if self._left_seconds[process] <= 0:
                del self._left_seconds[process]
                # Set first: the kill closes the pipe, and the waiting thread then reads this.
                process.was_stopped_for_hanging = True
                process.kill()


class _Processes:
    """The decoder processes of this program: those that work and those that are idle."""

    def __init__(self) -> None:
        self.watchdog = _Watchdog()
        self._idle: list[DecoderProcess] = []
        self._all: set[DecoderProcess] = set()
        # Reentrant, because the garbage collector may close a generator at any moment, also while
        # this thread holds the lock.
        self._lock = threading.RLock()

    def take(self) -> DecoderProcess:
        """A process without a job: an idle one, else a new one."""
        return self._take_idle() or self._start()

    def _take_idle(self) -> DecoderProcess | None:
        while True:
            with self._lock:
                if not self._idle:
                    return None
                process = self._idle.pop()
            if process.is_running:
                return process
            self._drop(process)  # it was ended from outside while it was idle

    def _start(self) -> DecoderProcess:
        try:
            process = DecoderProcess()
        except OSError as error:
            raise LookListenError(
                f"the process that decodes cannot be started here: {error}"
            ) from None
        with self._lock:
            self._all.add(process)
        return process

    def give_back(self, process: DecoderProcess, most_jobs: int) -> None:
        """Keep a process for the next job, or end it.

        It is ended if it is busy, if it was given `most_jobs`, or if enough processes are idle.
        """
        with self._lock:
            is_reused = (
                not process.is_busy
                and process.jobs < most_jobs
                and len(self._idle) < max(cpu_count(), 2)
            )
            if is_reused:
                self._idle.append(process)
        # Outside of the lock, since it waits for the process to end.
        if not is_reused:
            self._drop(process)

    def _drop(self, process: DecoderProcess) -> None:
        with self._lock:
            self._all.discard(process)
        process.stop()

    def close(self) -> None:
        """End all processes."""
        with self._lock:
            processes = self._all
            self._all = set()
            self._idle = []
        for process in processes:
            process.stop()

    def disown(self) -> None:
        """Forget the processes, in a program that was forked off their owner."""
        # No lock: another thread of the parent may have held it when this process was forked off.
        for process in self._all:
            process.disown()


_processes = _Processes()
_processes_of_parents: list[_Processes] = []
"""The processes of the programs that this one was forked off.

They are kept here, so that the garbage collector does not end what belongs to others.
"""


def _forget_processes() -> None:
    global _processes
    _processes.disown()
    _processes_of_parents.append(_processes)
    _processes = _Processes()


# Windows has no fork.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_processes)
# A lambda, because a fork puts another object into `_processes`.
atexit.register(lambda: _processes.close())


def take_process() -> DecoderProcess:
    """A process without a job. Raises LookListenError when none can be started."""
    return _processes.take()


def return_process(process: DecoderProcess, most_jobs: int = 512) -> None:
    """Keep a process for the next job, unless it is busy or was given `most_jobs`."""
    # In a program that was forked off meanwhile, the process belongs to its parent.
    if process.owner_pid == os.getpid():
        _processes.give_back(process, most_jobs)
