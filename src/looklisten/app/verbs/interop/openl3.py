"""The verb `openl3`: OpenL3's command line."""

from collections.abc import Sequence

from looklisten.app.command_line import Verb
from looklisten.app.output import SOME_INPUTS_FAILED, SUCCESS, Output


def run_openl3(arguments: Sequence[str]) -> Output:
    """Write the vectors of OpenL3's networks into .npz files, with OpenL3's own flags."""
    from looklisten.app.openl3 import embed_with_openl3

    result = embed_with_openl3(arguments)
    # With --quiet the result has no count of failures unless there are some.
    return Output(result, SOME_INPUTS_FAILED if result.get("failed") else SUCCESS)


# OpenL3's flags include short ones of two letters, which tyro does not know.
OPENL3 = Verb("openl3", run_openl3.__doc__ or "", run_openl3, can_continue=True)
