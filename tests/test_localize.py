"""Heat maps are high where they should be."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from conftest import write_clock_video
from looklisten.config import ModelConfig
from looklisten.data.clips import Clip
from looklisten.errors import ConfigError, SourceError
from looklisten.inference.localization.localize import localize, localize_each
from looklisten.inference.localization.methods import localize_moments
from looklisten.inference.localization.options import LocalizeOptions
from looklisten.inference.localization.records import HeatMap, normalize_maps
from looklisten.inference.moments import Moment
from looklisten.model.backbones.backbone import TowerOutput
from looklisten.model.fusions import Fusion, correspondence_logit
from looklisten.model.l3net import L3Net
from looklisten.model.networks import load


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    write_clock_video(path, seconds=3.0)
    return path


def network_of(fusion):
    torch.manual_seed(1)
    return L3Net(
        ModelConfig(
            widths=(4, 8), front_end="compact", resize_pixels=64, crop_pixels=48, fusion=fusion
        )
    ).eval()


@pytest.fixture(scope="module", params=["concat", "distance", "similarity", "dense"])
def network(request):
    return network_of(request.param)


def moment_of(frame):
    wave = (np.sin(np.arange(48_000) / 7) * 8000).astype(np.int16)
    clip = Clip("a", "a", "a", 0.0, (0.5,), (b"",), wave, 48_000)
    return Moment(
        clip=clip,
        start_seconds=0.0,
        frame_seconds=0.5,
        frame=frame,
        vision_input=frame,
        waveform=wave,
    )


def spot(down, right):
    """A gray frame with one bright textured square."""
    frame = torch.full((64, 64, 3), 120, dtype=torch.uint8)
    square = torch.randint(0, 255, (8, 8, 3), generator=torch.Generator().manual_seed(0)).to(
        torch.uint8
    )
    frame[down : down + 8, right : right + 8] = square
    return frame


@pytest.mark.parametrize("method", ["unit", "correspondence", "similarity"])
def test_shifting_the_frame_shifts_the_map(network, method):
    if method == "similarity" and not network.fusion.shares_space:
        pytest.skip("this fusion does not put both sides into one space")
    units = (3, 2) if method == "unit" else None
    [first] = localize_moments(network, [moment_of(spot(16, 16))], method, units)
    [shifted] = localize_moments(network, [moment_of(spot(32, 40))], method, units)
    first_map = first.frame_map.values
    shifted_map = shifted.frame_map.values
    assert first_map.shape == (32, 32)
    assert first_map.max() > 0
    tolerance = 1e-4 * max(first_map.max(), 1e-6)
    assert np.allclose(first_map[4:16, 4:16], shifted_map[12:24, 16:28], atol=tolerance)


def test_the_map_of_a_unit_is_its_channel_and_the_maximum_is_its_vector_entry(network):
    moment = moment_of(spot(20, 36))
    [localization] = localize_moments(network, [moment], "unit", units=(5, 6))
    with torch.no_grad():
        vision = network.look(moment.frame.permute(2, 0, 1)[None])
        audio = network.listen(torch.from_numpy(moment.waveform)[None])
    assert np.allclose(localization.frame_map.values, vision.map[0, 5].numpy(), atol=1e-5)
    assert np.allclose(localization.sound_map.values, audio.map[0, 6].numpy(), atol=1e-5)
    assert localization.frame_map.values.max() == pytest.approx(
        float(vision.vector[0, 5]), abs=1e-5
    )
    assert localization.units == (5, 6)


def test_by_default_the_map_is_of_the_unit_that_responds_most(network):
    moment = moment_of(spot(20, 36))
    [localization] = localize_moments(network, [moment], "unit")
    with torch.no_grad():
        vision = network.look(moment.frame.permute(2, 0, 1)[None])
    assert localization.units[0] == int(vision.vector.argmax())


def test_correspondence_ignores_units_that_lower_the_logit():
    """The logit is 2 * unit 0 - 3 * unit 1 (vision), so the map is 2 * the channel of unit 0."""
    torch.manual_seed(1)
    network = L3Net(
        ModelConfig(widths=(4, 8), front_end="compact", resize_pixels=64, crop_pixels=48)
    ).eval()

    def fusion(vision, audio):
        yes = 2 * vision[..., 0] - 3 * vision[..., 1] + 0 * audio[..., 0]
        return torch.stack([torch.zeros_like(yes), yes], -1)

    network.fusion = FunctionFusion(fusion)
    moment = moment_of(spot(20, 36))
    [localization] = localize_moments(network, [moment])
    with torch.no_grad():
        vision = network.look(moment.frame.permute(2, 0, 1)[None])
    assert np.allclose(localization.frame_map.values, 2 * vision.map[0, 0].numpy(), atol=1e-4)
    assert localization.sound_map.values.max() == 0


class FunctionFusion(Fusion):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, vision, audio):
        return self.function(vision, audio)


@pytest.mark.parametrize("fusion", ["similarity", "dense"])
def test_similarity_of_a_position_is_the_answer_for_a_frame_that_repeats_this_position(fusion):
    network, moment = network_of(fusion), moment_of(spot(20, 36))
    [localization] = localize_moments(network, [moment], "similarity")
    with torch.no_grad():
        vision = network.look(moment.frame.permute(2, 0, 1)[None])
        audio = network.listen(torch.from_numpy(moment.waveform)[None])
        side = round(network.fusion.positions**0.5)
        repeated = vision.map[..., 11:12, 19:20].expand(-1, -1, side, side)
        vision_of_position = TowerOutput(repeated, repeated[..., 0, 0])
        fusion_inputs = network.fusion.features(vision_of_position, audio)
        probability = torch.sigmoid(correspondence_logit(network.fusion(*fusion_inputs)))
    assert localization.frame_map.values[11, 19] == pytest.approx(float(probability), abs=1e-5)
    assert localization.frame_map.values.shape == (32, 32)
    assert localization.sound_map.values.shape == tuple(audio.map.shape[2:])


def test_the_map_of_a_network_that_sees_whole_frames_is_as_bright_as_its_probability():
    """The whole frame answers too, and without its share the map would be darker or brighter."""
    network = network_of("linear")
    network.fusion.fit_inputs(torch.randn(40, 10, 8), torch.randn(40, 1, 8))
    noise = torch.randint(0, 255, (64, 64, 3), dtype=torch.uint8)
    peaks = []
    for frame in (spot(16, 16), noise):
        [localization] = localize_moments(network, [moment_of(frame)], "similarity")
        [shown] = normalize_maps([localization])
        peaks.append(float(shown.frame_map.values.max()))
        assert peaks[-1] == pytest.approx(localization.probability, abs=1e-6)
        assert localization.frame_map.values.min() < peaks[-1]
    assert peaks[0] != peaks[1]


def test_the_map_of_a_network_that_sees_whole_frames_prefers_strong_positions():
    """Of two positions with the same direction, the one with longer features is brighter."""
    fusion = network_of("linear").fusion
    vision_map = torch.ones(1, 8, 5, 5)
    vision_map[..., 1, 3] = 4.0
    vision = TowerOutput(vision_map, vision_map.mean((2, 3)))
    equal = torch.full((1, 25), 0.3)
    shown = fusion.shown_similarities(equal, torch.tensor([0.3]), vision).view(5, 5)
    assert shown.argmax() == 1 * 5 + 3
    assert shown.max() == pytest.approx(0.3)
    assert len(shown.unique()) == 2
    # A position is compared as the mean of itself and its neighbors, at the edge of fewer.
    positions = fusion.map_positions(vision).view(5, 5, 8)
    torch.testing.assert_close(positions[2, 2], torch.full((8,), 1 + 3 / 9))
    torch.testing.assert_close(positions[0, 4], torch.full((8,), 1 + 3 / 4))
    torch.testing.assert_close(positions[4, 0], torch.ones(8))


def test_fusion_dense_compares_a_frame_with_the_sound_around_it():
    """Noise begins in the middle of the second.

    A frame before it has the map of silence, a frame after it has the map of the noise.
    """
    network, frame = network_of("dense"), spot(20, 36)
    noise = np.random.default_rng(0).integers(-9000, 9000, 48_000).astype(np.int16)
    late_noise = noise.copy()
    late_noise[:24_000] = 0

    def map_at(frame_seconds, waveform, around_seconds):
        moment = replace(moment_of(frame), frame_seconds=frame_seconds, waveform=waveform)
        [localization] = localize_moments(network, [moment], "similarity", None, around_seconds)
        return localization.frame_map.values

    silence = np.zeros(48_000, np.int16)
    assert np.allclose(map_at(0.25, late_noise, 0.1), map_at(0.25, silence, 0.1), atol=1e-5)
    assert np.allclose(map_at(0.75, late_noise, 0.1), map_at(0.75, noise, 0.1), atol=1e-5)
    assert not np.allclose(map_at(0.25, late_noise, 0.1), map_at(0.75, late_noise, 0.1), atol=1e-3)
    assert not np.allclose(map_at(0.25, late_noise, 1.0), map_at(0.25, silence, 1.0), atol=1e-3)


@pytest.mark.parametrize("method", ["correspondence", "similarity"])
def test_maps_of_silence_and_of_another_sound_are_dark(method):
    network, moment = network_of("distance"), moment_of(spot(20, 36))
    [own] = localize_moments(network, [moment], method)
    quiet_moment = replace(moment, waveform=moment.waveform // 16_000)
    [quiet] = localize_moments(network, [quiet_moment], method)
    quiet = replace(own, is_silent=quiet.is_silent)
    foreign = replace(own, probability=own.probability / 10)
    bright, dark, dim = normalize_maps([own, quiet, foreign])
    assert bright.frame_map.values.max() > 0
    assert dark.frame_map.values.max() == dark.sound_map.values.max() == 0
    assert np.allclose(dim.frame_map.values, bright.frame_map.values / 10)
    assert np.allclose(dim.sound_map.values, bright.sound_map.values / 10)


@pytest.mark.parametrize(
    ("fusion", "method"),
    [
        ("concat", "correspondence"),
        ("distance", "correspondence"),
        ("similarity", "similarity"),
        ("dense", "similarity"),
    ],
)
def test_the_default_method_depends_on_the_fusion(fusion, method):
    assert localize_moments(network_of(fusion), [moment_of(spot(20, 36))])[0].method == method


def test_of_two_equally_near_frames_the_earlier_is_taken(clip, run_path):
    """Stored frames are 0.2 s apart, and each time lies in the middle between two of them."""
    times = [item.at_seconds for item in localize(clip, load(run_path), every_seconds=0.2)]
    assert len(set(times)) == len(times) == 15


def test_similarity_needs_both_sides_in_one_space():
    with pytest.raises(
        ConfigError,
        match=r'fusion "concat", which does not put .* use the method correspondence, or train',
    ):
        localize_moments(network_of("concat"), [moment_of(spot(20, 36))], "similarity")


def test_peak_is_the_center_of_the_highest_position():
    values = np.zeros((4, 8), np.float32)
    values[3, 0] = 1
    assert HeatMap(values).peak() == (0.5 / 8, 3.5 / 4)


def test_a_map_is_enlarged_to_the_size_of_its_frame():
    values = np.array([[0, 1], [0, 1]], np.float32)
    enlarged = HeatMap(values).enlarged(6, 8)
    assert enlarged.shape == (6, 8)
    assert np.allclose(enlarged[3], [0, 0, 0.125, 0.375, 0.625, 0.875, 1, 1])


def test_a_file_is_localized_through_its_length(clip, run_path):
    localizations = localize(clip, load(run_path), every_seconds=0.5)
    assert len(localizations) == 6
    times = [item.at_seconds for item in localizations]
    assert times == sorted(times)
    assert times == pytest.approx([0.25, 0.75, 1.25, 1.75, 2.25, 2.75], abs=0.1)
    highest = max(item.frame_map.values.max() for item in localizations)
    assert 0 < highest <= 1
    assert all(item.frame_map.values.min() >= 0 for item in localizations)
    assert localizations[0].spectrogram.shape == (64, 98)


def test_a_probability_is_the_answer_of_the_network_itself(clip, run_path):
    network = load(run_path)
    probabilities = []
    for moment, localization in localize_each(clip, network, LocalizeOptions(every_seconds=0.5)):
        frame = moment.vision_input.permute(2, 0, 1)[None]
        waveform = torch.from_numpy(moment.waveform.copy())[None]
        with torch.inference_mode():
            answer = torch.sigmoid(network.log_odds(network(frame, waveform)))
        assert localization.probability == pytest.approx(float(answer), abs=1e-4)
        probabilities.append(localization.probability)
    assert len(set(probabilities)) == 6


def test_times_can_be_chosen(clip, run_path):
    model = load(run_path)
    localizations = localize(clip, model, at_seconds=[2.2, 0.4])
    assert [item.at_seconds for item in localizations] == pytest.approx([0.4, 2.2], abs=0.01)
    assert [item.sound_start_seconds for item in localizations] == pytest.approx(
        [0.0, 1.7], abs=0.01
    )
    with pytest.raises(
        ConfigError,
        match=r"1 of the 2 times in at_seconds lie where the video, 3\.0. s long, has no frames",
    ):
        localize(clip, model, at_seconds=[1.0, 7.0])


def test_errors_of_localize(clip, run_path, tmp_path):
    (tmp_path / "text.mp4").write_text("no video")
    model = load(run_path)
    with pytest.raises(SourceError, match="cannot be opened as video"):
        localize(tmp_path / "text.mp4", model)
    with pytest.raises(SourceError, match="nowhere"):
        localize(tmp_path / "nowhere.mp4", model)
    with pytest.raises(
        ConfigError, match="the audio tower has units 0 to 15, and units names its unit 16"
    ):
        localize(clip, model, method="unit", units=(3, 16))
    with pytest.raises(ConfigError, match="every_seconds 0 must be above 0"):
        localize(clip, model, every_seconds=0)
