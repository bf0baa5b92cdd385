"""Messages and progress bars on stderr.

On a terminal a bar is redrawn, with rate and time left. Elsewhere it is a plain line now and then.
"""

import sys
import time
from collections.abc import Callable

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from looklisten.system.processes import is_first_process

PLAIN_INTERVAL_SECONDS = 15.0
"""Time between two lines of progress where stderr is not a terminal."""

messages = Console(stderr=True, highlight=False)
"""The console of everything that is for people and not data."""


class RateColumn(ProgressColumn):
    """Units per second."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:.1f}/s" if task.speed else "", style="cyan")


class ProgressBar:
    """A `looklisten.system.progress.Progress` on stderr, for use in a `with` block.

    Where stderr is not a terminal, it prints a line every PLAIN_INTERVAL_SECONDS and one at the
    end.
    `clock` gives the time in seconds.
    """

    def __init__(
        self, title: str, quiet: bool = False, clock: Callable[[], float] = time.monotonic
    ) -> None:
        # With several training processes, only the first one reports.
        self._quiet = quiet or not is_first_process()
        self._on_terminal = sys.stderr.isatty() and not self._quiet
        self._title = title
        self._unprinted_line = ""
        self._clock = clock
        self._start_seconds = clock()
        self._printed_seconds = self._start_seconds
        self._done_at_start: int | None = None
        self._done = 0
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            RateColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[facts]}"),
            console=messages,
            disable=not self._on_terminal,
        )
        self._task = self._progress.add_task(title, total=None, facts="")

    def __call__(self, done: int, total: int, /, **facts: str) -> None:
        """Report that `done` of `total` units are done. `facts` are shown with their names."""
        if self._quiet:
            return
        if done < self._done:
            # The next part of the work has begun, with other units and another rate.
            self._done_at_start = None
            self._progress.reset(self._task)
        self._done = done
        facts_text = "  ".join(f"{name} {value}" for name, value in facts.items())
        if self._on_terminal:
            self._progress.update(self._task, completed=done, total=total, facts=facts_text)
        else:
            self._report_in_lines(done, total, facts_text)

    def _report_in_lines(self, done: int, total: int, facts_text: str) -> None:
        """Make a line of progress, and print it if it is time."""
        now = self._clock()
        if self._done_at_start is None:
            # Resumed work starts with a part done. Its rate is counted from here.
            self._start_seconds = now
            self._done_at_start = done
        time_left = self._time_left(done, total, now)
        self._unprinted_line = f"{self._title} {done}/{total}{time_left}  {facts_text}".rstrip()
        if now - self._printed_seconds >= PLAIN_INTERVAL_SECONDS:
            self._print_line(now)

    def _time_left(self, done: int, total: int, now: float) -> str:
        """The time left at the rate so far; empty before the first unit is done."""
        done_since_start = done - (self._done_at_start or 0)
        if not done_since_start:
            return ""
        seconds_per_unit = (now - self._start_seconds) / done_since_start
        return f"  {seconds_per_unit * (total - done):.0f} s left"

    def _print_line(self, now: float) -> None:
        messages.print(self._unprinted_line, soft_wrap=True)
        self._printed_seconds = now
        self._unprinted_line = ""

    def __enter__(self) -> "ProgressBar":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()
        if self._unprinted_line:
            self._print_line(self._clock())
