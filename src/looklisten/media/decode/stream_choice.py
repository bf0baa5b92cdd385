"""Which video stream and which audio stream of a file are meant.

Knows the headers of streams; decodes nothing.
"""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from av.container import InputContainer
from av.stream import Disposition

NO_VIDEO = Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.metadata
"""Covers, thumbnails of a timeline and data. None of these is a video, even without another one."""

SECONDARY_VIDEO = Disposition.dependent | Disposition.still_image
"""Layers and tiles of another image, and stills: chosen only where there is nothing else."""

SECONDARY_AUDIO = (
    Disposition.comment
    | Disposition.visual_impaired
    | Disposition.hearing_impaired
    | Disposition.descriptions
    | Disposition.dependent
    | Disposition.metadata
)
"""Commentaries, descriptions, mixes for the hearing impaired: chosen where nothing else is."""

SHORT_SHARE = 0.5
"""A stream below this share of the longest one of its kind is a preview, whatever its flags say."""

ENCRYPTED_TAGS = frozenset({"encv", "enca", "drms", "drmi", "aavd"})
"""Tags of encrypted tracks of MP4 files (ISO 14496-12, 8.12; FairPlay; Audible)."""

ENCRYPTION_KEY_TAG = "enc_key_id"
"""The metadata where FFmpeg puts the id of the key of an encrypted Matroska track."""


@dataclass(frozen=True)
class StreamChoice:
    """The chosen stream, and a description of each other stream of its kind."""

    stream: Any
    skipped: tuple[str, ...]


def video_streams(container: InputContainer) -> list[Any]:
    """The video streams that this FFmpeg can decode, without covers and thumbnails."""
    decodable = [stream for stream in container.streams.video if stream.codec_context]
    return [stream for stream in decodable if not stream.disposition & NO_VIDEO]


def audio_streams(container: InputContainer) -> list[Any]:
    """The audio streams that this FFmpeg can decode."""
    return [stream for stream in container.streams.audio if stream.codec_context]


def choose_video(streams: Sequence[Any]) -> StreamChoice:
    """The video stream that is meant.

    Streams are compared by these properties, the first difference decides: it has a size, is not
    encrypted, is no layer and no still, is not short, is the default, has the most pixels, has the
    most frames, is the longest, comes first.
    """
    longest = max((stream_seconds(stream) or 0.0 for stream in streams), default=0.0)

    def rank(stream: Any) -> tuple[Any, ...]:
        return (
            stream.width > 0 and stream.height > 0 and stream.codec_context.format is not None,
            not is_encrypted(stream),
            not stream.disposition & SECONDARY_VIDEO,
            not _is_short(stream, streams, longest),
            bool(stream.disposition & Disposition.default),
            stream.width * stream.height,
            stream.frames,
            stream_seconds(stream) or 0.0,
            -stream.index,
        )

    return _best(streams, rank)


def choose_audio(streams: Sequence[Any], preferred: Any = None) -> StreamChoice:
    """The audio stream that is meant; `preferred` belongs to the chosen video.

    Streams are compared by these properties, the first difference decides: it has a rate and
    channels, is not encrypted, is no commentary and no description, is not short, is `preferred`,
    is the default, comes first.
    """
    longest = max((stream_seconds(stream) or 0.0 for stream in streams), default=0.0)

    def rank(stream: Any) -> tuple[Any, ...]:
        return (
            stream.codec_context.sample_rate > 0 and stream.codec_context.layout.nb_channels > 0,
            not is_encrypted(stream),
            not stream.disposition & SECONDARY_AUDIO,
            not _is_short(stream, streams, longest),
            stream is preferred,
            bool(stream.disposition & Disposition.default),
            -stream.index,
        )

    return _best(streams, rank)


def _best(streams: Sequence[Any], rank: Callable[[Any], tuple[Any, ...]]) -> StreamChoice:
    best = max(streams, key=rank)
    skipped = [_described(stream) for stream in streams if stream is not best]
    return StreamChoice(best, tuple(skipped))


def _described(stream: Any) -> str:
    """A description such as "stream 1, video of 64 x 48, 4.0 s, dependent"."""
    words = [f"stream {stream.index}"]
    if stream.type == "video":
        words.append(f"video of {stream.width} x {stream.height}")
    else:
        words.append(str(stream.type))
    if stream.language:
        words.append(str(stream.language))
    seconds = stream_seconds(stream)
    if seconds is not None:
        words.append(f"{seconds:.1f} s")
    flags = Disposition(stream.disposition)
    words.extend(str(flag.name) for flag in Disposition if flag in flags)
    return ", ".join(words)


def stream_seconds(stream: Any) -> float | None:
    """The duration of a stream by its header; None where the header does not say."""
    # Matroska has no field for it; programs write a tag such as 00:00:04.021000000. The tag comes
    # first, because FFmpeg invents a duration for a stream without a packet.
    for name, value in stream.metadata.items():
        # FFmpeg appends the language of a tag to its name, as in DURATION-eng.
        if name.upper().partition("-")[0] == "DURATION":
            with contextlib.suppress(ValueError):
                hours, minutes, seconds = value.split(":")
                return int(hours) * 3600 + int(minutes) * 60 + float(seconds)
    if stream.duration is not None and stream.time_base:
        return float(stream.duration * stream.time_base)
    return None


def _is_short(stream: Any, streams: Sequence[Any], longest_seconds: float) -> bool:
    """Whether a stream is a preview: one frame next to a video, or much shorter than others."""
    if stream.type == "video" and stream.frames == 1 and any(other.frames > 1 for other in streams):
        return True
    seconds = stream_seconds(stream)
    return seconds is not None and seconds < SHORT_SHARE * longest_seconds


def audio_of_program(container: InputContainer, videos: Sequence[Any], video: Any) -> Any:
    """In a broadcast of several programs, the audio stream of the program of `video`; else None."""
    related = [container.streams.best("audio", related=other) for other in videos]
    audio_indexes = {stream.index for stream in related if stream is not None}
    # Where all programs share one audio stream, the video does not decide.
    if len(audio_indexes) < 2:
        return None
    return related[list(videos).index(video)]


def is_tiled_still(container: InputContainer, videos: Sequence[Any]) -> bool:
    """Whether the video streams are tiles of one photograph (HEIC, AVIF)."""
    # FFmpeg's demuxer gives such tiles as separate streams and does not join them.
    has_boxes = container.format.name.startswith("mov,")
    has_moving_video = any(stream.frames > 1 for stream in videos)
    return has_boxes and any(map(_is_tile, videos)) and not has_moving_video


def _is_tile(stream: Any) -> bool:
    is_dependent = bool(stream.disposition & Disposition.dependent)
    return is_dependent and stream.frames <= 1 and stream.duration is None


def is_still(container: InputContainer, video: Any) -> bool:
    """Whether a file is a single frame without sound, by its header."""
    return video.frames == 1 and not audio_streams(container)


def is_encrypted(stream: Any) -> bool:
    """Whether the header of a stream says that its packets are encrypted."""
    try:
        tag = stream.codec_context.codec_tag
    except UnicodeDecodeError:
        # PyAV reads the four bytes of the tag as text, which they need not be.
        tag = ""
    names = {name.lower() for name in stream.metadata}
    return tag in ENCRYPTED_TAGS or ENCRYPTION_KEY_TAG in names


PHOTOGRAPH_BRANDS = frozenset(b"heic heix heim heis hevc hevx mif1 mif2 msf1 avif avis".split())
"""The first brand of a HEIF file (ISO 23008-12), bytes 8 to 11."""


def photograph_advice(path: str | Path) -> str:
    """The end of a sentence: what to do with a HEIF photograph; empty for other files."""
    with contextlib.suppress(OSError, ValueError), Path(path).open("rb") as file:
        start = file.read(12)
        if start[4:8] == b"ftyp" and start[8:] in PHOTOGRAPH_BRANDS:
            return "; save it as JPEG, or install pillow-heif"
    return ""
