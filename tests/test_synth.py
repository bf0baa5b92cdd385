"""A drawn world: same seed, same files; splits share nothing; the tables are true."""

import csv
import hashlib
import itertools
from collections import Counter
from dataclasses import fields, replace

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from looklisten.errors import ConfigError
from looklisten.media.decode.decode import decode_media
from looklisten.media.decode.options import DecodeOptions
from looklisten.media.decode.records import AudioChunk, Frame
from looklisten.media.synth.folder import write_set
from looklisten.media.synth.options import CollageOptions, SynthOptions, WorldOptions
from looklisten.media.synth.scenes import CLASSES, render_background, render_frame, render_sound
from looklisten.media.synth.shapes import SHAPES
from looklisten.media.synth.synth import synth
from looklisten.media.synth.voices import VOICES
from looklisten.media.synth.world import World

SMALL = WorldOptions(videos=4, seconds=1.0, side_pixels=64, frames_per_second=5, seed=11)
SMALL_FRAMES = WorldOptions(videos=48, seconds=2.0, side_pixels=96, frames_per_second=10, seed=3)
"""The options of the fixture `world`."""


def test_a_world_without_test_videos_is_warned_of(tmp_path, caplog):
    synth(tmp_path / "small", SMALL)
    assert "no video is in the split test" in caplog.text
    assert "test_share 0.25 needs at least 37 videos" in caplog.text
    assert World(replace(SMALL, videos=37)).has_test_videos()
    assert World(replace(SMALL, videos=37)).scene(36).split == "test"
    caplog.clear()
    synth(tmp_path / "none", replace(SMALL, test_share=0.0))
    assert caplog.text == ""


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def digest(folder):
    return {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in folder.iterdir()}


def test_same_seed_same_files_for_any_workers(tmp_path):
    synth(tmp_path / "a", SMALL, workers=1)
    synth(tmp_path / "b", SMALL, workers=2)
    assert digest(tmp_path / "a") == digest(tmp_path / "b")
    assert len(digest(tmp_path / "a")) == 4 + 4


def test_small_frames_encode_to_the_same_bytes_each_time(tmp_path):
    """Sizes at which the encoder once differed from run to run; memory is stirred between, as it is
    in a real run.
    """
    world = World(SMALL_FRAMES)
    seen = set()
    for turn in range(8):
        stirred = [np.random.default_rng(turn).random(n) for n in (1000, 70_000, 300)]
        world.video(13).write(tmp_path / "a.mp4")
        seen.add(hashlib.sha256((tmp_path / "a.mp4").read_bytes()).hexdigest())
        assert stirred
    assert len(seen) == 1


def test_other_seed_other_files(tmp_path):
    synth(tmp_path / "a", SMALL, workers=1)
    synth(tmp_path / "b", replace(SMALL, seed=12), workers=1)
    assert not set(digest(tmp_path / "a").items()) & set(digest(tmp_path / "b").items())


def test_the_same_command_finishes_an_interrupted_world(tmp_path):
    synth(tmp_path / "complete", SMALL, workers=1)
    synth(tmp_path / "broken", SMALL, workers=1)
    (tmp_path / "broken" / "000002.mp4").unlink()
    assert synth(tmp_path / "broken", SMALL, workers=1)["written"] == 1
    assert digest(tmp_path / "broken") == digest(tmp_path / "complete")


class WorldThatBreaks(World):
    """Its third video cannot be written to the end."""

    def video(self, index):
        video = super().video(index)
        if index != 2:
            return video

        def frames():
            yield from itertools.islice(video.frames, 2)
            raise OSError("the disk is full")

        return replace(video, frames=frames())


def test_a_video_is_complete_or_absent_whatever_stops_its_batch(tmp_path):
    many = replace(SMALL, videos=40, test_share=0.0)
    with pytest.raises(OSError, match="the disk is full"):
        write_set(tmp_path / "broken", WorldThatBreaks(many), [], workers=1)
    left = {path.name for path in (tmp_path / "broken").iterdir()}
    assert left == {"labels.csv", "boxes.csv", "onsets.csv", "world.json"}
    counts = []
    result = write_set(
        tmp_path / "broken",
        World(many),
        [],
        workers=1,
        progress=lambda done, total, **_: counts.append((done, total)),
    )
    assert result["written"] == 40
    assert counts == [(10, 40), (20, 40), (30, 40), (40, 40)]


def test_other_settings_are_refused(tmp_path):
    synth(tmp_path, SMALL, workers=1)
    with pytest.raises(ConfigError, match="holds a world of other settings"):
        synth(tmp_path, replace(SMALL, seed=1), workers=1)


@pytest.mark.parametrize(
    "bad",
    [
        {"videos": 0},
        {"seconds": 0.2},
        {"silent_share": 1.5},
        {"side_pixels": 65},
        {"test_share": 1.0},
    ],
)
def test_impossible_worlds_are_refused(bad):
    with pytest.raises(ConfigError):
        WorldOptions(**bad)


def test_files_are_real_video_with_the_promised_streams(tmp_path):
    synth(tmp_path, WorldOptions(videos=1, seconds=2.0), workers=1)
    with av.open(tmp_path / "000000.mp4") as container:
        video, audio = container.streams.video[0], container.streams.audio[0]
        assert (video.codec_context.name, video.width, video.height, float(video.average_rate)) == (
            "h264",
            256,
            256,
            25,
        )
        assert (audio.codec_context.name, audio.sample_rate) == ("aac", 48_000)
        assert sum(1 for _ in container.decode(video)) == 50


def test_classes_are_balanced_and_splits_share_no_background():
    world = World(WorldOptions(videos=240, test_share=0.25))
    scenes = [world.scene(index) for index in range(world.options.videos)]
    for split, share in (("train", 180), ("test", 60)):
        counts = Counter(scene.label for scene in scenes if scene.split == split)
        assert set(counts) == set(CLASSES)
        assert sum(counts.values()) == share
        assert max(counts.values()) == min(counts.values())
    train, test = (
        {scene.background for scene in scenes if scene.split == split}
        for split in ("train", "test")
    )
    assert not train & test
    assert max(Counter(scene.background for scene in scenes).values()) > 1


def test_a_third_of_the_videos_has_a_silent_object_of_another_class():
    world = World(WorldOptions(videos=600))
    pairs = [scene.objects for scene in map(world.scene, range(600)) if len(scene.objects) == 2]
    assert 160 < len(pairs) < 240
    assert all(
        first.sounding and not second.sounding and first.label != second.label
        for first, second in pairs
    )


def test_a_silent_object_looks_like_a_sounding_one():
    """No size, position, turn, squash or color tells which of two objects sounds."""
    world = World(WorldOptions(videos=1500, silent_share=1.0, seconds=2.0))
    objects = [scene.objects for scene in map(world.scene, range(1500))]
    for measure in (
        lambda t: t.radius,
        lambda t: t.center[0],
        lambda t: t.center[1],
        lambda t: abs(t.center[0] - 0.5) + abs(t.center[1] - 0.5),
        lambda t: t.swing[0],
        lambda t: t.turn_per_second,
        lambda t: t.squash,
        lambda t: sum(t.colors[0]) + sum(t.colors[1]),
        lambda t: abs(sum(t.colors[0]) - sum(t.colors[1])),
    ):
        gaps = np.array([measure(first) - measure(second) for first, second in objects])
        assert abs(gaps.mean()) < 4 * gaps.std() / np.sqrt(len(gaps))


def test_boxes_hold_their_object(world):
    boxes = rows(world / "boxes.csv")
    assert {row["sounding"] for row in boxes} == {"0", "1"}
    single = World(WorldOptions(videos=1, seed=5, silent_share=0.0))
    scene = single.scene(0)
    background = render_background(scene, 256)
    for at in (0.0, 1.7):
        with_object = render_frame(scene, background, at).astype(int)
        down, right = np.nonzero(np.abs(with_object - background.astype(int)).sum(2) > 12)
        x0, y0, x1, y1 = scene.objects[0].box(at)
        assert x0 * 256 - 1.5 <= right.min() and right.max() <= x1 * 256 + 1.5
        assert y0 * 256 - 1.5 <= down.min() and down.max() <= y1 * 256 + 1.5
        assert right.max() - right.min() > (x1 - x0) * 256 * 0.5


def test_onsets_are_where_the_sound_rises():
    """Energy right after an onset exceeds that right before it, for the voices that strike."""
    quiet = World(WorldOptions(videos=36, seed=2, silent_share=0.0))
    for index in range(36):
        scene = quiet.scene(index)
        if scene.label not in ("star", "heart", "cross"):
            continue
        wave = render_sound(scene, 16_000)
        rises = [
            np.sqrt(np.mean(wave[n : n + 800] ** 2))
            / np.sqrt(np.mean(wave[max(n - 800, 0) : n] ** 2) + 1e-9)
            for n in (round(onset * 16_000) for onset, _ in scene.notes)
            if 800 < n < len(wave) - 800
        ]
        assert np.median(rises) > 1.05, (scene.label, index)


def test_labels_match_the_scenes(world):
    labels = rows(world / "labels.csv")
    drawn = World(SMALL_FRAMES)
    assert [(row["label"], row["split"]) for row in labels] == [
        (s.label, s.split) for s in map(drawn.scene, range(48))
    ]
    assert set(SHAPES) == set(VOICES)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 11))
def test_sounds_are_finite_loud_enough_and_never_clip(seed, index):
    wave = render_sound(World(WorldOptions(videos=12, seed=seed, seconds=1.5)).scene(index), 16_000)
    assert wave.dtype == np.float32
    assert np.isfinite(wave).all()
    assert 0.005 < np.abs(wave).max() < 0.99


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 11))
def test_objects_stay_in_the_frame_and_apart(seed, index):
    scene = World(WorldOptions(videos=12, seed=seed, silent_share=1.0)).scene(index)
    for at in np.linspace(0, 10, 21):
        for scene_object in scene.objects:
            x, y = scene_object.center_at(at)
            assert scene_object.radius - 1e-6 <= x <= 1 - scene_object.radius + 1e-6
            assert scene_object.radius - 1e-6 <= y <= 1 - scene_object.radius + 1e-6
        first, second = scene.objects
        gap = np.hypot(*(np.array(first.center_at(at)) - np.array(second.center_at(at))))
        assert gap > 0.85 * (first.radius + second.radius)


def test_decoded_sound_is_the_rendered_one(tmp_path):
    """Through the encoder and back, frames and sound keep their times."""
    options = WorldOptions(videos=1, seconds=2.0, seed=4)
    synth(tmp_path, options, workers=1)
    events = list(decode_media(tmp_path / "000000.mp4", DecodeOptions()))
    decoded = np.concatenate([e.samples for e in events if isinstance(e, AudioChunk)])
    rendered = render_sound(World(options).scene(0), 48_000)
    size = min(len(decoded), len(rendered))
    shift = np.fft.irfft(np.fft.rfft(decoded[:size]) * np.fft.rfft(rendered[:size]).conj())
    assert int(np.argmax(shift)) in (0, 1, size - 1, size - 2)
    assert [round(e.at_seconds, 3) for e in events if isinstance(e, Frame)] == [
        round(0.2 * k, 3) for k in range(10)
    ]


def test_drawn_and_composed_videos_share_their_defaults():
    for field in fields(SynthOptions):
        assert getattr(WorldOptions(), field.name) == getattr(CollageOptions, field.name)
