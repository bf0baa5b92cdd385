"""Files and folders -> .npz under OpenL3's names, by function and by command; and the migration
page does what it says.
"""

import json
import logging
import re
import shlex
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from scipy.io import wavfile

from conftest import write_clock_video
from looklisten.app.cli import main
from looklisten.app.openl3 import folders_by_file, parser
from looklisten.errors import SourceError
from looklisten.interop import openl3
from looklisten.interop.openl3 import reading
from looklisten.model.networks import is_openl3

PAGE = Path(__file__).parents[1] / "docs" / "openl3.md"


def tone(seconds, rate_hz):
    t = np.arange(int(seconds * rate_hz)) / rate_hz
    return np.round(2**14 * np.sin(2 * np.pi * (440 * t + 800 * t**2))).astype(np.int16)


def picture(height=240, width=320):
    return (
        np.random.default_rng(0)
        .integers(0, 255, (height // 8, width // 8, 3), np.uint8)
        .repeat(8, 0)
        .repeat(8, 1)
    )


@pytest.fixture(scope="module")
def hears(openl3_weights):
    return openl3.models.load_audio_embedding_model_from_path(
        openl3_weights / "openl3_audio_mel128_music.h5", "mel128", 512
    )


@pytest.fixture(scope="module")
def sees(openl3_weights):
    return openl3.models.load_image_embedding_model_from_path(
        openl3_weights / "openl3_image_mel256_music.h5", 512
    )


@pytest.fixture
def sounds(tmp_path):
    folder = tmp_path / "sounds"
    (folder / "below").mkdir(parents=True)
    wavfile.write(folder / "one.wav", 44_100, tone(1.4, 44_100))
    wavfile.write(folder / "below" / "two.wav", 48_000, tone(1.1, 48_000))
    return folder


@pytest.mark.parametrize(
    ("path", "suffix", "folder", "expected"),
    [
        ("a/b.wav", ".npz", None, "a/b.npz"),
        ("b.wav", ".npz", None, "b.npz"),
        ("a/b.wav", "x.npz", None, "a/b_x.npz"),
        ("b.tar.wav", ".npz", "out", "out/b.tar.npz"),
        ("/a/b.wav", "audio_x.npz", "/out", "/out/b_audio_x.npz"),
    ],
)
def test_output_names_are_openl3s(path, suffix, folder, expected):
    assert openl3.get_output_path(path, suffix, folder) == expected


def test_a_sound_file_gives_what_its_samples_give(hears, sounds):
    openl3.process_audio_file(str(sounds / "one.wav"), model=hears, hop_size=0.5)
    with np.load(sounds / "one.npz") as saved:
        assert sorted(saved) == ["embedding", "timestamps"]
        vectors, times = openl3.get_audio_embedding(
            tone(1.4, 44_100), 44_100, model=hears, hop_size=0.5
        )
        assert np.allclose(
            saved["embedding"], vectors, rtol=1e-3, atol=1e-3 * np.abs(vectors).max()
        )
        assert saved["embedding"].dtype == np.float32
        assert np.array_equal(saved["timestamps"], times)
    assert sorted(path.name for path in sounds.iterdir()) == ["below", "one.npz", "one.wav"]


def test_what_is_there_is_skipped_unless_overwritten(hears, sounds):
    out = sounds / "one_mine.npz"
    out.write_bytes(b"mine")
    openl3.process_audio_file([str(sounds / "one.wav")], suffix="mine", model=hears, hop_size=1.0)
    assert out.read_bytes() == b"mine"
    openl3.process_audio_file(
        [str(sounds / "one.wav")], suffix="mine", model=hears, hop_size=1.0, overwrite=True
    )
    assert np.load(out)["embedding"].shape == (2, 512)


def test_one_bad_file_does_not_stop_the_others(hears, sounds, tmp_path):
    (sounds / "bad.wav").write_text("text")
    with pytest.raises(openl3.OpenL3Error, match=r"bad\.wav cannot be opened as sound"):
        openl3.process_audio_file(
            [str(sounds / "bad.wav"), str(sounds / "one.wav")], tmp_path, model=hears, hop_size=1.0
        )
    assert (tmp_path / "one.npz").exists()
    with pytest.raises(openl3.OpenL3Error, match=r"there is no file nowhere\.wav"):
        openl3.process_audio_file("nowhere.wav", model=hears)


def test_two_inputs_for_one_output_are_refused_at_once(hears, sounds, tmp_path):
    with pytest.raises(openl3.OpenL3Error, match=r"would both be written to .*one\.npz"):
        wavfile.write(tmp_path / "one.wav", 48_000, tone(1.0, 48_000))
        openl3.process_audio_file(
            [str(sounds / "one.wav"), str(tmp_path / "one.wav")], tmp_path / "out", model=hears
        )
    assert not (tmp_path / "out").exists()


def test_pictures_of_every_kind(sees, tmp_path):
    rgb = Image.fromarray(picture())
    rgb.save(tmp_path / "rgb.png")
    rgb.convert("CMYK").convert("RGB").convert("CMYK").save(tmp_path / "cmyk.tif")
    rgb.convert("L").save(tmp_path / "gray.png")
    Image.fromarray(np.asarray(rgb.convert("L")).astype(np.uint16) * 257).save(
        tmp_path / "gray16.png"
    )
    rgb.rotate(90, expand=True).save(tmp_path / "turned.png", exif=_turned())
    rgb.save(tmp_path / "film.gif", save_all=True, append_images=[rgb.rotate(180)])
    paths = sorted(tmp_path.iterdir())
    openl3.process_image_file(
        [str(path) for path in paths], tmp_path / "out", model=sees, batch_size=4
    )
    found = {
        path.stem: np.load(tmp_path / "out" / f"{path.stem}.npz")["embedding"] for path in paths
    }
    assert all(one.shape == (1, 512) for one in found.values())
    close = {"rtol": 1e-3, "atol": 1e-3 * float(np.abs(found["rgb"]).max())}
    assert np.allclose(found["rgb"], openl3.get_image_embedding(picture(), model=sees), **close)
    assert np.allclose(found["turned"], found["rgb"], **close)
    assert np.allclose(found["gray16"], found["gray"], **close)
    assert not np.allclose(found["gray"], found["rgb"], **close)
    (tmp_path / "small.png").write_bytes(_png(1, 1))
    with pytest.raises(openl3.OpenL3Error, match="at least 224 x 224 pixels; this has 1 x 1"):
        openl3.process_image_file(str(tmp_path / "small.png"), model=sees)


def _turned():
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter to the right
    return exif


def _png(height, width):
    import io

    buffer = io.BytesIO()
    Image.new("RGB", (width, height), "red").save(buffer, "PNG")
    return buffer.getvalue()


def test_a_video_gives_both_sides_on_the_files_clock(hears, sees, tmp_path):
    times = np.array([0.0, 0.1, 0.35, 0.4, 0.9])
    write_clock_video(tmp_path / "clip.mp4", times=times, seconds=1.6, audio_late_seconds=0.5)
    openl3.process_video_file(
        str(tmp_path / "clip.mp4"),
        audio_model=hears,
        image_model=sees,
        audio_hop_size=0.5,
        audio_center=False,
    )
    seen, heard = np.load(tmp_path / "clip_image.npz"), np.load(tmp_path / "clip_audio.npz")
    assert seen["timestamps"] == pytest.approx(times, abs=1e-3)
    assert seen["embedding"].shape == (5, 512)
    assert heard["timestamps"].tolist() == [0, 0.5, 1.0]
    pieces = np.concatenate(list(reading.read_openl3_sound(str(tmp_path / "clip.mp4"))))
    assert np.abs(pieces[:23_000]).max() < 1e-3, "half a second before the sound begins"
    assert np.abs(pieces[25_000:50_000]).max() > 0.3


def test_a_video_keeps_its_aspect(sees, tmp_path):
    with av.open(tmp_path / "wide.mp4", "w") as container:
        stream = container.add_stream("libx264", 10)
        stream.width, stream.height, stream.pix_fmt = 512, 256, "yuv420p"
        frame = np.zeros((256, 512, 3), np.uint8)
        frame[64:192, 192:320] = (255, 60, 30)  # a square, which squashing would make a pillar
        container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    times = []
    (pixels,) = reading.read_openl3_frames(str(tmp_path / "wide.mp4"), times)
    assert pixels.shape == (256, 512, 3)
    assert np.abs(pixels[100, 256].astype(int) - (255, 60, 30)).max() < 20
    red = pixels[..., 0] > 128
    assert red.any(0).sum() == pytest.approx(red.any(1).sum(), abs=3)
    assert times == [0]


def test_a_long_sound_is_never_whole_in_memory(tmp_path):
    """Pieces of a minute's sound are yielded before it has been read to its end, each about a
    second.
    """
    wavfile.write(tmp_path / "long.wav", 8_000, tone(60, 8_000))
    sizes = [len(piece) for piece in reading.read_openl3_sound(str(tmp_path / "long.wav"))]
    assert sum(sizes) == 60 * 48_000
    assert max(sizes) <= 2 * 48_000


# The command.


def test_all_thirteen_flags_have_openl3s_names_short_forms_and_defaults():
    short = (
        "a.wav -o D -x S -i linear -c env -as 512 -n -t 0.5 -ab 3 -is 512 -ib 4 -af librosa -ow -q"
    )
    long = (
        "a.wav --output-dir D --suffix S --input-repr linear --content-type env --audio-embedding-size 512 --no-audio-centering"
        " --audio-hop-size 0.5 --audio-batch-size 3 --image-embedding-size 512 --image-batch-size 4 --audio-frontend librosa"
        " --overwrite --quiet"
    )
    given = vars(parser().parse_args(["video", *short.split()]))
    assert given == vars(parser().parse_args(["video", *long.split()]))
    assert len([name for name in long.split() if name.startswith("--")]) == 13
    defaults = vars(parser().parse_args(["audio", "a.wav"]))
    for name in ("modality", "inputs"):
        del defaults[name]
    plain = {
        "output_dir": None,
        "suffix": None,
        "input_repr": "mel256",
        "content_type": "music",
        "overwrite": False,
        "quiet": False,
    }
    sound = {
        "audio_embedding_size": 6144,
        "no_audio_centering": False,
        "audio_hop_size": 0.1,
        "audio_batch_size": 32,
    }
    rest = {"image_embedding_size": 8192, "image_batch_size": 32, "audio_frontend": "kapre"}
    assert defaults == plain | sound | rest | {
        "weights": None,
        "device": "auto",
        "precision": "float32",
    }


@pytest.mark.parametrize("flags", [["-as", "77"], ["-t", "0"], ["-ab", "1.5"], ["-i", "mel512"]])
def test_a_wrong_flag_is_wrong_usage(flags, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["openl3", "audio", "a.wav", *flags])
    assert ended.value.code == 2
    assert flags[0] in capsys.readouterr().err


def test_folders_are_searched_below_and_keep_their_shape(sounds, tmp_path):
    (sounds / "notes.txt").write_text("no sound")
    (sounds / ".hidden.wav").write_text("no sound")
    found = folders_by_file([str(sounds)], "audio", str(tmp_path / "out"))
    assert found == {
        str(sounds / "below" / "two.wav"): str(tmp_path / "out" / "below"),
        str(sounds / "one.wav"): str(tmp_path / "out"),
    }
    assert set(folders_by_file([str(sounds)], "audio", None).values()) == {None}
    with pytest.raises(SourceError, match="holds no image file"):
        folders_by_file([str(sounds)], "image", None)
    with pytest.raises(SourceError, match="there is no file or folder nowhere"):
        folders_by_file(["nowhere"], "audio", None)


def test_folders_are_searched_through_links_and_what_is_left_out_is_said(sounds, tmp_path, caplog):
    caplog.set_level(logging.INFO, "looklisten")
    (sounds / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").mkdir()
    wavfile.write(tmp_path / "elsewhere" / "three.wav", 48_000, tone(1.1, 48_000))
    (tmp_path / "elsewhere" / "circle").symlink_to(sounds)
    (sounds / "broken.wav").symlink_to(tmp_path / "nowhere.wav")
    (sounds / "notes.txt").write_text("no sound")
    found = [Path(path).name for path in folders_by_file([str(sounds)], "audio", None)]
    assert sorted(found) == ["one.wav", "three.wav", "two.wav"]
    assert "broken.wav is left out: a broken link" in caplog.text
    assert "1 file with another suffix was not looked at (.txt 1)" in caplog.text


def test_the_command_embeds_a_folder_and_says_what_failed(openl3_weights, sounds, capsys):
    command = [
        "openl3",
        "audio",
        str(sounds),
        "-i",
        "mel128",
        "-as",
        "512",
        "-t",
        "1",
        "--weights",
        str(openl3_weights),
    ]
    assert main(command) == 0
    assert json.loads(capsys.readouterr().out) == {
        "inputs": 2,
        "written": 2,
        "skipped": 0,
        "failed": 0,
    }
    (sounds / "bad.wav").write_text("text")
    assert main(command) == 3
    printed = json.loads(capsys.readouterr().out)
    assert (printed["written"], printed["skipped"], printed["failed"]) == (0, 2, 1)
    assert "cannot be opened as sound" in printed["failures"][str(sounds / "bad.wav")]
    (sounds / "bad.wav").unlink()
    level = logging.getLogger("looklisten").level
    assert main([*command, "-q"]) == 0
    assert logging.getLogger("looklisten").level == level, "--quiet holds for one command"
    assert capsys.readouterr() == ("", "")


def test_the_command_converts(openl3_weights, tmp_path, capsys):
    assert (
        main(
            ["convert", str(openl3_weights / "openl3_audio_linear_music.h5"), str(tmp_path / "out")]
        )
        == 0
    )
    assert json.loads(capsys.readouterr().out)["network"] == "openl3:audio-linear-music"
    assert openl3.load(tmp_path / "out").layers == {"audio": ("pool4", "conv4_2")}
    assert main(["convert", "nowhere.h5", str(tmp_path / "x")]) == 1
    (tmp_path / "letter.txt").write_text("dear")
    weights = str(openl3_weights / "openl3_audio_linear_music.h5")
    assert main(["convert", weights, str(tmp_path)]) == 1
    assert (tmp_path / "letter.txt").read_text() == "dear"


# The page.


def test_the_migration_page_runs(openl3_weights, tmp_path, monkeypatch):
    """Every Python block in turn as one script, every looklisten command, in a folder with the
    files that they name.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LOOKLISTEN_OPENL3_MIRROR", str(openl3_weights))
    (openl3_weights / "openl3_audio_mel256_env.h5").write_bytes(
        (openl3_weights / "openl3_audio_mel256_music.h5").read_bytes()
    )
    wavfile.write("speech.wav", 16_000, tone(1.0, 16_000))
    Image.fromarray(picture()).save("photo.png")
    write_clock_video(Path("clip.mp4"), seconds=0.4, times=np.array([0, 0.2]))
    blocks = re.findall(r"```(python|sh)\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    names: dict = {}
    ran = 0
    for kind, code in blocks:
        if kind == "python":
            exec(compile(code, str(PAGE), "exec"), names)
            ran += 1
        for line in code.splitlines() if kind == "sh" else ():
            if line.startswith("looklisten"):
                assert main(shlex.split(line)[1:]) == 0
                ran += 1
    assert ran == 7
    made = sorted(path.name for path in Path("vectors").iterdir())
    assert made == [
        "clip_audio.npz",
        "clip_image.npz",
        "photo.npz",
        "photo_small.npz",
        "speech.npz",
    ]
    assert names["vectors"].shape[1] == 512
    assert is_openl3("converted")
