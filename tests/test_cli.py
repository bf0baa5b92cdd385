"""The shell: data on stdout, talk on stderr, one sentence for what is wrong, and exit codes that
scripts can trust.
"""

import json
import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from conftest import small_config, write_clock_video
from looklisten.app import terminal
from looklisten.app.cli import VERBS, main
from looklisten.system.files import atomic_write

ROOT = Path(__file__).parents[1]


def shell(*arguments, **options):
    return subprocess.run(
        [sys.executable, "-m", "looklisten", *map(str, arguments)],
        check=False,
        capture_output=True,
        text=True,
        **options,
    )


def spoken(capsys):
    """What was said on stderr, on one line."""
    return re.sub(r"\s+", " ", capsys.readouterr().err)


@pytest.fixture(scope="module")
def road(tmp_path_factory):
    """The whole road on a few videos, as a user would walk it: folder -> shards -> run."""
    home = tmp_path_factory.mktemp("road")
    (home / "small.toml").write_text(small_config(steps=4, batch_size=4).toml())
    steps = [
        [
            "synth",
            "videos",
            "--videos",
            12,
            "--seconds",
            1.5,
            "--side-pixels",
            64,
            "--frames-per-second",
            10,
        ],
        ["prepare", "videos", "shards"],
        ["train", "shards", "--config", "small.toml", "--run", "runs/tiny", "--train.steps", 5],
        ["evaluate", "shards", "--pairs", 40],
        ["localize", "videos/000003.mp4", "-o", "maps", "--every-seconds", 0.5],
    ]
    return home, [shell(*step, cwd=home) for step in steps]


def test_the_road_from_videos_to_maps(road):
    home, said = road
    for one in said:
        assert one.returncode == 0, one.stderr
    synth, prepare, train, evaluate, localize = (json.loads(one.stdout) for one in said)
    assert synth["videos"] == 12
    assert (prepare["sources"], prepare["clips"], prepare["failed"]) == (12, 12, 0)
    assert train["step"] == 5
    assert evaluate["n_pairs"] >= 40
    assert localize["stills"] == 4
    assert (home / "maps" / "sheet.png").read_bytes().startswith(b"\x89PNG")
    assert np.load(home / "maps" / "maps.npz")["frame_maps"].shape[0] == localize["moments"] == 8
    assert (home / "maps" / "overlay.mp4").stat().st_size
    assert "train" in said[2].stderr, "long work shows where it is"


def test_stdout_is_one_json_line(road):
    for one in road[1]:
        assert len(one.stdout.splitlines()) == 1


def test_unlabelled_shards_cannot_be_probed(road):
    told = shell("probe", "shards", cwd=road[0])
    assert told.returncode == 1
    assert "needs labelled clips" in re.sub(r"\s+", " ", told.stderr)


@pytest.mark.parametrize(
    ("what", "option", "named"),
    [
        (["probe", "shards", "x"], ["--layer", "texture"], "--layer"),
        (["probe", "x"], ["--compare", "none"], "--compare"),
        (["probe", "x"], ["--untrained-seeds", 2], "--untrained-seeds"),
        (["probe", "x"], ["--cache", "y"], "--cache"),
        (["probe", "x"], ["--partial"], "--partial"),
        (["probe", "esc10", "x"], ["--per-clip", 3], "--per-clip"),
    ],
)
def test_probe_refuses_an_option_that_it_would_not_follow(what, option, named, capsys):
    assert main([str(word) for word in [*what, *option]]) == 2
    told = spoken(capsys)
    assert named in told and " for s" in told


def test_some_failed_is_exit_code_3(tmp_path):
    (tmp_path / "videos").mkdir()
    write_clock_video(tmp_path / "videos" / "good.mp4", seconds=1.5)
    (tmp_path / "videos" / "bad.mp4").write_text("text")
    told = shell("prepare", tmp_path / "videos", tmp_path / "out")
    assert told.returncode == 3
    assert json.loads(told.stdout)["failed"] == 1


def test_a_short_video_is_skipped_and_no_failure(tmp_path):
    (tmp_path / "videos").mkdir()
    write_clock_video(tmp_path / "videos" / "good.mp4", seconds=1.5)
    write_clock_video(tmp_path / "videos" / "short.mp4", seconds=0.5)
    told = shell("prepare", tmp_path / "videos", tmp_path / "out")
    assert told.returncode == 0
    assert (json.loads(told.stdout)["skipped"], json.loads(told.stdout)["failed"]) == (1, 0)
    assert (tmp_path / "out" / "failures.jsonl").read_text() == ""
    assert json.loads((tmp_path / "out" / "skipped.jsonl").read_text())["source"] == "short.mp4"


def test_a_name_in_brackets_is_said_as_it_is(tmp_path):
    told = shell("prepare", tmp_path / "a [b] [/c].mp4", tmp_path / "out")
    assert told.returncode == 1
    assert "a [b] [/c].mp4" in told.stderr.replace("\n", "")


def test_a_share_of_the_work_needs_its_number(tmp_path):
    assert shell("prepare", tmp_path, tmp_path / "out", "--num-tasks", 4).returncode == 2


def test_help_names_every_verb_and_every_verb_has_help(capsys):
    assert main(["--help"]) == 0
    listed = capsys.readouterr().out
    for verb in VERBS:
        assert verb in listed
        with pytest.raises(SystemExit) as ended:
            main([verb, "--help"])
        assert ended.value.code == 0
        assert "usage: looklisten " + verb in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["prepair", "a", "b"], 2, "there is no verb 'prepair'; did you mean prepare?"),
        (["prepare", "only-one"], 2, "prepare needs the videos and then the folder of the shards"),
        (["prepare", "nowhere", "out"], 1, "there is no file or folder nowhere"),
        (
            ["train", "nowhere"],
            1,
            "nowhere is not there; make one with `looklisten prepare VIDEOS nowhere`",
        ),
        (
            ["train", "x", "--config", "tinny"],
            1,
            "there is no recipe 'tinny'; the recipes are ave, avol, baselines/direct, baselines/",
        ),
        (["train", "x", "--config", "nowhere.toml"], 1, "the recipe nowhere.toml cannot be read"),
        (
            ["evaluate", "x", "--checkpoint", "nowhere"],
            1,
            "nowhere is not there; give the folder of a run",
        ),
        (
            ["localize", "x.mp4", "--checkpoint", "nowhere"],
            1,
            "nowhere is not there; give the folder of a run",
        ),
        (["synth", "out", "--videos", "0"], 1, "a world needs at least 1 video"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(
    arguments, code, sentence, capsys, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == code
    told = capsys.readouterr()
    assert sentence in re.sub(r"\s+", " ", told.err)
    assert "Traceback" not in told.err
    assert told.out == ""


@pytest.mark.parametrize(
    ("toml", "sentence"),
    [
        ("[train]\nstepz = 3\n", "there is no setting train.stepz; did you mean train.steps?"),
        ("[trains]\nsteps = 3\n", "there is no setting trains; did you mean train?"),
        (
            "[train]\nbatch_size = 1\n",
            "train.batch_size: Input should be greater than or equal to 2",
        ),
        ("[train]\nbatch_size = 'many'\n", "train.batch_size: Input should be a valid integer"),
        ("[model]\ncrop_pixels = 300\n", "crop_pixels 300 is larger than resize_pixels 256"),
        ("[model\n", "is not TOML"),
    ],
)
def test_a_recipe_that_cannot_be_is_said(toml, sentence, capsys, tmp_path):
    (tmp_path / "r.toml").write_text(toml)
    assert main(["train", "shards", "--config", str(tmp_path / "r.toml")]) == 1
    assert sentence in spoken(capsys)


def test_an_empty_folder_and_one_without_videos(capsys, tmp_path):
    (tmp_path / "in").mkdir()
    assert main(["prepare", str(tmp_path / "in"), str(tmp_path / "out")]) == 1
    assert "holds no video" in spoken(capsys)
    (tmp_path / "in" / "song.txt").write_text("la")
    assert main(["prepare", str(tmp_path / "in"), str(tmp_path / "out")]) == 1
    assert "holds no video" in spoken(capsys)
    assert not (tmp_path / "out").exists()


def test_an_option_that_is_not_there_is_wrong_usage(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["train", "shards", "--train.stepz", "3"])
    assert ended.value.code == 2
    assert "--train.steps" in capsys.readouterr().err


def test_a_checkpoint_of_another_recipe_is_refused_and_kept(road, capsys, monkeypatch):
    home, _ = road
    monkeypatch.chdir(home)
    before = {f: f.read_bytes() for f in (home / "runs/tiny/checkpoints").rglob("*.json")}
    assert (
        main(
            [
                "train",
                "shards",
                "--config",
                "l3",
                "--run",
                "runs/tiny",
                "--train.batch-size",
                "4",
                "--train.steps",
                "5",
            ]
        )
        == 1
    )
    assert "was trained with another config" in spoken(capsys)
    assert before == {f: f.read_bytes() for f in (home / "runs/tiny/checkpoints").rglob("*.json")}


@pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0,
    reason="a small file system of its own needs root on Linux",
)
def test_a_full_disk_is_one_sentence_and_the_run_goes_on(road, tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", small], check=False, capture_output=True
    ).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        told = shell("prepare", road[0] / "videos", small / "out", "--workers", 2)
        assert told.returncode == 1, told.stderr
        assert "the disk is full" in re.sub(r"\s+", " ", told.stderr)
        assert "Traceback" not in told.stderr
        subprocess.run(["mount", "-o", "remount,size=64m", small], check=True)
        told = shell("prepare", road[0] / "videos", small / "out", "--workers", 2)
        assert told.returncode == 0, told.stderr
        for shard in sorted((road[0] / "shards").glob("*.arrow")):
            assert (small / "out" / shard.name).read_bytes() == shard.read_bytes()
        shutil.rmtree(small / "out")
        subprocess.run(["mount", "-o", "remount,size=100k", small], check=True)
        command = [
            "train",
            road[0] / "shards",
            "--config",
            road[0] / "small.toml",
            "--run",
            small / "run",
        ]
        told = shell(*command)
        assert told.returncode == 1, told.stderr
        assert "the disk is full" in re.sub(r"\s+", " ", told.stderr)
        assert "Traceback" not in told.stderr
        subprocess.run(["mount", "-o", "remount,size=64m", small], check=True)
        assert json.loads(shell(*command).stdout)["step"] == 4
    finally:
        subprocess.run(["umount", small], check=True)


def test_a_shard_cut_in_half_is_said(road, tmp_path, capsys):
    shutil.copytree(road[0] / "shards", tmp_path / "shards")
    shard = sorted((tmp_path / "shards").glob("*.arrow"))[0]
    shard.write_bytes(shard.read_bytes()[:5000])
    assert (
        main(["evaluate", str(tmp_path / "shards"), "--checkpoint", str(road[0] / "runs/tiny")])
        == 1
    )
    assert "run the same `looklisten prepare` again" in spoken(capsys)


def test_readme_commands_are_real():
    """Every looklisten line of the README parses: its verb is there and its options are the verb's."""
    lines = [
        line.split("#")[0].split()
        for line in (ROOT / "README.md").read_text().splitlines()
        if line.startswith("looklisten ")
    ]
    assert len(lines) >= 4
    for _, verb, *rest in lines:
        assert verb in VERBS
        known = subprocess.run(
            [sys.executable, "-m", "looklisten", verb, "--help"],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for option in (word for word in rest if word.startswith("-")):
            assert re.search(rf"(^|\s){re.escape(option)}[\s,]", known), f"{verb} has no {option}"


def test_a_bar_tells_the_time_left_by_what_was_done_since_it_was_first_told(monkeypatch, capsys):
    """Of work that begins half done it does not take the half for something it saw done."""
    now = [100.0]
    monkeypatch.setattr(terminal.time, "monotonic", lambda: now[0])
    bar = terminal.Bar("work")
    for now[0], done in ((120.0, 400), (140.0, 400), (160.0, 500)):
        bar(done, 800)
    assert [line.split() for line in capsys.readouterr().err.splitlines()] == [
        ["work", "400/800"],
        ["work", "400/800"],
        ["work", "500/800", "120", "s", "left"],
    ]


AGAIN_AND_AGAIN = """
import resource, sys
import numpy as np
from looklisten.app.cli import main
if sys.argv[1] == "the shell's":
    main(["--version"])
for turn in range(60):
    if turn == 10:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    maps = [np.ones(12_000_000, np.uint8) for _ in range(4)]
    del maps
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the allocator of glibc")
def test_the_shell_keeps_freed_memory_for_the_next_step():
    faults = {}
    for program in ("any", "the shell's"):
        told = subprocess.run(
            [sys.executable, "-c", AGAIN_AND_AGAIN, program],
            capture_output=True,
            text=True,
            check=True,
        )
        faults[program] = int(told.stdout.split()[-1])
    assert faults["the shell's"] < 0.1 * faults["any"], (
        "each page that comes back from the system is a fault"
    )


@pytest.mark.parametrize(
    "command",
    [
        ["synth", "OUT"],
        ["prepare", "nothing.mp4", "OUT"],
        ["train", "nothing", "--run", "OUT"],
        ["baselines", "nothing", "-o", "OUT"],
        ["localize", "nothing.mp4", "-o", "OUT"],
        ["embed", "nothing.mp4", "-o", "OUT"],
        ["export", "nothing", "OUT"],
        ["publish", "nothing", "OUT"],
        ["convert", "nothing.h5", "OUT"],
        ["demo", "OUT"],
        ["units", "nothing", "nothing", "-o", "OUT/page.html"],
        ["cluster", "nothing", "-o", "OUT/plane.png"],
        ["inspect", "nothing", "--pairs", "4", "-o", "OUT/page.html"],
    ],
)
def test_every_verb_tries_its_output_first(command, tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    out = str(tmp_path / "file" / "out")
    assert main([word.replace("OUT", out) for word in command]) == 1
    said = " ".join(capsys.readouterr().err.split())
    assert "cannot be a folder" in said
    assert "is a file; choose another folder" in said


def test_a_page_never_takes_the_place_of_a_folder(tmp_path, capsys):
    (tmp_path / "kept.txt").write_text("kept")
    assert main(["units", "nothing", "nothing", "-o", str(tmp_path)]) == 2
    assert "is a folder; name a file" in capsys.readouterr().err
    with pytest.raises(OSError, match="directory"), atomic_write(tmp_path) as scratch:
        scratch.write_text("page")
    assert (tmp_path / "kept.txt").read_text() == "kept"


@pytest.mark.parametrize(("mode", "word"), [(0o000, "reading"), (0o444, "writing")])
def test_no_permission_says_whether_to_read_or_to_write(tmp_path, mode, word):
    """As a user for whom permissions count: root drops its capabilities."""
    (tmp_path / "file").touch(mode)
    program = "import sys; from looklisten.app.cli import _explain; print(_explain(PermissionError(13, 'Permission denied', sys.argv[1])))"
    command = [sys.executable, "-c", program, str(tmp_path / "file")]
    if os.geteuid() == 0:
        if not shutil.which("setpriv"):
            pytest.skip("no program setpriv")
        command = [
            "setpriv",
            "--bounding-set",
            "-dac_override,-dac_read_search",
            "--inh-caps",
            "-all",
            *command,
        ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert f"no permission while {word} {tmp_path / 'file'}: Permission denied" in done.stdout, (
        done.stderr
    )
