"""Localization: metrics by hand, a perfect map, a map that does not depend on the sound, and the
files of VGG-SS and Flickr-SoundNet.
"""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from localization_set_files import VGGSS_CLIPS, make_frames_and_sounds, make_vggss_annotations
from looklisten.app.cli import main
from looklisten.config import ModelConfig
from looklisten.data.clips import Box, Clip
from looklisten.errors import ConfigError, SourceError
from looklisten.evaluation.localization.baselines import MapPredictor, fixed_rules
from looklisten.evaluation.localization.evaluate import (
    annotated_moments,
    compare_predictors,
    localization,
    localization_table,
    pointing,
)
from looklisten.evaluation.localization.metrics import (
    above_median_mask,
    ciou,
    detection_scores,
    point_in_boxes,
    resize_map,
    success_auc,
    truth_map,
)
from looklisten.evaluation.localization.questions import AnnotatedMoment, questions
from looklisten.evaluation.localization.table import MapAnswer, table_row
from looklisten.inference.moments import Moment
from looklisten.model.l3net import L3Net

CORNER = Box(0.0, 0.0, 0.0, 0.5, 0.5, "bell", True)
LEFT = Box(0.0, 0.0, 0.0, 0.5, 1.0, "bell", True)
RIGHT = Box(0.0, 0.75, 0.25, 1.0, 0.75, "drum", False)


def test_a_point_is_in_a_box_or_in_those_of_enough_annotators():
    assert point_in_boxes([CORNER], (0.5, 0.25))
    assert not point_in_boxes([CORNER], (0.51, 0.25))
    assert point_in_boxes([CORNER, LEFT], (0.25, 0.75))
    assert not point_in_boxes([CORNER, LEFT], (0.25, 0.75), min_annotators=2)
    assert point_in_boxes([CORNER, LEFT], (0.25, 0.25), min_annotators=2)
    assert point_in_boxes([CORNER], (0.25, 0.25), min_annotators=2)  # there is no second box
    assert not point_in_boxes([CORNER], None)
    assert not point_in_boxes([], (0.5, 0.5))


def test_truth_is_a_union_or_a_consensus():
    union, consensus = truth_map([CORNER, LEFT]), truth_map([CORNER, LEFT], min_annotators=2)
    assert (union.sum(), consensus.sum()) == (224 * 112, 112 * 112 + 112 * 112 / 2)
    assert (consensus[0, 0], consensus[223, 0], consensus[0, 223]) == (1, 0.5, 0)
    assert truth_map([CORNER] * 3, min_annotators=2).max() == 1
    assert (
        truth_map([replace(CORNER, x0=-2.9e16, x1=0.999)]).sum() == 223 * 112
    )  # rounded down, cut off


def test_ciou_by_hand():
    """A quarter of the picture against its left half, whose lower half counts one half."""
    marked = truth_map([CORNER]) > 0
    assert ciou(marked, truth_map([CORNER])) == 1
    assert ciou(marked, truth_map([LEFT])) == pytest.approx(0.5)
    assert ciou(marked, truth_map([CORNER, LEFT], min_annotators=2)) == pytest.approx(1 / 1.5)
    assert ciou(np.ones_like(marked), truth_map([CORNER])) == pytest.approx(0.25)
    assert ciou(~marked, truth_map([CORNER])) == 0
    assert ciou(np.zeros_like(marked), truth_map([])) == 0


def test_success_auc_by_hand():
    assert success_auc(np.array([1.0])) == 1
    assert success_auc(np.array([0.0])) == pytest.approx(0.5 / 20)
    assert success_auc(np.array([0.52, 0.2])) == pytest.approx(((10.5 + 4.5) / 2) / 20)


def test_the_mask_above_the_median_is_half_of_the_image_at_any_scale():
    ramp = np.tile(np.arange(224, dtype=np.float32), (224, 1))
    marked = above_median_mask(ramp)
    assert marked[:, 113:].all()
    assert not marked[:, :113].any()
    assert (above_median_mask(ramp * 7 + 3) == marked).all()
    assert above_median_mask(np.ones((3, 3), np.float32)).all()
    few = np.zeros((224, 224), np.float32)
    few[3, 5] = 1
    assert above_median_mask(few).sum() == 1  # a median of 0 does not mark all that is 0


@settings(max_examples=25, deadline=None)
@given(arrays.arrays(np.float32, (5, 7), elements=st.integers(0, 8).map(float)))
def test_ciou_agrees_with_the_published_evaluator(values):
    """Its order of steps: scaled to 0..1, the middle of the sorted values, above it 1, what is then
    below 1 is 0.
    """
    truth, heat = truth_map([LEFT, RIGHT]), resize_map(values).astype(np.float64)
    low, high = heat.min(), heat.max()
    heat = (heat - low) / (high - low) if high > low else heat + 1
    bar = sorted(heat.ravel())[224 * 224 // 2]
    heat[heat > bar] = 1
    heat[heat < 1] = 0
    expected = (heat * truth).sum() / (truth.sum() + (heat * (truth == 0)).sum())
    assert ciou(above_median_mask(values), truth) == pytest.approx(expected, abs=1e-3)


def test_average_precision_and_f1_by_hand():
    """Four sounding moments, one found at a wrong place, and two silent ones, one of them surer
    than two that sound.
    """
    confidence = np.array([0.9, 0.8, 0.6, 0.3, 0.7, 0.1])
    sounds = np.array([True, True, True, True, False, False])
    right = np.array([True, False, True, True, False, False])
    # thresholds 0.9 … 0.1: right finds 1 1 1 2 3 3, finds 1 2 3 4 5 6, misses 3 2 2 1 0 0
    recall = [1 / 4, 1 / 3, 1 / 3, 2 / 3, 1, 1]
    precision, f1 = detection_scores(confidence, sounds, right)
    assert precision == pytest.approx(
        1 * recall[0]
        + 0.6 * (recall[1] - recall[0])
        + 0.6 * (recall[3] - recall[2])
        + 0.6 * (1 - recall[3])
    )
    assert f1 == pytest.approx(2 * 0.6 / 1.6)


def test_a_constant_confidence_has_the_precision_of_chance():
    sounds = np.repeat([True, False], [2, 4])
    assert detection_scores(np.ones(6), sounds, sounds) == (
        pytest.approx(1 / 3),
        pytest.approx(0.5),
    )
    assert detection_scores(sounds.astype(float), sounds, sounds) == (1, 1)


# --- questions and the table


def small_network(fusion):
    """A network as it begins."""
    torch.manual_seed(1)
    return L3Net(
        ModelConfig(
            widths=(4, 8), front_end="compact", resize_pixels=64, crop_pixels=48, fusion=fusion
        )
    ).eval()


@pytest.fixture(scope="module")
def model():
    return small_network("distance")


@pytest.fixture(scope="module")
def few_clips(held_out):
    """Six held-out clips."""
    return held_out.select(np.arange(len(held_out)) < 6)


def moment_of(number):
    """A moment of 64 x 64 pixels whose sound tells its number."""
    frame = torch.full((64, 64, 3), 40 + number, dtype=torch.uint8)
    wave = np.full(48_000, 1000 + number, np.int16)
    clip = Clip(f"video {number}", f"video {number}", "", 0.0, (0.5,), (b"",), wave, 48_000)
    return Moment(clip, 0.0, 0.5, frame, frame, wave)


def world_of(count=12, labels=("bell", "drum", "horn")):
    """Moments in which one thing sounds on the left and another is silent on the right."""
    items = []
    for number in range(count):
        sounding, mute = labels[number % len(labels)], labels[(number + 1) % len(labels)]
        boxes = replace(CORNER, label=sounding), replace(RIGHT, label=mute)
        items.append(
            AnnotatedMoment(
                f"video {number}", boxes[:1], boxes[1:], lambda number=number: moment_of(number)
            )
        )
    return items


def test_questions_have_sounds_of_other_videos_and_of_the_right_labels():
    items = world_of()
    asked = list(questions(items, seed=1))
    assert [q.kind for q in asked[:4]] == ["matched", "silence", "mismatched", "swapped"]
    assert len(asked) == 4 * len(items)
    for one in asked:
        moment = one.moment(one.of_frame.load(), (one.of_sound or one.of_frame).load())
        assert moment.frame[0, 0, 0] == one.of_frame.load().frame[0, 0, 0]
        assert (moment.waveform == (one.of_sound.load().waveform if one.of_sound else 0)).all()
        if one.kind == "mismatched":
            assert not one.of_sound.sounding_labels & (
                one.of_frame.sounding_labels | one.of_frame.silent_labels
            )
        if one.kind == "swapped":
            assert one.of_sound.sounding_labels == one.of_frame.silent_labels
            assert one.target == one.of_frame.silent
        if one.kind in ("mismatched", "swapped"):
            assert one.of_sound.video_id != one.of_frame.video_id
    assert [q.of_sound for q in asked] == [q.of_sound for q in questions(items, seed=1)]
    assert [q.of_sound for q in asked] != [q.of_sound for q in questions(items, seed=2)]


def test_no_swap_without_a_silent_object_of_another_label_and_a_sound_of_it():
    bell, drum = replace(CORNER, label="bell"), replace(RIGHT, label="drum")
    alone, pair, same = ((bell,), ()), ((bell,), (drum,)), ((bell,), (replace(drum, label="bell"),))
    for boxes in (alone, pair, same):
        items = [AnnotatedMoment(f"video {n}", *boxes, lambda: moment_of(0)) for n in range(3)]
        assert {q.kind for q in questions(items)} == {"matched", "silence"}
    unlabelled = [
        AnnotatedMoment(f"video {n // 5}", (replace(bell, label=""),), (), lambda: moment_of(0))
        for n in range(10)
    ]
    asked = list(questions(unlabelled))  # any other video, where nobody names things
    assert [q.kind for q in asked] == ["matched", "silence", "mismatched"] * 10
    assert all(q.of_sound.video_id != q.of_frame.video_id for q in asked if q.kind == "mismatched")


def row_with(predictor, moments):
    """The row of a predictor."""
    return compare_predictors([predictor], moments).row(predictor.name)


def test_a_perfect_map_scores_one_on_everything():
    knows = MapPredictor("oracle", lambda batch: [(truth_map(q.target), 1.0) for q, _ in batch])
    row = row_with(knows, world_of())
    assert (
        row.pointing,
        row.with_silent,
        row.ciou,
        row.auc,
        row.average_precision,
        row.max_f1,
        row.pointing_precision,
    ) == (1,) * 7
    assert row.followed == 1
    assert (row.on_silent, row.stayed, row.elsewhere, row.mismatched, row.silence) == (0,) * 5
    assert row.pointing_ci95[1] == row.followed_ci95[1] == 1
    assert 0.5 < row.pointing_ci95[0] < 1, "some videos, all right, do not prove that all are"


def test_a_map_that_does_not_depend_on_the_sound():
    """It points at the sounding object in every frame. Still it follows no sound, and its peak in
    silence is as high.
    """
    soundless = MapPredictor(
        "soundless", lambda batch: [(truth_map(q.of_frame.sounding), 1.0) for q, _ in batch]
    )
    row = row_with(soundless, world_of())
    assert (row.pointing, row.ciou, row.mismatched, row.silence) == (1, 1, 1, 1)
    assert (row.followed, row.stayed, row.elsewhere) == (0, 1, 0)
    assert row.average_precision == row.pointing_precision == pytest.approx(1 / 3)
    assert row.max_f1 == pytest.approx(1 / 2)


def test_a_position_in_both_boxes_counts_as_followed():
    over = [
        replace(one, silent=(replace(one.sounding[0], label=one.silent[0].label, sounding=False),))
        for one in world_of()
    ]
    soundless = MapPredictor(
        "soundless", lambda batch: [(truth_map(q.of_frame.sounding), 1.0) for q, _ in batch]
    )
    row = row_with(soundless, over)
    assert (row.followed, row.stayed, row.elsewhere) == (1, 0, 0)


def test_a_dark_map_points_nowhere():
    dark = MapPredictor("dark", lambda batch: [(np.zeros((8, 8), np.float32), 1.0) for _ in batch])
    row = row_with(dark, world_of())
    assert (row.pointing, row.average_precision, row.followed, row.elsewhere) == (0, 0, 0, 1)
    assert np.isnan(row.mismatched)


def test_a_weight_changes_peaks_and_no_positions():
    """A map that is half as sure of silence and a quarter as sure of what is not seen."""
    weights = {"matched": 0.8, "swapped": 0.8, "silence": 0.4, "mismatched": 0.2}
    unsure = MapPredictor(
        "unsure",
        lambda batch: [
            (truth_map(q.target or q.of_frame.sounding), weights[q.kind]) for q, _ in batch
        ],
    )
    row = row_with(unsure, world_of())
    assert (row.silence, row.mismatched) == (pytest.approx(0.5), pytest.approx(0.25))
    assert (row.pointing, row.average_precision, row.threshold) == (1, 1, pytest.approx(0.4))
    strict = row_with(replace(unsure, threshold=0.9), world_of())
    assert (strict.average_precision, strict.pointing_precision) == (0, 1)


def test_fixed_rules_by_hand():
    """A quarter of the picture sounds, an eighth is silent: the largest is the one that sounds."""
    items = world_of()
    center, largest, whole = fixed_rules(items)
    asked = [(question, moment_of(0)) for question in questions(items)]
    rows = {}
    for rule in (center, largest, whole):
        answers = []
        for (question, _), (values, weight) in zip(asked, rule.predict(asked), strict=True):
            answers.append(MapAnswer(question, values, weight))
        rows[rule.name] = table_row(rule.name, answers, 0.5, False)
    assert rows["largest object"].pointing == rows["largest object"].ciou == 1
    assert (rows["whole image"].pointing, rows["whole image"].ciou) == (0, 0)
    assert rows["whole image"].auc == pytest.approx(5.5 / 20)  # a cIoU of 1/4 everywhere
    assert rows["center"].pointing == 1  # the middle is the quarter's corner, which belongs to it
    assert MapAnswer(asked[0][0], *center.predict(asked[:1])[0]).point == (0.5, 0.5)
    assert {row.followed for row in rows.values()} == {0}
    assert [one.name for one in fixed_rules([replace(one, silent=()) for one in items])] == [
        "center",
        "whole image",
    ]


def test_the_table_of_a_network(model, few_clips):
    table = localization(model, few_clips, per_clip=1)
    names = [row.name for row in table.rows]
    assert names == [
        "unit",
        "correspondence",
        "similarity",
        "untrained, correspondence",
        "untrained, similarity",
        "center",
        "largest object",
        "whole image",
    ]
    assert (table.n, table.n_videos) == (6, 6)
    unit = table.row("unit")
    assert (unit.mismatched, unit.silence, unit.uses_sound) == (1, 1, False)
    assert table.row("correspondence").silence == table.row("similarity").silence == 0
    assert table.row("similarity").threshold == 0.5
    assert table.best_without_sound.pointing == max(
        row.pointing for row in table.rows if row.name not in ("correspondence", "similarity")
    )
    assert localization(model, few_clips, ["similarity"], per_clip=1).row(
        "similarity"
    ) == table.row("similarity")
    quick = pointing(model, few_clips, per_clip=1)
    row = table.row("correspondence")
    assert (quick.pointing, quick.ci95, quick.center) == (
        row.pointing,
        row.pointing_ci95,
        table.row("center").pointing,
    )
    assert np.isclose(quick.with_silent, row.with_silent, equal_nan=True)


def test_of_a_network_without_a_common_space_similarity_is_left_out_or_refused(few_clips):
    concat = small_network("concat")
    table = localization(concat, few_clips, per_clip=1)
    assert "similarity" not in [row.name for row in table.rows]
    assert any(
        note.startswith('similarity is left out: with fusion "concat"') for note in table.notes
    )
    with pytest.raises(ConfigError, match="concat"):
        localization(concat, few_clips, ["similarity"], per_clip=1)


def test_annotated_moments_load_the_frame_of_their_boxes(model, held_out):
    items = annotated_moments(model, held_out, per_clip=2)
    for one in items[:4]:
        moment = one.load()
        assert moment.clip.video_id == one.video_id
        at = {box.clip_seconds for box in (*one.sounding, *one.silent)}
        assert len(at) == 1
        assert abs(at.pop() - moment.frame_seconds) <= 0.2
    assert items[0].load().start_seconds < items[1].load().start_seconds


def test_unreadable_moments_are_failures_and_others_are_measured(model):
    items = world_of()

    def broken():
        raise SourceError("video 0 is damaged")

    table = localization_table(model, [replace(items[0], load=broken), *items[1:]], ["unit"])
    assert table.failures == {"video 0": "video 0 is damaged"}
    assert table.n == 11
    with pytest.raises(
        SourceError, match="none of 12 moments can be read; the first: video 0 is damaged"
    ):
        localization_table(model, [replace(one, load=broken) for one in items])


def test_the_verb_measures_public_sets(tmp_path, run_path, capsys):
    media, file = (
        make_frames_and_sounds(tmp_path / "media", VGGSS_CLIPS),
        make_vggss_annotations(tmp_path / "vggss.json"),
    )
    command = [
        "evaluate",
        "vggss",
        str(media),
        "--annotations",
        str(file),
        "--checkpoint",
        str(run_path),
        "--device",
        "cpu",
    ]
    assert main([*command, "--method", "correspondence", "unit"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in result["rows"]] == [
        "correspondence",
        "unit",
        "untrained, correspondence",
        "center",
        "whole image",
    ]
    assert (result["moments"], result["swaps"], result["failed"]) == (2, 0, 0)
    whole = result["rows"][-1]
    assert (whole["ciou"], whole["auc"]) == (
        0,
        pytest.approx(5.5 / 20),
    )  # the box is a quarter of the picture
    assert "a cIoU of 0.000 here and an AUC of 0.275" in result["notes"][0]
    assert result["other_sounds"][-1] == {
        "name": "whole image",
        "followed": None,
        "followed_ci95": [None, None],
        "stayed": None,
        "elsewhere": None,
        "mismatched": 1,
        "silence": 1,
        "threshold": 0.5,
    }
    (media / "audio" / f"{VGGSS_CLIPS[1]}.wav").write_text("no sound")
    assert main(command) == 3
    result = json.loads(capsys.readouterr().out)
    assert (result["moments"], result["failed"]) == (1, 1)
    (media / "audio" / f"{VGGSS_CLIPS[1]}.wav").unlink()
    assert main(command) == 1
    assert main([*command, "--partial"]) == 0
    assert json.loads(capsys.readouterr().out)["moments"] == 1
    assert main(["evaluate", "vggss", str(media), "--checkpoint", str(run_path)]) == 2
    assert "evaluate vggss needs --annotations: the file vggss.json" in " ".join(
        capsys.readouterr().err.split()
    )
    assert main(["evaluate", "coco", str(media), "--checkpoint", str(run_path)]) == 2
    assert "evaluate takes vggss or flickr-soundnet" in " ".join(capsys.readouterr().err.split())


def test_the_verb_measures_shards(shards_path, run_path, capsys):
    command = [
        "evaluate",
        str(shards_path),
        "--task",
        "localization",
        "--checkpoint",
        str(run_path),
        "--per-clip",
        "1",
        "--device",
        "cpu",
    ]
    assert main([*command, "--method", "correspondence"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["moments"] == 12
    assert result["best_without_sound"]["name"] in {row["name"] for row in result["rows"]} - {
        "correspondence"
    }
    assert all(len(row) == 10 for row in result["rows"])
