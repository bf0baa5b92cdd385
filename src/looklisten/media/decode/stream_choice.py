"""Of the streams of a file, the one of pictures and the one of sound that are meant.

Knows the headers of streams; decodes nothing.
"""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from av.container import InputContainer
from av.stream import Disposition

NO_PICTURE = Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.metadata
"""Covers, thumbnails of a timeline and data: none of these is the picture of a film, even if there
is no other.
"""

SECONDARY_PICTURE = Disposition.dependent | Disposition.still_image
"""Layers and tiles of another picture, and stills: taken only where there is nothing else."""

SECONDARY_SOUND = (
    Disposition.comment
    | Disposition.visual_impaired
    | Disposition.hearing_impaired
    | Disposition.descriptions
    | Disposition.dependent
    | Disposition.metadata
)
"""A commentary, a description of the picture, a mix for people who hear badly: taken only where
there is nothing else.
"""

SHORT_SHARE = 0.5
"""A stream that is shorter than this share of the longest of its kind is a preview or a jingle,
whatever its flags say.
"""

ENCRYPTED_TAGS = frozenset({"encv", "enca", "drms", "drmi", "aavd"})
"""Kinds of tracks of MP4 files whose samples are encrypted (ISO 14496-12, 8.12; FairPlay; Audible)."""

ENCRYPTION_KEY_TAG = "enc_key_id"
"""FFmpeg puts the id of the key of an encrypted Matroska track here."""


@dataclass(frozen=True)
class StreamChoice:
    """The stream that is meant, and in words why others were passed over."""

    stream: Any
    passed_over: tuple[str, ...]


def video_streams(container: InputContainer) -> list[Any]:
    """The streams of pictures that this FFmpeg can decode; covers and thumbnails are none."""
    decodable = [stream for stream in container.streams.video if stream.codec_context]
    return [stream for stream in decodable if not stream.disposition & NO_PICTURE]


def audio_streams(container: InputContainer) -> list[Any]:
    """The streams of sound that this FFmpeg can decode."""
    return [s for s in container.streams.audio if s.codec_context]


def choose_video(streams: Sequence[Any]) -> StreamChoice:
    """The picture that is meant.

    In this order: one with a size, not encrypted, no layer and no still, not much shorter than the
    longest, marked as default, with the most pixels, with the most frames, the longest, the first.
    """
    longest = max((stream_seconds(s) or 0.0 for s in streams), default=0.0)

    def rank(stream: Any) -> tuple[Any, ...]:
        return (
            stream.width > 0 and stream.height > 0 and stream.codec_context.format is not None,
            not is_encrypted(stream),
            not stream.disposition & SECONDARY_PICTURE,
            not _is_short(stream, streams, longest),
            bool(stream.disposition & Disposition.default),
            stream.width * stream.height,
            stream.frames,
            stream_seconds(stream) or 0.0,
            -stream.index,
        )

    return _best(streams, rank)


def choose_audio(streams: Sequence[Any], preferred: Any = None) -> StreamChoice:
    """The sound that is meant.

    In this order: one with a rate and channels, not encrypted, no commentary or description, not
    much shorter than the longest, `preferred` (it belongs to the chosen picture), marked as
    default, the first.
    """
    longest = max((stream_seconds(s) or 0.0 for s in streams), default=0.0)

    def rank(stream: Any) -> tuple[Any, ...]:
        return (
            stream.codec_context.sample_rate > 0 and stream.codec_context.layout.nb_channels > 0,
            not is_encrypted(stream),
            not stream.disposition & SECONDARY_SOUND,
            not _is_short(stream, streams, longest),
            stream is preferred,
            bool(stream.disposition & Disposition.default),
            -stream.index,
        )

    return _best(streams, rank)


def _best(streams: Sequence[Any], rank: Any) -> StreamChoice:
    best = max(streams, key=rank)
    return StreamChoice(best, tuple(_described(stream) for stream in streams if stream is not best))


def _described(stream: Any) -> str:
    """Such as "stream 1, video of 64 x 48, 4.0 s, dependent"."""
    words = [f"stream {stream.index}", str(stream.type)]
    if stream.type == "video":
        words[-1] += f" of {stream.width} x {stream.height}"
    if stream.language:
        words.append(str(stream.language))
    seconds = stream_seconds(stream)
    if seconds is not None:
        words.append(f"{seconds:.1f} s")
    flags = Disposition(stream.disposition)
    words.extend(str(flag.name) for flag in Disposition if flag in flags)
    return ", ".join(words)


def stream_seconds(stream: Any) -> float | None:
    """How long a stream says it lasts; None where it does not say."""
    # Matroska has no field for it; programs put it into a tag, such as 00:00:04.021000000. For a
    # stream without a packet FFmpeg makes up a duration, so the tag goes before.
    for name, value in stream.metadata.items():
        if name.upper().partition("-")[0] == "DURATION":
            with contextlib.suppress(ValueError):
                hours, minutes, seconds = value.split(":")
                return int(hours) * 3600 + int(minutes) * 60 + float(seconds)
    if stream.duration is not None and stream.time_base:
        return float(stream.duration * stream.time_base)
    return None


def _is_short(stream: Any, streams: Sequence[Any], longest_seconds: float) -> bool:
    """Whether a stream is a preview: a single frame beside a film, or much shorter than the
    longest.
    """
    if stream.type == "video" and stream.frames == 1 and any(other.frames > 1 for other in streams):
        return True
    seconds = stream_seconds(stream)
    return seconds is not None and seconds < SHORT_SHARE * longest_seconds


def audio_of_program(container: InputContainer, videos: Sequence[Any], video: Any) -> Any:
    """Of a broadcast with several programs the sound that belongs to `video`; None where there is
    one program only.

    The sound of another program is no sound of this picture.
    """
    related = [container.streams.best("audio", related=one) for one in videos]
    if len({sound.index for sound in related if sound is not None}) < 2:
        return None
    return related[list(videos).index(video)]


def is_tiled_still(container: InputContainer, videos: Sequence[Any]) -> bool:
    """Whether the pictures are tiles of one photograph (HEIC, AVIF) that FFmpeg's demuxer hands out
    one by one.
    """
    is_file_of_boxes = container.format.name.startswith("mov,")
    has_film = any(stream.frames > 1 for stream in videos)
    return is_file_of_boxes and any(map(_is_tile, videos)) and not has_film


def _is_tile(stream: Any) -> bool:
    is_dependent = bool(stream.disposition & Disposition.dependent)
    return is_dependent and stream.frames <= 1 and stream.duration is None


def is_still(container: InputContainer, video: Any) -> bool:
    """Whether a file is one picture without sound, as its header says."""
    return video.frames == 1 and not audio_streams(container)


def is_encrypted(stream: Any) -> bool:
    """Whether the header of a stream says that its packets are encrypted."""
    try:
        tag = stream.codec_context.codec_tag
    except UnicodeDecodeError:
        tag = ""
    names = {name.lower() for name in stream.metadata}
    return tag in ENCRYPTED_TAGS or ENCRYPTION_KEY_TAG in names


PHOTOGRAPH_BRANDS = frozenset(b"heic heix heim heis hevc hevx mif1 mif2 msf1 avif avis".split())
"""The first brand of a HEIF file (ISO 23008-12), bytes 8 to 11."""


def photograph_advice(path: str | Path) -> str:
    """What to do with a photograph in a HEIF file that FFmpeg cannot read, to be put behind a
    sentence; empty for other files.
    """
    with contextlib.suppress(OSError, ValueError), Path(path).open("rb") as file:
        start = file.read(12)
        if start[4:8] == b"ftyp" and start[8:] in PHOTOGRAPH_BRANDS:
            return "; save it as JPEG, or install pillow-heif"
    return ""
