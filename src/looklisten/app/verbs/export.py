"""The verb `export`."""

from pathlib import Path
from typing import Annotated, Literal

import tyro
from tyro.conf import Positional

from looklisten.app.output import Result
from looklisten.system.files import check_writable


def export(
    network: Annotated[Positional[str], tyro.conf.arg(metavar="RUN")],
    out: Annotated[Positional[Path], tyro.conf.arg(metavar="OUT")],
    /,
    format: Literal["safetensors", "onnx"] = "safetensors",
    side: Literal["audio", "vision", "both"] = "both",
    layer: Literal["pool4", "conv4_2", "aligned"] | None = None,
) -> Result:
    """Write the towers on their own, for other programs: weights with plain keys, or ONNX with the
    front end inside.

    Args:
        network: Folder of a run, of one checkpoint or of a published network, or a name on the
            Hugging Face Hub (org/name).
        out: Folder to write into.
        format: safetensors (audio, vision and full weights with a README on loading them) or onnx
            (checked against PyTorch).
        side: Which tower.
        layer: With onnx: which layer is the vector; by default pool4.
    """
    from looklisten.interop.export import export as run

    check_writable(out)
    return run(network, out, format, side, layer or "")
