"""A network as a folder that others load: `config.json`, weights as safetensors, `README.md`. Never
a pickle; asks no service.

The config says how the network is built, what it was trained on and what was measured; the weights
have the network's own keys.
"""

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import Tensor

from looklisten.interop.card import model_card
from looklisten.model.checkpoint import Checkpoint, sha256_of
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
MEASURES = ("held_out_accuracy", "probe_audio", "probe_vision")


def write_pretrained(folder: Path, network: L3Net, saved: Checkpoint | None, name: str) -> Path:
    """`network` as a folder, called `name` in its card; `saved` is the checkpoint it comes from, if
    it comes from one.
    """
    about = describe(network, saved)
    write_weights(folder, {NETWORK_FILES[0]: network.state_dict()}, about)
    write_text(folder / "README.md", model_card(name, about))
    return folder


def write_weights(
    folder: Path, files: Mapping[str, Mapping[str, Tensor]], about: dict[str, Any]
) -> None:
    """Safetensors files and, last, the config that has their hashes, so that a half-written folder
    is known as one.
    """
    for name, tensors in files.items():
        with atomic_write(folder / name) as scratch:
            scratch.write_bytes(
                save(
                    {key: value.detach().cpu().contiguous() for key, value in tensors.items()},
                    {"format": "pt"},
                )
            )
    write_json(
        folder / CONFIG_NAME, about | {"sha256": {name: sha256_of(folder / name) for name in files}}
    )


def write_text(path: Path, text: str) -> None:
    """Whole or absent."""
    with atomic_write(path) as scratch:
        scratch.write_text(text, encoding="utf-8")


def describe(network: L3Net, saved: Checkpoint | None) -> dict[str, Any]:
    """What a `config.json` says of a network, but for the hashes. Step 0 is one that comes from no
    run.
    """
    config, run = network.config, saved if saved and saved.step else None
    return {
        "library_name": LIBRARY,
        "looklisten_version": version("looklisten"),
        "step": run.step if run else 0,
        "config": run.config.model_dump(mode="json")
        if run
        else {"model": config.model_dump(mode="json")},
        "results": dict(run.results) if run else {},
        **(_facts(run) if run else {name: {} for name in FACTS}),
        "front_end": [config.front_end, config.window],
        "towers": {"audio": network.audio.settings(), "vision": network.vision.settings()},
    }


def _facts(saved: Checkpoint) -> dict[str, Any]:
    """What the run knows of itself up to this checkpoint; each measurement with the step it was
    made at.
    """
    from looklisten.training.held_out import EVALUATED_PAIRS
    from looklisten.training.metrics_log import read_metrics
    from looklisten.training.run_facts import read_run_facts

    if is_published(saved.path):  # it came as such a folder and goes as one
        about = read_published_config(saved.path)
        return {name: about.get(name, {}) for name in FACTS}
    run = saved.path.parent.parent if saved.path.parent.name == "checkpoints" else saved.path
    rows = [row for row in read_metrics(run) if row["step"] <= saved.step] + [
        {"step": saved.step} | dict(saved.results)
    ]
    measured = {
        name: {"value": row[name], "step": row["step"]}
        for row in rows
        for name in MEASURES
        if name in row
    }
    if accuracy := measured.get(MEASURES[0]):
        accuracy["pairs"] = EVALUATED_PAIRS
    return {"made": read_run_facts(run), "measured": measured}
