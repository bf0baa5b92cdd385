"""Packets -> frames."""

from typing import Any

import av

from looklisten.errors import SourceError
from looklisten.media.decode.records import (
    DecodeReport,
    Packet,
)


def last_line(error: BaseException) -> str:
    log = getattr(error, "log", None)
    return str(log[2]).strip() if log else str(getattr(error, "strerror", None) or error)


def decode_packet(codec: Any, packet: Packet | None, report: DecodeReport) -> list[Any]:
    """The frames that a packet completes; None flushes the decoder. Raises SourceError when the
    packet is encrypted.
    """
    if packet is not None and packet.has_sidedata("encryption_info"):
        raise SourceError(encrypted_sentence(report.source, codec.type))
    try:
        frames: list[Any] = codec.decode(packet)
    except av.FFmpegError as error:
        if isinstance(error, av.EOFError):
            return []
        report.damaged_count += 1
        report.last_error = last_line(error)
        return []
    return frames


def encrypted_sentence(source: str, kind: str) -> str:
    name = {"video": "picture", "audio": "sound"}[kind]
    return f"{source} has an encrypted {name} stream; decrypt the file with the tool of its publisher first, or take another copy"
