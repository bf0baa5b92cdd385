"""Mosaics: a network that compares levels is always right, one that does not hear is at chance."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from level_network import LevelNetwork, level_clip, level_shards
from looklisten.app.cli import main
from looklisten.data.clips import Box
from looklisten.data.shards import Shards
from looklisten.errors import ConfigError
from looklisten.evaluation.localization.evaluate import annotated_moments
from looklisten.evaluation.localization.mosaics import (
    draw_mosaics,
    join_tiles,
    mosaics,
    tile_of_peak,
)
from looklisten.inference.localization.records import HeatMap
from noise_shards import write_set

LEVELS = [((n + 0.5) / 12, (n + 0.5) / 12) for n in range(12)]


@pytest.fixture(scope="module")
def level_clips(tmp_path_factory):
    return level_shards(tmp_path_factory.mktemp("levels") / "shards", LEVELS).split("all", 0.1)


@pytest.mark.parametrize("tiles", [2, 4])
def test_maps_of_a_network_that_compares_levels_peak_in_the_right_tile(tiles, level_clips):
    result = mosaics(LevelNetwork(), level_clips, tiles, trials=60)
    assert (result.pointing, result.chance, result.trials) == (1, 1 / tiles, 60)
    assert result.pointing_ci95[1] == 1
    assert result.pointing_ci95[0] > 0.7
    assert (result.method, result.videos) == ("similarity", 12)


@pytest.mark.parametrize("tiles", [2, 4])
def test_maps_that_do_not_depend_on_the_sound_are_at_chance(tiles, level_clips):
    # The method `unit` shows the brightest tile, whatever sounds.
    result = mosaics(LevelNetwork(), level_clips, tiles, trials=200, method="unit")
    assert result.pointing == pytest.approx(result.chance, abs=0.12)
    low, high = result.pointing_ci95
    assert low < result.pointing < high
    assert high - low < 0.3


def test_tiles_have_the_size_of_training_and_lie_row_by_row(level_clips):
    network = LevelNetwork()
    side = network.config.crop_pixels
    for mosaic in draw_mosaics(network, level_clips, 4, 5, 10, seed=1):
        image = mosaic.moment.vision_input
        assert image.shape == (2 * side, 2 * side, 3)
        assert len(set(mosaic.videos)) == 4
        for tile, video in enumerate(mosaic.videos):
            row, column = divmod(tile, 2)
            square = image[row * side : (row + 1) * side, column * side : (column + 1) * side]
            level = LEVELS[int(video[1:])][0]
            assert square.float().mean() == pytest.approx(255 * level, abs=2)
        own = level_clips[int(mosaic.videos[mosaic.target][1:])]
        assert mosaic.moment.clip.video_id == own.video_id
    # The same seed gives the same mosaics.
    first, second = (
        [mosaic.videos for mosaic in draw_mosaics(network, level_clips, 2, 9, 10, seed=1)]
        for _ in range(2)
    )
    assert first == second
    assert join_tiles([torch.full((1, 1, 3), n, dtype=torch.uint8) for n in range(4)])[
        ..., 0
    ].tolist() == [[0, 1], [2, 3]]


def test_a_peak_on_the_border_and_a_constant_map_point_at_no_tile():
    def peak_at(row, column, shape):
        values = np.zeros(shape, np.float32)
        values[row, column] = 1
        return HeatMap(values)

    assert [tile_of_peak(peak_at(0, column, (3, 6)), 2) for column in (0, 2, 3, 5)] == [0, 0, 1, 1]
    corners = [(0, 0), (0, 3), (3, 0), (3, 3)]
    assert [tile_of_peak(peak_at(*corner, (4, 4)), 4) for corner in corners] == [0, 1, 2, 3]
    assert tile_of_peak(peak_at(0, 1, (3, 3)), 2) is None
    assert tile_of_peak(peak_at(1, 0, (3, 4)), 4) is None
    # The rows of two tiles side by side have no border.
    assert tile_of_peak(peak_at(1, 0, (3, 4)), 2) == 0
    assert tile_of_peak(HeatMap(np.ones((2, 4), np.float32)), 2) is None


def test_a_silent_second_is_no_target_and_too_few_videos_are_refused(tmp_path, level_clips):
    half_silent = level_shards(
        tmp_path / "shards", [(level, level * (n % 2)) for n, (level, _) in enumerate(LEVELS)]
    ).split("all", 0.1)
    network = LevelNetwork()
    for mosaic in draw_mosaics(network, half_silent, 2, 30, 10, seed=0):
        assert int(mosaic.videos[mosaic.target][1:]) % 2 == 1
    silent = level_shards(tmp_path / "silent", [(0.2, 0), (0.4, 0), (0.6, 0)]).split("all", 0.1)
    with pytest.raises(ConfigError, match="every sound that was drawn is silent"):
        mosaics(network, silent, 2, trials=2)
    with pytest.raises(ConfigError, match="a mosaic of 4 needs clips of as many videos"):
        mosaics(network, silent, 4, trials=2)


def test_boxes_at_one_time_that_spread_moments_miss_are_measured(tmp_path):
    box = Box(4.1, 0.0, 0.0, 1.0, 1.0, "all of it", True)
    clips = [
        level_clip("v0", 0.2, 0.2, seconds=8.0, boxes=(box,)),
        level_clip("v1", 0.4, 0.4, seconds=8.0, boxes=(replace(box, sounding=False),)),
    ]
    shards = Shards(write_set(tmp_path / "shards", [], [], clips)).split("all", 0.1)
    network = LevelNetwork()
    (annotated,) = annotated_moments(network, shards, per_clip=2)
    moment = annotated.load()
    assert (annotated.video_id, annotated.sounding) == ("v0", (box,))
    assert moment.frame_seconds == pytest.approx(4.1)
    assert moment.start_seconds == pytest.approx(3.6)


def test_the_verb_prints_the_share_with_its_interval(run_path, shards_path, capsys):
    arguments = ["evaluate", str(shards_path), "--checkpoint", str(run_path)]
    mosaic = ["--task", "localization", "--mosaic", "2", "--trials", "20", "--per-clip", "2"]
    assert main([*arguments, *mosaic]) == 0
    values = json.loads(capsys.readouterr().out)
    assert values["mosaic"] == 2
    assert values["chance"] == 0.5
    assert values["pointing_ci95"][0] <= values["pointing"] <= values["pointing_ci95"][1]
    assert values["videos"] == 12
    assert main([*arguments, *mosaic, "--method", "unit", "correspondence"]) == 0
    assert [row["method"] for row in json.loads(capsys.readouterr().out)["rows"]] == [
        "unit",
        "correspondence",
    ]
    assert main([*arguments, "--mosaic", "2"]) == 2
    assert "--task localization" in capsys.readouterr().err
