"""Batches -> vectors of a frozen network, or of a plain description that it has to beat; and where vectors are kept on disk.

Knows tensors and files of numbers: no label, no fold, no protocol.
"""

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Float, Num
from numpy.typing import NDArray
from torch import Tensor

from looklisten.config import ModelConfig
from looklisten.errors import ConfigError
from looklisten.inference.encoder import Encoder, encoder_of
from looklisten.inference.layers import Side, width
from looklisten.model.l3net import L3Net
from looklisten.runtime import choose_precision, to_device, write_json

CALIBRATION_ROWS = 128
"""Sounds or pictures that the batch-norm statistics of an untrained network are set from ..."""
CALIBRATION_BATCH = 32
"""... in batches of so many."""

Batch = TypeVar("Batch")


@dataclass(frozen=True, eq=False)
class Extractor:
    """What turns a batch of sounds `[batch, samples]` or frames `[batch, 3, side, side]` into vectors."""

    name: str
    encode: Callable[[Tensor], Tensor]
    width: int
    key: str = ""
    """A hash of all that the vectors depend on beside the files; where there is none, they are not kept."""
    device: str = "cpu"
    whole: bool = False
    """Whether it is given whole sounds, one at a time, rather than windows of a second."""
    resize_pixels: int = 256
    crop_pixels: int = 224

    def __call__(self, batch: Num[Tensor, "batch ..."]) -> Float[np.ndarray, "batch width"]:
        with torch.inference_mode():
            return self.encode(batch.to(self.device)).float().cpu().numpy()


def network_extractor(name: str, model: L3Net | Encoder, side: Side, layer: str = "conv4_2", device: str = "cpu") -> Extractor:
    """The vectors of `layer`, in the device's fastest precision. Raises ConfigError when the network has no such layer."""
    encoder = encoder_of(to_device(model, device) if isinstance(model, L3Net) else model)
    if layer not in encoder.layers.get(side, ()):
        raise ConfigError(f"there is no layer {layer!r} of {side} here; choose one of {', '.join(encoder.layers.get(side, ())) or 'none'}")
    precision = choose_precision(device).value if isinstance(model, L3Net) else "float32"

    def encode(batch: Tensor) -> Tensor:
        with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=precision == "bfloat16"):
            return encoder.encode(side, batch, layer)

    return Extractor(
        name=name,
        encode=encode,
        width=width(model, side, layer) if isinstance(model, L3Net) else encode(_blank(encoder, side)).shape[1],
        key=f"{weights_key(model)}-{side}-{layer}-{precision}" if isinstance(model, L3Net) else "",
        device=str(encoder.device),
        resize_pixels=encoder.resize_pixels,
        crop_pixels=encoder.crop_pixels,
    )


def _blank(encoder: Encoder, side: Side) -> Tensor:
    shape = (1, 48_000) if side == "audio" else (1, 3, encoder.crop_pixels, encoder.crop_pixels)
    return torch.zeros(shape, dtype=torch.int16 if side == "audio" else torch.uint8, device=encoder.device)


def weights_key(model: L3Net) -> str:
    """A hash of a network's settings and weights."""
    digest = hashlib.sha256(model.config.model_dump_json().encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().float().contiguous().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def untrained(config: ModelConfig, seed: int, side: Side, batches: Iterable[Tensor], device: str = "cpu") -> L3Net:
    """A network of initial weights drawn by `seed`, the batch-norm statistics of `side` set from `batches`, in evaluation mode.

    Without statistics its units would be of any scale; with them it is as strong as it can be, and a rival to be beaten.
    """
    torch.manual_seed(seed)
    model = to_device(L3Net(config), device)
    forward = model.listen if side == "audio" else model.look
    return set_batch_norm(model, lambda batch: forward(batch.to(device)), batches)


@torch.no_grad()
def set_batch_norm(model: L3Net, forward: Callable[[Batch], object], batches: Iterable[Batch]) -> L3Net:
    """Set batch-norm statistics to the plain mean over `batches`; the model comes back in evaluation mode."""
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None  # the plain mean over all batches seen
    model.train()
    for batch in batches:
        forward(batch)
    return model.eval()


@dataclass(eq=False)
class Store:
    """Vectors of `items` files, `[items, rows, width]` float32, row by row in a memory-mapped file; or in memory, without a folder.

    What is done is known after a crash: an interrupted extraction goes on where it last said `keep`.
    """

    folder: Path | None
    shape: tuple[int, int, int]
    values: NDArray[np.float32] = field(init=False)
    done: int = 0
    failed: dict[int, str] = field(default_factory=dict)
    """Items that could not be read, and why; their vectors are zeros."""

    def __post_init__(self) -> None:
        if self.folder is None:
            self.values = np.zeros(self.shape, np.float32)
            return
        file, about = self.folder / "vectors.npy", self.folder / "done.json"
        if about.is_file() and file.is_file():
            self.values = np.lib.format.open_memmap(file, "r+")
            if self.values.shape == self.shape and self.values.dtype == np.float32:
                told = json.loads(about.read_text(encoding="utf-8"))
                self.done, self.failed = told["done"], {int(item): why for item, why in told["failed"].items()}
                return
        self.folder.mkdir(parents=True, exist_ok=True)
        about.unlink(missing_ok=True)
        self.values = np.lib.format.open_memmap(file, "w+", np.float32, self.shape)

    def put(self, vectors: Float[np.ndarray, "some rows width"]) -> None:
        """The vectors of the next items."""
        self.values[self.done : self.done + len(vectors)] = vectors
        self.done += len(vectors)

    def fail(self, why: str) -> None:
        """The next item cannot be read."""
        self.failed[self.done] = why
        self.done += 1

    def keep(self) -> None:
        """Make what was put so far last: the numbers first, then the word that they are there."""
        if self.folder is not None:
            assert isinstance(self.values, np.memmap)
            self.values.flush()
            write_json(self.folder / "done.json", {"done": self.done, "failed": self.failed})
