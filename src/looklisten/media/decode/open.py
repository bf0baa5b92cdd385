"""Opens a media file and selects the streams to decode. Decodes nothing."""

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import av
from av.codec.context import Flags
from av.container import InputContainer

from looklisten.errors import SourceError
from looklisten.media.decode.options import DecodeOptions
from looklisten.media.decode.packets import encrypted_sentence, last_line
from looklisten.media.decode.records import DecodeReport
from looklisten.media.decode.stream_choice import (
    StreamChoice,
    audio_of_program,
    audio_streams,
    choose_audio,
    choose_video,
    is_encrypted,
    is_tiled_still,
    photograph_advice,
    video_streams,
)

UNALIGNED = Flags.unaligned.value


def open_media(path: str | Path, options: DecodeOptions, report: DecodeReport) -> InputContainer:
    """The container of a file. Raises SourceError when FFmpeg cannot open it."""
    report.source_name = str(path)
    ffmpeg_options = {
        # A playlist may be named like a video. It must not make this process read other files, or
        # contact other computers.
        "protocol_whitelist": "file,crypto,data",
        "max_streams": str(options.max_streams),
    }
    try:
        # Tags may be in any encoding, and PyAV by default fails at one that is not UTF-8.
        return av.open(str(path), metadata_errors="ignore", options=ffmpeg_options)
    except (av.FFmpegError, OSError, ValueError) as error:
        report.last_error = _reason(path, error)
        kind = "video" if options.video else "sound"
        raise SourceError(
            f"{path} cannot be opened as {kind}: {report.last_error}{photograph_advice(path)}"
        ) from error


def _reason(path: str | Path, error: Exception) -> str:
    """Why a file cannot be opened, in plain words."""
    with contextlib.suppress(OSError, ValueError):
        file = Path(path)
        if file.is_file() and file.stat().st_size == 0:
            return "the file is empty"
    if not isinstance(error, (av.error.InvalidDataError, av.error.EOFError)):
        return last_line(error)
    return (
        "it is no video or sound that can be read, or a part of it is missing "
        f"(FFmpeg: {last_line(error)})"
    )


def select_streams(
    container: InputContainer,
    path: str | Path,
    options: DecodeOptions,
    report: DecodeReport | None = None,
) -> tuple[av.VideoStream | None, av.AudioStream | None]:
    """The video stream and the audio stream to decode (`stream_choice`), None where not asked for.

    Streams that are not chosen are listed in the report. Raises SourceError when a stream that is
    asked for is missing, encrypted or too large, or when the file has too many streams.
    """
    # FFmpeg reads no stream beyond the limit, so a file that reaches it may have more.
    if len(container.streams) >= options.max_streams:
        raise SourceError(
            f"{path} has {len(container.streams)} streams or more; "
            f"at most {options.max_streams} are allowed{photograph_advice(path)}"
        )
    videos = video_streams(container)
    audios = audio_streams(container)
    _check_present(container, path, options, videos, audios)
    video_choice, audio_choice = _choices(container, videos, audios)
    choices: list[StreamChoice] = []
    video = audio = None
    if options.video and video_choice:
        video = video_choice.stream
        choices.append(video_choice)
    if options.audio and audio_choice:
        audio = audio_choice.stream
        choices.append(audio_choice)
    if report is not None:
        report.skipped_streams = [words for choice in choices for words in choice.skipped]
    for choice in choices:
        if is_encrypted(choice.stream):
            raise SourceError(encrypted_sentence(str(path), choice.stream.type))
    if video and video.width * video.height > options.max_megapixels * 1e6:
        raise SourceError(
            f"{path} has frames of {video.width} x {video.height}; "
            f"at most {options.max_megapixels:g} megapixels are allowed"
        )
    for choice in choices:
        # One thread a file: many files are decoded at once, and that uses the cores better.
        choice.stream.codec_context.thread_count = 1
        # Otherwise FFmpeg crops at the left only by multiples of what its fast copies need.
        choice.stream.codec_context.flags |= UNALIGNED
    return video, audio


def undecoded_streams(container: InputContainer, decoded: Sequence[Any]) -> list[Any]:
    """The video or the audio that is meant in a file, where it is not among `decoded`."""
    choices = _choices(container, video_streams(container), audio_streams(container))
    meant = [choice.stream for choice in choices if choice]
    return [stream for stream in meant if stream not in decoded]


def _choices(
    container: InputContainer, videos: list[Any], audios: list[Any]
) -> tuple[StreamChoice | None, StreamChoice | None]:
    """The video and the audio that are meant; None where there is none."""
    # The video is chosen even when only the audio is decoded: in a broadcast of several programs,
    # the audio must be that of the video's program.
    video = choose_video(videos) if videos else None
    related = None
    if video and len(videos) > 1 and len(audios) > 1:
        related = audio_of_program(container, videos, video.stream)
    return video, choose_audio(audios, related) if audios else None


def _check_present(
    container: InputContainer,
    path: str | Path,
    options: DecodeOptions,
    videos: list[Any],
    audios: list[Any],
) -> None:
    """Raise SourceError when the file lacks a stream that is asked for."""
    if options.video and not options.audio and is_tiled_still(container, videos):
        raise SourceError(
            f"{path} is a photograph stored in tiles, which FFmpeg does not join"
            f"{photograph_advice(path)}"
        )
    advice = "; both video and audio are needed" if options.video and options.audio else ""
    if options.video and not videos:
        raise SourceError(f"{path} has no video stream that can be decoded{advice}")
    if options.audio and not audios:
        raise SourceError(f"{path} has no audio stream that can be decoded{advice}")
