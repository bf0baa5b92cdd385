"""Many processes, one batch: who this process is, and what the processes tell each other. One
process alone needs none of it.

`torchrun` starts the processes and says in the environment who they are. Collectives are written so
that the mean over processes of each one's gradient (what DistributedDataParallel takes) is the
gradient of the mean of their losses.
"""

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch

# Imported while there is no group: as defaults of its functions this module keeps for good the
# group that there is at its import, and DistributedDataParallel imports it (seen with torch 2.13).
# The group's threads then outlived `destroy_process_group`, and one that lives while the
# interpreter ends can abort the process, all its work done (pytorch issue 190489).
import torch.distributed.nn.functional
from jaxtyping import Float
from torch import Tensor, distributed, nn
from torch.distributed import PrefixStore, rendezvous  # type: ignore[attr-defined]
from torch.nn.parallel import DistributedDataParallel

from looklisten.config import TrainConfig
from looklisten.errors import ConfigError, LookListenError

PATIENCE = timedelta(hours=2)
"""How long the processes wait for one of them, which may be measuring held-out videos."""

LAST_BREATH_SECONDS = 0.5
"""What the group's threads get at the end to let go of their tensors; they need microseconds, and
on a busy machine their turn.
"""


Told = TypeVar("Told")


@dataclass(frozen=True)
class ProcessWorld:
    """Who this process is among `ranks`; `local_rank` and `local_ranks` count those of this
    machine.
    """

    rank: int = 0
    ranks: int = 1
    local_rank: int = 0
    local_ranks: int = 1

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def check_batch(self, settings: TrainConfig) -> None:
        """Raises ConfigError when the batch does not divide into equal shares, or a share holds no
        pair of two videos.
        """
        parts = settings.accumulate
        size = settings.batch_size // parts
        if size % self.ranks:
            raise ConfigError(
                f"a part of {size} videos cannot be shared equally by {self.ranks} processes; "
                f"set train.batch_size to a multiple of {self.ranks * parts}"
            )
        if size == self.ranks and not settings.gather_negatives and settings.objective != "labels":
            raise ConfigError(
                f"each of {self.ranks} processes has one video a part, so none has a negative of its own; "
                f"set train.batch_size to at least {2 * self.ranks * parts}, or train.gather_negatives to true"
            )

    def shared(self, module: nn.Module, device: str) -> nn.Module:
        """`module` with its gradients averaged over all processes; itself when there is one."""
        if self.ranks == 1:
            return module
        on_gpu = device.startswith("cuda")
        return DistributedDataParallel(
            module,
            device_ids=[torch.device(device)] if on_gpu else None,
            gradient_as_bucket_view=True,
        )

    def gather(self, rows: Float[Tensor, "own ..."]) -> Float[Tensor, "all ..."]:
        """The rows of all processes in the batch's order: row i of process r is row i * ranks + r.
        Gradients flow back.
        """
        gathered: Tensor = _Gather.apply(rows, self) if self.ranks > 1 else rows  # type: ignore[no-untyped-call]
        return gathered

    def any(self, flag: bool) -> bool:
        """Whether any process says so; all get the same answer. Asked of processors, so no GPU
        waits.
        """
        if self.ranks == 1:
            return flag
        votes = torch.tensor(int(flag))
        distributed.all_reduce(votes)
        return bool(votes)

    def mean(self, values: list[float]) -> list[float]:
        """The mean of each over all processes."""
        if self.ranks == 1:
            return values
        total = torch.tensor(values, dtype=torch.float64)
        distributed.all_reduce(total)
        return (total / self.ranks).tolist()

    def agree(self, value: str) -> bool:
        """Whether all processes have the same value; all get the same answer."""
        if self.ranks == 1:
            return True
        first = self.told(lambda: value)
        return not self.any(value != first)

    def told(self, find: Callable[[], Told]) -> Told:
        """What `find` gives in the first process, in all; an error of it is raised in all."""
        if self.ranks == 1:
            return find()
        said: list[Any] = [None, None]
        if self.is_first:
            try:
                said[0] = find()
            except LookListenError as error:
                said[1] = error
        distributed.broadcast_object_list(said)
        if said[1]:
            raise said[1]
        return said[0]  # type: ignore[no-any-return]


@contextlib.contextmanager
def process_world(device: str) -> Iterator[ProcessWorld]:
    """The world that `torchrun` started this process in, left again at the end; a world of one
    without torchrun.
    """
    ranks = int(os.environ.get("WORLD_SIZE", 1))
    if ranks == 1:
        yield ProcessWorld()
        return
    world = ProcessWorld(
        int(os.environ["RANK"]),
        ranks,
        int(os.environ["LOCAL_RANK"]),
        int(os.environ.get("LOCAL_WORLD_SIZE", ranks)),
    )
    store, rank, ranks = next(rendezvous("env://", timeout=PATIENCE))
    # After a restart the store still holds the addresses of the processes before (seen with torch
    # 2.13), so each attempt has its own names.
    attempt = PrefixStore(
        f"attempt-{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}-{ranks}", store
    )
    # gloo beside NCCL, for what processors tell each other.
    backend = "cpu:gloo,cuda:nccl" if device.startswith("cuda") else "gloo"
    distributed.init_process_group(
        backend, store=attempt, rank=rank, world_size=ranks, timeout=PATIENCE
    )
    try:
        yield world
    except RuntimeError as error:
        if isinstance(error, distributed.DistError) or "gloo" in str(error).lower():
            raise LookListenError(
                f"another process of the run was lost ({str(error).splitlines()[0]:.120}); "
                f"with torchrun --max-restarts it goes on from the last checkpoint by itself, else run the same command again"
            ) from None
        raise
    finally:
        # A thread of gloo that still lets go of a tensor waits for the interpreter's lock, and the
        # group's destructor, called by that of DistributedDataParallel, waits for the thread and
        # holds the lock: seen with torch 2.13, a run that hung at its end. Asleep we do not hold
        # it.
        time.sleep(LAST_BREATH_SECONDS)
        distributed.destroy_process_group()


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, world: ProcessWorld) -> Tensor:
        ctx.world = world
        parts = [torch.empty_like(rows) for _ in range(world.ranks)]
        distributed.all_gather(parts, rows.contiguous())
        return torch.stack(parts, dim=1).flatten(0, 1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        gradient = gradient.contiguous()
        distributed.all_reduce(gradient)
        return gradient[ctx.world.rank :: ctx.world.ranks], None


class _Mean(torch.autograd.Function):
    """The mean over processes."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:  # noqa: ARG004
        values = values.clone()
        distributed.all_reduce(values)
        return values / distributed.get_world_size()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # noqa: ARG004
        gradient = gradient.clone()
        distributed.all_reduce(gradient)
        return gradient / distributed.get_world_size()


class SyncBatchNorm(nn.BatchNorm2d):
    """Batch-norm over the rows of all processes, each of which has equally many, on any device;
    PyTorch's own needs a GPU.
    """

    def forward(
        self, x: Float[Tensor, "batch features rows columns"]
    ) -> Float[Tensor, "batch features rows columns"]:
        if not self.training:
            return super().forward(x)
        wide = x.float()
        mean: Tensor = _Mean.apply(wide.mean((0, 2, 3)))  # type: ignore[no-untyped-call]
        centred = wide - mean[:, None, None]
        variance: Tensor = _Mean.apply(centred.square().mean((0, 2, 3)))  # type: ignore[no-untyped-call]
        with torch.no_grad():
            count = x.numel() // x.shape[1] * distributed.get_world_size()
            assert (
                self.num_batches_tracked is not None
                and self.running_mean is not None
                and self.running_var is not None
            )
            assert self.momentum is not None
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * (count / (count - 1)), self.momentum)
        scale = self.weight * (variance + self.eps).rsqrt()
        return (centred * scale[:, None, None] + self.bias[:, None, None]).to(x.dtype)


def synchronize_batch_norm(network: nn.Module, device: str) -> None:
    """Let every batch-norm of `network` take its statistics over all processes; parameters keep
    their names.
    """
    if device.startswith("cuda"):
        nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
        return
    for module in network.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = SyncBatchNorm
