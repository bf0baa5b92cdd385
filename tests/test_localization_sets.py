"""VGG-SS and Flickr-SoundNet in the layouts of their owners; errors name what is missing."""

import json
import re

import numpy as np
import pytest

from conftest import small_config, write_clock_video
from localization_set_files import (
    FLICKR_CLIPS,
    VGGSS_CLIPS,
    make_flickr_annotations,
    make_frames_and_sounds,
    make_vggss_annotations,
)
from looklisten.data.clips import Box
from looklisten.errors import SourceError
from looklisten.evaluation.localization.metrics import point_in_boxes, truth_map
from looklisten.evaluation.sets.annotated_media import read_annotated_moments
from looklisten.evaluation.sets.flickr_soundnet import FLICKR_SOUNDNET
from looklisten.evaluation.sets.vggss import VGGSS

FIRST, SECOND = VGGSS_CLIPS
CONFIG = small_config().model


@pytest.fixture
def vggss_json(tmp_path):
    return make_vggss_annotations(tmp_path / "vggss.json")


def test_vggss_of_frames_and_sounds(tmp_path, vggss_json):
    media = make_frames_and_sounds(tmp_path / "media", VGGSS_CLIPS)
    first, second = read_annotated_moments(VGGSS, media, vggss_json, CONFIG)
    assert (first.video_id, second.video_id) == (FIRST[:11], SECOND[:11])
    assert first.sounding == (Box(0.0, 0.25, 0.5, 0.75, 1.0, "elk", True),)
    assert (first.sounding_labels, first.silent, first.min_annotators) == ({"elk"}, (), 1)
    moment = first.load()
    assert moment.frame.shape[1] / moment.frame.shape[0] == pytest.approx(128 / 96, abs=0.02)
    assert abs(int(moment.frame[5, 5, 0]) - 200) < 4
    assert (moment.start_seconds, moment.frame_seconds, len(moment.waveform)) == (0.5, 1.0, 48_000)
    assert 15_000 < np.abs(moment.waveform).max() < 18_000


def test_a_sound_shorter_than_a_second_is_repeated(tmp_path, vggss_json):
    media = make_frames_and_sounds(tmp_path / "media", VGGSS_CLIPS, seconds=0.4)
    waveform = read_annotated_moments(VGGSS, media, vggss_json, CONFIG)[0].load().waveform
    assert len(waveform) == 48_000
    assert (waveform[:10_000] == waveform[19_200:29_200]).all()


def test_a_position_of_flickr_soundnet_is_true_if_two_annotators_agree(tmp_path):
    media = make_frames_and_sounds(tmp_path / "media", FLICKR_CLIPS)
    annotations = make_flickr_annotations(tmp_path / "Annotations")
    moment = read_annotated_moments(FLICKR_SOUNDNET, media, annotations, CONFIG)[0]
    truth = truth_map(moment.sounding, moment.min_annotators)
    assert (len(moment.sounding), moment.sounding_labels) == (3, frozenset())
    assert (truth[10, 10], truth[200, 10], truth[80, 80], truth[200, 200]) == (1, 0.5, 1, 0)
    assert point_in_boxes(moment.sounding, (0.1, 0.1), moment.min_annotators)
    assert not point_in_boxes(moment.sounding, (0.1, 0.9), moment.min_annotators)


def test_videos_of_vggss_are_named_by_id_and_start_in_any_folder(tmp_path, vggss_json):
    """The moment is the middle of the video."""
    media = tmp_path / "media"
    (media / "elk").mkdir(parents=True)
    write_clock_video(media / "elk" / f"{FIRST}.mp4", seconds=3.0)
    write_clock_video(media / f"{SECOND[:11]}.mp4", seconds=3.0)
    moments = read_annotated_moments(VGGSS, media, vggss_json, CONFIG)
    assert len(moments) == 2
    for moment in moments:
        assert moment.load().frame_seconds == pytest.approx(1.5, abs=0.15)
        assert moment.load().start_seconds == pytest.approx(1.0, abs=0.05)


def test_a_video_without_a_start_is_not_taken_for_one_of_two_clips(tmp_path):
    write_clock_video(tmp_path / f"{FIRST[:11]}.mp4", seconds=2.0)
    entries = [
        {"file": f"{FIRST[:11]}_{start}", "class": "elk", "bbox": [[0, 0, 1, 1]]}
        for start in ("000032", "000062")
    ]
    (tmp_path / "vggss.json").write_text(json.dumps(entries))
    with pytest.raises(SourceError, match="lacks 2 of the 2 clips"):
        read_annotated_moments(VGGSS, tmp_path, tmp_path / "vggss.json", CONFIG)


def test_videos_of_flickr_soundnet_are_named_by_id_also_behind_links(tmp_path):
    media = tmp_path / "media"
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    media.mkdir()
    (media / "link").symlink_to(elsewhere)
    write_clock_video(elsewhere / f"{FLICKR_CLIPS[0]}.mp4", seconds=3.0)
    annotations = make_flickr_annotations(tmp_path / "Annotations")
    # As macOS leaves beside each file on disks of other systems.
    (annotations / f"._{FLICKR_CLIPS[0]}.xml").write_bytes(b"\0\5\x16\7")
    (moment,) = read_annotated_moments(FLICKR_SOUNDNET, media, annotations, CONFIG, partial=True)
    assert moment.video_id == FLICKR_CLIPS[0]
    assert moment.load().frame_seconds == pytest.approx(1.5, abs=0.15)


def test_a_list_of_clips_restricts_the_moments(tmp_path, vggss_json):
    media = make_frames_and_sounds(tmp_path / "media", (SECOND,))
    ids = tmp_path / "ids.csv"
    ids.write_text(f"{SECOND},202\n")
    (moment,) = read_annotated_moments(VGGSS, media, vggss_json, CONFIG, ids)
    assert moment.video_id == SECOND[:11]
    # As a spreadsheet program saves it.
    ids.write_text(f"{SECOND},202\n", encoding="utf-16")
    assert len(read_annotated_moments(VGGSS, media, vggss_json, CONFIG, ids)) == 1
    ids.write_text(f"{SECOND}\nnobody\n")
    with pytest.raises(SourceError, match=r"lacks 1 of the 2 clips of .*ids.csv, such as nobody"):
        read_annotated_moments(VGGSS, media, vggss_json, CONFIG, ids)
    with pytest.raises(SourceError, match="cannot be read as a list of clips"):
        read_annotated_moments(VGGSS, media, vggss_json, CONFIG, tmp_path / "none.csv")


def test_missing_media_are_an_error(tmp_path, vggss_json):
    media = make_frames_and_sounds(tmp_path / "media", (FIRST,))
    sentence = (
        f"{media} lacks 1 of the 2 clips of {vggss_json}, such as {SECOND}: there is neither "
        f"frames/{SECOND}.jpg with audio/{SECOND}.wav, nor a video such as {SECOND}.mp4; "
        f"--partial measures the other clips, which gives a figure that cannot be compared"
    )
    with pytest.raises(SourceError, match=re.escape(sentence)):
        read_annotated_moments(VGGSS, media, vggss_json, CONFIG)
    assert len(read_annotated_moments(VGGSS, media, vggss_json, CONFIG, partial=True)) == 1
    with pytest.raises(SourceError, match=r"lacks 2 of the 2 clips .* give another folder"):
        read_annotated_moments(VGGSS, tmp_path, vggss_json, CONFIG, partial=True)
    (tmp_path / "half" / "frames").mkdir(parents=True)
    with pytest.raises(SourceError, match="lacks 2 of the 2 clips"):
        read_annotated_moments(VGGSS, tmp_path / "half", vggss_json, CONFIG)
    no_folder = r"there is no folder .*nowhere; give the folder with frames and audio, or with"
    with pytest.raises(SourceError, match=no_folder):
        read_annotated_moments(VGGSS, tmp_path / "nowhere", vggss_json, CONFIG)


def test_annotations_of_vggss_that_are_something_else_are_an_error(tmp_path):
    media = make_frames_and_sounds(tmp_path / "media", VGGSS_CLIPS)
    file = tmp_path / "vggss.json"
    with pytest.raises(SourceError, match=r"vggss.json cannot be read .*; give the vggss.json of"):
        read_annotated_moments(VGGSS, media, file, CONFIG)
    for text in ("{", '["a"]', '[{"file": "a", "class": "b", "bbox": [[1, 2, 3]]}]', "3"):
        file.write_text(text)
        with pytest.raises(SourceError, match="is not a list of"):
            read_annotated_moments(VGGSS, media, file, CONFIG)


def test_annotations_of_flickr_soundnet_that_are_something_else_are_an_error(tmp_path):
    media = make_frames_and_sounds(tmp_path / "media", FLICKR_CLIPS)
    no_folder = "is not a folder of XML files; give the folder Annotations of Flickr-SoundNet"
    with pytest.raises(SourceError, match=no_folder):
        read_annotated_moments(FLICKR_SOUNDNET, media, tmp_path, CONFIG)
    annotations = make_flickr_annotations(tmp_path / "Annotations")
    for text in (
        "<annotation>",
        "<a><b><bbox><name>x</name><c>1</c></bbox></b></a>",
        "<a><bbox><n/><c/><c/><c/><c/></bbox></a>",
    ):
        (annotations / f"{FLICKR_CLIPS[0]}.xml").write_text(text)
        with pytest.raises(SourceError, match="has a box that is not a name and four numbers"):
            read_annotated_moments(FLICKR_SOUNDNET, media, annotations, CONFIG)
