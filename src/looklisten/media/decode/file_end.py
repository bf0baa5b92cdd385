"""Where a media file should end, by its own structure. Reads a few bytes of headers; knows no
stream and no time.

A header may say a wrong length in seconds though every packet is there. What is cut off is seen in
the bytes: a box, chunk, element or page that goes on beyond the end of the file.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, Literal

UNKNOWN_SIZE = 0x7FFF0000
"""A RIFF size from here on is a placeholder of a program that wrote to a pipe."""

OGG_SEARCH_BYTES = 1 << 17
"""The last page of an Ogg file begins within so many bytes of its end; a page has at most 65,307."""

MP3_SEARCH_BYTES = 1 << 16

NEVER_JOINED = frozenset({"wav", "w64", "caf", "asf", "flv", "aiff"})
"""Formats of which FFmpeg reads only the first file where several were joined byte by byte; MP4 is
another.
"""

MAGIC_BYTES = 4
"""By so many bytes at its beginning a file of such a format is known."""


def written_bytes(path: str | Path, format_name: str) -> int | None:
    """How many bytes a file has when nothing is cut off; None when its structure does not say.

    `format_name` is FFmpeg's name of the container, such as "matroska,webm". The answer may be
    smaller than the file: bytes after the end are not counted.
    """
    read = _READERS.get(format_name.split(",")[0])
    if read is None:
        return None
    try:
        with _opened(path) as file:
            return read(file, os.fstat(file.fileno()).st_size)
    except (OSError, ValueError):
        return None


def second_file(path: str | Path, format_name: str, end_byte: int) -> int | None:
    """Where a second file of the same format begins that was appended to the first, which ends at
    `end_byte`; None without one.
    """
    name = format_name.split(",")[0]
    try:
        with _opened(path) as file:
            if name == "mov":
                return _second_type_box(file, os.fstat(file.fileno()).st_size)
            if name == "matroska":
                return _next_header(file, os.fstat(file.fileno()).st_size, end_byte)
            if name not in NEVER_JOINED:
                return None
            magic = file.read(MAGIC_BYTES)
            file.seek(end_byte)
            place = file.read(16 * MAGIC_BYTES).find(magic)
    except (OSError, ValueError):
        return None
    return end_byte + place if place >= 0 else None


def _opened(path: str | Path) -> BinaryIO:
    """A file on a disk, opened. Raises ValueError for a pipe or a device, which can be read only
    once.
    """
    if not Path(path).is_file():
        raise ValueError(f"{path} is no file on a disk")
    return Path(path).open("rb")


def _second_type_box(file: BinaryIO, size: int) -> int | None:
    """Where a second MP4 file begins: each has one `ftyp`."""
    file_types = [place for place, name in _box_places(file, size) if name == b"ftyp"]
    return file_types[1] if len(file_types) > 1 else None


def _next_header(file: BinaryIO, size: int, after: int) -> int | None:
    """Where the next EBML header begins in a Matroska file after the byte `after`."""
    place = 0
    while place < size:
        try:
            name, content, length = _element(file, place)
        except IndexError:
            return None
        if name == EBML_HEADER and place >= after:
            return place
        if length is None:
            return None
        place = content + length
    return None


def counts_frames(path: str | Path) -> bool:
    """Whether an MP3 file has a Xing, Info or VBRI header; without one FFmpeg guesses how long it
    is.
    """
    try:
        with _opened(path) as file:
            start = file.read(10)
            if start[:3] == b"ID3":
                size = 0
                for byte in start[6:10]:
                    size = size << 7 | byte & 0x7F
                file.seek(10 + size)
            else:
                file.seek(0)
            head = file.read(MP3_SEARCH_BYTES)
    except (OSError, ValueError):
        return False
    first = head.find(b"\xff")
    return first >= 0 and any(
        0 <= head.find(tag) - first < 256 for tag in (b"Xing", b"Info", b"VBRI")
    )


def _number(data: bytes, order: Literal["big", "little"] = "big") -> int:
    return int.from_bytes(data, order)


def _box_places(file: BinaryIO, size: int) -> Iterator[tuple[int, bytes]]:
    """Where each box of the outermost level begins, with its name; at last where the last one ends,
    or -1 where it does not say.
    """
    place = 0
    while place + 8 <= size:
        file.seek(place)
        head = file.read(16)
        length, name = _number(head[:4]), head[4:8]
        if length == 1:
            length = _number(head[8:16])
        if not all(32 <= letter < 127 or letter == 0xA9 for letter in name) or 0 < length < 8:
            break  # padding or rubbish after the last box
        yield place, name
        if length == 0:  # it goes on to the end of the file, wherever that is
            yield -1, b""
            return
        place += length
    yield place, b""


def _boxes(file: BinaryIO, size: int) -> int | None:
    """MP4, MOV: the boxes of the outermost level follow one another (ISO 14496-12, 4.2)."""
    *_, (end, _name) = _box_places(file, size)
    return end if end > 0 else None


def _element(file: BinaryIO, place: int) -> tuple[int, int, int | None]:
    """The id of the EBML element at `place`, where its content begins and its length, None when
    that is not known (RFC 8794).
    """
    file.seek(place)
    head = file.read(12)
    if not head or not head[0]:
        raise ValueError("no element")
    id_bytes = 9 - head[0].bit_length()
    first = head[id_bytes]
    if not first:
        raise ValueError("no length")
    length_bytes = 9 - first.bit_length()
    length = _number(head[id_bytes : id_bytes + length_bytes]) & ((1 << 7 * length_bytes) - 1)
    known = length != (1 << 7 * length_bytes) - 1
    return _number(head[:id_bytes]), place + id_bytes + length_bytes, length if known else None


EBML_HEADER, SEGMENT = 0x1A45DFA3, 0x18538067


def _segments(file: BinaryIO, size: int) -> int | None:
    """Matroska, WebM: a header and a segment, perhaps several times (RFC 9559)."""
    place = 0
    while place < size:
        try:
            name, content, length = _element(file, place)
        except (ValueError, IndexError):
            break
        if place == 0 and name != EBML_HEADER:
            return None
        if length is None:
            return None
        if name not in (EBML_HEADER, SEGMENT) and length > size - content:
            break  # rubbish after the last segment
        place = content + length
    return place or None


def _riff(file: BinaryIO, size: int) -> int | None:
    """WAV, AVI: RIFF chunks; a large AVI file has several, a large WAV file the size of its samples
    in `ds64`.
    """
    place, end = 0, None
    while place + 12 <= size:
        file.seek(place)
        head = file.read(12)
        name, length, kind = head[:4], _number(head[4:8], "little"), head[8:12]
        if name not in (b"RIFF", b"RF64", b"BW64"):
            break
        if kind == b"WAVE":
            return _samples(file, size, place + 12)
        if not 0 < length < 0xFFFFFFFF:
            return None
        place = end = place + 8 + length + length % 2
    return end


def _samples(file: BinaryIO, size: int, place: int) -> int | None:
    """Where the samples of a WAV file end."""
    long_size = None
    while place + 8 <= size:
        file.seek(place)
        head = file.read(24)
        name, length = head[:4], _number(head[4:8], "little")
        if name == b"ds64":
            long_size = _number(head[16:24], "little")
        if name == b"data":
            if long_size:
                return place + 8 + long_size
            return place + 8 + length if 0 < length < UNKNOWN_SIZE else None
        place += 8 + length + length % 2
    return None


def _wave64(file: BinaryIO, size: int) -> int | None:
    """Sony Wave64: chunks with names of 16 bytes and sizes of 8, which count the head of 24."""
    place = 40
    while place + 24 <= size:
        file.seek(place)
        head = file.read(24)
        length = _number(head[16:24], "little")
        if head[:4] == b"data":
            return place + length if 24 < length < 1 << 62 else None
        if length < 24:
            return None
        place += length + -length % 8
    return None


def _core_audio(file: BinaryIO, size: int) -> int | None:
    """Apple's CAF: chunks with a size of 8 bytes; -1 says that the samples go on to the end of the
    file.
    """
    place = 8
    while place + 12 <= size:
        file.seek(place)
        head = file.read(12)
        length = _number(head[4:12])
        if length >= 1 << 62:
            return None
        place += 12 + length
        if head[:4] == b"data":
            return place
    return None


def _advanced_systems(file: BinaryIO, _: int) -> int | None:
    """ASF (WMV, WMA): the object of file properties says the size; 0 when the file was not finished
    or is a broadcast.
    """
    head = file.read(1 << 16)
    place = head.find(bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365"))
    if place < 0:
        return None
    return _number(head[place + 40 : place + 48], "little") or None


def _flash(file: BinaryIO, size: int) -> int | None:
    """FLV: after each tag its length stands again; the file is whole when the last one fits."""
    file.seek(max(size - 4, 0))
    length = _number(file.read(4))
    place = size - 4 - length
    if length < 11 or place < 9:
        return None
    file.seek(place)
    head = file.read(4)
    return (
        size
        if head[:1] in (b"\x08", b"\x09", b"\x12") and _number(head[1:4]) + 11 == length
        else None
    )


def _pages(file: BinaryIO, size: int) -> int | None:
    """Ogg: pages; of the last one the lengths of its parts stand at its beginning (RFC 3533)."""
    begin = max(size - OGG_SEARCH_BYTES, 0)
    file.seek(begin)
    tail = file.read(OGG_SEARCH_BYTES)
    place = tail.rfind(b"OggS\0")
    if place < 0:
        return None
    head = tail[place : place + 27]
    lengths = tail[place + 27 : place + 27 + head[26]] if len(head) == 27 else b""
    if len(head) < 27 or len(lengths) < head[26]:
        return size + 1  # cut within the head of a page
    end = begin + place + 27 + len(lengths) + sum(lengths)
    is_last = bool(head[5] & 4)
    return end if is_last or end > size else None


_READERS: dict[str, Callable[[BinaryIO, int], int | None]] = {
    "mov": _boxes,
    "matroska": _segments,
    "avi": _riff,
    "wav": _riff,
    "w64": _wave64,
    "caf": _core_audio,
    "asf": _advanced_systems,
    "flv": _flash,
    "ogg": _pages,
}
