"""Open a file and select its streams."""

from pathlib import Path

import av
from av.container import InputContainer

from looklisten.errors import SourceError
from looklisten.media.decode.options import DecodeOptions
from looklisten.media.decode.packets import encrypted_sentence, last_line
from looklisten.media.decode.records import DecodeReport
from looklisten.media.decode.stream_choice import (
    audio_of_program,
    audio_streams,
    choose_audio,
    choose_video,
    is_encrypted,
    is_tiled_still,
    photograph_advice,
    video_streams,
)


def open_media(path: str | Path, wanted: DecodeOptions, report: DecodeReport) -> InputContainer:
    report.source = str(path)
    try:
        # A playlist that is named like a video must not make this process read other files or
        # hosts.
        options = {"protocol_whitelist": "file,crypto,data", "max_streams": str(wanted.max_streams)}
        return av.open(str(path), metadata_errors="ignore", options=options)
    except (av.FFmpegError, OSError, ValueError) as error:
        report.last_error = last_line(error)
        kind = "video" if wanted.video else "sound"
        raise SourceError(
            f"{path} cannot be opened as {kind}: {report.last_error}{photograph_advice(path)}"
        ) from error


def select_streams(
    container: InputContainer,
    path: str | Path,
    wanted: DecodeOptions,
    report: DecodeReport | None = None,
) -> tuple[av.VideoStream | None, av.AudioStream | None]:
    """The stream of pictures and the stream of sound that are meant (`stream_choice`), where they
    are wanted.

    What is passed over is written into `report`. Raises SourceError when a wanted one is not there,
    is encrypted or is too large.
    """
    if len(container.streams) >= wanted.max_streams:
        raise SourceError(
            f"{path} has {len(container.streams)} streams or more; at most {wanted.max_streams} are allowed{photograph_advice(path)}"
        )
    videos, audios = video_streams(container), audio_streams(container)
    both = "; both picture and sound are needed" if wanted.video and wanted.audio else ""
    if wanted.video and not wanted.audio and is_tiled_still(container, videos):
        raise SourceError(
            f"{path} is a photograph stored in tiles, which cannot be put together here{photograph_advice(path)}"
        )
    for kind, is_wanted, found in (
        ("picture", wanted.video, videos),
        ("sound", wanted.audio, audios),
    ):
        if is_wanted and not found:
            raise SourceError(f"{path} has no {kind} stream that can be decoded{both}")
    # The picture is chosen even if it is not wanted: in a broadcast of several programs it decides
    # on the sound.
    picture = choose_video(videos) if videos else None
    related = (
        audio_of_program(container, videos, picture.stream)
        if picture and len(videos) > 1 and len(audios) > 1
        else None
    )
    sound = choose_audio(audios, related) if audios else None
    video = picture.stream if picture and wanted.video else None
    audio = sound.stream if sound and wanted.audio else None
    if report is not None:
        chosen = ((picture, wanted.video), (sound, wanted.audio))
        report.skipped_streams = [
            words
            for choice, is_wanted in chosen
            if choice and is_wanted
            for words in choice.passed_over
        ]
    for stream in filter(None, (video, audio)):
        if is_encrypted(stream):
            raise SourceError(encrypted_sentence(str(path), stream.type))
    if video and video.width * video.height > wanted.max_megapixels * 1e6:
        raise SourceError(
            f"{path} has frames of {video.width} x {video.height}; at most {wanted.max_megapixels:g} megapixels are allowed"
        )
    for stream in filter(None, (video, audio)):
        stream.codec_context.thread_count = (
            1  # one file, one thread: many files at once use the cores better
        )
    return video, audio
