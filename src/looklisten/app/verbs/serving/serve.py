"""The verb `serve`: a network behind HTTP, with a page."""

from pathlib import Path
from typing import Annotated

import tyro

from looklisten.app.command_line import NETWORK_HELP, DeviceName
from looklisten.app.output import Output
from looklisten.app.terminal import messages
from looklisten.errors import ConfigError
from looklisten.serving.options import ServeOptions

_DEFAULTS = ServeOptions()


def run_serve(
    checkpoint: Annotated[
        str | None,
        tyro.conf.arg(help=f"{NETWORK_HELP} Default: the one that made DB; without DB, start."),
    ] = None,
    db: Annotated[Path | None, tyro.conf.arg(metavar="DB")] = None,
    device: DeviceName = "auto",
    options: Annotated[ServeOptions, tyro.conf.arg(name="")] = _DEFAULTS,
) -> Output:
    """Answer requests for vectors, scores, heat maps and searches over HTTP, with a page at /.

    Ctrl-C or SIGTERM ends it: running requests are finished first.

    Args:
        db: Folder that `index` wrote; without it there is no search.
    """
    try:
        from looklisten.serving.server import run_server
    except ImportError as error:
        raise ConfigError(
            f"serve needs the package {error.name}; run: pip install 'looklisten[serve]'"
        ) from None
    from looklisten.serving.service import open_service

    service = open_service(checkpoint, db, options, device)
    name = service.run.name
    run_server(service, lambda address: messages.print(f"{name} answers at {address}"))
    return Output({})
