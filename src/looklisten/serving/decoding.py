"""Files of clients -> arrays, in a bounded number of decoder processes.

Each file is decoded in another process (`media.isolation`). If a file hangs or kills that process,
only its own request fails. Threads here wait for those processes.
"""

import asyncio
import contextlib
import dataclasses
import threading
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Concatenate, ParamSpec

from torch import Tensor

from looklisten.errors import LookListenError, SourceError
from looklisten.media.file_facts import FileFacts, FileLimits, too_long
from looklisten.media.isolation.limits import WorkerLimits
from looklisten.media.isolation.parent import use_limits, warm_up
from looklisten.media.isolation.readers import read_file_facts
from looklisten.serving.batching import ComputedT
from looklisten.serving.jobs import JobCanceled
from looklisten.serving.options import ServeOptions
from looklisten.serving.refusals import RefusedError
from looklisten.serving.requested_files import RequestedFile

MOST_DECODED_BYTES = 1_000_000_000
"""Of decoded rows that wait for the network; with more, decoding waits."""

Parameters = ParamSpec("Parameters")


class FileReading:
    """A file that is being read, and the limits at which reading ends.

    Reading ends when the client left, when it takes too long, or when the file is too long.
    """

    def __init__(self, file: RequestedFile, options: ServeOptions) -> None:
        self.file = file
        self.stopped = threading.Event()
        """Set when nobody waits for the result any more."""
        self._options = options
        self._end = time.monotonic() + options.decode_seconds

    @property
    def limits(self) -> FileLimits:
        options = self._options
        return FileLimits(options.max_megapixels, options.max_seconds, options.max_streams)

    def facts(self) -> FileFacts:
        """The kind of the file and its streams. Raises SourceError where it exceeds a limit."""
        return read_file_facts(self.file.path, self.limits)

    def check(self, media_seconds: float = 0.0) -> None:
        """Call this again and again while the file is read; it raises an error to end reading.

        `media_seconds`: how much of the file is read. Raises JobCanceled or SourceError.
        """
        if self.stopped.is_set():
            raise JobCanceled
        if media_seconds > self._options.max_seconds:
            raise too_long(self.file.path, self._options.max_seconds)
        if time.monotonic() > self._end:
            raise SourceError(
                f"{self.file.path} takes longer to decode than "
                f"{self._options.decode_seconds:g} s; send a shorter part of it"
            )


class Decoders:
    """Threads that read files, as many at once as the options say."""

    def __init__(self, options: ServeOptions) -> None:
        self._options = options
        self._threads = ThreadPoolExecutor(options.decoders, "decode")
        # Twice as many as threads, so that no thread waits for the event loop.
        self._slots = asyncio.Semaphore(2 * options.decoders)
        self._decoded_bytes = 0
        self._has_room = asyncio.Event()
        self._has_room.set()

    def warm_up(self) -> None:
        """Start the processes, so that the first requests need not wait for them."""
        for _ in range(self._options.decoders):
            self._threads.submit(warm_up)

    @property
    def worker_limits(self) -> WorkerLimits:
        """What a process may take for one file."""
        options = self._options
        return WorkerLimits(
            stall_seconds=options.stall_seconds, memory_megabytes=options.memory_megabytes
        )

    async def run(
        self,
        function: Callable[Concatenate[FileReading, Parameters], ComputedT],
        file: RequestedFile,
        *arguments: Parameters.args,
        **keywords: Parameters.kwargs,
    ) -> ComputedT:
        """What `function(reading, ...)` returns; it reads `file` in a thread.

        Raises RefusedError for a file that cannot be read. Canceling this call stops the function.
        """
        reading = FileReading(file, self._options)

        def work() -> ComputedT:
            # The client may have left while this call waited for a thread.
            reading.check()
            with use_limits(self.worker_limits):
                return function(reading, *arguments, **keywords)

        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        except LookListenError as error:
            raise refusal_of(error, file) from None
        finally:
            # A thread cannot be canceled; it sees this at its next check.
            reading.stopped.set()

    @contextlib.asynccontextmanager
    async def decoded(
        self,
        function: Callable[Concatenate[FileReading, Parameters], ComputedT],
        file: RequestedFile,
        *arguments: Parameters.args,
        **keywords: Parameters.kwargs,
    ) -> AsyncIterator[ComputedT]:
        """What `run` returns, for the time of the block.

        Decoding is faster than a network. Many long files, each decoded and waiting, would fill the
        memory, so this waits while `MOST_DECODED_BYTES` are held by other blocks.
        """
        async with self._slots:
            await self._has_room.wait()
            result = await self.run(function, file, *arguments, **keywords)
            held_bytes = _tensor_bytes(result)
            self._hold(held_bytes)
        try:
            yield result
        finally:
            self._hold(-held_bytes)

    def _hold(self, count: int) -> None:
        self._decoded_bytes += count
        if self._decoded_bytes < MOST_DECODED_BYTES:
            self._has_room.set()
        else:
            self._has_room.clear()

    def close(self) -> None:
        """End the threads."""
        self._threads.shutdown(wait=True, cancel_futures=True)


def _tensor_bytes(value: Any) -> int:
    """The memory of the tensors in a record or a tuple."""
    if isinstance(value, Tensor):
        return value.nbytes
    if dataclasses.is_dataclass(value):
        return sum(map(_tensor_bytes, vars(value).values()))
    return sum(map(_tensor_bytes, value)) if isinstance(value, tuple) else 0


def refusal_of(error: LookListenError, *files: RequestedFile) -> RefusedError:
    """The error of a file as a refusal, with the name that the client gave the file."""
    if isinstance(error, RefusedError):
        return error
    # An error of the library names a path of this machine, which clients must not learn.
    sentence = str(error)
    for file in files:
        sentence = sentence.replace(str(file.path), file.name)
    return RefusedError(422, sentence)
