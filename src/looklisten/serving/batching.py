"""Requests -> batches -> one thread that computes.

A batch is rows that go through a tower together, of several requests. They have one side, one layer
and one shape, so nothing is padded to the length of another request. On a CPU, `encode_rows` gives
a tower a fixed number of rows at a time, so a vector does not depend on its neighbors (law 8 of
docs/architecture.md).
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from jaxtyping import Float, Num
from torch import Tensor

from looklisten.config import Side
from looklisten.inference.encoder import Encoder, encode_rows
from looklisten.serving.refusals import busy

ComputedT = TypeVar("ComputedT")
Bucket = tuple[Side, str, tuple[int, ...], torch.dtype]
"""Side, layer, shape of a row, and type of its numbers: what the rows of one batch share."""


@dataclass(frozen=True, eq=False)
class _Waiting:
    """Rows of one request that wait for a batch."""

    bucket: Bucket
    rows: Num[Tensor, "rows ..."]
    answer: "asyncio.Future[Tensor]"


class Batcher:
    """Computes on one thread: batches of rows, and single calls between them.

    `is_more_expected(count)`: whether more than these `count` requests are on their way, so that
    they are waited for. `note_batch` is called with the number of rows of each batch.
    """

    def __init__(
        self,
        encoder: Encoder,
        max_batch: int,
        max_wait_seconds: float,
        queue_size: int,
        is_more_expected: Callable[[int], bool] = lambda _: True,
        note_batch: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._encoder = encoder
        self._max_batch = max_batch
        self._max_wait_seconds = max_wait_seconds
        self._is_more_expected = is_more_expected
        self._note_batch = note_batch
        self._queue: asyncio.Queue[_Waiting] = asyncio.Queue(queue_size)
        self._thread = ThreadPoolExecutor(1, "inference")
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to compute; needs a running event loop."""
        self._task = asyncio.create_task(self._work())

    async def close(self) -> None:
        """End the task and the thread."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._thread.shutdown(wait=True, cancel_futures=True)

    @property
    def waiting(self) -> int:
        """Requests whose rows wait."""
        return self._queue.qsize()

    async def encode(
        self, side: Side, layer: str, rows: Num[Tensor, "rows ..."]
    ) -> Float[Tensor, "rows features"]:
        """The vectors of rows, as `encode_rows` gives them.

        Raises RefusedError when the queue is full.
        Canceling this call gives up its place in the queue.
        """
        parts = []
        # One part at a time, so that a long sound does not keep others waiting.
        for part in torch.split(rows, self._max_batch):
            bucket = (side, layer, tuple(rows.shape[1:]), rows.dtype)
            # Canceling the request cancels this future too; `_work` then skips the rows.
            waiting = _Waiting(bucket, part, asyncio.get_running_loop().create_future())
            try:
                self._queue.put_nowait(waiting)
            except asyncio.QueueFull:
                raise busy("the server computes for too many others") from None
            parts.append(await waiting.answer)
        return torch.cat(parts)

    async def call(self, function: Callable[..., ComputedT], *arguments: Any) -> ComputedT:
        """What `function(*arguments)` returns, computed on the inference thread."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, function, *arguments)

    def call_from_thread(self, function: Callable[..., ComputedT], *arguments: Any) -> ComputedT:
        """The same as `call`, for threads without an event loop; it blocks until the result."""
        return self._thread.submit(function, *arguments).result()

    async def _work(self) -> None:
        while True:
            # One batch at a time: the network already uses all cores.
            requests = await self._next_requests()
            buckets: dict[Bucket, list[_Waiting]] = {}
            for waiting in requests:
                # The client may have left while its rows waited.
                if not waiting.answer.done():
                    buckets.setdefault(waiting.bucket, []).append(waiting)
            for bucket, group in buckets.items():
                await self._compute(bucket, group)

    async def _next_requests(self) -> list[_Waiting]:
        requests = [await self._queue.get()]
        row_count = self._take_waiting(requests)
        if row_count < self._max_batch and self._is_more_expected(len(requests)):
            # Requests arrive one by one; a small network computes several in little more time.
            await asyncio.sleep(self._max_wait_seconds)
            self._take_waiting(requests)
        return requests

    def _take_waiting(self, requests: list[_Waiting]) -> int:
        """Add waiting requests until their rows fill a batch; returns the number of rows."""
        row_count = sum(len(waiting.rows) for waiting in requests)
        while row_count < self._max_batch and not self._queue.empty():
            waiting = self._queue.get_nowait()
            requests.append(waiting)
            row_count += len(waiting.rows)
        return row_count

    async def _compute(self, bucket: Bucket, group: list[_Waiting]) -> None:
        side, layer, _, _ = bucket
        rows = torch.cat([waiting.rows for waiting in group])
        self._note_batch(len(rows))
        try:
            # In the thread, so that the event loop answers others meanwhile.
            vectors = await self.call(
                encode_rows, self._encoder, side, layer, rows, self._max_batch
            )
        # Whatever fails, each request must get an answer, and `_work` must go on.
        except Exception as error:
            for waiting in group:
                if not waiting.answer.done():
                    waiting.answer.set_exception(error)
            return
        parts = torch.split(vectors, [len(waiting.rows) for waiting in group])
        for waiting, part in zip(group, parts, strict=True):
            if not waiting.answer.done():
                waiting.answer.set_result(part)
