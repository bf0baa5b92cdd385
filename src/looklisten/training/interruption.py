"""Signals that ask a training to end."""

import signal
import threading
from types import FrameType

SIGNALS = tuple(name for name in ("SIGTERM", "SIGUSR1", "SIGINT") if hasattr(signal, name))
"""Those that end a training. A scheduler of a cluster sends SIGTERM or SIGUSR1."""


class Interruption:
    """Notes the first signal that asks for an end, so that the loop can save and leave.

    A second Ctrl-C ends the process at once.
    """

    def __init__(self) -> None:
        self.signal = ""
        """The name of the first signal; empty until it comes."""
        self._handlers_before: dict[int, object] = {}

    def __enter__(self) -> "Interruption":
        # Python lets only the main thread set handlers.
        if threading.current_thread() is not threading.main_thread():
            return self
        for name in SIGNALS:
            number = getattr(signal, name)
            # A signal that is ignored, as under nohup, stays ignored.
            if signal.getsignal(number) != signal.SIG_IGN:
                self._handlers_before[number] = signal.signal(number, self._note)
        return self

    def _note(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 (Python's interface)
        if self.signal and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = signal.Signals(number).name

    def __exit__(self, *_: object) -> None:
        for number, handler in self._handlers_before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
