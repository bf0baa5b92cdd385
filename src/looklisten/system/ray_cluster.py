"""Runs a function over many items as tasks of a Ray cluster. Knows no media and no network.

Ray repeats the tasks of a lost machine. The processes of a cluster work in folders of their own, so
items name files by absolute paths.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from looklisten.errors import ConfigError

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def run_on_ray(
    function: Callable[[_Item], _Result],
    items: Sequence[_Item],
    at_once: int | None = None,
    gpus: int = 0,
) -> Iterator[tuple[_Item, _Result]]:
    """Each item with what the function returns for it, in the order in which they end.

    `at_once` tasks run or wait at a time, by default two for each core. Each gets one core and
    `gpus` GPUs. The function runs again for the items of a lost machine. Raises what it raises, and
    ConfigError without Ray or without a cluster.
    """
    ray = _connected()
    task = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=-1)(function)
    # Not all at once: a million submitted tasks would fill the memory of the driver.
    most_running = at_once or 2 * cluster_cores()
    waiting = deque(items)
    running: dict[Any, _Item] = {}
    while waiting or running:
        while waiting and len(running) < most_running:
            item = waiting.popleft()
            running[task.remote(item)] = item
        (ended,), _ = ray.wait(list(running), num_returns=1)
        try:
            result = ray.get(ended)
        except ray.exceptions.RayTaskError as error:
            raise error.cause from None
        yield running.pop(ended), result


def cluster_cores() -> int:
    """The cores of all machines of the cluster."""
    return max(int(_connected().cluster_resources().get("CPU", 1)), 1)


def _connected() -> Any:
    try:
        import ray
    except ImportError:
        raise ConfigError("the engine ray needs Ray: pip install 'looklisten[ray]'") from None
    if not ray.is_initialized():
        try:
            ray.init(address="auto", log_to_driver=False)
        except ConnectionError:
            raise ConfigError(
                "no Ray cluster is running here; "
                "start one with `ray start --head`, or set RAY_ADDRESS"
            ) from None
    return ray
