"""The channels of a sound -> one. Arrays in, an array out; knows no file and no time.

The mix is a weighted mean. Channels that cancel in it (one of two is inverted, say) would leave
silence where a listener hears sound. Where that happens, one channel takes the place of the mix.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float32
from numpy.typing import NDArray

CHANNEL_WEIGHTS = {"LFE": 0.0, "LFE2": 0.0, "FC": 0.7071}
CHANNEL_WEIGHTS |= {"BL": 0.5, "BR": 0.5, "SL": 0.5, "SR": 0.5, "BC": 0.5}
"""Front channels whole, center at -3 dB, surrounds at -6 dB, no effects channel; then normalized to
sum 1.
"""

AMBISONIC = "AMBI"
"""Ambisonic channels are named AMBI0, AMBI1, ... The first is the sound from all directions, the
others are differences.
"""

CANCELS_BELOW = 10 ** (-6.0 / 10)
"""Channels cancel when the mix has less than this share of the energy that its strongest part alone
has in it.

In a stereo sound, whose channels weigh one half, this is the point where the mix is 12 dB below the
louder channel.
"""

MIXES_ABOVE = 10 ** (-2.0 / 10)
"""Once they cancelled, channels are mixed again when the mix has more than this share. One channel
alone gives a share of 1.
"""

SILENT_POWER = 10 ** (-60.0 / 10)
"""A piece whose loudest channel has less power than this, relative to full scale, decides nothing."""

SHORTEST_DECISION_SECONDS = 0.25
"""A shorter piece decides nothing, unless it is the first."""

FADE_SECONDS = 0.02
"""Where one channel takes the place of the mix, or the mix that of the channel, one fades into the
other.
"""

FAINT_SHARE = 0.1
"""A channel with less than this share of the loudest channel's energy does not take the place of
the mix.
"""

UNNAMED = "NONE"
"""FFmpeg's name of a channel of which nothing is known."""

AMBIGUOUS_CHANNELS = 4
"""Four channels without names are often first-order ambisonics. Where they cancel, the first, which
hears everything, is used.
"""


def mono_weights(channels: Sequence[str]) -> Float32[np.ndarray, " channels"]:
    """How much of each channel is in the mix; the sum is 1. `channels` are FFmpeg's names."""
    weights = np.array([_weight(channel) for channel in channels], np.float32)
    if not weights.sum():
        weights[:] = 1
    weights /= weights.sum()
    return weights


def _weight(channel: str) -> float:
    if channel.startswith(AMBISONIC):
        return float(channel == f"{AMBISONIC}0")
    return CHANNEL_WEIGHTS.get(channel, 1.0)


class PhaseGuard:
    """Says, piece after piece of one sound, whether the channels may be mixed. A later piece never
    changes an earlier one.
    """

    def __init__(
        self, weights: NDArray[np.float32], sample_rate_hz: float, prefers_first: bool = False
    ) -> None:
        """With `prefers_first` the first channel is used where they cancel, unless there is next to
        nothing in it.
        """
        self._squared_weights = weights.astype(np.float64) ** 2
        self._sample_rate_hz = sample_rate_hz
        self._prefers_first = prefers_first
        self._alone: int | None = None
        self._has_output = False
        self._has_decided = False
        self.was_out_of_phase = False
        """Whether a channel has taken the place of the mix at least once."""

    def guard(
        self,
        mix: Float32[np.ndarray, " samples"],
        channels: Sequence[Float32[np.ndarray, " samples"]],
    ) -> Float32[np.ndarray, " samples"]:
        """`mix` itself where `channels`, on the same scale, do not cancel in it; else the one that
        is used in its place.
        """
        before = self._alone
        if not self._has_decided or len(mix) >= SHORTEST_DECISION_SECONDS * self._sample_rate_hz:
            self._decide(mix, channels)
        chosen = mix if self._alone is None else channels[self._alone]
        if self._alone != before and self._has_output:
            old = mix if before is None else channels[before]
            ramp = np.minimum(np.arange(len(mix)) / (FADE_SECONDS * self._sample_rate_hz), 1.0)
            chosen = old + ramp.astype(np.float32) * (chosen - old)
        self._has_output = True
        return chosen

    def _decide(self, mix: NDArray[np.float32], channels: Sequence[NDArray[np.float32]]) -> None:
        # Damaged sound may hold values that are no numbers; they decide nothing.
        with np.errstate(all="ignore"):
            energies = np.array([np.dot(channel, channel) for channel in channels], np.float64)
            mixed = float(np.dot(mix, mix))
        parts = energies * self._squared_weights
        in_mix = np.where(parts > 0, energies, 0.0)
        loudest = int(in_mix.argmax())
        if not np.isfinite(energies).all() or in_mix[loudest] <= SILENT_POWER * len(mix):
            return
        self._has_decided = True
        share = mixed / parts.max()
        if self._alone is None and share < CANCELS_BELOW:
            first_is_heard = self._prefers_first and in_mix[0] > FAINT_SHARE * in_mix[loudest]
            self._alone = 0 if first_is_heard else loudest
            self.was_out_of_phase = True
        elif self._alone is not None and share > MIXES_ABOVE:
            self._alone = None


class Mixer:
    """Mixes the pieces of one decoded sound to mono."""

    def __init__(self, channels: tuple[str, ...], sample_rate_hz: float) -> None:
        """`channels` are FFmpeg's names of them, such as FL and FR."""
        self.channels = channels
        self._weights = mono_weights(channels)
        unnamed = channels == (UNNAMED,) * AMBIGUOUS_CHANNELS
        self._guard = PhaseGuard(self._weights, sample_rate_hz, prefers_first=unnamed)
        self._needs_guard = np.count_nonzero(self._weights) > 1

    @property
    def was_out_of_phase(self) -> bool:
        """Whether channels cancelled so far, so that one took the place of the mix."""
        return self._guard.was_out_of_phase

    def mix(self, planes: list[NDArray[Any]]) -> Float32[np.ndarray, " samples"]:
        """The weighted mean of the channels, in -1..1, or one channel where they cancel.

        `planes` are one array `[samples]` a channel, or one array with all channels in turn, in a
        type that FFmpeg stores.
        """
        dtype = planes[0].dtype
        full_scale = np.float32(2.0 ** (8 * dtype.itemsize - 1) if dtype.kind in "iu" else 1.0)
        zero = np.float32(zero_level(planes[0]))
        apart = planes if len(planes) > 1 else list(planes[0].reshape(-1, len(self.channels)).T)
        weights = self._weights / full_scale
        mono = np.zeros(len(apart[0]), np.float32)
        centered: list[NDArray[np.float32]] = []
        for weight, plane in zip(weights, apart, strict=True):
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
