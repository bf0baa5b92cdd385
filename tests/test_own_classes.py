"""Own classes from a few examples: figures, tags in the index, and how they are removed."""

import json
import os
import shutil
import sys

import numpy as np
import pytest

import looklisten as ll
from conftest import small_config, write_sound
from looklisten.app.cli import main
from looklisten.errors import ConfigError, OptionError, StoreError
from looklisten.search.indexing.own_classes import NONE_OF_THESE, read_own_classes
from looklisten.search.opening import open_store

RATE_HZ = 48_000
BANDS_HZ = {"low": (150, 300), "high": (4_000, 6_000), "middle": (900, 1_400)}


def write_tones(folder, band, count, seconds=2.0, first=0):
    """Chords of a band, each file another one."""
    for number in range(first, first + count):
        generator = np.random.default_rng((number, *BANDS_HZ[band]))
        times = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
        hz = generator.uniform(*BANDS_HZ[band], size=4)
        wave = 0.1 * np.sin(2 * np.pi * hz[:, None] * times).sum(0)
        write_sound(folder / f"{band}{number}.wav", wave)


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    recipe = tmp_path_factory.mktemp("recipe") / "linear.toml"
    config = small_config(objective="contrastive").changed("model", fusion="linear", sharpness=3.0)
    recipe.write_text(config.toml(), encoding="utf-8")
    return f"untrained:{recipe}"


@pytest.fixture(scope="module")
def examples(tmp_path_factory):
    """Two classes of six files each."""
    folder = tmp_path_factory.mktemp("examples")
    for band in ("low", "high"):
        (folder / f"{band} tone").mkdir()
        write_tones(folder / f"{band} tone", band, 6)
    return folder


@pytest.fixture
def db(network, tmp_path):
    media = tmp_path / "media"
    media.mkdir()
    for band in BANDS_HZ:
        write_tones(media, band, 4, first=100)
    ll.index([media], tmp_path / "db", network, device="cpu")
    return tmp_path / "db"


def tagged(db, tag):
    with open_store(db) as store:
        return {moment.source.rpartition("/")[2] for moment in store.moments(f"tag = '{tag}'")}


def test_examples_become_tags_of_the_index(db, examples):
    result = ll.tag_index(db, examples, "tones", device="cpu")
    assert {line["class"] for line in result.classes} == {"high tone", "low tone", "none of these"}
    assert result.accuracy > 0.7 > result.chance == pytest.approx(1 / 3)
    low, high = result.accuracy_ci95
    assert low <= result.accuracy <= high
    lows = tagged(db, "low tone")
    assert {f"low{number}.wav" for number in range(100, 104)} <= lows
    assert not {name for name in lows if name.startswith("high")}
    with ll.open_index(db, device="cpu") as index:
        hits = index.search(tag="low tone")
        assert hits[0].source.rpartition("/")[2].startswith("low") and hits[0].score >= 0.5


def test_files_that_come_later_are_tagged_too(db, examples, network, tmp_path):
    ll.tag_index(db, examples, device="cpu")
    write_tones(tmp_path / "media", "high", 1, first=200)
    ll.index([tmp_path / "media"], db, network, device="cpu")
    assert "high200.wav" in tagged(db, "high tone")


def test_sets_are_side_by_side_and_can_be_listed_and_removed(db, examples, tmp_path, capsys):
    other = tmp_path / "other" / "middle tone"
    other.mkdir(parents=True)
    write_tones(other, "middle", 4)
    command = ["tag", str(db), "--device", "cpu"]
    assert main([*command, str(examples), "--name", "one", "--json"]) == 0
    assert main([*command, str(other.parent), "--name", "two", "--json"]) == 0
    capsys.readouterr()
    assert main(["tag", str(db), "--list", "--json"]) == 0
    sets = json.loads(capsys.readouterr().out)["sets"]
    assert [line["name"] for line in sets] == ["one", "two"]
    assert tagged(db, "middle tone") and tagged(db, "low tone")
    assert main(["tag", str(db), "--remove", "one", "--json"]) == 0
    assert tagged(db, "middle tone") and not tagged(db, "low tone")
    assert main(["tag", str(db), "--remove", "one"]) == 2
    assert main(["tag", str(db)]) == 2


def test_a_set_of_the_same_name_is_replaced(db, examples, tmp_path):
    ll.tag_index(db, examples, device="cpu")
    other = tmp_path / "other" / "middle tone"
    other.mkdir(parents=True)
    write_tones(other, "middle", 4)
    ll.tag_index(db, other.parent, device="cpu")
    assert not tagged(db, "low tone") and not tagged(db, "high tone")


def test_impossible_examples_get_a_sentence(db, tmp_path):
    lonely = tmp_path / "examples" / "one file"
    lonely.mkdir(parents=True)
    write_tones(lonely, "low", 1)
    with pytest.raises(ConfigError, match="has 1 files; give at least 2"):
        ll.tag_index(db, lonely.parent, device="cpu")
    write_sound(lonely / "silent.wav", np.zeros(RATE_HZ))
    with pytest.raises(ConfigError, match="has 1 files that are neither broken nor silent"):
        ll.tag_index(db, lonely.parent, device="cpu")
    assert not (db / "heads").exists()
    with pytest.raises(OptionError, match="letters, digits"):
        ll.tag_index(db, lonely.parent, "a/b", device="cpu")


def test_a_broken_example_is_reported_and_left_out(db, examples, tmp_path, caplog):
    copy = tmp_path / "examples"
    shutil.copytree(examples, copy)
    (copy / "low tone" / "broken.wav").write_text("Dear all")
    # Folders that are nobody's classes.
    for name in (".git", "@eaDir"):
        (copy / name).mkdir()
    result = ll.tag_index(db, copy, device="cpu")
    assert {line["class"]: line["files"] for line in result.classes}["low tone"] == 6
    assert "left out an example" in caplog.text and "broken.wav" in caplog.text


def test_classes_that_cannot_be_told_apart_are_warned_of(db, tmp_path, caplog):
    for name in ("one", "other", "third"):
        (tmp_path / "alike" / name).mkdir(parents=True)
        write_tones(tmp_path / "alike" / name, "low", 4)
    result = ll.tag_index(db, tmp_path / "alike", device="cpu")
    lines = {line["class"]: line["recognized"] for line in result.classes}
    poor = [name for name, recognized in lines.items() if recognized < 0.5]
    assert set(poor) & {"one", "other", "third"}
    for name, recognized in lines.items():
        warning = f"of the examples of {name}, {100 * recognized:.0f} % were recognized"
        assert (warning in caplog.text) == (name in poor)


def test_moments_like_a_class_are_no_reason_to_warn(db, tmp_path, caplog):
    """All moments of the index look like one of the classes, so none of them is recognized."""
    for band in BANDS_HZ:
        (tmp_path / "all" / f"{band} tone").mkdir(parents=True)
        write_tones(tmp_path / "all" / f"{band} tone", band, 6)
    result = ll.tag_index(db, tmp_path / "all", device="cpu")
    (none,) = (line for line in result.classes if line["class"] == NONE_OF_THESE)
    assert none["recognized"] < 0.5
    assert f"examples of {NONE_OF_THESE}" not in caplog.text


@pytest.mark.skipif(sys.platform != "linux", reason="file names of any bytes")
def test_a_class_of_any_name_is_found(db, examples, tmp_path):
    copy = tmp_path / "examples"
    shutil.copytree(examples, copy)
    name = os.fsdecode(b"caf\xe9 'low' <b>")
    (copy / "low tone").rename(copy / name)
    ll.tag_index(db, copy, device="cpu")
    with ll.open_index(db, device="cpu") as index:
        assert index.search(tag=name)[0].source.rpartition("/")[2].startswith("low")


@pytest.mark.parametrize(
    "text",
    [
        "[1]",
        '{"classes": ["a", "b"], "weight": [[1]], "bias": [0], "figures": {"accuracy": 1}}',
        '{"classes": ["a"], "weight": [[1]], "bias": [0], "figures": {}}',
    ],
)
def test_a_damaged_set_is_named(tmp_path, text):
    (tmp_path / "heads").mkdir()
    (tmp_path / "heads" / "own.json").write_text(text)
    with pytest.raises(StoreError, match="is damaged; remove it"):
        read_own_classes(tmp_path)


def test_a_folder_without_an_index_has_no_sets(tmp_path):
    for option in (["--list"], ["--remove", "own"]):
        assert main(["tag", str(tmp_path / "nowhere"), *option]) == 1
