"""The metrics of a run: `metrics.jsonl` and TensorBoard's files."""

import json
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from torch.utils.tensorboard import SummaryWriter

from looklisten.system.files import atomic_write


@runtime_checkable
class MetricsLog(Protocol):
    """Where a training writes its metrics. It is a context that closes the files."""

    def write(self, step: int, **values: float) -> None:
        """Record the values of one step."""

    def __enter__(self) -> "MetricsLog": ...

    def __exit__(self, *_: object) -> None: ...


class NoMetricsLog:
    """The log of a process that writes none: all but the first."""

    def write(self, step: int, **values: float) -> None:
        pass

    def __enter__(self) -> "NoMetricsLog":
        return self

    def __exit__(self, *_: object) -> None:
        pass


class FileMetricsLog:
    """Appends to the log of the run in `folder`; lines after `first_step` are removed first.

    A resumed run repeats the steps after its last checkpoint, and each step is logged once.
    """

    def __init__(self, folder: Path, first_step: int) -> None:
        self._path = folder / "metrics.jsonl"
        lines = []
        for row in read_metrics(folder):
            if row["step"] <= first_step:
                lines.append(json.dumps(row) + "\n")
        with atomic_write(self._path) as scratch:
            scratch.write_text("".join(lines), encoding="utf-8")
        self._file = self._path.open("a", encoding="utf-8")
        self._board = SummaryWriter(
            str(folder / "tensorboard"), purge_step=first_step + 1, flush_secs=30
        )

    def write(self, step: int, **values: float) -> None:
        """One line of `metrics.jsonl` and one point on each curve."""
        self._file.write(json.dumps({"step": step, **values}) + "\n")
        # Other programs read the file while the run goes on.
        self._file.flush()
        for name, value in values.items():
            self._board.add_scalar(name, value, step)

    def __enter__(self) -> "FileMetricsLog":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._board.close()


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The lines of a run's `metrics.jsonl`, without a last line that a crash cut short."""
    path = folder / "metrics.jsonl"
    if not path.exists():
        return []
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:
            break
    return rows
