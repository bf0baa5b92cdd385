"""The verb `convert`: weight files of OpenL3 -> safetensors and JSON."""

from pathlib import Path
from typing import Annotated

import tyro
from tyro.conf import Positional

from looklisten.app.output import Output
from looklisten.system.files import check_writable


def run_convert(
    weights: Annotated[Positional[str], tyro.conf.arg(metavar="WEIGHTS.h5")],
    out: Annotated[Positional[Path], tyro.conf.arg(metavar="OUT")],
    /,
) -> Output:
    """Convert a weight file of OpenL3 into a folder of safetensors and JSON.

    Args:
        weights: Keras file (.h5, .h5.gz) with the name that OpenL3 gives it, or a published network
            such as openl3:audio-mel256-env.
        out: Folder to write.
    """
    from looklisten.interop.openl3 import convert

    check_writable(out)
    return Output(convert(weights, out))
