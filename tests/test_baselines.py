"""Networks to compare with: trained on labels, begun with others' towers, frozen; and the table of
them all.
"""

import json
import shutil
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from simplejpeg import encode_jpeg

from conftest import small_config
from looklisten.config import Config, recipes
from looklisten.data.shards import Shards
from looklisten.errors import CheckpointError, ConfigError
from looklisten.evaluation.correspondence import (
    PairScores,
    evaluate,
    pair_with_other_classes,
    score_pairs,
)
from looklisten.evaluation.supervised import (
    best_threshold,
    class_accuracy,
    direct_combination,
    scorer_above,
    validation_clips,
    validation_threshold,
)
from looklisten.model.backbones.backbone import TowerOutput
from looklisten.model.checkpoint import open_checkpoint, saved_steps
from looklisten.model.fusions import Fusion
from looklisten.model.l3net import L3Net
from looklisten.model.networks import load, open_network
from looklisten.model.objectives.labels import LabelsObjective
from looklisten.training import baselines as table
from looklisten.training import loop
from looklisten.training.baselines import METHODS
from looklisten.training.batches import select_labeled, training_stream
from looklisten.training.learner import Learner
from looklisten.training.metrics_log import read_metrics
from noise_shards import a_clip, write_clips, write_set

SUPERVISED = small_config(
    objective="labels",
    validation_fraction=0.2,
    steps=4,
    checkpoint_every=2,
    schedule="constant",
    probe_every=0,
)


def train(*args, **kwargs):
    """Measures little on held-out videos, so that the tests are quick."""
    return loop.train(*args, evaluated_pairs=24, **kwargs)


def baselines(*args, **kwargs):
    return table.baselines(*args, evaluated_pairs=24, **kwargs)


@pytest.fixture(scope="module")
def labels_run(shards_path, tmp_path_factory):
    """A run that was trained on labels."""
    out = tmp_path_factory.mktemp("labels") / "run"
    train(shards_path, SUPERVISED, out)
    return out


@pytest.fixture(scope="module")
def one_label(tmp_path_factory):
    """Shards whose clips are all of one class."""
    clips = [
        a_clip(number, "train" if number < 8 else "test", label="drum") for number in range(12)
    ]
    return Shards(write_clips(tmp_path_factory.mktemp("label") / "set", clips))


def tensors(run):
    """The network and the optimizer's tensors with the heads, of a run's newest checkpoint."""
    newest = saved_steps(run / "checkpoints")[-1]
    return load_file(newest / "model.safetensors") | load_file(newest / "optimizer.safetensors")


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def learner_and_batch(shards, config, **train_settings):
    allowed, config = select_labeled(
        shards, ~shards.held_out_mask(0.1), config.changed("train", **train_settings)
    )
    return Learner(config, "cpu"), training_stream(shards.select(allowed), config).batch(0)


def test_labels_are_memorized(shards):
    learner, batch = learner_and_batch(shards, SUPERVISED)
    first, *_, last = [learner.step([batch], step, 5e-3, augmented=False) for step in range(1, 31)]
    assert first.loss > 3
    assert last.loss < first.loss / 3
    assert last.accuracy > 0.9


def test_the_sides_are_trained_apart(shards):
    """The vision tower does not depend on the sounds, so one run trains two networks."""
    one, batch = learner_and_batch(shards, SUPERVISED)
    other, _ = learner_and_batch(shards, SUPERVISED)
    one.step([batch], 1, 1e-2)
    batch.waveforms.zero_()
    other.step([batch], 1, 1e-2)
    assert same(one.network.vision.state_dict(), other.network.vision.state_dict())
    assert not same(one.network.audio.state_dict(), other.network.audio.state_dict())


def test_a_supervised_run_records_its_classes_and_accuracies(labels_run, shards):
    run = labels_run
    saved = open_checkpoint(run)
    assert saved.config.train.classes == tuple(sorted(set(shards.names.tolist())))
    assert Config.load(run / "config.toml") == saved.config
    assert isinstance(saved.objective(), LabelsObjective)
    heads = {f"objective/{name}": value for name, value in saved.objective().state_dict().items()}
    assert same(
        heads,
        {name: value for name, value in tensors(run).items() if name.startswith("objective/")},
    ), "those that were trained"
    row = next(row for row in read_metrics(run) if "named_audio" in row)
    assert row["held_out_accuracy"] == pytest.approx((row["named_vision"] + row["named_audio"]) / 2)


def test_validation_videos_are_other_than_held_out_ones(shards):
    held_out = shards.held_out_mask(0.1)
    validation = shards.validation_mask(0.2, 0.1)
    assert 2 <= validation.sum() < 18
    assert not (validation & held_out).any()
    assert not shards.validation_mask(0.0, 0.1).any()


def test_neither_held_out_nor_validation_videos_are_trained_on(tmp_path):
    """Whatever they show and sound like, the weights are the same."""

    def shards_and_weights(name, changed=()):
        clips = []
        for number in range(20):
            split, label = ("train" if number < 16 else "test"), "ab"[number % 2]
            content = number + 100 * (f"v{number:02d}" in changed)
            clips.append(a_clip(number, split, label=label, content=content))
        path = write_clips(tmp_path / name, clips)
        train(path, SUPERVISED, tmp_path / f"{name}-run")
        return Shards(path), tensors(tmp_path / f"{name}-run")

    shards, weights = shards_and_weights("usual")
    unseen = shards.held_out_mask(0.1) | shards.validation_mask(0.2, 0.1)
    assert same(weights, shards_and_weights("unseen", shards.video_ids[unseen])[1])
    assert not same(weights, shards_and_weights("seen", shards.video_ids[~unseen][:1])[1])


def test_a_supervised_run_is_resumed_to_the_bit(labels_run, shards_path, tmp_path):
    shutil.copytree(labels_run, tmp_path / "run")
    shutil.rmtree(saved_steps(tmp_path / "run" / "checkpoints")[-1])
    assert train(shards_path, SUPERVISED, tmp_path / "run").resumed_from == 2
    assert same(tensors(tmp_path / "run"), tensors(labels_run))
    assert any(name.startswith("objective/audio") for name in tensors(labels_run))


def test_unlabeled_videos_are_refused(tmp_path):
    shards = Shards(write_set(tmp_path / "set", range(6), [6, 7]))
    with pytest.raises(
        ConfigError,
        match=r'the objective "labels" needs training clips of at least 2 labels; .* has 0',
    ):
        select_labeled(shards, ~shards.held_out_mask(0.1), SUPERVISED)


def test_frozen_towers_do_not_change_by_a_bit_and_the_rest_does(labels_run, shards_path, tmp_path):
    run = str(labels_run)
    config = small_config(
        steps=3, vision_from=run, audio_from=run, freeze="towers", probe_every=0, evaluate_every=1
    )
    train(shards_path, config, tmp_path / "frozen")
    theirs, ours = load(run), load(tmp_path / "frozen")
    assert same(theirs.vision.state_dict(), ours.vision.state_dict()), (
        "weights and batch-norm's statistics"
    )
    assert same(theirs.audio.state_dict(), ours.audio.state_dict())
    assert not same(theirs.fusion.state_dict(), ours.fusion.state_dict())
    assert all(
        name.startswith("fusion.")
        for name in load_file(
            saved_steps(tmp_path / "frozen/checkpoints")[-1] / "optimizer.safetensors"
        )
    )


def test_a_frozen_teacher_is_not_needed_when_the_run_is_resumed(labels_run, shards_path, tmp_path):
    shutil.copytree(labels_run, tmp_path / "teacher")
    settings = {
        "vision_from": str(tmp_path / "teacher"),
        "freeze": "vision",
        "probe_every": 0,
        "schedule": "constant",
    }
    train(shards_path, small_config(steps=4, checkpoint_every=2, **settings), tmp_path / "run")
    whole, begun = tensors(tmp_path / "run"), Learner(small_config(), "cpu").network.state_dict()
    taught = load(tmp_path / "teacher").state_dict()
    shutil.rmtree(tmp_path / "teacher")
    shutil.rmtree(saved_steps(tmp_path / "run" / "checkpoints")[-1])
    assert (
        train(
            shards_path, small_config(steps=4, checkpoint_every=2, **settings), tmp_path / "run"
        ).resumed_from
        == 2
    )
    assert same(tensors(tmp_path / "run"), whole)
    for name, value in load(tmp_path / "run").state_dict().items():
        if name.startswith("vision."):
            assert torch.equal(value, taught[name])
        elif name.endswith(("conv1.weight", "fc3.weight")):
            assert not torch.equal(value, begun[name])
            assert not torch.equal(value, taught[name])


def test_a_network_begins_with_the_towers_of_another_to_the_bit(labels_run):
    run = str(labels_run)
    learner = Learner(small_config(vision_from=run, audio_from=run), "cpu")
    fresh = Learner(small_config(), "cpu").network.fusion.state_dict()
    learner.initialize()
    theirs = load(run)
    assert same(learner.network.vision.state_dict(), theirs.vision.state_dict())
    assert same(learner.network.audio.state_dict(), theirs.audio.state_dict())
    assert same(learner.network.fusion.state_dict(), fresh)


def test_a_tower_of_another_build_is_refused(labels_run):
    other = small_config(audio_from=str(labels_run)).changed("model", front_end="paper")
    with pytest.raises(
        CheckpointError,
        match=r"the audio tower of .* cannot be taken over: "
        r"its model.front_end is compact, here it is paper",
    ):
        Learner(other, "cpu").initialize()
    with pytest.raises(CheckpointError, match="nowhere is not there"):
        Learner(small_config(vision_from="nowhere"), "cpu").initialize()


def test_a_threshold_by_hand():
    scores = PairScores(
        np.array([0.9, 0.8, 0.7], np.float32),
        np.array([0.95, 0.1, 0.2], np.float32),
        np.array(["a", "b", "c"]),
    )
    assert best_threshold(scores) == pytest.approx((0.45, 5 / 6))
    nothing = PairScores(np.zeros(3, np.float32), np.zeros(3, np.float32), scores.videos)
    assert best_threshold(nothing)[1] == 0.5


def test_the_threshold_is_chosen_on_validation_videos_alone(labels_run, shards):
    saved = open_network(labels_run)
    objective = saved.objective()

    def agreement(vision, audio):
        vision_classes, audio_classes = objective.class_scores(vision, audio)
        return (vision_classes * audio_classes).sum(-1)

    def best_on(mask):
        return best_threshold(score_pairs(saved.l3net, shards.select(mask), 40, scorer=agreement))

    validation = shards.validation_mask(0.2, 0.1)
    direct = direct_combination(saved, saved.l3net, shards, pairs=40)
    assert (direct.threshold, direct.validation_accuracy) == best_on(validation)
    assert direct.threshold != best_on(~validation)[0]
    assert direct.validation_accuracy >= 0.5
    again = evaluate(
        saved.l3net,
        shards.validation(saved),
        pairs=40,
        scorer=direct.scorer,
    )
    assert again.accuracy == direct.validation_accuracy, (
        "the threshold means what it was chosen for"
    )


def test_a_run_without_class_scores_or_validation_videos_is_refused(run_path, shards, tmp_path):
    other = open_network(run_path)
    with pytest.raises(
        ConfigError,
        match=r'has no class scores to combine; train one with train\.objective = "labels"',
    ):
        direct_combination(other, other.l3net, shards)
    clips = [a_clip(number, "train", label="ab"[number % 2]) for number in range(8)]
    path = write_clips(tmp_path / "set", [*clips, a_clip(8, "test", label="a")])
    without = SUPERVISED.changed("train", validation_fraction=0.0, steps=1)
    saved = open_network(train(path, without, tmp_path / "run").path)
    with pytest.raises(
        ConfigError,
        match=r"has no validation videos to choose a threshold on; "
        r"train it with train\.validation_fraction = 0\.1",
    ):
        direct_combination(saved, saved.l3net, Shards(path))


CLASSES = tuple("abcdefghijkl")
GRAY_STEP, LOUDNESS_STEP = 20, 2000


@pytest.fixture(scope="module")
def telling(tmp_path_factory):
    """Four videos of each class, whose gray frames and constant sounds tell the class."""
    clips = []
    for number in range(4 * len(CLASSES)):
        index = number % len(CLASSES)
        frame = encode_jpeg(np.full((64, 64, 3), GRAY_STEP * index, np.uint8))
        wave = np.full(60_000, LOUDNESS_STEP * index, np.int16)
        clip = a_clip(number, "train", label=CLASSES[index])
        clips.append(replace(clip, frames=(frame, frame), waveform=wave))
    shards = Shards(write_clips(tmp_path_factory.mktemp("telling") / "set", clips))
    return shards.select(np.ones(len(shards), bool))


class Agreement(Fusion):
    """Yes where both sides are of the same class."""

    def forward(self, vision, audio):
        yes = (vision * audio).sum(-1) - 0.5
        return torch.stack([-yes, yes], -1)


class KnowingNetwork(L3Net):
    """Its vectors are the class of a frame and of a sound of `telling`, one-hot."""

    def __init__(self):
        super().__init__(SUPERVISED.model)
        self.fusion = Agreement()

    def look(self, frames):
        return class_output(frames.float().mean((1, 2, 3)) / GRAY_STEP)

    def listen(self, waveforms):
        return class_output(waveforms.float().mean(1) / LOUDNESS_STEP)


def class_output(numbers):
    vectors = torch.eye(len(CLASSES))[numbers.round().long()]
    return TowerOutput(vectors[..., None, None], vectors)


def test_who_knows_the_class_is_right_about_other_classes_and_wrong_about_the_same(telling):
    found = evaluate(KnowingNetwork(), telling, 400, negatives="other-class")
    assert (found.accuracy, found.positives_right, found.negatives_right) == (1, 1, 1)
    found = evaluate(KnowingNetwork(), telling, 400)
    assert found.positives_right == 1
    assert 0.8 < found.negatives_right < 1, "about one in twelve negatives is of the same class"


def test_one_class_has_no_other(labels_run, one_label):
    with pytest.raises(
        ConfigError, match="negatives of other classes need held-out clips of at least 2 labels"
    ):
        evaluate(
            load(labels_run),
            one_label.select(one_label.held_out_mask(0.1)),
            24,
            negatives="other-class",
        )


def test_class_accuracy_of_heads_that_know(telling):
    """Heads that read the class off the vectors name every frame and every sound; of one side
    turned wrong, none.
    """
    heads = LabelsObjective(
        SUPERVISED.changed("train", classes=CLASSES), {"vision": 16, "audio": 16}
    )
    heads.vision, heads.audio = torch.nn.Identity(), torch.nn.Identity()
    found = class_accuracy(KnowingNetwork(), heads.class_scores, CLASSES, telling, 24)
    assert (found.vision, found.audio) == (1, 1)
    assert found.n >= 24
    heads.audio = Negation()
    assert class_accuracy(KnowingNetwork(), heads.class_scores, CLASSES, telling, 24).audio == 0


class Negation(torch.nn.Module):
    def forward(self, values):
        return -values


@given(st.lists(st.sampled_from(["", "a", "b", "c", "d"]), max_size=40), st.integers(0, 99))
def test_negatives_of_other_classes_are_a_permutation(labels, seed):
    rows, others = pair_with_other_classes(labels, np.random.default_rng(seed))
    assert sorted(rows) == sorted(others)
    assert len(set(rows.tolist())) == len(rows)
    assert all(
        labels[row] and labels[row] != labels[other]
        for row, other in zip(rows, others, strict=True)
    )
    counts = [labels.count(name) for name in "abcd"]
    assert len(rows) == sum(counts) - max(0, 2 * max(counts) - sum(counts)), (
        "no more is left out than must be"
    )


def test_the_table_is_resumed_and_measures_all_rows_on_the_same_pairs(shards_path, tmp_path):
    trained = []

    def progress(*_, of, **__):
        trained.append(of.removesuffix(", seed 0"))

    config = small_config(steps=1, empty_sound_share=0.3)
    first = baselines(shards_path, tmp_path, config, [0], pairs=24, progress=progress)
    assert trained == ["labels", "pretraining-frozen", "pretraining-finetuned", "teacher", "l3"]
    assert [row.method for row in first.rows] == list(METHODS)
    assert {(row.n_pairs, row.n_videos, row.deviation) for row in first.rows} == {(24, 12, None)}
    assert all(row.ci95[0] <= row.accuracy <= row.ci95[1] for row in first.rows)
    assert [row.paper for row in first.rows] == [0.65, 0.74, 0.74, None, 0.74]
    (tmp_path / "seed-0" / "teacher.json").unlink()
    shutil.rmtree(tmp_path / "seed-0" / "teacher")
    # A plan of an older version lacks settings.
    plan = json.loads((tmp_path / "plan.json").read_text(encoding="utf-8"))
    assert plan["config"]["train"].pop("accumulate") == 1
    (tmp_path / "plan.json").write_text(json.dumps(plan), encoding="utf-8")
    again = baselines(shards_path, tmp_path, config, [0], pairs=24, progress=progress)
    assert trained[5:] == ["teacher"]
    assert asdict(again) == asdict(first)
    runs = {name: open_checkpoint(tmp_path / "seed-0" / name).config.train for name in trained}
    assert (
        len(
            {
                (run.steps, run.batch_size, run.validation_fraction, run.learning_rate)
                for run in runs.values()
            }
        )
        == 1
    )
    assert runs["teacher"].freeze == "vision" and not runs["teacher"].audio_from
    assert runs["l3"].empty_sound_share == 0.3
    assert runs["labels"].empty_sound_share == 0
    with pytest.raises(
        ConfigError, match="holds a table of other shards or settings; choose another folder"
    ):
        baselines(shards_path, tmp_path, small_config(steps=2), [0], pairs=24)


def test_another_teacher_replaces_the_supervised_one_from_any_working_directory(
    labels_run, shards_path, tmp_path, monkeypatch
):
    monkeypatch.chdir(labels_run.parent)
    config = small_config(steps=1)
    first = baselines(
        shards_path, tmp_path / "table", config, [0], pairs=24, teacher=labels_run.name
    )
    vision_towers = {
        name: {
            key: tensor
            for key, tensor in load(run).state_dict().items()
            if key.startswith("vision.")
        }
        for name, run in {
            "own": labels_run,
            "taught": tmp_path / "table/seed-0/teacher",
            "labels": tmp_path / "table/seed-0/labels",
        }.items()
    }
    assert same(vision_towers["taught"], vision_towers["own"])
    assert not same(vision_towers["taught"], vision_towers["labels"])
    (tmp_path / "table" / "seed-0" / "pretraining-frozen.json").unlink()
    monkeypatch.chdir(tmp_path)
    again = baselines(shards_path, "table", config, [0], pairs=24, teacher=labels_run)
    assert asdict(again) == asdict(first)


def test_means_over_seeds_by_hand():
    def asked(accuracy):
        one = {
            "accuracy": accuracy,
            "n_pairs": 8,
            "n_videos": 4,
            "ci95": [accuracy - 0.1, accuracy + 0.1],
        }
        return {
            kind: one | {"positives_right": 0.5, "negatives_right": 0.5}
            for kind in ("any", "other-class")
        }

    row = table.row_over_seeds("l3", [asked(0.6), asked(0.8)])
    assert row.accuracy == row.other_class == pytest.approx(0.7)
    assert row.ci95 == pytest.approx((0.6, 0.8))
    assert row.deviation == pytest.approx(0.02**0.5)
    assert row.by_seed == (0.6, 0.8)


def test_a_threshold_chosen_on_validation_videos_corrects_a_wrong_one(
    shards_path, shards, tmp_path
):
    """A network that says yes to everything is right in half of the pairs; its scores know more
    than its threshold.
    """
    train(shards_path, small_config(validation_fraction=0.2, steps=60), tmp_path)
    saved = open_network(tmp_path)
    model, held_out = saved.l3net, shards.select(shards.held_out_mask(0.1))
    with torch.no_grad():
        model.fusion.fc3.bias.copy_(torch.tensor([-99.0, 99.0]))
    assert evaluate(model, held_out, pairs=200).accuracy == 0.5
    scorer = scorer_above(model, validation_threshold(saved, model, shards, pairs=200))
    corrected = evaluate(model, held_out, pairs=200, scorer=scorer)
    assert corrected.positives_right < 1
    assert corrected.negatives_right > 0.2
    validation = validation_clips(saved, shards)
    assert not set(validation.video_ids) & set(held_out.video_ids)
    assert evaluate(model, validation, pairs=200, scorer=scorer).accuracy > 0.5


def test_recipes_of_baselines_are_one_network_and_schedule(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = sorted(name for name in recipes() if name.startswith("baselines/"))
    assert names == [
        f"baselines/{name}"
        for name in ("direct", "pretraining-finetuned", "pretraining-frozen", "teacher")
    ]
    tiny = Config.load("tiny")
    own = {
        "objective": "avc",
        "vision_from": "",
        "audio_from": "",
        "freeze": "none",
        "validation_fraction": 0.0,
        # Frozen towers could be computed once; this recipe trains on the frames of the others.
        "cached_frames_per_second": tiny.train.cached_frames_per_second,
    }
    for name in names:
        recipe = Config.load(f"{name}.toml")
        assert recipe == Config.load(name)
        assert recipe.changed("train", **own) == tiny
