"""A file that ends the process which reads it with PyAV 17 and 18, made on the spot."""

import struct
from pathlib import Path

import numpy as np

from conftest import write_sound


def mov_with_channel_map(path: Path) -> Path:
    """A MOV of eight channels of PCM whose `chan` atom lists every channel by itself, as editors
    write it.

    PyAV's own `chan` names a known layout by number; the list takes its place: "use channel
    descriptions", then eight of them.
    """
    channels = 8
    wave = np.tile(0.3 * np.sin(np.arange(48_000)[:, None] * 0.05), (1, channels))
    write_sound(path, wave.astype(np.float32), codec="pcm_s16le", layout="7.1")
    data = path.read_bytes()
    at = data.index(b"chan") - 4
    (size,) = struct.unpack(">I", data[at : at + 4])
    labels = (
        1,
        2,
        3,
        4,
        10,
        11,
        5,
        6,
    )  # left, right, center, LFE, rear surrounds, surrounds, in QuickTime's numbers
    described = b"".join(struct.pack(">II3f", label, 0, 0.0, 0.0, 0.0) for label in labels)
    body = b"chan" + struct.pack(">IIII", 0, 0, 0, channels) + described
    atom = struct.pack(">I", len(body) + 4) + body
    # The header lies behind the samples, so no offset of a sample changes; the sizes of the boxes
    # around do.
    changed = bytearray(data[:at] + atom + data[at + size :])
    grown = len(atom) - size
    sample_entry = data.rindex(b"sowt", 0, at) - 4
    around = [
        data.rindex(name, 0, at) - 4
        for name in (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd")
    ]
    for box in (*around, sample_entry):
        (old,) = struct.unpack(">I", data[box : box + 4])
        changed[box : box + 4] = struct.pack(">I", old + grown)
    path.write_bytes(changed)
    return path
