"""An oracle has an accuracy of 100 %, one side alone is at chance, and figures are reproducible."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from looklisten.data.clips import Box
from looklisten.errors import ConfigError, SourceError
from looklisten.evaluation.all_pairs import all_pairs
from looklisten.evaluation.correspondence import evaluate
from looklisten.evaluation.linear_probe.shards import probe
from looklisten.evaluation.localization.baselines import MapPredictor
from looklisten.evaluation.localization.evaluate import (
    annotated_moments,
    boxes_at,
    pointing,
    pointing_of,
    pointing_of_each,
)
from looklisten.evaluation.shared_files import SharedFiles, shared_files_of
from looklisten.evaluation.statistics import Z95, confidence_interval
from looklisten.evaluation.units.clustering import cluster
from looklisten.evaluation.untrained import untrained_network
from looklisten.inference.moments import embed_clips, embed_clips_with_each, moments
from looklisten.model.backbones.backbone import TowerOutput
from looklisten.model.fusions import Fusion
from looklisten.model.l3net import L3Net
from looklisten.model.networks import load, open_network


@pytest.fixture(scope="module")
def model(run_path):
    return load(run_path)


class Rule(Fusion):
    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def forward(self, vision, audio):
        yes = self.answer(vision[:, 0], audio[:, 0])
        return torch.stack([-yes, yes], 1)


class RuleNetwork(L3Net):
    """A network that decides by a rule from the brightness of the frame and the loudness of the
    sound.
    """

    def __init__(self, model, answer):
        super().__init__(model.config)
        self.fusion = Rule(answer)

    def look(self, frames):
        vector = frames.float().mean((1, 2, 3))[:, None]
        return TowerOutput(vector[..., None, None], vector)

    def listen(self, waveforms):
        vector = waveforms.float().abs().mean(1)[:, None]
        return TowerOutput(vector[..., None, None], vector)


def test_an_oracle_is_always_right_and_its_opposite_never(model, held_out):
    class RowNumbers(RuleNetwork):
        """Gives the number of the row for both sides, so that a rule knows the true pairs."""

        def look(self, frames):
            self.rows = torch.arange(len(frames)).float()[:, None]
            return TowerOutput(self.rows[..., None, None], self.rows)

        def listen(self, waveforms):
            return TowerOutput(self.rows[..., None, None], self.rows)

    oracle = RowNumbers(model, lambda v, a: (v == a).float() * 2 - 1)
    result = evaluate(oracle, held_out, pairs=200)
    assert (result.accuracy, result.positives_right, result.negatives_right) == (1, 1, 1)
    assert result.n_pairs >= 200
    liar = RowNumbers(model, lambda v, a: 1 - (v == a).float() * 2)
    assert evaluate(liar, held_out, pairs=200).accuracy == 0


def test_one_side_alone_is_at_chance(model, held_out):
    for answer in (lambda v, a: v - v.mean(), lambda v, a: a - a.mean()):
        result = evaluate(RuleNetwork(model, answer), held_out, pairs=600)
        assert result.accuracy == pytest.approx(0.5, abs=1e-9)


def test_evaluation_is_reproducible_and_does_not_change_the_model(model, held_out):
    model.train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    result = evaluate(model, held_out, pairs=200, seed=3)
    assert result == evaluate(model, held_out, pairs=200, seed=3)
    assert result.ci95[0] < result.accuracy < result.ci95[1]
    assert result.n_videos == 12
    assert model.training
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    model.eval()


def test_few_frames_are_not_drawn_again_and_again(model, held_out):
    frames = sum(len(held_out.frame_seconds(clip)) for clip in range(len(held_out)))
    result = evaluate(model, held_out)
    # Whole batches of 12 videos, with two pairs for each.
    assert 2 * frames <= result.n_pairs < 2 * frames + 24
    assert evaluate(model, held_out, pairs=4 * frames).n_pairs >= 4 * frames


def test_one_video_makes_no_negative(model, shards):
    first_clip = shards.select(np.arange(len(shards)) == 0)
    with pytest.raises(ConfigError, match="at least 2 held-out videos"):
        evaluate(model, first_clip)


def test_interval_by_hand():
    # Wilson's for 50 of 100: 0.5 ± 1.96 sqrt(0.25 / 100 + 1.96² / 40,000) / (1 + 1.96² / 100).
    assert confidence_interval(np.array([0.0, 1.0] * 50)) == pytest.approx(
        (0.5 - 0.0962, 0.5 + 0.0962), abs=1e-4
    )
    assert confidence_interval(np.ones(5)) == pytest.approx((5 / (5 + Z95**2), 1))
    assert confidence_interval(np.zeros(5)) == pytest.approx((0, Z95**2 / (5 + Z95**2)))
    assert confidence_interval([]) == confidence_interval([1, 1, 1], [["a", "a", "a"]]) == (0, 1), (
        "nothing is known of other videos"
    )


@settings(deadline=None)
@given(
    answers=st.lists(
        st.tuples(st.booleans(), st.integers(0, 5), st.integers(0, 3), st.floats(0.1, 3)),
        min_size=1,
        max_size=60,
    ),
    kinds=st.integers(0, 2),
)
def test_an_interval_contains_the_value_and_has_a_width(answers, kinds):
    right, pictures, sounds, weights = map(np.array, zip(*answers, strict=True))
    low, high = confidence_interval(right, [pictures, sounds][:kinds], weights)
    assert 0 <= low <= np.average(right, weights=weights) + 1e-9
    assert np.average(right, weights=weights) - 1e-9 <= high <= 1
    assert high - low > 0.01


def test_answers_of_one_group_count_less_and_answers_of_two_kinds_of_groups_less_still():
    rng = np.random.default_rng(0)
    pictures, sounds = rng.integers(0, 20, 600), rng.integers(0, 15, 600)
    easy = rng.uniform(-0.3, 0.3, 20)[pictures] + rng.uniform(-0.3, 0.3, 15)[sounds]
    right = rng.random(600) < 0.6 + easy
    widths = [
        np.diff(confidence_interval(right, groups))[0]
        for groups in ([], [pictures], [pictures, sounds])
    ]
    assert widths[0] < widths[1] < widths[2]
    alone = np.arange(600)
    assert np.diff(confidence_interval(right, [alone]))[0] == pytest.approx(widths[0], rel=0.01), (
        "groups of one are no groups"
    )
    assert confidence_interval(right, [alone, alone]) == pytest.approx(
        confidence_interval(right, [alone])
    )


@pytest.mark.parametrize(
    ("share", "pictures", "sounds"), [(0.6, 70, 59), (0.9, 40, 1000), (0.95, 30, 25)]
)
def test_intervals_contain_the_true_share_about_as_often_as_they_should(share, pictures, sounds):
    """Videos of few files, some images and some sounds harder than others."""
    rng = np.random.default_rng(1)
    held = {"files": 0, "answers": 0}
    times = 300
    for _ in range(times):
        of_picture, of_sound = rng.integers(0, pictures, 800), rng.integers(0, sounds, 800)
        hard = (
            0.5
            * (1 - share)
            * (rng.choice([-1, 1], pictures)[of_picture] + rng.choice([-1, 1], sounds)[of_sound])
        )
        right = rng.random(800) < share + hard
        for name, groups in (("files", [of_picture, of_sound]), ("answers", [])):
            low, high = confidence_interval(right, groups)
            held[name] += low <= share <= high
    assert held["files"] / times > 0.91
    assert held["files"] >= held["answers"]


def test_evaluation_measures_negatives_of_other_classes_too(model, held_out):
    result = evaluate(model, held_out, pairs=200, seed=3)
    other_class = evaluate(model, held_out, pairs=200, seed=3, negatives="other-class")
    assert (result.other_class, result.other_class_ci95) == (
        other_class.accuracy,
        other_class.ci95,
    )
    assert result.interval_over == "videos"


def test_intervals_of_composed_videos_are_over_their_files(model, shards, held_out, tmp_path):
    videos = sorted(set(shards.video_ids.tolist()))
    table = tmp_path / "labels.csv"
    rows = [f"{video},{number % 3}.jpg,{number % 2}.wav" for number, video in enumerate(videos)]
    table.write_text("\n".join(["path,image,sound", *rows]) + "\n")
    over_videos = evaluate(model, held_out, pairs=200)
    over_files = evaluate(model, held_out, pairs=200, files=table)
    assert over_files.interval_over == "image files and sound files"
    assert over_files.accuracy == over_videos.accuracy
    assert np.diff(over_files.ci95) > np.diff(over_videos.ci95)
    ranking = all_pairs(model, held_out, per_clip=1).ranking
    ranking_over_files = all_pairs(model, held_out, per_clip=1, files=table).ranking
    assert ranking_over_files.one_of_two.value == ranking.one_of_two.value
    for name in ("one_of_two", "auc", "accuracy"):
        wide = np.diff(getattr(ranking_over_files, name).ci95())
        assert wide > np.diff(getattr(ranking, name).ci95())
    files = shared_files_of(shards, table)
    assert files.image_groups(videos[:4]).tolist() == ["0.jpg", "1.jpg", "2.jpg", "0.jpg"]
    assert files.sound_groups(videos[:3]).tolist() == ["0.wav", "1.wav", "0.wav"]
    assert SharedFiles({}, {}).sound_groups(["a"]).tolist() == ["a"]
    first, second = videos[:2]
    # The frames of a mosaic of two videos, and the sound of the second.
    assert files.members([[first, second]], [[second]]).tolist() == [
        ["image 0.jpg", "image 1.jpg", "sound 1.wav"]
    ]
    assert SharedFiles({}, {}).members([["a", "b"]], [["b"]]).tolist() == [["a", "b"]]
    (names,) = SharedFiles({}, {}).groups(["a", "b"], ["a", "b"])
    assert names.tolist() == ["a", "b"]
    frames, sounds = SharedFiles({}, {}).groups(["a", "b"], ["b", "a"])
    assert (frames.tolist(), sounds.tolist()) == (["a", "b"], ["b", "a"])
    with pytest.raises(
        SourceError, match="names none of these videos with a path, an image and a sound"
    ):
        table.write_text("path,label\na.mp4,bell\n")
        shared_files_of(shards, table)
    with pytest.raises(SourceError, match=r"nowhere\.csv cannot be read"):
        shared_files_of(shards, tmp_path / "nowhere.csv")


def test_embedding_is_the_same_alone_or_in_a_batch(model, shards):
    clips = [shards[i] for i in range(9)]
    together = embed_clips(model, clips, per_clip=3)
    assert together.vision.shape == together.audio.shape == (27, 16)
    assert together.clips.tolist() == sorted(list(range(9)) * 3)
    alone = [embed_clips(model, [clip], per_clip=3) for clip in clips]
    assert np.allclose(together.vision, np.concatenate([a.vision for a in alone]), atol=1e-5)
    assert np.allclose(together.audio, np.concatenate([a.audio for a in alone]), atol=1e-5)
    again = embed_clips(model, clips, per_clip=3)
    assert np.array_equal(together.vision, again.vision)


def test_networks_and_methods_that_share_a_pass_give_what_they_give_alone(model, shards, held_out):
    clips = [shards[i] for i in range(6)]
    other = untrained_network(model.config, seed=5)
    both = embed_clips_with_each([model, other], clips, per_clip=2)
    for network, vectors in zip((model, other), both, strict=True):
        alone = embed_clips(network, clips, per_clip=2)
        assert np.array_equal(vectors.vision, alone.vision)
        assert np.array_equal(vectors.audio, alone.audio)
    assert not np.array_equal(both[0].audio, both[1].audio)
    methods = ("correspondence", "unit")
    together = pointing_of_each(model, held_out, methods)
    assert [result.method for result in together] == list(methods)
    assert together == [pointing(model, held_out, method) for method in methods]


def test_shards_without_boxes_have_no_pointing_accuracy(model, world, tmp_path):
    from looklisten.data.prepare import prepare
    from looklisten.data.shards import Shards

    prepare([world / f"{i:06d}.mp4" for i in range(4)], tmp_path, workers=1)
    with pytest.raises(ConfigError, match="needs held-out clips with boxes"):
        pointing(model, Shards(tmp_path).select(np.ones(4, bool)))


def test_pointing_of_a_map_of_the_truth_and_of_the_center(model, held_out):
    """A map with its peak at a known position has the accuracy of a count by hand."""

    def predict(batch):
        maps = []
        for question, _ in batch:
            box = question.target[0]
            values = np.zeros((40, 40), np.float32)
            values[int((box.y0 + box.y1) * 20), int((box.x0 + box.x1) * 20)] = 1
            maps.append((values, 1.0))
        return maps

    annotated = annotated_moments(model, held_out, per_clip=2)
    network = pointing(model, held_out)
    (truth,) = pointing_of([MapPredictor("truth", predict)], annotated)
    assert truth.pointing == 1
    assert truth.n == network.n == 24
    centers = []
    for clip in held_out:
        for moment in moments(clip, model.config, 2):
            boxes = boxes_at(clip, moment.frame_seconds)
            centers.append(
                any(
                    box.x0 <= 0.5 <= box.x1 and box.y0 <= 0.5 <= box.y1
                    for box in boxes
                    if box.sounding
                )
            )
    assert truth.center == network.center == pytest.approx(np.mean(centers))


def test_boxes_at_takes_the_nearest_in_time(shards):
    boxes = tuple(Box(seconds, 0, 0, 1, 1, "a", True) for seconds in (0.0, 0.2, 0.4))
    clip = replace(shards[0], boxes=boxes)
    assert [box.clip_seconds for box in boxes_at(clip, 0.29)] == [0.2]
    assert boxes_at(clip, 1.0) == []


def test_a_run_is_evaluated_on_its_own_held_out_videos(run_path, shards_path, model, held_out):
    run = open_network(run_path)
    result = evaluate(run, shards_path, pairs=40)
    assert result == evaluate(run, str(shards_path), pairs=40)
    assert result == evaluate(model, held_out, pairs=40)
    assert pointing(run, shards_path) == pointing(model, held_out)
    assert probe(run, shards_path, per_clip=1) == probe(
        model, held_out.folder, per_clip=1, held_out_fraction=0.1
    )


def test_a_network_without_its_run_needs_a_selection(model, shards):
    sentence = r"does not know its held-out videos; give ll\.open"
    with pytest.raises(ConfigError, match=sentence):
        evaluate(model, shards)
    with pytest.raises(ConfigError, match=sentence):
        probe(model, shards)
    with pytest.raises(ConfigError, match=sentence):
        cluster(model, shards)


def test_evaluation_on_videos_that_were_trained_on_warns(run_path, shards, held_out, caplog):
    run = open_network(run_path)
    evaluate(run, held_out, pairs=40)
    assert "trained on" not in caplog.text
    trained_on = shards.select(~shards.held_out_mask(0.1))
    evaluate(run, trained_on, pairs=40)
    assert "36 videos have the same ids as videos that" in caplog.text
    assert "the accuracy on them is too high" in caplog.text
