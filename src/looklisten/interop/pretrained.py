"""Writes a network as a folder that others load: `config.json`, safetensors and `README.md`.

The config says how the network is built, what it was trained on and what was measured. Never a
pickle. Asks no server. `model/published_folder.py` reads such folders.
"""

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import Tensor

from looklisten.config import SIDES
from looklisten.interop.card import model_card
from looklisten.model.checkpoint import CALIBRATION, Checkpoint, sha256_of
from looklisten.model.l3net import L3Net
from looklisten.model.published_folder import (
    CONFIG_NAME,
    LIBRARY,
    NETWORK_FILES,
    is_published,
    read_published_config,
)
from looklisten.system.files import atomic_write, write_json

FACTS = ("made", "measured")
MEASURED_NAMES = ("held_out_accuracy", "probe_audio", "probe_vision")


def write_pretrained(
    folder: Path, network: L3Net, checkpoint: Checkpoint | None, title: str
) -> Path:
    """Write `network` into `folder`.

    `checkpoint`: where the network comes from, if it comes from a checkpoint. `title`: what the
    model card calls the network.
    """
    description = describe(network, checkpoint)
    write_weights(folder, {NETWORK_FILES[0]: network.state_dict()}, description)
    write_text(folder / "README.md", model_card(title, description))
    return folder


def write_weights(
    folder: Path, files: Mapping[str, Mapping[str, Tensor]], description: dict[str, Any]
) -> None:
    """Write safetensors files, then the `config.json` with `description` and the files' hashes."""
    for name, tensors in files.items():
        plain_tensors = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
        with atomic_write(folder / name) as scratch:
            scratch.write_bytes(save(plain_tensors, {"format": "pt"}))
    hashes = {name: sha256_of(folder / name) for name in files}
    # Last, so that a folder that was interrupted does not look complete.
    write_json(folder / CONFIG_NAME, description | {"sha256": hashes})


def write_text(path: Path, text: str) -> None:
    """Write a text file that is either complete or absent."""
    with atomic_write(path) as scratch:
        scratch.write_text(text, encoding="utf-8")


def describe(network: L3Net, checkpoint: Checkpoint | None) -> dict[str, Any]:
    """What a `config.json` says of a network, without the hashes.

    A network without training has step 0, no results, and only `model` in its config.
    """
    model_config = network.config
    calibration = network.calibration
    description: dict[str, Any] = {
        "library_name": LIBRARY,
        "looklisten_version": version("looklisten"),
    }
    if checkpoint and checkpoint.step:
        description["step"] = checkpoint.step
        description["config"] = checkpoint.config.model_dump(mode="json")
        description["results"] = dict(checkpoint.results)
        description |= _facts(checkpoint)
    else:
        description["step"] = 0
        description["config"] = {"model": model_config.model_dump(mode="json")}
        description["results"] = {}
        description |= {name: {} for name in FACTS}
    if calibration is not None:
        description[CALIBRATION] = calibration.as_dict()
    description["front_end"] = [model_config.front_end, model_config.window]
    description["backbones"] = {side: model_config.backbone_of(side) for side in SIDES}
    description["towers"] = {"audio": network.audio.settings(), "vision": network.vision.settings()}
    return description


def _facts(checkpoint: Checkpoint) -> dict[str, Any]:
    """What the run recorded of itself up to this checkpoint."""
    # Not at the top, so that loading a network does not import training.
    from looklisten.training.held_out import EVALUATED_PAIRS
    from looklisten.training.metrics_log import read_metrics
    from looklisten.training.run_facts import read_run_facts

    path = checkpoint.path
    if is_published(path):  # a published folder that is published again keeps its facts
        description = read_published_config(path)
        return {name: description.get(name, {}) for name in FACTS}
    run = path.parent.parent if path.parent.name == "checkpoints" else path
    rows = [row for row in read_metrics(run) if row["step"] <= checkpoint.step]
    rows.append({"step": checkpoint.step} | dict(checkpoint.results))
    measured: dict[str, dict[str, Any]] = {}
    for row in rows:
        for name in MEASURED_NAMES:
            if name in row:  # a later row takes the place of an earlier one
                measured[name] = {"value": row[name], "step": row["step"]}
    if accuracy := measured.get("held_out_accuracy"):
        accuracy["pairs"] = EVALUATED_PAIRS
    return {"made": read_run_facts(run), "measured": measured}
