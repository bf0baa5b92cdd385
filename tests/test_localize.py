"""Maps point where they should: a planted unit is found, and a shift of the picture shifts the map."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from conftest import write_clock_video
from looklisten.config import ModelConfig
from looklisten.data.clips import Clip
from looklisten.errors import ConfigError, SourceError
from looklisten.inference.localization.localize import HeatMap, localize, localize_moments, to_unit
from looklisten.inference.moments import Moment
from looklisten.model.backbones.backbone import TowerOutput
from looklisten.model.checkpoint import load_checkpoint_network
from looklisten.model.fusions import AlignedFusion, Fusion, correspondence_logit
from looklisten.model.l3net import L3Net


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
        clip=clip, start_seconds=0.0, frame_seconds=0.5, frame=frame, seen=frame, waveform=wave
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
def test_a_shift_of_the_picture_shifts_the_map(network, method):
    if method == "similarity" and not isinstance(network.fusion, AlignedFusion):
        pytest.skip("no space to compare in")
    one = localize_moments(
        network, [moment_of(spot(16, 16))], method, units=(3, 2) if method == "unit" else None
    )[0]
    other = localize_moments(
        network, [moment_of(spot(32, 40))], method, units=(3, 2) if method == "unit" else None
    )[0]
    a, b = one.frame_map.values, other.frame_map.values
    assert a.shape == (32, 32)
    inner = slice(4, 16)
    assert np.allclose(a[inner, inner], b[12:24, 16:28], atol=1e-4 * max(a.max(), 1e-6))
    assert a.max() > 0


def test_the_unit_map_is_the_units_slice_and_its_peak_the_vectors_value(network):
    moment = moment_of(spot(20, 36))
    found = localize_moments(network, [moment], "unit", units=(5, 6))[0]
    with torch.no_grad():
        seen = network.look(moment.frame.permute(2, 0, 1)[None])
        heard = network.listen(torch.from_numpy(moment.waveform)[None])
    assert np.allclose(found.frame_map.values, seen.map[0, 5].numpy(), atol=1e-5)
    assert np.allclose(found.sound_map.values, heard.map[0, 6].numpy(), atol=1e-5)
    assert found.frame_map.values.max() == pytest.approx(float(seen.vector[0, 5]), abs=1e-5)
    assert found.units == (5, 6)


def test_without_a_name_the_unit_that_fires_most_is_followed(network):
    moment = moment_of(spot(20, 36))
    found = localize_moments(network, [moment], "unit")[0]
    with torch.no_grad():
        seen = network.look(moment.frame.permute(2, 0, 1)[None])
    assert found.units[0] == int(seen.vector.argmax())


def test_only_units_that_raise_the_answer_count():
    """With a fusion that reads vision unit 0 for yes and unit 1 for no, the map is unit 0's slice,
    scaled.
    """
    torch.manual_seed(1)
    network = L3Net(
        ModelConfig(widths=(4, 8), front_end="compact", resize_pixels=64, crop_pixels=48)
    ).eval()

    def fusion(vision, audio):
        yes = 2 * vision[..., 0] - 3 * vision[..., 1] + 0 * audio[..., 0]
        return torch.stack([torch.zeros_like(yes), yes], -1)

    network.fusion = Plain(fusion)
    moment = moment_of(spot(20, 36))
    found = localize_moments(network, [moment])[0]
    with torch.no_grad():
        seen = network.look(moment.frame.permute(2, 0, 1)[None])
    assert np.allclose(found.frame_map.values, 2 * seen.map[0, 0].numpy(), atol=1e-4)
    assert found.sound_map.values.max() == 0


class Plain(Fusion):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, vision, audio):
        return self.function(vision, audio)


@pytest.mark.parametrize("fusion", ["similarity", "dense"])
def test_the_similarity_of_a_place_is_the_answer_about_a_frame_that_is_that_place_all_over(fusion):
    network, moment = network_of(fusion), moment_of(spot(20, 36))
    found = localize_moments(network, [moment], "similarity")[0]
    with torch.no_grad():
        seen, heard = (
            network.look(moment.frame.permute(2, 0, 1)[None]),
            network.listen(torch.from_numpy(moment.waveform)[None]),
        )
        side = round(network.fusion.places**0.5)
        place = seen.map[..., 11:12, 19:20].expand(-1, -1, side, side)
        alone = TowerOutput(place, place, place[..., 0, 0])
        answer = torch.sigmoid(
            correspondence_logit(network.fusion(*network.fusion.read(alone, heard)))
        )
    assert found.frame_map.values[11, 19] == pytest.approx(float(answer), abs=1e-5)
    assert found.frame_map.values.shape == (32, 32)
    assert found.sound_map.values.shape == tuple(heard.map.shape[2:])


def test_of_a_network_that_hears_moments_the_map_is_that_of_the_moments_around_the_frame():
    """A hiss begins in the middle of the second: the map of a frame before it is that of silence,
    of one behind it that of the hiss.
    """
    network, frame = network_of("dense"), spot(20, 36)
    hiss = np.random.default_rng(0).integers(-9000, 9000, 48_000).astype(np.int16)
    late = hiss.copy()
    late[:24_000] = 0

    def seen_at(frame_seconds, waveform, around_seconds):
        moment = replace(moment_of(frame), frame_seconds=frame_seconds, waveform=waveform)
        return localize_moments(network, [moment], "similarity", None, around_seconds)[
            0
        ].frame_map.values

    nothing = np.zeros(48_000, np.int16)
    assert np.allclose(seen_at(0.25, late, 0.1), seen_at(0.25, nothing, 0.1), atol=1e-5)
    assert np.allclose(seen_at(0.75, late, 0.1), seen_at(0.75, hiss, 0.1), atol=1e-5)
    assert not np.allclose(seen_at(0.25, late, 0.1), seen_at(0.75, late, 0.1), atol=1e-3)
    assert not np.allclose(seen_at(0.25, late, 1.0), seen_at(0.25, nothing, 1.0), atol=1e-3)


@pytest.mark.parametrize("method", ["correspondence", "similarity"])
def test_silence_and_a_sound_from_elsewhere_leave_the_picture_dark(method):
    network, moment = network_of("distance"), moment_of(spot(20, 36))
    own = localize_moments(network, [moment], method)[0]
    quiet = replace(own, moment=replace(moment, waveform=moment.waveform // 16_000))
    foreign = replace(own, probability=own.probability / 10)
    bright, dark, dim = to_unit([own, quiet, foreign])
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
def test_the_usual_method_is_what_the_network_was_trained_by(fusion, method):
    assert localize_moments(network_of(fusion), [moment_of(spot(20, 36))])[0].method == method


def test_of_two_frames_equally_near_it_is_the_earlier(clip, run_path):
    """Stored frames are 0.2 s apart; moments that lie in the middle between them take each once."""
    times = [
        one.at_seconds
        for one in localize(clip, load_checkpoint_network(run_path), every_seconds=0.2)
    ]
    assert len(set(times)) == len(times) == 15


def test_similarity_needs_a_space_of_both_sides():
    with pytest.raises(
        ConfigError,
        match=r'fusion "concat", whose two sides share no space .* take the method correspondence, or train one',
    ):
        localize_moments(network_of("concat"), [moment_of(spot(20, 36))], "similarity")


def test_peak_is_the_centre_of_the_strongest_place():
    values = np.zeros((4, 8), np.float32)
    values[3, 0] = 1
    assert HeatMap(values, 0.0).peak() == (0.5 / 8, 3.5 / 4)


def test_a_map_is_enlarged_to_the_frame_that_it_covers():
    values = np.array([[0, 1], [0, 1]], np.float32)
    large = HeatMap(values, 0.0).enlarged(6, 8)
    assert large.shape == (6, 8)
    assert np.allclose(large[3], [0, 0, 0.125, 0.375, 0.625, 0.875, 1, 1])


def test_a_file_is_localized_through_its_length(clip, run_path):
    found = localize(clip, load_checkpoint_network(run_path), every_seconds=0.5)
    assert len(found) == 6
    times = [one.at_seconds for one in found]
    assert times == sorted(times)
    assert times == pytest.approx([0.25, 0.75, 1.25, 1.75, 2.25, 2.75], abs=0.1)
    highest = max(one.frame_map.values.max() for one in found)
    assert 0 < highest <= 1
    assert all(one.frame_map.values.min() >= 0 for one in found)
    assert all(0 <= one.probability <= 1 for one in found)
    assert found[0].spectrogram.shape == (64, 98)


def test_moments_can_be_named(clip, run_path):
    model = load_checkpoint_network(run_path)
    found = localize(clip, model, at_seconds=[2.2, 0.4])
    assert [one.at_seconds for one in found] == pytest.approx([0.4, 2.2], abs=0.01)
    assert [one.moment.start_seconds for one in found] == pytest.approx([0.0, 1.7], abs=0.01)
    with pytest.raises(
        ConfigError,
        match=r"of the 2 times asked for 1 lie where the video, 3\.0. s, has no picture with sound",
    ):
        localize(clip, model, at_seconds=[1.0, 7.0])


def test_what_cannot_be_localized_is_said(clip, run_path, tmp_path):
    (tmp_path / "text.mp4").write_text("no video")
    model = load_checkpoint_network(run_path)
    with pytest.raises(SourceError, match="cannot be opened as video"):
        localize(tmp_path / "text.mp4", model)
    with pytest.raises(SourceError, match="nowhere"):
        localize(tmp_path / "nowhere.mp4", model)
    with pytest.raises(ConfigError, match="the network has units 0 to 15; 3 and 16 were asked for"):
        localize(clip, model, method="unit", units=(3, 16))
    with pytest.raises(ConfigError, match="every_seconds 0 must be above 0"):
        localize(clip, model, every_seconds=0)
