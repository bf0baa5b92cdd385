"""Vectors of many windows from one run of the tower over the long spectrogram: neighbouring windows
share nearly all their work.

The towers are convolutions. Places of the last map lie a fixed step apart, and a window that begins
at one of them sees the very places that the tower would compute for it alone, but for those near
its borders: alone, a window has zeros beside it inside the tower; here it has the sound that is
really there. Knows an L3Net, no file.
"""

import math
from fractions import Fraction

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor
from torch.nn import functional

from looklisten.errors import ConfigError
from looklisten.inference.embedding.windows import Buffer, WindowGrid, WindowVectors
from looklisten.inference.encoder import Encoder, NetworkEncoder
from looklisten.inference.layers import check_layer, grid_of, layer_width, vectors_from_pooled
from looklisten.media import SAMPLE_RATE_HZ
from looklisten.media.spectrogram import WINDOW_SAMPLES, FrontEnd, LogSpectrogram
from looklisten.model.backbones.vgg_streaming import StreamingVgg, reach

STRIP_SECONDS = 1.0
"""The tower gets so much sound at a time: what a strip makes fits into the processor's caches, as a
window's does.
"""


def check_dense(encoder: Encoder) -> NetworkEncoder:
    """Raises ConfigError, one sentence, for networks whose windows cannot share a map."""
    if not isinstance(encoder, NetworkEncoder):
        raise ConfigError(
            f"dense embedding looks inside a network of this package, and {type(encoder).__name__} is another; leave dense away"
        )
    if not _is_local(encoder.model.front_end, encoder.device):
        raise ConfigError(
            "dense embedding needs a front end that computes each moment by itself, and this network's brings every second to its own "
            "loudest place, so that windows share nothing; leave dense away"
        )
    return encoder


def _shifts(reduction: int, column_samples: int, grid: WindowGrid) -> int:
    """How often the tower must run so that its places lie no further apart than the hop."""
    for shifts in (n for n in range(1, reduction + 1) if reduction % n == 0):
        if reduction // shifts * column_samples <= grid.hop_samples:
            return shifts
    finest = column_samples / SAMPLE_RATE_HZ
    raise ConfigError(
        f"dense embedding with this network has a hop of at least {finest:g} s; ask for that, or leave dense away"
    )


def _columns(spec: FrontEnd, samples: int) -> int:
    return (samples // spec.decimation - spec.window_samples) // spec.hop_samples + 1


@torch.inference_mode()
def _is_local(front_end: LogSpectrogram, device: torch.device) -> bool:
    """Whether the first column of a second stays as it is when the second's end grows louder."""
    wave = torch.linspace(-1, 1, WINDOW_SAMPLES, device=device).sin()[None] * 0.1
    louder = torch.cat([wave[:, : WINDOW_SAMPLES // 2], 9 * wave[:, WINDOW_SAMPLES // 2 :]], 1)
    return torch.equal(front_end(wave)[..., 0], front_end(louder)[..., 0])


class DenseSound:
    """Windows of a sound that is pushed in pieces: `push` and `finish` give the first samples and
    the vectors of what is new.

    A window begins at the place nearest to its exact start, so at most half of `step_samples`
    beside it. Where places lie further apart than the hop, the tower runs several times, each
    shifted by `step_samples`. Strips lie on fixed places, so how the sound is pushed changes
    nothing. Behind its end a sound has silence, before its beginning zeros, as every window alone.
    """

    def __init__(self, encoder: Encoder, layer: str, grid: WindowGrid) -> None:
        self._encoder, self._layer, self._grid = check_dense(encoder), layer, grid
        self._model = self._encoder.model
        check_layer(self._model, layer)
        self._tower, self._spec = self._model.audio, self._model.front_end.spec
        self._column_samples = self._spec.hop_samples * self._spec.decimation
        reduction = self._tower.reduction
        self._shifts = _shifts(reduction, self._column_samples, grid)
        self.step_samples: int = reduction // self._shifts * self._column_samples
        self._rows, self._columns_a_window = grid_of("audio", layer)
        self._window_places = self._tower.places(_columns(self._spec, WINDOW_SAMPLES))
        self.features = layer_width(self._model, "audio", layer)
        self._buffer = Buffer(grid.padding_samples)
        dtype = torch.bfloat16 if self._encoder.precision == "bfloat16" else torch.float32
        self._towers = [
            StreamingVgg(self._tower, dtype, raw=layer == "conv4_2") for _ in range(self._shifts)
        ]
        self._maps = [
            torch.zeros(self._tower.features * self._rows, 0, device=encoder.device)
        ] * self._shifts
        self._map_begins = [0] * self._shifts
        self._strip = round(STRIP_SECONDS * SAMPLE_RATE_HZ / self._column_samples)
        self._columns = self._next = 0

    @property
    def samples(self) -> int:
        """How many were pushed."""
        return self._buffer.end

    def start(self, number: int) -> int:
        """The first sample of a window."""
        return self._step(number) * self.step_samples - self._grid.padding_samples

    def _step(self, number: int) -> int:
        exact = Fraction(self._grid.start(number) + self._grid.padding_samples, self.step_samples)
        return math.floor(exact + Fraction(1, 2))

    def push(self, wave: Float32[np.ndarray, " samples"]) -> WindowVectors:
        self._buffer.push(wave)
        while self._end(self._columns + self._strip, self._shifts - 1) <= self._buffer.end:
            self._run(self._strip)
        return self._pool(None)

    def finish(self) -> WindowVectors:
        count = self._grid.count(self.samples)
        last_place = self._step(count - 1) // self._shifts + self._window_places - 1
        wanted = last_place * self._tower.reduction + reach(self._tower) + 1
        while self._columns < wanted:  # behind the sound lies silence
            self._run(min(wanted - self._columns, self._strip))
        return self._pool(count)

    def _begin(self, column: int, shift: int) -> int:
        """The first sample of a column of the spectrogram."""
        return (
            column * self._column_samples + shift * self.step_samples - self._grid.padding_samples
        )

    def _end(self, columns: int, shift: int) -> int:
        """The sample behind the last of so many columns, and one more."""
        return self._begin(columns, shift) + self._spec.window_samples * self._spec.decimation

    @torch.inference_mode()
    def _run(self, strip: int) -> None:
        """The tower over the next columns, and its map's new columns, pooled over rows to those of
        the layer's grid.
        """
        # A column more on either side, which the low-pass filter's zeros may reach.
        before = min(self._columns, 1)
        for shift, tower in enumerate(self._towers):
            begin = self._begin(self._columns - before, shift)
            wave = self._buffer.take(begin, self._end(self._columns + strip, shift))
            columns = self._model.spectrogram(torch.from_numpy(wave)[None].to(self._encoder.device))
            image = tower.push(columns[..., before : before + strip])
            pooled = functional.adaptive_max_pool2d(image, (self._rows, image.shape[3]))[0].flatten(
                0, 1
            )
            self._maps[shift] = torch.cat([self._maps[shift], pooled.float()], 1)
        self._columns += strip
        self._buffer.forget(self._begin(self._columns - 1, 0))

    @torch.inference_mode()
    def _pool(self, count: int | None) -> WindowVectors:
        """The windows, up to number `count`, whose places are all there."""
        starts: list[int] = []
        found: list[Tensor] = []
        while count is None or self._next < count:
            place, shift = divmod(self._step(self._next), self._shifts)
            at = place - self._map_begins[shift]
            if at + self._window_places > self._maps[shift].shape[-1]:
                break
            found.append(self._maps[shift][:, at : at + self._window_places])
            starts.append(self.start(self._next))
            self._next += 1
        vectors = self._vectors(found) if found else torch.zeros(0, self.features)
        for shift, held in enumerate(self._maps):
            done = min(
                max(self._step(self._next) // self._shifts - self._map_begins[shift], 0),
                held.shape[-1],
            )
            self._maps[shift], self._map_begins[shift] = (
                held[:, done:],
                self._map_begins[shift] + done,
            )
        return WindowVectors(np.array(starts, np.int64), vectors.cpu().numpy())

    def _vectors(
        self, windows: list[Float[Tensor, "values places"]]
    ) -> Float[Tensor, "n features"]:
        pooled = functional.adaptive_max_pool1d(
            torch.stack(windows), self._columns_a_window
        ).flatten(1)
        with self._encoder.arithmetic:
            return vectors_from_pooled(self._model, pooled, "audio", self._layer)
