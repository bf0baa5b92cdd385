"""The verb `convert`."""

from pathlib import Path
from typing import Annotated

import tyro
from tyro.conf import Positional

from looklisten.app.output import Result
from looklisten.system.files import check_writable


def convert(
    weights: Annotated[Positional[str], tyro.conf.arg(metavar="WEIGHTS.h5")],
    out: Annotated[Positional[Path], tyro.conf.arg(metavar="OUT")],
    /,
) -> Result:
    """Turn a weight file of OpenL3 into a folder of safetensors and JSON that everything here
    reads.

    Args:
        weights: Keras file (.h5, .h5.gz) named as OpenL3 names it, or a published network such as
            openl3:audio-mel256-env.
        out: Folder to write.
    """
    from looklisten.interop.openl3 import convert as run

    check_writable(out)
    return dict(run(weights, out))
