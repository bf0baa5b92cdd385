"""Audio."""

from collections.abc import Iterator
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from looklisten.media import SAMPLE_RATE_HZ
from looklisten.media.decode.clock import Clock
from looklisten.media.decode.options import ChunkResampler, DecodeOptions
from looklisten.media.decode.packets import decode_packet
from looklisten.media.decode.placement import RESYNC_SECONDS, BlockPlacer, PlacedBlock
from looklisten.media.decode.records import SOUND_IN_PAST, AudioChunk, DecodeReport, Packet
from looklisten.media.decode.sample_planes import SamplePlanes
from looklisten.media.downmix import Mixer, zero_level


class AudioDecoder:
    """Puts decoded sound on the clock: mono, short gaps filled with silence, overlaps cut,
    resampled.

    Decoders give some 20 ms at a time; about a second is gathered before anything is computed.
    """

    def __init__(
        self, stream: av.AudioStream, clock: Clock, wanted: DecodeOptions, report: DecodeReport
    ) -> None:
        self._stream, self._clock, self._wanted, self._report = stream, clock, wanted, report
        self._kind: tuple[str, tuple[str, ...], int] | None = None
        self._follower = BlockPlacer()
        self._parts = 0
        self._late_seconds = 0.0
        """By how much the parts of a joined file begin later than their packets say."""
        self._gathered: list[list[NDArray[Any]]] = []
        self._gathered_samples = 0
        self._reader = SamplePlanes()
        self._mixer: Mixer | None = None
        self._resampler: ChunkResampler | None = None
        self._start_seconds = 0.0
        self._emitted = 0
        self.is_over = False

    def feed(self, packet: Packet | None) -> Iterator[AudioChunk]:
        damaged = self._report.damaged_count
        frames = decode_packet(self._stream.codec_context, packet, self._report)
        at = self._clock.at(packet, self._stream) if packet is not None else None
        if at is not None and at < self._wanted.start_seconds:
            self._report.damaged_count = damaged  # a run-up may refer to packets that were not read
        for frame in frames:
            yield from self._take(frame)

    def pause(self) -> Iterator[AudioChunk]:
        """What was gathered, when no more sound may come for long."""
        if self._gathered or self._follower.waits or self._resampler:
            yield from self._end()

    def rest(self) -> Iterator[AudioChunk]:
        """What the decoder, the gathering and the resampler still hold."""
        yield from self.feed(None)
        yield from self._end()

    def _take(self, frame: av.AudioFrame) -> Iterator[AudioChunk]:
        names = tuple(channel.name for channel in frame.layout.channels)
        kind = (frame.format.name, names, frame.sample_rate)
        try:
            planes, each = self._reader.read(frame)
        except ValueError as error:
            self._report.damaged_count += 1
            self._report.last_error = str(error)
            return
        if kind != self._kind:
            yield from self._end()
            self._kind = kind
        at = self._behind_parts(self._clock.at(frame, self._stream))
        for placed in self._follower.feed(at, frame.samples, frame.sample_rate, (planes, each)):
            yield from self._place(placed)
        self.is_over = at is not None and at >= self._wanted.stop_seconds

    def _behind_parts(self, at: float | None) -> float | None:
        """Where a file of sound alone is joined of parts, each begins where the samples before it
        end.

        The last packets of a part may have no times, as in FLAC; what they hold is known only when
        it is decoded.
        """
        if at is None or len(self._clock.streams) > 1:
            return at
        while (
            self._parts < len(self._clock.parts_seconds)
            and at >= self._clock.parts_seconds[self._parts] - RESYNC_SECONDS
        ):
            self._parts += 1
            self._late_seconds = max(self._follower.end_seconds - at, self._late_seconds)
        return at + self._late_seconds

    def _place(self, placed: PlacedBlock) -> Iterator[AudioChunk]:
        """Gather a block of samples, with silence before it or its beginning cut off where its
        place asks for that.
        """
        planes, each = placed.block
        rate_hz = placed.rate_hz
        shift = placed.shift_samples
        if placed.start_seconds is not None:
            yield from self._close()
            self._start_seconds, self._emitted = placed.start_seconds, 0
        if self._resampler is None and rate_hz != SAMPLE_RATE_HZ:
            self._resampler = self._wanted.make_resampler(rate_hz)
        if shift > 0:
            planes = [
                np.concatenate([np.full(shift * each, zero_level(plane), plane.dtype), plane])
                for plane in planes
            ]
        elif shift < 0:
            planes = [plane[-shift * each :] for plane in planes]
            if self._follower.end_seconds > self._wanted.start_seconds:
                self._report.add_lost(SOUND_IN_PAST, -shift / rate_hz)
        self._gathered.append(planes)
        self._gathered_samples += placed.samples + shift
        if self._gathered_samples >= rate_hz:
            yield from self._flush()

    def _flush(self) -> Iterator[AudioChunk]:
        if self._gathered and self._kind:
            _, names, rate_hz = self._kind
            if self._mixer is None or self._mixer.channels != names:
                self._mixer = Mixer(names, rate_hz)
            samples = self._mixer.mix(
                [np.concatenate(plane) for plane in zip(*self._gathered, strict=True)]
            )
            if self._mixer.was_out_of_phase:
                self._report.flags.add("out-of-phase")
            self._gathered, self._gathered_samples = [], 0
            yield from self._emit(
                self._resampler.resample_chunk(samples) if self._resampler else samples
            )

    def _end(self) -> Iterator[AudioChunk]:
        for placed in self._follower.rest():
            yield from self._place(placed)
        yield from self._close()

    def _close(self) -> Iterator[AudioChunk]:
        """End a stretch of sound: what was gathered and what the resampler holds."""
        yield from self._flush()
        if self._resampler:
            yield from self._emit(
                self._resampler.resample_chunk(np.zeros(0, np.float32), last=True)
            )
            self._resampler = None

    def _emit(self, samples: NDArray[np.float32]) -> Iterator[AudioChunk]:
        start = self._start_seconds + self._emitted / SAMPLE_RATE_HZ
        self._emitted += len(samples)
        early = (
            int(np.ceil((self._wanted.start_seconds - start) * SAMPLE_RATE_HZ - 0.05))
            if start < self._wanted.start_seconds
            else 0
        )
        keep = min((self._wanted.stop_seconds - start) * SAMPLE_RATE_HZ + 1e-6, len(samples))
        if early < int(keep):
            sound = AudioChunk(start + early / SAMPLE_RATE_HZ, samples[early : int(keep)])
            self._report.audio_end_seconds = sound.end_seconds
            yield sound
