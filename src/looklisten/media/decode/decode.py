"""A media file -> its frames and its sound on one clock, in one decoding pass.

These functions decode in the process that calls them, so a file that crashes a decoder ends it.
`media.isolation.readers` has the same in another process. Knows no clip, no shard and no network.
"""

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from numpy.typing import NDArray

from looklisten.errors import SourceError
from looklisten.media import SAMPLE_RATE_HZ
from looklisten.media.decode.audio import AudioDecoder
from looklisten.media.decode.clock import Clock
from looklisten.media.decode.completeness import Completeness
from looklisten.media.decode.open import open_media, select_streams, undecoded_streams
from looklisten.media.decode.options import DecodeOptions
from looklisten.media.decode.packets import last_line
from looklisten.media.decode.records import (
    APPENDED_FILE,
    AudioChunk,
    DecodeReport,
    Frame,
    Packet,
    StreamKinds,
)
from looklisten.media.decode.stream_choice import audio_streams, is_still, video_streams
from looklisten.media.decode.video import VideoDecoder

MAX_HOLE_SECONDS = 600.0
"""A longer hole in the sound is not filled with silence: a timestamp is damaged, or the file should
be cut there.
"""

AHEAD_SECONDS = 60.0
"""Where the video is so far ahead of the sound in the file, gathered sound is given at once."""


def list_streams(path: str | Path) -> StreamKinds:
    """Whether a file has video and sound; a cover is no video. Raises SourceError if unreadable."""
    with open_media(path, DecodeOptions(), DecodeReport()) as container:
        return StreamKinds(bool(video_streams(container)), bool(audio_streams(container)))


def decode_media(
    path: str | Path,
    options: DecodeOptions,
    report: DecodeReport | None = None,
    nearest_to: Iterator[float] | None = None,
    opened: InputContainer | None = None,
) -> Iterator[Frame | AudioChunk]:
    """Frames and sound of a file as the decoder gives them, each of the two in the order of time.

    nearest_to: rising times in seconds. For each, the nearest frame is given, as long as the video
        lasts; `options.frames_per_second` does not count then.
    opened: the file, where it is open already; it is closed at the end.

    A packet that cannot be decoded is skipped and counted in `report`. When the file itself ends
    too early, what came before is given and `report.stop_reason` tells why. Raises SourceError when
    the file is no media, lacks a stream, or exceeds a limit of `options`.
    """
    report = report if report is not None else DecodeReport()
    with opened or open_media(path, options, report) as container:
        video, audio = select_streams(container, path, options, report)
        if video and nearest_to and is_still(container, video):
            nearest_to = itertools.islice(nearest_to, 1)
        decoded = [stream for stream in (video, audio) if stream]
        clock = Clock(container, decoded, undecoded_streams(container, decoded))
        completeness = Completeness(path, container, clock, options)
        decoders: dict[int, VideoDecoder | AudioDecoder] = {}
        if video:
            decoders[video.index] = VideoDecoder(video, clock, options, report, nearest_to)
        audio_decoder = AudioDecoder(audio, clock, options, report) if audio else None
        if audio and audio_decoder:
            decoders[audio.index] = audio_decoder
        report.declared_seconds = (container.duration or 0) / av.time_base
        try:
            for packet in clock.packets(options.start_seconds):
                yield from decoders[packet.stream_index].feed(packet)
                # The caller should not wait for sound that was read already.
                if audio_decoder and _is_far_ahead(packet, clock, video, audio):
                    yield from audio_decoder.pause()
                if all(decoder.is_over for decoder in decoders.values()) or report.stop_reason:
                    break
        except av.FFmpegError as error:
            report.last_error = last_line(error)
            report.stop_reason = f"reading it failed: {report.last_error}"
        missing = report.stop_reason or completeness.missing_packets()
        for decoder in decoders.values():
            # Not of a cut file: its last frame would stay on screen for all that is missing.
            if isinstance(decoder, VideoDecoder) and video and not missing:
                decoder.declared_end_seconds = completeness.declared_seconds(video)
            yield from decoder.finish()
        if not report.stop_reason:
            report.stop_reason = missing or completeness.undecoded_end(video, audio, report)
        if not report.stop_reason and (unread_seconds := completeness.unread_seconds()):
            report.add_lost(APPENDED_FILE, unread_seconds)


def _is_far_ahead(
    packet: Packet, clock: Clock, video: av.VideoStream | None, audio: av.AudioStream | None
) -> bool:
    """Whether a packet of video is far ahead of the sound, so that more video may follow first."""
    if not video or not audio or packet.stream_index != video.index:
        return False
    video_seconds = clock.read_until_seconds.get(video.index, 0.0)
    audio_seconds = clock.read_until_seconds.get(audio.index, 0.0)
    return video_seconds - audio_seconds > AHEAD_SECONDS


def continuous_audio(
    events: Iterable[Frame | AudioChunk],
) -> Iterator[Frame | NDArray[np.float32]]:
    """Decoded sound without times: its first sample is at 0 s, and gaps are filled with silence.

    Frames pass through; sound is float32 `[samples]` at 48 kHz. Raises SourceError where there is
    no sound for more than MAX_HOLE_SECONDS before sound begins or continues.
    """
    samples_done = 0
    for event in events:
        if isinstance(event, Frame):
            yield event
            continue
        missing = round(event.start_seconds * SAMPLE_RATE_HZ) - samples_done
        if missing > MAX_HOLE_SECONDS * SAMPLE_RATE_HZ:
            raise SourceError(_hole_sentence(samples_done / SAMPLE_RATE_HZ, event.start_seconds))
        yield from silence(missing)
        yield event.samples
        samples_done += max(missing, 0) + len(event.samples)


def _hole_sentence(stops_seconds: float, continues_seconds: float) -> str:
    if not stops_seconds:
        return (
            f"its sound begins only at {continues_seconds:.0f} s; "
            "cut the file there, for example with ffmpeg -ss"
        )
    return (
        f"its sound stops at {stops_seconds:.0f} s and continues at {continues_seconds:.0f} s; "
        "cut the file there"
    )


def silence(samples: int) -> Iterator[NDArray[np.float32]]:
    """So many zeros, in chunks of at most a second; none for a number below 1."""
    for start in range(0, samples, SAMPLE_RATE_HZ):
        yield np.zeros(min(SAMPLE_RATE_HZ, samples - start), np.float32)


def decode_audio_chunks(
    path: str | Path, options: DecodeOptions, report: DecodeReport | None = None
) -> Iterator[NDArray[np.float32]]:
    """The sound of a file from its beginning on, mono at 48 kHz, in chunks of about a second.

    Sound that begins late is preceded by silence. Of a damaged file, what can be decoded is given.
    Raises SourceError.
    """
    for event in continuous_audio(decode_media(path, replace(options, video=False), report)):
        assert not isinstance(event, Frame)
        yield event


def decode_audio(
    path: str | Path, max_hours: float = DecodeOptions.max_hours
) -> NDArray[np.float32]:
    """All chunks of `decode_audio_chunks` in one array, at most `max_hours` of sound.

    Raises SourceError when the file has no sound that can be decoded.
    """
    report = DecodeReport()
    options = DecodeOptions(stop_seconds=max_hours * 3600)
    chunks = list(decode_audio_chunks(path, options, report))
    if not any(len(chunk) for chunk in chunks):
        reason = f": {report.last_error}" if report.last_error else ""
        raise SourceError(f"{path} has no sound that can be decoded{reason}")
    return np.concatenate(chunks)
