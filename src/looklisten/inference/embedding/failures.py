"""`failures.jsonl`: one line for each file that could not be embedded, or not to its end.

Knows lines and digests of sources, no network.
"""

import json
from collections.abc import Callable
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from looklisten.inference.embedding.fingerprints import SourceStamp

FailureLine = dict[str, Any]
"""`source` and `reason`; for a file that ended the decoder also `decoder_lost`, `decoder` (its
version) and the fields of `SourceStamp`.
"""


def decoder_version() -> str:
    """The versions that decide whether a file crashes the decoder."""
    return f"PyAV {version('av')}, Pillow {version('pillow')}"


class FailureLog:
    """The lines of a folder, each written as soon as it is known."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.lines: list[FailureLine] = []

    def keep_lines(self, still_holds: Callable[[FailureLine], bool]) -> None:
        """Keep the lines of earlier runs that still hold, and delete the others."""
        if self._path.exists():
            text = self._path.read_text(encoding="utf-8", errors="backslashreplace")
            for text_line in text.splitlines():
                line = _parse(text_line)
                if line is not None and still_holds(line):
                    self.lines.append(line)
        # The file is written anew, so that a line which an interrupted run left incomplete goes.
        self._path.write_text("", encoding="utf-8")
        for line in self.lines:
            self._append(line)

    def decoder_losses(self) -> dict[str, str]:
        """The sources that ended the decoder, each with what happened."""
        losses = {}
        for line in self.lines:
            if line.get("decoder_lost"):
                losses[line["source"]] = line["reason"]
        return losses

    def add(self, source: str, reason: str, decoder_loss: SourceStamp | None = None) -> None:
        """Write a line. `decoder_loss` is the stamp of a file that ended the decoder."""
        line: FailureLine = {"source": source, "reason": reason}
        if decoder_loss:
            line |= {"decoder_lost": True, "decoder": decoder_version()}
            line |= asdict(decoder_loss)
        self.lines.append(line)
        self._append(line)

    def _append(self, line: FailureLine) -> None:
        # Names of files may hold bytes that are no UTF-8. They are written as \udcXX, as in JSON.
        with self._path.open("a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(json.dumps(line, ensure_ascii=False) + "\n")


def _parse(text: str) -> FailureLine | None:
    """A line, or None for one that an interrupted run left incomplete."""
    try:
        line = json.loads(text)
    except ValueError:
        return None
    return line if isinstance(line, dict) and "source" in line else None
