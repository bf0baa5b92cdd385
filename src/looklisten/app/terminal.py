"""What a person sees on stderr while work runs: bars with rate and time left; plain lines where
there is no screen.
"""

import sys
import time
from types import TracebackType

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

talk = Console(stderr=True, highlight=False)


class RateColumn(ProgressColumn):
    """Units a second."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:.1f}/s" if task.speed else "", style="cyan")


class Bar:
    """A `Progress` that draws on stderr; where stderr is no screen, a line every fifteen seconds
    and one at the end.
    """

    def __init__(self, title: str, quiet: bool = False) -> None:
        self._title, self._quiet = title, quiet or not is_first_process()
        self._screen = sys.stderr.isatty() and not self._quiet
        self._started = self._said = time.monotonic()
        self._last, self._first = "", -1
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            RateColumn(),
            TimeElapsedColumn(),
        )
        self._progress = Progress(
            *columns,
            TimeRemainingColumn(),
            TextColumn("{task.fields[facts]}"),
            console=talk,
            disable=not self._screen,
        )
        self._task = self._progress.add_task(title, total=None, facts="")

    def __call__(self, done: int, total: int, /, **facts: str) -> None:
        if self._quiet:
            return
        told = "  ".join(f"{name} {value}" for name, value in facts.items())
        if self._screen:
            self._progress.update(self._task, completed=done, total=total, facts=told)
            return
        now = time.monotonic()
        if (
            self._first < 0
        ):  # work that is gone on with begins somewhere, and its rate is counted from there
            self._started, self._first = now, done
        gone = done - self._first
        left = f"  {(now - self._started) / gone * (total - done):.0f} s left" if gone else ""
        self._last = f"{self._title} {done}/{total}{left}  {told}".rstrip()
        if now - self._said >= PLAIN_INTERVAL_SECONDS:
            self._say(now)

    def _say(self, now: float) -> None:
        talk.print(self._last, soft_wrap=True)
        self._said, self._last = now, ""

    def __enter__(self) -> "Bar":
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()
        if self._last:
            self._say(time.monotonic())
