"""Many files through the shell: each gives a whole file of vectors or a line in failures.jsonl, and nothing is done twice."""

import json
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from pyarrow import parquet

from conftest import write_clock_video, write_sound
from looklisten.app.cli import main
from looklisten.inference.embed import embed
from looklisten.model.checkpoint import load


@pytest.fixture(scope="module")
def media(tmp_path_factory):
    """Two folders with equal names in them, a video, a picture, a text and what is no media."""
    folder = tmp_path_factory.mktemp("media")
    for number, name in enumerate(("a/x.wav", "b/x.wav", "b/x.flac")):
        (folder / name).parent.mkdir(exist_ok=True)
        wave = np.random.default_rng(number).standard_normal(60_000).astype(np.float32) * 0.1
        write_sound(folder / name, wave, codec="flac" if name.endswith("flac") else "pcm_f32le")
    write_clock_video(folder / "b" / "clock.mp4", seconds=2.0)
    Image.effect_noise((80, 70), 60).convert("RGB").save(folder / "picture.png")
    (folder / "notes.md").write_text("not looked at: no name of a medium")
    (folder / "broken.mp3").write_text("Dear all")
    return folder


@pytest.fixture(scope="module")
def whole(media, run_path, tmp_path_factory):
    """One run over everything."""
    out = tmp_path_factory.mktemp("out") / "vectors"
    torch.set_num_threads(2)  # as every test has: the number of threads is part of the last bit
    assert main(["embed", str(media), "--checkpoint", str(run_path), "-o", str(out)]) == 3, "one of the files failed"
    return out


def names(out):
    return sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file())


def told(capsys):
    return json.loads(capsys.readouterr().out)


def test_every_file_has_its_vectors_in_the_same_structure(whole, media, run_path):
    vectors = ["a/x.wav.npz", "b/clock.mp4.npz", "b/x.flac.npz", "b/x.wav.npz", "picture.png.npz"]
    assert names(whole) == sorted([*vectors, "embed.json", "failures.jsonl"])
    model = load(run_path)
    for name in vectors:
        found = np.load(whole / name)
        source = media / name.removesuffix(".npz")
        for side in ("audio", "vision") if "clock" in name else ("vision",) if "picture" in name else ("audio",):
            own = embed(source, model, side=side)
            assert np.array_equal(found[side], own.vectors)
            assert found[side].dtype == np.float32
            assert np.array_equal(found[f"{side}_start_seconds"], own.start_seconds)
            about = json.loads(str(found["about"]))
            assert about["source"] == name.removesuffix(".npz")
            assert about[side] == {"layer": "pool4", "window_seconds": own.window_seconds, "centered": False}


def test_what_failed_is_written_down(whole, media):
    (line,) = (whole / "failures.jsonl").read_text().splitlines()
    assert json.loads(line)["source"] == "broken.mp3"
    assert "cannot be opened" in json.loads(line)["reason"]


def test_done_files_are_left_and_failed_ones_tried_again(whole, media, run_path, tmp_path, capsys):
    out = tmp_path / "vectors"
    shutil.copytree(whole, out)
    command = ["embed", str(media), "--checkpoint", str(run_path), "-o", str(out)]
    before = (out / "a" / "x.wav.npz").stat().st_mtime_ns
    (out / "b" / "x.wav.npz").unlink()
    assert main(command) == 3
    summary = told(capsys)
    assert (summary["sources"], summary["embedded"], summary["skipped"], summary["failed"]) == (6, 1, 4, 1)
    assert (out / "b" / "x.wav.npz").read_bytes() == (whole / "b" / "x.wav.npz").read_bytes(), "the same bytes as the first time"
    assert (out / "a" / "x.wav.npz").stat().st_mtime_ns == before
    assert len((out / "failures.jsonl").read_text().splitlines()) == 1
    assert main([*command, "--overwrite"]) == 3
    assert told(capsys)["embedded"] == 5
    assert (out / "a" / "x.wav.npz").stat().st_mtime_ns > before


@pytest.mark.parametrize("changed", [["--hop-seconds", "0.25"], ["--layer", "conv4_2"], ["--center"], ["--normalize"]])
def test_a_folder_holds_vectors_of_one_kind(whole, media, run_path, tmp_path, capsys, changed):
    out = tmp_path / "vectors"
    shutil.copytree(whole, out)
    assert main(["embed", str(media), "--checkpoint", str(run_path), "-o", str(out), *changed]) == 1
    assert "holds vectors made otherwise" in re.sub(r"\s+", " ", capsys.readouterr().err)
    assert main(["embed", str(media / "b"), "--checkpoint", str(run_path), "-o", str(out)]) == 1, "b/x.wav is not x.wav"


def test_aligned_sides_have_one_time(media, run_path, tmp_path):
    out = tmp_path / "aligned"
    video = str(media / "b" / "clock.mp4")
    assert main(["embed", video, "--checkpoint", str(run_path), "-o", str(out), "--align", "--hop-seconds", "0.3"]) == 0
    found, own = np.load(out / "clock.mp4.npz"), embed(video, load(run_path), hop_seconds=0.3, align=True)
    assert np.array_equal(found["audio_start_seconds"], found["vision_start_seconds"])
    assert np.array_equal(found["frame_seconds"], own.frame_seconds)
    assert np.array_equal(found["vision"], own.vision.vectors)


@pytest.mark.parametrize("modality", ["audio", "image"])
def test_one_side_of_a_video(media, run_path, tmp_path, modality):
    out = tmp_path / modality
    assert main(["embed", str(media / "b" / "clock.mp4"), "--checkpoint", str(run_path), "-o", str(out), "--modality", modality]) == 0
    arrays = set(np.load(out / "clock.mp4.npz").files)
    side = {"audio": "audio", "image": "vision"}[modality]
    assert arrays == {side, f"{side}_start_seconds", "about"}


def test_the_formats_hold_the_same(whole, media, run_path, tmp_path):
    reference = np.load(whole / "b" / "clock.mp4.npz")
    for format in ("parquet", "jsonl"):
        command = ["embed", str(media / "b" / "clock.mp4"), "--checkpoint", str(run_path), "-o", str(tmp_path), "--format", format]
        assert main([*command, "--overwrite"]) == 0
        path = tmp_path / f"clock.mp4.{format}"
        if format == "parquet":
            rows = parquet.read_table(path).to_pylist()
        else:
            rows = [json.loads(line) for line in path.read_text().splitlines()]
        for side in ("audio", "vision"):
            own = [row for row in rows if row["side"] == side]
            assert np.array_equal(np.array([row["vector"] for row in own], np.float32), reference[side])
            assert [row["start_seconds"] for row in own] == reference[f"{side}_start_seconds"].tolist()
            assert {(row["source"], row["layer"]) for row in own} == {("clock.mp4", "pool4")}


def test_a_list_with_a_name_that_leads_nowhere(media, run_path, tmp_path, capsys):
    (media / "list.txt").write_text("a/x.wav\nnowhere.wav\n")
    assert main(["embed", str(media / "list.txt"), "--checkpoint", str(run_path), "-o", str(tmp_path / "out")]) == 3
    assert told(capsys)["sources"] == 2
    assert "there is no such file" in (tmp_path / "out" / "failures.jsonl").read_text()
    (media / "list.txt").unlink()


def test_a_killed_run_leaves_whole_files_only(media, run_path, tmp_path):
    """What is half written when the process ends is under another name, and swept by the next run."""
    out = tmp_path / "out"
    program = f"""
import os
import looklisten.inference.embed_files as files
from looklisten.app.cli import main

def some(parts):
    yield next(iter(parts))
    os._exit(9)

files.gathered = some
main(["embed", {str(media)!r}, "--checkpoint", {str(run_path)!r}, "-o", {str(out)!r}])
"""
    assert subprocess.run([sys.executable, "-c", program], check=False, env=os.environ, capture_output=True).returncode == 9
    assert any(".aside-" in name for name in names(out))
    assert not any(name.endswith(".npz") and ".aside-" not in name for name in names(out))
    main(["embed", str(media), "--checkpoint", str(run_path), "-o", str(out)])
    assert not any(".aside-" in name for name in names(out))
    assert "a/x.wav.npz" in names(out)


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        ([], 2, "embed needs files or folders"),
        (["nowhere"], 1, "there is no file or folder nowhere"),
        (["MEDIA/notes.md"], 3, ""),
        (["MEDIA", "--layer", "pool9"], 1, "there is no layer 'pool9'"),
        (["EMPTY"], 1, "holds no sound, picture or video"),
    ],
)
def test_wrong_words_end_in_a_sentence(media, run_path, tmp_path, capsys, arguments, code, sentence):
    (tmp_path / "empty").mkdir()
    given = [word.replace("MEDIA", str(media)).replace("EMPTY", str(tmp_path / "empty")) for word in arguments]
    assert main(["embed", *given, "--checkpoint", str(run_path), "-o", str(tmp_path / "out")]) == code
    assert sentence in re.sub(r"\s+", " ", capsys.readouterr().err)


def test_tables_of_stretches_are_refused(media, run_path, tmp_path, capsys):
    (tmp_path / "clips.csv").write_text(f"path,start_seconds,stop_seconds\n{media / 'a' / 'x.wav'},0,1\n")
    assert main(["embed", str(tmp_path / "clips.csv"), "--checkpoint", str(run_path), "-o", str(tmp_path / "out")]) == 1
    assert "embed takes whole files" in re.sub(r"\s+", " ", capsys.readouterr().err)
