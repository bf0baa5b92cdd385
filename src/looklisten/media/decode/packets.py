"""Packets of a file -> the frames that they complete. Counts what cannot be decoded."""

from typing import Any

import av

from looklisten.errors import SourceError
from looklisten.media.decode.records import DecodeReport, Packet

THEORA_COMMENT = b"\x81theora"
"""How a Theora packet begins that holds comments instead of a frame."""


def decode_packet(codec: Any, packet: Packet | None, report: DecodeReport) -> list[Any]:
    """The frames that a packet completes; None flushes the decoder.

    A packet that cannot be decoded gives no frame and is counted in the report. Raises SourceError
    when the packet is encrypted.
    """
    if packet is not None and packet.has_sidedata("encryption_info"):
        raise SourceError(encrypted_sentence(report.source_name, codec.type))
    # Where Ogg files were joined, comments are among the packets, and FFmpeg calls them an error.
    if packet is not None and codec.name == "theora" and _begins_with(packet, THEORA_COMMENT):
        return []
    try:
        frames: list[Any] = codec.decode(packet)
    except av.EOFError:
        # A decoder that was flushed before answers so; nothing is damaged.
        return []
    except av.FFmpegError as error:
        report.damaged_count += 1
        report.last_error = last_line(error)
        return []
    return frames


def _begins_with(packet: Packet, start: bytes) -> bool:
    return packet.size >= len(start) and bytes(memoryview(packet)[: len(start)]) == start


def last_line(error: BaseException) -> str:
    """The last line that FFmpeg logged about an error."""
    log = getattr(error, "log", None)
    if log:
        # PyAV's log is a level, a name and the message.
        return str(log[2]).strip()
    return str(getattr(error, "strerror", None) or error)


def encrypted_sentence(source_name: str, kind: str) -> str:
    """The error for an encrypted stream of a kind, "video" or "audio"."""
    return (
        f"{source_name} has an encrypted {kind} stream; "
        "decrypt the file with the tool of its publisher first, or use another copy"
    )
