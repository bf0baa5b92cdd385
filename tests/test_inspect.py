"""What `inspect` says of a set is what the set holds, and its page shows what training sees."""

import base64
import csv
import io
import json
import re
import wave
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
import torch

from browser import addresses, failures, lengths, opened, picture_widths
from conftest import small_config
from looklisten.app.cli import main
from looklisten.app.output import emit
from looklisten.app.pages.pair_page import training_pairs, write_pair_page
from looklisten.data.clips import Clip
from looklisten.data.inspection import inspect, training_warnings
from looklisten.data.shard_files import (
    CLIPS_PER_RECORD_BATCH,
    FORMAT_VERSION,
    OPEN_SHARDS,
    write_shards,
)
from looklisten.data.shards import Shards
from looklisten.errors import ConfigError
from looklisten.media import SAMPLE_RATE_HZ
from looklisten.media.spectrogram import WINDOW_SAMPLES, LogSpectrogram
from looklisten.model.fusions import Fusion
from looklisten.model.objectives.avc import AvcObjective
from looklisten.training.augmentation import tower_inputs
from looklisten.training.batches import training_stream

PAIRS = 32


def a_clip(number, width=64, height=48, seconds=1.5, frames=3, **about):
    rng = np.random.default_rng(number)
    jpeg = simplejpeg.encode_jpeg(rng.integers(0, 256, (height, width, 3), np.uint8))
    wave = rng.integers(-(2**14), 2**14, int(seconds * SAMPLE_RATE_HZ)).astype(np.int16)
    times = tuple(float(t) for t in np.arange(frames) * seconds / frames)
    about = {
        "key": f"v{number}@0.000",
        "video_id": f"v{number}",
        "source": f"v{number}.mp4",
    } | about
    return Clip(
        start_seconds=0.0,
        frame_seconds=times,
        frames=(jpeg,) * frames,
        waveform=wave,
        sample_rate_hz=SAMPLE_RATE_HZ,
        **about,
    )


def write_set(folder, clips, **index):
    entries = write_shards(clips, folder, "clips-000000", 10**9)
    (folder / "index.json").write_text(
        json.dumps({"format": FORMAT_VERSION, "shards": entries} | index)
    )
    return folder


def test_the_numbers_are_those_of_the_set(world, shards_path, shards):
    summary, clips, index = (
        inspect(shards_path),
        list(shards),
        json.loads((shards_path / "index.json").read_text()),
    )
    with (world / "labels.csv").open(newline="") as file:
        truth = list(csv.DictReader(file))
    assert (summary["videos"], summary["clips"], summary["shards"]) == (
        len(truth),
        len(clips),
        len(list(shards_path.glob("*.arrow"))),
    )
    assert summary["frames"] == sum(len(clip.frames) for clip in clips)
    assert summary["frames_per_clip"]["max"] == max(len(clip.frames) for clip in clips)
    durations = [clip.duration_seconds for clip in clips]
    assert summary["clip_seconds"] == pytest.approx(
        {"min": min(durations), "median": np.median(durations), "max": max(durations)}, abs=1e-3
    )
    assert summary["hours"] == pytest.approx(sum(durations) / 3600, abs=1e-4)
    assert summary["pictures"] == {"measured_on": len(clips), "sizes": {"96x96": len(clips)}}
    assert summary["labels"] == Counter(row["label"] for row in truth)
    assert {split: row["videos"] for split, row in summary["splits"].items()} == Counter(
        row["split"] for row in truth
    )
    assert summary["marks"] == Counter(mark for clip in clips for mark in clip.marks)
    assert summary["bytes"] == sum(file.stat().st_size for file in shards_path.glob("*.arrow"))
    assert summary["bytes_per_hour"] == pytest.approx(
        summary["bytes"] / sum(durations) * 3600, rel=1e-6
    )
    assert summary["index"] == {
        name: index[name] for name in ("sources", "prepared", "skipped", "failed", "settings")
    }


def test_sizes_labels_splits_and_marks_are_counted_the_most_common_first(tmp_path):
    clips = [
        a_clip(
            0,
            454,
            256,
            10.0,
            frames=50,
            labels=("dog", "bell"),
            marks=("silent", "clipped"),
            split="train",
        ),
        a_clip(1, 64, 48, 2.0, frames=4, labels=("dog",), marks=("silent",)),
        a_clip(2, 64, 48, 1.0, frames=1, key="v1@10.000", video_id="v1"),
    ]
    summary = inspect(write_set(tmp_path, clips))
    assert summary["frames_per_clip"] == {"min": 1, "median": 4, "max": 50}
    assert summary["clip_seconds"] == {"min": 1, "median": 2, "max": 10}
    assert list(summary["pictures"]["sizes"].items()) == [("64x48", 2), ("454x256", 1)]
    assert list(summary["labels"].items()) == [("dog", 2), ("bell", 1)]
    assert list(summary["marks"].items()) == [("silent", 2), ("clipped", 1)]
    assert summary["splits"] == {
        "unnamed": {"videos": 1, "clips": 2},
        "train": {"videos": 1, "clips": 1},
    }
    assert summary["index"]["failed"] is None


def test_frames_are_measured_on_clips_spread_over_the_set(tmp_path):
    folder = write_set(tmp_path, [a_clip(i, width=64 + i) for i in range(11)])
    report = inspect(folder, max_measured_frames=3)
    assert report["pictures"] == {"measured_on": 3, "sizes": {"64x48": 1, "69x48": 1, "74x48": 1}}


def test_a_picture_that_is_none_is_counted_as_that(tmp_path):
    write_set(tmp_path, [a_clip(0), Clip(**vars(a_clip(1)) | {"frames": (b"no picture",) * 3})])
    assert inspect(tmp_path)["pictures"]["sizes"] == {"64x48": 1, "no JPEG": 1}


@pytest.mark.skipif(
    not Path("/dev/fd").exists(), reason="the system does not list a process's open files"
)
def test_a_set_of_many_shards_needs_few_open_files(tmp_path):
    many = OPEN_SHARDS + 12
    clips = [a_clip(i, seconds=0.1, frames=1) for i in range(many * CLIPS_PER_RECORD_BATCH)]
    entries = write_shards(clips, tmp_path, "clips-000000", 1)
    (tmp_path / "index.json").write_text(json.dumps({"format": FORMAT_VERSION, "shards": entries}))

    def open_files():
        return len(list(Path("/dev/fd").iterdir()))

    before, meanwhile = open_files(), []
    assert (
        inspect(tmp_path, lambda done, total, /, **facts: meanwhile.append(open_files()))["shards"]
        == many
    )
    assert len(meanwhile) == len(clips)
    assert max(meanwhile) <= before + 3
    # Training reads clip after clip from everywhere.
    shards = Shards(tmp_path)
    held = shards.columns("video_id")
    for clip in range(0, len(shards), CLIPS_PER_RECORD_BATCH):
        assert bytes(shards.jpeg(clip, 0)) == clips[clip].frames[0]
    assert len(held) == len(clips)
    assert open_files() <= before + OPEN_SHARDS + 3


def test_an_empty_set_is_no_trouble(tmp_path):
    summary = inspect(write_set(tmp_path, []))
    assert (
        summary["clips"],
        summary["clip_seconds"],
        summary["bytes_per_hour"],
        summary["pictures"]["measured_on"],
    ) == (0, None, None, 0)


def test_sources_that_failed_once_are_no_failure_of_inspect(tmp_path, capsys):
    write_set(
        tmp_path,
        [a_clip(0)],
        sources=2,
        prepared=1,
        skipped=0,
        failed=1,
        settings={"clip_seconds": 10.0},
    )
    assert main(["inspect", str(tmp_path)]) == 0
    assert json.loads(capsys.readouterr().out)["index"]["failed"] == 1


def test_what_is_no_set_is_said(tmp_path, capsys):
    assert main(["inspect", str(tmp_path)]) == 1
    captured = capsys.readouterr()
    assert "has no index.json" in captured.err
    assert captured.out == ""


def test_the_table_shows_the_most_common_labels_and_json_all(tmp_path, capsys):
    clips = [a_clip(i, labels=(f"[label {min(i, 24):02d}]",)) for i in range(26)]
    summary = inspect(write_set(tmp_path, clips))
    emit(summary, as_json=False)
    table = capsys.readouterr().out
    assert "labels [label 24]" in table.partition("[label 00]")[0], (
        "the most common first, brackets and all"
    )
    assert sum("[label " in line for line in table.splitlines()) == 20
    assert "and 5 more" in table
    emit(summary, as_json=True)
    assert len(json.loads(capsys.readouterr().out)["labels"]) == 25


class Figures(HTMLParser):
    """The pairs of a page: attributes of each figure, addresses of its pictures and of its sound,
    its words.
    """

    def __init__(self, page):
        super().__init__()
        self.found = []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        if tag == "figure":
            self.found.append(given | {"img": [], "audio": [], "words": ""})
        elif tag in ("img", "audio"):
            self.found[-1][tag].append(given["src"])

    def handle_data(self, data):
        if self.found:
            self.found[-1]["words"] += data


def carried(address, kind):
    assert address.startswith(f"data:{kind};base64,")
    return base64.b64decode(address.partition(",")[2])


@pytest.fixture(scope="module")
def page(shards_path, tmp_path_factory):
    out = tmp_path_factory.mktemp("page") / "pairs.html"
    assert (
        main(["inspect", str(shards_path), "--pairs", str(PAIRS), "--seed", "1", "-o", str(out)])
        == 0
    )
    return out


@pytest.fixture(scope="module")
def figures(page):
    return Figures(page.read_text()).found


def test_half_of_the_pairs_are_positive(figures):
    assert Counter(figure["class"] for figure in figures) == {
        "positive": PAIRS // 2,
        "negative": PAIRS // 2,
    }
    assert len({figure["data-frame-video"] for figure in figures}) == PAIRS // 2


def test_a_positive_holds_its_frame_and_a_negative_is_of_two_videos(figures):
    for figure in figures:
        inside = float(figure["data-frame-seconds"]) - float(figure["data-sound-seconds"])
        if figure["class"] == "positive":
            assert figure["data-frame-video"] == figure["data-sound-video"]
            assert -1e-9 <= inside < 1
            (said,) = re.findall(r"([\d.]+)\s+s into the second", figure["words"])
            assert float(said) == pytest.approx(inside, abs=1e-3)
        else:
            assert figure["data-frame-video"] != figure["data-sound-video"]
            assert "into the second" not in figure["words"]
            assert figure["data-sound-video"] in figure["words"]


def test_the_sound_is_the_shards_with_a_gain(figures, shards):
    clips = {clip.video_id: clip for clip in shards}
    gains = []
    for figure in figures:
        (sound,) = figure["audio"]
        with wave.open(io.BytesIO(carried(sound, "audio/wav"))) as file:
            assert file.getparams()[:4] == (1, 2, SAMPLE_RATE_HZ, WINDOW_SAMPLES)
            heard = np.frombuffer(file.readframes(WINDOW_SAMPLES), "<i2").astype(np.float64)
        clip = clips[figure["data-sound-video"]]
        start = round((float(figure["data-sound-seconds"]) - clip.start_seconds) * SAMPLE_RATE_HZ)
        stored = clip.waveform[start : start + WINDOW_SAMPLES].astype(np.float64)
        gain = heard @ stored / (stored @ stored)
        assert np.abs(heard - (stored * gain).clip(-(2**15), 2**15 - 1)).max() < 1.1, (
            "nothing but a gain"
        )
        gains.append(gain)
    assert 0.9 - 1e-3 < min(gains) < max(gains) < 1.1 + 1e-3
    assert np.std(gains) > 0.01


def test_each_pair_has_its_frame_and_its_spectrogram(figures):
    for figure in figures:
        frame, spectrogram = figure["img"]
        assert simplejpeg.decode_jpeg(carried(frame, "image/jpeg")).shape == (112, 112, 3)
        assert carried(spectrogram, "image/png").startswith(b"\x89PNG")


def test_pairs_are_those_of_the_first_steps_of_training(shards):
    config = small_config(batch_size=4, seed=5)
    shown = list(training_pairs(shards, config, 12))
    stream = training_stream(
        shards.select(~shards.held_out_mask(config.train.held_out_fraction)), config
    )
    front_end = LogSpectrogram(config.model.front_end)
    for number, pair in enumerate(shown):
        step, row = divmod(number // 2, 4)
        batch = stream.batch(step)
        frames, waveforms = tower_inputs(batch, config, step + 1, "cpu")
        other = row if pair.positive else (row + 1) % 4
        pixels = (frames[row] + 1) / 2
        assert np.array_equal(pair.pixels, pixels.permute(1, 2, 0).numpy())
        assert torch.equal(pair.waveform, waveforms[other])
        assert np.array_equal(pair.spectrogram, front_end(waveforms)[other, 0].numpy())
        assert (pair.frame.video_id, pair.sound.video_id) == (
            batch.video_ids[row],
            batch.video_ids[other],
        )


def test_an_empty_sound_is_shown_as_one(shards, tmp_path):
    config = small_config(batch_size=8, seed=1, empty_sound_share=0.5)
    clips = shards.select(~shards.held_out_mask(config.train.held_out_fraction))
    recorded = training_stream(clips, config).batch(0).pairing.has_recorded_sound
    assert 0 < recorded.sum() < 8
    shown = list(training_pairs(shards, config, 16))
    assert [pair.positive for pair in shown[::2]] == recorded.tolist()
    assert [pair.sound is not None for pair in shown[::2]] == recorded.tolist()
    assert not any(pair.positive for pair in shown[1::2])

    write_pair_page(tmp_path / "pairs.html", shards, config, 16)
    figures = Figures((tmp_path / "pairs.html").read_text(encoding="utf-8")).found
    for figure, pair in zip(figures, shown, strict=True):
        assert ("data-sound-video" in figure) == (pair.sound is not None)
        assert ("silence, noise or hum" in figure["words"]) == (pair.sound is None)


def test_the_objective_asks_for_the_pairs_that_are_shown(shards):
    """An oracle that knows the shown pairs, and errs on all others, is never wrong: `roll` means
    the same on both sides.
    """
    config = small_config(batch_size=6, negatives="roll")
    shown = list(training_pairs(shards, config, 12))
    place = {pair.frame.video_id: row for row, pair in enumerate(shown[::2])}
    yes = torch.ones(6, 6)
    for pair in shown:
        yes[place[pair.frame.video_id], place[pair.sound.video_id]] = float(pair.positive)

    class Oracle(Fusion):
        def project(self, vision, audio):
            return vision, audio

        def logits(self, vision, audio):
            says = yes[vision[..., 0].long(), audio[..., 0].long()]
            return torch.stack([1 - says, says], -1)

    rows = torch.arange(6.0)[:, None]
    clips = shards.select(~shards.held_out_mask(config.train.held_out_fraction))
    batch = training_stream(clips, config).batch(0)
    objective = AvcObjective(config, {"vision": 1, "audio": 1})
    assert float(objective(Oracle(), rows, rows, batch).accuracy) == 1.0


def test_a_small_set_shows_what_there_is(tmp_path, capsys):
    write_set(
        tmp_path, [a_clip(i, split="train" if i < 3 else "test", labels=("<b>",)) for i in range(5)]
    )
    written = write_pair_page(
        tmp_path / "pairs.html", Shards(tmp_path), small_config(batch_size=8), 32
    )
    assert written == {"page": str(tmp_path / "pairs.html"), "positive": 3, "negative": 3}
    figures = Figures((tmp_path / "pairs.html").read_text()).found
    assert {figure["data-frame-video"] for figure in figures} == {"v0", "v1", "v2"}
    assert all("(<b>)" in figure["words"] for figure in figures), "labels are words, never markup"


@pytest.mark.parametrize(
    ("videos", "pairs", "sentence"),
    [
        (1, 32, "needs at least 2 videos in addition to the held-out ones, and there are 1"),
        (3, 3, "3 pairs cannot be shown: half are positive"),
        (3, 2, "ask for an even number from 4 on"),
    ],
)
def test_what_cannot_be_shown_is_said(videos, pairs, sentence, tmp_path):
    write_set(tmp_path, [a_clip(i, split="train") for i in range(videos)])
    with pytest.raises(ConfigError, match=sentence):
        write_pair_page(tmp_path / "pairs.html", Shards(tmp_path), small_config(), pairs)
    assert not (tmp_path / "pairs.html").exists()


def test_the_page_works_in_a_browser(page, tmp_path):
    with opened(page, tmp_path) as browser:
        sounds, pictures, links, errors = (
            lengths(browser, "audio"),
            picture_widths(browser),
            addresses(browser),
            failures(browser),
        )
        text = browser.find_element("tag name", "body").text
    assert sounds == [1.0] * PAIRS
    assert len(pictures) == 2 * PAIRS
    assert min(pictures) > 0
    assert links == {"data:"}
    assert not errors
    assert f"{PAIRS} pairs as training sees them" in text


def test_what_is_lost_is_shown_by_reason(tmp_path, capsys):
    write_set(tmp_path, [a_clip(0)], lost_seconds={"no picture": 12.5})
    assert inspect(tmp_path)["lost_seconds"] == {"no picture": 12.5}
    emit(inspect(tmp_path), as_json=False)
    assert "lost seconds no picture" in capsys.readouterr().out


def test_sets_of_earlier_versions_know_of_no_loss(tmp_path):
    assert inspect(write_set(tmp_path, [a_clip(0)]))["lost_seconds"] is None


def test_warnings_of_clips_that_nothing_can_be_learned_from(tmp_path):
    marks = [("silent", "still")] * 3 + [("silent",), (), ()]
    clips = [
        a_clip(i, marks=of, video_id=f"v{i // 2}", split="train") for i, of in enumerate(marks)
    ]
    shards = Shards(write_set(tmp_path, clips))
    first_four = np.arange(6) < 4
    assert training_warnings(shards, first_four) == [
        "4 of 4 clips are silent: there is nothing to hear in them",
        "3 of 4 clips are still: their picture does not change",
    ]
    assert training_warnings(shards, np.arange(6) >= 4) == [
        "all 2 clips are of one video (v2): a negative pair needs two videos"
    ]
    assert training_warnings(shards, np.zeros(6, bool)) == [
        "there is no clip to train on",
        "the only split is train (3), counted in videos; only `train` is trained on",
    ]


def test_warnings_of_splits_that_are_not_known(tmp_path):
    clips = [a_clip(i, split=name) for i, name in enumerate(("train", "train", "fold1", ""))]
    shards = Shards(write_set(tmp_path, clips))
    (sentence,) = training_warnings(shards, ~shards.held_out_mask(0.1))
    assert (
        sentence == "the splits are train (2), fold1 (1), no name (1), counted in videos; "
        "only `train` is trained on"
    )
