"""HEIC photographs (ISO 23008-12), made on the spot: one coded picture, or a grid of tiles as
phones write them.
"""

import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

TILE_SIDE = 128


def box(kind: bytes, *contents: bytes) -> bytes:
    content = b"".join(contents)
    return struct.pack(">I4s", 8 + len(content), kind) + content


def full_box(kind: bytes, version: int, flags: int, *contents: bytes) -> bytes:
    return box(kind, struct.pack(">I", version << 24 | flags), *contents)


VPS, SPS, PPS = 32, 33, 34


def coded(pixels: np.ndarray, scratch: Path) -> tuple[bytes, bytes]:
    """The header (`hvcC`, ISO 14496-15, 8.3.3) and the data of an image `[side, side, 3]` in HEVC."""
    path = scratch / "one.hevc"
    options = {"x265-params": "log-level=none:pools=none:frame-threads=1"}
    with av.open(path, "w", "hevc") as container:
        stream = container.add_stream("libx265", 25, options=options)
        stream.width, stream.height, stream.pix_fmt = pixels.shape[1], pixels.shape[0], "yuv420p"
        frame = av.VideoFrame.from_ndarray(pixels, "rgb24")
        frame.pts, frame.time_base = 0, Fraction(1, 25)
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    units = [unit.strip(b"\0") for unit in path.read_bytes().split(b"\0\0\1")[1:]]
    by_kind = {unit[0] >> 1 & 0x3F: unit for unit in units}
    profile = by_kind[SPS].replace(b"\0\0\3", b"\0\0")[3:15]
    fixed = b"\x01" + profile + b"\xf0\0\xfc\xfd\xf8\xf8\0\0\x0f\x03"
    arrays = [
        struct.pack(">BHH", 0x80 | kind, 1, len(by_kind[kind])) + by_kind[kind]
        for kind in (VPS, SPS, PPS)
    ]
    pictures = [unit for unit in units if unit[0] >> 1 & 0x3F < VPS]
    return box(b"hvcC", fixed, *arrays), b"".join(
        struct.pack(">I", len(unit)) + unit for unit in pictures
    )


def write_heic(path: Path, tiles: list[np.ndarray]) -> Path:
    """A photograph of `tiles` side by side, each `[TILE_SIDE, TILE_SIDE, 3]`; of one tile, a
    photograph without a grid.
    """
    is_grid = len(tiles) > 1
    headers, items = zip(*(coded(tile, path.parent) for tile in tiles), strict=True)
    kinds = [b"hvc1"] * len(tiles)
    items = list(items)
    if is_grid:
        items.append(
            struct.pack(">BBBBHH", 0, 0, 0, len(tiles) - 1, TILE_SIDE * len(tiles), TILE_SIDE)
        )
        kinds.append(b"grid")
    primary = len(items)

    entries = [
        full_box(b"infe", 2, 0, struct.pack(">HH4s", n, 0, kind), b"\0")
        for n, kind in enumerate(kinds, 1)
    ]
    infos = full_box(b"iinf", 0, 0, struct.pack(">H", len(entries)), *entries)
    tile_size = full_box(b"ispe", 0, 0, struct.pack(">II", TILE_SIDE, TILE_SIDE))
    whole_size = full_box(b"ispe", 0, 0, struct.pack(">II", TILE_SIDE * len(tiles), TILE_SIDE))
    of_items = [struct.pack(">HBBB", n, 2, 0x81, 2) for n in range(1, len(tiles) + 1)]
    if is_grid:
        of_items.append(struct.pack(">HBB", primary, 1, 3))
    associations = full_box(b"ipma", 0, 0, struct.pack(">I", len(of_items)), *of_items)
    properties = box(b"iprp", box(b"ipco", headers[0], tile_size, whole_size), associations)
    references = b""
    if is_grid:
        numbers = struct.pack(f">{len(tiles)}H", *range(1, len(tiles) + 1))
        references = full_box(
            b"iref", 0, 0, box(b"dimg", struct.pack(">HH", primary, len(tiles)), numbers)
        )

    def meta(data_begins: int) -> bytes:
        places, begin = [], data_begins
        for number, item in enumerate(items, 1):
            places.append(struct.pack(">HHHII", number, 0, 1, begin, len(item)))
            begin += len(item)
        locations = full_box(b"iloc", 0, 0, struct.pack(">HH", 0x4400, len(items)), *places)
        handler = full_box(b"hdlr", 0, 0, struct.pack(">I4s12x", 0, b"pict"), b"\0")
        first = full_box(b"pitm", 0, 0, struct.pack(">H", primary))
        return full_box(b"meta", 0, 0, handler, first, locations, infos, references, properties)

    kind = box(b"ftyp", b"heic", struct.pack(">I", 0), b"mif1heic")
    data_begins = len(kind) + len(meta(0)) + 8
    path.write_bytes(kind + meta(data_begins) + box(b"mdat", *items))
    return path
