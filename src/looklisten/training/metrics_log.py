"""The metrics of a run."""

import json
from pathlib import Path
from types import TracebackType
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from looklisten.system.files import atomic_write


class NoMetricsLog:
    """The diary of a process that keeps none."""

    def write(self, step: int, **values: float) -> None:
        pass

    def __enter__(self) -> "NoMetricsLog":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        pass


class MetricsLog(NoMetricsLog):
    """Appends to the diary of the run in `folder`, forgetting what lies after `first_step`."""

    def __init__(self, folder: Path, first_step: int) -> None:
        self._path = folder / "metrics.jsonl"
        kept = [row for row in read_metrics(folder) if row["step"] <= first_step]
        with atomic_write(self._path) as scratch:
            scratch.write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")
        self._file = self._path.open("a", encoding="utf-8")
        self._board = SummaryWriter(
            str(folder / "tensorboard"), purge_step=first_step + 1, flush_secs=30
        )

    def write(self, step: int, **values: float) -> None:
        """One line of `metrics.jsonl` and one point a curve."""
        self._file.write(json.dumps({"step": step, **values}) + "\n")
        self._file.flush()
        for name, value in values.items():
            self._board.add_scalar(name, value, step)

    def __enter__(self) -> "MetricsLog":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()
        self._board.close()


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The lines of a run's `metrics.jsonl`; a last line that a crash cut short is left out."""
    rows = []
    path = folder / "metrics.jsonl"
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            rows.append(json.loads(line))
        except ValueError:
            break
    return rows
