"""Many processes, one batch: the losses of one process, in any number; kills and signals cost no
more than they must.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from conftest import small_config
from looklisten.config import Config
from looklisten.model.checkpoint import open_checkpoint
from looklisten.training.loop import train
from looklisten.training.metrics_log import read_metrics
from noise_shards import write_set

# Float sums differ in their last digits with the number of processes, and a step of Adam magnifies
# that by its rate.
ALIKE = {
    "batch_norm": "sync",
    "learning_rate": 1e-4,
    "warmup_steps": 0,
    "checkpoint_every": 1000,
    "probe_every": 0,
}


def command(processes, shards, recipe, run, *options, restarts=0):
    """`looklisten train`, by torchrun when there are several processes, each with one thread."""
    verb = ["train", str(shards), "--config", str(recipe), "-o", str(run), *options]
    if processes == 1:
        return [sys.executable, "-m", "looklisten", *verb]
    return [*torchrun(processes, restarts), "-m", "looklisten", *verb]


def torchrun(processes, restarts=0):
    how = [
        "--standalone",
        f"--nproc-per-node={processes}",
        f"--max-restarts={restarts}",
        "--monitor-interval=0.1",
    ]
    return [sys.executable, "-m", "torch.distributed.run", *how]


def started(arguments):
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )


def finished(arguments):
    process = started(arguments)
    out, log = process.communicate(timeout=200)
    assert process.returncode == 0, log
    return json.loads(out), log


@pytest.fixture
def recipe(tmp_path):
    def write(name="recipe.toml", fusion="distance", **settings):
        (tmp_path / name).write_text(
            small_config(**ALIKE | settings).changed("model", fusion=fusion).toml()
        )
        return tmp_path / name

    return write


def losses(run):
    return [row["loss"] for row in read_metrics(run) if "loss" in row]


@pytest.mark.parametrize(
    "settings",
    [
        {"negatives": "all"},
        {"negatives": "roll", "accumulate": 2},
        {"objective": "contrastive"},
        {"objective": "contrastive", "fusion": "dense"},
        {"objective": "labels", "freeze": "audio"},
    ],
)
def test_two_processes_have_the_losses_of_one(shards_path, recipe, tmp_path, settings):
    path = recipe(steps=50, **settings)
    train(shards_path, Config.load(path), tmp_path / "one")
    result, log = finished(command(2, shards_path, path, tmp_path / "two"))
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), abs=1e-4)
    assert len(losses(tmp_path / "two")) == result["step"] == 50
    assert "2 processes" in log


REPORT_OF_EACH_PROCESS = """
import json, os, sys, time
from pathlib import Path
from looklisten.config import Config
from looklisten.model.checkpoint import open_checkpoint
from looklisten.training.loop import train

def gloo():
    names = []
    for thread in Path("/proc/self/task").iterdir():
        try:
            names.append((thread / "comm").read_text().strip())
        except OSError:  # it has just ended
            continue
    return sorted(name for name in names if "gloo" in name)

during = []
shards, recipe, folder = sys.argv[1:]
run = train(shards, Config.load(recipe), folder, progress=lambda *_, **__: during.append(gloo()))
saved = open_checkpoint(run.path).step
deadline = time.monotonic() + 5
while gloo() and time.monotonic() < deadline:  # the kernel lists a thread for a moment longer
    time.sleep(0.01)
result = [run.step, run.held_out_accuracy, run.best_step, run.best_accuracy]
report = {"during": during, "after": gloo(), "saved": saved, "result": result}
Path(f"{folder}.{os.environ['RANK']}.json").write_text(json.dumps(report))
"""
"""A run by its Python call; then which of this process's threads were gloo's at each step (the
first process sees them) and after, and the step of the checkpoint that is there, and what the run
tells of itself.
"""


@pytest.fixture
def reports(shards_path, recipe, tmp_path):
    """What each of two processes sees of a run of two steps."""
    script = tmp_path / "see.py"
    script.write_text(REPORT_OF_EACH_PROCESS)
    process = started(
        [*torchrun(2), str(script), str(shards_path), str(recipe(steps=2)), str(tmp_path / "run")]
    )
    log = process.communicate(timeout=200)[1]
    assert process.returncode == 0, log
    return [json.loads((tmp_path / f"run.{rank}.json").read_text()) for rank in (0, 1)]


@pytest.mark.skipif(
    not Path("/proc/self/task").exists(), reason="threads are read from Linux's /proc"
)
def test_no_process_outlives_its_run_by_a_thread_or_leaves_before_it_is_saved(reports):
    """A thread that lives on may abort the process while the interpreter ends: a run that did all
    its work, and failed.
    """
    first, second = reports
    assert len(first["during"]) == 2 and all(
        "pt_gloo_runloop" in names for names in first["during"]
    )
    assert first["after"] == second["after"] == []
    assert first["saved"] == second["saved"] == 2
    assert first["result"] == second["result"] and first["result"][2] == 2


def test_a_run_goes_on_with_another_number_of_processes(shards_path, recipe, tmp_path):
    """1 → 2 → 4 → 1 processes: the same losses as one that was never stopped, so the same rows in
    the same order.
    """
    whole = recipe(steps=24, schedule="constant")
    train(shards_path, Config.load(whole), tmp_path / "whole")
    for processes, steps in ((1, 6), (2, 12), (4, 18), (1, 24)):
        path = recipe(steps=steps, schedule="constant")
        if processes == 1:
            resumed_from = train(shards_path, Config.load(path), tmp_path / "parts").resumed_from
        else:
            resumed_from = finished(command(processes, shards_path, path, tmp_path / "parts"))[0][
                "resumed_from"
            ]
        assert resumed_from == steps - 6
    assert losses(tmp_path / "parts") == pytest.approx(losses(tmp_path / "whole"), abs=1e-4)


def test_a_killed_process_costs_the_steps_since_the_last_checkpoint(shards_path, recipe, tmp_path):
    run = tmp_path / "run"
    path = recipe(steps=400, checkpoint_every=5, batch_norm="local")
    process = started(command(2, shards_path, path, run, restarts=1))
    killed_at = kill_a_worker(process, run, after_step=10)
    out, log = process.communicate(timeout=200)
    assert process.returncode == 0, log
    result = json.loads(out)
    assert result["step"] == 400
    assert killed_at - 5 <= result["resumed_from"] < 400
    assert "resumed" in log
    steps = [row["step"] for row in read_metrics(run) if "loss" in row]
    assert steps == list(range(1, 401)), "every step is in the metrics once"


def kill_a_worker(process, run, after_step):
    """Kill the second worker once the run has a checkpoint; the step of the newest one."""
    deadline = time.monotonic() + 100
    while time.monotonic() < deadline and process.poll() is None:
        done = max((int(path.name[5:]) for path in (run / "checkpoints").glob("step-*")), default=0)
        if done >= after_step:
            os.kill(worker(process.pid, rank=1), signal.SIGKILL)
            return done
        time.sleep(0.01)
    raise AssertionError("the run made no checkpoint to be killed after")


def worker(torchrun, rank):
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == torchrun and f"RANK={rank}".encode() in (
                folder / "environ"
            ).read_bytes().split(b"\0"):
                return int(folder.name)
        except OSError:
            continue
    raise AssertionError(f"there is no worker of rank {rank}")


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1", "SIGINT"])
def test_a_signal_saves_and_ends(shards_path, recipe, tmp_path, name):
    path = recipe(steps=100_000, evaluate_every=100_000, schedule="constant")
    process = started(command(1, shards_path, path, tmp_path / "run"))
    wait_for_steps(process, tmp_path / "run", 3)
    process.send_signal(getattr(signal, name))
    out, log = process.communicate(timeout=60)
    assert process.returncode == 130, log
    assert f"stopped by {name} and saved" in log
    result = json.loads(out)
    assert result["stopped_by"] == name
    assert open_checkpoint(tmp_path / "run").step == result["step"] >= 3
    again = recipe(steps=result["step"] + 2, evaluate_every=100_000, schedule="constant")
    assert (
        finished(command(1, shards_path, again, tmp_path / "run"))[0]["resumed_from"]
        == result["step"]
    )


def wait_for_steps(process, run, steps):
    deadline = time.monotonic() + 100
    while len(read_metrics(run)) < steps and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)


def test_a_batch_that_cannot_be_shared_is_refused_once(shards_path, recipe, tmp_path):
    process = started(command(2, shards_path, recipe(batch_size=9), tmp_path / "run"))
    out, log = process.communicate(timeout=100)
    assert process.returncode != 0
    assert out == ""
    assert (
        log.count(
            "a part of 9 videos cannot be shared equally by 2 processes; "
            "set train.batch_size to a multiple of 2"
        )
        == 1
    )


def test_processes_with_different_shards_are_refused(tmp_path):
    """A copy on another machine that is not the newest, say."""
    sets = [write_set(tmp_path / "new", range(9), [9]), write_set(tmp_path / "old", range(8), [9])]
    (tmp_path / "small.toml").write_text(small_config(steps=2, batch_size=4).toml())
    script = tmp_path / "differ.py"
    script.write_text(
        "import os, sys\n"
        "from looklisten.config import Config\n"
        "from looklisten.training.loop import train\n"
        "train(sys.argv[3 + int(os.environ['RANK'])], Config.load(sys.argv[1]), sys.argv[2])\n"
    )
    process = started(
        [
            *torchrun(2),
            str(script),
            str(tmp_path / "small.toml"),
            str(tmp_path / "run"),
            *map(str, sets),
        ]
    )
    log = process.communicate(timeout=200)[1]
    assert process.returncode != 0
    assert "the processes of this run see different shards at" in log
    assert not (tmp_path / "run").exists()


def test_processes_share_one_lock_and_local_batch_norm_is_warned_of(tmp_path):
    shards = write_set(tmp_path / "shards", range(8), [8])
    log = {}
    for negatives in ("all", "roll"):
        path = tmp_path / f"{negatives}.toml"
        path.write_text(
            small_config(steps=2, batch_size=8, negatives=negatives, batch_norm="local").toml()
        )
        # A log line is folded at the width of the terminal.
        log[negatives] = " ".join(
            finished(command(2, shards, path, tmp_path / negatives))[1].split()
        )
        assert not (tmp_path / negatives / "training.lock").exists()
    sentence = "each positive pair is normalized with the batch-norm statistics of one process"
    assert log["all"].count(sentence) == 1
    assert sentence not in log["roll"]
