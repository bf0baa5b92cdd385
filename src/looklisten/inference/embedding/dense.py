"""Vectors of many windows from one run of the audio tower over a long spectrogram.

Neighboring windows share almost all their work. The towers are convolutions: positions of the last
map are a fixed step apart, and a window that begins at one of them contains the positions that the
tower would compute for the window alone. Only positions near the edges of a window differ. Alone, a
window has zeros next to it inside the tower; here it has the sound that is next to it.

Knows an L3Net, no file.
"""

import math
from collections.abc import Iterable, Iterator
from fractions import Fraction

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor
from torch.nn import functional

from looklisten.errors import ConfigError
from looklisten.inference.embedding.options import EmbedOptions
from looklisten.inference.embedding.records import Embeddings, audio_embeddings
from looklisten.inference.embedding.windows import (
    SampleBuffer,
    WindowGrid,
    check_has_sound,
    with_end,
)
from looklisten.inference.encoder import Encoder, NetworkEncoder, choose_layer
from looklisten.inference.towers import layer_width, pooled_layer, vectors_from_pooled
from looklisten.media import SAMPLE_RATE_HZ
from looklisten.media.decode.records import DecodeReport
from looklisten.media.front_ends import FrontEnd
from looklisten.media.spectrogram import WINDOW_SAMPLES, LogSpectrogram

CHUNK_SECONDS = 1.0
"""Sound that the tower gets at once; its maps then fit into the caches of the processor."""


def check_dense(encoder: Encoder) -> NetworkEncoder:
    """The encoder if its network can be dense. Raises ConfigError, one sentence, if it cannot."""
    if not isinstance(encoder, NetworkEncoder):
        raise ConfigError(
            f"dense embedding needs an L3Net, and this network is a {type(encoder).__name__}; "
            f"use it without dense"
        )
    front_end = encoder.model.front_end.spec
    column_samples = front_end.hop_samples * front_end.decimation
    if column_samples.denominator > 1:
        raise ConfigError(
            f"dense embedding needs columns that are a whole number of samples apart at "
            f"{SAMPLE_RATE_HZ} Hz, and those of this network are {float(column_samples):.3f} "
            f"apart, since it hears {front_end.sample_rate_hz} Hz; use it without dense"
        )
    if front_end.padding != "none":
        raise ConfigError(
            "dense embedding needs a front end without padding, and that of this network has "
            f'padding "{front_end.padding}"; use it without dense'
        )
    if not _is_local(encoder.model.front_end, encoder.device):
        raise ConfigError(
            "dense embedding needs a front end whose columns do not depend on each other, and "
            "this network scales each second by its loudest value; use it without dense"
        )
    return encoder


@torch.inference_mode()
def _is_local(front_end: LogSpectrogram, device: torch.device) -> bool:
    """Whether the first column of a second stays equal when the end of the second is louder."""
    quiet = (
        torch.linspace(-1, 1, WINDOW_SAMPLES, dtype=torch.float32, device=device).sin()[None] * 0.1
    )
    middle = WINDOW_SAMPLES // 2
    loud_end = torch.cat([quiet[:, :middle], 9 * quiet[:, middle:]], 1)
    return torch.equal(front_end(quiet)[..., 0], front_end(loud_end)[..., 0])


def _shift_count(reduction: int, column_samples: int, grid: WindowGrid) -> int:
    """How many shifted runs of the tower give positions that are at most one hop apart.

    `reduction` columns of the spectrogram, each `column_samples` long, are one position.
    """
    # With divisors all runs together have positions at equal distances.
    divisors = [count for count in range(1, reduction + 1) if reduction % count == 0]
    for count in divisors:
        if reduction // count * column_samples <= grid.hop_samples:
            return count
    shortest_seconds = column_samples / SAMPLE_RATE_HZ
    raise ConfigError(
        f"dense embedding with this network has a hop of at least {shortest_seconds:g} s; "
        f"choose a longer hop, or embed without dense"
    )


def _column_count(front_end: FrontEnd, samples: int) -> int:
    """Columns of the spectrogram of a sound."""
    resampled = samples // front_end.decimation
    return (resampled - front_end.window_samples) // front_end.hop_samples + 1


class DenseAudio:
    """Embeds a sound that comes in chunks; the audio tower runs over all of it.

    A window begins at the position nearest to its exact start, which is at most half of
    `step_samples` away. If positions are further apart than the hop, the tower runs several times,
    each time shifted by `step_samples`. Before and after the sound there is silence. `report`: of
    the decoding that gives the chunks.
    """

    def __init__(
        self,
        encoder: Encoder,
        options: EmbedOptions,
        source: str,
        report: DecodeReport | None = None,
        chunk_seconds: float = CHUNK_SECONDS,
    ) -> None:
        layer = choose_layer(encoder, "audio", options.layer)
        self._encoder = check_dense(encoder)
        self._model = self._encoder.model
        pooled_from = pooled_layer(self._model, "audio", layer)
        self._layer = layer
        self._options = options
        self._source = source
        self._report = report or DecodeReport()
        self._grid = WindowGrid.of(options.hop_seconds, options.center)
        self._tower = self._model.audio
        self._front_end = self._model.front_end.spec
        self._column_samples = int(self._front_end.hop_samples * self._front_end.decimation)
        # Positions of the map: how far apart they are, and how many a window has.
        reduction = self._tower.stride
        self._shift_count = _shift_count(reduction, self._column_samples, self._grid)
        self.step_samples: int = reduction // self._shift_count * self._column_samples
        """Starts of windows are multiples of this number of samples."""
        window_columns = _column_count(self._front_end, WINDOW_SAMPLES)
        self._window_positions = self._tower.map_columns(window_columns)
        # A layer pools the map of a window to a grid. Rows are pooled first, in the chunk.
        self._pooled_rows, self._pooled_columns = pooled_from.grid
        self._vector_length = layer_width(self._model, "audio", layer)
        self._towers = []
        self._maps: list[Float[Tensor, "values positions"]] = []
        for _ in range(self._shift_count):
            self._towers.append(self._tower.streaming(pooled_from, self._encoder.dtype))
            value_count = self._tower.features * self._pooled_rows
            self._maps.append(
                torch.zeros(value_count, 0, dtype=torch.float32, device=encoder.device)
            )
        self._map_starts = [0] * self._shift_count
        """Number of the first position that each map still holds."""
        # Chunks begin at fixed columns, so vectors do not depend on how the sound is pushed.
        self._chunk_columns = round(chunk_seconds * SAMPLE_RATE_HZ / self._column_samples)
        self._buffer = SampleBuffer(self._grid.padding_samples)
        self._done_columns = 0
        self._next_window = 0

    @property
    def samples(self) -> int:
        """Number of samples that came."""
        return self._buffer.end

    def start(self, number: int) -> int:
        """The first sample of a window."""
        return self._step(number) * self.step_samples - self._grid.padding_samples

    def _step(self, number: int) -> int:
        """The start of a window in steps, rounded to the nearest."""
        exact_samples = self._grid.start(number) + self._grid.padding_samples
        return math.floor(Fraction(exact_samples, self.step_samples) + Fraction(1, 2))

    def embed(
        self, chunks: Iterable[Float32[np.ndarray, " samples"]] = (), is_last: bool = False
    ) -> Iterator[Embeddings]:
        """The windows that these chunks complete, in blocks, at least one.

        `is_last`: nothing follows. All windows come then, and silence fills the last. Raises
        SourceError where there is no sound.
        """
        last_shift = self._shift_count - 1
        for chunk, is_end in with_end(chunks, is_last):
            self._buffer.push(chunk)
            chunk_columns = self._chunk_columns
            while (
                self._columns_end(self._done_columns + chunk_columns, last_shift)
                <= self._buffer.end
            ):
                self._run_towers(chunk_columns)
            window_count = None
            if is_end:
                check_has_sound(self.samples, self._source, self._report)
                window_count = self._grid.count(self.samples)
                self._run_towers_over_silence(window_count)
            yield self._take_windows(window_count).with_losses(self._report)

    def _run_towers_over_silence(self, window_count: int) -> None:
        """Extend the maps beyond the end of the sound, as far as so many windows need."""
        last_start = self._step(window_count - 1) // self._shift_count
        # The last position also depends on columns after it, as far as the tower reaches.
        last_position = last_start + self._window_positions - 1
        needed_columns = last_position * self._tower.stride + self._towers[0].lookahead_columns + 1
        while self._done_columns < needed_columns:
            remaining_columns = needed_columns - self._done_columns
            self._run_towers(min(remaining_columns, self._chunk_columns))

    def _column_start(self, column: int, shift: int) -> int:
        """The first sample of a column of the spectrogram."""
        samples = column * self._column_samples + shift * self.step_samples
        return samples - self._grid.padding_samples

    def _columns_end(self, columns: int, shift: int) -> int:
        """The sample after the last one of the first `columns` columns, and of one more."""
        window_samples = math.ceil(self._front_end.window_samples * self._front_end.decimation)
        return self._column_start(columns, shift) + window_samples

    @torch.inference_mode()
    def _run_towers(self, columns: int) -> None:
        """Extend the maps by the next columns of the spectrogram."""
        # One column more on either side: the low-pass filter of a front end starts with zeros,
        # which may reach into the first and the last column.
        extra = min(self._done_columns, 1)
        for shift, tower in enumerate(self._towers):
            start = self._column_start(self._done_columns - extra, shift)
            end = self._columns_end(self._done_columns + columns, shift)
            waveform = torch.from_numpy(self._buffer.take(start, end))
            spectrogram = self._model.spectrogram(waveform[None].to(self._encoder.device))
            new_map = tower.push(spectrogram[..., extra : extra + columns])
            size = (self._pooled_rows, new_map.shape[3])
            pooled = functional.adaptive_max_pool2d(new_map, size)[0].flatten(0, 1)
            self._maps[shift] = torch.cat([self._maps[shift], pooled.float()], 1)
        self._done_columns += columns
        self._buffer.drop_before(self._column_start(self._done_columns - 1, 0))

    @torch.inference_mode()
    def _take_windows(self, stop_window: int | None) -> Embeddings:
        """The windows, up to number `stop_window`, whose positions are all in the maps."""
        starts: list[int] = []
        window_maps: list[Tensor] = []
        while stop_window is None or self._next_window < stop_window:
            position, shift = divmod(self._step(self._next_window), self._shift_count)
            first = position - self._map_starts[shift]
            last = first + self._window_positions
            if last > self._maps[shift].shape[-1]:
                break
            window_maps.append(self._maps[shift][:, first:last])
            starts.append(self.start(self._next_window))
            self._next_window += 1
        vectors = torch.zeros(0, self._vector_length, dtype=torch.float32)
        if window_maps:
            vectors = self._pool(window_maps)
        self._drop_positions()
        return audio_embeddings(
            np.array(starts, np.int64),
            vectors.cpu().numpy(),
            self._source,
            self._layer,
            self._options,
        )

    def _drop_positions(self) -> None:
        """Drop the positions before the next window."""
        first_needed = self._step(self._next_window) // self._shift_count
        for shift, map_values in enumerate(self._maps):
            count = max(first_needed - self._map_starts[shift], 0)
            count = min(count, map_values.shape[-1])
            self._maps[shift] = map_values[:, count:]
            self._map_starts[shift] += count

    def _pool(
        self, window_maps: list[Float[Tensor, "values positions"]]
    ) -> Float[Tensor, "n features"]:
        stacked = torch.stack(window_maps)
        pooled = functional.adaptive_max_pool1d(stacked, self._pooled_columns).flatten(1)
        with self._encoder.autocast:
            return vectors_from_pooled(self._model, pooled, "audio", self._layer)
