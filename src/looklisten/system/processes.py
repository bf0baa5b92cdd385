"""Workers of this machine: how many, work shared among processes or threads, and their settings."""

import contextlib
import ctypes
import functools
import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from looklisten.system.progress import Progress, no_progress

IDLE_WORKER_SECONDS = 15
"""A worker process ends by itself when nothing comes for this long."""

# Parameters of mallopt(3).
_M_TRIM_THRESHOLD = -1
_M_MMAP_MAX = -4


_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def is_first_process() -> bool:
    """Whether this is the process of `torchrun` that prints and writes for all."""
    return os.environ.get("RANK", "0") == "0"


@functools.cache
def single_thread_after_fork() -> None:
    """From now on, let processes that are forked from this one compute with one thread.

    The threads of PyTorch do not exist in a forked process, and its first parallel step would wait
    for them forever. A second call changes nothing.
    """
    if not hasattr(os, "register_at_fork"):
        return
    import torch

    os.register_at_fork(after_in_child=lambda: torch.set_num_threads(1))


def keep_freed_memory() -> None:
    """Tell glibc to keep freed memory for the next allocation, and not to return it to the system.

    Each training step frees its feature maps and allocates as many again. Pages that go to the
    system and come back are filled with zeros, one page fault each: up to a third of a step on a
    CPU (`benchmarks/allocator.py`). This changes the whole process, so programs call it, not
    functions of a library. Without glibc it does nothing.
    """
    # Windows refuses CDLL(None), and other C libraries have no `mallopt`.
    with contextlib.suppress(AttributeError, OSError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        # For blocks over 32 MB, which the other setting does not keep (LOG.md, 2026-11-24).
        mallopt(_M_MMAP_MAX, 0)
        # For what is freed at the top of the heap.
        mallopt(_M_TRIM_THRESHOLD, -1)


def cpu_count() -> int:
    """The number of cores that this process may use."""
    # A container or a job scheduler may allow fewer than the machine has.
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _call_in(folder: Path, function: Callable[[_Item], _Result], item: _Item) -> _Result:
    # A worker may have started when this program was in another folder, and paths are relative.
    os.chdir(folder)
    return function(item)


def map_unordered(
    function: Callable[[_Item], _Result],
    items: Sequence[_Item],
    workers: int | None = None,
    progress: Progress = no_progress,
) -> Iterator[_Result]:
    """`function` of each item, in worker processes, in the order in which they finish.

    The first exception of a worker stops the work and is raised here. With one worker the work
    stays in this process.
    """
    count = min(workers or cpu_count(), max(len(items), 1))
    if count == 1:
        results: Iterator[_Result] = map(function, items)
    else:
        # joblib imports NumPy, and the help of the command line imports this module.
        import joblib

        # joblib's own process pool needs no `if __name__ == "__main__"` in the caller's script.
        # Workers that a killed parent leaves behind end by themselves when nothing comes for a
        # while.
        with joblib.parallel_config("loky", idle_worker_timeout=IDLE_WORKER_SECONDS):
            parallel = joblib.Parallel(
                n_jobs=count, return_as="generator_unordered", batch_size=1, pre_dispatch=2 * count
            )
            folder = Path.cwd()
            results = parallel(joblib.delayed(_call_in)(folder, function, item) for item in items)
    for done, result in enumerate(results, 1):
        progress(done, len(items))
        yield result


def map_ahead(
    function: Callable[[_Item], _Result], items: Iterable[_Item], threads: int, ahead: int
) -> Generator[_Result, None, None]:
    """`function` of each item in turn, computed by threads before it is needed.

    At most `ahead` results wait, which bounds the memory. What the function raises is raised here.
    """
    with ThreadPoolExecutor(threads, "ahead") as pool:
        waiting: deque[Future[_Result]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) > ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            # When the reader stops early, threads must not compute what nobody reads.
            for future in waiting:
                future.cancel()
