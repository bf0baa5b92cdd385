"""A network on disk: safetensors and JSON, enough to build it again, never a pickle. Whole or
absent, and it knows when it is damaged.

A checkpoint is a folder: `model.safetensors`, `optimizer.safetensors`, and `checkpoint.json` with
the step, the whole config and the hash of both files.
"""

import hashlib
import json
import math
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from looklisten.config import Config
from looklisten.errors import CheckpointError
from looklisten.model.l3net import L3Net
from looklisten.model.objectives import build_objective
from looklisten.system.files import atomic_write

STEP_FOLDER = re.compile(r"step-(\d{9})")


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A saved moment of training."""

    path: Path
    step: int
    config: Config
    results: Mapping[str, float]
    """What was measured on held-out videos at this step; empty when nothing was."""
    weights: str = "model.safetensors"
    computing: Mapping[str, str] = field(default_factory=dict)
    """How its steps were computed: precision, compile, device, hardware; empty for a checkpoint of
    an older version.
    """

    def model(self, strict: bool = True) -> L3Net:
        """The network, in evaluation mode, on the CPU. Not `strict`: parts that the file lacks
        begin at random, others are left out.
        """
        network = L3Net(self.config.model)
        try:
            network.load_state_dict(self._tensors(self.weights), strict=strict)
        except RuntimeError as error:
            raise CheckpointError(
                f"the weights in {self.path} do not fit its own config: {str(error).splitlines()[-1].strip()}"
            ) from None
        network.initial_seed = self.config.train.seed if self.step else None
        return network.eval()

    def objective(self) -> nn.Module:
        """What it was asked in training, with the weights that only the question has, in evaluation
        mode, on the CPU.
        """
        asked = build_objective(self.config)
        own = {
            key.removeprefix("objective/"): value
            for key, value in self.optimizer().items()
            if key.startswith("objective/")
        }
        try:
            asked.load_state_dict(own)
        except RuntimeError as error:
            raise CheckpointError(
                f"the objective in {self.path} does not fit its own config: {str(error).splitlines()[-1].strip()}"
            ) from None
        return asked.eval()

    def optimizer(self) -> dict[str, Tensor]:
        """The optimizer's tensors by `parameter name/moment`."""
        return self._tensors("optimizer.safetensors")

    def _tensors(self, name: str) -> dict[str, Tensor]:
        try:
            return load_file(self.path / name)
        except (OSError, SafetensorError) as error:
            raise CheckpointError(
                f"{self.path / name} cannot be read ({error}); take another checkpoint"
            ) from None


def save_checkpoint(
    folder: Path,
    step: int,
    config: Config,
    model: Mapping[str, Tensor],
    optimizer: Mapping[str, Tensor],
    results: Mapping[str, float],
    computing: Mapping[str, str] | None = None,
) -> Path:
    """Write `folder/step-000000100`; a crash leaves it whole or absent. `computing`: how its steps
    were computed.
    """
    path = folder / f"step-{step:09d}"
    with atomic_write(path) as scratch:
        scratch.mkdir()
        for name, tensors in (("model", model), ("optimizer", optimizer)):
            # Through bytes, so that a full disk is an OSError like any other.
            (scratch / f"{name}.safetensors").write_bytes(
                save({key: value.contiguous() for key, value in tensors.items()})
            )
        about = {
            "step": step,
            "config": config.model_dump(mode="json"),
            "results": dict(results),
            "computing": dict(computing or {}),
            "sha256": {
                file.name: sha256_of(file) for file in sorted(scratch.glob("*.safetensors"))
            },
        }
        (scratch / "checkpoint.json").write_text(
            json.dumps(about, indent=1) + "\n", encoding="utf-8"
        )
    return path


def sha256_of(file: Path) -> str:
    """Of the file's bytes, in hexadecimal."""
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def saved_steps(folder: Path) -> list[Path]:
    """The checkpoints in `folder`, oldest first."""
    return sorted(path for path in folder.glob("step-*") if STEP_FOLDER.fullmatch(path.name))


def step_of(checkpoint: Path) -> int:
    """The step that a checkpoint's folder names."""
    return int(checkpoint.name.removeprefix("step-"))


def prune_checkpoints(folder: Path, keep: int) -> None:
    """Remove all but the newest `keep` and the one with the highest held-out accuracy, which
    `folder/best` then links to.
    """
    saved = saved_steps(folder)
    best = best_saved(folder)[1]
    if best:
        link = folder / f".best-{os.getpid()}"
        link.unlink(missing_ok=True)
        link.symlink_to(best.name)
        if (folder / "best").is_dir() and not (folder / "best").is_symlink():
            shutil.rmtree(folder / "best")  # a copy of a run may have turned the link into a folder
        link.replace(folder / "best")
    for old in saved[:-keep]:
        if old != best:
            # A crash half-way leaves no folder that looks whole: its JSON goes first.
            (old / "checkpoint.json").unlink(missing_ok=True)
            shutil.rmtree(old)


def best_saved(folder: Path) -> tuple[float, Path | None]:
    """The highest held-out accuracy among the checkpoints in `folder`, and where it is; (NaN, None)
    when none was measured.
    """
    measured = [
        (accuracy, path)
        for path in saved_steps(folder)
        if (accuracy := _held_out_accuracy(path)) is not None
    ]
    return max(measured, default=(math.nan, None))


def _held_out_accuracy(path: Path) -> float | None:
    """What was measured at this very checkpoint; None when nothing was, or it cannot be read."""
    try:
        accuracy: float | None = json.loads((path / "checkpoint.json").read_text(encoding="utf-8"))[
            "results"
        ].get("held_out_accuracy")
    except (OSError, ValueError, KeyError):
        return None
    return accuracy


def open_checkpoint(path: str | Path) -> Checkpoint:
    """A checkpoint by its own folder, by its run's folder or by the run's `checkpoints` folder
    (then the newest whole one).

    Raises CheckpointError, one sentence, when there is none or it is damaged.
    """
    path = Path(path)
    if (path / "checkpoint.json").is_file():
        return read_checkpoint(path)
    saved = saved_steps(path / "checkpoints" if (path / "checkpoints").is_dir() else path)
    if not saved:
        what = "holds no checkpoint" if path.exists() else "is not there"
        raise CheckpointError(
            f"{path} {what}; give the folder of a run that `looklisten train` wrote, or one of its checkpoints"
        )
    damage: list[str] = []
    for candidate in reversed(saved):
        try:
            return read_checkpoint(candidate)
        except CheckpointError as error:
            damage.append(str(error))
    raise CheckpointError(f"no checkpoint of {path} is whole: {damage[0]}")


def read_checkpoint(
    path: Path, about_name: str = "checkpoint.json", weights: str = "model.safetensors"
) -> Checkpoint:
    """The folder `path` as the JSON file in it describes it: step, config, results, and the hashes
    that its files must have.

    Raises CheckpointError, one sentence, when it is damaged.
    """
    try:
        about: dict[str, Any] = json.loads((path / about_name).read_text(encoding="utf-8"))
        for name, digest in about["sha256"].items():
            if sha256_of(path / name) != digest:
                raise CheckpointError(
                    f"{path / name} is damaged: its bytes are not those that were written"
                )
        config = Config.of(about["config"], f"{path / about_name}")
        return Checkpoint(
            path, about["step"], config, about["results"], weights, about.get("computing", {})
        )
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"{path / about_name} is damaged: {error}") from None
