"""The audio stream of a file -> mono sound at 48 kHz on the clock of the file."""

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
from looklisten.media.decode.records import (
    LEAST_HOLE_SECONDS,
    OLD_AUDIO,
    AudioChunk,
    DecodeReport,
    Packet,
)
from looklisten.media.decode.sample_planes import SamplePlanes
from looklisten.media.downmix import Mixer, zero_level


class AudioDecoder:
    """Decodes the packets of one audio stream.

    Channels are mixed, short gaps are filled with silence, overlaps are cut, other rates are
    resampled. Decoders give some 20 ms at a time; about a second is gathered before it is computed.
    """

    def __init__(
        self, stream: av.AudioStream, clock: Clock, options: DecodeOptions, report: DecodeReport
    ) -> None:
        self._stream = stream
        self._clock = clock
        self._options = options
        self._report = report
        self._layout: tuple[str, tuple[str, ...], int] | None = None
        """Sample format, names of the channels and rate of what is gathered."""
        self._placer = BlockPlacer()
        self._parts_begun = 0
        """How many of the later parts of a concatenated file have begun."""
        self._late_seconds = 0.0
        """How much later the current part begins than its packets say."""
        self._gathered: list[list[NDArray[Any]]] = []
        self._gathered_samples = 0
        self._reader = SamplePlanes()
        self._mixer: Mixer | None = None
        self._resampler: ChunkResampler | None = None
        self._start_seconds = 0.0
        """Where the current run of sound without a gap begins."""
        self._emitted_samples = 0
        self.is_over = False

    def feed(self, packet: Packet | None) -> Iterator[AudioChunk]:
        """Decode a packet; None flushes the decoder."""
        damaged_before = self._report.damaged_count
        frames = decode_packet(self._stream.codec_context, packet, self._report)
        start = None
        if packet is not None:
            start = self._clock.seconds_of(packet, self._stream)
        if start is not None and start < self._options.start_seconds:
            # A packet of the run-up may refer to packets that were not read: that is no damage.
            self._report.damaged_count = damaged_before
        for frame in frames:
            yield from self._take(frame)

    def pause(self) -> Iterator[AudioChunk]:
        """What was gathered, for when no more sound may come for long."""
        if self._gathered or self._placer.has_waiting or self._resampler:
            yield from self._end()

    def finish(self) -> Iterator[AudioChunk]:
        """What the decoder, the placer and the resampler still hold."""
        yield from self.feed(None)
        yield from self._end()

    def _take(self, frame: av.AudioFrame) -> Iterator[AudioChunk]:
        names = tuple(channel.name for channel in frame.layout.channels)
        layout = (frame.format.name, names, frame.sample_rate)
        try:
            planes, items_per_sample = self._reader.read(frame)
        except ValueError as error:
            # For example, a damaged AAC header claims 59 planes (LOG.md, 2026-11-23).
            self._report.damaged_count += 1
            self._report.last_error = str(error)
            return
        # Blocks that were gathered are joined into one array, so they need one layout.
        if layout != self._layout:
            yield from self._end()
            self._layout = layout
        start = self._after_parts(self._clock.seconds_of(frame, self._stream))
        content = (planes, items_per_sample)
        for placed in self._placer.feed(start, frame.samples, frame.sample_rate, content):
            yield from self._gather(placed)
        self.is_over = start is not None and start >= self._options.stop_seconds

    def _after_parts(self, start: float | None) -> float | None:
        """The time of a frame, moved behind the samples of the parts before its own.

        This is for concatenated files of sound alone. The last packets of a part may have no times,
        as in FLAC, so how long the part is becomes known only when it is decoded.
        """
        if start is None or len(self._clock.streams) > 1:
            return start
        part_starts = self._clock.part_starts_seconds
        while self._parts_begun < len(part_starts):
            if start < part_starts[self._parts_begun] - RESYNC_SECONDS:
                break
            self._parts_begun += 1
            self._late_seconds = max(self._placer.end_seconds - start, self._late_seconds)
        return start + self._late_seconds

    def _gather(self, placed: PlacedBlock) -> Iterator[AudioChunk]:
        """Gather a placed block, with silence before it or with its beginning cut."""
        planes, items_per_sample = placed.block
        rate_hz = placed.rate_hz
        shift = placed.shift_samples
        if placed.start_seconds is not None:
            yield from self._close()
            self._start_seconds = placed.start_seconds
            self._emitted_samples = 0
        if self._resampler is None and rate_hz != SAMPLE_RATE_HZ:
            self._resampler = self._options.make_resampler(rate_hz)
        if shift > 0:
            planes = [_with_silence_before(plane, shift * items_per_sample) for plane in planes]
        elif shift < 0:
            planes = [plane[-shift * items_per_sample :] for plane in planes]
            # Sound before `start_seconds` is not taken anyway, so it is not lost.
            if self._placer.end_seconds > self._options.start_seconds:
                self._report.add_lost(OLD_AUDIO, -shift / rate_hz)
        self._gathered.append(planes)
        self._gathered_samples += placed.samples + shift
        if self._gathered_samples >= rate_hz:
            yield from self._flush()

    def _flush(self) -> Iterator[AudioChunk]:
        """Mix and resample what was gathered."""
        if not self._gathered or not self._layout:
            return
        _, names, rate_hz = self._layout
        if self._mixer is None or self._mixer.channels != names:
            self._mixer = Mixer(names, rate_hz)
        planes = [np.concatenate(blocks) for blocks in zip(*self._gathered, strict=True)]
        samples = self._mixer.mix(planes)
        if self._mixer.was_out_of_phase:
            self._report.flags.add("out-of-phase")
        self._gathered = []
        self._gathered_samples = 0
        if self._resampler:
            samples = self._resampler.resample_chunk(samples)
        yield from self._emit(samples)

    def _end(self) -> Iterator[AudioChunk]:
        """Emit everything, since the next block does not continue this sound."""
        for placed in self._placer.finish():
            yield from self._gather(placed)
        yield from self._close()

    def _close(self) -> Iterator[AudioChunk]:
        """End a run of sound: emit what was gathered and what the resampler holds."""
        yield from self._flush()
        if self._resampler:
            no_samples = np.zeros(0, np.float32)
            yield from self._emit(self._resampler.resample_chunk(no_samples, last=True))
            self._resampler = None

    def _emit(self, samples: NDArray[np.float32]) -> Iterator[AudioChunk]:
        """The part of `samples` that lies between start_seconds and stop_seconds."""
        start = self._start_seconds + self._emitted_samples / SAMPLE_RATE_HZ
        self._emitted_samples += len(samples)
        first = 0
        if start < self._options.start_seconds:
            # The tolerances keep a sample whose time differs from the limit by rounding alone.
            first = int(np.ceil((self._options.start_seconds - start) * SAMPLE_RATE_HZ - 0.05))
        until_stop = (self._options.stop_seconds - start) * SAMPLE_RATE_HZ + 1e-6
        end = int(min(until_stop, len(samples)))
        if first < end:
            chunk = AudioChunk(start + first / SAMPLE_RATE_HZ, samples[first:end])
            before = self._report.audio_end_seconds
            # Before its first sample a sound is late, which is no hole.
            if before and chunk.start_seconds - before > LEAST_HOLE_SECONDS:
                self._report.audio_hole_seconds += chunk.start_seconds - before
            self._report.audio_end_seconds = chunk.end_seconds
            yield chunk


def _with_silence_before(plane: NDArray[Any], items: int) -> NDArray[Any]:
    silence = np.full(items, zero_level(plane), plane.dtype)
    return np.concatenate([silence, plane])
