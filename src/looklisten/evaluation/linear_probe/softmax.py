"""Linear layers trained by cross-entropy and Adam, several settings at once on the same vectors.
Knows tensors only.

Vectors come in batches, from wherever they are; nothing but the layers and one batch is ever in
memory.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from looklisten.system.files import atomic_write
from looklisten.system.progress import Progress, no_progress

Batch = tuple[Tensor, Tensor]
"""Vectors `[batch, features]` and the numbers of their classes `[batch]`."""

EXAMPLES = 4096
"""Vectors whose means and deviations stand for all."""
TOLD_EVERY = 10
BETAS = (0.9, 0.999)
EPSILON = 1e-8


class Setting(NamedTuple):
    """How one of the layers is trained."""

    rate: float
    """Adam's, at the beginning; it falls to zero as a cosine."""
    decay: float
    """L2, added to the gradient."""

    def __str__(self) -> str:
        return f"rate {self.rate:g}, decay {self.decay:g}"


SETTINGS = tuple(Setting(rate, decay) for rate in (1e-4, 1e-3) for decay in (1e-4, 1e-2))


@dataclass(eq=False)
class Layers:
    """One linear layer a setting, beginning at zero; the last column of `weights` is the bias."""

    weights: Float[Tensor, "settings classes columns"]
    first: Float[Tensor, "settings classes columns"]
    second: Float[Tensor, "settings classes columns"]
    """Adam's running means of the gradient and of its square."""
    mean: Float[Tensor, " features"]
    deviation: Float[Tensor, " features"]
    """Of the vectors that are trained on; each feature is brought to mean 0 and deviation 1."""
    steps: int = 0

    @classmethod
    def begin(
        cls, examples: Float[Tensor, "examples features"], classes: int, settings: int
    ) -> "Layers":
        """Untrained layers; `examples` are some of the vectors to train on, for their means and
        deviations.
        """
        deviation, mean = torch.std_mean(examples, dim=0, correction=0)
        nothing = examples.new_zeros(settings, classes, examples.shape[1] + 1)
        return cls(
            nothing,
            nothing.clone(),
            nothing.clone(),
            mean,
            torch.where(deviation > 0, deviation, 1.0),
        )

    def scores(
        self, vectors: Float[Tensor, "batch features"]
    ) -> Float[Tensor, "settings batch classes"]:
        return self._columns(vectors) @ self.weights.mT

    def _columns(self, vectors: Float[Tensor, "batch features"]) -> Float[Tensor, "batch columns"]:
        scaled = (vectors - self.mean) / self.deviation
        return torch.cat([scaled, scaled.new_ones(len(scaled), 1)], dim=1)

    def step(
        self,
        vectors: Float[Tensor, "batch features"],
        classes: Int[Tensor, " batch"],
        settings: tuple[Setting, ...],
        share: float,
    ) -> Float[Tensor, " settings"]:
        """One step of every layer down the mean cross-entropy of a batch; `share` of the training
        is done. Returns the losses.
        """
        columns = self._columns(vectors)
        logits = columns @ self.weights.mT
        wrong = logits.softmax(2)
        losses = (
            -wrong.gather(2, classes.expand(len(settings), -1)[..., None])
            .clamp_min(1e-30)
            .log()
            .mean((1, 2))
        )
        wrong[:, torch.arange(len(classes)), classes] -= 1
        rate, decay = (
            self.weights.new_tensor(one)[:, None, None] for one in zip(*settings, strict=True)
        )
        slope = wrong.mT @ columns / len(classes) + decay * self.weights
        self.steps += 1
        self.first.lerp_(slope, 1 - BETAS[0])
        self.second.lerp_(slope.square(), 1 - BETAS[1])
        size = (self.second / (1 - BETAS[1] ** self.steps)).sqrt_().add_(EPSILON)
        falling = 0.5 * (1 + math.cos(math.pi * share))
        self.weights -= falling * rate * (self.first / (1 - BETAS[0] ** self.steps)) / size
        return losses

    def tensors(self) -> dict[str, Tensor]:
        """All that training needs to go on, by name."""
        return {
            name: getattr(self, name)
            for name in ("weights", "first", "second", "mean", "deviation")
        }


def train(
    batches: Callable[[int], Iterator[Batch]],
    steps: int,
    epochs: int,
    classes: int,
    settings: tuple[Setting, ...] = SETTINGS,
    kept: Path | None = None,
    progress: Progress = no_progress,
    device: str = "cpu",
) -> Layers:
    """Layers trained on `epochs` epochs of about `steps` batches each, `batches(epoch)`.

    With `kept`, a file that is written after each epoch, an interrupted training goes on from
    there.
    """
    layers, begun = _resumed(kept, device)
    if layers is None:
        examples: list[Tensor] = []
        for vectors, _ in batches(0):
            examples.append(vectors)
            if sum(map(len, examples)) >= EXAMPLES:
                break
        layers = Layers.begin(torch.cat(examples), classes, len(settings))
    for epoch in range(begun, epochs):
        for number, (vectors, names) in enumerate(batches(epoch)):
            done = min(epoch + number / steps, epochs)
            losses = layers.step(vectors, names, settings, done / epochs)
            if number % TOLD_EVERY == 0:
                progress(epoch * steps + number, epochs * steps, loss=f"{float(losses.min()):.3f}")
        if kept:
            with atomic_write(kept) as scratch:
                about = {"epoch": str(epoch + 1), "steps": str(layers.steps)}
                scratch.write_bytes(
                    save(
                        {
                            name: tensor.cpu().contiguous()
                            for name, tensor in layers.tensors().items()
                        },
                        about,
                    )
                )
    return layers


def _resumed(kept: Path | None, device: str) -> tuple[Layers | None, int]:
    """The layers in a file and how many epochs they have behind them."""
    if kept is None or not kept.is_file():
        return None, 0
    with safe_open(kept, "pt", device) as file:
        about = file.metadata()
        return Layers(
            **{name: file.get_tensor(name) for name in file.keys()},  # noqa: SIM118
            steps=int(about["steps"]),
        ), int(about["epoch"])
