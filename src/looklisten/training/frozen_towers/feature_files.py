"""Files of features of frozen towers, each with a digest that shows damage.

A file is in NumPy's format, and the sha256 of its folder, name and bytes follows. Knows no network.
"""

import hashlib
import io
import logging
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from looklisten.config import Side
from looklisten.system.files import atomic_write

ROWS_PER_FILE = 256
"""An interruption loses at most the work on one file: some seconds for the towers of `start`."""
DIGEST_BYTES = hashlib.sha256().digest_size

_log = logging.getLogger("looklisten")


class FeatureFiles:
    """The rows of one side, in files of `ROWS_PER_FILE` rows, memory-mapped."""

    def __init__(self, folder: Path, side: Side, rows: int) -> None:
        self._folder = folder
        self.side = side
        self.rows = rows
        self.file_count = -(-rows // ROWS_PER_FILE)
        self._maps: dict[int, NDArray[np.float16]] = {}

    def path(self, number: int) -> Path:
        return self._folder / f"{self.side}-{number:06d}.npy"

    def missing(self) -> list[int]:
        """The numbers of the files that are absent or damaged. Reads all files once."""
        missing, damaged = [], []
        for number in range(self.file_count):
            path = self.path(number)
            if not path.exists():
                missing.append(number)
            elif not self._is_whole(path):
                damaged.append(number)
        if damaged:
            _log.warning(
                "%d files of features are damaged or of an older version, such as %s; they are "
                "computed again",
                len(damaged),
                self.path(damaged[0]),
            )
        return sorted(missing + damaged)

    def _is_whole(self, path: Path) -> bool:
        content = path.read_bytes()
        return content[-DIGEST_BYTES:] == self._digest(path, content[:-DIGEST_BYTES])

    def _digest(self, path: Path, array_bytes: bytes) -> bytes:
        # With the name of the folder, which is the key of the features, so that a file of other
        # features is none of these.
        digest = hashlib.sha256(f"{self._folder.name}/{path.name}\n".encode())
        digest.update(array_bytes)
        return digest.digest()

    def rows_of(self, number: int) -> range:
        """The rows that a file holds."""
        return range(number * ROWS_PER_FILE, min((number + 1) * ROWS_PER_FILE, self.rows))

    def write(self, number: int, values: NDArray[np.float16]) -> None:
        """Write the file of `values`, `[rows, *positions, features]`."""
        path = self.path(number)
        array = io.BytesIO()
        np.save(array, values)
        array_bytes = array.getvalue()
        with atomic_write(path) as scratch:
            # Not by NumPy, whose error at a full disk has no number.
            scratch.write_bytes(array_bytes + self._digest(path, array_bytes))

    def take(self, rows: NDArray[np.int64]) -> Float[Tensor, "rows *positions features"]:
        """Features of some rows, float32, in the order of `rows`."""
        numbers = rows // ROWS_PER_FILE
        gathered = None
        for number in np.unique(numbers).tolist():
            values = self._map(number)
            if gathered is None:
                gathered = np.empty((len(rows), *values.shape[1:]), np.float16)
            own_rows = np.flatnonzero(numbers == number)
            gathered[own_rows] = values[rows[own_rows] - number * ROWS_PER_FILE]
        assert gathered is not None, "a batch has rows"
        return torch.from_numpy(gathered).float()

    def _map(self, number: int) -> NDArray[np.float16]:
        # `open_features` computes again what `missing` finds damaged. The digest is not mapped.
        if number not in self._maps:
            self._maps[number] = np.load(self.path(number), mmap_mode="r")
        return self._maps[number]
