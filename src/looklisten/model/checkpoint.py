"""A network on disk: safetensors and JSON, enough to build it again, never a pickle.

A checkpoint is a folder: `model.safetensors`, `optimizer.safetensors`, and `checkpoint.json` with
the step, the whole config and the hashes of both files. It is written atomically, and the hashes
show damage. A tower that still has the published weights of its backbone is not stored: the
checkpoint has the hash of these weights, and reads them from the published file.
"""

import hashlib
import json
import math
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from looklisten.config import SIDES, Config, ModelConfig, Side
from looklisten.errors import CheckpointError
from looklisten.model.backbones import feature_counts, find_backbone
from looklisten.model.calibration import Calibration
from looklisten.model.l3net import L3Net
from looklisten.model.objectives import Objective, build_objective
from looklisten.model.published_weights import state_sha256
from looklisten.system.files import atomic_write, write_json

CALIBRATION = "calibration"
"""The entry of the JSON file for how log-odds become a probability."""
METADATA_NAME = "checkpoint.json"
STEP_FOLDER = re.compile(r"step-(\d{9})")


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A network at one step of its training, as it is on disk."""

    path: Path
    step: int
    config: Config
    results: Mapping[str, float]
    """What was measured on held-out videos at this step; empty when nothing was."""
    weights: str = "model.safetensors"
    computation: Mapping[str, str] = field(default_factory=dict)
    """How its steps were computed: precision, compile, device, hardware.

    Empty for a checkpoint of an older version.
    """
    calibration: Calibration | None = None
    """None where nobody calibrated the network."""
    metadata_name: str = METADATA_NAME
    """The JSON file that describes it."""
    published: Mapping[Side, str] = field(default_factory=dict)
    """The hash of the weights of each tower that is not stored, because others publish it."""

    def model(self, strict: bool = True) -> L3Net:
        """The network, in evaluation mode, on the CPU.

        If not `strict`, parts that the file lacks keep their initial weights, and other parts of
        the file are ignored. Raises CheckpointError when the weights do not fit the config, and
        PublishedFileError when a tower that others publish cannot be had.
        """
        network = L3Net(self.config.model)
        try:
            network.load_state_dict(self.network_tensors(), strict=strict)
        except RuntimeError as error:
            raise CheckpointError(
                f"the weights in {self.path} do not fit its own config: {_last_line(error)}"
            ) from None
        # A network of step 0 comes from no run, so nobody knows its seed.
        network.initial_seed = self.config.train.seed if self.step else None
        network.calibration = self.calibration
        return network.eval()

    def objective(self) -> Objective:
        """The objective with its own weights, in evaluation mode, on the CPU.

        Raises CheckpointError when the weights do not fit the config.
        """
        objective = build_objective(self.config, feature_counts(self.config.model))
        weights = {}
        for name, value in self.optimizer().items():
            if name.startswith("objective/"):
                weights[name.removeprefix("objective/")] = value
        try:
            objective.load_state_dict(weights)
        except RuntimeError as error:
            raise CheckpointError(
                f"the objective in {self.path} does not fit its own config: {_last_line(error)}"
            ) from None
        return objective.eval()

    @property
    def has_objective(self) -> bool:
        """Whether the objective was saved too; a published network comes without."""
        return (self.path / "optimizer.safetensors").is_file()

    def optimizer(self) -> dict[str, Tensor]:
        """The optimizer's tensors by `parameter/key`, and the objective's by `objective/name`."""
        return self._tensors("optimizer.safetensors")

    def network_tensors(self) -> dict[str, Tensor]:
        """The weights of the whole network, with the towers that others publish.

        Raises CheckpointError or PublishedFileError.
        """
        tensors = self._tensors(self.weights)
        for side, expected in self.published.items():
            name = self.config.model.backbone_of(side)
            published = find_backbone(name).published
            if published is None:
                raise CheckpointError(f"{self.path} needs published weights of {name}; none exist")
            train = self.config.train
            origin = train.vision_from if side == "vision" else train.audio_from
            # The run may have begun with a file of the user, which need not be in the cache.
            state = published.load(origin if Path(origin).is_file() else None)
            if state_sha256(state) != expected:
                raise CheckpointError(
                    f"{self.path} was trained with other weights of {name} than those of the "
                    f"file here; check {published.file.mirror_variable} and the cache"
                )
            tensors |= {f"{side}.{key}": value for key, value in state.items()}
        return tensors

    def _tensors(self, name: str) -> dict[str, Tensor]:
        try:
            return load_file(self.path / name)
        except (OSError, SafetensorError) as error:
            raise CheckpointError(
                f"{self.path / name} cannot be read ({error}); take another checkpoint"
            ) from None


def _last_line(error: Exception) -> str:
    # PyTorch's messages name the problem at their end.
    return str(error).splitlines()[-1].strip()


def save_checkpoint(
    folder: Path,
    step: int,
    config: Config,
    model: Mapping[str, Tensor],
    optimizer: Mapping[str, Tensor],
    results: Mapping[str, float],
    computation: Mapping[str, str] | None = None,
    calibration: Calibration | None = None,
) -> Path:
    """Write `folder/step-000000100` atomically. `computation`: how its steps were computed."""
    published = published_towers(config.model, model)
    stored = {
        name: value for name, value in model.items() if name.partition(".")[0] not in published
    }
    # Nine digits, so that names sort in the order of their steps.
    path = folder / f"step-{step:09d}"
    with atomic_write(path) as scratch:
        scratch.mkdir()
        for name, tensors in (("model", stored), ("optimizer", optimizer)):
            # Weights are channels-last, and safetensors refuses tensors that are not contiguous.
            contiguous = {key: value.contiguous() for key, value in tensors.items()}
            # Through bytes, so that a full disk is an OSError like any other.
            (scratch / f"{name}.safetensors").write_bytes(save(contiguous))
        files = sorted(scratch.glob("*.safetensors"))
        metadata = {
            "step": step,
            "config": config.model_dump(mode="json"),
            "results": dict(results),
            "computing": dict(computation or {}),
            "published": dict(published),
            "sha256": {file.name: sha256_of(file) for file in files},
        }
        if calibration is not None:
            metadata[CALIBRATION] = calibration.as_dict()
        text = json.dumps(metadata, indent=1) + "\n"
        (scratch / METADATA_NAME).write_text(text, encoding="utf-8")
    return path


def published_towers(config: ModelConfig, model: Mapping[str, Tensor]) -> dict[Side, str]:
    """The hash of the weights of each tower that has exactly those that others publish."""
    unchanged: dict[Side, str] = {}
    for side in SIDES:
        published = find_backbone(config.backbone_of(side)).published
        if published is None:
            continue
        prefix = f"{side}."
        state = {
            name.removeprefix(prefix): value
            for name, value in model.items()
            if name.startswith(prefix)
        }
        if state_sha256(state) == published.sha256:
            unchanged[side] = published.sha256
    return unchanged


def save_calibration(checkpoint: Checkpoint, calibration: Calibration | None) -> Checkpoint:
    """Write a calibration into a checkpoint or a published folder; None removes it.

    The weights stay as they are.
    """
    path = checkpoint.path / checkpoint.metadata_name
    metadata = json.loads(path.read_text(encoding="utf-8"))
    metadata.pop(CALIBRATION, None)
    if calibration is not None:
        metadata[CALIBRATION] = calibration.as_dict()
    write_json(path, metadata)
    return replace(checkpoint, calibration=calibration)


def sha256_of(file: Path) -> str:
    """The hash of a file's bytes, in hexadecimal."""
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def saved_steps(folder: Path) -> list[Path]:
    """The checkpoints in `folder`, oldest first."""
    return sorted(path for path in folder.glob("step-*") if STEP_FOLDER.fullmatch(path.name))


def step_of(checkpoint: Path) -> int:
    """The step in the name of a checkpoint's folder."""
    return int(checkpoint.name.removeprefix("step-"))


def prune_checkpoints(folder: Path, keep: int) -> None:
    """Remove all but the newest `keep` and the one with the highest held-out accuracy.

    `folder/best` becomes a link to the latter.
    """
    saved = saved_steps(folder)
    best = best_saved(folder)[1]
    if best:
        _link_best(folder, best)
    for old in saved[:-keep]:
        if old != best:
            # The JSON is removed first. So a crash in between leaves no folder that looks complete.
            (old / METADATA_NAME).unlink(missing_ok=True)
            shutil.rmtree(old)


def _link_best(folder: Path, best: Path) -> None:
    link = folder / "best"
    new_link = folder / f".best-{os.getpid()}"
    new_link.unlink(missing_ok=True)
    # A link under another name, then a rename: `best` leads to a checkpoint at any time.
    new_link.symlink_to(best.name)
    if link.is_dir() and not link.is_symlink():
        # Copying a run may have turned the link into a folder.
        shutil.rmtree(link)
    new_link.replace(link)


def best_saved(folder: Path) -> tuple[float, Path | None]:
    """The highest held-out accuracy among the checkpoints in `folder`, and the checkpoint.

    Of equal ones the newest. (NaN, None) when none was measured.
    """
    measured = []
    for path in saved_steps(folder):
        accuracy = _held_out_accuracy(path)
        if accuracy is not None:
            measured.append((accuracy, path))
    # Of equal accuracies the paths are compared, so the later step wins.
    return max(measured, default=(math.nan, None))


def _held_out_accuracy(path: Path) -> float | None:
    """What was measured at this checkpoint; None when nothing was, or it cannot be read."""
    try:
        metadata = json.loads((path / METADATA_NAME).read_text(encoding="utf-8"))
        accuracy: float | None = metadata["results"].get("held_out_accuracy")
    except (OSError, ValueError, KeyError):
        return None
    return accuracy


def open_checkpoint(path: str | Path) -> Checkpoint:
    """The checkpoint at `path`: its own folder, its run, or the run's `checkpoints` folder.

    In the last two cases it is the newest that is not damaged. Raises CheckpointError, one
    sentence, when there is none.
    """
    path = Path(path)
    if (path / METADATA_NAME).is_file():
        return read_checkpoint(path)
    saved = saved_steps(path / "checkpoints" if (path / "checkpoints").is_dir() else path)
    if not saved:
        problem = "holds no checkpoint" if path.exists() else "is not there"
        raise CheckpointError(
            f"{path} {problem}; give the folder of a run that `looklisten train` wrote, "
            f"or one of its checkpoints"
        )
    damages: list[str] = []
    for candidate in reversed(saved):
        try:
            return read_checkpoint(candidate)
        except CheckpointError as error:
            damages.append(str(error))
    raise CheckpointError(f"all checkpoints of {path} are damaged: {damages[0]}")


def read_checkpoint(
    path: Path, metadata_name: str = METADATA_NAME, weights: str = "model.safetensors"
) -> Checkpoint:
    """The checkpoint in the folder `path`, as the JSON file `metadata_name` in it describes it.

    Raises CheckpointError, one sentence, when a file is damaged.
    """
    try:
        metadata: dict[str, Any] = json.loads((path / metadata_name).read_text(encoding="utf-8"))
        for name, digest in metadata["sha256"].items():
            if sha256_of(path / name) != digest:
                raise CheckpointError(
                    f"{path / name} is damaged: its bytes are not those that were written"
                )
        config = Config.of(metadata["config"], f"{path / metadata_name}")
        computation = metadata.get("computing", {})
        calibration = metadata.get(CALIBRATION)
        return Checkpoint(
            path,
            metadata["step"],
            config,
            metadata["results"],
            weights,
            computation,
            Calibration.of(calibration) if calibration else None,
            metadata_name,
            metadata.get("published", {}),
        )
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"{path / metadata_name} is damaged: {error}") from None
