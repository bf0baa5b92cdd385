"""Indexing media and finding moments in them, through Python and the command line."""

import json
import os
import re
import shlex
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
from PIL import Image

import looklisten as ll
from browser import failures, lengths, opened, picture_widths
from conftest import small_config, write_clock_video, write_sound
from crashing import mov_with_channel_map
from looklisten.app.cli import main
from looklisten.errors import ConfigError, OptionError, SourceError, StoreError
from looklisten.search.finding.query import split_moment
from looklisten.search.finding.searching import class_spellings
from looklisten.search.indexing.empty_input import is_plain_hum, is_plain_noise
from looklisten.search.indexing.source_reader import as_int16
from looklisten.search.opening import open_store

RATE_HZ = 48_000


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """A network with untrained towers and the fusion `linear`, by its name."""
    recipe = tmp_path_factory.mktemp("recipe") / "linear.toml"
    config = small_config(objective="contrastive").changed("model", fusion="linear", sharpness=3.0)
    recipe.write_text(config.toml(), encoding="utf-8")
    return f"untrained:{recipe}"


@pytest.fixture(scope="module")
def media(world, tmp_path_factory):
    """Twelve videos, a sound, a picture, and a file that is no media."""
    folder = tmp_path_factory.mktemp("media")
    for path in sorted(world.rglob("*.mp4"))[:12]:
        shutil.copy(path, folder)
    write_sound(folder / "tone.wav", tone(3.0, 440.0))
    Image.effect_noise((80, 70), 60).resize((160, 140)).convert("RGB").save(folder / "picture.png")
    (folder / "broken.mp3").write_text("Dear all")
    return folder


@pytest.fixture(scope="module")
def db(media, network, tmp_path_factory):
    db = tmp_path_factory.mktemp("db") / "index"
    result = ll.index([media], db, network, device="cpu")
    assert (result.sources, result.indexed, result.failed) == (15, 14, 1)
    return db


def tone(seconds, hz):
    return 0.3 * np.sin(2 * np.pi * hz * np.arange(round(seconds * RATE_HZ)) / RATE_HZ)


def rows(db):
    """What every row holds, in the order of source and time."""
    with open_store(db) as store:
        moments = sorted(store.moments(), key=lambda m: (m.source, m.seconds))
    return [
        (m.source, m.seconds, m.moment_id, m.marks, m.thumbnail, vector(m.vision), vector(m.audio))
        for m in moments
    ]


def vector(values):
    return None if values is None else values.tobytes()


def test_an_index_has_one_moment_a_second_with_a_thumbnail(db, media):
    with open_store(db) as store:
        moments = list(store.moments())
    videos = [m for m in moments if m.source.endswith(".mp4")]
    assert {m.seconds for m in videos} == {0.0, 1.0}
    assert all(m.vision is not None and np.isclose(np.linalg.norm(m.vision), 1) for m in videos)
    for moment in videos:
        jpeg = (db / "thumbnails" / moment.thumbnail).read_bytes()
        assert min(simplejpeg.decode_jpeg(jpeg).shape[:2]) <= 128
    sound = [m for m in moments if m.source == str(media / "tone.wav")]
    assert [m.seconds for m in sound] == [0.0, 1.0, 2.0]
    assert all(m.vision is None and m.thumbnail is None for m in sound)
    picture = [m for m in moments if m.source.endswith("picture.png")]
    assert len(picture) == 1 and picture[0].audio is None
    failure = json.loads((db / "failures.jsonl").read_text())
    assert failure["source"] == str(media / "broken.mp3") and failure["reason"]


def test_a_moment_finds_itself_first_by_each_side(db, media):
    video = sorted(media.glob("*.mp4"))[3]
    with ll.open_index(db, device="cpu") as index:
        for find in ("sound", "picture"):
            hits = index.search(f"{video}@1", find=find, threshold=0.0, k=3)
            best = hits[0]
            assert best.source == str(video) and best.matched == find
            assert best.similarity > 0.99
            assert best.start_seconds <= 1.0 < best.end_seconds
        across = index.search(f"{video}@1", by="sound", find="picture", threshold=0.0)
        assert {scene.matched for scene in across} == {"picture"}
        only = index.search(video, where=f"source = '{media / 'tone.wav'}'", threshold=0.0)
        assert {scene.source for scene in only} == {str(media / "tone.wav")}


def test_the_order_is_that_of_the_similarity_and_k_limits_it(db, media):
    with ll.open_index(db, device="cpu") as index:
        hits = index.search(media / "tone.wav", find="sound", threshold=0.0, k=4)
        assert len(hits) == 4 and len({scene.source for scene in hits}) == 4
        similarities = [scene.similarity for scene in hits]
        assert similarities == sorted(similarities, reverse=True)
        assert hits[0].source == str(media / "tone.wav")
        # Three seconds in a row are one scene.
        assert (hits[0].start_seconds, hits[0].end_seconds) == (0.0, 3.0)


@pytest.mark.parametrize(
    "kind",
    [
        "silence",
        "offset",
        "white noise",
        "brown noise",
        "hum",
        "black",
        "one color",
        "random pixels",
    ],
)
def test_a_query_of_nothing_finds_nothing(db, tmp_path, kind):
    noise = np.random.default_rng(0)
    if kind in ("silence", "offset", "white noise", "brown noise", "hum"):
        wave = 0.1 * noise.standard_normal(3 * RATE_HZ) * (kind != "silence")
        if kind == "offset":
            wave = 0.3 + 2e-3 * wave
        if kind == "hum":
            wave = hum(50.05, 3.0) + 1e-3 * wave
        if kind == "brown noise":
            spectrum = np.fft.rfft(wave)
            wave = 40 * np.fft.irfft(spectrum / np.arange(1, len(spectrum) + 1))
        query = write_sound(tmp_path / "query.wav", wave)
    else:
        pixels = np.full((64, 64, 3), 140 if kind == "one color" else 0, np.uint8)
        if kind == "random pixels":
            pixels = noise.integers(0, 256, (64, 64, 3), np.uint8)
        query = tmp_path / "query.png"
        Image.fromarray(pixels).save(query)
    with ll.open_index(db, device="cpu") as index:
        hits = index.search(query, threshold=0.0)
    assert hits.nothing_found and not hits.nearest
    assert "only silence, noise, hum or one color" in hits.reason


def hum(hz, seconds=1.0):
    """That of the mains: the second harmonic is loudest, and the others are lower."""
    times = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    levels = {1: 0.05, 2: 0.1, 3: 0.04, 6: 0.02, 9: 0.01}
    return sum(level * np.sin(2 * np.pi * hz * number * times) for number, level in levels.items())


def test_only_plain_hum_is_hum():
    """Other tones are something to find, such as a flute, a beep, or a note of a bass."""
    noise = np.random.default_rng(0).standard_normal(RATE_HZ)
    waves = {
        "hum of 50 Hz": hum(50.0),
        "hum of 60 Hz": hum(59.9),
        "hum with faint hiss": hum(50.0) + 1e-3 * noise,
        "hum with a voice": hum(50.0) + 0.01 * np.convolve(noise, np.hanning(64), "same"),
        "hum with a quiet tone": hum(50.0) + 0.06 * tone(1.0, 930.0),
        "buzz": hum(50.0) + 0.5 * tone(1.0, 350.0),
        "test tone": tone(1.0, 1000.0),
        "beep of 350 Hz": tone(1.0, 350.0),
        "tone of 200 Hz": tone(1.0, 200.0),
        "tone of 240 Hz": tone(1.0, 240.0),
        "hum of a transformer": tone(1.0, 100.0),
        "bass": tone(1.0, 49.0) + tone(1.0, 98.0),
        "music in B": hum(61.7),
        "silence": 0 * noise,
    }
    plain = {name for name, wave in waves.items() if is_plain_hum(as_int16(np.float32(wave)))}
    assert plain == {
        "hum of 50 Hz",
        "hum of 60 Hz",
        "hum with faint hiss",
        "buzz",
        "hum of a transformer",
    }


def test_no_note_of_a_piano_is_hum():
    for key in range(88):
        wave = tone(1.0, 27.5 * 2 ** (key / 12))
        assert not is_plain_hum(as_int16(np.float32(wave))), key


def test_only_plain_noise_is_noise():
    """Tones, and noise that is filtered or changes, are something to find."""
    noise = np.random.default_rng(0).standard_normal(RATE_HZ)
    waves = {
        "plain": 0.1 * noise,
        "tone": tone(1.0, 440.0),
        "swelling": noise * np.linspace(0.02, 0.1, RATE_HZ),
        "muffled": 0.005 * np.convolve(noise, np.hanning(64), "same"),
        "with a tone": 0.03 * noise + tone(1.0, 900.0),
    }
    plain = {name for name, wave in waves.items() if is_plain_noise(as_int16(np.float32(wave)))}
    assert plain == {"plain"}


def test_below_the_threshold_the_nearest_are_given(db, media):
    with ll.open_index(db, device="cpu") as index:
        hits = index.search(media / "tone.wav", find="picture", threshold=1.0)
    assert hits.nothing_found and len(hits) == 0
    assert len(hits.nearest) == 3
    assert hits.reason.startswith("nothing reaches the score 1")


def test_a_second_run_reads_only_what_changed(media, network, tmp_path):
    folder, db = tmp_path / "media", tmp_path / "db"
    shutil.copytree(media, folder)
    first = ll.index([folder], db, network, device="cpu")
    before = rows(db)
    again = ll.index([folder], db, network, device="cpu")
    assert (again.indexed, again.unchanged) == (0, first.indexed)
    assert rows(db) == before

    videos = sorted(folder.glob("*.mp4"))
    os.utime(videos[0])  # another date, the same content
    videos[1].unlink()
    shutil.copy(videos[2], folder / "copy.mp4")
    write_sound(folder / "tone.wav", tone(2.0, 880.0))
    later = ll.index([folder], db, network, device="cpu")
    assert (later.indexed, later.removed, later.copies) == (1, 1, 1)
    sources = {row[0] for row in rows(db)}
    assert str(videos[1]) not in sources and str(folder / "copy.mp4") not in sources
    assert later.moments == len(rows(db))

    videos[2].unlink()  # the copy takes over
    ll.index([folder], db, network, device="cpu")
    assert str(folder / "copy.mp4") in {row[0] for row in rows(db)}
    folders = {path.parent.name for path in (db / "thumbnails").rglob("*.jpg")}
    assert folders == {row[4].split("/")[1] for row in rows(db) if row[4]}


def test_another_label_in_the_table_reaches_the_index(media, network, tmp_path):
    table, db = tmp_path / "table.csv", tmp_path / "db"
    names = [path.name for path in sorted(media.glob("*.mp4"))[:2]]
    for name in names:
        shutil.copy(media / name, tmp_path)
    table.write_text(f"path,label\n{names[0]},cat\n{names[1]},dog\n")
    ll.index([table], db, network, device="cpu")
    before = rows(db)
    table.write_text(f"path,label\n{names[0]},lion\n{names[1]},dog\n")
    result = ll.index([table], db, network, device="cpu")
    assert (result.indexed, result.unchanged, result.relabeled) == (0, 2, 1)
    with open_store(db) as store:
        labels = {moment.source.rpartition("/")[2]: moment.label for moment in store.moments()}
    assert labels == {names[0]: "lion", names[1]: "dog"}
    assert rows(db) == before
    assert ll.index([table], db, network, device="cpu").relabeled == 0


def test_one_long_scene_does_not_hide_the_others(network, tmp_path):
    """A scene of 120 moments, all nearer than the others, is one of the `k` scenes."""
    media = tmp_path / "media"
    media.mkdir()
    write_sound(media / "long.wav", tone(120.0, 440.0))
    for number in range(3):
        write_sound(media / f"it's {number}.wav", tone(2.0, 500.0 + 40 * number))
    ll.index([media], tmp_path / "db", network, device="cpu")
    write_sound(tmp_path / "query.wav", tone(1.0, 440.0))
    with ll.open_index(tmp_path / "db", device="cpu") as index:
        hits = index.search(tmp_path / "query.wav", k=4, threshold=0.0)
    assert hits[0].source.endswith("long.wav")
    assert len({hit.source for hit in hits}) == 4


def test_files_of_other_inputs_stay(media, network, tmp_path):
    videos = sorted(media.glob("*.mp4"))
    shutil.copy(videos[0], tmp_path / "one.mp4")
    (tmp_path / "folder").mkdir()
    shutil.copy(videos[1], tmp_path / "folder" / "two.mp4")
    db = tmp_path / "db"
    ll.index([tmp_path / "one.mp4"], db, network, device="cpu")
    (tmp_path / "one.mp4").unlink()
    result = ll.index([tmp_path / "folder"], db, network, device="cpu")
    assert result.removed == 0
    assert {row[0] for row in rows(db)} == {
        str(tmp_path / "one.mp4"),
        str(tmp_path / "folder" / "two.mp4"),
    }


def test_a_copy_takes_over_when_the_first_file_changes(media, network, tmp_path):
    """The copy comes first in the list, so it is seen before the file that changed."""
    videos = sorted(media.glob("*.mp4"))
    folder, db = tmp_path / "media", tmp_path / "db"
    folder.mkdir()
    shutil.copy(videos[0], folder / "second.mp4")
    ll.index([folder], db, network, device="cpu")
    (folder / "second.mp4").rename(folder / "first.mp4")
    shutil.copy(videos[1], folder / "second.mp4")
    result = ll.index([folder], db, network, device="cpu")
    assert (result.indexed, result.copies, result.removed) == (2, 0, 0)
    assert {row[0] for row in rows(db)} == set(map(str, folder.iterdir()))
    assert all((db / "thumbnails" / row[4]).is_file() for row in rows(db) if row[4])


def test_a_file_that_moved_is_found_at_its_new_place(media, network, tmp_path):
    video = sorted(media.glob("*.mp4"))[0]
    old, new, db = tmp_path / "old.mp4", tmp_path / "folder" / "new.mp4", tmp_path / "db"
    shutil.copy(video, old)
    ll.index([old], db, network, device="cpu")
    new.parent.mkdir()
    old.rename(new)
    result = ll.index([new.parent], db, network, device="cpu")
    assert (result.indexed, result.copies, result.removed) == (1, 0, 1)
    assert {row[0] for row in rows(db)} == {str(new)}


def test_a_file_that_changes_while_it_is_read_is_read_again(media, network, tmp_path):
    videos = sorted(media.glob("*.mp4"))
    folder, db = tmp_path / "media", tmp_path / "db"
    folder.mkdir()
    video, other = folder / "video.mp4", tmp_path / "other.mp4"
    shutil.copy(videos[0], video)
    shutil.copy(videos[1], other)

    def replace_once(done, total, at=""):
        if at and other.exists():
            other.replace(video)

    result = ll.index([folder], db, network, device="cpu", progress=replace_once)
    assert (result.indexed, result.failed) == (0, 1) and rows(db) == []
    assert "changed while it was read" in (db / "failures.jsonl").read_text()
    again = ll.index([folder], db, network, device="cpu")
    assert (again.indexed, again.failed) == (1, 0)


@pytest.mark.parametrize("text", ["[]", "null", '"a"', "{"])
def test_damaged_files_beside_the_store_get_a_sentence_or_are_made_anew(
    text, db, media, network, tmp_path
):
    copy = tmp_path / "db"
    shutil.copytree(db, copy)
    for name in ("network.json", "seen.jsonl", "failures.jsonl"):
        (copy / name).write_text(text)
    with pytest.raises(ConfigError, match="damaged; remove it"):
        ll.open_index(copy, network, device="cpu")
    (copy / "network.json").unlink()
    result = ll.index([media], copy, network, device="cpu")
    assert (result.indexed, result.unchanged, result.failed) == (0, 14, 1)


def test_an_index_among_its_sources_does_not_index_itself(media, network, tmp_path):
    shutil.copy(sorted(media.glob("*.mp4"))[0], tmp_path / "one.mp4")
    first = ll.index([tmp_path], tmp_path / "index", network, device="cpu")
    again = ll.index([tmp_path], tmp_path / "index", network, device="cpu")
    assert (first.sources, again.sources, again.unchanged) == (1, 1, 1)


def test_a_second_writer_is_refused(db, media, network):
    with open_store(db, create=True), pytest.raises(StoreError, match="is being written"):
        ll.index([media], db, network, device="cpu")


def test_marks_say_what_is_silent_black_still_or_repeated(network, tmp_path):
    still = np.concatenate([tone(2.0, 300.0), np.zeros(2 * RATE_HZ)])
    write_sound(tmp_path / "half.wav", still)
    Image.new("RGB", (64, 64)).save(tmp_path / "black.png")
    ll.index([tmp_path], tmp_path / "db", network, device="cpu")
    marks = {(row[0].rpartition("/")[2], row[1]): row[3] for row in rows(tmp_path / "db")}
    assert marks["half.wav", 0.0] == ()
    assert marks["half.wav", 2.0] == ("silent",)
    assert marks["half.wav", 3.0] == ("duplicate", "silent")
    assert marks["black.png", 0.0] == ("black",)
    vectors = {row[1]: row[6] for row in rows(tmp_path / "db") if row[0].endswith("half.wav")}
    assert vectors[2.0] is None and vectors[0.0] is not None


def test_another_network_and_other_moments_are_refused(db, media, network, run_path):
    with pytest.raises(ConfigError, match="a moment every 1 s, not every 2 s"):
        ll.index([media], db, network, device="cpu", every_seconds=2.0)
    with pytest.raises((ConfigError, StoreError), match="network"):
        ll.index([media], db, run_path, device="cpu")
    with pytest.raises(StoreError, match="made by another network"):
        ll.open_index(db, run_path, device="cpu").search(media / "tone.wav")


def test_a_network_without_a_common_space_is_refused(media, tmp_path):
    recipe = tmp_path / "paper.toml"
    recipe.write_text(small_config().changed("model", fusion="concat").toml(), encoding="utf-8")
    with pytest.raises(ConfigError, match="share no space"):
        ll.index([media], tmp_path / "db", f"untrained:{recipe}", device="cpu")
    assert not (tmp_path / "db").exists()


def test_what_cannot_be_a_query_gets_a_sentence(db, media):
    with ll.open_index(db, device="cpu") as index:
        with pytest.raises(SourceError, match="there is no file nowhere"):
            index.search("nowhere.mp4")
        with pytest.raises(SourceError, match="at 99 s"):
            index.search(f"{media / 'tone.wav'}@99")
        empty = index.search(media / "tone.wav", find="sound", where="seconds > 100")
        assert empty.reason == "no moment of the index has sound and matches the filter"
        with pytest.raises(OptionError, match=r"^the index .* has no tags") as refused:
            index.search(tag="dog")
        assert refused.value.as_typed == str(refused.value)
        with pytest.raises(OptionError, match="color"):
            index.search(media / "tone.wav", where="color = 3")
        for time in ("-1", "abc", "", "1:30", "nan", "inf"):
            with pytest.raises(SourceError, match="is no time; after @ stand seconds"):
                index.search(f"{media / 'tone.wav'}@{time}")
    with pytest.raises(StoreError):
        ll.open_index(media)


def test_a_file_that_crashes_the_decoder_is_opened_once(network, tmp_path):
    folder = tmp_path / "media"
    folder.mkdir()
    write_sound(folder / "tone.wav", tone(1.0, 440.0))
    mov_with_channel_map(folder / "bad.mov")
    first = ll.index([folder], tmp_path / "db", network, device="cpu")
    if first.failed == 0:
        pytest.skip("this decoder reads the file")
    assert (first.indexed, first.not_opened) == (1, 0)
    second = ll.index([folder], tmp_path / "db", network, device="cpu")
    assert (second.unchanged, second.failed) == (1, 1)


def test_the_command_line_indexes_and_searches(media, network, tmp_path, capsys):
    db = tmp_path / "db"
    arguments = ["index", str(media), "--db", str(db), "--checkpoint", network, "--device", "cpu"]
    assert main([*arguments, "--json"]) == 3, "one file is no media"
    assert json.loads(capsys.readouterr().out)["moments"] == len(rows(db))
    video = str(sorted(media.glob("*.mp4"))[0])
    search = ["search", f"{video}@0", "--db", str(db), "--device", "cpu"]
    assert main([*search, "-k", "2", "--threshold", "0", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert len(printed["hits"]) == 2 and printed["hits"][0]["source"] == video
    assert main([*search, "--threshold", "1"]) == 0
    captured = capsys.readouterr()
    assert "nothing reaches the score 1" in captured.out + captured.err
    assert main(["search", "--db", str(db)]) == 2
    assert main(["index", "--db", str(db)]) == 2


def test_the_page_of_hits_plays_and_jumps(network, tmp_path, capsys):
    folder = tmp_path / "my media"
    folder.mkdir()
    write_clock_video(folder / "clock # 1.webm", "libvpx", "libopus", seconds=5.0)
    write_sound(folder / "tone.wav", tone(4.0, 440.0))
    db, page = tmp_path / "db", tmp_path / "hits.html"
    ll.index([folder], db, network, device="cpu")
    query = str(folder / "clock # 1.webm@3")
    search = ["search", query, "--db", str(db), "--device", "cpu", "--threshold", "0"]
    assert main([*search, "-o", str(page), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["page"] == str(page)
    assert "data:image/webp" in page.read_text(), "the thumbnail has a heat map"
    with opened(page, tmp_path) as browser:
        assert all(seconds > 3 for seconds in lengths(browser, "video, audio"))
        assert min(picture_widths(browser)) > 0
        script = """
            const [done] = arguments, video = document.querySelector("video");
            video.muted = true;
            document.querySelector("figure:has(video) button").click();
            video.ontimeupdate = () => done([video.currentTime, video.paused]);
        """
        seconds, is_paused = browser.execute_async_script(script)
        wanted = browser.execute_script(
            "return Number(document.querySelector('figure:has(video)').dataset.seconds)"
        )
        assert wanted <= seconds < wanted + 1.5 and not is_paused
        assert not failures(browser)


@pytest.mark.skipif(sys.platform != "linux", reason="file names of any bytes")
@pytest.mark.parametrize("damage", ["none", "empty", "cut", "text", "gone"])
def test_a_page_of_odd_names_and_damaged_thumbnails(network, tmp_path, damage, capsys):
    folder, db, page = tmp_path / "media", tmp_path / "db", tmp_path / "hits.html"
    folder.mkdir()
    name = os.fsdecode(b"caf\xe9 <script>alert(1)</script>".replace(b"/", b"") + b"\"'.webm")
    write_clock_video(folder / "clock.webm", "libvpx", "libopus", seconds=1.5)
    (folder / "clock.webm").rename(folder / name)
    ll.index([folder], db, network, device="cpu")
    for path in (db / "thumbnails").rglob("*.jpg"):
        jpeg = path.read_bytes()
        path.unlink()
        if damage != "gone":
            path.write_bytes({"none": jpeg, "empty": b"", "cut": jpeg[:300], "text": b"a"}[damage])
    search = ["search", str(folder / name), "--db", str(db), "--device", "cpu", "--threshold", "0"]
    assert main([*search, "-o", str(page), "--json"]) == 0
    text = page.read_text()
    assert "<script>alert" not in text and "caf\\xe9 &lt;script&gt;alert" in text
    assert ("data:image/webp" in text) == (damage == "none")


@pytest.mark.parametrize(
    ("name", "path", "seconds"),
    [
        ("clip.mp4@12.5", "clip.mp4", 12.5),
        ("clip.mp4", "clip.mp4", None),
        ("me@home.mp4", "me@home.mp4", None),
        ("a@b@3", "a@b", 3.0),
        ("clip.mp4@-1", "clip.mp4@-1", None),
        ("clip.mp4@nan", "clip.mp4@nan", None),
    ],
)
def test_a_moment_is_named_by_its_time(name, path, seconds):
    found, at_seconds = split_moment(name)
    assert (str(found), at_seconds) == (path, seconds)


def test_a_file_of_that_name_is_no_moment(tmp_path):
    path = tmp_path / "clip@2"
    path.write_bytes(b"")
    assert split_moment(path) == (path, None)


def test_classes_are_known_by_each_of_their_names():
    assert class_spellings("Violin, fiddle") == {"violin, fiddle", "violin", "fiddle"}
    assert "rattle" in class_spellings("Rattle (instrument)")


def test_the_code_of_the_page_runs(media, network, tmp_path, monkeypatch, capsys):
    page = (Path(__file__).parents[1] / "docs" / "search.md").read_text(encoding="utf-8")
    page = re.sub(r"<!-- not run: .*? -->\n```.*?```", "", page, flags=re.DOTALL)
    blocks = re.findall(r"```(sh|python)\n(.*?)```", page, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    shutil.copytree(media, "my_videos")
    Path("my_videos/broken.mp3").unlink()
    videos = sorted(Path("my_videos").glob("*.mp4"))
    for name, numbers in (("robin", (1, 2, 3)), ("owl", (4, 5, 6))):
        Path("examples", name).mkdir(parents=True)
        for number in numbers:
            shutil.copy(videos[number], Path("examples", name))
    videos[0].rename("my_videos/clip.mp4")
    for language, text in blocks:
        if language == "python":
            exec(text.replace('"start"', repr(network)), {})
            continue
        for line in text.splitlines():
            words = shlex.split(line.replace("--checkpoint start", f"--checkpoint {network}"), True)
            assert main(words[1:]) == 0, line
    assert Path("hits.html").stat().st_size > 5_000


def test_both_stores_give_the_same_hits(db, media, network, tmp_path):
    pytest.importorskip("lancedb")
    ll.index([media], tmp_path / "lance", network, device="cpu", store="lance")
    query = f"{sorted(media.glob('*.mp4'))[3]}@1"
    with ll.open_index(db, device="cpu") as arrow, ll.open_index(tmp_path / "lance") as lance:
        for find in ("sound", "picture", "both"):
            wanted = arrow.search(query, find=find, threshold=0.0, k=5)
            hits = lance.search(query, find=find, threshold=0.0, k=5)
            assert [(h.source, h.seconds) for h in hits] == [(h.source, h.seconds) for h in wanted]
    again = ll.index([media], tmp_path / "lance", network, device="cpu")
    assert (again.indexed, again.unchanged) == (0, 14)
