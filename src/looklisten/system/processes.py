"""Worker processes of this machine: how many, work shared among them, and settings of a process."""

import contextlib
import ctypes
import functools
import os
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from looklisten.system.progress import Progress, no_progress

IDLE_WORKER_SECONDS = 15
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
"""Of mallopt(3)."""


Item = TypeVar("Item")
Result = TypeVar("Result")


def is_first_process() -> bool:
    """Whether this is the one of `torchrun`'s processes that speaks for all."""
    return os.environ.get("RANK", "0") == "0"


@functools.cache
def single_thread_after_fork() -> None:
    """From now on a process that is forked from this one computes with one thread; saying it twice
    changes nothing.

    PyTorch's threads do not come along into a forked process, and its first parallel step would
    wait for them forever.
    """
    if not hasattr(os, "register_at_fork"):
        return
    import torch

    os.register_at_fork(after_in_child=lambda: torch.set_num_threads(1))


def keep_freed_memory() -> None:
    """Tell glibc's allocator to keep what is freed for what comes next, and not to give it back to
    the system.

    Each step of a network frees its maps and takes as many again. Pages that go to the system and
    come back are filled with zeros first, one fault each: up to a third of a training step on a CPU
    (`benchmarks/allocator.py`). It holds for the whole process, so it is for programs to call and
    not for functions of a library. Without glibc nothing happens.
    """
    with contextlib.suppress(AttributeError, OSError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, -1)


def cpu_count() -> int:
    """The cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def map_unordered(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    workers: int | None = None,
    progress: Progress = no_progress,
) -> Iterator[Result]:
    """`function` of each item, in worker processes, in the order they finish.

    The first exception of a worker stops the work and is raised here. `workers=1` stays in this
    process.
    """
    count = min(workers or cpu_count(), max(len(items), 1))
    if count == 1:
        results: Iterator[Result] = map(function, items)
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
            results = parallel(joblib.delayed(function)(item) for item in items)
    for done, result in enumerate(results, 1):
        progress(done, len(items))
        yield result
