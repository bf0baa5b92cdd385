"""Exports single towers for other programs: as weights with plain keys, or as ONNX.

A tower in ONNX contains its front end. Knows files; how ONNX is written is in `interop/onnx.py`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from looklisten.config import Side
from looklisten.errors import CheckpointError, ConfigError
from looklisten.inference.towers import layers_of
from looklisten.interop.pretrained import describe, write_text, write_weights
from looklisten.model.networks import Run, encoder_refusal, is_openl3, open_network
from looklisten.model.published_folder import NETWORK_FILES

ExportedSides = Literal["audio", "vision", "both"]
ExportFormat = Literal["safetensors", "onnx"]

README = """\
# Towers of an L3-Net

Written by `looklisten export`. `config.json` says how they are built, what they were trained on and
what was measured.
"""

SNIPPETS: Mapping[Side, str] = {
    "audio": """
```python
import json, pathlib, torch
from safetensors.torch import load_file
from looklisten.media.spectrogram import WINDOW_SAMPLES, LogSpectrogram, round_to_int16
from looklisten.model.backbones import find_backbone

about = json.loads(pathlib.Path("config.json").read_text())
front_end = LogSpectrogram(*about["front_end"])
backbone = find_backbone(about["backbones"]["audio"])
tower = backbone(**about["towers"]["audio"]).eval()
tower.load_state_dict(load_file("audio.safetensors"))
sound = torch.zeros(1, WINDOW_SAMPLES)  # a second at 48 kHz, int16 or floats in -1..1
# Rounded to 16 bits, as in training.
vectors = tower(front_end(round_to_int16(sound))).vector
```
""",
    "vision": """
```python
import json, pathlib, torch
from safetensors.torch import load_file
from looklisten.model.backbones import find_backbone

about = json.loads(pathlib.Path("config.json").read_text())
backbone = find_backbone(about["backbones"]["vision"])
tower = backbone(**about["towers"]["vision"]).eval()
tower.load_state_dict(load_file("vision.safetensors"))
model = about["config"]["model"]
frames = torch.zeros(1, 3, 224, 224, dtype=torch.uint8)  # shorter side model["resize_pixels"]
# Neighboring frames lie next to each other in the channels.
frames = frames.repeat(1, model["frames_per_pair"], 1, 1)
vectors = tower(frames / 255 * 2 - 1).vector
```
""",
}
NETWORK_SNIPPET = """
The complete network, from the folder that contains this one:

```python
import looklisten as ll
model = ll.load("{name}")
```
"""


def export(
    name: str | Path,
    out: str | Path,
    format: ExportFormat = "safetensors",
    side: ExportedSides = "both",
    layer: str = "",
) -> dict[str, Any]:
    """Write towers of a network into the folder `out`; other files of the folder stay.

    name: as for `looklisten.open`.
    format: `safetensors` writes `audio.safetensors` and `vision.safetensors` with the towers' own
        keys, and with both sides `full.safetensors`, the complete network. `onnx` writes
        `audio.onnx` and `vision.onnx` with the front end inside.
    layer: with `onnx`, the layer that is the output, by default the usual one of each side.

    Raises ConfigError for a layer or a format that the network does not have.
    """
    if format == "safetensors" and layer:
        raise ConfigError(
            f"weights hold every layer, so there is no {layer} to choose; "
            "--layer is for --format onnx"
        )
    if is_openl3(name):
        # Asked before it is opened, which would download it.
        raise CheckpointError(encoder_refusal(str(name)))
    run = open_network(name)
    sides: tuple[Side, ...] = ("audio", "vision") if side == "both" else (side,)
    if format == "safetensors":
        return _export_weights(run, Path(out), sides)
    return _export_onnx(run, Path(out), sides, layer)


def _export_weights(run: Run, out: Path, sides: tuple[Side, ...]) -> dict[str, Any]:
    network = run.l3net
    is_complete = len(sides) == 2
    weights = {f"{side}.safetensors": getattr(network, side).state_dict() for side in sides}
    readme = README + "".join(SNIPPETS[side] for side in sides)
    if is_complete:
        weights[NETWORK_FILES[1]] = network.state_dict()
        readme += NETWORK_SNIPPET.format(name=out.name)
    write_weights(out, weights, describe(network, run.checkpoint))
    write_text(out / "README.md", readme)
    return {
        "files": [str(out / name) for name in weights],
        "tensors": {name: len(tensors) for name, tensors in weights.items()},
    }


def _export_onnx(run: Run, out: Path, sides: tuple[Side, ...], layer: str) -> dict[str, Any]:
    # Not at the top, because onnx is an optional extra.
    from looklisten.interop.onnx import write_onnx

    network = run.l3net
    layers = {side: layer or layers_of(network, side)[0] for side in sides}
    files = []
    differences = {}
    for side in sides:
        file = out / f"{side}.onnx"
        differences[side] = write_onnx(network, side, layers[side], file, run.checkpoint)
        files.append(str(file))
    return {"files": files, "layers": layers, "max_relative_difference": differences}
