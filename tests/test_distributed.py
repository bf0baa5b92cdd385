"""Many processes, one batch: the losses of one process, in any number; kills and signals cost no
more than they must.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from conftest import small_config
from looklisten.app.cli import main
from looklisten.config import Config
from looklisten.model.checkpoint import open_checkpoint
from looklisten.training.loop import train
from looklisten.training.metrics_log import read_metrics
from noise_shards import write_set
from training_processes import EVALUATED_PAIRS, THREADS

# Float sums differ in their last digits with the number of processes, and a step of Adam magnifies
# that by its rate.
ALIKE = {
    "batch_norm": "sync",
    "learning_rate": 1e-4,
    "warmup_steps": 0,
    "checkpoint_every": 1000,
    "probe_every": 0,
}


def torchrun(processes, restarts=0):
    how = [
        "--standalone",
        f"--nproc-per-node={processes}",
        f"--max-restarts={restarts}",
        "--monitor-interval=0.1",
    ]
    return [sys.executable, "-m", "torch.distributed.run", *how]


def started(arguments):
    """A process, or those that it starts, with one thread each."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )


def write_recipe(path, fusion="distance", **settings):
    path.write_text(small_config(**ALIKE | settings).changed("model", fusion=fusion).toml())
    return str(path)


def train_alone(shards, recipe, run):
    return train(shards, Config.load(recipe), run, evaluated_pairs=EVALUATED_PAIRS)


def losses(run):
    return [row["loss"] for row in read_metrics(run) if "loss" in row]


SETTINGS = {
    "all-negatives": {"negatives": "all", "empty_sound_share": 0.3},
    "two-parts": {"negatives": "roll", "accumulate": 2},
    "contrastive": {"objective": "contrastive"},
    "dense": {"objective": "contrastive", "fusion": "dense"},
    "similarity": {
        "objective": "contrastive",
        "fusion": "similarity",
        "optimizer": "muon",
        "filter_step": 1e-4,
    },
    "labels": {"objective": "labels", "freeze": "audio"},
}
STEPS = 20
PARTS = {1: 6, 2: 12, 4: 18}
"""The steps at which a run ends that is resumed with another number of processes."""
BATCH_NORM_SENTENCE = (
    "each positive pair is normalized with the batch-norm statistics of one process"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The runs of this module, and the reports of their processes."""
    return tmp_path_factory.mktemp("distributed")


@pytest.fixture(scope="module")
def noise(folder):
    """Shards of which one video is held out, so that nothing is measured on it."""
    return write_set(folder / "noise", range(8), [8])


@pytest.fixture(scope="module")
def reports(shards_path, noise, folder):
    """What each process reports of each training, by its name: all in one start of torchrun."""
    less = write_set(folder / "less", range(7), [8])
    trainings = []

    def add(name, processes, recipe, shards=(shards_path,), run=None):
        paths = [str(shards[rank % len(shards)]) for rank in range(processes)]
        files = {"recipe": recipe, "run": str(run or folder / name)}
        trainings.append({"name": name, "processes": processes, "shards": paths, **files})

    def add_command(name, recipe, shards):
        command = ["train", str(shards), "--config", recipe, "-o", str(folder / name)]
        trainings.append({"name": name, "processes": 2, "command": command})

    for name, settings in SETTINGS.items():
        add(name, 2, write_recipe(folder / f"{name}.toml", steps=STEPS, **settings))
    train_alone(shards_path, parts_recipe(folder, PARTS[1]), folder / "parts")
    for processes in (2, 4):
        recipe = parts_recipe(folder, PARTS[processes])
        add(f"parts-{processes}", processes, recipe, run=folder / "parts")
    recipe = write_recipe(folder / "differ.toml", steps=2, batch_size=4)
    add("differ", 2, recipe, shards=(noise, less))
    for name, negatives in (("local-all", "all"), ("local-roll", "roll")):
        settings = {"steps": 2, "negatives": negatives, "batch_norm": "local"}
        add_command(name, write_recipe(folder / f"{name}.toml", **settings), noise)
    nine = write_recipe(folder / "nine.toml", steps=2, batch_size=9)
    add_command("nine", nine, shards_path)

    (folder / "trainings.json").write_text(json.dumps(trainings))
    script = Path(__file__).with_name("training_processes.py")
    process = started([*torchrun(4), str(script), str(folder / "trainings.json"), str(folder)])
    log = process.communicate(timeout=280)[1]
    assert process.returncode == 0, log
    return {training["name"]: reports_of(folder, training) for training in trainings}


def parts_recipe(folder, steps):
    return write_recipe(folder / f"{steps}-steps.toml", steps=steps, schedule="constant")


def reports_of(folder, training):
    ranks = range(training["processes"])
    return [json.loads((folder / f"{training['name']}.{rank}.json").read_text()) for rank in ranks]


@pytest.mark.parametrize("name", SETTINGS)
def test_two_processes_have_the_losses_of_one(shards_path, reports, folder, tmp_path, name):
    train_alone(shards_path, folder / f"{name}.toml", tmp_path / "one")
    assert losses(folder / name) == pytest.approx(losses(tmp_path / "one"), abs=1e-4)
    first = reports[name][0]
    assert len(losses(folder / name)) == first["result"]["step"] == STEPS


@pytest.mark.skipif(not THREADS.exists(), reason="threads are read from Linux's /proc")
@pytest.mark.parametrize("name", SETTINGS)
def test_no_process_outlives_its_run_by_a_thread_or_leaves_before_it_is_saved(reports, name):
    """A thread that lives on may abort the process while the interpreter ends: a run that did all
    its work, and failed.
    """
    first, second = reports[name]
    assert len(first["during"]) == STEPS
    assert all("pt_gloo_runloop" in names for names in first["during"])
    assert first["after"] == second["after"] == []
    assert first["saved"] == second["saved"] == STEPS
    keys = ("step", "held_out_accuracy", "best_step", "best_accuracy")
    assert [first["result"][key] for key in keys] == [second["result"][key] for key in keys]
    assert first["result"]["best_step"] == STEPS


def test_a_run_goes_on_with_another_number_of_processes(shards_path, reports, folder, tmp_path):
    """1 → 2 → 4 → 1 processes: the same losses as one that was never stopped, so the same rows in
    the same order.
    """
    whole = parts_recipe(folder, 24)
    train_alone(shards_path, whole, tmp_path / "whole")
    last = train_alone(shards_path, whole, folder / "parts")
    resumed_from = [reports[f"parts-{n}"][0]["result"]["resumed_from"] for n in (2, 4)]
    assert [*resumed_from, last.resumed_from] == [6, 12, 18]
    assert losses(folder / "parts") == pytest.approx(losses(tmp_path / "whole"), abs=1e-4)


def test_a_killed_process_costs_the_steps_since_the_last_checkpoint(noise, tmp_path):
    run = tmp_path / "run"
    recipe = write_recipe(tmp_path / "r.toml", steps=60, checkpoint_every=5, batch_norm="local")
    verb = ["train", str(noise), "--config", recipe, "-o", str(run)]
    process = started([*torchrun(2, restarts=1), "-m", "looklisten", *verb])
    killed_at = kill_a_worker(process, run, after_step=10)
    out, log = process.communicate(timeout=200)
    assert process.returncode == 0, log
    result = json.loads(out)
    assert result["step"] == 60
    assert killed_at - 5 <= result["resumed_from"] < 60
    assert "resumed" in log
    steps = [row["step"] for row in read_metrics(run) if "loss" in row]
    assert steps == list(range(1, 61)), "every step is in the metrics once"


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


def train_until_signaled(noise, folder):
    """The words of a command line for a training that goes on until a signal ends it."""
    recipe = write_recipe(folder / "r.toml", steps=100_000, schedule="constant")
    return ["train", str(noise), "--config", recipe, "-o", str(folder / "run")]


def wait_for_steps(run, steps, goes_on):
    deadline = time.monotonic() + 100
    while len(read_metrics(run)) < steps and goes_on() and time.monotonic() < deadline:
        time.sleep(0.01)


def check_stopped(name, result, noise, folder):
    """It is saved where it stopped, and another call goes on from there."""
    assert result["stopped_by"] == name
    assert open_checkpoint(folder / "run").step == result["step"] >= 3
    more = write_recipe(folder / "more.toml", steps=result["step"] + 2, schedule="constant")
    assert train_alone(noise, more, folder / "run").resumed_from == result["step"]


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1", "SIGINT"])
def test_a_signal_saves_and_ends(noise, tmp_path, capsys, name):
    """The command line in this process, and a thread that sends the signal to it."""
    handler = signal.getsignal(getattr(signal, name))
    ended = threading.Event()

    def send():
        wait_for_steps(tmp_path / "run", 3, lambda: not ended.is_set())
        if not ended.is_set():
            os.kill(os.getpid(), getattr(signal, name))

    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    code = main(train_until_signaled(noise, tmp_path))
    ended.set()
    thread.join()
    printed = capsys.readouterr()
    assert code == 130
    assert f"stopped by {name} and saved" in " ".join(printed.err.split())
    assert signal.getsignal(getattr(signal, name)) == handler
    check_stopped(name, json.loads(printed.out), noise, tmp_path)


def test_a_signal_ends_a_process_with_its_exit_code(noise, tmp_path):
    process = started([sys.executable, "-m", "looklisten", *train_until_signaled(noise, tmp_path)])
    wait_for_steps(tmp_path / "run", 3, lambda: process.poll() is None)
    process.send_signal(signal.SIGTERM)
    out, log = process.communicate(timeout=60)
    assert process.returncode == 130, log
    assert "stopped by SIGTERM and saved" in " ".join(log.split())
    check_stopped("SIGTERM", json.loads(out), noise, tmp_path)


def test_a_batch_that_cannot_be_shared_is_refused_once(reports):
    assert [report["code"] for report in reports["nine"]] == [1, 1]
    assert [report["output"] for report in reports["nine"]] == ["", ""]
    sentence = (
        "a part of 9 videos cannot be shared equally by 2 processes; "
        "set train.batch_size to a multiple of 2"
    )
    assert " ".join(report["log"] for report in reports["nine"]).count(sentence) == 1


def test_processes_with_different_shards_are_refused(reports, folder):
    """A copy on another machine that is not the newest, say."""
    for report in reports["differ"]:
        assert "the processes of this run see different shards at" in report["error"]
        assert report["after"] == []
    assert not (folder / "differ").exists()


def test_processes_share_one_lock_and_local_batch_norm_is_warned_of(reports, folder):
    log = {}
    for name in ("local-all", "local-roll"):
        first, second = reports[name]
        assert first["code"] == second["code"] == 0, first["log"] + second["log"]
        log[name] = first["log"] + second["log"]
        assert "2 processes" in first["log"]
        assert (json.loads(first["output"])["step"], second["output"]) == (2, "")
        assert not (folder / name / "training.lock").exists()
    assert log["local-all"].count(BATCH_NORM_SENTENCE) == 1
    assert BATCH_NORM_SENTENCE not in log["local-roll"]
