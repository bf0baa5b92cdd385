"""Groups of classes that are seen and heard together, in the fusion `linear`."""

import pytest
import torch

from conftest import small_config
from looklisten.config import Config
from looklisten.errors import ConfigError
from looklisten.media.frames import fit_square
from looklisten.model.class_groups import class_groups
from looklisten.model.config_checks import check_config
from looklisten.model.fusions.linear import LinearFusion, VectorByGroups
from looklisten.model.networks import open_network
from looklisten.model.tower_classes import published_class_names

FEATURES = {"vision": 12, "audio": 10}
CLASSES, GROUPS, WIDTH, SHARE = 7, 4, 5, 0.6


@pytest.fixture
def fusion():
    """A fusion with random groups, whose audio tower knows 7 classes."""
    torch.manual_seed(0)
    to_classes = torch.randn(CLASSES, FEATURES["audio"])
    fusion = LinearFusion(
        FEATURES,
        WIDTH,
        sharpness=3.0,
        positions=9,
        dropout=0.5,
        by_groups=VectorByGroups(
            GROUPS, SHARE, CLASSES, lambda vectors: (vectors @ to_classes.T).sigmoid()
        ),
    )
    fusion.set_groups("vision", torch.randn(GROUPS, FEATURES["vision"]))
    fusion.set_groups("audio", torch.randn(GROUPS, CLASSES))
    fusion.fit_inputs(torch.randn(40, 10, FEATURES["vision"]), torch.randn(40, 1, 10))
    return fusion.eval()


def features(rows):
    return torch.randn(rows, 10, FEATURES["vision"]), torch.randn(rows, 1, FEATURES["audio"])


def test_every_group_names_classes_that_exist():
    pictures = published_class_names("imagenet.txt")
    sounds = published_class_names("audioset.txt")
    groups = class_groups()
    assert len({group.name for group in groups}) == len(groups)
    for group in groups:
        assert group.audio
        assert max(group.audio) < len(sounds)
        assert max(group.vision, default=0) < len(pictures)
    without_pictures = [group.name for group in groups if not group.vision]
    assert without_pictures == ["silence", "noise and hum"]


def test_a_group_holds_the_classes_that_its_name_says():
    groups = {group.name: group for group in class_groups()}
    pictures = published_class_names("imagenet.txt")
    sounds = published_class_names("audioset.txt")
    assert "golden retriever" in [pictures[number] for number in groups["dogs"].vision]
    assert "Bark" in [sounds[number] for number in groups["dogs"].audio]
    assert "steam locomotive" in [pictures[number] for number in groups["trains"].vision]
    assert "Train horn" in [sounds[number] for number in groups["trains"].audio]


def test_the_recipe_of_start_asks_for_all_groups():
    assert Config.load("start").model.class_groups == len(class_groups())


def test_vectors_have_unit_length_and_both_parts_their_share(fusion):
    vision, audio = features(6)
    vectors = fusion.aligned(vision, "vision")
    assert vectors.shape == (6, 10, WIDTH + GROUPS) == (6, 10, fusion.aligned_width)
    torch.testing.assert_close(vectors.norm(dim=-1), torch.ones(6, 10))
    by_groups = fusion.aligned(audio, "audio")[..., WIDTH:]
    torch.testing.assert_close(by_groups.square().sum(-1), torch.full((6, 1), SHARE))


def test_training_compares_the_learned_parts_alone(fusion):
    vision, audio = fusion.project(*features(6))
    by_position, as_whole = fusion.part_similarities(vision, audio)
    learned_frames = torch.nn.functional.normalize(vision[:, -1, :WIDTH], dim=-1)
    learned_sounds = torch.nn.functional.normalize(audio[:, 0, :WIDTH], dim=-1)
    torch.testing.assert_close(as_whole, learned_frames @ learned_sounds.T)

    # The answer counts the groups too.
    parts = (by_position, as_whole)
    decided = fusion.decided_similarities(parts, vision, audio)
    torch.testing.assert_close(decided, fusion.similarities(vision, audio))
    assert not torch.allclose(decided, (by_position + as_whole) / 2)
    assert not decided.requires_grad


def test_a_sound_without_pictures_is_less_similar_to_every_frame(fusion):
    # Group 0 has no pictures, and only class 0 makes it present.
    weight = torch.randn(GROUPS, FEATURES["vision"])
    weight[0] = 0
    fusion.set_groups("vision", weight)
    sounds = torch.eye(GROUPS, CLASSES)
    fusion.set_groups("audio", sounds)
    vision, _ = features(20)
    fusion.fit_inputs(vision, torch.randn(40, 1, 10))
    frames = fusion.aligned(vision, "vision")[:, -1, WIDTH:]
    assert (frames[:, 0] < 0).all()
    scores = torch.full((2, CLASSES), -4.0)
    scores[1, 0] = 0.0
    with_and_without = fusion.audio_groups(scores)
    assert ((frames @ (with_and_without[1] - with_and_without[0])) < 0).all()


def test_weights_of_a_version_without_silence_load(fusion):
    tensors = fusion.state_dict()
    for side in ("vision", "audio"):
        del tensors[f"{side}_groups.offset"]
    fusion.vision_groups.offset.fill_(-3.0)
    fusion.load_state_dict(tensors)
    assert (fusion.vision_groups.offset == 0).all()


def test_groups_are_not_trained(fusion):
    trained = {name for name, _ in fusion.named_parameters()}
    assert not any("groups" in name for name in trained)
    assert {"vision_groups.weight", "audio_groups.weight"} <= fusion.state_dict().keys()


def test_all_rows_of_a_frame_lose_the_same_features(fusion):
    fusion.train()
    dropout = fusion.vision[1]
    rows = dropout(torch.ones(3, 10, FEATURES["vision"]))
    assert (rows == rows[:, :1]).all()
    assert set(rows.unique().tolist()) == {0.0, 2.0}
    assert not torch.equal(rows[0], rows[1])


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"fusion": "linear", "class_groups": 146}, "has other weights"),
        ({"fusion": "linear", "class_groups": 3}, "this version knows 146 groups"),
    ],
)
def test_groups_need_published_towers_and_all_of_them(settings, sentence, tmp_path):
    recipe = tmp_path / "groups.toml"
    config = small_config(objective="contrastive").changed("model", **settings)
    recipe.write_text(config.toml(), encoding="utf-8")
    with pytest.raises(ConfigError, match=sentence):
        open_network(f"untrained:{recipe}")


def test_groups_are_for_the_fusion_general():
    config = small_config().changed("model", class_groups=146)
    with pytest.raises(ConfigError, match='is for the fusion "linear"'):
        check_config(config)


def test_a_squeezed_square_shows_the_whole_frame():
    frame = torch.zeros(40, 80, 3, dtype=torch.uint8)
    frame[:, :20] = 200
    cropped = fit_square(frame, 40, "crop")
    squeezed = fit_square(frame, 40, "squeeze")
    assert cropped.shape == squeezed.shape == (40, 40, 3)
    # The left quarter lies outside the center crop.
    assert cropped.max() == 0
    assert squeezed[:, :9].min() > 190
    assert squeezed[:, 11:].max() < 10
    square = frame[:, :40]
    assert torch.equal(fit_square(square, 40, "squeeze"), square)
