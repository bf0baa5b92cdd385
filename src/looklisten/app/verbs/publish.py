"""The verb `publish`."""

from pathlib import Path
from typing import Annotated

import tyro
from tyro.conf import Positional

from looklisten.app.output import Result
from looklisten.system.files import check_writable


def publish(
    network: Annotated[Positional[str], tyro.conf.arg(metavar="RUN")],
    out: Annotated[Positional[Path], tyro.conf.arg(metavar="OUT")],
    /,
    hub: str = "",
    private: bool = False,
) -> Result:
    """Write a network as a folder with a card of its own numbers, for others to load; with --hub
    upload it too.

    Args:
        network: Folder of a run, of one checkpoint or of a published network, or a name on the
            Hugging Face Hub (org/name).
        out: Folder to write config.json, model.safetensors and README.md into.
        hub: Name on the Hugging Face Hub (org/name) to upload it as.
        private: With --hub: nobody else may see it.
    """
    from looklisten.interop.publish import publish as run

    check_writable(out)
    return run(network, out, hub, private)
