"""A vector depends only on its second of sound or its image.

It does not depend on the batch, the order, the pieces, or where the sound comes from.
"""

import math
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from typing import ClassVar

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import hear_clock, read_clock, small_config, write_clock_video, write_sound
from looklisten.config import ModelConfig
from looklisten.data.cutting import _Stretch
from looklisten.data.prepare import prepare
from looklisten.data.shards import Shards
from looklisten.errors import ConfigError, SourceError
from looklisten.inference.embedding.embed import embed
from looklisten.inference.embedding.stream import StreamingEmbedder
from looklisten.inference.embedding.windows import WindowCutter, WindowGrid
from looklisten.inference.encoder import encode_rows, encoder_of
from looklisten.inference.towers import layer_width, look, side_vectors
from looklisten.media.decode.decode import decode_media, list_streams
from looklisten.media.decode.options import DecodeOptions
from looklisten.media.decode.records import Frame
from looklisten.media.frames import decode_jpeg
from looklisten.media.spectrogram import round_to_int16
from looklisten.model.l3net import L3Net

RATE_HZ = 48_000


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return L3Net(small_config().model).eval()


def noise(seconds, seed=0, rate_hz=RATE_HZ):
    """Bursts of noise of changing loudness."""
    rng = np.random.default_rng(seed)
    samples = round(seconds * rate_hz)
    return (rng.standard_normal(samples) * 0.2 * np.sin(np.arange(samples) / 5000) ** 2).astype(
        np.float32
    )


def alike(a, b):
    return np.array_equal(a.vectors, b.vectors) and np.array_equal(a.start_seconds, b.start_seconds)


# Where windows lie


@given(
    samples=st.integers(1, 10**6),
    hop=st.fractions(Fraction(1, RATE_HZ), 40).filter(lambda hop: hop.denominator < 10**6),
    center=st.booleans(),
)
def test_windows_cover_the_sound_and_start_within_half_a_sample(samples, hop, center):
    grid = WindowGrid.of(hop, center)
    padding = RATE_HZ // 2 if center else 0
    assert grid.count(samples) == 1 + max(
        math.ceil((samples + padding - RATE_HZ) / (hop * RATE_HZ)), 0
    )
    last = grid.count(samples) - 1
    for number in {0, last // 2, last}:
        assert abs(grid.start(number) + padding - number * hop * RATE_HZ) <= Fraction(1, 2), (
            "rounded once, from its exact time"
        )
    assert grid.start(last) + RATE_HZ >= samples - Fraction(1, 2)


def test_a_hop_is_the_exact_decimal_number():
    """Starts do not drift, even after a billion windows."""
    assert WindowGrid.of(0.1).start(10**9) == 4800 * 10**9
    assert WindowGrid.of(1 / 3).start(3 * 10**6) == 10**6 * RATE_HZ


@settings(max_examples=30, deadline=None)
@given(
    cuts=st.lists(st.integers(0, 3 * RATE_HZ), max_size=8),
    hop=st.sampled_from([0.013, 0.3, 1.0, 1.7]),
    center=st.booleans(),
    batch_windows=st.integers(1, 5),
)
def test_windows_hold_the_samples_from_their_starts(cuts, hop, center, batch_windows):
    wave = np.arange(1, 3 * RATE_HZ + 1, dtype=np.float32)
    cutter = WindowCutter(WindowGrid.of(hop, center), batch_windows)
    blocks = [cutter.push(piece) for piece in np.split(wave, sorted(cuts))]
    assert all(len(block.starts) % batch_windows == 0 for block in blocks)
    blocks.append(cutter.push(is_last=True))
    starts = np.concatenate([block.starts for block in blocks])
    waveforms = np.concatenate([block.waveforms for block in blocks])
    padded = np.concatenate(
        [np.zeros(RATE_HZ, np.float32), wave, np.zeros(2 * RATE_HZ, np.float32)]
    )
    assert len(starts) == WindowGrid.of(hop, center).count(len(wave))
    for start, window in zip(starts, waveforms, strict=True):
        assert np.array_equal(window, padded[RATE_HZ + start : 2 * RATE_HZ + start])


def test_five_seconds_centered_with_a_hop_of_a_tenth_give_46_windows():
    """As OpenL3 has it (openl3#24)."""
    embeddings = embed(noise(5), Loudness(), sample_rate_hz=RATE_HZ, hop_seconds=0.1, center=True)
    assert len(embeddings) == 46
    assert np.allclose(embeddings.middle_seconds, np.arange(46) / 10, atol=1e-12)
    assert embeddings.centered
    assert embeddings.start_seconds[0] == -0.5


def test_a_short_sound_is_filled_up_with_silence(model):
    short, padded = (
        noise(0.3),
        np.concatenate([noise(0.3), np.zeros(RATE_HZ - round(0.3 * RATE_HZ), np.float32)]),
    )
    assert len(embed(short, model, sample_rate_hz=RATE_HZ)) == 1
    assert alike(
        embed(short, model, sample_rate_hz=RATE_HZ), embed(padded, model, sample_rate_hz=RATE_HZ)
    )


# Law 8


def test_a_vector_is_the_output_of_the_network_for_its_second(model):
    wave = noise(3)
    embeddings = embed(wave, model, sample_rate_hz=RATE_HZ, hop_seconds=0.7)
    with torch.inference_mode():
        alone = model.listen(torch.from_numpy(wave[33_600:][:RATE_HZ])[None]).vector
    # Not to the bit: `embed` computes the fused form of the tower.
    assert np.allclose(embeddings.vectors[1], alone[0].numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("side", ["audio", "vision"])
@pytest.mark.parametrize("layer", ["pool4", "conv4_2", "aligned"])
def test_a_vector_is_the_same_alone_and_in_a_batch(model, side, layer):
    encoder = encoder_of(model)
    torch.manual_seed(1)
    rows = (
        torch.randn(7, RATE_HZ) * 0.1
        if side == "audio"
        else torch.randint(0, 255, (7, 3, 48, 48), dtype=torch.uint8)
    )
    together = encode_rows(encoder, side, layer, rows, 4)
    assert together.shape == (7, layer_width(model, side, layer))
    assert torch.equal(
        together, torch.cat([encode_rows(encoder, side, layer, row[None], 32) for row in rows])
    )
    order = torch.randperm(7)
    assert torch.equal(encode_rows(encoder, side, layer, rows[order], 4), together[order])


@settings(max_examples=12, deadline=None)
@given(
    cuts=st.lists(st.integers(0, 2 * 44_100), max_size=6),
    rate=st.sampled_from([44_100, 48_000, 16_000]),
    center=st.booleans(),
    dense=st.booleans(),
)
def test_a_stream_gives_exactly_the_vectors_of_the_whole_sound(model, cuts, rate, center, dense):
    wave = noise(2.5, rate_hz=rate)
    choices = {"hop_seconds": 0.3, "center": center, "dense": dense}
    whole = embed(wave, model, sample_rate_hz=rate, **choices)
    stream = StreamingEmbedder(model, rate, **choices)
    embeddings = [stream.push(piece) for piece in np.split(wave, sorted(cuts))] + [stream.finish()]
    assert np.array_equal(np.concatenate([block.vectors for block in embeddings]), whole.vectors)
    assert np.array_equal(
        np.concatenate([block.start_seconds for block in embeddings]), whole.start_seconds
    )


def test_a_stream_gives_a_window_as_soon_as_it_is_complete(model):
    stream = StreamingEmbedder(model, hop_seconds=0.5)
    wave = noise(2)
    assert [len(stream.push(piece)) for piece in np.split(wave, [47_999, 48_000, 72_000])] == [
        0,
        1,
        1,
        1,
    ]
    assert len(stream.finish()) == 0
    with pytest.raises(ConfigError, match="this stream is finished; make a new StreamingEmbedder"):
        stream.push(wave)
    with pytest.raises(SourceError, match="the sound is empty"):
        StreamingEmbedder(model).finish()


def test_a_file_gives_the_vectors_of_its_samples(model, tmp_path):
    wave = noise(2.3)
    path = write_sound(tmp_path / "noise.wav", wave)
    from_file = embed(path, model)
    assert alike(from_file, embed(wave, model, sample_rate_hz=RATE_HZ))
    assert from_file.source == str(path)
    assert (from_file.side, from_file.layer, from_file.window_seconds) == ("audio", "pool4", 1.0)


def test_a_file_of_another_rate_is_resampled_as_an_array_is(model, tmp_path):
    wave = noise(2.3, rate_hz=44_100)
    path = write_sound(tmp_path / "noise.wav", wave, 44_100)
    assert alike(embed(path, model), embed(wave, model, sample_rate_hz=44_100))


def test_embedding_is_repeatable_and_bfloat16_is_close(model):
    wave = noise(2)
    first = embed(wave, model, sample_rate_hz=RATE_HZ)
    assert alike(first, embed(wave, model, sample_rate_hz=RATE_HZ))
    half = embed(wave, model, sample_rate_hz=RATE_HZ, precision="bfloat16")
    assert not alike(first, half)
    cosine = (
        (first.vectors * half.vectors).sum(1)
        / np.linalg.norm(first.vectors, axis=1)
        / np.linalg.norm(half.vectors, axis=1)
    )
    assert cosine.min() > 0.999


def test_threads_share_a_fresh_network_that_nothing_moves():
    sounds = np.random.default_rng(0).normal(0, 0.1, (4, 48_000)).astype(np.float32)
    network = L3Net(ModelConfig(widths=(4, 8)))
    expected = [embed(sound, network, sample_rate_hz=48_000).vectors for sound in sounds]
    fresh = L3Net(ModelConfig(widths=(4, 8)))
    fresh.load_state_dict(network.state_dict())
    weights = list(fresh.parameters())
    places = [(weight.data_ptr(), weight.stride()) for weight in weights]
    with ThreadPoolExecutor(4) as threads:
        vectors = list(
            threads.map(lambda sound: embed(sound, fresh, sample_rate_hz=48_000).vectors, sounds)
        )
    np.testing.assert_array_equal(vectors, expected)
    # A thread that moved a weight would free the values that another one reads.
    assert [(weight.data_ptr(), weight.stride()) for weight in weights] == places


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_default_type_of_the_program_changes_nothing(dtype):
    sound = np.random.default_rng(0).normal(0, 0.1, 96_000).astype(np.float32)
    network = L3Net(ModelConfig(widths=(4, 8)))

    def vectors():
        for options in ({"layer": "pool4"}, {"layer": "texture"}, {"dense": True}):
            yield embed(sound, opened, sample_rate_hz=48_000, **options).vectors

    opened = network
    expected = list(vectors())
    torch.set_default_dtype(dtype)
    try:
        opened = L3Net(network.config)
        opened.load_state_dict(network.state_dict())
        found = list(vectors())
        assert torch.get_default_dtype() == dtype
    finally:
        torch.set_default_dtype(torch.float32)
    assert {parameter.dtype for parameter in opened.parameters()} == {torch.float32}
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_normalized_vectors_have_length_one_and_the_same_direction(model):
    plain = embed(noise(2), model, sample_rate_hz=RATE_HZ)
    unit = embed(noise(2), model, sample_rate_hz=RATE_HZ, normalize=True)
    assert np.allclose(np.linalg.norm(unit.vectors, axis=1), 1, atol=1e-6)
    assert np.allclose(
        unit.vectors * np.linalg.norm(plain.vectors, axis=1, keepdims=True),
        plain.vectors,
        rtol=1e-5,
    )


# What sound may be


def test_arrays_of_every_layout_and_type_give_the_same_vectors(model):
    pcm = np.round(noise(1.5) * 2**15).astype(np.int16)
    reference = embed(pcm, model, sample_rate_hz=RATE_HZ)
    floats = pcm.astype(np.float32) / 2**15
    for same in (
        floats,
        floats.astype(np.float64),
        torch.from_numpy(floats),
        pcm.astype(np.int32) * 2**16,
        np.stack([floats, floats], axis=1),
        np.stack([floats] * 4),
        torch.from_numpy(floats)[None],
    ):
        assert alike(embed(same, model, sample_rate_hz=RATE_HZ), reference)


# Pictures and videos


def test_images_are_resized_and_cropped_as_in_training(model):
    pictures = np.random.default_rng(0).integers(0, 255, (3, 64, 80, 3), np.uint8)
    embeddings = embed(pictures, model)
    with torch.inference_mode():
        own = look(model, torch.from_numpy(pictures[1, 8:56, 16:64]).permute(2, 0, 1)[None])
    assert np.array_equal(embeddings.vectors[1], own.vector[0].numpy())
    assert (embeddings.side, embeddings.window_seconds, embeddings.start_seconds.tolist()) == (
        "vision",
        0.0,
        [0.0] * 3,
    )
    assert alike(embed(pictures.astype(np.float32) / 255, model), embeddings)
    assert np.array_equal(embed(pictures[2], model).vectors[0], embeddings.vectors[2])


def test_frames_are_the_nearest_to_given_times(tmp_path):
    shown = np.array([0.0, 0.5, 0.9, 2.0, 2.1])
    write_clock_video(tmp_path / "clock.mp4", times=shown, seconds=3.0)
    wanted = [0.1, 0.24, 0.26, 0.69, 0.71, 1.44, 1.46, 2.06]
    frames = [
        f
        for f in decode_media(
            tmp_path / "clock.mp4", DecodeOptions(audio=False), nearest_to=iter(wanted)
        )
        if isinstance(f, Frame)
    ]
    assert [round(frame.at_seconds, 3) for frame in frames] == [
        0,
        0,
        0.5,
        0.5,
        0.9,
        0.9,
        2.0,
        2.1,
    ]


def test_an_aligned_frame_is_from_the_middle_of_its_window(tmp_path):
    """The frames and the tone of a clock video tell their time. This compares what reaches the
    network, not what the record says.
    """
    write_clock_video(
        tmp_path / "clock.mkv", seconds=4.0, audio_late_seconds=0.2, audio_codec="pcm_s16le"
    )
    encoder = RecordingEncoder()
    both = embed(tmp_path / "clock.mkv", encoder, hop_seconds=0.3, align=True)
    assert len(encoder.frames) >= len(both) == len(encoder.waveforms) > 8
    assert np.array_equal(both.audio.start_seconds, both.vision.start_seconds)
    for row, middle in enumerate(both.audio.middle_seconds):
        shown_seconds = read_clock(encoder.frames[row].transpose(1, 2, 0))
        assert abs(shown_seconds - both.frame_seconds[row]) < 0.001
        assert abs(shown_seconds - middle) <= 0.0201, "the nearest of 25 frames per second"
        if 0.2 < middle < 3.4:
            heard_seconds = hear_clock(encoder.waveforms[row], RATE_HZ // 2)
            assert abs(heard_seconds - middle) < 0.005


class RecordingEncoder:
    """Keeps what it is given; its vectors are zeros."""

    layers: ClassVar = {"audio": ("zeros",), "vision": ("zeros",)}
    resize_pixels = crop_pixels = 256
    frame_fit = "crop"
    device = torch.device("cpu")

    def __init__(self):
        self.frames = []
        self.waveforms = []

    def encode(self, side, batch, layer):
        inputs = self.frames if side == "vision" else self.waveforms
        # An input of zeros is how `vector_length` asks for the length of a vector.
        if batch.any():
            inputs.extend(batch.numpy())
        return torch.zeros(len(batch), 2)


def test_aligned_vectors_equal_those_of_each_side_alone(model, tmp_path):
    write_clock_video(tmp_path / "clock.mp4", seconds=2.5)
    both = embed(tmp_path / "clock.mp4", model, align=True)
    assert alike(both.audio, embed(tmp_path / "clock.mp4", model))
    frames = embed(tmp_path / "clock.mp4", model, side="vision", hop_seconds=0.5)
    # Windows from 0, 0.5, ... have their middles at 0.5, 1.0, ...
    assert np.array_equal(both.vision.vectors[: len(frames) - 1], frames.vectors[1 : len(both) + 1])
    assert np.allclose(frames.start_seconds, [0, 0.5, 1.0, 1.5, 2.0, 2.48], atol=0.021)


def test_frames_of_a_video_equal_those_that_prepare_stores(model, tmp_path):
    write_clock_video(tmp_path / "clock.mp4", seconds=1.0)
    embeddings = embed(tmp_path / "clock.mp4", model, side="vision", hop_seconds=0.2)
    stored = [
        f.jpeg(90)
        for f in decode_media(tmp_path / "clock.mp4", DecodeOptions(audio=False))
        if isinstance(f, Frame)
    ]
    squares = torch.stack([decode_jpeg(jpeg, 64)[8:56, 8:56] for jpeg in stored]).permute(
        0, 3, 1, 2
    )
    with torch.inference_mode():
        own = torch.cat(
            [
                side_vectors(model, look(model, square[None]), "vision", "pool4")
                for square in squares
            ]
        )
    assert np.array_equal(embeddings.vectors, own.numpy())


# Use and training see and hear the same: shards hold 16-bit sound and JPEGs

RATES_HZ = (48_000, 44_100, 22_050, 16_000)


@pytest.fixture(scope="module")
def paper_model():
    """The front end that looks deepest, down to 1e-12, so that it shows any other rounding."""
    torch.manual_seed(2)
    settings = small_config().model.model_dump() | {"front_end": "paper", "fusion": "distance"}
    return L3Net(ModelConfig.model_validate(settings)).eval()


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("rate_hz", RATES_HZ)
def test_a_file_and_its_shards_give_the_same_vectors(paper_model, tmp_path, rate_hz):
    write_clock_video(
        tmp_path / "clock.mkv", seconds=3.0, sample_rate_hz=rate_hz, audio_codec="pcm_s16le"
    )
    prepare([tmp_path / "clock.mkv"], tmp_path / "shards", workers=1)
    (clip,) = Shards(tmp_path / "shards")
    assert clip.start_seconds == 0
    assert clip.waveform.dtype == np.int16
    for choices in (
        {},
        {"dense": True},
        {"layer": "conv4_2"},
        {"layer": "texture"},
        {"layer": "aligned"},
        {"center": True},
    ):
        of_shards = embed(
            clip.waveform, paper_model, sample_rate_hz=RATE_HZ, hop_seconds=0.4, **choices
        )
        of_file = embed(tmp_path / "clock.mkv", paper_model, hop_seconds=0.4, **choices)
        # The file may end some samples later than the shard: whole windows are compared.
        whole = of_shards.start_seconds + 1 <= clip.duration_seconds
        assert whole.sum() >= 4
        rows = np.flatnonzero(whole)[:-1] if "dense" in choices else np.flatnonzero(whole)
        assert np.array_equal(of_file.vectors[rows], of_shards.vectors[rows]), choices
    with torch.inference_mode():
        stored = torch.from_numpy(clip.waveform[:RATE_HZ].copy())[None]
        heard = paper_model.audio(
            paper_model.front_end(stored)
        ).vector  # as training: the front end of int16
    # Not to the bit: `embed` computes the fused form of the tower.
    first = embed(tmp_path / "clock.mkv", paper_model).vectors[0]
    assert np.allclose(first, heard[0].numpy(), rtol=1e-4, atol=1e-5)
    pictures = np.stack([decode_jpeg(jpeg, 64).numpy() for jpeg in clip.frames])
    of_frames = embed(tmp_path / "clock.mkv", paper_model, side="vision", hop_seconds=0.2)
    assert np.array_equal(
        of_frames.vectors[: len(pictures)], embed(pictures, paper_model).vectors[: len(of_frames)]
    )


@pytest.mark.parametrize("rate_hz", RATES_HZ)
def test_arrays_of_any_type_of_the_same_sound_are_equal(paper_model, rate_hz):
    stored = (noise(2, rate_hz=rate_hz) * 2**15).round().astype(np.int16)
    whole = embed(stored, paper_model, sample_rate_hz=rate_hz)
    as_floats = stored.astype(np.float32) / 2**15
    for same in (
        as_floats,
        as_floats.astype(np.float64),
        stored.astype(np.int32) << 16,
        torch.from_numpy(stored),
    ):
        assert alike(embed(same, paper_model, sample_rate_hz=rate_hz), whole)
    stream = StreamingEmbedder(paper_model, rate_hz)
    embeddings = [stream.push(as_floats[:7000]), stream.push(as_floats[7000:]), stream.finish()]
    assert np.array_equal(np.concatenate([block.vectors for block in embeddings]), whole.vectors)


@settings(deadline=None)
@given(values=st.lists(st.floats(-2, 2, width=32), min_size=1, max_size=50))
def test_floats_are_rounded_as_prepare_stores_them(values):
    sound = np.array(values, np.float32)
    stretch = _Stretch(0.0)
    stretch.add(sound)
    assert np.array_equal(
        round_to_int16(torch.from_numpy(sound)).numpy(), stretch.cut(len(sound)) / np.float32(2**15)
    )


def test_other_encoders_get_sound_without_rounding():
    finer = np.full(RATE_HZ, 2**-17, np.float32)
    assert embed(finer, Loudness(), sample_rate_hz=RATE_HZ).vectors[0, 0] == pytest.approx(2**-17)


def test_a_late_sound_has_silence_before_it(model, tmp_path):
    write_clock_video(
        tmp_path / "late.mkv", seconds=4.0, audio_late_seconds=1.5, audio_codec="pcm_s16le"
    )
    embeddings = embed(tmp_path / "late.mkv", model, hop_seconds=0.5)
    silence = embed(np.zeros(RATE_HZ, np.float32), model, sample_rate_hz=RATE_HZ)
    assert np.array_equal(embeddings.vectors[0], silence.vectors[0])
    assert len(embeddings) == 7
    assert not np.array_equal(embeddings.vectors[2], silence.vectors[0])


def test_streams_of_a_file_are_listed(tmp_path):
    write_clock_video(tmp_path / "clock.mp4", seconds=1.0)
    write_sound(tmp_path / "noise.flac", noise(1), codec="flac")
    assert (
        list_streams(tmp_path / "clock.mp4").has_video,
        list_streams(tmp_path / "clock.mp4").has_audio,
    ) == (True, True)
    assert (
        list_streams(tmp_path / "noise.flac").has_video,
        list_streams(tmp_path / "noise.flac").has_audio,
    ) == (False, True)


# The seam for networks of another house


class Loudness:
    """An encoder of sound alone."""

    layers: ClassVar = {"audio": ("loudness",)}
    resize_pixels = crop_pixels = 8
    frame_fit = "crop"
    device = torch.device("cpu")

    def encode(self, side, batch, layer):
        return batch.abs().mean(1, keepdim=True)


def test_other_encoders_can_embed(tmp_path):
    wave = noise(2)
    embeddings = embed(wave, Loudness(), sample_rate_hz=RATE_HZ)
    assert embeddings.layer == "loudness"
    assert np.allclose(embeddings.vectors[2, 0], np.abs(wave[RATE_HZ:]).mean())
    stream = StreamingEmbedder(Loudness())
    assert stream.push(wave[:10]).vectors.shape == (0, 1)
    with pytest.raises(ConfigError, match="this network has no vision side; it encodes audio"):
        embed(np.zeros((9, 9, 3), np.uint8), Loudness())
    with pytest.raises(ConfigError, match="has no layer 'pool4' of audio; it has loudness"):
        embed(wave, Loudness(), sample_rate_hz=RATE_HZ, layer="pool4")
    with pytest.raises(ConfigError, match="Loudness has its own precision"):
        embed(wave, Loudness(), sample_rate_hz=RATE_HZ, precision="bfloat16")
    with pytest.raises(
        ConfigError, match="dense embedding needs an L3Net, and this network is a Loudness"
    ):
        embed(wave, Loudness(), sample_rate_hz=RATE_HZ, dense=True)
