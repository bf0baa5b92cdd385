"""The channels of a sound -> one channel. Arrays in, an array out; knows no file and no time.

The mix is a weighted mean. Channels that cancel in it, for example because one of two is inverted,
would leave silence where a listener hears sound. There, one channel replaces the mix.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float32
from numpy.typing import NDArray

CHANNEL_WEIGHTS = {
    "LFE": 0.0,
    "LFE2": 0.0,
    "FC": 0.7071,
    "BL": 0.5,
    "BR": 0.5,
    "SL": 0.5,
    "SR": 0.5,
    "BC": 0.5,
}
"""Center at -3 dB, surrounds at -6 dB, no effects channel; other channels have the weight 1.

The weights of a sound are then normalized to the sum 1.
"""

AMBISONIC = "AMBI"
"""Ambisonic channels are named AMBI0, AMBI1, ...

The first is the sound from all directions, the others are differences.
"""

CANCELS_BELOW = 10 ** (-6.0 / 10)
"""Channels cancel when the mix has less than this share of the energy of its strongest part.

In a stereo sound, whose channels weigh one half, the mix is then 12 dB below the louder channel.
"""

MIXES_ABOVE = 10 ** (-2.0 / 10)
"""Channels that cancelled are mixed again when the mix has more than this share.

One channel alone gives a share of 1.
"""

SILENT_POWER = 10 ** (-60.0 / 10)
"""A chunk whose loudest channel has less power, relative to full scale, decides nothing."""

SHORTEST_DECISION_SECONDS = 0.25
"""A shorter chunk decides nothing, unless it is the first."""

FADE_SECONDS = 0.02
"""How long the mix and the channel that replaces it fade into each other."""

FAINT_SHARE = 0.1
"""A channel with less than this share of the loudest channel's energy does not replace the mix."""

UNNAMED = "NONE"
"""FFmpeg's name of a channel of which nothing is known."""

AMBIGUOUS_CHANNELS = 4
"""Four channels without names are often first-order ambisonics.

Where they cancel, the first one is used: it has the sound from all directions.
"""


def mono_weights(channels: Sequence[str]) -> Float32[np.ndarray, " channels"]:
    """How much of each channel is in the mix; the sum is 1. `channels` are FFmpeg's names."""
    weights = np.array([_weight(channel) for channel in channels], np.float32)
    if not weights.sum():  # effects channels only
        weights[:] = 1
    weights /= weights.sum()
    return weights


def _weight(channel: str) -> float:
    if channel.startswith(AMBISONIC):
        return float(channel == f"{AMBISONIC}0")
    return CHANNEL_WEIGHTS.get(channel, 1.0)


class PhaseGuard:
    """Decides, chunk by chunk of one sound, whether the channels may be mixed.

    A later chunk never changes an earlier one.
    """

    def __init__(
        self, weights: NDArray[np.float32], sample_rate_hz: float, prefers_first: bool = False
    ) -> None:
        """prefers_first: use the first channel where they cancel, unless it is nearly silent."""
        self._squared_weights = weights.astype(np.float64) ** 2
        self._sample_rate_hz = sample_rate_hz
        self._prefers_first = prefers_first
        self._alone: int | None = None
        """The channel that replaces the mix."""
        self._has_output = False
        self._has_decided = False
        self.was_out_of_phase = False
        """Whether a channel has replaced the mix at least once."""

    def guard(
        self,
        mix: Float32[np.ndarray, " samples"],
        channels: Sequence[Float32[np.ndarray, " samples"]],
    ) -> Float32[np.ndarray, " samples"]:
        """`mix` itself, or the channel that replaces it where `channels` cancel.

        mix, channels: on the same scale.
        """
        before = self._alone
        if not self._has_decided or len(mix) >= SHORTEST_DECISION_SECONDS * self._sample_rate_hz:
            self._decide(mix, channels)
        chosen = mix if self._alone is None else channels[self._alone]
        if self._alone != before and self._has_output:
            # A sudden change would be heard as a click.
            old = mix if before is None else channels[before]
            fade_samples = FADE_SECONDS * self._sample_rate_hz
            ramp = np.minimum(np.arange(len(mix)) / fade_samples, 1.0)
            chosen = old + ramp.astype(np.float32) * (chosen - old)
        self._has_output = True
        return chosen

    def _decide(self, mix: NDArray[np.float32], channels: Sequence[NDArray[np.float32]]) -> None:
        # Damaged sound may hold values that are not numbers; they decide nothing.
        with np.errstate(all="ignore"):
            energies = np.array([_energy(channel) for channel in channels], np.float64)
            mix_energy = _energy(mix)
        weighted_energies = energies * self._squared_weights
        mixed_energies = np.where(weighted_energies > 0, energies, 0.0)
        loudest = int(mixed_energies.argmax())
        if not np.isfinite(energies).all():
            return
        if mixed_energies[loudest] <= SILENT_POWER * len(mix):
            return
        self._has_decided = True
        share = mix_energy / weighted_energies.max()
        if self._alone is None and share < CANCELS_BELOW:
            first_is_audible = mixed_energies[0] > FAINT_SHARE * mixed_energies[loudest]
            self._alone = 0 if self._prefers_first and first_is_audible else loudest
            self.was_out_of_phase = True
        elif self._alone is not None and share > MIXES_ABOVE:
            self._alone = None


def _energy(samples: NDArray[np.float32]) -> float:
    # A constant offset (DC) cannot be heard. It could hide that channels cancel.
    if not len(samples):
        return 0.0
    centered = samples - samples.mean()
    return float(np.dot(centered, centered))


class Mixer:
    """Mixes the chunks of one decoded sound to mono."""

    def __init__(self, channels: tuple[str, ...], sample_rate_hz: float) -> None:
        """channels: FFmpeg's names, such as FL and FR."""
        self.channels = channels
        self._weights = mono_weights(channels)
        unnamed = channels == (UNNAMED,) * AMBIGUOUS_CHANNELS
        self._guard = PhaseGuard(self._weights, sample_rate_hz, prefers_first=unnamed)
        # A channel alone has nothing that it could cancel with.
        self._needs_guard = np.count_nonzero(self._weights) > 1

    @property
    def was_out_of_phase(self) -> bool:
        """Whether channels have cancelled, so that one replaced the mix."""
        return self._guard.was_out_of_phase

    def mix(self, planes: list[NDArray[Any]]) -> Float32[np.ndarray, " samples"]:
        """The weighted mean of the channels, in -1..1, or one channel where they cancel.

        planes: one array `[samples]` per channel, or one array with the channels interleaved, in a
            type that FFmpeg uses.
        """
        dtype = planes[0].dtype
        full_scale = np.float32(2.0 ** (8 * dtype.itemsize - 1) if dtype.kind in "iu" else 1.0)
        zero = np.float32(zero_level(planes[0]))
        if len(planes) == 1:
            planes = list(planes[0].reshape(-1, len(self.channels)).T)
        weights = self._weights / full_scale
        mono = np.zeros(len(planes[0]), np.float32)
        # The single channels are computed only where they may be needed.
        centered: list[NDArray[np.float32]] = []
        for weight, plane in zip(weights, planes, strict=True):
            samples = plane.astype(np.float32) - zero
            mono += weight * samples
            if self._needs_guard:
                centered.append(samples / full_scale)
        if self._needs_guard:
            mono = self._guard.guard(mono, centered)
        return np.nan_to_num(mono, copy=False)


def zero_level(plane: NDArray[Any]) -> int:
    """The value that is silence in samples of this type."""
    return 128 if plane.dtype == np.uint8 else 0
