"""Worker processes, from the side of the command: it starts, lends and stops them.

A file that crashes the decoder ends one of them, and only that file is lost. `child` is the program
that they run; it ends by itself when its pipe closes, so no worker outlives a killed parent.
"""

import contextlib
import io
import json
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any, TypeVar

from looklisten.errors import LookListenError
from looklisten.media.isolation.limits import WorkerLimits
from looklisten.media.isolation.pool import START_SECONDS
from looklisten.media.isolation.process import ChildProcess, WorkerLost

WORKER_PROGRAM = "looklisten.data.workers.child"

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


class Worker:
    """A running worker process and the messages to and from it (`messages`).

    The constructor starts it and waits until it is ready. It raises LookListenError if the process
    cannot run on this machine. After an error of `receive` the process must be stopped.
    """

    def __init__(self, limits: WorkerLimits) -> None:
        self.limits = limits
        self.sources = 0
        """Sources that it has worked on."""
        self._process = ChildProcess(WORKER_PROGRAM, str(limits.memory_megabytes))
        self._answers: queue.Queue[dict[str, Any] | None] = queue.Queue()
        """Answers in order; None after the last one, when the process has closed its pipe."""
        # A thread reads the pipe: `receive` needs a time limit, which a pipe does not have.
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()
        try:
            # If the program cannot start on this machine, no file must be blamed for it. So this is
            # checked before the first file.
            self.receive(START_SECONDS)  # "ready"
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

    def send(self, message: dict[str, Any]) -> None:
        """Raises WorkerLost if the process ended."""
        try:
            self._process.write(json.dumps(message).encode() + b"\n")
        except (OSError, ValueError):  # it ended, or another thread stopped it
            raise WorkerLost(self._process.how_it_ended()) from None

    def receive(self, seconds: float | None = None) -> dict[str, Any]:
        """The next answer, within so many seconds, by default `limits.stall_seconds`.

        Raises WorkerLost if the process ended, or was silent for longer and was stopped; OSError if
        it met an error of the machine; LookListenError if it refused the work.
        """
        seconds = seconds or self.limits.stall_seconds
        try:
            answer = self._answers.get(timeout=seconds)
        except queue.Empty:
            self.stop()
            raise WorkerLost(
                f"the decoder did not advance for {seconds:g} s and was stopped", hung=True
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
        # The listener reads to the end of the pipe, so the pipe is closed only after that.
        self._process.kill()
        self._listener.join()
        self._process.stop()


class WorkerPool:
    """Worker processes and the threads that share them. `lend` gives one; `close` ends them all."""

    def __init__(self, limits: WorkerLimits, threads: int = 1) -> None:
        self.limits = limits
        self.closed = threading.Event()
        self._threads = ThreadPoolExecutor(threads, "prepare")
        self._idle: list[Worker] = []
        self._all: set[Worker] = set()
        self._lock = threading.Lock()

    def run_in_threads(
        self, function: Callable[[_Item], _Result], items: Sequence[_Item]
    ) -> Iterator[tuple[_Item, _Result]]:
        """Each item with what `function` returns for it in a thread, in the order of their ends."""
        futures = {self._threads.submit(function, item): item for item in items}
        for future in as_completed(futures):
            yield futures[future], future.result()

    @contextlib.contextmanager
    def lend(self, sources: int) -> Iterator[Worker]:
        """A worker for a batch of so many sources.

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
            # `close` may have run while the process started, before the worker was in `_all`.
            if self.closed.is_set():
                raise WorkerLost("the work was stopped")
            yield worker
            succeeded = True
        finally:
            worker.sources += sources
            with self._lock:
                is_fresh = worker.sources < self.limits.sources_per_worker
                if succeeded and is_fresh and not self.closed.is_set():
                    self._idle.append(worker)
                else:
                    self._all.discard(worker)
                    worker.stop()

    def close(self) -> None:
        """End all workers, also those that are lent: their `receive` then raises WorkerLost."""
        # Items that wait must not begin any more.
        self._threads.shutdown(wait=False, cancel_futures=True)
        with self._lock:
            self.closed.set()
            for worker in self._all:
                worker.stop()
        # Only now, because threads wait for their workers.
        self._threads.shutdown()

    def __enter__(self) -> "WorkerPool":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
