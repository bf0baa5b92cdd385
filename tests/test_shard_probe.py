"""The linear probe of labeled shards, and the untrained network that it compares with."""

import numpy as np
import pytest
import torch

from conftest import small_config
from looklisten.data.prepare import prepare
from looklisten.data.shards import Shards
from looklisten.errors import ConfigError
from looklisten.evaluation.linear_probe.shards import can_probe, probe, quick_probe
from looklisten.evaluation.untrained import initial_seed, untrained_like, untrained_network
from looklisten.inference.moments import MomentVectors
from looklisten.model.l3net import L3Net
from looklisten.model.networks import load
from looklisten.training.loop import train


@pytest.fixture(scope="module")
def model(run_path):
    return load(run_path)


def test_vectors_that_know_the_label_are_always_right_and_random_ones_at_chance(model, shards):
    labels = sorted({label for labels in shards.labels for label in labels})
    rng = np.random.default_rng(0)

    def embed(networks, clips, per_clip):
        """Vectors of sound that tell the label, and random vectors of frames."""
        clip_numbers = []
        label_numbers = []
        for number, clip in enumerate(clips):
            clip_numbers += [number] * per_clip
            label_numbers += [labels.index(clip.labels[0])] * per_clip
        vectors = MomentVectors(
            vision=rng.standard_normal((len(clip_numbers), len(labels))),
            audio=np.eye(len(labels))[label_numbers],
            clips=np.array(clip_numbers),
        )
        return [vectors for _ in networks]

    sides = probe(model, shards, per_clip=2, held_out_fraction=0.1, embed=embed)
    assert sides["audio"].accuracy == sides["audio"].untrained == 1
    assert sides["vision"].accuracy < 0.4
    assert (sides["audio"].n, sides["audio"].n_videos, sides["audio"].classes) == (24, 12, 12)
    assert sides["vision"].n < 24, "frames that show two classes have no single correct answer"


def test_a_probe_measures_the_held_out_moments_of_a_network_and_of_an_untrained_one(model, shards):
    calls = []
    sides = probe(
        model,
        shards,
        per_clip=2,
        held_out_fraction=0.1,
        progress=lambda *counts, **_: calls.append(counts),
    )
    n_clips = len(shards)
    assert calls == [(number, n_clips) for number in range(1, n_clips + 1)]
    audio = sides["audio"]
    # 12 held-out videos of 12 classes, 2 moments each.
    assert (audio.n, audio.n_videos, audio.classes, audio.chance) == (24, 12, 12, 2 / 24)
    untrained = untrained_like(model, shards.select(~shards.held_out_mask(0.1)), 0)
    for side, figures in sides.items():
        of_untrained = probe(untrained, shards, per_clip=2, held_out_fraction=0.1)[side]
        assert of_untrained.accuracy == of_untrained.untrained == figures.untrained
        assert figures.accuracy * figures.n == pytest.approx(round(figures.accuracy * figures.n))
        assert figures.ci95[0] < figures.accuracy < figures.ci95[1]


def test_a_quick_probe_is_the_same_each_time_and_leaves_the_network_as_it_was(model, shards):
    held_out = shards.held_out_mask(0.1)
    assert can_probe(shards, held_out)
    assert not can_probe(shards, np.zeros(len(shards), bool))
    model.train()
    figures = quick_probe(model, shards, held_out, seed=1)
    assert model.training
    model.eval()
    assert figures == quick_probe(model, shards, held_out, seed=1)
    assert set(figures) == {"audio", "vision"}


def test_the_untrained_network_has_the_initial_seed_of_the_run(run_path, shards_path, tmp_path):
    assert load(run_path).initial_seed == 0
    config = small_config(seed=7, steps=1, evaluate_every=9, checkpoint_every=1)
    train(shards_path, config, tmp_path / "run", evaluated_pairs=24)
    seed_7 = load(tmp_path / "run")
    assert initial_seed(seed_7, None) == 7
    assert initial_seed(seed_7, 3) == 3
    assert initial_seed(L3Net(seed_7.config), None) == 0


def test_the_untrained_network_has_initial_weights_and_statistics_only_from_given_data(
    model, shards
):
    torch.manual_seed(0)
    initial = L3Net(model.config).state_dict()
    plain = untrained_network(model.config, seed=0)
    for name, values in plain.state_dict().items():
        assert torch.equal(values, initial[name]), name
    training = shards.select(~shards.held_out_mask(0.1))
    calibrated = untrained_like(model, training, seed=0)
    for name, values in calibrated.state_dict().items():
        is_statistic = "running_" in name or name.endswith("num_batches_tracked")
        assert torch.equal(values, initial[name]) != is_statistic, name
    assert not plain.training
    assert not calibrated.training


def test_unlabeled_shards_cannot_be_probed(model, world, tmp_path):
    prepare([world / f"{number:06d}.mp4" for number in range(4)], tmp_path, workers=1)
    with pytest.raises(ConfigError, match="needs labeled clips of at least 2 classes"):
        probe(model, Shards(tmp_path), held_out_fraction=0.1)
