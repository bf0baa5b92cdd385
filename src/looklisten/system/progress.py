"""How a long task reports its progress."""

from typing import Protocol, runtime_checkable


@runtime_checkable
class Progress(Protocol):
    """Called with how many of `total` units are done, and with facts to show, such as the loss."""

    def __call__(self, done: int, total: int, /, **facts: str) -> None: ...


def no_progress(done: int, total: int, /, **facts: str) -> None:
    """A `Progress` that shows nothing."""
