"""A long recording needs no more memory than a short one, except for its vectors."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ONE_HOUR = 3600
pytestmark = pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="peak memory is read from Linux's /proc"
)

PROGRAM = """
import sys
from pathlib import Path
import numpy as np, torch
import looklisten as ll
from looklisten.config import ModelConfig

torch.set_num_threads(1)
path, seconds, dense = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "dense"
model = ll.L3Net(ModelConfig(widths=(2, 2, 2, 2), first_stride=2, front_end="compact")).eval()
# Libraries allocate memory on first use.
silence = np.zeros(480_000, np.float32)
ll.embed(silence, model, sample_rate_hz=48_000, hop_seconds=1.0, dense=dense)

def peak_kilobytes():
    # Of this process alone; getrusage begins with the peak of the parent process.
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1])

before = peak_kilobytes()
embeddings = ll.embed(path, model, hop_seconds=HOP, dense=dense)
assert len(embeddings) == 1 + -(-(seconds - 1) // HOP), len(embeddings)
print(before, peak_kilobytes())
"""


def write_silence(path: Path, seconds: int) -> Path:
    """A WAV file of 4 kHz and 8 bits: a header and a sparse file of zeros."""
    size = seconds * 4000
    header = b"RIFF" + (36 + size).to_bytes(4, "little") + b"WAVEfmt " + (16).to_bytes(4, "little")
    header += b"".join(
        value.to_bytes(width, "little")
        for value, width in ((1, 2), (1, 2), (4000, 4), (4000, 4), (1, 2), (8, 2))
    )
    with path.open("wb") as file:
        file.write(header + b"data" + size.to_bytes(4, "little"))
        file.truncate(len(header) + 8 + size)
    return path


def peak_megabytes(path: Path, seconds: int, mode: str, hop: int) -> tuple[float, float]:
    """Peak memory (before embedding the file, after it)."""
    program = PROGRAM.replace("HOP", str(hop))
    result = subprocess.run(
        [sys.executable, "-c", program, path, str(seconds), mode],
        check=True,
        capture_output=True,
        text=True,
        env=os.environ,
    )
    before, after = map(int, result.stdout.split())
    return before / 1000, after / 1000


def test_half_an_hour_takes_no_more_than_ten_seconds(tmp_path):
    before, after = peak_megabytes(
        write_silence(tmp_path / "long.wav", ONE_HOUR // 2), ONE_HOUR // 2, "plain", 20
    )
    assert after < before + 60, "the sound alone would be 345 MB"


def test_ten_minutes_dense_take_no_more_than_ten_seconds(tmp_path):
    before, after = peak_megabytes(write_silence(tmp_path / "long.wav", 600), 600, "dense", 1)
    assert after < before + 60, "the sound alone would be 115 MB"


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_ten_hours_stay_under_a_gigabyte(tmp_path):
    _, after = peak_megabytes(
        write_silence(tmp_path / "long.wav", 10 * ONE_HOUR), 10 * ONE_HOUR, "plain", 10
    )
    assert after < 1000
