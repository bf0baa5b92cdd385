"""The verb `publish`: a network and its model card in a folder or on the Hub."""

from pathlib import Path
from typing import Annotated

import tyro
from tyro.conf import Positional

from looklisten.app.command_line import NETWORK_HELP
from looklisten.app.output import Output
from looklisten.system.files import check_writable


def run_publish(
    network: Annotated[Positional[str], tyro.conf.arg(metavar="RUN", help=NETWORK_HELP)],
    out: Annotated[Positional[Path], tyro.conf.arg(metavar="OUT")],
    /,
    hub: str = "",
    private: bool = False,
) -> Output:
    """Write a network and a model card into a folder; with --hub also upload it.

    Args:
        out: Folder to write config.json, model.safetensors and README.md into.
        hub: Name on the Hugging Face Hub (org/name) to upload it as.
        private: With --hub: only its owner can see it.
    """
    from looklisten.interop.publish import publish

    check_writable(out)
    return Output(publish(network, out, hub, private))
