"""Several trainings, one after the other, in the processes of one `torchrun`.

A start takes seconds, because each process imports PyTorch; a training of some steps takes less.

    torchrun --nproc-per-node=N training_processes.py TRAININGS.json FOLDER

Each training is a record of its name, the number of its processes, and either the words of a
command line or the shards of each process, a recipe and a folder for the run. What process R has to
say of it is in `FOLDER/NAME.R.json`.
"""

import contextlib
import io
import json
import os
import sys
import time
from dataclasses import asdict
from pathlib import Path

from looklisten.app.cli import main
from looklisten.config import Config
from looklisten.errors import LookListenError
from looklisten.model.checkpoint import open_checkpoint
from looklisten.training.loop import train

EVALUATED_PAIRS = 24
"""Little is measured on held-out videos, so that trainings are quick."""
THREADS = Path("/proc/self/task")


def gloo_threads():
    """The names of those threads of this process that are gloo's."""
    names = []
    for thread in THREADS.iterdir() if THREADS.exists() else ():
        with contextlib.suppress(OSError):  # it has just ended
            names.append((thread / "comm").read_text().strip())
    return sorted(name for name in names if "gloo" in name)


def gloo_threads_that_stay():
    """Those that are still there after a while: the kernel lists a thread that ends a moment longer."""
    deadline = time.monotonic() + 5
    while (names := gloo_threads()) and time.monotonic() < deadline:
        time.sleep(0.01)
    return names


def run_training(training, rank):
    """The report of this process: result, error, exit code, threads, and the step that is saved."""
    if "command" in training:
        output = io.StringIO()
        with contextlib.redirect_stdout(output):
            code = main(training["command"])
        return {"code": code, "output": output.getvalue(), "after": gloo_threads_that_stay()}
    during = []
    try:
        result = train(
            training["shards"][rank],
            Config.load(training["recipe"]),
            training["run"],
            progress=lambda *_, **__: during.append(gloo_threads()),
            evaluated_pairs=EVALUATED_PAIRS,
        )
    except LookListenError as error:
        return {"error": str(error), "after": gloo_threads_that_stay()}
    saved = open_checkpoint(result.path).step  # before this process could wait for anything
    result = {**asdict(result), "path": str(result.path)}
    return {"result": result, "saved": saved, "during": during, "after": gloo_threads_that_stay()}


def run_trainings(trainings, folder):
    rank = int(os.environ["RANK"])
    for number, training in enumerate(trainings):
        # The store of torchrun still holds the addresses of the training before, as it does after
        # a restart; each training has its own names in it.
        os.environ["TORCHELASTIC_RESTART_COUNT"] = str(number)
        os.environ["WORLD_SIZE"] = os.environ["LOCAL_WORLD_SIZE"] = str(training["processes"])
        if rank >= training["processes"]:
            continue
        log = io.StringIO()
        with contextlib.redirect_stderr(log):
            report = run_training(training, rank)
        # A log line is folded at the width of the terminal.
        report["log"] = " ".join(log.getvalue().split())
        (folder / f"{training['name']}.{rank}.json").write_text(json.dumps(report))


if __name__ == "__main__":
    run_trainings(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]))
