"""Weights that others publish for a backbone: where they are, who made them, how they are read.

Knows files and tensors, no architecture.
"""

import hashlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from looklisten.errors import LookListenError, PublishedFileError
from looklisten.system.published_files import PublishedFile, locate_file

WEIGHTS_MIRROR_VARIABLE = "LOOKLISTEN_WEIGHTS_MIRROR"
"""Environment variable: another address with the published files, or a folder with them."""

_log = logging.getLogger("looklisten")

ReadT = TypeVar("ReadT")


@dataclass(frozen=True)
class PublishedClasses:
    """The last layer of the published network, which gives scores of classes; towers omit it."""

    names_file: str
    """The file in `class_names` that has the names, in the order of the scores."""
    read: Callable[[Path], tuple[Tensor, Tensor]]
    """From the published file to weight `[classes, features]` and bias `[classes]`. Raises
    any error for a file that is not the one."""
    sha256: str
    """What `state_sha256` gives for `weight` and `bias`."""
    as_scores: Callable[[Tensor], Tensor]
    """From the layer's output `[batch, classes]` to scores from 0 to 1."""


@dataclass(frozen=True)
class PublishedWeights:
    """What is known of the published weights of one backbone."""

    file: PublishedFile
    read: Callable[[Path], dict[str, Tensor]]
    """From a file to the state of the tower. Raises any error for a file that is not the one."""
    sha256: str
    """What `state_sha256` gives for the state that `read` gives; empty where nobody knows it."""
    trained_by: str
    trained_on: str
    """The data and the labels."""
    classes: PublishedClasses | None = None

    def load(self, origin: str | Path | None = None) -> dict[str, Tensor]:
        """The state of a tower with these weights, which are downloaded on first use.

        `origin`: a file, a folder or an address instead. Raises PublishedFileError, and other
        LookListenErrors of the reader. Other weights than the published are such an error too; with
        `origin` they are a warning.
        """
        path = locate_file(self.file, origin)
        state = self._read(self.read, path)
        if self.sha256 and state_sha256(state) != self.sha256:
            problem = self._other_weights(path)
            if not origin:
                raise PublishedFileError(f"{problem}; replace the file")
            _log.warning("%s; they are used as they are", problem)
        return state

    def load_classes(self) -> tuple[Tensor, Tensor] | None:
        """Weight and bias of the layer of classes; None where the published network has none.

        Raises PublishedFileError.
        """
        if self.classes is None:
            return None
        path = locate_file(self.file)
        weight, bias = self._read(self.classes.read, path)
        if state_sha256({"weight": weight, "bias": bias}) != self.classes.sha256:
            raise PublishedFileError(f"{self._other_weights(path)}; replace the file")
        return weight, bias

    def _other_weights(self, path: Path) -> str:
        return f"{path} is damaged or holds other weights than the published {self.file.title}"

    def _read(self, read: Callable[[Path], ReadT], path: Path) -> ReadT:
        try:
            return read(path)
        # A reader that says what to do says it best.
        except LookListenError:
            raise
        # Damaged bytes can make a reader fail in any way.
        except Exception as error:
            reason = str(error).partition("\n")[0] or type(error).__name__
            raise PublishedFileError(
                f"{path} does not hold the weights of {self.file.title} ({reason}); "
                f"give {' or '.join(self.file.names)}"
            ) from None


def state_sha256(state: Mapping[str, Tensor]) -> str:
    """A hash of names, shapes and values: equal for equal weights, whatever file they come from."""
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        values = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {values.dtype} {list(values.shape)}".encode())
        # `reshape` because `view` to another item size needs at least one axis.
        digest.update(values.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
