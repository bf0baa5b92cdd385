"""A media file -> its frames and its sound on one clock, in one decoding pass.

Knows no clip, no shard and no network.
"""

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from looklisten.errors import SourceError
from looklisten.media import SAMPLE_RATE_HZ
from looklisten.media.decode.audio import AudioDecoder
from looklisten.media.decode.clock import Clock
from looklisten.media.decode.completeness import Completeness
from looklisten.media.decode.open import open_media, select_streams
from looklisten.media.decode.options import DecodeOptions
from looklisten.media.decode.packets import last_line
from looklisten.media.decode.records import (
    UNREAD_FILE,
    AudioChunk,
    DecodeReport,
    Frame,
    StreamKinds,
)
from looklisten.media.decode.stream_choice import audio_streams, is_still, video_streams
from looklisten.media.decode.video import VideoDecoder

MAX_HOLE_SECONDS = 600.0
"""Sound that pauses for longer is not filled with silence: a timestamp is damaged, or the file is
to be cut there.
"""


PAUSE_SECONDS = 60.0
"""Where the picture is so far ahead of the sound in the file, sound that was gathered is given out."""


def list_streams(path: str | Path) -> StreamKinds:
    """What of picture and sound a file has; a cover is no picture. Raises SourceError when it is no
    media.
    """
    with open_media(path, DecodeOptions(), DecodeReport()) as container:
        return StreamKinds(bool(video_streams(container)), bool(audio_streams(container)))


def decode_media(
    path: str | Path,
    wanted: DecodeOptions,
    report: DecodeReport | None = None,
    nearest_to: Iterator[float] | None = None,
) -> Iterator[Frame | AudioChunk]:
    """Frames and sound of a file as they come out of the decoder; each of the two in the order of
    time.

    With `nearest_to`, seconds that rise, the frames are not those of `wanted.frames_per_second` but
    for each of these times the nearest one, as long as the picture lasts.

    A packet that cannot be decoded is left out and counted in `report`; when the file itself breaks
    off, what came before is kept and `report.stop_reason` says why. Raises SourceError when the file
    is no media, lacks a wanted stream, or has more pixels or streams than a limit allows.
    """
    report = report if report is not None else DecodeReport()
    with open_media(path, wanted, report) as container:
        video, audio = select_streams(container, path, wanted, report)
        if video and nearest_to and is_still(container, video):
            nearest_to = itertools.islice(nearest_to, 1)
        clock = Clock(container, [stream for stream in (video, audio) if stream])
        end = Completeness(path, container, clock, wanted)
        takers: dict[int, VideoDecoder | AudioDecoder] = {}
        if video:
            pictures = takers[video.index] = VideoDecoder(video, clock, wanted, report, nearest_to)
        if audio:
            waves = takers[audio.index] = AudioDecoder(audio, clock, wanted, report)
        try:
            for packet in clock.packets(wanted.start_seconds):
                yield from takers[packet.stream_index].feed(packet)
                if video and audio and packet.stream_index == video.index:
                    ahead_seconds = clock.reached_seconds.get(
                        video.index, 0.0
                    ) - clock.reached_seconds.get(audio.index, 0.0)
                    if ahead_seconds > PAUSE_SECONDS:
                        yield from waves.pause()
                if all(taker.is_over for taker in takers.values()) or report.stop_reason:
                    break
        except av.FFmpegError as error:
            report.last_error = last_line(error)
            report.stop_reason = f"reading it broke off: {report.last_error}"
        missing = report.stop_reason or end.missing_packets()
        if video and not missing:
            pictures.ends_seconds = end.declared_seconds(video)
        for taker in takers.values():
            yield from taker.rest()
        report.stop_reason = (
            report.stop_reason or missing or end.undecoded_rest(video, audio, report)
        )
        if not report.stop_reason and (unread_seconds := end.unread_seconds()):
            report.add_lost(UNREAD_FILE, unread_seconds)


def continuous_audio(events: Iterable[Frame | AudioChunk]) -> Iterator[Frame | NDArray[np.float32]]:
    """Decoded sound without its times: its first sample is at 0 s, and where there is no sound
    there is silence.

    Pieces are float32 `[samples]` at 48 kHz. Frames pass through. Raises SourceError, one sentence,
    where there is no sound for more than MAX_HOLE_SECONDS before sound begins or goes on.
    """
    done = 0
    for event in events:
        if isinstance(event, Frame):
            yield event
            continue
        missing = round(event.start_seconds * SAMPLE_RATE_HZ) - done
        if missing > MAX_HOLE_SECONDS * SAMPLE_RATE_HZ:
            raise SourceError(_hole(done / SAMPLE_RATE_HZ, event.start_seconds))
        yield from silence(missing)
        yield event.samples
        done += max(missing, 0) + len(event.samples)


def _hole(stops_seconds: float, goes_on_seconds: float) -> str:
    """The sentence about sound that pauses for too long."""
    if not stops_seconds:
        return f"its sound begins only at {goes_on_seconds:.0f} s; cut the file there, for example with ffmpeg -ss"
    return f"its sound stops at {stops_seconds:.0f} s and goes on at {goes_on_seconds:.0f} s; cut the file there"


def silence(samples: int) -> Iterator[NDArray[np.float32]]:
    """So many zeros, in pieces of a second at most; none when the number is below 1."""
    for start in range(0, samples, SAMPLE_RATE_HZ):
        yield np.zeros(min(SAMPLE_RATE_HZ, samples - start), np.float32)


def decode_audio_chunks(
    path: str | Path, wanted: DecodeOptions, report: DecodeReport | None = None
) -> Iterator[NDArray[np.float32]]:
    """The sound of a file from its beginning on, mono at 48 kHz, in pieces of about a second:
    float32 `[samples]`.

    The one reader of sound: what begins late comes late, and holes are silent. What of a damaged
    file can be decoded is taken. Raises SourceError.
    """
    for piece in continuous_audio(decode_media(path, replace(wanted, video=False), report)):
        assert not isinstance(piece, Frame)
        yield piece


def decode_audio(path: str | Path, max_hours: float = 24.0) -> NDArray[np.float32]:
    """All of `sound_pieces` in one array, at most `max_hours` of it. Raises SourceError when there
    is no sound in the file.
    """
    report = DecodeReport()
    pieces = list(decode_audio_chunks(path, DecodeOptions(stop_seconds=max_hours * 3600), report))
    if not any(len(piece) for piece in pieces):
        why = f": {report.last_error}" if report.last_error else ""
        raise SourceError(f"{path} has no sound that can be decoded{why}")
    return np.concatenate(pieces)
