"""`sync`: the offset of a sound that was moved, and "cannot tell" where nothing tells it."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import looklisten as ll
from conftest import small_config, write_sound
from level_network import LevelNetwork
from looklisten.app.cli import main
from looklisten.data.prepare import prepare
from looklisten.errors import LookListenError, OptionError
from looklisten.evaluation.sync.agreement import offset_agreement
from looklisten.media.synth.rendered_video import RenderedVideo
from looklisten.media.synth.scenes import (
    CLASSES,
    random_scene,
    render_background,
    render_frame,
    render_sound,
)
from looklisten.training.loop import train

RATE_HZ = 48_000
SIDE_PIXELS, FRAMES_PER_SECOND = 96, 10
SCORE_STEP_SECONDS = 0.1


def irregular_notes(seconds, seed):
    """Onsets and lengths without a period, so that one offset alone is right."""
    generator = np.random.default_rng(seed)
    notes, time = [], 0.3
    while time < seconds - 0.6:
        notes.append((time, 0.5))
        time += generator.uniform(0.7, 2.6)
    return tuple(notes)


def write_flashes(path, offset_seconds=0.0, seconds=20.0, seed=0, flashes=True):
    """A video of `synth` whose light goes up while a note sounds; its sound is moved."""
    background = (seed, 0, 0, 3)
    scene = random_scene((seed, 1), CLASSES[seed % 12], "train", background, seconds, 0.0)
    scene = replace(
        scene, notes=irregular_notes(seconds, seed), noise_db=-25.0, echo_mix=0.0, loudness_db=-18
    )
    picture = render_background(scene, SIDE_PIXELS)

    def frame(number):
        time = number / FRAMES_PER_SECOND
        sounds = any(onset <= time < onset + length for onset, length in scene.notes)
        light = 1.0 if sounds or not flashes else 0.3
        return (render_frame(scene, picture, time) * light).astype(np.uint8)

    frames = map(frame, range(round(seconds * FRAMES_PER_SECOND)))
    sound = render_sound(scene, RATE_HZ)
    moved = round(offset_seconds * RATE_HZ)
    silence = np.zeros(abs(moved), sound.dtype)
    if moved >= 0:
        sound = np.concatenate([silence, sound[: len(sound) - moved]])
    else:
        sound = np.concatenate([sound[-moved:], silence])
    RenderedVideo(frames, sound, SIDE_PIXELS, FRAMES_PER_SECOND).write(path)
    return path


@pytest.mark.parametrize("offset_seconds", [-1.7, 0.0, 0.8, 3.0])
def test_the_offset_of_a_moved_sound_is_known_by_hand_made_towers(tmp_path, offset_seconds):
    clip = write_flashes(tmp_path / "clip.mp4", offset_seconds)
    result = ll.sync(clip, LevelNetwork())
    assert result.is_known, result.reason
    assert result.offset_seconds == pytest.approx(offset_seconds, abs=0.21)
    assert result.confidence >= 0.9 and result.chance <= 0.01
    assert result.compared_seconds == pytest.approx(20, abs=0.2)


def test_a_picture_that_does_not_follow_its_sound_tells_nothing(tmp_path):
    for seed in range(3):
        clip = write_flashes(tmp_path / f"{seed}.mp4", seed=seed, flashes=False)
        result = ll.sync(clip, LevelNetwork())
        assert not result.is_known
        assert result.reason.startswith(("no offset stands out", "several offsets agree"))


def test_the_sound_of_another_video_tells_nothing(tmp_path):
    """Both sides have events, but at other times."""
    told = []
    for seed in range(4):
        own, other = (
            write_flashes(tmp_path / f"{seed}-{part}.mp4", seed=seed + 50 * part) for part in (0, 1)
        )
        mixed = tmp_path / f"mixed{seed}.mp4"
        join(own, other, mixed)
        told.append(ll.sync(mixed, LevelNetwork()).is_known)
    assert not any(told)


def join(picture_path, sound_path, out):
    """The picture of one video with the sound of another one."""
    import av

    with av.open(picture_path) as picture, av.open(sound_path) as sound, av.open(out, "w") as new:
        streams = {}
        for container, kind in ((picture, "video"), (sound, "audio")):
            stream = getattr(container.streams, kind)[0]
            streams[kind] = new.add_stream_from_template(stream)
        for container, kind in ((picture, "video"), (sound, "audio")):
            for packet in container.demux(getattr(container.streams, kind)[0]):
                if packet.dts is not None:
                    packet.stream = streams[kind]
                    new.mux(packet)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A small network that was trained to tell moments of one video apart."""
    videos = tmp_path_factory.mktemp("flashes")
    for seed in range(24):
        write_flashes(videos / f"{seed}.mp4", seconds=10.0, seed=100 + seed)
    shards = tmp_path_factory.mktemp("shards")
    prepare([videos], shards)
    run = tmp_path_factory.mktemp("runs") / "same-video"
    config = small_config(
        negatives="same-video", same_video_share=1.0, steps=300, batch_size=16, learning_rate=3e-3
    )
    train(shards, config, run)
    return run


def test_the_command_line_tells_the_offset_by_a_trained_network(trained, tmp_path, capsys):
    clip = write_flashes(tmp_path / "clip.mp4", 1.2, seconds=30.0, seed=7)
    assert main(["sync", str(clip), "--checkpoint", str(trained), "--device", "cpu"]) == 0
    captured = capsys.readouterr()
    values = json.loads(captured.out)
    assert values["offset_seconds"] == pytest.approx(1.2, abs=0.31), values
    assert "cannot tell" not in captured.err
    still = write_flashes(tmp_path / "still.mp4", seconds=30.0, seed=8, flashes=False)
    assert main(["sync", str(still), "--checkpoint", str(trained), "--device", "cpu"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["offset_seconds"] is None
    assert "cannot tell: " in captured.err


def test_a_network_that_was_not_trained_for_it_says_so(run_path, tmp_path):
    clip = write_flashes(tmp_path / "clip.mp4", seconds=2.0)
    result = ll.sync(clip, run_path)
    assert not result.is_known
    assert "was trained with train.negatives = 'roll'" in result.reason.replace("'all'", "'roll'")
    recipe = tmp_path / "same.toml"
    recipe.write_text(small_config(negatives="same-video").toml(), encoding="utf-8")
    untrained = ll.sync(clip, f"untrained:{recipe}")
    assert "is not known to be trained to tell moments of one video apart" in untrained.reason


def test_what_cannot_be_compared_gets_a_sentence(tmp_path):
    short = write_flashes(tmp_path / "short.mp4", seconds=6.0)
    result = ll.sync(short, LevelNetwork())
    assert result.reason == "picture and sound share 6.0 s, and 9 s are needed"
    silent = write_sound(tmp_path / "tone.wav", np.zeros(RATE_HZ))
    with pytest.raises(LookListenError):
        ll.sync(silent, LevelNetwork())
    with pytest.raises(LookListenError):
        ll.sync(tmp_path / "nowhere.mp4", LevelNetwork())
    with pytest.raises(OptionError, match="max_offset_seconds 0 must be above 0"):
        ll.sync(short, LevelNetwork(), max_offset_seconds=0)


def times_of(seconds):
    frames = np.arange(0, seconds, 0.2)
    sounds = np.arange(0, seconds - 1 + 1e-9, SCORE_STEP_SECONDS) + 0.5
    return frames, sounds


def smooth(generator, times, seconds_of_change):
    """A random line that changes in about that time."""
    knots = np.arange(-seconds_of_change, times.max() + 3 * seconds_of_change, seconds_of_change)
    return np.interp(times, knots, generator.standard_normal(len(knots)))


@given(offset=st.integers(-30, 30), seed=st.integers(0, 50))
@settings(max_examples=25, deadline=None)
def test_a_planted_offset_is_found(offset, seed):
    frames, sounds = times_of(30.0)
    offset_seconds = offset * SCORE_STEP_SECONDS
    apart = sounds - frames[:, None] - offset_seconds
    generator = np.random.default_rng(seed)
    scores = 1.0 * (np.abs(apart) < 0.5) + generator.standard_normal(apart.shape)
    # What a frame, a sound or a slow change adds says nothing of time.
    scores += 3 * generator.standard_normal((len(frames), 1)) + 3 * smooth(generator, sounds, 1.0)
    scores += np.outer(frames - 10, sounds - 15) / 30
    found = offset_agreement(scores, frames, sounds, 5.0)
    assert found is not None and found.stands_out
    assert found.best_seconds == pytest.approx(offset_seconds, abs=0.11)


@pytest.mark.parametrize("seconds_of_change", [0.3, 1.0, 3.0])
def test_scores_without_an_offset_are_rarely_told(seconds_of_change):
    """The scores are products of lines that change at some speed, as those of a network do."""
    frames, sounds = times_of(30.0)
    told = 0
    for seed in range(100):
        generator = np.random.default_rng(seed)
        scores = np.zeros((len(frames), len(sounds)))
        for _ in range(4):
            sides = [smooth(generator, times, seconds_of_change) for times in (frames, sounds)]
            scores += np.outer(*sides)
        found = offset_agreement(scores, frames, sounds, 5.0)
        told += found.stands_out
    assert told <= 3


def test_a_slow_change_of_both_sides_is_no_offset():
    frames, sounds = times_of(20.0)
    noise = np.random.default_rng(0).standard_normal((len(frames), len(sounds)))
    scores = np.outer(frames - 10, sounds - 10) / 10 + noise
    found = offset_agreement(scores, frames, sounds, 5.0)
    assert not found.stands_out
