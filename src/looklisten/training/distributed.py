"""Many processes, one batch: which process this is, and what the processes send to each other.

`torchrun` starts the processes and describes each in its environment. One process alone needs no
communication. Collectives are written so that the mean over processes of each one's gradient (which
DistributedDataParallel takes) is the gradient of the mean of their losses.
"""

import contextlib
import gc
import os
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch

# Imported before there is a process group. Default arguments in this module keep the group that
# exists at its import, and DistributedDataParallel imports it (measured with torch 2.13). The
# threads of the group would then outlive `destroy_process_group`, and a thread that lives while the
# interpreter ends can abort the process after all its work (pytorch issue 190489).
import torch.distributed.nn.functional
from jaxtyping import Float
from torch import Tensor, distributed, nn
from torch.distributed import PrefixStore, rendezvous  # type: ignore[attr-defined]
from torch.nn.parallel import DistributedDataParallel

from looklisten.config import TrainConfig
from looklisten.errors import ConfigError, LookListenError
from looklisten.model.objectives import find_objective

COLLECTIVE_TIMEOUT = timedelta(hours=2)
"""How long processes wait for another one, which may be measuring held-out videos."""

ValueT = TypeVar("ValueT")


@dataclass(frozen=True)
class ProcessWorld:
    """Which of `ranks` processes this is; `local_rank` counts the processes of this machine."""

    rank: int = 0
    ranks: int = 1
    local_rank: int = 0
    local_ranks: int = 1
    connects_alone: bool = False
    """Communicate also where there is one process, to test the communication of a machine."""

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    @property
    def is_alone(self) -> bool:
        """Whether there is nothing to communicate."""
        return self.ranks == 1 and not self.connects_alone

    def check_batch(self, settings: TrainConfig) -> None:
        """Raises ConfigError when the batch does not divide into equal shares of useful pairs."""
        parts = settings.accumulate
        rows = settings.batch_size // parts
        if rows % self.ranks:
            raise ConfigError(
                f"a part of {rows} videos cannot be shared equally by {self.ranks} processes; "
                f"set train.batch_size to a multiple of {self.ranks * parts}"
            )
        needs_negatives = find_objective(settings.objective).trains_fusion
        if needs_negatives and rows == self.ranks and not settings.gather_negatives:
            raise ConfigError(
                f"each of {self.ranks} processes has one video a part, so none has a negative of "
                f"its own; set train.batch_size to at least {2 * self.ranks * parts}, or "
                f"train.gather_negatives to true"
            )

    def average_gradients(self, module: nn.Module, device: str) -> nn.Module:
        """`module` with its gradients averaged over all processes; itself if there is one."""
        if self.is_alone:
            return module
        on_gpu = device.startswith("cuda")
        return DistributedDataParallel(
            module,
            device_ids=[torch.device(device)] if on_gpu else None,
            gradient_as_bucket_view=True,
        )

    def gather(self, rows: Float[Tensor, "own ..."]) -> Float[Tensor, "all ..."]:
        """The rows of all processes in the order of the batch; gradients flow back.

        Row i of process r is row i * ranks + r of the result.
        """
        if self.is_alone:
            return rows
        all_rows: Tensor = _GatherRows.apply(rows, self)  # type: ignore[no-untyped-call]
        return all_rows

    def any(self, flag: bool) -> bool:
        """Whether `flag` is true in any process; all processes get the same answer."""
        if self.is_alone:
            return flag
        # A tensor on the CPU goes through gloo, so that no GPU has to wait.
        votes = torch.tensor(int(flag))
        distributed.all_reduce(votes)
        return bool(votes)

    def mean(self, values: list[float]) -> list[float]:
        """The mean of each value over all processes."""
        if self.is_alone:
            return values
        total = torch.tensor(values, dtype=torch.float64)
        distributed.all_reduce(total)
        return (total / self.ranks).tolist()

    def all_equal(self, value: str) -> bool:
        """Whether all processes have the same value; all processes get the same answer."""
        if self.is_alone:
            return True
        first_value = self.broadcast_from_first(lambda: value)
        return not self.any(value != first_value)

    def broadcast_from_first(self, compute: Callable[[], ValueT]) -> ValueT:
        """The result of `compute` in the first process, in all processes.

        A LookListenError that `compute` raises is raised in all processes.
        """
        if self.is_alone:
            return compute()
        result_and_error: list[Any] = [None, None]
        if self.is_first:
            try:
                result_and_error[0] = compute()
            except LookListenError as error:
                result_and_error[1] = error
        distributed.broadcast_object_list(result_and_error)
        if result_and_error[1]:
            raise result_and_error[1]
        return result_and_error[0]  # type: ignore[no-any-return]


@contextlib.contextmanager
def process_world(device: str, connect_alone: bool = False) -> Iterator[ProcessWorld]:
    """The processes that `torchrun` started, connected until the block ends.

    Without torchrun it is a world of one process. Whoever calls `average_gradients` must release
    its result before the block ends. `connect_alone`: connect one process of torchrun, too, to test
    the communication of a machine. Raises LookListenError when another process is lost.
    """
    ranks = int(os.environ.get("WORLD_SIZE", 1))
    if ranks == 1 and not connect_alone:
        yield ProcessWorld()
        return
    world = ProcessWorld(
        rank=int(os.environ["RANK"]),
        ranks=ranks,
        local_rank=int(os.environ["LOCAL_RANK"]),
        local_ranks=int(os.environ.get("LOCAL_WORLD_SIZE", ranks)),
        connects_alone=connect_alone,
    )
    _connect(device)
    try:
        yield world
    except BaseException as error:
        # The frames of the error hold the module of `average_gradients`, which must be released.
        traceback.clear_frames(error.__traceback__)
        gc.collect()
        if _is_lost_process(error):
            cause = str(error).splitlines()[0]
            raise LookListenError(
                f"another process of the run was lost ({cause:.120}); with torchrun "
                f"--max-restarts the run resumes from its last checkpoint by itself, "
                f"else run the same command again"
            ) from None
        raise
    finally:
        distributed.destroy_process_group()


def _is_lost_process(error: BaseException) -> bool:
    if not isinstance(error, RuntimeError):
        return False
    return isinstance(error, distributed.DistError) or "gloo" in str(error).lower()


def _connect(device: str) -> None:
    """Create the process group of this process."""
    store, rank, ranks = next(rendezvous("env://", timeout=COLLECTIVE_TIMEOUT))
    # After a restart the store still holds the addresses of the earlier processes (measured with
    # torch 2.13), so each attempt has its own names.
    restarts = os.environ.get("TORCHELASTIC_RESTART_COUNT", 0)
    attempt = PrefixStore(f"attempt-{restarts}-{ranks}", store)
    # gloo in addition to NCCL, for values on the CPU.
    backend = "cpu:gloo,cuda:nccl" if device.startswith("cuda") else "gloo"
    distributed.init_process_group(
        backend, store=attempt, rank=rank, world_size=ranks, timeout=COLLECTIVE_TIMEOUT
    )


# Written by hand, because the `all_gather` of torch.distributed.nn.functional falls back to an
# all-to-all on gloo.
class _GatherRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, world: ProcessWorld) -> Tensor:
        ctx.world = world
        rows_by_rank = [torch.empty_like(rows) for _ in range(world.ranks)]
        distributed.all_gather(rows_by_rank, rows.contiguous())
        return torch.stack(rows_by_rank, dim=1).flatten(0, 1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        gradient = gradient.contiguous()
        distributed.all_reduce(gradient)
        return gradient[ctx.world.rank :: ctx.world.ranks], None


class _MeanOverProcesses(torch.autograd.Function):
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
    """Batch-norm over the rows of all processes, on any device; PyTorch's own needs a GPU.

    Each process must have the same number of rows.
    """

    @classmethod
    def like(cls, norm: nn.BatchNorm2d) -> "SyncBatchNorm":
        """The same batch-norm, with the same parameters and statistics."""
        synchronized = cls(norm.num_features, norm.eps, norm.momentum)
        synchronized.load_state_dict(norm.state_dict())
        return synchronized.to(norm.weight.device)

    def forward(
        self, x: Float[Tensor, "batch features rows columns"]
    ) -> Float[Tensor, "batch features rows columns"]:
        if not self.training:
            return super().forward(x)
        # Sums of bfloat16 values lose too many digits.
        wide = x.float()
        mean: Tensor = _MeanOverProcesses.apply(wide.mean((0, 2, 3)))  # type: ignore[no-untyped-call]
        centered = wide - mean[:, None, None]
        own_variance = centered.square().mean((0, 2, 3))
        variance: Tensor = _MeanOverProcesses.apply(own_variance)  # type: ignore[no-untyped-call]
        self._update_running_statistics(x, mean, variance)
        scale = self.weight * (variance + self.eps).rsqrt()
        return (centered * scale[:, None, None] + self.bias[:, None, None]).to(x.dtype)

    @torch.no_grad()
    def _update_running_statistics(self, x: Tensor, mean: Tensor, variance: Tensor) -> None:
        assert self.num_batches_tracked is not None
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.momentum is not None
        values = x.numel() // x.shape[1] * distributed.get_world_size()
        self.num_batches_tracked += 1
        self.running_mean.lerp_(mean, self.momentum)
        # PyTorch keeps the unbiased variance.
        self.running_var.lerp_(variance * (values / (values - 1)), self.momentum)


def synchronize_batch_norm(network: nn.Module, device: str) -> None:
    """Let every batch-norm of `network` take its statistics over all processes.

    The parameters keep their names.
    """
    if device.startswith("cuda"):
        nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
        return
    # A list, because the loop changes the modules.
    for parent in list(network.modules()):
        for name, child in parent.named_children():
            if type(child) is nn.BatchNorm2d:
                setattr(parent, name, SyncBatchNorm.like(child))
