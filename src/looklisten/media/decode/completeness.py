"""Whether a file was read to its end: what its header declares, compared with what was read.

A file is incomplete when packets are missing or do not decode, not when its headers disagree.
"""

from pathlib import Path

import av
from av.container import InputContainer

from looklisten.media.decode.clock import FILE_LENGTHS, Clock
from looklisten.media.decode.file_end import counts_frames, second_file, written_bytes
from looklisten.media.decode.options import DecodeOptions
from looklisten.media.decode.records import DecodeReport

STREAM_LENGTHS = frozenset({"mov", "flac", "aiff", "au", "mp3"})
"""Formats whose header declares how long each stream is.

Of MP3 files only some do (`counts_frames`). In MOV and MP4 the edit list is applied.
"""

BYTE_LENGTHS = frozenset({"wav", "w64", "caf", "asf"})
"""Formats where FFmpeg tells the length of what is there, and the structure how much there should
be.
"""

TOLERATED_SECONDS = 1.0
TOLERATED_SHARE = 0.02
"""Headers are wrong by so much though nothing is missing; the larger of the two counts."""

CUT_SECONDS = 0.1
"""Where bytes are missing, less than this is no loss: a packet or two."""


class Completeness:
    """Compares the declared length of a file with what a clock has read of it."""

    def __init__(
        self, path: str | Path, container: InputContainer, clock: Clock, options: DecodeOptions
    ) -> None:
        self._container = container
        self._clock = clock
        self._options = options
        self._path = path
        self._format = container.format.name.split(",")[0]
        self._size_bytes = container.size
        self._written_bytes = written_bytes(path, self._format)
        """How long the file should be by its structure."""
        # Of other MP3 files FFmpeg only estimates the length, and an estimate declares nothing.
        self._counts_frames = self._format != "mp3" or counts_frames(path)

    def declared_seconds(self, stream: av.VideoStream | av.AudioStream) -> float | None:
        """Where a stream ends on the clock by its header; None when the header does not say."""
        if self._format not in STREAM_LENGTHS or not self._counts_frames:
            return None
        if not stream.duration or not stream.time_base:
            return None
        end_ticks = (stream.start_time or 0) + stream.duration
        return float(end_ticks * stream.time_base) - self._clock.origin_seconds

    def missing_packets(self) -> str:
        """A sentence on what could not be read; empty when nothing is known to be missing."""
        has_all_bytes = self._written_bytes is not None and self._written_bytes <= self._size_bytes
        # Bytes count more than seconds: a header may declare a wrong length of a complete file.
        if has_all_bytes and not self._stopped_early():
            return ""
        for stream in self._clock.streams:
            read, declared = self._read_and_declared(stream)
            if declared and self._lacks(read, declared, self._tolerated_seconds(declared)):
                return (
                    f"it ends after {read:.1f} s of the {declared:.1f} s that its header declares"
                )
        # Of Ogg files the structure is known only when they are cut within a page.
        is_cut_in_page = self._format == "ogg" and self._written_bytes is not None
        last_seconds = self._clock.last_seconds
        if is_cut_in_page and last_seconds < self._options.stop_seconds:
            return f"it ends after {last_seconds:.1f} s, in the middle of a page of Ogg"
        return ""

    def _read_and_declared(
        self, stream: av.VideoStream | av.AudioStream
    ) -> tuple[float, float | None]:
        """How far a stream was read, and how long it is by the best declaration that there is."""
        read = self._clock.read_until_seconds.get(stream.index, 0.0)
        declared = self.declared_seconds(stream)
        if declared is None and self._format in FILE_LENGTHS:
            return self._clock.last_seconds, self._file_seconds()
        if declared is None and self._format in BYTE_LENGTHS and self._written_bytes:
            # The seconds count what is there, so they grow by the share of bytes that is missing.
            return read, read * self._written_bytes / self._size_bytes
        return read, declared

    def unread_seconds(self) -> float:
        """The estimated length of a second file that is appended; 0 without one.

        FFmpeg reads only the first file where two were joined byte by byte.
        """
        last_byte = self._clock.last_byte
        last_seconds = self._clock.last_seconds
        # Of these two, `written_bytes` counts the files that are appended too.
        end_byte = last_byte if self._format in ("flv", "matroska") else self._written_bytes
        start_byte = second_file(self._path, self._format, end_byte or last_byte)
        if start_byte is None or last_byte > start_byte:
            return 0.0
        if self._options.stop_seconds < last_seconds:
            return 0.0
        return last_seconds * (self._size_bytes - start_byte) / start_byte

    def undecoded_end(
        self, video: av.VideoStream | None, audio: av.AudioStream | None, report: DecodeReport
    ) -> str:
        """A sentence on a stream whose last packets do not decode; empty when all decode."""
        ends = (
            ("video", video, report.video_end_seconds),
            ("sound", audio, report.audio_end_seconds),
        )
        for kind, stream, decoded in ends:
            read = self._clock.read_until_seconds.get(stream.index, 0.0) if stream else 0.0
            if self._lacks(decoded, read, self._usually_wrong_seconds(read)):
                return f"its {kind} cannot be decoded after {decoded:.1f} s of {read:.1f} s"
        return ""

    def _lacks(self, seconds: float, declared_seconds: float, tolerated_seconds: float) -> bool:
        """Whether more is missing than is tolerated, of what is wanted of the file."""
        end = min(declared_seconds, self._options.stop_seconds)
        if end <= self._options.start_seconds:
            return False
        return seconds < end - tolerated_seconds

    def _tolerated_seconds(self, declared_seconds: float) -> float:
        """How much may be missing of a stream whose header declares `declared_seconds`."""
        is_cut = self._written_bytes is not None and self._written_bytes > self._size_bytes
        # Of ASF files the bytes of an index at the end count too, so the seconds are a guess.
        if is_cut and self._format != "asf":
            return CUT_SECONDS
        return self._usually_wrong_seconds(declared_seconds)

    def _usually_wrong_seconds(self, declared_seconds: float) -> float:
        end = min(declared_seconds, self._options.stop_seconds)
        return max(TOLERATED_SECONDS, TOLERATED_SHARE * end)

    def _file_seconds(self) -> float | None:
        """How long the file is by its header."""
        lengths = [(self._container.duration or 0) / av.time_base]
        if self._format == "avi":
            # FFmpeg's duration of an AVI file is that of what is there, so frames are counted.
            for video in self._container.streams.video:
                if video.average_rate:
                    lengths.append(video.frames / float(video.average_rate))
        return max(lengths) or None

    def _stopped_early(self) -> bool:
        """Whether FFmpeg gave up though the file continues: much of it follows the last packet."""
        declared = self._file_seconds()
        read = self._clock.last_seconds
        if self._format not in FILE_LENGTHS or not declared:
            return False
        if not self._lacks(read, declared, self._usually_wrong_seconds(declared)):
            return False
        unread_bytes = self._size_bytes - self._clock.last_byte
        missing_share = (declared - read) / max(read, 1.0)
        return unread_bytes > 0.5 * self._clock.last_byte * missing_share
