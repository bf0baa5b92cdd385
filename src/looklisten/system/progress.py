"""How a long task reports its progress."""

from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    pass


@runtime_checkable
class Progress(Protocol):
    """Told how far a long task is: `done` of `total` units, with facts worth showing beside (loss,
    rate).
    """

    def __call__(self, done: int, total: int, /, **facts: str) -> None: ...


def no_progress(done: int, total: int, /, **facts: str) -> None:
    """The `Progress` that says nothing."""
