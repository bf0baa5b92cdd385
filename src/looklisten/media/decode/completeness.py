"""Whether a file was read to its end."""

from pathlib import Path

import av
from av.container import InputContainer

from looklisten.media.decode.clock import FILE_LENGTHS, Clock
from looklisten.media.decode.file_end import counts_frames, second_file, written_bytes
from looklisten.media.decode.options import DecodeOptions
from looklisten.media.decode.records import DecodeReport

STREAM_LENGTHS = frozenset({"mov", "flac", "aiff", "au", "mp3"})
"""Formats whose header says how long each stream is (of MP3 only some, `counts_frames`); in MOV and
MP4 after the edit list.
"""


BYTE_LENGTHS = frozenset({"wav", "w64", "caf", "asf"})
"""Formats of which FFmpeg says the length of what is there, and whose structure says how many bytes
there should be.
"""


class Completeness:
    """Whether a file was read to its end: what each decoded stream declares, against what was read
    of it.

    A file is broken when packets are missing or do not decode, not when its headers disagree.
    """

    def __init__(
        self, path: str | Path, container: InputContainer, clock: "Clock", wanted: DecodeOptions
    ) -> None:
        self._container, self._clock, self._wanted = container, clock, wanted
        self._path = path
        self._format = container.format.name.split(",")[0]
        self._size_bytes = container.size
        self._written_bytes = written_bytes(path, self._format)
        self._counts_frames = self._format != "mp3" or counts_frames(path)

    def declared_seconds(self, stream: av.VideoStream | av.AudioStream) -> float | None:
        """Where a stream ends on the clock by its own header; None when that does not say."""
        if (
            self._format not in STREAM_LENGTHS
            or not self._counts_frames
            or not stream.duration
            or not stream.time_base
        ):
            return None
        return (
            float(((stream.start_time or 0) + stream.duration) * stream.time_base)
            - self._clock.origin_seconds
        )

    def missing_packets(self) -> str:
        """What was not read of the wanted stretch; empty when nothing lacks, or when nobody can
        know.
        """
        if (
            self._written_bytes is not None
            and self._written_bytes <= self._size_bytes
            and not self._stopped_early()
        ):
            return ""
        for stream in self._clock.streams:
            reached = self._clock.reached_seconds.get(stream.index, 0.0)
            declared = self.declared_seconds(stream)
            if declared is None and self._format in FILE_LENGTHS:
                reached, declared = self._clock.last_seconds, self._file_seconds()
            if declared is None and self._format in BYTE_LENGTHS and self._written_bytes:
                declared = reached * self._written_bytes / self._size_bytes
            if declared and self._lacks(reached, declared):
                return f"it ends after {reached:.1f} s of the {declared:.1f} s that its header declares"
        cut_within_page = self._format == "ogg" and self._written_bytes is not None
        if cut_within_page and self._clock.last_seconds < self._wanted.stop_seconds:
            return f"it ends after {self._clock.last_seconds:.1f} s, in the middle of a page of Ogg"
        return ""

    def unread_seconds(self) -> float:
        """About how long a second file is that was appended to this one and that FFmpeg does not
        read; 0 without one.
        """
        end_byte = (
            self._clock.last_byte if self._format in ("flv", "matroska") else self._written_bytes
        )
        begin = second_file(self._path, self._format, end_byte or self._clock.last_byte)
        if (
            begin is None
            or self._clock.last_byte > begin
            or self._wanted.stop_seconds < self._clock.last_seconds
        ):
            return 0.0
        return self._clock.last_seconds * (self._size_bytes - begin) / begin

    def undecoded_rest(
        self, video: av.VideoStream | None, audio: av.AudioStream | None, report: DecodeReport
    ) -> str:
        """Which stream has packets at its end that do not decode; empty when all do."""
        for kind, stream, got in (
            ("picture", video, report.video_end_seconds),
            ("sound", audio, report.audio_end_seconds),
        ):
            reached = self._clock.reached_seconds.get(stream.index, 0.0) if stream else 0.0
            if self._lacks(got, reached):
                return f"its {kind} cannot be decoded after {got:.1f} s of {reached:.1f} s"
        return ""

    def _lacks(self, got_seconds: float, declared_seconds: float) -> bool:
        """Whether more lacks of the wanted stretch than headers are wrong by."""
        end = min(declared_seconds, self._wanted.stop_seconds)
        return end > self._wanted.start_seconds and got_seconds < end - max(1.0, 0.02 * end)

    def _file_seconds(self) -> float | None:
        """What the header of the file declares; AVI's own duration is that of what is there, so its
        frames are counted.
        """
        videos = self._container.streams.video if self._format == "avi" else ()
        counted = [
            video.frames / float(video.average_rate) for video in videos if video.average_rate
        ]
        return max([*counted, (self._container.duration or 0) / av.time_base]) or None

    def _stopped_early(self) -> bool:
        """Whether FFmpeg gave up reading though the file goes on: much of it lies behind the last
        packet.
        """
        declared, reached = self._file_seconds(), self._clock.last_seconds
        if self._format not in FILE_LENGTHS or not declared or not self._lacks(reached, declared):
            return False
        unread = self._size_bytes - self._clock.last_byte
        return unread > 0.5 * self._clock.last_byte * (declared - reached) / max(reached, 1.0)
