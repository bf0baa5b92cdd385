"""Many files through the command line: each gives a file of vectors or a line in failures.jsonl."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pyarrow import parquet

from conftest import THREADS, write_clock_video, write_sound
from crashing import mov_with_channel_map
from looklisten.app.cli import main
from looklisten.inference.embedding.embed import embed
from looklisten.inference.embedding.failures import FailureLog
from looklisten.inference.embedding.output_files import shorten_name
from looklisten.interop.publish import save_pretrained
from looklisten.model.networks import load


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
def vectors_of_media(media, run_path, tmp_path_factory):
    """The output of one run over all files."""
    out = tmp_path_factory.mktemp("out") / "vectors"
    torch.set_num_threads(THREADS)  # the number of threads is part of the last bit
    assert main(["embed", str(media), "--checkpoint", str(run_path), "-o", str(out)]) == 3, (
        "one of the files failed"
    )
    return out


def file_names(out):
    return sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file())


def printed(capsys):
    return json.loads(capsys.readouterr().out)


def test_every_file_has_its_vectors_in_the_same_folders(vectors_of_media, media, run_path):
    vectors = ["a/x.wav.npz", "b/clock.mp4.npz", "b/x.flac.npz", "b/x.wav.npz", "picture.png.npz"]
    assert file_names(vectors_of_media) == sorted([*vectors, "embed.json", "failures.jsonl"])
    model = load(run_path)
    for name in vectors:
        found = np.load(vectors_of_media / name)
        source = media / name.removesuffix(".npz")
        for side in (
            ("audio", "vision")
            if "clock" in name
            else ("vision",)
            if "picture" in name
            else ("audio",)
        ):
            own = embed(source, model, side=side)
            assert np.array_equal(found[side], own.vectors)
            assert found[side].dtype == np.float32
            assert np.array_equal(found[f"{side}_start_seconds"], own.start_seconds)
            about = json.loads(str(found["about"]))
            assert about["source"] == name.removesuffix(".npz")
            assert about[side] == {
                "layer": "pool4",
                "window_seconds": own.window_seconds,
                "centered": False,
            }


def test_failures_are_written_down(vectors_of_media, media):
    (line,) = (vectors_of_media / "failures.jsonl").read_text().splitlines()
    assert json.loads(line)["source"] == "broken.mp3"
    assert "cannot be opened" in json.loads(line)["reason"]


def test_a_second_run_embeds_only_what_is_missing_or_failed(
    vectors_of_media, media, run_path, tmp_path, capsys
):
    out = tmp_path / "vectors"
    shutil.copytree(vectors_of_media, out)
    command = ["embed", str(media), "--checkpoint", str(run_path), "-o", str(out)]
    before = (out / "a" / "x.wav.npz").stat().st_mtime_ns
    (out / "b" / "x.wav.npz").unlink()
    assert main(command) == 3
    summary = printed(capsys)
    assert (summary["sources"], summary["embedded"], summary["skipped"], summary["failed"]) == (
        6,
        1,
        4,
        1,
    )
    assert (out / "b" / "x.wav.npz").read_bytes() == (
        vectors_of_media / "b" / "x.wav.npz"
    ).read_bytes(), "the same bytes as the first time"
    assert (out / "a" / "x.wav.npz").stat().st_mtime_ns == before
    assert len((out / "failures.jsonl").read_text().splitlines()) == 1
    assert main([*command, "--overwrite"]) == 3
    assert printed(capsys)["embedded"] == 5
    assert (out / "a" / "x.wav.npz").stat().st_mtime_ns > before


@pytest.mark.parametrize(
    "changed", [["--hop-seconds", "0.25"], ["--layer", "conv4_2"], ["--center"], ["--normalize"]]
)
def test_a_folder_holds_vectors_of_one_kind(
    vectors_of_media, media, run_path, tmp_path, capsys, changed
):
    out = tmp_path / "vectors"
    shutil.copytree(vectors_of_media, out)
    assert main(["embed", str(media), "--checkpoint", str(run_path), "-o", str(out), *changed]) == 1
    assert "holds vectors with other settings" in re.sub(r"\s+", " ", capsys.readouterr().err)


def command_of(media, run_path, out, *options):
    return ["embed", str(media), "--checkpoint", str(run_path), "-o", str(out), *options]


@pytest.fixture
def two_sounds(tmp_path):
    """Two short sounds in a folder of their own."""
    for number, name in enumerate(("a.wav", "b.wav")):
        wave = np.random.default_rng(number).standard_normal(60_000).astype(np.float32) * 0.1
        (tmp_path / "in").mkdir(exist_ok=True)
        write_sound(tmp_path / "in" / name, wave)
    return tmp_path / "in"


def test_a_name_that_is_not_utf8_is_embedded_once(two_sounds, run_path, tmp_path, capsys):
    (two_sounds / "a.wav").rename(two_sounds / os.fsdecode(b"caf\xe9.wav"))
    command = command_of(two_sounds, run_path, tmp_path / "out")
    main(command)
    assert printed(capsys)["embedded"] == 2
    main(command)
    again = printed(capsys)
    assert (again["skipped"], again["failed"]) == (2, 0)


@pytest.mark.parametrize("format", ["npz", "parquet", "jsonl"])
def test_a_folder_whose_name_is_not_utf8_gets_vectors(two_sounds, run_path, tmp_path, format):
    out = tmp_path / os.fsdecode(b"caf\xe9")
    command = [*command_of(two_sounds, run_path, out), "--format", format]
    assert main(command) == 0
    assert {path.suffix for path in out.rglob("*.wav.*")} == {f".{format}"}
    assert main(command) == 0


def test_in_a_locale_without_utf8_names_keep_their_bytes(two_sounds, run_path, tmp_path):
    (two_sounds / "a.wav").rename(two_sounds / "été.wav")
    command = command_of(two_sounds, run_path, tmp_path / "out")
    environment = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(
        [sys.executable, "-m", "looklisten", *command],
        env=os.environ | environment,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "été.wav.npz").exists()


def other_network(run_path, folder):
    """A copy of a run whose weights are others, as after more training."""
    model = load(run_path)
    with torch.no_grad():
        next(model.audio.parameters()).mul_(1.5)
    return save_pretrained(model, folder)


def test_vectors_of_two_networks_are_never_in_one_folder(two_sounds, run_path, tmp_path, capsys):
    """A run that is trained on is another network under the same name."""
    out, network = tmp_path / "out", tmp_path / "network"
    save_pretrained(run_path, network)
    assert main(command_of(two_sounds, network, out)) == 0
    about = json.loads((out / "embed.json").read_text())
    assert about["step"] == 20
    assert not {"root", "network"} & set(about)
    before = {path: path.read_bytes() for path in out.glob("*.npz")}
    shutil.rmtree(network)
    other_network(run_path, network)
    assert main(command_of(two_sounds, network, out)) == 1
    message = re.sub(r"\s+", " ", capsys.readouterr().err)
    difference = r"\(step 20, now step 0\): another network \([0-9a-f]{12} instead of"
    assert re.search(f"holds vectors with other settings {difference}", message), message
    assert before == {path: path.read_bytes() for path in out.glob("*.npz")}
    # The same weights from another place are the same network.
    assert main(command_of(two_sounds, run_path, out)) == 0
    assert printed(capsys)["skipped"] == 2


def test_overwrite_leaves_no_vectors_of_two_kinds(two_sounds, run_path, tmp_path, capsys):
    out, other = tmp_path / "out", other_network(run_path, tmp_path / "other")
    assert main(command_of(two_sounds, run_path, out)) == 0
    assert main(command_of(two_sounds / "a.wav", other, out, "--overwrite")) == 1
    said = re.sub(r"\s+", " ", capsys.readouterr().err)
    assert "holds 1 files of vectors with other settings that --overwrite would not replace" in said
    assert main(command_of(two_sounds, other, out, "--overwrite")) == 0
    assert printed(capsys)["embedded"] == 2


def test_an_interrupted_overwrite_resumes(two_sounds, run_path, tmp_path, capsys):
    """The folder says that its vectors are the new network's; the file that was not reached yet
    says otherwise.
    """
    out, other = tmp_path / "out", other_network(run_path, tmp_path / "other")
    assert main(command_of(two_sounds, run_path, out)) == 0
    old = (out / "b.wav.npz").read_bytes()
    assert main(command_of(two_sounds, other, out, "--overwrite")) == 0
    (out / "b.wav.npz").write_bytes(old)
    capsys.readouterr()
    assert main(command_of(two_sounds, other, out)) == 0
    assert (out / "b.wav.npz").read_bytes() != old
    summary = printed(capsys)
    assert (summary["embedded"], summary["skipped"]) == (1, 1)


@pytest.mark.parametrize("format", ["npz", "parquet", "jsonl"])
def test_a_source_that_changed_is_embedded_again(two_sounds, run_path, tmp_path, capsys, format):
    out = tmp_path / "out"
    command = command_of(two_sounds, run_path, out, "--format", format)
    assert main(command) == 0
    capsys.readouterr()
    before = (out / f"a.wav.{format}").read_bytes()
    shutil.copy(two_sounds / "b.wav", two_sounds / "a.wav")  # of the same size
    os.utime(two_sounds / "b.wav", (1e9, 1e9))  # touched, but the same bytes
    assert main(command) == 0
    summary = printed(capsys)
    assert (summary["embedded"], summary["changed"], summary["skipped"]) == (1, 1, 1)
    assert (out / f"a.wav.{format}").read_bytes() != before
    assert main(command) == 0
    assert printed(capsys)["skipped"] == 2


def test_moved_sources_are_still_done(two_sounds, run_path, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(command_of(two_sounds, run_path, out)) == 0
    two_sounds.rename(tmp_path / "moved")
    capsys.readouterr()
    assert main(command_of(tmp_path / "moved", run_path, out)) == 0
    assert printed(capsys)["skipped"] == 2


def test_a_folder_of_an_older_version_is_an_error(two_sounds, run_path, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(command_of(two_sounds, run_path, out)) == 0
    about = json.loads((out / "embed.json").read_text())
    del about["network_sha256"]
    (out / "embed.json").write_text(
        json.dumps(about | {"root": "/elsewhere", "network": "runs/tiny"})
    )
    assert main(command_of(two_sounds, run_path, out)) == 1
    said = re.sub(r"\s+", " ", capsys.readouterr().err)
    assert "does not say which network made the vectors" in said
    assert "use another folder, or --overwrite" in said


def test_names_that_are_too_long_for_a_file_system(two_sounds, run_path, tmp_path, capsys):
    """Of 252 bytes, so that `.npz` makes 256; two that differ at the end alone stay two."""
    for letter in ("x", "y"):
        shutil.copy(two_sounds / "a.wav", two_sounds / f"{'é' * 123}a{letter}.wav")
    assert main(command_of(two_sounds, run_path, tmp_path / "out")) == 0
    assert printed(capsys)["embedded"] == 4
    made = [path for path in (tmp_path / "out").glob("*.npz") if "~" in path.name]
    assert len(made) == 2
    assert all(len(os.fsencode(path.name)) <= 255 for path in made)
    sources = {json.loads(str(np.load(path)["about"]))["source"] for path in made}
    assert sources == {f"{'é' * 123}a{letter}.wav" for letter in ("x", "y")}
    assert main(command_of(two_sounds, run_path, tmp_path / "out")) == 0
    assert printed(capsys)["skipped"] == 4


@settings(deadline=None)
@given(
    st.text(st.characters(exclude_characters="/\0", codec=None), min_size=1, max_size=400),
    st.sampled_from(["", ".npz", ".parquet"]),
)
def test_shortened_names_fit(name, suffix):
    fitted = shorten_name(name, suffix)
    assert fitted.endswith(suffix)
    assert len(fitted.encode("utf-8", "surrogatepass")) <= 255 or "\\u" in ascii(name)
    assert shorten_name(name, suffix) == fitted
    assert shorten_name(name + "x", suffix) != fitted


def kills_the_decoder(folder):
    """A file that crashes it for real; skipped where this PyAV survives it."""
    path = mov_with_channel_map(folder / "crash.mov")
    program = (
        f"from looklisten.media.decode.decode import decode_audio; decode_audio({str(path)!r})"
    )
    if (
        subprocess.run([sys.executable, "-c", program], check=False, capture_output=True).returncode
        >= 0
    ):
        pytest.skip("this PyAV survives a list of channels")
    return path


def test_a_file_that_kills_the_decoder_fails_alone_and_is_remembered(
    two_sounds, run_path, tmp_path, capsys
):
    crash, out = kills_the_decoder(two_sounds), tmp_path / "out"
    command = command_of(two_sounds, run_path, out, "--modality", "audio")
    assert main(command) == 3
    summary = printed(capsys)
    assert (summary["embedded"], summary["failed"], summary["not_opened"]) == (2, 1, 0)
    (line,) = map(json.loads, (out / "failures.jsonl").read_text().splitlines())
    assert line["source"] == "crash.mov"
    assert re.search(r"crash\.mov: the decoder crashed its process \(SIG\w+\)", line["reason"])
    assert (line["decoder_lost"], line["source_bytes"]) == (True, crash.stat().st_size)

    assert main(command) == 3, "it still fails"
    captured = capsys.readouterr()
    assert json.loads(captured.out)["not_opened"] == 1
    assert (out / "failures.jsonl").read_text() == json.dumps(line) + "\n"

    assert main([*command, "--retry-crashed"]) == 3
    assert printed(capsys)["not_opened"] == 0

    shutil.copy(two_sounds / "a.wav", crash)  # repaired
    assert main(command) == 0
    summary = printed(capsys)
    assert (summary["embedded"], summary["failed"], summary["not_opened"]) == (1, 0, 0)
    assert (out / "failures.jsonl").read_text() == ""


def test_a_file_that_hangs_the_decoder_fails_alone(two_sounds, run_path, tmp_path, capsys):
    """A pipe that nobody writes to stands for a network drive that does not answer."""
    os.mkfifo(two_sounds / "pipe.wav")
    (tmp_path / "list.txt").write_text("in/a.wav\nin/b.wav\nin/pipe.wav\n")
    assert (
        main(command_of(tmp_path / "list.txt", run_path, tmp_path / "out", "--stall-seconds", "3"))
        == 3
    )
    assert printed(capsys)["embedded"] == 2


def test_failures_hold_names_that_are_not_utf8(tmp_path):
    failures = FailureLog(tmp_path / "failures.jsonl")
    failures.keep_lines(lambda _: True)
    failures.add("caf\udce9.mp4", "caf\udce9.mp4 is no media")
    failures.add("café.mp4", "nor this")
    again = FailureLog(tmp_path / "failures.jsonl")
    again.keep_lines(lambda _: True)
    assert [line["source"] for line in again.lines] == ["caf\udce9.mp4", "café.mp4"]


def test_aligned_sides_have_the_same_times(media, run_path, tmp_path):
    out = tmp_path / "aligned"
    video = str(media / "b" / "clock.mp4")
    assert (
        main(
            [
                "embed",
                video,
                "--checkpoint",
                str(run_path),
                "-o",
                str(out),
                "--align",
                "--hop-seconds",
                "0.3",
            ]
        )
        == 0
    )
    found, own = (
        np.load(out / "clock.mp4.npz"),
        embed(video, load(run_path), hop_seconds=0.3, align=True),
    )
    assert np.array_equal(found["audio_start_seconds"], found["vision_start_seconds"])
    assert np.array_equal(found["frame_seconds"], own.frame_seconds)
    assert np.array_equal(found["vision"], own.vision.vectors)


@pytest.mark.parametrize("modality", ["audio", "image"])
def test_one_side_of_a_video(media, run_path, tmp_path, modality):
    out = tmp_path / modality
    assert (
        main(
            [
                "embed",
                str(media / "b" / "clock.mp4"),
                "--checkpoint",
                str(run_path),
                "-o",
                str(out),
                "--modality",
                modality,
            ]
        )
        == 0
    )
    arrays = set(np.load(out / "clock.mp4.npz").files)
    side = {"audio": "audio", "image": "vision"}[modality]
    assert arrays == {side, f"{side}_start_seconds", "about"}


def test_all_formats_hold_the_same_vectors(vectors_of_media, media, run_path, tmp_path):
    reference = np.load(vectors_of_media / "b" / "clock.mp4.npz")
    for format in ("parquet", "jsonl"):
        command = [
            "embed",
            str(media / "b" / "clock.mp4"),
            "--checkpoint",
            str(run_path),
            "-o",
            str(tmp_path),
            "--format",
            format,
        ]
        assert main([*command, "--overwrite"]) == 0
        path = tmp_path / f"clock.mp4.{format}"
        if format == "parquet":
            rows = parquet.read_table(path).to_pylist()
        else:
            rows = [json.loads(line) for line in path.read_text().splitlines()]
        for side in ("audio", "vision"):
            own = [row for row in rows if row["side"] == side]
            assert np.array_equal(
                np.array([row["vector"] for row in own], np.float32), reference[side]
            )
            assert [row["start_seconds"] for row in own] == reference[
                f"{side}_start_seconds"
            ].tolist()
            assert {(row["source"], row["layer"]) for row in own} == {("clock.mp4", "pool4")}


def test_a_list_with_a_missing_file(media, run_path, tmp_path, capsys):
    (media / "list.txt").write_text("a/x.wav\nnowhere.wav\n")
    assert (
        main(
            [
                "embed",
                str(media / "list.txt"),
                "--checkpoint",
                str(run_path),
                "-o",
                str(tmp_path / "out"),
            ]
        )
        == 3
    )
    assert printed(capsys)["sources"] == 2
    assert "there is no such file" in (tmp_path / "out" / "failures.jsonl").read_text()
    (media / "list.txt").unlink()


def test_a_killed_run_leaves_only_complete_files(media, run_path, tmp_path):
    """A file that is not complete has another name, and the next run deletes it."""
    out = tmp_path / "out"
    program = f"""
import os
from looklisten.app.cli import main
from looklisten.inference.embedding.writers import (
    VECTOR_FORMATS, VectorFormat, register_vector_format
)

class KilledWriter:
    def __init__(self, path, provenance):
        self.writer = VECTOR_FORMATS["npz"].open(path, provenance)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def write(self, block):
        self.writer.write(block)
        os._exit(9)

register_vector_format(VectorFormat("killed", KilledWriter, lambda path: {{}}))
arguments = ["--checkpoint", {str(run_path)!r}, "-o", {str(out)!r}, "--format", "killed"]
main(["embed", {str(media)!r}, *arguments])
"""
    command = [sys.executable, "-c", program]
    killed = subprocess.run(command, check=False, env=os.environ, capture_output=True)
    assert killed.returncode == 9, killed.stderr
    assert any(".aside-" in name for name in file_names(out))
    assert not any(name.endswith(".killed") and ".aside-" not in name for name in file_names(out))
    main(["embed", str(media), "--checkpoint", str(run_path), "-o", str(out)])
    assert not any(".aside-" in name for name in file_names(out))
    assert "a/x.wav.npz" in file_names(out)


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        ([], 2, "embed needs files or folders"),
        (["nowhere"], 1, "there is no file or folder nowhere"),
        (["MEDIA/notes.md"], 3, ""),
        (["MEDIA", "--layer", "pool9"], 1, "there is no layer 'pool9'"),
        (["EMPTY"], 1, "holds no sound, image or video"),
    ],
)
def test_wrong_arguments_give_an_error(
    media, run_path, tmp_path, capsys, arguments, code, sentence
):
    (tmp_path / "empty").mkdir()
    given = [
        word.replace("MEDIA", str(media)).replace("EMPTY", str(tmp_path / "empty"))
        for word in arguments
    ]
    assert (
        main(["embed", *given, "--checkpoint", str(run_path), "-o", str(tmp_path / "out")]) == code
    )
    assert sentence in re.sub(r"\s+", " ", capsys.readouterr().err)


def test_tables_of_stretches_are_refused(media, run_path, tmp_path, capsys):
    (tmp_path / "clips.csv").write_text(
        f"path,start_seconds,stop_seconds\n{media / 'a' / 'x.wav'},0,1\n"
    )
    assert (
        main(
            [
                "embed",
                str(tmp_path / "clips.csv"),
                "--checkpoint",
                str(run_path),
                "-o",
                str(tmp_path / "out"),
            ]
        )
        == 1
    )
    assert "embed takes whole files" in re.sub(r"\s+", " ", capsys.readouterr().err)


def test_a_file_that_is_no_media_is_explained_in_plain_words(run_path, tmp_path):
    """FFmpeg's own words ("moov atom not found") come last, for experts."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "text.mp4").write_text("just text " * 50)
    (tmp_path / "in" / "empty.mp4").write_bytes(b"")
    (tmp_path / "in" / "empty.wav").write_bytes(b"")
    out = tmp_path / "out"
    words = ["embed", str(tmp_path / "in"), "-o", str(out), "--checkpoint", str(run_path)]
    assert main(words) in (1, 3)
    lines = map(json.loads, (out / "failures.jsonl").read_text().splitlines())
    reasons = {Path(line["source"]).name: line["reason"] for line in lines}
    assert "it is no video or sound that can be read, or a part of it is" in reasons["text.mp4"]
    assert "FFmpeg: " in reasons["text.mp4"]
    for name in ("empty.mp4", "empty.wav"):
        assert reasons[name].endswith("the file is empty"), reasons[name]


def test_a_folder_of_another_layer_is_refused_in_plain_words(media, run_path, tmp_path, capsys):
    command = ["embed", str(media), "--checkpoint", str(run_path), "-o", str(tmp_path / "out")]
    assert main([*command, "--layer", "conv4_2"]) in (0, 3)
    assert main(command) == 1
    error = " ".join(capsys.readouterr().err.split())
    assert "layer was conv4_2, now it is the usual one" in error
    assert "None" not in error
