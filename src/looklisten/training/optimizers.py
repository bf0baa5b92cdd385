"""What changes the weights: Adam, or Muon for filters and Adam for all else. Its learning rate.

Knows parameters and their gradients; no network, no files.
"""

import math
from collections.abc import Mapping, Sequence, Set
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from looklisten.config import TrainConfig

MOMENTUM = 0.9
"""The weight of the former gradients in Muon's moving sum, at each step."""
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""Factors of X, (X X^T) X and (X X^T)^2 X in an iteration (Jordan et al. 2024, "Muon").

Singular values from 0.01 to 1 come near 1 in few iterations. They end between 0.7 and 1.2, which
trains as well as exactly 1.
"""
ITERATIONS = 5
MIN_DIVISOR = 1e-30
"""Divided by instead of by a norm of zero."""
ADAM_KEYS = ("step", "exp_avg", "exp_avg_sq")
"""The tensors that Adam keeps of a parameter."""


class Muon(torch.optim.Optimizer):
    """Changes the filters of a convolution in all directions alike, by a share of their norm.

    The moving sum of the gradients is a matrix, a row for each filter. Mostly a few directions of
    it are much larger than the others. Muon makes all its singular values about 1, so that rare
    directions are learned as fast (Jordan et al. 2024, "Muon: An optimizer for hidden layers in
    neural networks").

    Here the change is `lr` times the norm of the filters, and the norm stays what it was. A
    batch-norm behind a convolution makes the norm meaningless anyway. Filters of zeros stay zeros.
    """

    def __init__(self, groups: Sequence[Mapping[str, Any]], lr: float) -> None:
        super().__init__([dict(group) for group in groups], {"lr": lr})

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        """Change every parameter that has a gradient."""
        for group in self.param_groups:
            for filters in group["params"]:
                if filters.grad is not None:
                    self._change(filters, group["lr"])

    def _change(self, filters: Float[Tensor, "n in rows columns"], share: float) -> None:
        gradient = filters.grad
        momentum = self.state[filters].setdefault("momentum", torch.zeros_like(filters))
        momentum.mul_(MOMENTUM).add_(gradient)
        # The gradient once more on top looks one step ahead (Nesterov).
        ahead = gradient + MOMENTUM * momentum
        direction = with_equal_singular_values(ahead.flatten(1)).view(filters.shape)
        norm = filters.norm()
        # Without a gradient there is no direction, and 0 / 0 would spoil the filters.
        filters.sub_(direction * (share * norm / direction.norm().clamp_min(MIN_DIVISOR)))
        filters.mul_(norm / filters.norm().clamp_min(MIN_DIVISOR))


def with_equal_singular_values(matrix: Float[Tensor, "m n"]) -> Float[Tensor, "m n"]:
    """The matrix with the same singular vectors, and singular values between 0.7 and 1.2.

    Singular values below a hundredth of the matrix's norm stay smaller.
    """
    first, third, fifth = NEWTON_SCHULZ
    is_tall = matrix.shape[0] > matrix.shape[1]
    # The products of the shorter side are smaller.
    wide = matrix.T if is_tall else matrix
    wide = wide / wide.norm().clamp_min(1e-7)
    for _ in range(ITERATIONS):
        square = wide @ wide.T
        wide = first * wide + (third * square + fifth * square @ square) @ wide
    result: Tensor = wide.T if is_tall else wide
    return result


def names_of_filters(module: nn.Module) -> set[str]:
    """The names of the parameters of `module` that are filters of its convolutions."""
    # Not every parameter of four dimensions is one: ConvNeXt V2 has gains of that shape, which
    # begin at zero.
    return {
        f"{name}.weight" for name, part in module.named_modules() if isinstance(part, nn.Conv2d)
    }


class Optimizers:
    """The optimizers of one network, by the names of its parameters in a checkpoint.

    `filters`: the names of those that are filters of convolutions. `lr_multipliers`: factors of the
    learning rate, by the beginning of a parameter's name.
    """

    def __init__(
        self,
        parameters: Mapping[str, nn.Parameter],
        filters: Set[str],
        settings: TrainConfig,
        lr_multipliers: Mapping[str, float],
    ) -> None:
        for_muon: dict[str, nn.Parameter] = {}
        for_adam: dict[str, nn.Parameter] = {}
        for name, parameter in parameters.items():
            is_for_muon = settings.optimizer == "muon" and name in filters
            (for_muon if is_for_muon else for_adam)[name] = parameter
        self._optimizers: list[tuple[list[str], torch.optim.Optimizer]] = []
        if for_adam:
            names, groups = _groups(for_adam, lr_multipliers)
            # Fused: one kernel updates all parameters. On a CPU it is faster too.
            adam = torch.optim.Adam(
                groups, settings.learning_rate, weight_decay=settings.weight_decay, fused=True
            )
            self._optimizers.append((names, adam))
        if for_muon:
            names, groups = _groups(for_muon, lr_multipliers)
            for group in groups:
                group["lr_multiplier"] *= settings.filter_step / settings.learning_rate
            self._optimizers.append((names, Muon(groups, settings.filter_step)))
        self._parameters = dict(parameters)

    def step(self, rate: float) -> None:
        """Change all parameters at the learning rate of this step."""
        for _, optimizer in self._optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate * group["lr_multiplier"]
            optimizer.step()

    def zero_grad(self) -> None:
        """Forget the gradients of the last step."""
        for _, optimizer in self._optimizers:
            optimizer.zero_grad(set_to_none=True)

    def tensors(self) -> dict[str, Tensor]:
        """What a later step needs of the former ones, as `parameter/key`."""
        tensors = {}
        for names, optimizer in self._optimizers:
            for index, values in optimizer.state_dict()["state"].items():
                for key, value in values.items():
                    tensors[f"{names[index]}/{key}"] = value
        return tensors

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Take what `tensors` gave.

        Raises KeyError for a parameter that the network lacks, or a key of another optimizer.
        """
        saved: dict[str, dict[str, Tensor]] = {}
        for saved_name, value in tensors.items():
            name, _, key = saved_name.rpartition("/")
            saved.setdefault(name, {})[key] = _in_layout_of(self._parameters[name], value)
        for names, optimizer in self._optimizers:
            expected = ("momentum",) if isinstance(optimizer, Muon) else ADAM_KEYS
            state = {}
            for index, name in enumerate(names):
                if name in saved:
                    state[index] = {key: saved[name].pop(key) for key in expected}
            groups = optimizer.state_dict()["param_groups"]
            optimizer.load_state_dict({"state": state, "param_groups": groups})


def learning_rate(config: TrainConfig, step: int, steps_per_epoch: int = 1) -> float:
    """The learning rate of a step, counted from 1.

    A linear climb, then constant, stairs, or half a cosine down to zero after the last step.
    """
    if step <= config.warmup_steps:
        return config.learning_rate * step / config.warmup_steps
    if config.schedule == "constant":
        return config.learning_rate
    if config.schedule == "stairs":
        stairs = (step - 1) // (steps_per_epoch * config.stair_epochs)
        return config.learning_rate * config.stair_factor**stairs
    done = (step - config.warmup_steps - 1) / max(config.steps - config.warmup_steps, 1)
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * done))


def _in_layout_of(parameter: nn.Parameter, value: Tensor) -> Tensor:
    """`value` in the memory layout of its parameter, if it has the same shape."""
    if value.shape != parameter.shape:
        return value
    # The fused step reads parameter and average side by side in memory.
    return torch.empty_like(parameter).copy_(value)


def _groups(
    parameters: Mapping[str, nn.Parameter], lr_multipliers: Mapping[str, float]
) -> tuple[list[str], list[dict[str, Any]]]:
    """The groups of each factor of the learning rate, factor 1 first, and all names in order."""
    by_multiplier: dict[float, dict[str, nn.Parameter]] = {1.0: {}}
    for name, parameter in parameters.items():
        multiplier = 1.0
        for prefix, value in lr_multipliers.items():
            if name.startswith(prefix):
                multiplier = value
        by_multiplier.setdefault(multiplier, {})[name] = parameter

    names: list[str] = []
    groups = []
    for multiplier, named in by_multiplier.items():
        if named:
            names.extend(named)
            groups.append({"params": list(named.values()), "lr_multiplier": multiplier})
    return names, groups
