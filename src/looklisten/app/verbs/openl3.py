"""The verb `openl3`."""

from collections.abc import Sequence

from looklisten.app.output import Result


def openl3(arguments: Sequence[str]) -> Result:
    """Vectors of OpenL3's networks into .npz files, with OpenL3's own flags."""
    from looklisten.app.openl3 import run

    return run(arguments)
