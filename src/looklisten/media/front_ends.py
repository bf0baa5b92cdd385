"""The front ends that a config can name: how sound becomes a log-spectrogram, as settings.

A front end is one entry of `FRONT_ENDS`; all sizes are computed from it. Knows no tensors.
"""

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from looklisten.errors import ConfigError, OptionError
from looklisten.media import SAMPLE_RATE_HZ


@dataclass(frozen=True)
class FrontEnd:
    """The settings of a log-spectrogram.

    The steps are: resampling, short-time Fourier transform, magnitude, mel bands, logarithm,
    scaling.
    """

    window_samples: int
    hop_samples: int
    fft_samples: int
    """All three count samples at `sample_rate_hz`."""
    floor: float
    """Magnitudes below this are set to it before the logarithm."""
    added: float = 0.0
    """This is added to all magnitudes before the logarithm."""
    offset: float = 0.0
    scale: float = 1.0
    """The audio tower gets (logarithm + offset) / scale, unless `range_decibels` is set."""
    range_decibels: float = 0.0
    """If not 0, the tower gets decibels relative to the maximum, clipped at minus this."""
    padding: Literal["none", "end", "center"] = "none"
    """Where zeros are added to the sound.

    none: each transform has a full window of sound.
    end: at the end, so that there is a transform at every hop.
    center: half a window at both ends.
    """
    mel_bands: int = 0
    """0 means linear frequency."""
    mel_scale: Literal["htk", "slaney"] = "htk"
    """The formula from Hz to mel."""
    mel_bands_like: Literal["unit-sum", "librosa", "tensorflow"] = "unit-sum"
    """The triangles of the mel bands: over Hz, with equal sums over the bins; over Hz, with equal
    areas, as librosa's; or over mel, with peaks of 1, as TensorFlow's.
    """
    low_hz: float = 0.0
    """The lower end of the lowest mel band."""
    high_hz: float = 0.0
    """The upper end of the highest mel band; 0 means half of `sample_rate_hz`."""
    sample_rate_hz: int = 48_000
    """The rate that the network hears, at most `SAMPLE_RATE_HZ`: the front end resamples to it.

    The default is the rate of the paper and of OpenL3.
    """
    low_pass_lobes: int = 5
    """Zero crossings on each side of the low-pass filter's peak.

    5: -6 dB at the new Nyquist frequency and -31 dB a quarter above. 32: -6 dB there, and -44 dB a
    sixteenth above.
    """
    columns_multiple_of: int = 1
    """Columns at both ends are omitted until their number is a multiple of this."""
    needs_normalization: bool = False
    """Whether its values are far from mean 0 and deviation 1, so that a tower begins with a
    batch-norm.
    """
    unit_window: bool = False
    """Whether the window is divided by half its sum, so that a full-scale sine has magnitude 1."""
    like_kaldi: bool = False
    """Whether each window loses its mean, is pre-emphasized by 0.97 and weighted by a window that
    ends as it begins, and bands are sums of power, not of magnitude.
    """

    def __post_init__(self) -> None:
        if not 0 < self.sample_rate_hz <= SAMPLE_RATE_HZ:
            raise ConfigError(
                f"a front end hears at most {SAMPLE_RATE_HZ} Hz, the rate of all sound here, and "
                f"sample_rate_hz is {self.sample_rate_hz}"
            )

    @property
    def decimation(self) -> Fraction:
        """Samples at `SAMPLE_RATE_HZ` for each sample that the network hears."""
        return Fraction(SAMPLE_RATE_HZ, self.sample_rate_hz)

    @property
    def bins(self) -> int:
        """Frequencies of the Fourier transform."""
        return self.fft_samples // 2 + 1

    @property
    def bin_hz(self) -> float:
        """The distance of two such frequencies."""
        return self.sample_rate_hz / self.fft_samples

    @property
    def bands(self) -> int:
        """Rows of the log-spectrogram."""
        return self.mel_bands or self.bins

    def padding_samples(self, samples: int) -> tuple[int, int]:
        """Zeros before and after a sound of so many samples."""
        if self.padding == "center":
            return self.window_samples // 2, self.window_samples // 2
        if self.padding == "none":
            return 0, 0
        # Rounded up in integers, because the size may be a symbol of an exporter.
        frames = -(-samples // self.hop_samples)
        padded_samples = (frames - 1) * self.hop_samples + self.window_samples
        return 0, padded_samples - samples


def _openl3_mel(bands: int) -> FrontEnd:
    return FrontEnd(
        window_samples=2048,
        hop_samples=242,
        fft_samples=2048,
        floor=1e-10,
        range_decibels=80.0,
        needs_normalization=True,
        padding="end",
        mel_bands=bands,
        mel_scale="slaney",
        mel_bands_like="librosa",
    )


FRONT_ENDS: dict[str, FrontEnd] = {
    # Paper, section 3: windows of 0.01 s at half overlap, 257 bands, logarithm. The authors of the
    # paper gave ln(max(x, 1e-12)) / 5 to those of l3embedding. The window function is not
    # published; the re-implementations use Hann.
    "paper": FrontEnd(window_samples=480, hop_samples=240, fft_samples=512, floor=1e-12, scale=5.0),
    # Fast on two cores: 16 kHz, windows of 25 ms every 10 ms, 64 mel bands. The floor is -86 dB of
    # full scale. Offset and scale are round numbers: with them, sounds of the synthetic world have
    # the mean 0.09 and the standard deviation 0.62.
    "compact": FrontEnd(
        sample_rate_hz=16_000,
        window_samples=400,
        hop_samples=160,
        fft_samples=512,
        floor=5e-5,
        offset=6.5,
        scale=2.0,
        mel_bands=64,
        low_hz=60.0,
        unit_window=True,
    ),
    # OpenL3 0.4 (openl3/models.py): 10 log10 of magnitudes relative to the maximum of the second,
    # with a range of 80 dB, as in kapre 0.1.4. The mel filters are those that kapre 0.3.7 takes
    # from librosa. The sizes are 257 x 197, 128 x 199 and 256 x 199.
    "linear": FrontEnd(
        window_samples=512,
        hop_samples=242,
        fft_samples=512,
        floor=1e-10,
        range_decibels=80.0,
        needs_normalization=True,
    ),
    "mel128": _openl3_mel(128),
    "mel256": _openl3_mel(256),
    # YAMNet's front end (github.com/tensorflow/models, research/audioset/yamnet). It was trained on
    # 0.96 s, 96 columns. One second has 98, so one is omitted at each end.
    "yamnet": FrontEnd(
        sample_rate_hz=16_000,
        low_pass_lobes=32,
        window_samples=400,
        hop_samples=160,
        fft_samples=512,
        floor=0.0,
        added=0.001,
        mel_bands=64,
        mel_bands_like="tensorflow",
        low_hz=125.0,
        high_hz=7500.0,
        columns_multiple_of=32,
        needs_normalization=True,
    ),
    # The features of Kaldi with which the Audio Spectrogram Transformer was trained (Gong et al.
    # 2021), as in transformers' ASTFeatureExtractor. One second has 98 columns.
    "kaldi128": FrontEnd(
        sample_rate_hz=16_000,
        low_pass_lobes=32,
        window_samples=400,
        hop_samples=160,
        fft_samples=512,
        floor=2.0**-23,
        mel_bands=128,
        mel_bands_like="tensorflow",
        low_hz=20.0,
        needs_normalization=True,
        like_kaldi=True,
    ),
}
"""By name. A checkpoint saves the name only, so the settings of an entry must never change."""


def register_front_end(name: str, front_end: FrontEnd) -> None:
    """Let configs name `front_end`. Raises ConfigError when another one has the name."""
    if FRONT_ENDS.get(name, front_end) != front_end:
        raise ConfigError(f"there is a front end {name!r} already; choose another name")
    FRONT_ENDS[name] = front_end


def find_front_end(name: str) -> FrontEnd:
    """A front end by its name. Raises OptionError when there is none."""
    if name not in FRONT_ENDS:
        raise OptionError(
            f"there is no front end {name!r} (model.front_end); the front ends are "
            f"{', '.join(sorted(FRONT_ENDS))}"
        )
    return FRONT_ENDS[name]
