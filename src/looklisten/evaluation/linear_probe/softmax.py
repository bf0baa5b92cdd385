"""Softmax regression on batches of vectors, for several settings at once. Knows tensors only.

Vectors come in batches, from anywhere; only the layers and one batch are in memory.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn import functional

from looklisten.system.files import atomic_write
from looklisten.system.progress import Progress, no_progress

VectorBatch = tuple[Tensor, Tensor]
"""Vectors `[batch, features]` and the indices of their classes `[batch]`."""

STATISTICS_VECTORS = 4096
"""How many vectors the mean and deviation of each feature are computed from."""
STEPS_PER_REPORT = 10
OPTIMIZER_PREFIX = "optimizer."
"""In a saved state: the tensors of Adam, followed by parameter number and name."""


class SoftmaxSetting(NamedTuple):
    """How one layer is trained."""

    learning_rate: float
    """At the beginning; it falls to zero along a cosine."""
    weight_decay: float
    """L2, added to the gradient."""

    def __str__(self) -> str:
        return f"rate {self.learning_rate:g}, decay {self.weight_decay:g}"


# All are trained on the same batches, since reading the vectors takes most of the time.
SETTINGS = (
    SoftmaxSetting(1e-4, 1e-4),
    SoftmaxSetting(1e-4, 1e-2),
    SoftmaxSetting(1e-3, 1e-4),
    SoftmaxSetting(1e-3, 1e-2),
)


class SoftmaxLayers(nn.Module):
    """One linear layer for each setting, all on the same vectors; all weights begin at zero."""

    mean: Float[Tensor, " features"]
    deviation: Float[Tensor, " features"]
    """Each feature is brought to mean 0 and deviation 1 first."""

    def __init__(self, n_features: int, n_classes: int, n_settings: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(n_features))
        self.register_buffer("deviation", torch.ones(n_features))
        self.layers = nn.ModuleList(nn.Linear(n_features, n_classes) for _ in range(n_settings))
        for parameter in self.parameters():
            nn.init.zeros_(parameter)

    def set_scaling(self, examples: Float[Tensor, "examples features"]) -> None:
        """Take the mean and deviation of each feature from some training vectors."""
        deviation, mean = torch.std_mean(examples, dim=0, correction=0)
        self.mean.copy_(mean)
        # A constant feature carries nothing; dividing it by 1 leaves it at 0.
        self.deviation.copy_(torch.where(deviation > 0, deviation, 1.0))

    def forward(
        self, vectors: Float[Tensor, "batch features"]
    ) -> Float[Tensor, "settings batch classes"]:
        scaled = (vectors - self.mean) / self.deviation
        return torch.stack([layer(scaled) for layer in self.layers])


def train_softmax(
    batches: Callable[[int], Iterator[VectorBatch]],
    steps: int,
    epochs: int,
    n_classes: int,
    settings: Sequence[SoftmaxSetting] = SETTINGS,
    state_file: Path | None = None,
    progress: Progress = no_progress,
) -> SoftmaxLayers:
    """Layers trained on `epochs` epochs, each with about `steps` batches, `batches(epoch)`.

    `state_file`: written after each epoch; an interrupted training resumes from it.
    """
    # A resumed training needs only their width; its means and deviations are in the state.
    examples = _first_vectors(batches(0))
    n_features = examples.shape[1]
    layers = SoftmaxLayers(n_features, n_classes, len(settings))
    layers = layers.to(examples.device)
    layers.set_scaling(examples)
    optimizer = torch.optim.Adam(
        [
            {"params": layer.parameters(), "weight_decay": setting.weight_decay}
            for layer, setting in zip(layers.layers, settings, strict=True)
        ]
    )
    first_epoch = _load_state(state_file, layers, optimizer) if state_file else 0
    for epoch in range(first_epoch, epochs):
        for number, (vectors, classes) in enumerate(batches(epoch)):
            # The number of batches is an estimate: unreadable images make it smaller.
            epochs_done = min(epoch + number / steps, epochs)
            cosine = 0.5 * (1 + math.cos(math.pi * epochs_done / epochs))
            for group, setting in zip(optimizer.param_groups, settings, strict=True):
                group["lr"] = setting.learning_rate * cosine
            losses = softmax_step(layers, optimizer, vectors, classes)
            if number % STEPS_PER_REPORT == 0:
                loss = f"{float(losses.min()):.3f}"
                progress(epoch * steps + number, epochs * steps, loss=loss)
        if state_file:
            _save_state(state_file, layers, optimizer, epoch + 1)
    return layers


def softmax_step(
    layers: SoftmaxLayers, optimizer: torch.optim.Optimizer, vectors: Tensor, classes: Tensor
) -> Float[Tensor, " settings"]:
    """One step of all layers on one batch; returns the mean cross-entropy of each before it."""
    losses = []
    for scores in layers(vectors):
        losses.append(functional.cross_entropy(scores, classes))
    optimizer.zero_grad()
    # No layer depends on another, so each gets the gradient of its own loss only.
    torch.autograd.backward(losses)
    optimizer.step()
    return torch.stack(losses).detach()


def _first_vectors(batches: Iterator[VectorBatch]) -> Float[Tensor, "examples features"]:
    examples: list[Tensor] = []
    for vectors, _ in batches:
        examples.append(vectors)
        if sum(map(len, examples)) >= STATISTICS_VECTORS:
            break
    return torch.cat(examples)


def _save_state(
    file: Path, layers: SoftmaxLayers, optimizer: torch.optim.Optimizer, epochs_done: int
) -> None:
    tensors = dict(layers.state_dict())
    for parameter, state in optimizer.state_dict()["state"].items():
        # safetensors has no nesting, so that the names carry it.
        for name, tensor in state.items():
            tensors[f"{OPTIMIZER_PREFIX}{parameter}.{name}"] = tensor
    on_cpu = {}
    for name, tensor in tensors.items():
        on_cpu[name] = tensor.cpu().contiguous()
    with atomic_write(file) as scratch:
        scratch.write_bytes(save(on_cpu, {"epochs_done": str(epochs_done)}))


def _load_state(file: Path, layers: SoftmaxLayers, optimizer: torch.optim.Optimizer) -> int:
    """Put a saved state into `layers` and `optimizer`; returns the number of epochs done."""
    if not file.is_file():
        return 0
    layer_tensors: dict[str, Tensor] = {}
    adam_state: dict[int, dict[str, Tensor]] = {}
    with safe_open(file, "pt") as state:
        epochs_done = int(state.metadata()["epochs_done"])
        names = list(state.keys())
        tensors = {name: state.get_tensor(name) for name in names}
    for name, tensor in tensors.items():
        if not name.startswith(OPTIMIZER_PREFIX):
            layer_tensors[name] = tensor
            continue
        number, _, key = name.removeprefix(OPTIMIZER_PREFIX).partition(".")
        of_parameter = adam_state.setdefault(int(number), {})
        of_parameter[key] = tensor
    layers.load_state_dict(layer_tensors)
    # The groups hold rates and decays, which the settings give and the loop sets.
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": adam_state, "param_groups": groups})
    return epochs_done
