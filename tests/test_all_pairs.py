"""Figures of all pairs equal their definitions, and are known exactly for networks made by hand."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from level_network import LevelNetwork, level_shards
from looklisten.app.cli import main
from looklisten.app.output import emit
from looklisten.app.verbs.evaluation.evaluate import run_evaluate
from looklisten.errors import ConfigError
from looklisten.evaluation.all_pairs import (
    MAX_MOMENTS,
    all_pairs,
    sampled,
    score_matrix,
)
from looklisten.evaluation.calibration import calibrate, fit_calibration
from looklisten.evaluation.comparison import PairComparison, compare_in_blocks
from looklisten.evaluation.held_out import clips_of_split, clips_to_evaluate
from looklisten.evaluation.other_sounds import mix_equally_loud, moments_of_other_videos
from looklisten.evaluation.ranking import ScoreMatrix, pooled, rank
from looklisten.evaluation.statistics import interval_over_members, jackknife_interval
from looklisten.inference.localization.localize import localize
from looklisten.inference.moments import look_and_listen, moments
from looklisten.interop.publish import save_pretrained
from looklisten.model.calibration import Calibration
from looklisten.model.checkpoint import save_calibration
from looklisten.model.networks import Run, load, open_network
from noise_shards import a_clip, write_clips

LEVELS = [((n + 0.5) / 13, (n + 0.5) / 13) for n in range(13)]


@pytest.fixture(scope="module")
def level_clips(tmp_path_factory):
    return everything(level_shards(tmp_path_factory.mktemp("levels") / "shards", LEVELS))


@pytest.fixture(scope="module")
def network():
    return LevelNetwork().eval()


def everything(shards):
    return shards.select(np.ones(len(shards), dtype=bool))


def by_definition(matrix):
    """One-of-two, AUC and accuracy, comparison by comparison."""
    scores, videos = matrix.scores, matrix.videos
    own = scores.diagonal()
    others = videos[:, None] != videos

    def wins(first, second):
        return (first > second) + 0.5 * (first == second)

    frames = wins(own[:, None], scores)[others]
    sounds = wins(own[None], scores)[others]
    auc = wins(own[:, None], scores[others][None])
    accuracy = (np.mean(own > 0) + np.mean(scores[others] <= 0)) / 2
    return [(frames.mean() + sounds.mean()) / 2, auc.mean(), accuracy]


@settings(deadline=None, max_examples=50)
@given(
    seed=st.integers(0, 10**6),
    moments=st.integers(4, 14),
    videos=st.integers(3, 6),
    digits=st.integers(0, 2),
)
def test_figures_equal_their_definitions_with_and_without_each_group(seed, moments, videos, digits):
    rng = np.random.default_rng(seed)
    # At least three videos, and equal scores where there are few digits.
    names = np.concatenate([np.arange(3), rng.integers(0, videos, moments - 3)])
    scores = (rng.normal(size=(moments, moments)) + np.eye(moments)).round(digits)
    check_figures(ScoreMatrix(scores, names), [names])
    # Each video is of one image file and one sound file, which other videos may be of too.
    images = rng.integers(0, 3, videos)[names]
    sounds = rng.integers(0, 4, videos)[names]
    by_both = images * 10 + sounds
    check_figures(ScoreMatrix(scores, names, (images, sounds)), [images, sounds, by_both])


def check_figures(matrix, kinds):
    ranking = rank(matrix)
    accuracy = ranking.accuracy
    found = [ranking.one_of_two.value, ranking.auc.value, accuracy.value]
    assert found == pytest.approx(by_definition(matrix))
    for kind, names in enumerate(kinds):
        without_yes = accuracy.matched.without_each_group()[kind]
        without_no = 1 - accuracy.mismatched.without_each_group()[kind]
        found_without = [
            ranking.one_of_two.without_each_group()[kind],
            ranking.auc.without_each_group()[kind],
            (without_yes + without_no) / 2,
        ]
        for name, found in zip(np.unique(names), np.array(found_without).T, strict=True):
            others = matrix.select(names != name)
            if len(np.unique(others.videos)) > 1:
                assert np.allclose(found, by_definition(others), equal_nan=True)
            else:
                assert np.isnan(found[:2]).all()


def test_shares_of_folds_are_pooled_over_their_pairs():
    rng = np.random.default_rng(0)
    folds = [ScoreMatrix(rng.normal(size=(n, n)), np.arange(n)) for n in (5, 8)]
    shares = [rank(fold).auc for fold in folds]
    pairs = [share.pairs for share in shares]
    assert pairs == [5 * 5 * 4, 8 * 8 * 7]
    both = pooled(shares)
    assert both.value == pytest.approx(np.average([share.value for share in shares], weights=pairs))
    assert len(both.without_each_group()[0]) == 13
    assert both.ci95()[0] < both.value < both.ci95()[1]


def test_intervals_over_videos_contain_the_truth_about_as_often_as_they_should():
    """Some frames score high with any sound, some sounds with any frame, and videos have several
    moments.
    """
    rng = np.random.default_rng(0)
    names = np.repeat(np.arange(40), 2)
    held = share_of_intervals_with_the_truth(lambda: draw(rng, names))
    assert (held > 0.91).all()
    assert (held < 1).any()


def test_intervals_over_files_contain_the_truth_where_those_over_videos_are_too_narrow():
    rng = np.random.default_rng(0)
    assert (share_of_intervals_with_the_truth(lambda: draw_of_files(rng, True)) > 0.91).all()
    assert (share_of_intervals_with_the_truth(lambda: draw_of_files(rng, False)) < 0.85).all()


def draw_of_files(rng, knows_files):
    """Videos of 12 image files and 12 sound files, some of which are easier than others."""
    images = rng.integers(0, 12, 80)
    sounds = rng.integers(0, 12, 80)
    ease = rng.normal(size=12)[images] + rng.normal(size=12)[sounds]
    scores = rng.normal(size=(80, 80)) + np.diag(1 + ease)
    return ScoreMatrix(scores, np.arange(80), (images, sounds) if knows_files else ())


def share_of_intervals_with_the_truth(draw_matrix, times=200):
    # Truth from one large draw: its own error is small beside the intervals.
    truth = np.mean([figures(draw_matrix())[0] for _ in range(400)], axis=0)
    held = np.zeros(2)
    for _ in range(times):
        _, intervals = figures(draw_matrix())
        held += [low <= value <= high for value, (low, high) in zip(truth, intervals, strict=True)]
    return held / times


def draw(rng, names):
    videos = names.max() + 1
    good = rng.normal(size=videos)[names]
    frames = rng.normal(size=videos)[names]
    sounds = rng.normal(size=videos)[names]
    count = len(names)
    scores = frames[:, None] + sounds + rng.normal(size=(count, count))
    return ScoreMatrix(scores + np.diag(1 + good), names)


def figures(matrix):
    ranking = rank(matrix)
    shares = [ranking.one_of_two, ranking.auc]
    return [share.value for share in shares], [share.ci95() for share in shares]


def test_intervals_have_a_width_where_all_is_right_and_say_nothing_of_two_videos():
    perfect = ScoreMatrix(np.eye(20) - 0.5, np.arange(20))
    ranking = rank(perfect)
    assert (ranking.one_of_two.value, ranking.auc.value, ranking.accuracy.value) == (1, 1, 1)
    for low, high in (ranking.one_of_two.ci95(), ranking.auc.ci95(), ranking.accuracy.ci95()):
        assert 0.8 < low < 0.9
        assert high == 1
    assert rank(ScoreMatrix(np.eye(2), np.arange(2))).auc.ci95() == (0, 1)
    assert np.isnan(rank(ScoreMatrix(np.eye(2), np.zeros(2))).auc.value)
    assert jackknife_interval(0.5, [np.array([0.5])], 10) == (0, 1)


def test_values_of_several_groups_are_worth_fewer():
    rng = np.random.default_rng(0)
    members = np.stack([rng.permutation(30)[:2] for _ in range(2000)])
    easy = rng.uniform(-0.4, 0.4, 30)
    right = rng.random(2000) < 0.5 + easy[members].sum(1) / 2
    wide = np.diff(interval_over_members(right, members))
    random = np.diff(interval_over_members(rng.random(2000) < 0.5, members))
    assert wide > 2 * random
    # Without an influence of the groups it is the interval of 2,000 values, or little more.
    assert 0.043 < random < 0.06
    assert interval_over_members(right[:3], np.zeros((3, 2))) == (0, 1)


def test_a_network_that_compares_levels_is_always_right(network, level_clips):
    result = all_pairs(network, level_clips)
    ranking = result.ranking
    assert (ranking.one_of_two.value, ranking.auc.value) == (1, 1)
    # A clip of 1.5 s has three seconds that overlap by at most three quarters.
    assert (result.moments, result.clips, result.videos) == (39, 13, 13)
    rows = {row.sound: row for row in result.sounds}
    assert list(rows) == ["matched", "mismatched", "mixed", "noise", "silence"]
    assert rows["matched"].yes == 1
    assert rows["matched"].probability == pytest.approx(1 / (1 + np.exp(-5)), abs=0.02)
    assert rows["mismatched"].pairs == 39 * 36
    assert rows["mismatched"].auc == 1
    # The threshold is a cosine of 0.5, so levels less than a third apart get a yes.
    near = sum(abs(a - b) in (1, 2, 3, 4) for a in range(13) for b in range(13))
    assert rows["mismatched"].yes == pytest.approx(near / (13 * 12))
    # Noise has the level 3,277 / 12,000, and silence 0.
    assert rows["noise"].yes == pytest.approx(8 / 13)
    assert rows["silence"].yes == pytest.approx(4 / 13)


def test_one_side_alone_is_at_chance_and_scores_do_not_depend_on_blocks(network, level_clips):
    frame_alone = PairComparison(
        project=lambda vision, audio: (vision.vector, audio.vector),
        compare=lambda vision, audio: vision - 0.5 + 0 * audio.T,
    )
    ranking = all_pairs(network, level_clips, comparison=frame_alone).ranking
    assert (ranking.one_of_two.value, ranking.auc.value) == (0.5, 0.5)
    assert ranking.accuracy.value == pytest.approx(0.5)
    vision, audio = torch.rand(13, 1), torch.rand(9, 1)
    whole = compare_in_blocks(frame_alone, vision, audio)
    assert np.array_equal(compare_in_blocks(frame_alone, vision, audio, 5), whole)


def test_all_fusions_score_pairs_row_by_row_as_in_all_pairs(run_path, held_out):
    model = load(run_path)
    matrix = score_matrix(model, held_out, per_clip=2)
    assert len(matrix.videos) == 24
    assert not model.training
    first_moments = list(moments(held_out[0], model.config, 2))
    with torch.inference_mode():
        features = model.fusion.features(*look_and_listen(model, first_moments))
        row_by_row = model.log_odds(model.fusion(*features))
    assert matrix.matched[:2] == pytest.approx(row_by_row.numpy(), abs=1e-4)


def test_more_moments_than_the_limit_are_sampled(level_clips):
    assert sampled(level_clips, MAX_MOMENTS // 13, 0) == (level_clips, 230, ())
    clips, per_clip, notes = sampled(level_clips, 231, 0)
    assert (len(clips), per_clip) == (13, 230)
    assert notes[0].startswith("230 instead of 231 moments of each clip are compared")
    clips, per_clip, notes = sampled(level_clips, 10, 0, max_moments=5)
    assert (len(clips), per_clip) == (5, 1)
    assert "one moment of each of 5 clips out of 13" in notes[0]


def test_one_video_has_no_mismatched_pair(network, level_clips):
    with pytest.raises(ConfigError, match="correspondence needs at least 2 held-out videos"):
        all_pairs(network, level_clips.select(np.arange(13) == 0))


def test_mixed_in_is_a_sound_of_another_video():
    videos = np.repeat(list("abc"), 20)
    others = moments_of_other_videos(videos, np.random.default_rng(0))
    assert np.all(videos[others] != videos)
    assert len(set(others.tolist())) > 20


@pytest.mark.parametrize("silent_videos", [1, 2])
def test_where_no_two_sounds_can_be_mixed_the_row_has_no_figures(
    silent_videos, tmp_path, run_path, capsys
):
    clips = [a_clip(number, "test") for number in range(2)]
    for number in range(silent_videos):
        clips[number] = replace(clips[number], waveform=np.zeros(60_000, np.int16))
    shards = write_clips(tmp_path / "shards", clips)
    arguments = ["evaluate", str(shards), "--checkpoint", str(run_path), "--pairs", "8"]
    assert main([*arguments, "--split", "all", "--device", "cpu", "--json"]) == 0
    rows = {row["sound"]: row for row in json.loads(capsys.readouterr().out)["sounds"]}
    assert list(rows) == ["matched", "mismatched", "mixed", "noise", "silence"]
    mixed = rows["mixed"]
    assert mixed["pairs"] == 0
    assert (mixed["yes"], mixed["probability"], mixed["auc"]) == (None, None, None)
    assert mixed["yes_ci95"] == [None, None]
    assert rows["noise"]["yes"] is not None


def test_a_mixture_holds_both_sounds_equally_loud_and_does_not_clip():
    rng = np.random.default_rng(0)
    own = rng.normal(0, 8000, 48_000).round().clip(-32768, 32767).astype(np.int16)
    added = np.resize([30, -30], 48_000).astype(np.int16)
    mixed = mix_equally_loud(own, added).astype(np.float64)
    assert np.abs(mixed).max() <= 32767
    parts = np.linalg.lstsq(np.stack([own, added], 1).astype(float), mixed, rcond=None)[0]
    assert parts[0] * own.std() == pytest.approx(parts[1] * added.std(), rel=0.01)
    quiet = mix_equally_loud((own // 16).astype(np.int16), added)
    assert quiet.std() == pytest.approx(2**0.5 * (own // 16).std(), rel=0.02)


def test_a_calibration_finds_the_temperature_and_the_threshold_that_scores_were_drawn_with():
    rng = np.random.default_rng(0)
    count = 400
    # Of two normal distributions of one deviation the log-odds are linear in the score.
    scores = rng.normal(-1, 1, (count, count))
    np.fill_diagonal(scores, rng.normal(2, 1, count))
    calibration = fit_calibration(ScoreMatrix(3 * scores + 6, np.arange(count)))
    assert calibration.temperature == pytest.approx(3 / 3, rel=0.15)
    assert calibration.threshold == pytest.approx(3 * 0.5 + 6, abs=0.4)
    assert calibration.videos == count
    with pytest.raises(ConfigError, match="nothing to calibrate"):
        fit_calibration(ScoreMatrix(-scores, np.arange(count)))
    separable = fit_calibration(ScoreMatrix(np.eye(9), np.arange(9)))
    assert 0 < separable.threshold < 1


def test_a_calibration_is_used_and_stored(network, level_clips, run_path, held_out, tmp_path):
    calibration = calibrate(network, level_clips)
    assert network.calibration is None
    before = all_pairs(network, level_clips).ranking
    network.calibration = calibration
    try:
        after = all_pairs(network, level_clips).ranking
        assert calibrate(network, level_clips) == calibration, "an older one does not count"
    finally:
        network.calibration = None
    assert after.auc.value == before.auc.value
    assert after.accuracy.value > before.accuracy.value

    model = load(run_path)
    model.calibration = Calibration(temperature=2.0, threshold=-1.0, videos=7)
    folder = save_pretrained(model, tmp_path / "published")
    assert load(folder).calibration == model.calibration
    assert json.loads((folder / "config.json").read_text())["calibration"]["videos"] == 7
    moment = localize(held_out[0], load(folder))[0]
    raw = localize(held_out[0], load(run_path))[0].probability
    expected = (np.log(raw / (1 - raw)) + 1) / 2
    assert moment.probability == pytest.approx(1 / (1 + np.exp(-expected)), abs=1e-4)

    checkpoint = save_calibration(open_network(folder).checkpoint, None)
    assert checkpoint.calibration is None
    assert load(folder).calibration is None
    with pytest.raises(ConfigError, match="temperature 0 must be above 0"):
        Calibration(temperature=0.0, threshold=0.0, videos=1)


def test_a_terminal_shows_each_figure_of_the_verb_once_with_its_chance(
    run_path, shards_path, capsys
):
    output = run_evaluate((str(shards_path),), checkpoint=str(run_path), pairs=24, per_clip=1)
    emit(output.terminal_values, as_json=False)
    printed = capsys.readouterr().out
    for name in ("one of two", "auc", "accuracy"):
        assert re.search(rf"^ ?{name} \(chance 0.5\) +\d", printed, re.MULTILINE)
    assert "nan" not in printed
    names = [re.split(r"  +", line.strip())[0] for line in printed.splitlines()]
    assert names.count("videos") == 1
    assert not {"n videos", "ci95"} & set(names)


def test_the_verb_prints_figures_with_intervals_for_any_split(
    run_path, shards_path, capsys, caplog, tmp_path
):
    def evaluate(*arguments):
        assert main(["evaluate", str(shards_path), "--pairs", "24", *arguments]) == 0
        return json.loads(capsys.readouterr().out)

    values = evaluate("--checkpoint", str(run_path))
    assert values["videos"] == values["n_videos"] == 12
    for name in ("one_of_two", "auc", "accuracy"):
        low, high = values[f"{name}_ci95"]
        assert low <= values[name] <= high
    assert values["accuracy_ci95"] == values["ci95"]
    values = evaluate("--checkpoint", str(run_path), "--split", "all", "--per-clip", "1")
    assert (values["videos"], values["moments"]) == (48, 48)
    assert "36 videos have the same ids as videos that" in caplog.text
    assert main(["evaluate", str(shards_path), "--checkpoint", str(run_path), "--split", "x"]) == 1
    assert "there is no split 'x'" in capsys.readouterr().err

    alone = save_pretrained(open_network(run_path).l3net, tmp_path / "alone")
    values = evaluate("--checkpoint", str(alone), "--per-clip", "1")
    assert values["videos"] == 48
    assert f"nobody knows which videos {alone} held out, so all of" in caplog.text


def test_all_videos_are_new_to_a_network_of_the_package(run_path, shards):
    trained = open_network(run_path)
    shipped = Run("start", trained.network, trained.checkpoint)
    assert len(clips_of_split(shipped, shards, None)) == len(shards)
    assert len(clips_to_evaluate(shipped, shards)) == len(shards)
    assert len(clips_of_split(trained, shards, None)) < len(shards)
