"""Every network opens by the same names, for every verb and function that can use it."""

import json

import pytest
import torch

import looklisten as ll
from conftest import small_config, write_clock_video
from looklisten.app.cli import main
from looklisten.app.command_line import DEFAULT_NETWORK
from looklisten.model.networks import open_network
from looklisten.model.shipped import START
from looklisten.model.training_videos import recorded_videos

OPENL3_REFUSAL = "is a network of OpenL3, which gives vectors alone"


@pytest.fixture(scope="module")
def published(run_path, tmp_path_factory):
    return ll.save_pretrained(run_path, tmp_path_factory.mktemp("published") / "mine")


@pytest.fixture(scope="module")
def openl3_name(openl3_weights):
    return str(openl3_weights / "openl3_audio_mel128_music.h5")


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    path = tmp_path_factory.mktemp("video") / "clock.mp4"
    write_clock_video(path, seconds=2.0)
    return path


@pytest.fixture
def untrained_name(tmp_path):
    """The name of a small untrained network."""
    path = tmp_path / "small.toml"
    path.write_text(small_config().toml(), encoding="utf-8")
    return f"untrained:{path}"


def arguments_of_verbs(name, shards_path, video, out):
    """A command line for each verb that takes a network."""
    return {
        "evaluate": ["evaluate", shards_path, "--checkpoint", name, "--pairs", 24],
        "probe": ["probe", shards_path, "--checkpoint", name, "--per-clip", 1],
        "cluster": ["cluster", shards_path, "--checkpoint", name, "--kmeans-seeds", 1],
        "units": ["units", name, shards_path, "-o", out / "units.html"],
        "localize": ["localize", video, "--checkpoint", name, "-o", out / "maps"],
        "embed": ["embed", video, "--checkpoint", name, "-o", out / "vectors"],
        "export": ["export", name, out / "towers"],
        "publish": ["publish", name, out / "published"],
    }


def run_verb(verb, name, shards_path, video, out):
    return main([str(value) for value in arguments_of_verbs(name, shards_path, video, out)[verb]])


VERBS = ("evaluate", "probe", "cluster", "units", "localize", "embed", "export", "publish")


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_takes_a_published_folder(verb, published, shards_path, video, tmp_path):
    assert run_verb(verb, published, shards_path, video, tmp_path) == 0


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_takes_an_untrained_network(verb, untrained_name, shards_path, video, tmp_path):
    assert run_verb(verb, untrained_name, shards_path, video, tmp_path) == 0


def test_embed_takes_a_network_of_openl3(openl3_name, shards_path, video, tmp_path):
    assert run_verb("embed", openl3_name, shards_path, video, tmp_path) == 0


@pytest.mark.parametrize(
    "verb", ["adapt", "cluster", "embed", "evaluate", "index", "localize", "probe", "sync"]
)
def test_every_verb_takes_start_where_no_network_is_named(verb, capsys):
    assert DEFAULT_NETWORK == START
    with pytest.raises(SystemExit):
        main([verb, "--help"])
    printed = " ".join(capsys.readouterr().out.replace("│", " ").split())
    about = printed.partition("--checkpoint STR")[2]
    assert about.partition("(default: ")[2].startswith("start)")


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("strat", "did you mean start?"),
        ("Start", "did you mean start?"),
        ("runs/adpated", "did you mean runs/adapted?"),
        ("elsewhere", "or start (runs here: runs/adapted, runs/tiny)"),
    ],
)
def test_a_wrong_name_gets_a_similar_one_and_the_runs(name, hint, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for run in ("tiny", "adapted"):
        (tmp_path / "runs" / run / "checkpoints").mkdir(parents=True)
    with pytest.raises(ll.LookListenError) as error:
        ll.load(name)
    sentence = str(error.value)
    assert sentence.startswith(f"{name} is not there; give the folder of a run")
    assert hint in sentence
    assert sentence.endswith("(runs here: runs/adapted, runs/tiny)")


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb != "embed"])
def test_other_verbs_refuse_a_network_of_openl3(
    verb, openl3_name, shards_path, video, tmp_path, capsys
):
    assert run_verb(verb, openl3_name, shards_path, video, tmp_path) == 1
    assert OPENL3_REFUSAL in " ".join(capsys.readouterr().err.split())


def test_embedder_takes_every_name(published, untrained_name, openl3_name):
    sound = torch.rand(48_000).numpy()
    for name in (published, str(published), untrained_name, openl3_name):
        embedder = ll.Embedder(name, side="audio")
        assert embedder.encode(sound, sample_rate_hz=48_000).ndim == 1


def test_a_run_gives_network_config_split_key_and_path(run_path, published):
    run = ll.open(run_path)
    assert not run.network.training
    assert run.config == small_config()
    assert run.split.held_out_fraction == small_config().train.held_out_fraction
    assert (run.step, run.seed) == (20, 0)
    assert run.path.parent == run_path / "checkpoints"
    assert ll.open(published).network_key == run.network_key


def test_a_run_knows_its_videos(run_path, shards):
    run = ll.open(run_path)
    held_out = run.held_out(shards)
    assert set(held_out.video_ids) == run.held_out_videos
    assert not run.held_out_videos & run.trained_videos
    assert run.trained_videos | run.held_out_videos == set(shards.video_ids)
    assert not recorded_videos(run_path / "nothing", 20)["trained on"]


def test_network_keys_differ_with_weights_and_settings(run_path):
    keys = {open_network(run_path).network_key}
    for name in ("untrained:tiny", "untrained:l3"):
        keys.add(open_network(name).network_key)
    assert len(keys) == 3


def test_an_untrained_network_has_the_initial_weights_of_its_seed(untrained_name):
    torch.manual_seed(5)
    expected_next = torch.rand(1)
    torch.manual_seed(5)
    run = ll.open(untrained_name)
    assert torch.equal(torch.rand(1), expected_next), "the caller's random numbers go on"
    torch.manual_seed(small_config().train.seed)
    expected = ll.L3Net(small_config().model)
    for key, value in expected.state_dict().items():
        assert torch.equal(run.network.state_dict()[key], value), key


def test_a_network_without_training_has_no_split(tmp_path, shards):
    folder = ll.save_pretrained(ll.L3Net(small_config().model).eval(), tmp_path / "bare")
    run = ll.open(folder)
    assert json.loads((folder / "config.json").read_text())["step"] == run.step == 0
    for use in (lambda: run.split, lambda: run.held_out(shards), lambda: shards.held_out(run)):
        with pytest.raises(ll.LookListenError, match="nobody knows which videos were held out"):
            use()
