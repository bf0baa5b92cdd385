"""One training at a time in a folder, and no killed one blocks it for long."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from conftest import small_config
from looklisten.errors import ConfigError, LookListenError
from looklisten.model.checkpoint import open_checkpoint
from looklisten.system.folder_lock import this_process
from looklisten.training.baselines import baselines
from looklisten.training.lock import TRAINING, training_lock
from looklisten.training.loop import train
from noise_shards import write_set


def write_lock(folder, holder, seconds_ago=0.0):
    """A lock as another process left it."""
    folder.mkdir(exist_ok=True)
    path = folder / TRAINING.file_name
    path.write_text(json.dumps(asdict(holder)))
    then = time.time() - seconds_ago
    os.utime(path, (then, then))
    return path


@pytest.fixture
def other_machine():
    """A process of another machine."""
    return replace(this_process(), host="node7", machine="another boot", pid=123)


@pytest.fixture
def lock(tmp_path):
    found = training_lock(tmp_path / "run", renewal_seconds=0.1, stale_seconds=1.0)
    yield found
    found.release()


def test_a_lock_is_there_while_it_is_held_and_gone_after(lock, tmp_path):
    lock.acquire()
    lock.check()
    with pytest.raises(
        ConfigError,
        match=rf"run is being trained by process {os.getpid()} on .*; "
        r"wait for it, stop it, or give another",
    ):
        training_lock(tmp_path / "run").acquire()
    lock.release()
    assert list((tmp_path / "run").iterdir()) == []
    again = training_lock(tmp_path / "run")
    again.acquire()
    again.release()


def test_a_lock_of_a_process_that_ended_is_taken_over_at_once(lock, tmp_path, caplog):
    child = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"],
        capture_output=True,
        text=True,
        check=True,
    )
    write_lock(tmp_path / "run", replace(this_process(), pid=int(child.stdout)))
    caplog.set_level("INFO")
    lock.acquire()
    assert "waiting" not in caplog.text


@pytest.mark.skipif(
    not Path("/proc/self/stat").exists(), reason="the start of a process is read from Linux's /proc"
)
def test_a_process_id_that_was_reused_holds_no_lock(lock, tmp_path):
    write_lock(tmp_path / "run", replace(this_process(), started="1"))
    lock.acquire()


@pytest.mark.skipif(
    not Path("/proc/self/stat").exists(), reason="the state of a process is read from Linux's /proc"
)
def test_a_zombie_holds_no_lock(lock, tmp_path):
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    started = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()[19]
    write_lock(tmp_path / "run", replace(this_process(), pid=child.pid, started=started))
    with pytest.raises(ConfigError, match=f"is being trained by process {child.pid}"):
        lock.acquire()
    child.kill()
    state = Path(f"/proc/{child.pid}/stat")
    while state.read_text().rpartition(")")[2].split()[0] != "Z":  # a zombie until `wait`
        time.sleep(0.01)
    lock.acquire()
    child.wait()


def test_a_lock_of_another_machine_is_waited_for_and_taken_over_when_it_is_not_renewed(
    lock, tmp_path, other_machine, caplog
):
    write_lock(tmp_path / "run", other_machine)
    caplog.set_level("INFO")
    lock.acquire()
    assert (
        "by process 123 on node7; waiting up to 1 s to see whether it is still at work"
        in caplog.text
    )


def test_an_old_lock_of_another_machine_is_taken_over_at_once(
    lock, tmp_path, other_machine, caplog
):
    write_lock(tmp_path / "run", other_machine, seconds_ago=100)
    caplog.set_level("INFO")
    lock.acquire()
    assert "waiting" not in caplog.text


def test_a_lock_that_another_machine_renews_is_respected(tmp_path, other_machine):
    lock = training_lock(tmp_path / "run", stale_seconds=60.0)
    path = write_lock(tmp_path / "run", other_machine)
    renewal = threading.Timer(0.3, os.utime, [path])
    renewal.start()
    with pytest.raises(ConfigError, match="is being trained by process 123 on node7"):
        lock.acquire()
    renewal.join()


def test_a_lock_whose_writer_was_killed_before_it_wrote_is_taken_over(lock, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / TRAINING.file_name).touch()
    lock.acquire()


@pytest.mark.parametrize("trial", range(5))
def test_of_many_processes_that_find_a_dead_lock_one_gets_it(trial, tmp_path, other_machine):
    write_lock(tmp_path / "run", other_machine, seconds_ago=1000)
    locks = [training_lock(tmp_path / "run") for _ in range(8)]
    got = []

    def ask(one):
        try:
            one.acquire()
            got.append(one)
        except ConfigError:
            pass

    threads = [threading.Thread(target=ask, args=[one]) for one in locks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 1
    got[0].check()
    got[0].release()
    assert list((tmp_path / "run").iterdir()) == []


def test_a_claim_of_a_killed_process_does_not_block_the_lock(lock, tmp_path, other_machine):
    write_lock(tmp_path / "run", other_machine, seconds_ago=1000)
    claim = tmp_path / "run" / f"{TRAINING.file_name}.{other_machine.token}"
    claim.touch()
    os.utime(claim, (1.0, 1.0))
    lock.acquire()
    assert [path.name for path in (tmp_path / "run").iterdir()] == [TRAINING.file_name]


def test_a_lost_lock_ends_the_training_and_a_deleted_one_is_written_again(
    lock, tmp_path, other_machine
):
    lock.acquire()
    (tmp_path / "run" / TRAINING.file_name).unlink()
    lock.check()
    with pytest.raises(ConfigError, match="is being trained by"):
        training_lock(tmp_path / "run").acquire()
    write_lock(tmp_path / "run", other_machine)
    with pytest.raises(
        LookListenError,
        match="was taken over by process 123 on node7 while this process did not run for a while",
    ):
        lock.check()
    lock.release()
    assert (tmp_path / "run" / TRAINING.file_name).exists(), "the lock of another one stays"


def test_a_seed_of_a_table_is_worked_on_by_one_process(shards_path, tmp_path):
    lock = training_lock(tmp_path / "table" / "seed-1")
    lock.acquire()
    with pytest.raises(ConfigError, match=r"seed-1 is being trained by process"):
        baselines(shards_path, tmp_path / "table", small_config(), seeds=(0, 1))
    lock.release()
    assert not (tmp_path / "table" / "seed-0" / TRAINING.file_name).exists()


def test_a_folder_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"cannot be written to .*; give another run folder"):
        training_lock(tmp_path / "file" / "run").acquire()


def test_a_second_training_in_the_folder_is_refused_before_the_first_checkpoint_too(tmp_path):
    """The first one is stopped by the system in its first steps, so it lives and does nothing; then
    it is killed.
    """
    shards_path = write_set(tmp_path / "shards", range(8), [8])
    recipe, run = tmp_path / "small.toml", tmp_path / "run"
    recipe.write_text(
        small_config(steps=100_000, checkpoint_every=100_000, schedule="constant").toml()
    )
    command = [
        sys.executable,
        "-m",
        "looklisten",
        "train",
        str(shards_path),
        "--config",
        str(recipe),
        "--run",
        str(run),
    ]
    first = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 120
        while (
            not (run / "metrics.jsonl").exists()
            and first.poll() is None
            and time.monotonic() < deadline
        ):
            time.sleep(0.05)
        first.send_signal(signal.SIGSTOP)
        before = (run / "config.toml").read_bytes()
        with pytest.raises(ConfigError, match=f"is being trained by process {first.pid} on "):
            train(shards_path, small_config(steps=2, learning_rate=1e-5), run)
        assert (run / "config.toml").read_bytes() == before
    finally:
        first.kill()
    first.wait()
    assert (run / TRAINING.file_name).exists()
    assert train(shards_path, small_config(steps=2), run).step == 2
    assert open_checkpoint(run).step == 2
    assert not (run / TRAINING.file_name).exists()
