"""Towers on their own, for other people's programs: weights with plain keys, or ONNX with the front
end inside.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from looklisten.config import Side
from looklisten.errors import ConfigError
from looklisten.interop.pretrained import describe, write_text, write_weights
from looklisten.model.networks import Run, open_network
from looklisten.model.published_folder import NETWORK_FILES

Wanted = Literal["audio", "vision", "both"]
Format = Literal["safetensors", "onnx"]

README = """\
# Towers of an L3-Net

Written by `looklisten export`. `config.json` says how they are built, what they were trained on and what was measured.
"""

SNIPPETS: Mapping[Side, str] = {
    "audio": """
```python
import json, pathlib, torch
from safetensors.torch import load_file
from looklisten.media.spectrogram import LogSpectrogram, round_to_int16
from looklisten.model.backbones import BACKBONES

about = json.loads(pathlib.Path("config.json").read_text())
front_end = LogSpectrogram(*about["front_end"])
tower = BACKBONES[about["config"]["model"]["backbone"]](**about["towers"]["audio"]).eval()
tower.load_state_dict(load_file("audio.safetensors"))
sound = torch.zeros(1, 48_000)  # a second at 48 kHz, int16 or floats in -1..1
vectors = tower(front_end(round_to_int16(sound))).vector  # rounded to 16 bits, as in training
```
""",
    "vision": """
```python
import json, pathlib, torch
from safetensors.torch import load_file
from looklisten.model.backbones import BACKBONES

about = json.loads(pathlib.Path("config.json").read_text())
tower = BACKBONES[about["config"]["model"]["backbone"]](**about["towers"]["vision"]).eval()
tower.load_state_dict(load_file("vision.safetensors"))
model, frames = about["config"]["model"], torch.zeros(1, 3, 224, 224, dtype=torch.uint8)  # shorter side model["resize_pixels"]
vectors = tower(frames.repeat(1, model["frames_per_pair"], 1, 1) / 255 * 2 - 1).vector  # neighbouring frames side by side
```
""",
}
WHOLE_SNIPPET = """
The whole network, from the folder that this one lies in:

```python
import looklisten as ll
model = ll.load("{name}")
```
"""


def export(
    where: str | Path,
    out: str | Path,
    format: Format = "safetensors",
    side: Wanted = "both",
    layer: str = "",
) -> dict[str, Any]:
    """Write towers of the network `where` (whatever `load` takes) into the folder `out`, beside
    what it already holds.

    `safetensors`: `audio.safetensors` and `vision.safetensors` with the tower's own keys, and with
        both sides `full.safetensors`, the whole network. `onnx`: `audio.onnx` and `vision.onnx`,
        front end inside, whose output is the vector `layer` (pool4, the default, conv4_2 or
        aligned); see `looklisten.interop.onnx`. Raises ConfigError for what the network or format
        has not.
    """
    if format == "safetensors" and layer:
        raise ConfigError(
            f"weights hold every layer, so there is no {layer} to choose; --layer is for --format onnx"
        )
    run = open_network(where)
    sides: tuple[Side, ...] = ("audio", "vision") if side == "both" else (side,)
    return (
        _weights(run, Path(out), sides)
        if format == "safetensors"
        else _onnx(run, Path(out), sides, layer or "pool4")
    )


def _weights(run: Run, out: Path, sides: tuple[Side, ...]) -> dict[str, Any]:
    network, both = run.l3net, len(sides) > 1
    files = {f"{side}.safetensors": getattr(network, side).state_dict() for side in sides}
    if both:
        files[NETWORK_FILES[1]] = network.state_dict()
    write_weights(out, files, describe(network, run.checkpoint))
    whole = WHOLE_SNIPPET.format(name=out.name) if both else ""
    write_text(out / "README.md", README + "".join(SNIPPETS[side] for side in sides) + whole)
    return {
        "files": [str(out / name) for name in files],
        "tensors": {name: len(tensors) for name, tensors in files.items()},
    }


def _onnx(run: Run, out: Path, sides: tuple[Side, ...], layer: str) -> dict[str, Any]:
    from looklisten.interop.onnx import write_onnx

    network, files = run.l3net, {side: out / f"{side}.onnx" for side in sides}
    differences = {
        side: write_onnx(network, side, layer, path, run.checkpoint) for side, path in files.items()
    }
    return {
        "files": list(map(str, files.values())),
        "layer": layer,
        "max_relative_difference": differences,
    }
