"""Law 1: one clock. What a frame shows and what is heard at that moment name the same time, through
every container.
"""

import av
import numpy as np
import pytest

from conftest import hear_clock, read_clock, write_clock_video
from looklisten.data.cutting import cut
from looklisten.data.options import PrepareOptions
from looklisten.data.pairs import FrameTransform, PairStream
from looklisten.data.prepare import prepare
from looklisten.data.shards import Shards
from looklisten.data.sources import Source
from looklisten.media import SAMPLE_RATE_HZ
from looklisten.media.decode.decode import decode_media
from looklisten.media.decode.options import DecodeOptions
from looklisten.media.decode.records import Frame
from looklisten.media.frames import decode_jpeg

TOLERANCE_SECONDS = 0.020

jumpy = np.sort(
    np.concatenate([np.arange(0, 4, 0.25), np.arange(0.013, 4, 0.171), np.arange(1, 2, 0.05)])
)
VARIABLE = jumpy[np.concatenate([[True], np.diff(np.round(jumpy, 3)) > 0.015])]

KINDS = {
    "mp4": ("a.mp4", {}),
    "mp4 at 44.1 kHz": ("a.mp4", {"sample_rate_hz": 44_100}),
    "mp4 with late sound": ("a.mp4", {"audio_late_seconds": 0.73}),
    "mkv": ("a.mkv", {"audio_codec": "ac3"}),
    "webm": ("a.webm", {"video_codec": "libvpx", "audio_codec": "libopus"}),
    "avi": ("a.avi", {"video_codec": "mpeg4", "audio_codec": "pcm_s16le"}),
    "avi with mp3": ("a.avi", {"video_codec": "mpeg4", "audio_codec": "libmp3lame"}),
    "mpeg-ts": ("a.ts", {"video_codec": "mpeg2video", "audio_codec": "mp2"}),
    "mpeg-ts, h264 and aac": ("a.ts", {}),
    "mov, 8 kHz": ("a.mov", {"audio_codec": "pcm_s16le", "sample_rate_hz": 8000}),
    "variable frame rate": ("a.mp4", {"times": VARIABLE}),
    "variable frame rate, mkv": ("a.mkv", {"times": VARIABLE, "audio_late_seconds": 0.3}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_frames_and_sound_of_clips_are_aligned(kind, tmp_path):
    name, how = KINDS[kind]
    write_clock_video(tmp_path / name, **how)
    clips = list(cut(tmp_path / name, Source(name, 1), PrepareOptions(clip_seconds=2.0)))
    assert sum(clip.duration_seconds for clip in clips) > 2.9
    errors = [
        read_clock(decode_jpeg(jpeg, 256).numpy())
        - hear_clock(clip.waveform, round(seconds * SAMPLE_RATE_HZ))
        for clip in clips
        for seconds, jpeg in zip(clip.frame_seconds, clip.frames, strict=True)
        if 0.03 < seconds < clip.duration_seconds - 0.03
    ]
    assert len(errors) > 10
    assert np.abs(errors).max() < TOLERANCE_SECONDS


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_pairs_are_aligned(name, tmp_path):
    (tmp_path / "videos").mkdir()
    for video in range(2):
        write_clock_video(tmp_path / "videos" / f"{video}{name}", seconds=4.0 + video)
    prepare([tmp_path / "videos"], tmp_path / "shards", workers=1)
    shards = Shards(tmp_path / "shards")
    stream = PairStream(shards, 2, seed=0, transform=FrameTransform(256, 256, random=True))
    for index in range(10):
        batch = stream.batch(index)
        for row in range(2):
            clip, frame = int(batch.choices.clips[row]), int(batch.choices.frames[row])
            inside = round(shards.frame_seconds(clip)[frame] * SAMPLE_RATE_HZ) - int(
                batch.choices.sound_starts[row]
            )
            assert 0 <= inside < SAMPLE_RATE_HZ
            shown = read_clock(batch.frames[row].permute(1, 2, 0).numpy())
            if 1500 < inside < SAMPLE_RATE_HZ - 1500:
                assert (
                    abs(shown - hear_clock(batch.waveforms[row].numpy(), inside))
                    < TOLERANCE_SECONDS
                )


def test_sound_that_starts_late_stays_late(tmp_path):
    write_clock_video(tmp_path / "late.mp4", audio_late_seconds=1.5)
    (clip,) = cut(tmp_path / "late.mp4", Source("late.mp4", 1), PrepareOptions())
    assert clip.start_seconds == pytest.approx(1.5, abs=0.03)
    assert read_clock(decode_jpeg(clip.frames[0], 256).numpy()) >= 1.48


def times_of(path, **sides):
    """When the frames are shown and where the chunks of sound begin, of the decoded sides."""
    frames, chunks = [], []
    for event in decode_media(path, DecodeOptions(**sides)):
        if isinstance(event, Frame):
            frames.append(event.at_seconds)
        else:
            chunks.append(event.start_seconds)
    return np.array(frames), np.array(chunks)


@pytest.mark.parametrize("lost", ["video", "audio"])
def test_a_hole_in_one_stream_of_a_broadcast_is_no_jump_of_its_clock(lost, tmp_path):
    hole = (2.0, 13.0)
    write_clock_video(
        tmp_path / "whole.ts", seconds=16.0, video_codec="mpeg2video", audio_codec="mp2"
    )
    path = tmp_path / "a.ts"
    with av.open(tmp_path / "whole.ts") as source, av.open(path, "w") as target:
        copies = {s.index: target.add_stream_from_template(s) for s in source.streams}
        for packet in source.demux():
            if not packet.size:
                continue
            seconds = float(packet.pts * packet.time_base) - source.start_time / av.time_base
            if packet.stream.type != lost or not hole[0] <= seconds < hole[1]:
                packet.stream = copies[packet.stream_index]
                target.mux(packet)
    frames, chunks = times_of(path)
    if lost == "video":
        assert not ((frames > hole[0] + 0.2) & (frames < hole[1] - 0.2)).any()
    clips = list(cut(path, Source(path.name), PrepareOptions(clip_seconds=1.0)))
    later = [clip for clip in clips if clip.start_seconds > hole[1] + 0.6]
    assert later
    for clip in later:
        at = clip.frame_seconds[1]
        shown = read_clock(decode_jpeg(clip.frames[1], 256).numpy())
        heard = hear_clock(clip.waveform, round(at * SAMPLE_RATE_HZ))
        assert heard == pytest.approx(shown, abs=0.03)
        assert shown == pytest.approx(clip.start_seconds + at, abs=0.03)
    # Each side alone has the times that it has with the other one.
    np.testing.assert_array_equal(times_of(path, audio=False)[0], frames)
    np.testing.assert_array_equal(times_of(path, video=False)[1], chunks)
