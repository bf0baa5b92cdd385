"""The network is the paper's: every shape and every count of figure 2 (and section 2 of the fact
sheet in docs/paper.md).
"""

import json
from dataclasses import asdict, replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import small_config
from looklisten.config import Config, ModelConfig
from looklisten.data.pairing import pair_up
from looklisten.errors import ConfigError
from looklisten.interop.pretrained import describe
from looklisten.media import SAMPLE_RATE_HZ
from looklisten.media.frames import jitter
from looklisten.media.front_ends import FRONT_ENDS, FrontEnd
from looklisten.media.spectrogram import WINDOW_SAMPLES, LogSpectrogram
from looklisten.model.backbones.vgg import Vgg
from looklisten.model.checkpoint import save_checkpoint
from looklisten.model.fusions import CORRESPOND, Fusion, correspondence_logit
from looklisten.model.fusions.positions import SimilarityFusion
from looklisten.model.fusions.vectors import AlignedFusion
from looklisten.model.l3net import L3Net
from looklisten.model.networks import load
from looklisten.model.objectives.avc import AvcObjective
from looklisten.model.objectives.contrastive import ContrastiveObjective

VISION_SHAPES = [(64, 224, 224), (128, 112, 112), (256, 56, 56), (512, 28, 28)]
AUDIO_SHAPES = [(64, 257, 199), (128, 128, 99), (256, 64, 49), (512, 32, 24)]


@pytest.fixture(scope="module")
def l3():
    torch.manual_seed(0)
    return L3Net(Config.load("l3").model).eval()


def count(module):
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)


def test_trainable_parameters(l3):
    assert count(l3.vision) == 4_687_296
    assert count(l3.audio) == 4_686_144
    assert count(l3.fusion) == 131_458
    assert count(l3) == 9_504_898


@pytest.mark.parametrize(("side", "shapes"), [("vision", VISION_SHAPES), ("audio", AUDIO_SHAPES)])
def test_every_output_shape(l3, side, shapes):
    output_shapes = {}
    tower = getattr(l3, side)
    hooks = [
        getattr(block, name).register_forward_hook(
            lambda _m, _i, out, key=(index, name): output_shapes.__setitem__(
                key, tuple(out.shape[1:])
            )
        )
        for index, block in enumerate(tower.blocks)
        for name in ("conv1", "conv2")
    ]
    with torch.inference_mode():
        out = (
            l3.look(torch.zeros(1, 3, 224, 224, dtype=torch.uint8))
            if side == "vision"
            else l3.listen(torch.zeros(1, 48_000))
        )
    for hook in hooks:
        hook.remove()
    assert output_shapes == {
        (index, name): shape for index, shape in enumerate(shapes) for name in ("conv1", "conv2")
    }
    assert out.named_maps["conv4_2"].shape[1:] == out.map.shape[1:] == shapes[-1]
    assert out.vector.shape == (1, 512)


def test_whole_network_answers_yes_or_no(l3):
    with torch.inference_mode():
        logits = l3(
            torch.zeros(2, 3, 224, 224, dtype=torch.uint8),
            torch.zeros(2, 48_000, dtype=torch.int16),
        )
    assert logits.shape == (2, 2)


def test_paper_front_end_is_257_by_199():
    front_end = LogSpectrogram("paper")
    wave = torch.sin(2 * torch.pi * 6000 * torch.arange(WINDOW_SAMPLES) / SAMPLE_RATE_HZ)[None]
    image = front_end(wave)
    assert image.shape == (1, 1, 257, 199)
    assert front_end.band_hz()[image[0, 0].mean(1).argmax()] == pytest.approx(6000, abs=94)


def test_paper_front_end_by_hand():
    torch.manual_seed(0)
    wave = torch.randn(1, WINDOW_SAMPLES) * 0.1
    image = LogSpectrogram("paper")(wave)[0, 0]
    piece = wave[0, 7 * 240 : 7 * 240 + 480] * torch.hann_window(480)
    by_hand = (
        torch.fft.fft(torch.cat([piece, torch.zeros(32)])).abs()[:257].clamp_min(1e-12).log() / 5
    )
    assert torch.allclose(image[:, 7], by_hand, atol=1e-4)


@pytest.mark.parametrize("samples", [WINDOW_SAMPLES, WINDOW_SAMPLES + 1, 3 * WINDOW_SAMPLES - 2])
def test_compact_front_end_by_hand(samples):
    torch.manual_seed(0)
    wave = torch.randn(2, samples) * 0.1
    front_end = LogSpectrogram("compact")
    image = front_end(wave)
    # Filtered and decimated by a plain convolution, and one window at a time.
    filtered = torch.nn.functional.conv1d(
        wave[:, None], front_end.low_pass[None, None], stride=3, padding=15
    )[:, 0]
    starts = range(0, filtered.shape[1] - 400 + 1, 160)
    assert image.shape == (2, 1, 64, len(starts))
    window = torch.hann_window(400) / torch.hann_window(400).sum() * 2
    for column in (0, 41, len(starts) - 1):
        piece = filtered[:, starts[column] : starts[column] + 400] * window
        bands = torch.fft.rfft(piece, 512).abs() @ front_end.mel
        by_hand = (bands.clamp_min(5e-5).log() + 6.5) / 2
        assert torch.allclose(image[:, 0, :, column], by_hand, atol=5e-5)


@pytest.mark.parametrize("name", FRONT_ENDS)
def test_gradient_of_silence_is_finite(name):
    wave = torch.zeros(1, WINDOW_SAMPLES, requires_grad=True)
    LogSpectrogram(name)(wave).sum().backward()
    assert torch.isfinite(wave.grad).all()


@pytest.mark.parametrize("name", FRONT_ENDS)
def test_silence_is_finite_and_int16_equals_float(name):
    front_end = LogSpectrogram(name)
    assert torch.isfinite(front_end(torch.zeros(1, WINDOW_SAMPLES))).all()
    wave = (torch.randn(1, WINDOW_SAMPLES) * 3000).short()
    assert torch.equal(front_end(wave), front_end(wave.float() / 2**15))


def test_compact_front_end_hears_up_to_8_khz_in_order():
    front_end = LogSpectrogram("compact")
    t = torch.arange(WINDOW_SAMPLES) / SAMPLE_RATE_HZ
    peaks = [
        int(front_end(torch.sin(2 * torch.pi * hz * t)[None])[0, 0].mean(1).argmax())
        for hz in (200, 1000, 4000, 7500)
    ]
    assert peaks == sorted(set(peaks))
    assert [float(front_end.band_hz()[p]) for p in peaks] == pytest.approx(
        [200, 1000, 4000, 7500], rel=0.1
    )


def test_conv4_2_is_before_batch_norm_and_the_vector_is_the_maximum_of_the_map():
    tower = Vgg(3, (4, 8)).eval()
    last = tower.blocks[-1]
    for values in (
        last.bn2.weight.data,
        last.bn2.bias.data,
        last.bn2.running_mean,
        last.bn2.running_var,
    ):
        values.uniform_(0.5, 2)
    out = tower(torch.randn(2, 3, 17, 23))
    assert out.named_maps["conv4_2"].min() < 0
    assert torch.allclose(torch.relu(last.bn2(out.named_maps["conv4_2"])), out.map)
    assert torch.equal(out.vector, out.map.flatten(2).max(2).values)
    assert out.map.shape == (2, 8, 8, 11)


def test_he_initialization():
    torch.manual_seed(0)
    weight = L3Net(Config.load("l3").model).vision.blocks[2].conv2.weight
    assert weight.std().item() == pytest.approx((2 / (256 * 9)) ** 0.5, rel=0.02)


def small_net(fusion, **settings):
    torch.manual_seed(0)
    config = ModelConfig(
        widths=(4, 8),
        fusion=fusion,
        front_end="compact",
        resize_pixels=32,
        crop_pixels=32,
        **settings,
    )
    return L3Net(config).eval()


@pytest.mark.parametrize("fusion", ["concat", "distance", "similarity", "dense", "linear"])
def test_all_pairs_are_the_pairs_one_by_one(fusion):
    net = small_net(fusion)
    vision, audio = net.fusion.features(
        net.look(torch.rand(3, 3, 32, 32)), net.listen(torch.rand(5, 48_000) - 0.5)
    )
    matrix = net.fusion.all_pairs_logits(*net.fusion.project(vision, audio))
    for i in range(3):
        for j in range(5):
            assert torch.allclose(
                matrix[i, j], net.fusion(vision[i : i + 1], audio[j : j + 1])[0], atol=1e-5
            )


@pytest.mark.parametrize("fusion", ["concat", "distance", "similarity", "dense", "linear"])
def test_similarities_and_logits_are_float32_under_autocast(fusion):
    """The same numbers as without autocast: small sums in bfloat16 make unequal pairs equal."""
    net = small_net(fusion)
    sides = net.fusion.project(
        *net.fusion.features(
            net.look(torch.rand(6, 3, 32, 32)), net.listen(torch.rand(6, 48_000) - 0.5)
        )
    )
    asked = {"logits": net.fusion.logits, "all_pairs_logits": net.fusion.all_pairs_logits}
    if fusion != "concat":
        asked |= {
            "similarities": net.fusion.similarities,
            "similarity_logits": lambda *both: net.fusion.similarity_logits(
                net.fusion.similarities(*both)
            ),
        }
    for name, ask in asked.items():
        exact = ask(*sides)
        with torch.autocast("cpu", torch.bfloat16):
            found = ask(*sides)
            assert (sides[0] @ sides[1].transpose(-1, -2)).dtype == torch.bfloat16, "autocast is on"
        assert found.dtype == torch.float32, name
        assert torch.equal(found, exact), name


def test_a_contrastive_step_has_the_loss_of_float32_similarities_under_autocast():
    net = small_net("distance")
    vision, audio = torch.nn.functional.normalize(
        torch.randn(2, 64, 128, generator=torch.Generator().manual_seed(0)), dim=-1
    )
    net.fusion.vision, net.fusion.audio = torch.nn.Identity(), torch.nn.Identity()
    pairs = batch_of(*range(64))
    exact = contrastive()(net.fusion, vision, audio, pairs).loss
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(contrastive()(net.fusion, vision, audio, pairs).loss, exact)


def test_a_vector_of_zeros_has_a_bounded_gradient():
    net = small_net("distance")
    torch.nn.init.zeros_(net.fusion.vision[2].weight)  # with biases of zero, all vectors are
    vision = torch.rand(2, 8, requires_grad=True)
    net.fusion.project(vision, torch.rand(2, 8))[0].sum().backward()
    assert net.fusion.vision[2].bias.grad.abs().max() <= 2 / 1e-6


def test_the_dense_similarity_is_the_soft_maximum_over_positions_for_each_time_averaged():
    net = small_net("dense")
    vision, audio = net.look(torch.rand(2, 3, 32, 24)), net.listen(torch.rand(2, 48_000) - 0.5)
    found = net.fusion.similarities(*net.fusion.project(*net.fusion.features(vision, audio)))
    for i in range(2):
        for j in range(2):
            best = []
            for moment in range(audio.map.shape[3]):
                audio_vector = net.fusion.audio(audio.map[j, :, :, moment].max(1).values)
                vision_vectors = [
                    net.fusion.vision(vision.map[i, :, row, column])
                    for row in range(16)
                    for column in range(12)
                ]
                similarities = np.array(
                    [
                        torch.cosine_similarity(vision_vector, audio_vector, dim=0).item()
                        for vision_vector in vision_vectors
                    ]
                )
                # Of the 256 places of a training frame, 32 x 32; this frame has 192.
                best.append(np.log(np.exp(10 * similarities).sum() / 256) / 10)
                assert best[-1] < similarities.max()
            assert found[i, j].item() == pytest.approx(np.mean(best), abs=1e-5)


def test_similarity_is_the_soft_maximum_over_positions_for_the_whole_second():
    net = small_net("similarity")
    vision, audio = net.look(torch.rand(1, 3, 32, 32)), net.listen(torch.rand(1, 48_000) - 0.5)
    vision_vectors, audio_vector = (
        net.fusion.vision(vision.map[0].flatten(1).T),
        net.fusion.audio(audio.vector),
    )
    best = (10 * torch.cosine_similarity(vision_vectors, audio_vector)).exp().mean().log() / 10
    assert torch.allclose(
        net.fusion.similarities(*net.fusion.project(*net.fusion.features(vision, audio)))[0, 0],
        best,
        atol=1e-5,
    )


def test_the_vector_of_a_frame_is_of_its_unusual_positions():
    net = small_net("similarity")
    vision = net.look(torch.rand(2, 3, 32, 32))
    positions = net.fusion.project(net.fusion.vision_features(vision), torch.zeros(1, 1, 8))[0]
    # Before any training all positions count alike.
    plain = torch.nn.functional.normalize(positions.mean(1), dim=-1)
    assert torch.allclose(net.fusion.aligned_frame(vision), plain, atol=1e-6)
    # As if most positions of the training frames were like the first position of the first frame.
    net.fusion.usual_position.copy_(positions[0, 0])
    distances = 1 - positions @ positions[0, 0]
    expected = (positions * distances.square()[..., None]).mean(1)
    expected = torch.nn.functional.normalize(expected, dim=-1)
    assert torch.allclose(net.fusion.aligned_frame(vision), expected, atol=1e-6)
    assert not torch.allclose(expected, plain, atol=1e-3)


def test_similarity_trains_the_best_position_alone():
    net = small_net("similarity")
    net.fusion.usual_position.copy_(torch.nn.functional.normalize(torch.rand(128), dim=0))
    vision, audio = net.look(torch.rand(3, 3, 32, 32)), net.listen(torch.rand(3, 48_000) - 0.5)
    vectors = net.fusion.project(*net.fusion.features(vision, audio))
    (by_position,) = parts = net.fusion.part_similarities(*vectors)
    assert torch.equal(by_position, net.fusion.similarities(*vectors))
    decided = net.fusion.decided_similarities(parts, *vectors)
    assert torch.equal(decided, by_position)
    assert not decided.requires_grad


def test_the_usual_position_follows_training_alone():
    net = small_net("similarity")
    features = torch.rand(4, 9, 8)
    before = net.fusion.usual_position.clone()
    net.fusion.project(features, torch.rand(4, 1, 8))
    assert torch.equal(net.fusion.usual_position, before)
    net.fusion.train()
    for _ in range(60):
        vectors, _ = net.fusion.project(features, torch.rand(4, 1, 8))
    mean = vectors.detach().mean((0, 1))
    assert torch.allclose(net.fusion.usual_position, mean, atol=0.01)


def test_the_usual_position_follows_the_frames_of_all_processes():
    net = small_net("similarity").train()
    other = torch.nn.functional.normalize(torch.rand(1, 128), dim=-1)
    net.fusion.gather = lambda rows: torch.cat([rows, other])
    vectors, _ = net.fusion.project(torch.rand(4, 9, 8), torch.rand(4, 1, 8))
    mean = (vectors.detach().mean((0, 1)) + other[0]) / 2
    assert torch.allclose(net.fusion.usual_position, 0.1 * mean, atol=1e-6)


def test_a_checkpoint_without_a_usual_position_loads():
    net = small_net("similarity")
    tensors = net.state_dict()
    del tensors["fusion.usual_position"]
    net.load_state_dict(tensors)
    assert torch.equal(net.fusion.usual_position, torch.zeros(net.fusion.width))


@pytest.mark.parametrize("fusion", ["similarity", "dense"])
def test_at_the_training_crop_the_soft_maximum_is_the_logarithm_of_the_mean(fusion):
    net = small_net(fusion, sharpness=4.0)
    vision, audio = net.look(torch.rand(3, 3, 32, 32)), net.listen(torch.rand(3, 48_000) - 0.5)
    vision_vectors, audio_vectors = net.fusion.project(*net.fusion.features(vision, audio))
    assert net.fusion.positions == vision_vectors.shape[1] == 16 * 16
    similarities = torch.einsum("npw,mtw->npmt", vision_vectors, audio_vectors)
    best = ((4 * similarities).exp().mean(1).log() / 4).mean(2)
    assert torch.allclose(net.fusion.similarities(vision_vectors, audio_vectors), best, atol=1e-5)


@pytest.mark.parametrize("fusion", ["similarity", "dense"])
@pytest.mark.parametrize(
    ("left", "right", "above", "below"),
    [(12, 12, 0, 0), (0, 32, 0, 0), (0, 0, 16, 16), (40, 40, 0, 0)],
)
@torch.inference_mode()
def test_bars_next_to_a_frame_do_not_make_a_pair_less_likely(fusion, left, right, above, below):
    net = small_net(fusion)
    torch.manual_seed(3)
    frames, sounds = torch.rand(6, 3, 32, 32), torch.rand(6, 48_000) - 0.5
    wide = torch.nn.functional.pad(frames, (left, right, above, below), value=0.5)
    plain, barred = (
        torch.sigmoid(correspondence_logit(net(given, sounds))) for given in (frames, wide)
    )
    assert (barred - plain).min() > -0.005


@settings(deadline=None)
@given(
    evidence=st.lists(st.floats(-1, 1), min_size=1, max_size=30),
    more=st.lists(st.floats(-1, 1), max_size=60),
)
def test_another_position_never_lowers_the_soft_maximum(evidence, more):
    fusion = SimilarityFusion({"vision": 2, "audio": 2}, 2, 10.0, 49)
    few, all_of_them = (
        fusion.whole_frame_similarity(torch.tensor(values, dtype=torch.float64))
        for values in (evidence, [*evidence, *more])
    )
    assert all_of_them >= few - 1e-6
    strong = torch.tensor([0.9] * 4 + [0.0] * 45, dtype=torch.float64)
    wide = torch.cat([strong, torch.zeros(60, dtype=torch.float64)])
    difference = fusion.whole_frame_similarity(wide) - fusion.whole_frame_similarity(strong)
    assert abs(float(difference)) < 0.001


def test_the_sharpness_is_in_the_config_and_old_checkpoints_have_its_old_value(tmp_path):
    config = Config.load("general").changed(
        "model", widths=(4, 8), resize_pixels=32, crop_pixels=32, sharpness=7.0
    )
    network = L3Net(config.model)
    path = save_checkpoint(tmp_path, 1, config, network.state_dict(), {}, {})
    assert load(path).fusion.sharpness == 7
    assert L3Net(load(path).config).fusion.positions == 8 * 8
    about = json.loads((path / "checkpoint.json").read_text())
    assert about["config"]["model"].pop("sharpness") == 7
    (path / "checkpoint.json").write_text(json.dumps(about))
    assert load(path).fusion.sharpness == 10
    assert describe(network, None)["config"]["model"]["sharpness"] == 7
    with pytest.raises(ConfigError, match=r"model\.sharpness: Input should be greater than 0"):
        config.changed("model", sharpness=0)


def differing(front_end):
    """Its sizes and floor, and the settings that differ from their defaults."""
    settings = asdict(front_end)
    sizes = tuple(
        settings.pop(name) for name in ("window_samples", "hop_samples", "fft_samples", "floor")
    )
    defaults = asdict(FrontEnd(0, 0, 0, 0.0))
    return {"sizes": sizes} | {k: v for k, v in settings.items() if v != defaults[k]}


def test_a_front_end_keeps_its_numbers_since_checkpoints_know_only_its_name():
    """Change no row: a saved network needs them. Another front end gets another name."""
    rows = {name: differing(row) for name, row in FRONT_ENDS.items()}
    decibels = {"range_decibels": 80.0, "needs_normalization": True}
    openl3 = {"padding": "end", "mel_scale": "slaney", "mel_bands_like": "librosa", **decibels}
    assert rows == {
        "paper": {"sizes": (480, 240, 512, 1e-12), "scale": 5.0},
        "compact": {
            "sizes": (400, 160, 512, 5e-5),
            "sample_rate_hz": 16_000,
            "offset": 6.5,
            "scale": 2.0,
            "mel_bands": 64,
            "low_hz": 60.0,
            "unit_window": True,
        },
        "linear": {"sizes": (512, 242, 512, 1e-10), **decibels},
        "mel128": {"sizes": (2048, 242, 2048, 1e-10), "mel_bands": 128, **openl3},
        "mel256": {"sizes": (2048, 242, 2048, 1e-10), "mel_bands": 256, **openl3},
        "yamnet": {
            "sizes": (400, 160, 512, 0.0),
            "sample_rate_hz": 16_000,
            "low_pass_lobes": 32,
            "added": 0.001,
            "mel_bands": 64,
            "mel_bands_like": "tensorflow",
            "low_hz": 125.0,
            "high_hz": 7500.0,
            "columns_multiple_of": 32,
            "needs_normalization": True,
        },
        "kaldi128": {
            "sizes": (400, 160, 512, 2.0**-23),
            "sample_rate_hz": 16_000,
            "low_pass_lobes": 32,
            "mel_bands": 128,
            "mel_bands_like": "tensorflow",
            "low_hz": 20.0,
            "needs_normalization": True,
            "like_kaldi": True,
        },
    }
    assert (FRONT_ENDS["compact"].low_pass_lobes, CORRESPOND) == (5, 1)


def test_pools_that_keep_time_give_positions_that_are_closer():
    settings = {
        "widths": (4, 4, 4, 4),
        "first_stride": 2,
        "front_end": "compact",
        "resize_pixels": 32,
        "crop_pixels": 32,
    }
    usual, kept = (
        L3Net(ModelConfig(**settings, pools_keeping_time=pools)).audio for pools in (0, 2)
    )
    picture = torch.rand(1, 1, 64, 98)
    assert usual(picture).map.shape == (1, 4, 4, 6)
    assert kept(picture).map.shape == (1, 4, 4, 24)
    assert (usual.stride, kept.stride) == (16, 4)
    with pytest.raises(ConfigError, match="4 blocks have 3 pools"):
        L3Net(ModelConfig(**settings, pools_keeping_time=4))


def test_concat_fusion_is_fc1_relu_fc2():
    net = L3Net(ModelConfig(widths=(4, 8), resize_pixels=32, crop_pixels=32)).fusion
    vision, audio = torch.rand(3, 8), torch.rand(3, 8)
    plain = net.fc2(torch.relu(net.fc1(torch.cat([vision, audio], 1))))
    assert torch.allclose(net(vision, audio), plain, atol=1e-5)


class VectorFusion(Fusion):
    """A fusion that compares the vectors as they are."""

    def project(self, vision, audio):
        return vision, audio


class Oracle(VectorFusion):
    """Says yes exactly when both sides are equal."""

    def logits(self, vision, audio):
        yes = (vision == audio).all(-1).float() * 2 - 1
        return torch.stack([-9 * yes, 9 * yes], -1)


def batch_of(*videos):
    return SimpleNamespace(pairing=pair_up(np.arange(len(videos)), np.array(videos)), labels=())


def avc(negatives="roll"):
    return AvcObjective(small_config(negatives=negatives), {"vision": 6, "audio": 6})


def contrastive():
    return ContrastiveObjective(small_config(negatives="all"), {"vision": 6, "audio": 6})


@pytest.mark.parametrize("negatives", ["roll", "all"])
def test_the_avc_loss_is_small_for_an_oracle_and_large_for_a_liar(negatives):
    vectors = torch.eye(6)
    right = avc(negatives)(Oracle(), vectors, vectors, batch_of(*range(6)))
    assert right.accuracy == 1
    assert right.loss < 1e-6

    class Liar(Oracle):
        def logits(self, vision, audio):
            return -super().logits(vision, audio)

    wrong = avc(negatives)(Liar(), vectors, vectors, batch_of(*range(6)))
    assert wrong.accuracy == 0
    assert wrong.loss > 10


class Deaf(VectorFusion):
    def logits(self, vision, audio):
        yes = (vision[..., :1] + 0 * audio[..., :1]).expand(
            *torch.broadcast_shapes(vision.shape, audio.shape)[:-1], 1
        )
        return torch.cat([-yes, yes], -1)


class Blind(Deaf):
    def logits(self, vision, audio):
        return super().logits(audio, vision)


@pytest.mark.parametrize("one_sided", [Deaf(), Blind()])
@pytest.mark.parametrize("negatives", ["roll", "all"])
def test_one_side_alone_cannot_beat_chance(negatives, one_sided):
    """Law 3: negatives are the same frames and sounds paired otherwise, so either side alone says
    nothing.
    """
    rows = torch.randn(10, 4), torch.randn(10, 4)
    outcome = avc(negatives)(one_sided, *rows, batch_of(*range(10)))
    assert float(outcome.accuracy) == pytest.approx(0.5)


class Alike(AlignedFusion):
    """Says yes where two rows are the same unit vector."""

    def __init__(self):
        torch.nn.Module.__init__(self)

    def project(self, vision, audio):
        return vision, audio

    def similarities(self, vision, audio):
        return vision @ audio.T

    def similarity_logits(self, similarity):
        yes = 9 * (similarity - 0.99).sign()
        return torch.stack([-yes, yes], -1)


@pytest.mark.parametrize("deaf", [True, False])
def test_the_contrastive_loss_of_one_side_alone_cannot_beat_chance(deaf):
    """All similarities of a row are equal when the other side is not looked at; the least such loss
    is that of guessing.
    """
    known, unknown = (
        torch.nn.functional.normalize(torch.randn(10, 4), dim=-1),
        torch.ones(10, 4) / 2,
    )
    outcome = contrastive()(
        Alike(), *((known, unknown) if deaf else (unknown, known)), batch_of(*range(10))
    )
    assert float(outcome.accuracy) == pytest.approx(0.5)
    assert (
        float(outcome.loss.detach())
        >= ContrastiveObjective.chance_loss(small_config(batch_size=10).train) - 1e-4
    )


def test_the_contrastive_loss_is_small_for_an_oracle_and_learns_its_temperature():
    contrast = contrastive()
    rows = torch.eye(6)
    right = contrast(Alike(), rows, rows, batch_of(*range(6)))
    wrong = contrast(Alike(), rows, rows.roll(1, 0), batch_of(*range(6)))
    assert float(right.loss.detach()) < 1e-4 < 10 < float(wrong.loss.detach())
    wrong.loss.backward()
    assert contrast.log_scale.grad > 0, "who is wrong should become less sure"


@pytest.mark.parametrize(("objective", "fusion"), [(avc("all"), Deaf()), (contrastive(), Alike())])
def test_the_mean_loss_of_processes_with_unequal_numbers_of_empty_sounds_is_that_of_one(
    objective, fusion
):
    vision, audio = torch.nn.functional.normalize(torch.randn(2, 8, 4), dim=-1)
    has_recorded_sound = torch.tensor([False, True, False, True, True, True, True, False])
    pairing = replace(pair_up(np.arange(8), np.arange(8)), has_recorded_sound=has_recorded_sound)
    alone = objective(fusion, vision, audio, SimpleNamespace(pairing=pairing, labels=()))

    outcomes = []
    for rank in range(2):
        rows = torch.arange(rank, 8, 2)
        own_vision, own_audio = vision[rows], audio[rows]
        all_rows = {id(own_vision): vision, id(own_audio): audio}
        batch = SimpleNamespace(pairing=replace(pairing, rows=rows), labels=())
        outcome = objective(
            fusion,
            own_vision,
            own_audio,
            batch,
            gather=lambda own, everyone=all_rows: everyone[id(own)],
        )
        outcomes.append(outcome)
    for name in ("loss", "accuracy"):
        mean = torch.stack([getattr(outcome, name) for outcome in outcomes]).mean()
        assert float(mean.detach()) == pytest.approx(float(getattr(alone, name).detach()))


@pytest.mark.parametrize(("objective", "fusion"), [(avc("all"), Deaf()), (contrastive(), Alike())])
def test_rows_that_all_have_empty_sounds_have_a_finite_loss(objective, fusion):
    batch = batch_of(*range(4))
    batch.pairing = replace(batch.pairing, has_recorded_sound=torch.zeros(4, dtype=torch.bool))
    outcome = objective(fusion, torch.eye(4), torch.eye(4), batch)
    assert torch.isfinite(outcome.loss)


def test_a_row_with_an_empty_sound_has_no_positive_in_the_contrastive_loss():
    vision, audio = torch.eye(6), torch.eye(6)
    # Like no frame. As a positive it would cost much.
    audio[2] = 0
    batch = batch_of(*range(6))
    batch.pairing = replace(batch.pairing, has_recorded_sound=torch.arange(6) != 2)
    assert float(contrastive()(Alike(), vision, audio, batch).loss.detach()) < 1e-4


def test_an_empty_sound_is_wrong_for_its_own_frame():
    """An oracle that says yes to each frame with the sound of its row errs on empty ones alone."""
    vectors = torch.eye(6)
    has_recorded_sound = torch.tensor([True, True, False, True, True, True])
    batch = batch_of(*range(6))
    batch.pairing = replace(batch.pairing, has_recorded_sound=has_recorded_sound)
    outcome = avc("all")(Oracle(), vectors, vectors, batch)
    # 30 pairs of two videos, and the frame with the empty sound of its row.
    assert float(outcome.accuracy) == pytest.approx((1 + 30 / 31) / 2)


def test_the_video_alone_does_not_tell_its_moments_apart():
    """Same-video negatives: what a whole video looks and sounds like says nothing about which
    second belongs to which frame.
    """
    of_video = torch.eye(3).repeat_interleave(2, dim=0)
    same_video = batch_of("a", "a", "b", "b", "c", "c")
    outcome = avc("same-video")(Oracle(), of_video, of_video, same_video)
    assert float(outcome.accuracy) == pytest.approx(0.5)
    assert same_video.pairing.partners.tolist() == [1, 0, 3, 2, 5, 4]


def test_couples_are_each_others_negatives_and_the_others_in_turn():
    pairing = pair_up(np.arange(6), np.array(["a", "a", "b", "c", "d", "e"]))
    assert pairing.partners.tolist() == [1, 0, 3, 4, 5, 2]
    assert pair_up(np.arange(3), np.array(["a", "a", "b"])).partners.tolist() == [1, 0, 0]
    assert pair_up(np.arange(3), np.array(["a", "b", "c"])).partners.tolist() == [1, 2, 0]


def test_roll_pairs_each_frame_with_the_next_sound():
    class Recorder(VectorFusion):
        def logits(self, vision, audio):
            near = (audio[..., :1] - vision[..., :1]).remainder(6)
            return torch.cat([10 * (near == 1), 10 * (near == 0)], -1).float()

    places = torch.arange(6.0)[:, None]
    assert avc()(Recorder(), places, places, batch_of(*range(6))).accuracy == 1


def test_several_frames_begin_as_their_mean():
    one = L3Net(ModelConfig(widths=(4, 8), resize_pixels=32, crop_pixels=32))
    three = L3Net(ModelConfig(widths=(4, 8), resize_pixels=32, crop_pixels=32, frames_per_pair=3))
    frames = torch.rand(2, 9, 32, 32)
    mean = frames.reshape(2, 3, 3, 32, 32).mean(1)
    first = three.vision.blocks[0].conv1
    with torch.no_grad():
        assert torch.allclose(first(frames), first(mean.repeat(1, 3, 1, 1)), atol=1e-5)
        of_one = one.vision.blocks[0].conv1.weight
        assert float(first.weight[:, :3].std() * 3) == pytest.approx(float(of_one.std()), rel=0.3)
    assert three.look((frames * 255).byte()).vector.shape == (2, 8)


@pytest.mark.parametrize(
    ("initialization", "variance", "is_uniform"),
    [
        # He: 2 / inputs. Xavier: 2 / (inputs + outputs). A 3 x 3 kernel counts nine times.
        ("he-normal", 2 / (64 * 9), False),
        ("he-uniform", 2 / (64 * 9), True),
        ("xavier-uniform", 2 / (64 * 9 + 64 * 9), True),
    ],
)
def test_initial_weights_have_the_variance_of_their_rule(initialization, variance, is_uniform):
    torch.manual_seed(0)
    config = ModelConfig(
        widths=(64, 8), resize_pixels=32, crop_pixels=32, initialization=initialization
    )
    network = L3Net(config)
    weight = network.vision.blocks[0].conv2.weight
    assert weight.var().item() == pytest.approx(variance, rel=0.03)
    largest_uniform = (3 * variance) ** 0.5
    assert (weight.abs().max().item() <= largest_uniform) == is_uniform
    assert not network.fusion.fc1.bias.any()


@pytest.mark.parametrize(
    ("window", "at_edge", "at_quarter"),
    [("hann", 0, 0.5), ("hamming", 0.08, 0.54), ("rectangular", 1, 1)],
)
def test_windows_of_the_fourier_transform_have_their_textbook_values(window, at_edge, at_quarter):
    """The value of a window at a sample is the spectrum's magnitude of an impulse there."""
    front_end = L3Net(ModelConfig(resize_pixels=32, crop_pixels=32, widths=(4, 8), window=window))
    wave = torch.zeros(3, WINDOW_SAMPLES)
    length = FRONT_ENDS["paper"].window_samples
    for row, sample in enumerate((0, length // 4, length // 2)):
        wave[row, sample] = 1.0
    first_column = front_end.front_end(wave)[:, 0, 10, 0]
    values = (5 * first_column).exp()
    assert values.tolist() == pytest.approx([at_edge, at_quarter, 1], abs=1e-5)


def test_distance_fusion_starts_with_near_means_yes():
    net = L3Net(
        ModelConfig(widths=(4, 8), fusion="distance", resize_pixels=32, crop_pixels=32)
    ).fusion
    net.vision, net.audio = torch.nn.Identity(), torch.nn.Identity()
    near, far = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    assert correspondence_logit(net(near, near)) > 0 > correspondence_logit(net(near, far))
    assert CORRESPOND == 1


def test_jitter_changes_brightness_and_saturation():
    frames = torch.randint(0, 256, (4, 6, 4, 5), dtype=torch.uint8)
    brightness, saturation = torch.tensor([0, 0.1, -0.4, 0]), torch.tensor([1, 1, 1.5, 0])
    changed = jitter(frames, brightness, saturation)
    # Two frames side by side in the channels; 1, 2, 3 are brighter, more colorful, and gray.
    pixels = (frames / 255).unflatten(1, (2, 3))
    luma = torch.einsum("bnchw,c->bnhw", pixels, torch.tensor([0.299, 0.587, 0.114]))[:, :, None]
    row = (-1, 1, 1, 1, 1)
    by_hand = luma + (pixels - luma) * saturation.view(row) + brightness.view(row)
    assert by_hand.min() < 0 and by_hand.max() > 1
    assert torch.allclose(changed, by_hand.clamp(0, 1).flatten(1, 2) * 2 - 1, atol=1e-6)
    assert torch.allclose(changed[0], frames[0] / 127.5 - 1, atol=1e-6)
    in_channels_last = frames.contiguous(memory_format=torch.channels_last)
    assert torch.equal(jitter(in_channels_last, brightness, saturation), changed)
