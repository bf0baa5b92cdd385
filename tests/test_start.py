"""The network `start`: a head that comes with the package, to towers that others publish."""

from pathlib import Path

import pytest
import torch

import looklisten as ll
from conftest import SHARED
from looklisten.config import ModelConfig
from looklisten.errors import OptionError, PublishedFileError
from looklisten.inference.localization.localize import localize
from looklisten.model.l3net import L3Net
from looklisten.model.networks import Run, open_network
from looklisten.model.published_weights import WEIGHTS_MIRROR_VARIABLE
from looklisten.model.shipped import is_shipped, open_shipped
from looklisten.model.tower_classes import tower_classes

MAX_MEGABYTES = 2.0
CLIP = SHARED / "media" / "real" / "videos" / "r0015_0.mp4"
needs_clip = pytest.mark.skipif(not CLIP.exists(), reason="the shared clips are not here")


def test_the_head_is_small_and_holds_no_tower():
    checkpoint = open_shipped("start")
    files = list(checkpoint.path.iterdir())
    assert sum(file.stat().st_size for file in files) < MAX_MEGABYTES * 1e6
    assert set(checkpoint.published) == {"vision", "audio"}
    assert checkpoint.config.model.fusion == "linear"
    assert checkpoint.objective().state_dict().keys() == {"log_scale"}


def test_it_says_which_videos_it_was_trained_on():
    run = Run("start", None, open_shipped("start"))
    assert len(run.trained_videos) == 210
    assert not run.held_out_videos


def test_a_folder_of_the_name_does_not_hide_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("start").mkdir()
    assert is_shipped("start")
    assert not is_shipped("./start")
    assert not is_shipped(Path("start"))
    assert not is_shipped("other")


def test_without_network_and_files_one_sentence_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.delenv(WEIGHTS_MIRROR_VARIABLE, raising=False)
    monkeypatch.setenv("LOOKLISTEN_OFFLINE", "1")
    monkeypatch.setenv("LOOKLISTEN_CACHE", str(tmp_path))
    with pytest.raises(PublishedFileError, match="LOOKLISTEN_OFFLINE"):
        open_network("start")


@needs_clip
def test_start_localizes_and_embeds_a_real_clip(published_towers):
    run = open_network("start")
    assert localize(CLIP, run)
    network = run.l3net
    with torch.inference_mode():
        frame = torch.zeros(1, 3, 224, 224, dtype=torch.uint8)
        vector = network.fusion.aligned(network.look(frame).vector, "vision")
    assert vector.shape == (1, network.fusion.aligned_width)
    torch.testing.assert_close(vector.norm(dim=1), torch.ones(1))


@needs_clip
def test_start_finds_a_real_clip_by_the_classes_of_its_towers(published_towers, tmp_path):
    result = ll.index([CLIP], tmp_path, "start", device="cpu")
    assert result.moments >= 9
    with ll.open_index(tmp_path, device="cpu") as index:
        assert len(index.classes("sound")) == 521 and len(index.classes("picture")) == 1000
        bark = index.search(tag="dog", find="sound")[0]
        assert bark.score > 0.3 and bark.matched == "tag"
        assert {"Pomeranian"} & set(index.tags())
        # A class that no moment has finds nothing; a name that is no class is refused.
        sitar = index.search(tag="sitar")
        assert sitar.nothing_found and sitar.reason == "no moment of the index has the tag Sitar"
        with pytest.raises(OptionError, match=r"similar: .*Dog"):
            index.search(tag="doog")


def test_the_names_are_in_the_order_of_the_scores(published_towers):
    """Silence is known by name, and so is a tone."""
    network = open_network("start").l3net
    classes = tower_classes(network.audio)
    seconds = torch.arange(48_000) / 48_000
    tones = torch.stack([torch.zeros(48_000), 0.3 * torch.sin(2 * torch.pi * 1000 * seconds)])
    scores = classes.scores(network.listen(tones).vector)
    assert [classes.names[number] for number in scores.argmax(1)] == ["Silence", "Beep, bleep"]


def test_a_tower_that_learned_has_no_published_classes():
    config = ModelConfig(
        vision_backbone="efficientnet-lite0", audio_backbone="yamnet", front_end="yamnet"
    )
    network = L3Net(config)
    assert tower_classes(network.vision) is None and tower_classes(network.audio) is None
