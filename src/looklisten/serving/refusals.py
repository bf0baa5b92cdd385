"""Why a request is refused, as errors with a status of HTTP and one sentence."""

import errno

from looklisten.errors import LookListenError

FAULT = "the server has a fault, and its log has the details"
"""What a client hears of an error that nobody expected: no stack trace, which tells of the code."""


class RefusedError(LookListenError):
    """A request that is refused; `str(error)` is the sentence that the client gets."""

    def __init__(self, status: int, sentence: str, retry_seconds: int | None = None) -> None:
        super().__init__(sentence)
        self.status = status
        self.retry_seconds = retry_seconds
        """When the client may try again; None where that does not help."""


def busy(reason: str, retry_seconds: int = 1) -> RefusedError:
    """The refusal of a full queue."""
    return RefusedError(429, f"{reason}; try again in {retry_seconds} s", retry_seconds)


def refusal_of_system(error: OSError) -> RefusedError | None:
    """The refusal of work for which this machine has no room now; None for other errors."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        # 413 is also for what a server cannot take at the moment; Retry-After says so.
        return RefusedError(413, "the disk of the server is full; try again later", 60)
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return busy("the server has too many open files")
    return None


def unknown_id(kind: str, name: str) -> RefusedError:
    """The refusal of an id that the server does not know."""
    return RefusedError(404, f"there is no {kind} {name[:64]!r} here")
