"""Where a media file should end, by its own structure.

A header may declare a wrong length in seconds though every packet is there. Whether a file was cut
shows in the bytes: a box, chunk, element or page continues beyond the end of the file. Reads a few
bytes of headers; knows no stream and no time.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, Literal

UNKNOWN_SIZE = 0x7FFF0000
"""A RIFF size of this or more is a placeholder of a program that wrote to a pipe."""

OGG_SEARCH_BYTES = 1 << 17
"""The last page of an Ogg file begins within so many bytes of its end.

A page has at most 65,307 bytes.
"""

MP3_SEARCH_BYTES = 1 << 16
"""The first frame of an MP3 file begins within so many bytes."""

NEVER_JOINED = frozenset({"wav", "w64", "caf", "asf", "flv", "aiff"})
"""Formats of which FFmpeg reads only the first file where several were joined byte by byte.

MP4 and Matroska are others; their second file is found by its structure.
"""

MAGIC_BYTES = 4
"""So many bytes at its beginning identify a file of such a format."""


def written_bytes(path: str | Path, format_name: str) -> int | None:
    """How many bytes a file has when it is complete; None when its structure does not tell.

    format_name: FFmpeg's name of the container, such as "matroska,webm".

    The answer may be smaller than the file: bytes after the end are not counted.
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
    """Where a second file of the same format begins; None without one.

    end_byte: where the first file ends.
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
            # Padding may lie between the two files.
            offset = file.read(16 * MAGIC_BYTES).find(magic)
    except (OSError, ValueError):
        return None
    return end_byte + offset if offset >= 0 else None


def _opened(path: str | Path) -> BinaryIO:
    """A file on a disk. Raises ValueError for a pipe or a device."""
    # A pipe can be read only once, and FFmpeg reads it.
    if not Path(path).is_file():
        raise ValueError(f"{path} is no file on a disk")
    return Path(path).open("rb")


def _second_type_box(file: BinaryIO, size: int) -> int | None:
    """Where a second MP4 file begins: each has one `ftyp`."""
    starts = [start for start, name in _box_starts(file, size) if name == b"ftyp"]
    return starts[1] if len(starts) > 1 else None


def _next_header(file: BinaryIO, size: int, after: int) -> int | None:
    """Where the next EBML header begins in a Matroska file, at the byte `after` or later."""
    start = 0
    while start < size:
        try:
            name, content, length = _element(file, start)
        except IndexError:
            return None
        if name == EBML_HEADER and start >= after:
            return start
        if length is None:
            return None
        start = content + length
    return None


def counts_frames(path: str | Path) -> bool:
    """Whether an MP3 file has a Xing, Info or VBRI header, which counts its frames.

    Without one FFmpeg estimates how long the file is.
    """
    try:
        with _opened(path) as file:
            start = file.read(10)
            if start[:3] == b"ID3":
                # The size of the tags is written in four bytes of seven bits.
                size = 0
                for byte in start[6:10]:
                    size = size << 7 | byte & 0x7F
                file.seek(10 + size)
            else:
                file.seek(0)
            head = file.read(MP3_SEARCH_BYTES)
    except (OSError, ValueError):
        return False
    frame_start = head.find(b"\xff")
    if frame_start < 0:
        return False
    offsets = [head.find(tag) - frame_start for tag in (b"Xing", b"Info", b"VBRI")]
    return any(0 <= offset < 256 for offset in offsets)


def _number(data: bytes, order: Literal["big", "little"] = "big") -> int:
    return int.from_bytes(data, order)


def _box_starts(file: BinaryIO, size: int) -> Iterator[tuple[int, bytes]]:
    """Where each box of the outermost level begins, with its name.

    At last where the last box ends, with an empty name; -1 where the box does not tell.
    """
    start = 0
    while start + 8 <= size:
        file.seek(start)
        head = file.read(16)
        length = _number(head[:4])
        name = head[4:8]
        if length == 1:  # the length is in the next eight bytes
            length = _number(head[8:16])
        if not all(map(_is_letter_of_box, name)) or 0 < length < 8:
            break  # padding or other data after the last box
        yield start, name
        if length == 0:  # the box continues to the end of the file, wherever that is
            yield -1, b""
            return
        start += length
    yield start, b""


def _is_letter_of_box(byte: int) -> bool:
    """Whether a byte may be in the name of a box: ASCII, or the copyright sign of QuickTime."""
    return 32 <= byte < 127 or byte == 0xA9


def _boxes(file: BinaryIO, size: int) -> int | None:
    """MP4, MOV: the boxes of the outermost level follow one another (ISO 14496-12, 4.2)."""
    *_, (end, _name) = _box_starts(file, size)
    return end if end > 0 else None


def _element(file: BinaryIO, start: int) -> tuple[int, int, int | None]:
    """The EBML element at `start` (RFC 8794): its id, where its content begins, and its length.

    The length is None where the element does not tell it.
    """
    file.seek(start)
    head = file.read(12)
    if not head or not head[0]:
        raise ValueError("no element")
    # Leading zero bits count the bytes of a number. Ids keep the bit after them, lengths do not.
    id_bytes = 9 - head[0].bit_length()
    first = head[id_bytes]
    if not first:
        raise ValueError("no length")
    length_bytes = 9 - first.bit_length()
    all_ones = (1 << 7 * length_bytes) - 1  # means that the length is not known
    length = _number(head[id_bytes : id_bytes + length_bytes]) & all_ones
    content = start + id_bytes + length_bytes
    return _number(head[:id_bytes]), content, length if length != all_ones else None


EBML_HEADER = 0x1A45DFA3
SEGMENT = 0x18538067
"""Ids of the outermost elements of a Matroska file."""


def _segments(file: BinaryIO, size: int) -> int | None:
    """Matroska, WebM: a header and a segment, perhaps several times (RFC 9559)."""
    start = 0
    while start < size:
        try:
            name, content, length = _element(file, start)
        except (ValueError, IndexError):
            break
        if start == 0 and name != EBML_HEADER:
            return None
        if length is None:
            return None
        if name not in (EBML_HEADER, SEGMENT) and length > size - content:
            break  # other data after the last segment
        start = content + length
    return start or None


def _riff(file: BinaryIO, size: int) -> int | None:
    """WAV, AVI: RIFF chunks. A large AVI file has several."""
    start = 0
    end = None
    while start + 12 <= size:
        file.seek(start)
        head = file.read(12)
        length = _number(head[4:8], "little")
        if head[:4] not in (b"RIFF", b"RF64", b"BW64"):
            break
        # Before the length is checked: that of a large WAV file is a placeholder.
        if head[8:12] == b"WAVE":
            return _samples(file, size, start + 12)
        if not 0 < length < 0xFFFFFFFF:
            return None
        # A chunk of odd length is followed by a byte of padding.
        start = end = start + 8 + length + length % 2
    return end


def _samples(file: BinaryIO, size: int, start: int) -> int | None:
    """Where the samples of a WAV file end; `start` is its first chunk."""
    long_size = None
    while start + 8 <= size:
        file.seek(start)
        head = file.read(24)
        name = head[:4]
        length = _number(head[4:8], "little")
        if name == b"ds64":  # of a large file, whose other sizes are placeholders
            long_size = _number(head[16:24], "little")
        if name == b"data":
            if long_size:
                return start + 8 + long_size
            return start + 8 + length if 0 < length < UNKNOWN_SIZE else None
        start += 8 + length + length % 2
    return None


def _wave64(file: BinaryIO, size: int) -> int | None:
    """Sony Wave64: chunks with names of 16 bytes and sizes of 8, which count the head of 24."""
    # The head of the file: a name of 16 bytes, a size of 8, and the name `wave` of 16.
    start = 40
    while start + 24 <= size:
        file.seek(start)
        head = file.read(24)
        length = _number(head[16:24], "little")
        if head[:4] == b"data":
            return start + length if 24 < length < 1 << 62 else None
        if length < 24:
            return None
        start += length + -length % 8  # chunks begin at multiples of eight bytes
    return None


def _core_audio(file: BinaryIO, size: int) -> int | None:
    """Apple's CAF: chunks with a size of 8 bytes."""
    start = 8
    while start + 12 <= size:
        file.seek(start)
        head = file.read(12)
        length = _number(head[4:12])
        if length >= 1 << 62:  # -1: the samples continue to the end of the file, wherever that is
            return None
        start += 12 + length
        if head[:4] == b"data":
            return start
    return None


def _advanced_systems(file: BinaryIO, _: int) -> int | None:
    """ASF (WMV, WMA): the object of file properties has the size of the file."""
    head = file.read(1 << 16)
    # The GUID of the object, as it is stored: its first three fields are little-endian.
    start = head.find(bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365"))
    if start < 0:
        return None
    # The size is 0 when the file was not finished, or is a broadcast.
    return _number(head[start + 40 : start + 48], "little") or None


def _flash(file: BinaryIO, size: int) -> int | None:
    """FLV: each tag is followed by its length. The file is complete when the last one fits."""
    file.seek(max(size - 4, 0))
    length = _number(file.read(4))
    start = size - 4 - length
    # The head of a tag has 11 bytes, that of the file 9.
    if length < 11 or start < 9:
        return None
    file.seek(start)
    head = file.read(4)
    is_tag = head[:1] in (b"\x08", b"\x09", b"\x12") and _number(head[1:4]) + 11 == length
    return size if is_tag else None


def _pages(file: BinaryIO, size: int) -> int | None:
    """Ogg: pages. The head of a page has the lengths of its segments (RFC 3533)."""
    search_start = max(size - OGG_SEARCH_BYTES, 0)
    file.seek(search_start)
    tail = file.read(OGG_SEARCH_BYTES)
    page = tail.rfind(b"OggS\0")
    if page < 0:
        return None
    head = tail[page : page + 27]
    if len(head) < 27:
        return size + 1  # cut within the head of a page
    lengths = tail[page + 27 : page + 27 + head[26]]
    if len(lengths) < head[26]:
        return size + 1
    end = search_start + page + 27 + len(lengths) + sum(lengths)
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
