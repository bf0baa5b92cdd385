"""Both sides of a video at the same times, in one pass over the file."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from looklisten.errors import ConfigError, SourceError
from looklisten.inference.embedding.images import FrameBatches, frame_decoding
from looklisten.inference.embedding.options import EmbedOptions
from looklisten.inference.embedding.records import AlignedEmbeddings, Embeddings, concatenate
from looklisten.inference.embedding.stream import audio_stream
from looklisten.inference.embedding.windows import WindowGrid
from looklisten.inference.encoder import Encoder
from looklisten.media.decode.records import DecodeReport, Frame
from looklisten.media.isolation.readers import TimeGrid, is_image, read_media
from looklisten.media.spectrogram import WINDOW_SAMPLES, WINDOW_SECONDS
from looklisten.media.waveform import checked_media


def embed_aligned(
    path: str | Path | None, encoder: Encoder, options: EmbedOptions
) -> AlignedEmbeddings:
    """The vectors of both sides of a video. Raises ConfigError for what is no path of a video."""
    if path is None or is_image(path):
        raise ConfigError(
            "align needs a video, which has two sides; pass the path of one, or embed without align"
        )
    name = str(path)
    report = DecodeReport()
    audio = audio_stream(encoder, options, name, report)
    frames = FrameBatches(encoder, options, name)
    # Frames are wanted at the middles of the windows that `audio` really gives. Dense windows begin
    # at multiples of a step, other windows at any sample.
    grid = WindowGrid.of(options.hop_seconds, options.center)
    offset_samples = WINDOW_SAMPLES // 2 - grid.padding_samples
    middles = TimeGrid(grid.hop_samples, audio.step_samples, offset_samples)
    media = read_media(path, frame_decoding(encoder, audio=True), report, middles)
    frame_blocks: list[Embeddings] = []

    def sound_chunks() -> Iterator[Float32[np.ndarray, " samples"]]:
        """The sound of the file; the frames on the way go to `frames`."""
        for event in checked_media(media):
            if isinstance(event, Frame):
                frame_blocks.extend(frames.add(event))
            else:
                yield event

    audio_rows = concatenate(audio.embed(sound_chunks(), is_last=True))
    if not frames.count:
        raise SourceError(f"{path} holds no frame{report.why_nothing()}")
    frame_rows = concatenate([*frame_blocks, frames.finish()])
    # After the end of the frames the last one is the nearest.
    nearest = np.minimum(np.arange(len(audio_rows)), len(frame_rows) - 1)
    aligned_frames = replace(
        frame_rows,
        vectors=frame_rows.vectors[nearest],
        start_seconds=audio_rows.start_seconds,
        window_seconds=WINDOW_SECONDS,
        centered=options.center,
    )
    return AlignedEmbeddings(
        audio=audio_rows,
        vision=aligned_frames.with_losses(report),
        frame_seconds=frame_rows.start_seconds[nearest],
    )
