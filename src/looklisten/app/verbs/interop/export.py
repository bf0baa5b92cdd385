"""The verb `export`: the towers for other programs, as safetensors or ONNX."""

from pathlib import Path
from typing import Annotated, Literal

import tyro
from tyro.conf import Positional

from looklisten.app.command_line import NETWORK_HELP
from looklisten.app.output import Output
from looklisten.system.files import check_writable


def run_export(
    network: Annotated[Positional[str], tyro.conf.arg(metavar="RUN", help=NETWORK_HELP)],
    out: Annotated[Positional[Path], tyro.conf.arg(metavar="OUT")],
    /,
    format: Literal["safetensors", "onnx"] = "safetensors",
    side: Literal["audio", "vision", "both"] = "both",
    layer: str | None = None,
) -> Output:
    """Write the towers for use in other programs: as safetensors, or as ONNX with the front end.

    Args:
        out: Folder to write into.
        format: safetensors (weights of audio, vision and both, and a README on loading them) or
            onnx (checked against PyTorch).
        side: Which tower.
        layer: With onnx: the layer whose vector is the output, such as pool4, conv4_2 or aligned;
            by default the usual one of each side.
    """
    from looklisten.interop.export import export

    check_writable(out)
    return Output(export(network, out, format, side, layer or ""))
