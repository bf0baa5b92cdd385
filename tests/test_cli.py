"""The command line: data on stdout, messages on stderr, one sentence per error, exit codes."""

import contextlib
import io
import json
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from conftest import small_config, write_clock_video
from looklisten.app.cli import main
from looklisten.app.command_line import Verb
from looklisten.app.output import Output, emit
from looklisten.app.terminal import ProgressBar
from looklisten.app.verbs import VERBS, register
from looklisten.app.verbs.search.search import shown_source
from looklisten.system.files import atomic_write


def run_process(*arguments, **options):
    """`looklisten ARGUMENTS` in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "looklisten", *map(str, arguments)],
        check=False,
        capture_output=True,
        text=True,
        **options,
    )


def run_here(*arguments, cwd="."):
    """The same in this process, which needs no start and has imported PyTorch already."""
    out, err = io.StringIO(), io.StringIO()
    with (
        contextlib.chdir(cwd),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        code = main([str(word) for word in arguments])
    return subprocess.CompletedProcess(arguments, code, out.getvalue(), err.getvalue())


def one_line(text):
    """Messages on a terminal are wrapped; as one line they can be searched."""
    return re.sub(r"\s+", " ", text)


def messages(capsys):
    return one_line(capsys.readouterr().err)


PIPELINE = (
    "synth videos --videos 12 --seconds 1.5 --side-pixels 64 --frames-per-second 10",
    "prepare videos shards",
    "train shards --config small.toml --run runs/tiny --train.steps 5",
    "evaluate shards --checkpoint runs/tiny --pairs 40",
    "localize videos/000003.mp4 --checkpoint runs/tiny -o maps --every-seconds 0.5",
)


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    """From videos to maps as a user does it: the folder, and what each verb printed.

    Two of the verbs run in processes of their own.
    """
    folder = tmp_path_factory.mktemp("pipeline")
    (folder / "small.toml").write_text(small_config(steps=4, batch_size=4).toml())
    processes = []
    for line in PIPELINE:
        words = shlex.split(line)
        run = run_process if words[0] in ("prepare", "train") else run_here
        processes.append(run(*words, cwd=folder))
    return folder, processes


def test_pipeline_from_videos_to_maps(pipeline):
    folder, processes = pipeline
    for process in processes:
        assert process.returncode == 0, process.stderr
    synth, prepare, train, evaluate, localize = (
        json.loads(process.stdout) for process in processes
    )
    assert synth["videos"] == 12
    assert (prepare["sources"], prepare["clips"], prepare["failed"]) == (12, 12, 0)
    assert train["step"] == 5
    assert evaluate["n_pairs"] >= 40
    assert (evaluate["network"], evaluate["step"]) == ("runs/tiny", 5)
    assert localize["stills"] == 4
    assert (folder / "maps" / "sheet.png").read_bytes().startswith(b"\x89PNG")
    frame_maps = np.load(folder / "maps" / "maps.npz")["frame_maps"]
    assert frame_maps.shape[0] == localize["moments"] == 8
    assert (folder / "maps" / "overlay.mp4").stat().st_size
    assert "train" in processes[2].stderr, "long work shows its progress"


def test_stdout_is_one_line_of_json(pipeline):
    for process in pipeline[1]:
        assert len(process.stdout.splitlines()) == 1


@pytest.mark.parametrize(
    "command",
    [
        "probe SHARDS --checkpoint RUN --per-clip 1",
        "cluster SHARDS --checkpoint RUN --kmeans-seeds 1",
        "units RUN SHARDS --top 1 -o units.html",
        "evaluate SHARDS --checkpoint RUN --task localization --method unit --per-clip 1",
    ],
)
def test_a_table_names_the_network_that_was_measured(
    command, shards_path, run_path, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    words = command.replace("SHARDS", str(shards_path)).replace("RUN", str(run_path)).split()
    assert main(words) == 0
    values = json.loads(capsys.readouterr().out)
    assert list(values)[:2] == ["network", "step"]
    assert (values["network"], values["step"]) == (str(run_path), 20)


def test_unlabeled_shards_cannot_be_probed(pipeline, capsys, monkeypatch):
    monkeypatch.chdir(pipeline[0])
    assert main(["probe", "shards", "--checkpoint", "runs/tiny"]) == 1
    assert "needs labeled clips" in messages(capsys)


@pytest.mark.parametrize(
    ("paths", "option", "name"),
    [
        (["probe", "shards", "x"], ["--layer", "texture"], "--layer"),
        (["probe", "x"], ["--compare", "none"], "--compare"),
        (["probe", "x"], ["--untrained-seeds", 2], "--untrained-seeds"),
        (["probe", "x"], ["--cache", "y"], "--cache"),
        (["probe", "x"], ["--partial"], "--partial"),
        (["probe", "esc10", "x"], ["--per-clip", 3], "--per-clip"),
    ],
)
def test_probe_refuses_an_option_that_does_not_apply(paths, option, name, capsys):
    assert main([str(word) for word in [*paths, *option]]) == 2
    sentence = messages(capsys)
    assert name in sentence and " for s" in sentence


def test_failed_inputs_give_exit_code_3(tmp_path):
    (tmp_path / "videos").mkdir()
    write_clock_video(tmp_path / "videos" / "good.mp4", seconds=1.5)
    (tmp_path / "videos" / "bad.mp4").write_text("text")
    process = run_process("prepare", tmp_path / "videos", tmp_path / "out")
    assert process.returncode == 3
    assert json.loads(process.stdout)["failed"] == 1


def test_a_short_video_is_skipped_and_not_failed(tmp_path):
    (tmp_path / "videos").mkdir()
    write_clock_video(tmp_path / "videos" / "good.mp4", seconds=1.5)
    write_clock_video(tmp_path / "videos" / "short.mp4", seconds=0.5)
    process = run_here("prepare", tmp_path / "videos", tmp_path / "out")
    assert process.returncode == 0
    assert (json.loads(process.stdout)["skipped"], json.loads(process.stdout)["failed"]) == (1, 0)
    assert "inputs without a clip are in" in process.stderr
    assert (tmp_path / "out" / "failures.jsonl").read_text() == ""
    assert json.loads((tmp_path / "out" / "skipped.jsonl").read_text())["source"] == "short.mp4"


def test_a_file_name_in_brackets_is_printed_unchanged(tmp_path):
    process = run_here("prepare", tmp_path / "a [b] [/c].mp4", tmp_path / "out")
    assert process.returncode == 1
    assert "a [b] [/c].mp4" in process.stderr.replace("\n", "")


def test_num_tasks_needs_task_index(tmp_path):
    assert run_here("prepare", tmp_path, tmp_path / "out", "--num-tasks", 4).returncode == 2


def test_help_names_every_verb_and_every_verb_has_help(capsys):
    assert main(["--help"]) == 0
    verbs = capsys.readouterr().out
    for verb in VERBS.values():
        assert verb.name in verbs
        assert verb.summary
        assert f"usage: looklisten {verb.name}" in help_of(verb.name, capsys)


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
            2,
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
        (["synth", "out", "--videos", "0"], 2, "--videos 0 must be at least 1"),
    ],
)
def test_an_error_is_one_sentence(arguments, code, sentence, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == code
    printed = capsys.readouterr()
    assert sentence in one_line(printed.err)
    assert "Traceback" not in printed.err
    assert printed.out == ""


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        ("evaluate SHARDS --checkpoint RUN --pairs 0", "--pairs 0 must be at least 1"),
        ("evaluate SHARDS --checkpoint RUN --seed -1", "--seed -1 must be at least 0"),
        (
            "evaluate SHARDS --checkpoint RUN --task localization --per-clip 0",
            "--per-clip 0 must be at least 1",
        ),
        ("evaluate SHARDS --checkpoint RUN --trials 0", "--trials 0 must be at least 1"),
        ("probe SHARDS --checkpoint RUN --per-clip 0", "--per-clip 0 must be at least 1"),
        ("probe esc50 SHARDS --untrained-seeds 0", "--untrained-seeds 0 must be at least 1"),
        ("probe esc50 SHARDS --checkpoint RUN --k-means", None),
        ("cluster SHARDS --checkpoint RUN -k 1", "--k 1 must be at least 2"),
        ("cluster SHARDS --checkpoint RUN --kmeans-seeds 0", "--kmeans-seeds 0 must be at least 1"),
        ("units RUN SHARDS --top 0", "--top 0 must be at least 1"),
        ("units RUN SHARDS --per-clip -1", "--per-clip -1 must be at least 1"),
        ("localize x.mp4 --every-seconds 0", "--every-seconds 0 must be above 0"),
        ("localize x.mp4 --overlay-every-seconds 0", "--overlay-every-seconds 0 must be above 0"),
        ("localize x.mp4 --units -1 0", "--units -1 must be at least 0"),
        ("embed x.mp4 --hop-seconds 0", "--hop-seconds 0 must be a number above 0, such as 0.5"),
        ("embed x.mp4 --batch-size 0", "--batch-size 0 must be at least 1"),
        ("embed x.mp4 --memory-megabytes 0", "--memory-megabytes 0 must be at least 1"),
        ("embed SHARDS --checkpoint RUN --format xls", "there is no format 'xls' of vectors"),
        ("prepare x.mp4 out --workers 0", "--workers 0 must be at least 1"),
        ("prepare x.mp4 out --num-tasks 0 --task-index 0", "--num-tasks 0 must be at least 1"),
        ("prepare x.mp4 out --num-tasks 2 --task-index 2", "task 2 of 2 does not exist"),
        ("prepare x.mp4 out --stall-seconds 0", "--stall-seconds 0 must be above 0"),
        ("prepare x.mp4 out --jpeg-quality 0", "--jpeg-quality 0 must be from 1 to 100"),
        ("prepare x.mp4 out --clip-seconds 0", "--clip-seconds 0 must be above 0"),
        ("prepare x.mp4 out --frames-per-second -1", "--frames-per-second -1 must be above 0"),
        ("synth out --seconds 0", "--seconds 0 must be at least 1"),
        ("synth out --seed -1", "--seed -1 must be at least 0"),
        ("synth out --workers -1", "--workers -1 must be at least 1"),
        ("inspect SHARDS --pairs -1", "--pairs -1 must be at least 0"),
        ("baselines SHARDS --steps 0", "--steps 0 must be at least 1"),
        ("train SHARDS --overfit -1", "--overfit -1 must be at least 0"),
        ("train SHARDS --sweep lr=1e-4 --sweep-steps 0", "--sweep-steps 0 must be at least 1"),
        ("train SHARDS --train.objective none", "there is no objective 'none'"),
        ("train SHARDS --train.batch-size 0", None),
        ("demo out --steps 0", "--steps 0 must be at least 1"),
    ],
)
def test_a_value_that_an_option_never_takes_is_wrong_usage(
    command, sentence, capsys, tmp_path, monkeypatch, shards_path, run_path
):
    """The sentence names the option as it was typed, and the smallest value."""
    monkeypatch.chdir(tmp_path)
    words = command.replace("SHARDS", str(shards_path)).replace("RUN", str(run_path)).split()
    if sentence is None:
        # The reader of arguments refuses it and ends the program.
        with pytest.raises(SystemExit) as ended:
            main(words)
        assert ended.value.code == 2
        return
    assert main(words) == 2
    assert sentence in messages(capsys)
    assert not list(tmp_path.iterdir()), "nothing was written"


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
def test_a_wrong_recipe_is_refused(toml, sentence, capsys, tmp_path):
    (tmp_path / "r.toml").write_text(toml)
    assert main(["train", "shards", "--config", str(tmp_path / "r.toml")]) == 1
    assert sentence in messages(capsys)


def test_an_empty_folder_and_one_without_videos(capsys, tmp_path):
    (tmp_path / "in").mkdir()
    assert main(["prepare", str(tmp_path / "in"), str(tmp_path / "out")]) == 1
    assert "holds no video" in messages(capsys)
    (tmp_path / "in" / "song.txt").write_text("la")
    assert main(["prepare", str(tmp_path / "in"), str(tmp_path / "out")]) == 1
    assert "holds no video" in messages(capsys)
    assert not (tmp_path / "out").exists()


def test_an_unknown_option_is_wrong_usage(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["train", "shards", "--train.stepz", "3"])
    assert ended.value.code == 2
    assert "--train.steps" in capsys.readouterr().err


def test_a_run_of_another_recipe_is_refused_and_unchanged(pipeline, capsys, monkeypatch):
    folder, _ = pipeline
    monkeypatch.chdir(folder)
    before = {f: f.read_bytes() for f in (folder / "runs/tiny/checkpoints").rglob("*.json")}
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
    assert "was trained with another config" in messages(capsys)
    assert before == {f: f.read_bytes() for f in (folder / "runs/tiny/checkpoints").rglob("*.json")}


@pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0,
    reason="a small file system of its own needs root on Linux",
)
def test_a_full_disk_is_one_sentence_and_the_next_call_resumes(pipeline, tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", small], check=False, capture_output=True
    ).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        process = run_here("prepare", pipeline[0] / "videos", small / "out", "--workers", 2)
        assert process.returncode == 1, process.stderr
        assert "the disk is full" in one_line(process.stderr)
        assert "Traceback" not in process.stderr
        subprocess.run(["mount", "-o", "remount,size=64m", small], check=True)
        process = run_here("prepare", pipeline[0] / "videos", small / "out", "--workers", 2)
        assert process.returncode == 0, process.stderr
        for shard in sorted((pipeline[0] / "shards").glob("*.arrow")):
            assert (small / "out" / shard.name).read_bytes() == shard.read_bytes()
        shutil.rmtree(small / "out")
        subprocess.run(["mount", "-o", "remount,size=100k", small], check=True)
        command = [
            "train",
            pipeline[0] / "shards",
            "--config",
            pipeline[0] / "small.toml",
            "--run",
            small / "run",
        ]
        process = run_process(*command)
        assert process.returncode == 1, process.stderr
        assert "the disk is full" in one_line(process.stderr)
        assert "Traceback" not in process.stderr
        subprocess.run(["mount", "-o", "remount,size=64m", small], check=True)
        assert json.loads(run_here(*command).stdout)["step"] == 4
    finally:
        subprocess.run(["umount", "--lazy", small], check=True)


def test_half_a_shard_is_refused(pipeline, tmp_path, capsys):
    shutil.copytree(pipeline[0] / "shards", tmp_path / "shards")
    shard = sorted((tmp_path / "shards").glob("*.arrow"))[0]
    shard.write_bytes(shard.read_bytes()[:5000])
    assert (
        main(["evaluate", str(tmp_path / "shards"), "--checkpoint", str(pipeline[0] / "runs/tiny")])
        == 1
    )
    assert "run the same `looklisten prepare` again" in messages(capsys)


def help_of(verb, capsys):
    with pytest.raises(SystemExit) as ended:
        main([verb, "--help"])
    assert ended.value.code == 0
    return capsys.readouterr().out


def test_help_imports_neither_torch_nor_numpy():
    program = (
        "import sys; from looklisten.app.cli import main; main(['--help']); "
        "print([name for name in ('torch', 'numpy', 'pyarrow', 'av') if name in sys.modules])"
    )
    process = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert process.stdout.splitlines()[-1] == "[]"


HITS = [{"source": "a.wav", "score": 0.5}, {"source": "b.wav", "score": None, "note": "short"}]


@pytest.mark.parametrize("nested", [False, True])
def test_records_without_a_name_are_printed_as_a_table(nested, capsys):
    emit({"query": "x", "result": {"hits": HITS} if nested else HITS}, as_json=False)
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        ["query", "x"],
        ["source", "score", "note"],
        ["a.wav", "0.5"],
        ["b.wav", "–", "short"],
    ]


@pytest.mark.parametrize("columns", [80, 100])
def test_a_found_scene_shows_which_file_it_is_of(columns, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", str(columns))
    here = shown_source(str(tmp_path / "my_videos" / "clip.mp4"))
    far = shown_source("/" + "a/long/way/" * 9 + "b.mp4")
    assert here == "my_videos/clip.mp4"
    assert re.fullmatch(r"…(/a|/long|/way)+/b\.mp4", far)
    assert shown_source("s3://bucket/b.mp4") == "s3://bucket/b.mp4"
    long_name = shown_source("/videos/" + "n" * 90 + ".mp4")
    assert long_name == "…/" + "n" * 90 + ".mp4"
    rows = [
        {"score": 0.9123, "source": source, "scene": "12 – 15.5", "tags": "Dog; Bow-wow; Animal"}
        for source in (here, far, long_name)
    ]
    emit({"hits": rows[:2]}, as_json=False)
    printed = capsys.readouterr().out
    assert here in printed
    assert far in printed
    emit({"hits": rows}, as_json=False)
    assert capsys.readouterr().out.count("n") >= 90, "a longer name is folded, not cut"


def test_several_lists_of_records_have_titles(capsys):
    emit({"rows": HITS[:1], "other_sounds": HITS[:1]}, as_json=False)
    printed = capsys.readouterr().out
    assert re.search(r"^rows\s*$", printed, re.MULTILINE)
    assert re.search(r"^other sounds\s*$", printed, re.MULTILINE)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (True, "yes"),
        (False, "no"),
        (1234567, "1,234,567"),
        (0.123456, "0.1235"),
        (1234.5, "1,234.5"),
        (float("nan"), "–"),
        ((0.25, 0.5), "0.25 – 0.5"),
        (["a", "b"], "a, b"),
        ([], "none"),
        ({}, "none"),
        (Path("x"), "x"),
    ],
)
def test_values_in_a_table(value, text, capsys):
    emit({"some_name": value}, as_json=False)
    assert capsys.readouterr().out.split(maxsplit=2)[2].rstrip() == text


def test_json_holds_names_of_any_bytes(capsys):
    """As with LC_ALL=C, where Python decodes nothing but ASCII."""
    latin, utf8 = (raw.decode("ascii", "surrogateescape") for raw in (b"\xe9.wav", b"\xc3\xa9.wav"))
    emit({"a": Path(latin), "b": [utf8], utf8: "é\ud800"}, as_json=True)
    line = capsys.readouterr().out
    assert json.loads(line) == {"a": "\\xe9.wav", "b": ["é.wav"], "é.wav": "é\\ud800"}
    assert "\\ud" not in line.replace("\\\\ud800", "")


def test_json_has_null_for_no_number(capsys):
    emit({"nan": float("nan"), "path": Path("x"), "range": (1, 2)}, as_json=True)
    assert json.loads(capsys.readouterr().out) == {"nan": None, "path": "x", "range": [1, 2]}


@pytest.fixture
def toy_verb():
    """A verb that is added from outside of the package, with one call."""

    def listen(query: str, count: int = 2) -> Output:
        """Find clips that sound like a query.

        Args:
            query: What to search for.
            count: Number of hits.
        """
        return Output({"query": query, "hits": HITS[:count]}, exit_code=3, message="one is short")

    register(Verb.of("listen", listen))
    yield "listen"
    del VERBS["listen"]


def test_a_verb_can_be_added_from_outside(toy_verb, capsys):
    assert main([toy_verb, "--query", "bell", "--count", "1"]) == 3
    printed = capsys.readouterr()
    assert json.loads(printed.out) == {"query": "bell", "hits": HITS[:1]}
    assert "one is short" in printed.err
    assert "Number of hits. (default: 2)" in help_of(toy_verb, capsys)
    assert main(["--help"]) == 0
    assert "Find clips that sound like a query." in capsys.readouterr().out


def all_of_terminal(ours):
    """What was written to a terminal whose other end is closed by now."""
    parts = []
    while True:
        # One read may give a part of it. At the end Linux raises an error, others give nothing.
        try:
            part = os.read(ours, 2**16)
        except OSError:
            part = b""
        if not part:
            return b"".join(parts).decode()
        parts.append(part)


def test_on_a_terminal_records_are_a_table(toy_verb):
    ours, terminal = os.openpty()
    with os.fdopen(terminal, "w") as stream, contextlib.redirect_stdout(stream):
        assert main([toy_verb, "--query", "bell"]) == 3
    text = all_of_terminal(ours)
    os.close(ours)
    without_styles = re.sub(r"\x1b\[[0-9;]*m", "", text)
    lines = [line.split() for line in without_styles.splitlines()]
    assert [line for line in lines if line] == [
        ["query", "bell"],
        ["source", "score", "note"],
        ["a.wav", "0.5"],
        ["b.wav", "–", "short"],
    ]


def test_the_time_left_of_resumed_work_counts_from_its_start(capsys):
    """The part that an earlier call did must not enter the rate."""
    now = [100.0]
    bar = ProgressBar("work", clock=lambda: now[0])
    for now[0], done in ((120.0, 400), (140.0, 400), (160.0, 500)):
        bar(done, 800)
    assert [line.split() for line in capsys.readouterr().err.splitlines()] == [
        ["work", "400/800"],
        ["work", "400/800"],
        ["work", "500/800", "120", "s", "left"],
    ]


def test_the_time_left_of_a_second_part_counts_from_its_start(capsys):
    """A task may have parts with other units, such as features and steps."""
    now = [0.0]
    bar = ProgressBar("work", clock=lambda: now[0])
    for now[0], done, total in (
        (0.0, 4000, 5000),
        (20.0, 5000, 5000),
        (40.0, 1, 60),
        (60.0, 2, 60),
    ):
        bar(done, total)
    assert [line.split() for line in capsys.readouterr().err.splitlines()] == [
        ["work", "5000/5000", "0", "s", "left"],
        ["work", "1/60"],
        ["work", "2/60", "1160", "s", "left"],
    ]


REPEATED_ALLOCATIONS = """
import resource, sys
import numpy as np
from looklisten.app.cli import main
if sys.argv[1] == "the command line":
    main(["--version"])
for turn in range(60):
    if turn == 10:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    maps = [np.ones(12_000_000, np.uint8) for _ in range(4)]
    del maps
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the allocator of glibc")
def test_the_command_line_keeps_freed_memory():
    faults = {}
    for program in ("any", "the command line"):
        process = subprocess.run(
            [sys.executable, "-c", REPEATED_ALLOCATIONS, program],
            capture_output=True,
            text=True,
            check=True,
        )
        faults[program] = int(process.stdout.split()[-1])
    assert faults["the command line"] < 0.1 * faults["any"], (
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
        ["index", "nothing.mp4", "--db", "OUT"],
        ["openl3", "audio", "nothing.wav", "-o", "OUT"],
        ["export-index", "nothing", "OUT/moments.parquet"],
    ],
)
def test_every_verb_checks_its_output_first(command, tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    out = str(tmp_path / "file" / "out")
    assert main([word.replace("OUT", out) for word in command]) == 1
    sentence = messages(capsys)
    assert "cannot be a folder" in sentence
    assert "is a file; choose another folder" in sentence


def test_a_page_never_replaces_a_folder(tmp_path, capsys):
    (tmp_path / "kept.txt").write_text("kept")
    assert main(["units", "nothing", "nothing", "-o", str(tmp_path)]) == 2
    assert "is a folder; name a file" in capsys.readouterr().err
    with pytest.raises(OSError, match="directory"), atomic_write(tmp_path) as scratch:
        scratch.write_text("page")
    assert (tmp_path / "kept.txt").read_text() == "kept"


@pytest.mark.parametrize("can_continue", [True, False])
def test_an_interrupted_verb_says_run_again_only_if_that_continues(can_continue, capsys):
    def run_stopped() -> Output:
        """Is interrupted."""
        raise KeyboardInterrupt

    register(Verb.of("stopped", run_stopped, can_continue=can_continue))
    try:
        assert main(["stopped"]) == 130
    finally:
        del VERBS["stopped"]
    sentence = messages(capsys)
    assert "stopped" in sentence
    assert ("run the same command again" in sentence) == can_continue
    assert VERBS["prepare"].can_continue and not VERBS["evaluate"].can_continue


@pytest.mark.parametrize(("mode", "word"), [(0o000, "reading"), (0o444, "writing")])
def test_no_permission_names_reading_or_writing(tmp_path, mode, word):
    """As a user for whom permissions count: root drops its capabilities."""
    (tmp_path / "file").touch(mode)
    program = (
        "import sys; from looklisten.app.cli import explain; "
        "print(explain(PermissionError(13, 'Permission denied', sys.argv[1])))"
    )
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
